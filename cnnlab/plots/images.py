"""Figures of images: what is in a table, how many of each, and what a model got wrong."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cnnlab._common import require_columns
from cnnlab.images.levels import levels_of
from cnnlab.plots.style import CYCLE, GREEN, RED, image_grid, new_axes, readable, shown, thumbnail

TITLE = 19  # letters of label and prediction that fit above an image in one line


def images(table: pd.DataFrame, *, count: int = 12, columns: int = 6, ax: Axes | None = None) -> Axes:
    """Shows images with their labels, taking turns through the classes so that each is seen.

    Args:
        table: With the columns path and label; with `predicted`, titles say so, green where right and red where wrong.
        count: How many at most.
        columns: Images in a row.
        ax: Where to draw; new Axes where None.

    Raises:
        ValueError: If there is nothing to show.

    Example:
        >>> import tempfile
        >>> from cnnlab import plots, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     ax = plots.images(table)
        >>> len(ax.child_axes)
        6
    """
    require_columns(table, "path", "label", caller="plots.images")
    turn = table.groupby("label", observed=True).cumcount()
    return _show(table.assign(_turn=turn.to_numpy()).sort_values(["_turn", "label"], kind="stable"), count, columns, ax)


def worst(predictions: pd.DataFrame, *, count: int = 12, columns: int = 6, ax: Axes | None = None) -> Axes:
    """Shows the mistakes that the model was most certain of: look here first for wrong labels and blind spots.

    Args:
        predictions: From `experiments.predict`: path, label, predicted, confidence.
        count: How many at most.
        columns: Images in a row.
        ax: Where to draw; new Axes where None.
    """
    require_columns(predictions, "path", "label", "predicted", "confidence", caller="plots.worst")
    wrong = predictions[predictions["predicted"].notna() & _differ(predictions)]
    if not len(wrong):
        return _nothing(f"no mistakes in {len(predictions)} images", ax)
    return _show(wrong.sort_values("confidence", ascending=False, kind="stable"), count, columns, ax)


def uncertain(predictions: pd.DataFrame, *, count: int = 12, columns: int = 6, ax: Axes | None = None) -> Axes:
    """Shows the images that the model was least certain of: the ones to label or collect more of.

    Args:
        predictions: From `experiments.predict`: path, label, predicted, confidence.
        count: How many at most.
        columns: Images in a row.
        ax: Where to draw; new Axes where None.
    """
    require_columns(predictions, "path", "label", "predicted", "confidence", caller="plots.uncertain")
    known = predictions[predictions["predicted"].notna()]
    return _show(known.sort_values("confidence", kind="stable"), count, columns, ax)


def _differ(table: pd.DataFrame) -> np.ndarray:
    return table["label"].astype(str).to_numpy() != table["predicted"].astype(str).to_numpy()


def _show(table: pd.DataFrame, count: int, columns: int, ax: Axes | None) -> Axes:
    if not len(table):
        raise ValueError("Expected a table with at least one image to show. Received one without rows.")
    part = table.head(count)
    names = [shown(name, 18) for name in part["label"]]
    colors = None
    if "predicted" in part:
        colors = [RED if wrong else GREEN for wrong in _differ(part)]
        guesses = [shown(name, 18) for name in part["predicted"]]
        arrow = " → " if max(len(a) + len(b) for a, b in zip(names, guesses, strict=True)) <= TITLE else "\n→ "
        names = [
            f"{name}{arrow}{guess}\n{confidence:.0%} certain" if wrong else f"{name}\n{confidence:.0%} certain"
            for name, guess, confidence, wrong in zip(names, guesses, part["confidence"], _differ(part), strict=True)
        ]
    pictures = (thumbnail(path, levels=levels_of(table)) for path in part["path"])
    return image_grid(pictures, names, columns=min(columns, len(part)), colors=colors, ax=ax)


def _nothing(words: str, ax: Axes | None) -> Axes:
    ax = new_axes(ax, (5, 1))
    ax.axis("off")
    ax.text(0.5, 0.5, words, ha="center", va="center")
    return ax


def class_counts(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Shows how many images each class has, split by split where the table is divided.

    Args:
        table: With the column label, and possibly split.
        ax: Where to draw; new Axes where None.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import plots
        >>> ax = plots.class_counts(pd.DataFrame({"label": pd.Categorical(["cat", "dog", "dog"])}))
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['cat', 'dog']
    """
    require_columns(table, "label", caller="plots.class_counts")
    classes = table["label"].cat.categories
    parts = table["split"].astype(str) if "split" in table else pd.Series("images", index=table.index)
    order = [name for name in ("train", "val", "test") if (parts == name).any()]
    order += sorted(set(parts) - set(order))
    counts = pd.crosstab(table["label"], parts).reindex(index=classes, columns=order, fill_value=0)
    ax = new_axes(ax, (7, 0.8 + 0.28 * len(classes)))
    left = np.zeros(len(classes))
    for name, color in zip(order, CYCLE * len(order), strict=False):
        ax.barh(range(len(classes)), counts[name], left=left, label=name, color=color, height=0.75)
        left += counts[name].to_numpy()
    for row, total in enumerate(left):
        ax.text(total, row, f" {int(total)}", va="center", fontsize=8)
    ax.set_yticks(range(len(classes)), [shown(name) for name in classes], fontsize=9 if len(classes) <= 30 else 6)
    ax.invert_yaxis()
    ax.margins(x=0.08)
    ax.set_xlabel(f"images (n = {len(table):,})")
    ax.spines[["top", "right"]].set_visible(False)
    if len(order) > 1:
        ax.legend(frameon=False, ncols=len(order), loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
    return readable(ax)

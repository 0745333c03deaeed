"""Figures of images: what is in a table, how many of each, and what a model got wrong."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cnnlab._common import require_columns
from cnnlab.plots.style import GREEN, RED, color_of, finish, image_grid, new_axes, shown, thumbnails

BLACK = "#000000"
TITLE = 19  # letters of label and prediction that fit above an image in one line


def images(table: pd.DataFrame, *, count: int = 12, columns: int = 6, ax: Axes | None = None) -> Axes:
    """Shows images with their labels, taking turns through the classes so that each is seen.

    Args:
        table: With the column path; with `label`, its classes take turns; with `predicted`, titles say so, green where
            right and red where wrong, and `confidence` how certain the model was.
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
    require_columns(table, "path", *(["label"] if "label" in table else []), caller="plots.images")
    if "label" in table:
        turn = table.groupby("label", observed=True, dropna=False).cumcount()
        table = table.assign(_turn=turn.to_numpy()).sort_values(["_turn", "label"], kind="stable")
    return _show(table, count, columns, ax)


def worst(predictions: pd.DataFrame, *, count: int = 12, columns: int = 6, ax: Axes | None = None) -> Axes:
    """Shows the mistakes that the model was most certain of: look here first for wrong labels and blind spots.

    Args:
        predictions: From `experiments.predict`: path, label, predicted, confidence.
        count: How many at most.
        columns: Images in a row.
        ax: Where to draw; new Axes where None.
    """
    require_columns(predictions, "path", "label", "predicted", "confidence", caller="plots.worst")
    wrong = predictions[_judged(predictions) == RED]
    if not len(wrong):
        ax = new_axes(ax, (5, 1))
        ax.axis("off")
        ax.text(0.5, 0.5, f"no mistakes in {len(predictions)} images", ha="center", va="center")
        return ax
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


def _judged(table: pd.DataFrame) -> np.ndarray:
    """The colour of each prediction: right, wrong, or black where label or prediction are not known."""
    if not {"label", "predicted"} <= set(table):
        return np.full(len(table), BLACK)
    wrong = table["label"].astype(str).to_numpy() != table["predicted"].astype(str).to_numpy()
    known = table[["label", "predicted"]].notna().all(axis=1).to_numpy()
    return np.where(known, np.where(wrong, RED, GREEN), BLACK)


def _show(table: pd.DataFrame, count: int, columns: int, ax: Axes | None) -> Axes:
    if not len(table):
        raise ValueError("Expected a table with at least one image to show. Received one without rows.")
    part = table.head(count)
    colors = _judged(part).tolist()
    known = [name for name in ("label", "predicted") if name in part]
    names = [[shown(name, 18) if pd.notna(name) else "—" for name in row] for row in part[known].to_numpy(dtype=object)]
    arrow = "\n→ " if max(sum(map(len, row)) for row in names) > TITLE else " → "
    titles = [row[0] if color == GREEN else arrow.join(row) for row, color in zip(names, colors, strict=True)]
    if {"predicted", "confidence"} <= set(part):
        certain = ["" if pd.isna(one) else f"\n{one:.0%} certain" for one in part["confidence"]]
        titles = [title + words for title, words in zip(titles, certain, strict=True)]
    return image_grid(thumbnails(part, of=table), titles, columns=min(columns, len(part)), colors=colors, ax=ax)


def class_counts(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Shows how many images each class has, split by split where the table has a split.

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
    parts = pd.Series("images", index=table.index)
    if "split" in table:
        parts = table["split"].astype(object).where(table["split"].notna(), "no split").astype(str)
    order = [name for name in ("train", "val", "test") if (parts == name).any()]
    order += sorted(set(parts) - set(order))
    counts = pd.crosstab(table["label"], parts).reindex(index=classes, columns=order, fill_value=0)
    ax = new_axes(ax, (7, 0.8 + 0.28 * len(classes)))
    left = np.zeros(len(classes))
    for number, name in enumerate(order):
        ax.barh(range(len(classes)), counts[name], 0.75, left, label=shown(name), color=color_of(number))
        left += counts[name].to_numpy()
    for row, total in enumerate(left):
        ax.text(total, row, f" {int(total)}", va="center", fontsize=8)
    ax.set_yticks(range(len(classes)), [shown(name) for name in classes], fontsize=9 if len(classes) <= 30 else 6)
    ax.invert_yaxis()
    ax.margins(x=0.08)
    without = f", {table['label'].isna().sum():,} without label" if table["label"].isna().any() else ""
    legend: dict[str, Any] = {"ncols": len(order), "loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    return finish(ax, f"images (n = {len(table):,}{without})", **(legend if len(order) > 1 else {}))

"""Figures of what probabilities are worth: ROC, precision and recall, thresholds, and how honest confidence is."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cnnlab._common import require_columns
from cnnlab.plots.style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    color_of,
    finish,
    new_axes,
    readable,
    shown,
)

COLORED = CYCLE[:6]  # beyond so many classes only the worst have a colour, since more are not told apart
BOX: dict[str, Any] = {"frameon": True, "framealpha": 0.85, "edgecolor": "none"}
Drawstyle = Literal["default", "steps-pre"]
SHARES = {"precision": BLUE, "recall": ORANGE, "f1": GREEN, "false_positive_rate": PURPLE}
AMOUNTS = {"cost": RED, "flagged": SKY, "misses": GREY, "false_alarms": PURPLE}
MARKERS = "os^Dv"  # the next one where the colours begin again


def roc(curves: pd.DataFrame, ax: Axes | None = None, *, highlight: int = 5, up_to: float = 1.0) -> Axes:
    """Shows, for each class against the rest, how many of it are found as more false alarms are allowed.

    With more than six classes the worst ones, by their area, have colours and names; the rest is grey.

    Args:
        curves: From `metrics.roc`.
        ax: Where to draw; new Axes where None.
        highlight: How many of the worst classes to name when there are more than six.
        up_to: The largest share of false alarms to show: 0.1 enlarges what good models differ in.

    Raises:
        KeyError: If the table is another.
        ValueError: If `up_to` is not a share above 0.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics, plots
        >>> label = pd.Categorical(["cat", "cat", "dog"])
        >>> predictions = pd.DataFrame({"label": label, "predicted": label,
        ...                             "p_cat": [0.9, 0.6, 0.2], "p_dog": [0.1, 0.4, 0.8]})
        >>> plots.roc(metrics.roc(predictions)).get_xlabel()
        'false alarms, share of the other classes (n = 3 images)'
    """
    _require(curves, "false_positive_rate", "true_positive_rate", caller="roc")
    if not 0 < up_to <= 1:
        raise ValueError(f"`up_to` expects a share of false alarms above 0 and up to 1. Received: up_to={up_to}.")
    ax = new_axes(ax, (5.2, 4.4))
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    if up_to == 1:
        ax.annotate("by chance", (0.5, 0.5), (3, -3), textcoords="offset points", va="top", fontsize=8, color=GREY)
    _lines(ax, curves, "false_positive_rate", "true_positive_rate", highlight)
    words = f"false alarms, share of the other classes (n = {_images(curves):,} images)", "found, share of the class"
    return _within(finish(ax, *words, loc="lower right", **BOX), up_to)


def precision_recall(curves: pd.DataFrame, ax: Axes | None = None, *, highlight: int = 5) -> Axes:
    """Shows, for each class against the rest, what finding more of it costs in precision.

    Every curve ends where every image is predicted as the class: there, precision is the share of the class among the
    images.

    Args:
        curves: From `metrics.precision_recall`.
        ax: Where to draw; new Axes where None.
        highlight: How many of the worst classes to name when there are more than six.

    Raises:
        KeyError: If the table is another.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics, plots
        >>> label = pd.Categorical(["cat", "cat", "dog"])
        >>> predictions = pd.DataFrame({"label": label, "predicted": label,
        ...                             "p_cat": [0.9, 0.6, 0.2], "p_dog": [0.1, 0.4, 0.8]})
        >>> ax = plots.precision_recall(metrics.precision_recall(predictions))
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['cat (2 images): area 1.000', 'dog (1 image): area 1.000']
    """
    _require(curves, "recall", "precision", caller="precision_recall")
    ax = new_axes(ax, (5.2, 4.4))
    # between two thresholds the precision is that of the one which reaches the recall, as average precision counts it
    _lines(ax, curves, "recall", "precision", highlight, drawstyle="steps-pre")
    words = f"recall: found, share of the class (n = {_images(curves):,} images)"
    return _within(finish(ax, words, "precision: right, share of the predictions", loc="lower left", **BOX))


def _require(curves: pd.DataFrame, *columns: str, caller: str) -> None:
    if isinstance(curves, pd.DataFrame) and "predicted" in curves and "area" not in curves:
        raise KeyError(
            f"`plots.{caller}` draws the table of `metrics.{caller}`. Received a prediction table: call "
            f"`plots.{caller}(metrics.{caller}(predictions))`."
        )
    require_columns(curves, "class", "area", "images", "others", *columns, caller=f"plots.{caller}")


def _images(curves: pd.DataFrame) -> int:
    return int(curves["images"].iloc[0] + curves["others"].iloc[0])


def _lines(ax: Axes, curves: pd.DataFrame, x: str, y: str, highlight: int, drawstyle: Drawstyle = "default") -> None:
    """One line a class; where classes are many, the best ones grey and behind, the worst ones in colour."""
    classes = curves.drop_duplicates("class")
    chosen = classes if len(classes) <= len(COLORED) else classes.nsmallest(min(highlight, len(COLORED)), "area")
    rest = classes[~classes["class"].isin(chosen["class"])]
    parts = dict(iter(curves.groupby("class", sort=False, observed=True)))
    for number, name in enumerate(rest["class"]):
        areas = f"{rest['area'].min():.3f} to {rest['area'].max():.3f}"
        label = None if number else f"{len(rest)} better classes: area {areas}"
        ax.plot(parts[name][x], parts[name][y], label=label, color=GREY, alpha=0.35, linewidth=0.8, drawstyle=drawstyle)
    for name, images, area, color in zip(chosen["class"], chosen["images"], chosen["area"], COLORED, strict=False):
        label = f"{shown(name, 20)} ({images:,} image{'s' * (images != 1)}): area {area:.3f}"
        ax.plot(parts[name][x], parts[name][y], label=label, color=color, linewidth=1.6, drawstyle=drawstyle)


def _within(ax: Axes, up_to: float = 1.0) -> Axes:
    ax.set(xlim=(-0.01 * up_to, 1.01 * up_to), ylim=(-0.01, 1.03))
    return ax


def thresholds(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    show: Sequence[str] = ("precision", "recall", "f1"),
    chosen: float | None = None,
) -> Axes:
    """Shows what each threshold on one class would do, and the one that was chosen.

    Args:
        table: From `metrics.thresholds`.
        ax: Where to draw; new Axes where None.
        show: Columns of it. Shares (precision, recall, f1, false_positive_rate) are read at the left; cost and numbers
            of images (cost, flagged, misses, false_alarms) at the right.
        chosen: A threshold to mark, such as `metrics.choose_threshold` gives.

    Raises:
        ValueError: If `show` names something else.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics, plots
        >>> label = pd.Categorical(["ok", "ok", "crack", "crack"])
        >>> predictions = pd.DataFrame({"label": label, "predicted": label,
        ...                             "p_ok": [0.9, 0.6, 0.7, 0.2], "p_crack": [0.1, 0.4, 0.3, 0.8]})
        >>> plots.thresholds(metrics.thresholds(predictions, "crack"), chosen=0.3).get_ylabel()
        'share'
    """
    require_columns(table, "threshold", "flagged", "misses", caller="plots.thresholds")
    strange = [name for name in show if name not in (SHARES | AMOUNTS) or name not in table]
    if strange or not show:
        raise ValueError(
            f"`show` expects columns of `metrics.thresholds`: {', '.join(SHARES | AMOUNTS)}. Received: {list(show)!r}."
        )
    ax = new_axes(ax, (6.2, 3.4))
    rising = table.iloc[::-1]
    # what holds at a threshold holds down to the next lower one, and from the highest up nothing is flagged
    places = np.concatenate([[0.0], np.minimum(rising["threshold"], 1.0)])
    amounts = [name for name in show if name in AMOUNTS]
    right = ax.twinx() if amounts else ax
    for name in show:
        values = rising[name].to_numpy(dtype=float)
        side, color, line = (ax, SHARES[name], "-") if name in SHARES else (right, AMOUNTS[name], "--")
        how: dict[str, Any] = {"drawstyle": "steps-pre", "color": color, "linestyle": line}
        side.plot(places, np.append(values[:1], values), label=name.replace("_", " "), **how)
    if chosen is not None and np.isfinite(chosen):
        ax.axvline(chosen, color="black", linewidth=1, linestyle=":", label=f"chosen: {chosen:.3g}")
    count, of_class = int(table["flagged"].max()), int(table["misses"].max())
    words = f"threshold: predicted from this probability up (n = {count:,} images, {of_class:,} of the class)"
    ax.set(xlabel=words, ylabel="share", xlim=(0, 1), ylim=(-0.01, 1.03))
    ax.spines["top"].set_visible(False)
    right.spines["top" if amounts else "right"].set_visible(False)
    if amounts:
        top = float(table[amounts].to_numpy().max()) or 1.0
        if amounts == ["cost"]:  # beyond a few times the cost of never calling it, costs are of no interest
            top = min(top, 3 * float(table["cost"].iloc[0]) or top)
        words = "cost, in your unit" if amounts == ["cost"] else "images" + ", cost" * ("cost" in amounts)
        right.set(ylim=(-0.01 * top, 1.03 * top), ylabel=words)
        right.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        right.yaxis.set_major_formatter("{x:,.0f}")
    lines = [line for side in ((ax, right) if amounts else (ax,)) for line in side.get_legend_handles_labels()[0]]
    above: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": min(len(lines), 5)}
    ax.legend(handles=lines, frameon=False, fontsize=8, **above)
    return readable(ax)


def reliability(tables: pd.DataFrame | Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Shows accuracy against confidence, bin by bin with 95 % intervals, and above it how many images each bin has.

    On the diagonal confidence is honest; below it the model is too sure of itself, above it not sure enough. Several
    tables have colours of their own, and markers where they are more than seven.

    Args:
        tables: From `metrics.reliability`; or several under names, as `{"before": …, "after": …}`.
        ax: Where to draw; new Axes where None.

    Raises:
        KeyError: If a table is another.
        ValueError: If there is none.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics, plots
        >>> label = pd.Categorical(["cat", "dog"] * 10)
        >>> predictions = pd.DataFrame({"label": label, "predicted": label[[1, *range(1, 20)]], "confidence": 0.97})
        >>> plots.reliability(metrics.reliability(predictions)).get_xlabel()
        'confidence (n = 20 images)'
    """
    named = {"": tables} if isinstance(tables, pd.DataFrame) else dict(tables)
    if not named:
        raise ValueError("`plots.reliability` expects at least one table of `metrics.reliability`. Received none.")
    for table in named.values():
        columns = ("left", "right", "confidence", "accuracy", "low", "high", "images")
        require_columns(table, *columns, caller="plots.reliability")
    ax = new_axes(ax, (4.8, 4.8))
    above = ax.inset_axes((0, 1.04, 1, 0.2), sharex=ax)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for number, (name, table) in enumerate(named.items()):
        color = color_of(number)
        ends = [table["accuracy"] - table["low"], table["high"] - table["accuracy"]]
        how: dict[str, Any] = {"marker": MARKERS[number // len(CYCLE) % len(MARKERS)], "color": color}
        how |= {"markersize": 4, "linewidth": 1.2, "elinewidth": 0.9, "capsize": 2}
        label = shown(name) if name else "with 95 % interval"
        ax.errorbar(table["confidence"], table["accuracy"], np.maximum(ends, 0), label=label, **how)
        fill = {"color": color, "alpha": 0.7} if len(named) == 1 else {"edgecolor": color, "facecolor": "none"}
        above.bar(table["left"], table["images"], table["right"] - table["left"], align="edge", **fill)
    counts = {f"{int(table['images'].sum()):,}" for table in named.values()}
    ax.set(xlim=(0, 1.01), ylim=(0, 1.02))
    ax.annotate("too sure", (0.97, 0.04), xycoords="axes fraction", ha="right", fontsize=8, color=GREY)
    ax.annotate("not sure enough", (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=8, color=GREY)
    above.tick_params(labelbottom=False, labelsize=8)
    above.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    finish(above, y="images")
    words = f"confidence (n = {' and '.join(sorted(counts))} images)", "accuracy of the images in the bin"
    return finish(ax, *words, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.24))

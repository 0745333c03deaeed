"""Figures of how good predictions are: what is taken for what, each class and group with its interval, and events."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import PercentFormatter

from cnnlab import metrics
from cnnlab._common import require_column, require_columns
from cnnlab.metrics.formulas import divide
from cnnlab.metrics.score import off_diagonal
from cnnlab.plots.style import GREEN, GREY, ORANGE, RED, SKY, color_of, finish, new_axes, readable, shown, with_interval

NUMBERS_UP_TO = 25  # classes: beyond, numbers in the cells of a confusion would not be legible
SHARES = {
    None: "of the label's images",
    "row": "of the label's images",
    "column": "of the prediction's images",
    "all": "of all images",
    "unknown": "as the table says",
}
NAMES_UP_TO = 40  # … and beyond this, not every name at its sides; the most frequent mistakes are then listed
FACTS = ("metric", "class", "value", "low", "high", "images", "small")


def confusion(predictions: pd.DataFrame, ax: Axes | None = None, *, mistakes: int = 12) -> Axes:
    """Shows what is taken for what: a row for each label, a column for each prediction, the diagonal is right.

    Colour is the share of the label's images, so that a rare class is as visible as a frequent one; numbers are images.
    A normalized table (`normalize=`) shows its shares in both.
    With more than 40 classes the most frequent mistakes are listed in words, since not every name fits on the axes.

    Args:
        predictions: With label and predicted; or a square table of counts or shares, as `metrics.confusion` gives.
        ax: Where to draw; new Axes where None.
        mistakes: How many of the most frequent mistakes to list beyond 40 classes.

    Raises:
        ValueError: If there is nothing to show.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import plots
        >>> label = pd.Categorical(["cat", "cat", "dog", "dog"])
        >>> ax = plots.confusion(pd.DataFrame({"label": label, "predicted": label[[0, 2, 2, 2]]}))
        >>> [text.get_text() for text in ax.texts]
        ['1', '1', '0', '2']
    """
    table, divided, images = _confusion_table(predictions)
    counts = table.to_numpy(dtype=float)
    share = counts if divided else divide(counts, counts.sum(axis=1, keepdims=True))
    classes = len(table)
    many = classes > NAMES_UP_TO
    side, longest = min(1.5 + 0.5 * classes, 5.8), min(max(len(str(name)) for name in table.columns), 22)
    below = 0.3 if _straight(classes, longest) else 0.075 * longest
    ax = new_axes(ax, (8, 5.2) if many else (min(side + 1.8 + 0.075 * longest, 8), side + below))
    # a root lifts the few mistakes of a good model out of white
    picture = ax.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    ax.set(xlabel="predicted", ylabel="label" if divided else "label (images)")
    if images is not None:
        ax.set_title(f"n = {images:,} images", fontsize=9, loc="left")
    _names(ax, table, None if divided else counts.sum(axis=1))
    if classes <= NUMBERS_UP_TO:
        _numbers(ax, counts, share, divided is not None)
    where: dict[str, Any] = {"ax": ax, "shrink": 0.8, "pad": 0.02}
    if many:
        _mistakes(ax, table, divided, mistakes)
        where = {"cax": ax.inset_axes((1.04, 0.0, 0.03, 0.25))}
    bar = ax.figure.colorbar(picture, ticks=[0, 0.05, 0.25, 0.5, 1], format=PercentFormatter(1, decimals=0), **where)
    bar.set_label(SHARES[divided], fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return readable(ax)


def _confusion_table(predictions: pd.DataFrame) -> tuple[pd.DataFrame, str | None, int | None]:
    """The square table, what it was divided by if it was, and how many images it counts if that is known."""
    require_columns(predictions, caller="plots.confusion")
    if "label" in predictions.columns:
        table = metrics.confusion(predictions)
    else:
        table = predictions
        if list(table.index) != list(table.columns):
            raise ValueError(
                "`plots.confusion` expects a prediction table with the columns label and predicted, or the square "
                f"table of `metrics.confusion`. Received the columns {', '.join(map(str, table.columns[:8]))}."
            )
    values = table.to_numpy(dtype=float)
    if not np.nansum(values) > 0:
        raise ValueError("`plots.confusion` expects rows that have a label and a prediction. Received none.")
    whole = np.allclose(np.nan_to_num(values), np.round(np.nan_to_num(values)))
    divided = table.attrs.get("normalize", None if whole else "unknown")
    images = table.attrs.get("images", int(np.nansum(values)) if whole and divided is None else None)
    return table.fillna(0), divided, images


def _numbers(ax: Axes, counts: np.ndarray, share: np.ndarray, divided: bool) -> None:
    classes = len(counts)
    size = float(np.clip(10.5 - 0.2 * classes, 5.5, 10))
    for (row, column), count in np.ndenumerate(counts):
        if count or classes <= 5:
            words = f"{count:.2f}".removeprefix("0") if divided else f"{count:,.0f}"
            color = "white" if share[row, column] > 0.35 else "black"
            ax.text(column, row, words, ha="center", va="center", fontsize=size, color=color)


def _straight(names: int, longest: int) -> bool:
    """Whether so many names, the longest of so many letters, fit below the picture without being turned."""
    return longest * names <= 24


def _names(ax: Axes, table: pd.DataFrame, images: np.ndarray | None) -> None:
    """Names at the sides: all of them, or every second, third … where they would run into each other."""
    classes = len(table)
    size = 9 if classes <= 12 else 7.5 if classes <= NUMBERS_UP_TO else 6
    step = 1 if classes <= NAMES_UP_TO else -(-classes // 16)
    places = list(range(0, classes, step))
    names = [shown(table.columns[place], 22 if classes <= 12 else 16) for place in places]
    straight = _straight(len(names), max(map(len, names)))
    ax.set_xticks(places, names, fontsize=size, rotation=0 if straight else 90)
    if images is not None:
        names = [f"{name} ({images[place]:,.0f})" for name, place in zip(names, places, strict=True)]
    ax.set_yticks(places, names, fontsize=size)


def _mistakes(ax: Axes, table: pd.DataFrame, divided: str | None, most: int) -> None:
    """Lists the largest cells off the diagonal, at the right of the picture."""
    lines = ["most frequent mistakes", "(label → predicted)", ""]
    for label, guess, cell, share in off_diagonal(table)[:most].itertuples(index=False, name=None):
        words = f"{cell:.1%}" if divided else f"{cell:g} of {cell / share:g}"
        lines.append(f"{shown(label, 18)} → {shown(guess, 18)}: {words}")
    if len(lines) > 3:
        ax.annotate("\n".join(lines), (1.04, 1.0), xycoords="axes fraction", va="top", fontsize=7.5, linespacing=1.5)


def per_class(
    table: pd.DataFrame, ax: Axes | None = None, *, score: str = "f1", sort: bool = False, worst: int | None = None
) -> Axes:
    """Shows one score of each class, with its interval where the table has it.

    Args:
        table: From `metrics.per_class`; with `bootstrap=1000` there, bars carry their 95 % interval.
        ax: Where to draw; new Axes where None.
        score: precision, recall or f1.
        sort: Whether the worst class comes first, instead of the order of the classes.
        worst: Show only so many classes, the worst first.

    Raises:
        ValueError: If the table is not one of `metrics.per_class`, or lacks the score, or `worst` is below 1.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics, plots
        >>> label = pd.Categorical(["cat", "cat", "dog", "dog"])
        >>> predictions = pd.DataFrame({"label": label, "predicted": label[[0, 2, 2, 2]]})
        >>> ax = plots.per_class(metrics.per_class(predictions), score="recall")
        >>> [float(bar.get_width()) for bar in ax.patches]
        [0.5, 1.0]
    """
    require_columns(table, caller="plots.per_class")
    if score not in table or "support" not in table:
        raise ValueError(
            f"`plots.per_class` expects the table of `metrics.per_class` and one of its scores. Received: "
            f"score={score!r} and the columns {', '.join(map(str, table.columns[:8]))}."
        )
    if worst is not None and worst < 1:
        raise ValueError(f"`worst` expects a number of classes from 1 up, or None for all. Received: worst={worst}.")
    whole, with_limits = table, f"{score}_low" in table
    if sort or worst:
        table = table.sort_values(score, kind="stable").head(worst or len(table))
    classes = len(table)
    ax = new_axes(ax, (7, max(1.9, 0.9 + (0.3 if classes <= 25 else 0.19) * classes)))
    places = np.arange(classes)
    ax.barh(places, np.nan_to_num(table[score].to_numpy(dtype=float)), color=SKY, height=0.75)
    if with_limits:
        how: dict[str, Any] = {"color": "black", "linewidth": 1.2 if classes <= 40 else 0.7, "label": "95 % interval"}
        ax.hlines(places, table[f"{score}_low"], table[f"{score}_high"], **how)
    names = [f"{shown(name)} ({n:,})" for name, n in zip(table.index, table["support"], strict=True)]
    ax.set_yticks(places, names, fontsize=9 if classes <= 25 else 8)
    ax.set(xlim=(0, 1), ylim=(classes - 0.4, -0.6))
    if classes < len(whole):
        ax.set_title(f"the worst {classes} of {len(whole)} classes", fontsize=9, loc="left")
    legend = {"loc": "lower right", "bbox_to_anchor": (1, 1)} if with_limits else {}
    return finish(ax, f"{score} (n = {int(whole['support'].sum()):,} images)", "class (images)", **legend)


def groups(
    table: pd.DataFrame, ax: Axes | None = None, *, metric: str = "accuracy", positive: Hashable | None = None
) -> Axes:
    """Shows one rate of each group, with its interval and its size; pale where too few images say too little.

    Args:
        table: From `fairness.groups`.
        ax: Where to draw; new Axes where None.
        metric: accuracy, selection_rate, true_positive_rate or false_positive_rate.
        positive: The class, where the table has several; all of them side by side where None.

    Raises:
        ValueError: If the table has no such rows.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import fairness, plots
        >>> label = pd.Categorical(["ok", "crack"] * 100)
        >>> table = pd.DataFrame({"label": label, "predicted": label, "camera": ["north"] * 100 + ["south"] * 100})
        >>> ax = plots.groups(fairness.groups(table, "camera"))
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['north (100)', 'south (100)']
    """
    require_columns(table, *FACTS, caller="plots.groups")
    chosen = table[table["metric"] == metric]
    if positive is not None:
        chosen = chosen[chosen["class"] == positive]
    if not len(chosen):
        raise ValueError(
            f"`plots.groups` expects metrics of {', '.join(table['metric'].unique())} and classes of "
            f"{', '.join(map(str, table['class'].unique()[:10]))}. Received: metric={metric!r}, positive={positive!r}."
        )
    keys = [column for column in table.columns if column not in FACTS]
    chosen = chosen.reset_index(drop=True)
    names = chosen[keys].astype(str).agg(", ".join, axis=1)
    order = list(dict.fromkeys(names))
    classes = list(dict.fromkeys(chosen["class"]))
    ax = new_axes(ax, (6.5, 1.2 + len(order) * max(0.32, 0.13 * len(classes))))
    for number, name in enumerate(classes):
        part = chosen[chosen["class"] == name]
        offset = (number - (len(classes) - 1) / 2) * min(0.16, 0.7 / len(classes))
        places = np.array([order.index(group) for group in names[part.index]]) + offset
        label = "" if len(classes) == 1 else shown(name, 18)
        rates = part[["value", "low", "high"]].to_numpy(dtype=float)
        for index, (place, rate, small) in enumerate(zip(places, rates, part["small"], strict=True)):
            pale = {"alpha": 0.35 if small else 1.0, "face": color_of(number)}
            color = GREY if small else color_of(number)
            with_interval(ax, place, rate, color, label=None if index else label, **pale)
    one = chosen.groupby(names.to_numpy(), sort=False)["images"].agg(["min", "max"])
    sizes = [f"{low:,}" if low == high else f"{low:,}-{high:,}" for low, high in one.itertuples(index=False)]
    ax.set_yticks(range(len(order)), [f"{shown(name)} ({n})" for name, n in zip(one.index, sizes, strict=True)])
    ax.set(xlim=(-0.02, 1.02), ylim=(len(order) - 0.4, -0.6))
    ax.xaxis.grid(True, color="0.92")
    ax.set_axisbelow(True)
    of_class = f" of {shown(classes[0], 18)}" if len(classes) == 1 and classes[0] != "all" else ""
    words = f"{metric.replace('_', ' ')}{of_class}, with its 95 % interval"
    words += "; pale: too few images" if chosen["small"].any() else ""
    legend = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if len(classes) > 1 else {}
    return finish(ax, words, ", ".join(shown(key, 14) for key in keys) + " (images)", **legend)


def events(matched: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Shows when each event lasted, whether it was found, and when false alarms came.

    Args:
        matched: From `metrics.match_events`.
        ax: Where to draw; new Axes where None.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics, plots
        >>> truth = pd.DataFrame({"label": ["bag"], "begin": [10], "end": [40]})
        >>> ax = plots.events(metrics.match_events(pd.DataFrame({"seconds": [14, 50]}), truth))
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['false alarm', 'bag']
    """
    require_columns(matched, "result", "begin", "end", "alarm", caller="plots.events")
    require_column(matched, "label", caller="plots.events")
    false = matched["result"] == "false alarm"
    names = matched["label"].astype(object).where(matched["label"].notna(), "event").where(~false, "false alarm")
    lanes = ["false alarm", *sorted(set(names[~false]), key=str)]
    ax = new_axes(ax, (9, 1 + 0.4 * len(lanes)))
    for result, color in (("found", GREEN), ("missed", ORANGE)):
        part = matched[matched["result"] == result]
        label = f"{result} ({len(part)})"
        lane = [lanes.index(name) for name in names[part.index]]
        ax.barh(lane, (part["end"] - part["begin"]) / 60, 0.7, part["begin"] / 60, color=color, label=label)
    hits = matched[matched["result"] == "found"]
    lane_of = [lanes.index(name) for name in names[hits.index]]
    ax.plot(hits["alarm"] / 60, lane_of, "|k", markersize=18, markeredgewidth=1.5, label="first alarm")
    ax.plot(matched.loc[false, "alarm"] / 60, [0] * int(false.sum()), "x", color=RED, label=f"false ({false.sum()})")
    ax.axhline(0, color=GREY, linewidth=0.5, zorder=0)
    ax.set_yticks(range(len(lanes)), [shown(name) for name in lanes])
    return finish(ax, "minutes of video", ncols=4, loc="lower left", bbox_to_anchor=(0, 1))

"""Figures of experiments: the settings of a search, the number of images, and remedies for rare classes."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from cnnlab._common import require_columns
from cnnlab.metrics.comparison import LOSSES
from cnnlab.plots.style import BLUE, GREEN, GREY, ORANGE, RED, finish, new_axes, readable, shown, with_interval

NOT_PARAMETERS = (
    "trial", "fold", "val_accuracy", "val_balanced_accuracy", "images", "epochs_trained", "seconds", "problem",
)  # fmt: skip
SCALE = "cividis"  # even in lightness, the same with any colour vision
PARTS = {"training": BLUE, "held out": ORANGE}
VERDICTS = {"baseline": BLUE, "better": GREEN, "worse": RED, "noise": GREY}
NEEDED = ("remedy", "metric", "value", "low", "high", "difference", "difference_low", "difference_high", "verdict")


def grid(results: pd.DataFrame, axes: Axes | None = None, *, score: str = "val_accuracy") -> np.ndarray:
    """Shows the points of a search, and the effect of each parameter on its own.

    The large picture is a heatmap where two parameters were searched, and a line through all parameters for each point
    where there were more; points without a score are crossed out or left out. The small ones show each parameter alone:
    a dot for each fold of each point, the line joins the means.

    Args:
        results: `search.results`: one row per trial and fold.
        axes: Where the large picture goes, and nothing else is drawn; a new figure with all of them where None.
        score: Which column is shown.

    Returns:
        The Axes: the large picture (if there are two parameters or more), then one for each parameter.

    Raises:
        ValueError: If the table is not one of a search, or nothing in it was searched.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import plots
        >>> points = pd.DataFrame({"trial": [0, 1], "learning_rate": [0.1, 0.01], "fold": 0, "val_accuracy": 0.5})
        >>> axes = plots.grid(points)
        >>> axes[0].get_xlabel()
        'learning_rate'
    """
    require_columns(results, "trial", "fold", score, caller="plots.grid")
    names = [str(column) for column in results if column not in NOT_PARAMETERS and results[column].nunique() > 1]
    if not names:
        raise ValueError(
            "`plots.grid` expects the results of a search with two points or more, and a column for each parameter. "
            f"Received the columns {', '.join(map(str, results))}, none of which has two values."
        )
    if axes is not None:
        return np.array([_large(results, names, score, axes)])
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    heights = [3.2, 2.2 * rows] if len(names) > 1 else [2.2]
    figure = plt.figure(figsize=(max(6.5, 2.3 * columns), sum(heights)), layout="constrained")
    parts: Any = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    small = parts[-1].subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for ax in small[len(names) :]:
        ax.axis("off")
    drawn = [_large(results, names, score, parts[0].subplots())] if len(names) > 1 else []
    drawn += [_effect(results, name, score, ax) for name, ax in zip(names, small, strict=False)]
    for index in range(0, len(names), columns):
        small[index].set_ylabel(_word(score))
    return np.array(drawn)


def _large(results: pd.DataFrame, names: list[str], score: str, ax: Axes) -> Axes:
    trials = results.groupby("trial", sort=True)
    table = trials[names].first().join(trials[score].agg(lambda values: values.mean(skipna=False)))
    return _heatmap(table, names, score, ax) if len(names) == 2 else _parallel(table, names, score, ax)


def _levels(values: pd.Series) -> list[object]:
    """The values of a parameter: numbers by size, words as they come."""
    found = list(dict.fromkeys(values))
    return sorted(found) if pd.api.types.is_numeric_dtype(values) else found  # type: ignore[type-var]


def _heatmap(table: pd.DataFrame, names: list[str], score: str, ax: Axes) -> Axes:
    down, across = names
    rows, columns = _levels(table[down]), _levels(table[across])
    cells = table.groupby([down, across], sort=False)[score].max().unstack().reindex(index=rows, columns=columns)
    means = cells.to_numpy(dtype=float)
    image: Any = ax.imshow(means, cmap=SCALE, aspect="auto")
    best = np.nanargmax(means) if np.isfinite(means).any() else -1
    for place, ((row, column), value) in enumerate(np.ndenumerate(means)):
        known, weight = np.isfinite(value), "bold" if place == best else "normal"
        color = "white" if known and image.norm(value) < 0.5 else "black"
        ax.text(column, row, f"{value:.3f}" if known else "×", color=color, weight=weight, ha="center", va="center")
    ax.set_xticks(range(len(columns)), [_value(value) for value in columns])
    ax.set_yticks(range(len(rows)), [_value(value) for value in rows])
    ax.set(xlabel=across, ylabel=down)
    ax.figure.colorbar(image, ax=ax, label=f"{_word(score)}, mean over folds")
    return readable(ax)


def _parallel(table: pd.DataFrame, names: list[str], score: str, ax: Axes) -> Axes:
    known = table.dropna(subset=[score]).sort_values(score)
    low, high = known[score].min(), known[score].max()
    scale = mpl.cm.ScalarMappable(plt.Normalize(low, high), SCALE)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    heights = []
    for place, name in enumerate(names):
        levels = _levels(table[name])
        step = 1 / max(len(levels) - 1, 1)
        heights.append([levels.index(value) * step for value in known[name]])
        for level, value in enumerate(levels):
            how: dict[str, Any] = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 8, "bbox": box}
            ax.annotate(_value(value), (place, level * step), **how)
    heights.append(((known[score] - low) / (high - low or 1)).tolist())
    for line, value in zip(zip(*heights, strict=True), known[score], strict=True):
        width, alpha = (2.5, 1) if value == high else (1, 0.75)
        ax.plot(line, color=scale.to_rgba(value), linewidth=width, alpha=alpha)
    for place in range(len(names) + 1):
        ax.axvline(place, color=GREY, linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(names) + 1), [*[shown(name, 18) for name in names], _word(score)])
    ax.set(yticks=[], xlim=(-0.1, len(names) + 0.1), ylim=(-0.08, 1.12))
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(scale, ax=ax, label=f"{_word(score)}, mean of folds\n(n = {len(known)} points)")
    return readable(ax)


def _effect(results: pd.DataFrame, name: str, score: str, ax: Axes) -> Axes:
    """A dot for each fold of each point, and the mean at each value."""
    levels = _levels(results[name])
    places = results[name].map(levels.index).to_numpy()
    shift = np.linspace(-0.12, 0.12, max(results["fold"].nunique(), 2))[results["fold"].to_numpy(dtype=int)]
    ax.plot(places + shift, results[score], ".", color=BLUE, alpha=0.35, markersize=4)
    means = results.groupby(places)[score].mean()
    ax.plot(means.index, means, "-o", color="black", linewidth=1.3, markersize=4)
    words = [_value(value) for value in levels]
    wide = sum(max(map(len, word.splitlines())) for word in words) > 26
    turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if wide else {}
    ax.set_xticks(range(len(levels)), words, fontsize=8 if len(levels) <= 5 else 6.5, **turned)
    ax.set_xlim(-0.5, len(levels) - 0.5)
    return finish(ax, name)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else textwrap.fill(shown(value, 72), 18)


def _word(score: str) -> str:
    return score.removeprefix("val_").replace("_", " ")


def learning_curve(table: pd.DataFrame, ax: Axes | None = None, *, metric: str = "accuracy") -> Axes:
    """Shows a score over the number of training images: dots are runs, lines their means.

    Where the orange line still rises, more images help. Where both lines have met below what is needed, they do not:
    the network, the resolution or the labels are the limit. A wide gap between them is overfitting.

    Args:
        table: From `experiments.learning_curve`: images, repeat, part, and the scores.
        ax: Where to draw; new Axes where None.
        metric: Which score.

    Raises:
        ValueError: If the table has no such score.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import plots
        >>> table = pd.DataFrame({"images": [100, 200] * 2, "repeat": 0, "part": ["training"] * 2 + ["held out"] * 2,
        ...                       "accuracy": [1.0, 0.99, 0.7, 0.8], "scored": [100, 200, 50, 50]})
        >>> plots.learning_curve(table).get_ylabel()
        'accuracy'
    """
    require_columns(table, "images", "repeat", "part", "scored", caller="plots.learning_curve")
    if metric not in table:
        raise ValueError(f"`metric` expects a score of the table: {', '.join(map(str, table))}. Received: {metric!r}.")
    ax = new_axes(ax, (5.6, 3.6))
    for part, color in PARTS.items():
        rows = table[table["part"] == part]
        if rows[metric].notna().any():
            mean = rows.groupby("images")[metric].mean()
            ax.plot(rows["images"], rows[metric], "o", color=color, alpha=0.45, markersize=4, markeredgewidth=0)
            runs = rows["repeat"].nunique()
            words = "on the images learned from" if part == "training" else f"held out (n = {rows['scored'].max():,})"
            label = f"{words}, {runs} runs each" if runs > 1 else words
            ax.plot(mean.index, mean, color=color, linewidth=1.6, label=label)
    sizes = sorted(table["images"].unique())
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(_apart(sizes)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.xaxis.set_minor_locator(NullLocator())
    x, y = "training images (logarithmic scale)", metric.replace("_", " ")
    return finish(ax, x, y, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


def _apart(sizes: list[int]) -> list[int]:
    """The sizes whose numbers do not run into each other."""
    kept = sizes[-1:]
    for size in sizes[-2::-1]:
        if size * 1.25 <= kept[0]:
            kept.insert(0, size)
    return kept


def remedies(
    scores: pd.DataFrame,
    axes: Sequence[Axes] | None = None,
    *,
    metrics: Sequence[str] = ("macro_f1", "minority_recall", "calibration_error"),
) -> np.ndarray:
    """Shows by how much each remedy moves each score away from "none", and whether that is more than noise.

    A dot is the difference on the same images, its line the 95 % interval. Green is better than doing nothing, red
    is worse, grey is no more than noise; the score of "none" itself stands above.

    Args:
        scores: `experiments.imbalance(…).scores`.
        axes: Where to draw, one for each metric; new Axes where None.
        metrics: Which scores.

    Returns:
        The Axes, one for each metric.

    Raises:
        ValueError: If a metric is not in the table, or only "none" is.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import plots
        >>> row = {"metric": "macro_f1", "value": 0.4, "low": 0.3, "high": 0.5, "verdict": "baseline", "remedy": "none"}
        >>> moved = {"difference": 0.2, "difference_low": 0.1, "difference_high": 0.3}
        >>> scores = pd.DataFrame([row, row | moved | {"value": 0.6, "verdict": "better", "remedy": "oversample"}])
        >>> axes = plots.remedies(scores, metrics=["macro_f1"])
        >>> [text.get_text() for text in axes[0].get_yticklabels()]
        ['oversample']
    """
    require_columns(scores, *NEEDED, caller="plots.remedies")
    missing = [name for name in metrics if name not in set(scores["metric"])]
    tried = [name for name in scores["remedy"].unique() if name != "none"]
    if missing or not tried or not len(metrics):
        raise ValueError(
            "`plots.remedies` expects the scores of `experiments.imbalance` with none and at least one remedy, and "
            f"metrics of {', '.join(scores['metric'].unique())}. Received: metrics={list(metrics)}, remedies={tried}."
        )
    if axes is None:
        figure = plt.figure(figsize=(1.4 + 2.6 * len(metrics), 1.3 + 0.3 * len(tried)), layout="constrained")
        axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for ax, metric in zip(axes, metrics, strict=True):
        _differences(scores[scores["metric"] == metric].set_index("remedy"), tried, metric, ax)
    axes[0].set_yticks(range(len(tried)), [shown(name) for name in tried])
    axes[0].set_ylim(len(tried) - 0.5, -0.5)
    return np.asarray(axes)


def _differences(part: pd.DataFrame, tried: list[str], metric: str, ax: Axes) -> None:
    moved = part.loc[tried, ["difference", "difference_low", "difference_high"]].to_numpy(dtype=float)
    colors = [VERDICTS.get(str(verdict), GREY) for verdict in part.loc[tried, "verdict"]]
    for place, (rate, color) in enumerate(zip(moved, colors, strict=True)):
        with_interval(ax, place, rate, color)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.xaxis.grid(True, color="0.92")
    ax.set_axisbelow(True)
    value, low, high = part.loc["none", ["value", "low", "high"]].to_numpy(dtype=float)
    number = f", n = {int(part['images'].iloc[0]):,} images" if "images" in part else ""
    words = metric.replace("_", " ").replace("f1", "F1")
    ax.set_title(f"{words}{number}\nnone: {value:.2f} ({low:.2f} to {high:.2f})", fontsize=9)
    side = "left" if metric in LOSSES else "right"
    finish(ax, f"difference from none\n({side} is better)")

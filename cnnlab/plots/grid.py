"""Figures of a search: which settings are good, and which of them matter."""

from itertools import pairwise
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cnnlab._common import require_columns
from cnnlab.plots.style import BLUE, GREY, readable, shown

NOT_PARAMETERS = (
    "trial", "fold", "val_accuracy", "val_balanced_accuracy", "images", "epochs_trained", "seconds", "problem",
)  # fmt: skip
COLORS = "cividis"  # even in lightness, the same with any colour vision


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
    tall = [3.2] if len(names) > 1 else []
    figure = plt.figure(figsize=(max(6.5, 2.3 * columns), sum(tall) + 2.2 * rows), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.2, 2.2 * rows]) if tall else [figure]
    small = parts[-1].subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for ax in small[len(names) :]:
        ax.axis("off")
    drawn = [_large(results, names, score, parts[0].subplots())] if tall else []
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
    means = table.groupby([down, across], sort=False)[score].max().unstack().reindex(index=rows, columns=columns)
    image: Any = ax.imshow(means.to_numpy(dtype=float), cmap=COLORS, aspect="auto")
    best = np.nanargmax(means.to_numpy(dtype=float)) if means.notna().any(axis=None) else -1
    for place, value in enumerate(means.to_numpy(dtype=float).ravel().tolist()):
        row, column = divmod(place, len(columns))
        dark = np.isfinite(value) and image.norm(value) < 0.5
        words = f"{value:.3f}" if np.isfinite(value) else "×"
        weight = "bold" if place == best else "normal"
        ax.text(column, row, words, ha="center", va="center", color="white" if dark else "black", weight=weight)
    ax.set_xticks(range(len(columns)), [_value(value) for value in columns])
    ax.set_yticks(range(len(rows)), [_value(value) for value in rows])
    ax.set_xlabel(across)
    ax.set_ylabel(down)
    ax.figure.colorbar(image, ax=ax, label=f"{_word(score)}, mean over folds")
    return readable(ax)


def _parallel(table: pd.DataFrame, names: list[str], score: str, ax: Axes) -> Axes:
    known = table.dropna(subset=[score]).sort_values(score)
    scale = mpl.cm.ScalarMappable(plt.Normalize(known[score].min(), known[score].max()), COLORS)
    places = np.arange(len(names) + 1)
    heights = []
    for name in names:
        levels = _levels(table[name])
        step = 1 / max(len(levels) - 1, 1)
        heights.append([levels.index(value) * step for value in known[name]])
        for level, value in enumerate(levels):
            ax.annotate(
                _value(value), (len(heights) - 1, level * step), xytext=(4, 4), textcoords="offset points", fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
            )  # fmt: skip
    low, high = known[score].min(), known[score].max()
    heights.append(((known[score] - low) / (high - low or 1)).tolist())
    for line, value in zip(zip(*heights, strict=True), known[score], strict=True):
        best = value == high
        ax.plot(places, line, color=scale.to_rgba(value), linewidth=2.5 if best else 1, alpha=1 if best else 0.75)
    for left, _ in pairwise([*places, places[-1] + 1]):
        ax.axvline(left, color=GREY, linewidth=0.8, zorder=0)
    ax.set_xticks(places, [*[shown(name, 18) for name in names], _word(score)])
    ax.set_yticks([])
    ax.set_xlim(-0.1, len(names) + 0.1)
    ax.set_ylim(-0.08, 1.12)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(scale, ax=ax, label=f"{_word(score)}, mean of folds\n(n = {len(known)} points)")
    return readable(ax)


def _effect(results: pd.DataFrame, name: str, score: str, ax: Axes) -> Axes:
    """One parameter alone: every fold of every point, and the mean at each value."""
    levels = _levels(results[name])
    places = results[name].map(levels.index).to_numpy()
    shift = np.linspace(-0.12, 0.12, max(results["fold"].nunique(), 2))[results["fold"].to_numpy(dtype=int)]
    ax.plot(places + shift, results[score], ".", color=BLUE, alpha=0.35, markersize=4)
    means = results.groupby(places)[score].mean()
    ax.plot(means.index, means, "-o", color="black", linewidth=1.3, markersize=4)
    small = 8 if len(levels) <= 5 else 6.5
    crowded = sum(len(_value(value)) for value in levels) > 26
    ax.set_xticks(
        range(len(levels)), [_value(value) for value in levels], fontsize=small,
        rotation=30 if crowded else 0, ha="right" if crowded else "center",
    )  # fmt: skip
    ax.set_xlim(-0.5, len(levels) - 0.5)
    ax.set_xlabel(name)
    ax.spines[["top", "right"]].set_visible(False)
    return readable(ax)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else shown(value, 18)


def _word(score: str) -> str:
    return score.removeprefix("val_").replace("_", " ")

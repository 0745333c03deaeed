"""Figure of the question "would more images help?"."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from cnnlab._common import require_columns
from cnnlab.plots.style import BLUE, ORANGE, finish, new_axes

COLORS = {"training": BLUE, "held out": ORANGE}


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
    for part, color in COLORS.items():
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

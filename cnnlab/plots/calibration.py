"""Figure of trust: whether images called with 90 % confidence are right nine times in ten."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cnnlab._common import require_columns
from cnnlab.plots.style import CYCLE, GREY, color_of, finish, new_axes, shown

MARKERS = "os^Dv"  # the next one where the colours begin again


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

"""Scores per camera, site or group of people, side by side."""

from collections.abc import Hashable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cnnlab._common import require_columns
from cnnlab.plots.style import GREY, color_of, finish, new_axes, shown, with_interval

FACTS = ("metric", "class", "value", "low", "high", "images", "small")


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

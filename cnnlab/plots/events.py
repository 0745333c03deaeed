"""Events and alarms on a line of time."""

import pandas as pd
from matplotlib.axes import Axes

from cnnlab._common import require_column, require_columns
from cnnlab.plots.style import GREEN, GREY, ORANGE, RED, finish, new_axes, shown


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

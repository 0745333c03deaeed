"""Alarms against what really happened: events found and missed, false alarms an hour, and the delay."""

from typing import Any

import numpy as np
import pandas as pd
import scipy.special
import scipy.stats

from cnnlab._common import is_number, require_column
from cnnlab.metrics.intervals import TAILS, wilson

COLUMNS = ("result", "label", "begin", "end", "alarm", "delay", "alarms", "called")


def match_events(alarms: pd.DataFrame, truth: pd.DataFrame, *, tolerance: float = 0.0) -> pd.DataFrame:
    """Says of each event whether an alarm found it, and which alarms were false.

    An alarm counts where it begins: it finds an event if that is between the event's begin and its end, both included,
    or at most `tolerance` seconds outside. Where several are possible, an event that holds the alarm without tolerance
    comes first, then one that is not found yet, then the one that ends first. Further alarms during an event that is
    found are neither false nor another find. So an alarm that never goes off again finds one event, not all.

    Args:
        alarms: One row per alarm: `seconds`, when it began, on the clock of `truth`; and, if you like, `label`.
            `serving.stream(...).events()` is such a table. Its seconds are those of the computer: for a recording that
            is played faster than it was filmed, replace them first, for example by `frame / frames_per_second`.
        truth: One row per event: `begin` and `end` in seconds; and, if you like, `label`.
        tolerance: Seconds before the begin and after the end of an event in which an alarm still finds it.

    Returns:
        One row per event and per false alarm, in order of time: result ("found", "missed" or "false alarm"), label (of
        the event), begin, end, alarm (when the first one began), delay (seconds from begin to alarm; negative where it
        came early), alarms (how many), called (label of the first alarm).

    Raises:
        TypeError: If one of them is not a table.
        ValueError: If a column is missing, a time is no finite number, an event ends before it begins, or the
            tolerance is negative.

    Example:
        >>> import pandas as pd
        >>> truth = pd.DataFrame({"label": ["bag", "lying"], "begin": [10, 60], "end": [40, 90]})
        >>> match_events(pd.DataFrame({"seconds": [14, 50]}), truth)[["result", "label", "delay"]]
                result  label  delay
        0        found    bag    4.0
        1  false alarm    NaN    NaN
        2       missed  lying    NaN
    """
    caller = "metrics.match_events"
    at = _times(alarms, "alarms", "seconds", caller=caller)
    begin, end = (_times(truth, "truth", name, caller=caller) for name in ("begin", "end"))
    if (end < begin).any():
        place = int(np.argmax(end < begin))
        raise ValueError(
            f"`{caller}` expects events that end after they begin. Event {truth.index[place]!r} begins at "
            f"{begin[place]:g} and ends at {end[place]:g} seconds. Are the columns swapped?"
        )
    tolerance = _number(tolerance, "tolerance", "seconds, 0 or more", lowest=0.0, caller=caller)
    names, called = (table.get("label", pd.Series(np.nan, table.index)).to_numpy(object) for table in (truth, alarms))
    rows = [
        {"result": "missed", "label": names[event], "begin": begin[event], "end": end[event], "alarms": 0}
        for event in np.argsort(begin, kind="stable")
    ]
    events = list(rows)
    for alarm in np.argsort(at, kind="stable"):
        near = [row for row in events if row["begin"] - tolerance <= at[alarm] <= row["end"] + tolerance]
        first = {"alarm": at[alarm], "called": called[alarm]}
        if not near:
            rows.append({"result": "false alarm", "alarms": 1} | first)
            continue
        ranks = [(not row["begin"] <= at[alarm] <= row["end"], row["result"] == "found", row["end"]) for row in near]
        row = near[ranks.index(min(ranks))]
        row["alarms"] += 1
        if row["result"] == "missed":
            row |= first | {"result": "found", "delay": at[alarm] - row["begin"]}
    found = pd.DataFrame(rows, columns=list(COLUMNS))
    found[["begin", "end", "alarm", "delay"]] = found[["begin", "end", "alarm", "delay"]].astype(float)
    return found.iloc[np.argsort(found["begin"].fillna(found["alarm"]), kind="stable")].reset_index(drop=True)


def events(alarms: pd.DataFrame, truth: pd.DataFrame, *, hours: float, tolerance: float = 0.0) -> pd.DataFrame:
    """Scores alarms as people live with them: events found and missed, false alarms an hour, and the delay.

    Frames say little here: an event is found by one alarm in time, and an hour of quiet video with one false alarm
    counts one, whatever the number of its frames.

    Args:
        alarms: As for `match_events`, which says what finds what.
        truth: As for `match_events`.
        hours: Hours of video that were watched, with and without events.
        tolerance: As for `match_events`.

    Returns:
        One row per metric, with value, low and high (95 %), count and of:

        - found, missed: shares of the events; Wilson's interval. NaN where `truth` has no event.
        - false_alarms_per_hour: the exact Poisson interval (Garwood's), so that none in an hour does not read as never.
        - precision: share of the alarms that fall on an event, repeated ones included; Wilson's interval.
        - delay: the median over events that were found, in seconds; the interval is that of order statistics, which
          assumes nothing about the distribution, and NaN below 6 events.

        All intervals take events as independent; events of one day that share light and weather are less than that.

    Raises:
        TypeError: As `match_events`.
        ValueError: As `match_events`, or if `hours` is not above 0, or shorter than an event.

    Source:
        Wilson (1927); Garwood (1936), Fiducial limits for the Poisson distribution.

    Example:
        >>> import pandas as pd
        >>> truth = pd.DataFrame({"label": ["bag", "lying"], "begin": [10, 60], "end": [40, 90]})
        >>> scores = events(pd.DataFrame({"seconds": [14, 50]}), truth, hours=0.5).set_index("metric")
        >>> scores.loc[["found", "false_alarms_per_hour"], ["value", "low", "high"]].round(2)
                               value   low   high
        metric
        found                    0.5  0.09   0.91
        false_alarms_per_hour    2.0  0.05  11.14
    """
    caller = "metrics.events"
    hours = _number(hours, "hours", "hours of video, above 0", lowest=1e-9, caller=caller)
    matched = match_events(alarms, truth, tolerance=tolerance)
    longest = float((matched["end"] - matched["begin"]).max())
    if longest > hours * 3600:
        raise ValueError(
            f"`{caller}` expects `hours` of video that hold every event. Received: hours={hours:g}, and an event of "
            f"{longest:g} seconds. Times are in seconds, the length of the video in hours."
        )
    found, missed, false = ((matched["result"] == name) for name in ("found", "missed", "false alarm"))
    total, raised = int(found.sum() + missed.sum()), int(matched["alarms"].sum())
    rows: list[tuple[Any, ...]] = []
    shares = {"found": (found.sum(), total), "missed": (missed.sum(), total)}
    for name, (count, of) in (shares | {"precision": (raised - false.sum(), raised)}).items():
        share = count / of if of else np.nan
        rows.append((name, share, *map(float, wilson(share, of)), int(count), of))
    count = int(false.sum())
    limits = scipy.special.gammaincinv([max(count, 1), count + 1], TAILS) * [count > 0, 1] / hours
    rows.insert(2, ("false_alarms_per_hour", count / hours, *limits, count, hours))
    delays = np.sort(matched.loc[found, "delay"].to_numpy())
    edge = int(scipy.stats.binom.ppf(TAILS[0], len(delays), 0.5)) if len(delays) else 0
    limits = (delays[edge - 1], delays[-edge]) if edge else (np.nan, np.nan)
    rows.append(("delay", np.median(delays) if len(delays) else np.nan, *limits, len(delays), total))
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "count", "of"])


def _times(table: Any, name: str, column: str, *, caller: str) -> np.ndarray:
    """A column of seconds, checked."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"`{caller}` expects `{name}` to be a table (pandas DataFrame) with one row each and a column {column!r}, "
            f"in seconds. Received: {type(table).__name__}."
        )
    require_column(table, column, caller=caller)
    cells = table[column].astype(object)  # of these, times of day and spans of time do not turn into microseconds
    times = pd.to_numeric(cells.mask(cells.map(type).isin([bool, np.bool_])), errors="coerce").to_numpy(float)
    if not np.isfinite(times).all():
        place = int(np.argmin(np.isfinite(times)))
        raise ValueError(
            f"`{caller}` expects seconds in the column {column!r} of `{name}`. Row {table.index[place]!r} has "
            f"{table[column].iloc[place]}. Turn time stamps into seconds since the first frame: "
            "`(time - start).dt.total_seconds()`."
        )
    return times


def _number(value: Any, name: str, expected: str, *, lowest: float, caller: str) -> float:
    """A finite number that is not below `lowest`."""
    if not is_number(value, least=lowest):
        raise ValueError(f"`{caller}` expects `{name}` in {expected}. Received: {value!r}.")
    return float(value)

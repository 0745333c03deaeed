"""Scores of each group, with its size and the interval that the size leaves open."""

import warnings
from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd

from cnnlab.metrics.intervals import Shares, share_limits
from cnnlab.metrics.scoring import Counts, counter
from cnnlab.metrics.table import Group, by_columns, outcome, scored, units_of

SMALLEST = 30  # images: with fewer, the 95 % interval of a rate can span a third of all there is
RESULTS = ("metric", "class", "value", "low", "high", "images", "small")
RATES = ("accuracy", "selection_rate", "true_positive_rate", "false_positive_rate")
By = str | Sequence[str]
Positive = str | Sequence[str] | None


def groups(
    predictions: pd.DataFrame,
    by: By,
    *,
    positive: Positive = None,
    smallest: int = SMALLEST,
    group: Group = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores each group apart: an average can hide a group for which the model does not work.

    Args:
        predictions: A table with label, predicted and the columns of `by`.
        by: Column that says which group an image belongs to; of several columns, every combination that occurs.
        positive: The class or classes that matter, each against the rest; all of them where None.
        smallest: A rate over fewer images is marked as small; with a warning where the whole group is as small.
        group: Column, or columns, that say which images belong together, such as `"patient"`: they are no independent
            witnesses. Where None, the column `group` where there is one; False takes every image as independent.
        bootstrap: Resamples of what belongs together.
        seed: Same seed, same intervals.

    Returns:
        Columns of `by`, metric, class, value, low, high (95 %: Wilson's interval; BCa's where images belong together),
        images (that the rate is a share of), small. Metrics are accuracy (class "all") and, for each class,
        selection_rate (called so), true_positive_rate (called so, of those that are) and false_positive_rate (called
        so, of those that are not). A rate of no images is nan.

    Raises:
        KeyError: If a column is missing.
        ValueError: If `positive` is no class, no row can be scored, or `by` is called as a column of the result is.

    Warns:
        UserWarning: If a group is too small to speak of.

    Source: the rates are those of fairlearn's `MetricFrame`, which gives 0 where there are no images.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import fairness
        >>> label = pd.Categorical(["ok", "crack"] * 100)
        >>> table = pd.DataFrame({"label": label, "predicted": label, "camera": ["north"] * 100 + ["south"] * 100})
        >>> table.loc[151:170, "predicted"] = "ok"
        >>> found = fairness.groups(table, "camera", positive="crack")
        >>> found[found["metric"] == "true_positive_rate"][["camera", "value", "low", "high", "images"]].round(2)
          camera  value   low  high  images
        4  north    1.0  0.93  1.00      50
        5  south    0.8  0.67  0.89      50
    """
    found = rates(predictions, by, positive, group=group, bootstrap=bootstrap, seed=seed, caller="fairness.groups")
    warn_small(found, smallest)
    return found.assign(small=found["images"] < smallest)


def rates(
    predictions: pd.DataFrame,
    by: By,
    positive: Positive,
    *,
    group: Group,
    bootstrap: int,
    seed: int,
    caller: str,
) -> pd.DataFrame:
    """The table of `groups`, but for what is small."""
    keys = by_columns(by, RESULTS, caller=caller)
    if not keys:
        raise ValueError(f"`{caller}` expects the name of at least one column in `by`. Received none.")
    table = scored(predictions, *keys, caller=caller)
    classes = table["label"].cat.categories
    named = checked_classes(positive, classes)
    parts = []
    for place, (names, part) in enumerate(table.groupby(keys, observed=True, sort=True)):
        seen = outcome(part, caller=caller)
        units = units_of(part, group, keys=keys, caller=caller)
        limits = share_limits(class_shares, seen, units, count=bootstrap, seed=seed)
        images = class_shares(counter(seen)(np.ones((len(seen), 1))))
        asked: list[tuple[str, Hashable, int]] = [("accuracy", "all", 0)]
        asked += [(metric, name, list(classes).index(name)) for name in named for metric in RATES[1:]]
        for order, (metric, name, column) in enumerate(asked):
            ends = [float(limit[column]) for limit in limits[metric]]
            parts.append((order, place, *names, metric, name, *ends, int(images[metric][1][0, column])))
    columns = ["_order", "_place", *keys, *RESULTS[:-1]]
    found = pd.DataFrame(parts, columns=columns).sort_values(["_order", "_place"], ignore_index=True)
    return found.drop(columns=["_order", "_place"]).astype({key: table[key].dtype for key in keys})


def checked_classes(positive: Positive, classes: pd.Index) -> list[Hashable]:
    """The classes in question: those named, or all."""
    if positive is None:
        return list(classes)
    named: list[Hashable] = [positive] if isinstance(positive, str | int) else list(positive)
    for name in named:
        if name not in classes:
            raise ValueError(
                f"`positive` expects classes of the table: {', '.join(map(str, classes[:10]))}. Received: {name!r}."
            )
    return named


def class_shares(counts: Counts) -> Shares:
    """Of each rate, the images that count and those that they are a share of, of shape (weightings, classes)."""
    everything = np.broadcast_to(counts.images[:, None], counts.support.shape)
    return {
        "accuracy": (counts.hits.sum(axis=1, keepdims=True), counts.images[:, None]),
        "selection_rate": (counts.claimed, everything),
        "true_positive_rate": (counts.hits, counts.support),
        "false_positive_rate": (counts.claimed - counts.hits, everything - counts.support),
    }


def group_names(table: pd.DataFrame) -> pd.Series:
    """What to call the group of each row: `north`, or `north, night`."""
    return table[[column for column in table if column not in RESULTS]].astype(str).agg(", ".join, axis=1)


def warn_small(found: pd.DataFrame, smallest: int) -> None:
    """Says which groups have too few images to speak of."""
    whole = found[found["metric"] == "accuracy"]
    few = [f"{name} ({n})" for name, n in zip(group_names(whole), whole["images"], strict=True) if n < smallest]
    if few:
        more = f" and {len(few) - 8} more" if len(few) > 8 else ""
        warnings.warn(
            f"Groups with fewer than {smallest} images: {', '.join(few[:8])}{more}. Their scores are mostly chance: "
            "collect more, or join groups.",
            UserWarning,
            stacklevel=3,
        )

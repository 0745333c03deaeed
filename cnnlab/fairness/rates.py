"""Scores of each group with the interval that its size leaves open, and how far apart the groups are."""

import functools
import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from cnnlab.metrics.formulas import Counts, counter
from cnnlab.metrics.intervals import LEVEL, NORMAL, Shares, share_limits
from cnnlab.metrics.predictions import Group, by_columns, outcome, require_class, scored, units_of

SMALLEST = 30  # images: with fewer, the 95 % interval of a rate can span a third of all there is
RESULTS = ("metric", "class", "value", "low", "high", "images", "small")
RATES = ("accuracy", "selection_rate", "true_positive_rate", "false_positive_rate")
# What each gap compares; of two rates, the wider gap counts.
MEASURES = {
    "demographic_parity": ("selection_rate",),
    "equal_opportunity": ("true_positive_rate",),
    "equalized_odds": ("true_positive_rate", "false_positive_rate"),
}
RANGE = functools.cache(scipy.stats.studentized_range.ppf)  # Tukey's, which takes long to compute
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
        group: Column, or columns, that say which images belong together, such as `"patient"`: they are not independent
            witnesses. Where None, the column `group` where there is one; False takes every image as independent.
        bootstrap: Resamples of what belongs together.
        seed: Same seed, same intervals.

    Returns:
        Columns of `by`, metric, class, value, low, high (95 %: Wilson's interval; BCa's where images belong together),
        images (that the rate is a share of), small. Metrics are accuracy (class "all") and, for each class,
        selection_rate (the share predicted as it), true_positive_rate (that share of the images of the class) and
        false_positive_rate (of all others). A rate of no images is nan.

    Raises:
        KeyError: If a column is missing.
        ValueError: If `positive` is not a class, no row can be scored, or `by` is called as a column of the result is.

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
    found = _rates(predictions, by, positive, group=group, bootstrap=bootstrap, seed=seed, caller="fairness.groups")
    _warn_small(found, smallest)
    return found.assign(small=found["images"] < smallest)


def gaps(
    predictions: pd.DataFrame,
    by: By,
    *,
    positive: Positive = None,
    smallest: int = SMALLEST,
    group: Group = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measures how far the best and the worst group are apart, and whether that can be chance.

    The gap between groups that are served equally well is never 0 by chance alone, and grows with their number. So its
    limits are those of all differences between two groups at once, by Tukey's studentized range: the largest that is
    certain, and the largest that is possible. Where `low` is 0, there may be no gap. In simulated tables with 200
    images a group the interval held the true gap in 93 to 99 of 100 cases; with 60 patients of 5 images, in 97.

    Args:
        predictions: A table with label, predicted and the columns of `by`.
        by: Column that says which group an image belongs to; of several columns, every combination that occurs.
        positive: The class or classes that matter, each against the rest; all of them where None.
        smallest: Groups with fewer images bring a warning.
        group: Column, or columns, that say which images belong together, such as `"patient"`; see `groups`.
        bootstrap: Resamples of what belongs together.
        seed: Same seed, same intervals.

    Returns:
        One row per gap: measure, class, gap, low, high (95 %), lowest, highest (the groups at either end). Measures are
        accuracy (class "all") and, for each class, demographic_parity (is it called as often?), equal_opportunity (is
        it found as often where it is?) and equalized_odds (the same, and called as rarely where it is not; the wider
        of both). A group without such images takes no part.

    Raises:
        KeyError: If a column is missing.
        ValueError: If there is one group only, `positive` is not a class, or `by` has the name of a column of the
            result.

    Warns:
        UserWarning: If a group is too small to speak of.

    Source: Hardt, Price and Srebro (2016), Equality of opportunity in supervised learning; the gaps are fairlearn's
        `demographic_parity_difference`, `equal_opportunity_difference` and `equalized_odds_difference`. Zou and Donner
        (2008), Construction of confidence limits about effect measures, for the difference of two rates; Tukey's range.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import fairness
        >>> label = pd.Categorical(["ok", "crack"] * 100)
        >>> table = pd.DataFrame({"label": label, "predicted": label, "camera": ["north"] * 100 + ["south"] * 100})
        >>> table.loc[151:170, "predicted"] = "ok"
        >>> found = fairness.gaps(table, "camera", positive="crack")
        >>> found[["measure", "gap", "lowest", "highest"]].round(2)
                      measure  gap lowest highest
        0            accuracy  0.1  south   north
        1  demographic_parity  0.1  south   north
        2   equal_opportunity  0.2  south   north
        3      equalized_odds  0.2  south   north
    """
    found = _rates(predictions, by, positive, group=group, bootstrap=bootstrap, seed=seed, caller="fairness.gaps")
    names = group_names(found)
    if names.nunique() < 2:
        raise ValueError(f"`fairness.gaps` expects at least two groups in {by!r} to compare. Received one: {names[0]}.")
    _warn_small(found, smallest)
    found["name"] = names
    asked: list[tuple[str, Hashable, tuple[str, ...]]] = [("accuracy", "all", ("accuracy",))]
    asked += [(measure, name, MEASURES[measure]) for name in found["class"].unique()[1:] for measure in MEASURES]
    rows = [(measure, name, *_widest(found[found["class"] == name], metrics)) for measure, name, metrics in asked]
    return pd.DataFrame(rows, columns=["measure", "class", "gap", "low", "high", "lowest", "highest"])


def _widest(found: pd.DataFrame, metrics: Sequence[str]) -> tuple[float, float, float, str, str]:
    """Of the gaps of several rates the widest, with the larger of their limits; none where one has none."""
    gaps_of = [_gap(found[found["metric"] == metric], len(metrics)) for metric in metrics]
    gap, _, _, *ends = max(gaps_of, key=lambda one: np.inf if np.isnan(one[0]) else one[0])
    low, high = np.max([one[1:3] for one in gaps_of], axis=0)
    return gap, float(low), float(high), ends[0], ends[1]


def _gap(part: pd.DataFrame, times: int) -> tuple[float, float, float, str, str]:
    """The gap of one rate of so many that share the risk of an error, its limits, and the groups at either end."""
    part = part[part["value"].notna()]
    if len(part) < 2:
        return np.nan, np.nan, np.nan, "", ""
    value, low, high = (part[name].to_numpy() for name in ("value", "low", "high"))
    # Of all differences between so many groups at once; for two groups that is as for one difference.
    tukey = RANGE(1 - (1 - LEVEL) / times, len(part), np.inf) / np.sqrt(2)
    below, above = (tukey / NORMAL * side for side in (value - low, high - value))
    apart = value[:, None] - value
    # Of a difference, each limit is as far off as the two rates' own limits on that side are together.
    least = apart - np.sqrt(below[:, None] ** 2 + above**2)
    most = apart + np.sqrt(above[:, None] ** 2 + below**2)
    names = part["name"].to_numpy()
    ends = float(max(np.nanmax(least), 0)), float(min(np.nanmax(most), 1))
    return float(np.ptp(value)), *ends, str(names[value.argmin()]), str(names[value.argmax()])


def _rates(
    predictions: pd.DataFrame, by: By, positive: Positive, *, group: Group, bootstrap: int, seed: int, caller: str
) -> pd.DataFrame:
    """The table of `groups`, but for what is small."""
    keys = by_columns(by, RESULTS, caller=caller)
    if not keys:
        raise ValueError(f"`{caller}` expects the name of at least one column in `by`. Received none.")
    table = scored(predictions, *keys, caller=caller)
    classes = table["label"].cat.categories
    named = checked_classes(positive, classes, caller=caller)
    asked: list[tuple[str, Hashable, int]] = [("accuracy", "all", 0)]
    asked += [(metric, name, list(classes).index(name)) for name in named for metric in RATES[1:]]
    parts = []
    for names, part in table.groupby(keys, observed=True, sort=True):
        seen = outcome(part, caller=caller)
        limits = share_limits(
            class_shares, seen, units_of(part, group, keys=keys, caller=caller), count=bootstrap, seed=seed
        )
        images = class_shares(counter(seen)(np.ones((len(seen), 1))))
        for order, (metric, name, column) in enumerate(asked):
            ends = [float(limit[column]) for limit in limits[metric]]
            parts.append((order, *names, metric, name, *ends, int(images[metric][1][0, column])))
    found = pd.DataFrame(parts, columns=["_order", *keys, *RESULTS[:-1]])
    found = found.sort_values("_order", kind="stable", ignore_index=True).drop(columns="_order")
    return found.astype({key: table[key].dtype for key in keys})


def checked_classes(positive: Positive, classes: pd.Index, *, caller: str) -> list[Hashable]:
    """The classes in question: those named, or all."""
    if positive is None:
        return list(classes)
    named: list[Any] = [positive] if pd.api.types.is_scalar(positive) else list(positive)  # type: ignore[arg-type]
    for name in named:
        require_class(name, classes, caller=caller)
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


def _warn_small(found: pd.DataFrame, smallest: int) -> None:
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

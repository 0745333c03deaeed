"""Scores of each group, with its size and the interval that the size leaves open."""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

from cnnlab._common import require_columns

SMALLEST = 30  # images: with fewer, the 95 % interval of a rate can span a third of all there is
RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")
By = str | Sequence[str]


def groups(
    predictions: pd.DataFrame, by: By, *, positive: str | Sequence[str] | None = None, smallest: int = SMALLEST
) -> pd.DataFrame:
    """Scores each group apart: an average can hide a group for which the model does not work.

    Args:
        predictions: A table with label, predicted and the columns of `by`.
        by: Column that says which group an image belongs to; of several columns, every combination that occurs.
        positive: The class or classes that matter, each against the rest; all of them where None.
        smallest: A rate over fewer images is marked as small; with a warning where the whole group is as small.

    Returns:
        Columns of `by`, metric, class, value, low, high (Wilson's 95 % interval), images (that the rate is a share
        of), small. Metrics are accuracy (class "all") and, for each class, selection_rate (called so),
        true_positive_rate (called so, of those that are) and false_positive_rate (called so, of those that are not).
        A rate of no images is nan.

    Raises:
        KeyError: If a column is missing.
        ValueError: If `positive` is no class, or no row can be scored.

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
    counts = count(predictions, by, positive, caller="fairness.groups")
    warn_small(counts, smallest)
    parts = [_part(counts, "accuracy", "all", *counts.accuracy())]
    for name in counts.positive:
        parts.extend(_part(counts, rate, name, *counts.rate(rate, name)) for rate in RATES)
    table = pd.concat(parts, ignore_index=True)
    return table.assign(small=table["images"] < smallest)


def _part(counts: "Counts", metric: str, name: Hashable, hits: np.ndarray, images: np.ndarray) -> pd.DataFrame:
    rows = [_share(int(hit), int(of)) for hit, of in zip(hits, images, strict=True)]
    scores = pd.DataFrame(rows, columns=["value", "low", "high"])
    named = counts.names.copy()
    named["metric"] = metric
    named["class"] = pd.Series([name] * len(named))
    return pd.concat([named, scores], axis=1).assign(images=images.astype(int))


def _share(hits: int, images: int) -> tuple[float, float, float]:
    if not images:
        return np.nan, np.nan, np.nan
    limits = scipy.stats.binomtest(hits, images).proportion_ci(0.95, method="wilson")
    return hits / images, float(limits.low), float(limits.high)


@dataclass(frozen=True)
class Counts:
    """What each group has of each class.

    Attributes:
        names: One row per group, the columns that name it.
        positive: The classes that were asked for.
        classes: All classes.
        images: Per group.
        support: Shape (groups, classes): images of the class.
        claimed: The same: images called so.
        hits: The same: both.
    """

    names: pd.DataFrame
    positive: tuple[Hashable, ...]
    classes: tuple[Hashable, ...]
    images: np.ndarray
    support: np.ndarray
    claimed: np.ndarray
    hits: np.ndarray

    def accuracy(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each group, right predictions, and images."""
        return self.hits.sum(axis=1), self.images

    def rate(self, rate: str, name: Hashable) -> tuple[np.ndarray, np.ndarray]:
        """Of each group, the images that a rate of `RATES` counts, and those that it is a share of."""
        place = self.classes.index(name)
        support, claimed, hits = self.support[:, place], self.claimed[:, place], self.hits[:, place]
        if rate == "selection_rate":
            return claimed, self.images
        if rate == "true_positive_rate":
            return hits, support
        return claimed - hits, self.images - support

    def name(self, place: int) -> str:
        """What to call a group: `north`, or `north, night`."""
        return ", ".join(str(part) for part in self.names.iloc[place])


def count(predictions: pd.DataFrame, by: By, positive: str | Sequence[str] | None, *, caller: str) -> Counts:
    """Counts a prediction table group by group.

    Raises:
        KeyError: If a column is missing.
        ValueError: If no row can be scored, a prediction or `positive` is no class, or `by` names no column.
    """
    keys = [by] if isinstance(by, str) else list(by)
    table = whole_rows(predictions, keys, caller=caller)
    classes = table["label"].cat.categories
    named = [positive] if isinstance(positive, str) else list(classes if positive is None else positive)
    for name in named:
        if name not in classes:
            raise ValueError(
                f"`positive` expects classes of the table: {', '.join(map(str, classes[:10]))}. Received: {name!r}."
            )
    grouped = table.groupby(keys, observed=True, sort=True)
    group = grouped.ngroup().to_numpy()
    true = classes.get_indexer(pd.Index(table["label"].astype(object)))
    guess = classes.get_indexer(pd.Index(table["predicted"].astype(object)))
    size = (int(group.max()) + 1, len(classes))

    def cells(codes: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(group * size[1] + codes, chosen, size[0] * size[1]).reshape(size)

    return Counts(
        names=table.loc[:, keys].iloc[np.unique(group, return_index=True)[1]].reset_index(drop=True),
        positive=tuple(named),
        classes=tuple(classes),
        images=np.bincount(group),
        support=cells(true),
        claimed=cells(guess),
        hits=cells(true, true == guess),
    )


def whole_rows(predictions: pd.DataFrame, keys: Sequence[str], *, caller: str) -> pd.DataFrame:
    """The rows that have label, prediction and group; says how many have not.

    Raises:
        ValueError: If none remains, `by` names no column, or a prediction is no class.
    """
    if not keys:
        raise ValueError(f"`{caller}` expects the name of at least one column in `by`. Received none.")
    needed = ["label", "predicted", *keys]
    require_columns(predictions, *needed, caller=caller)
    known = predictions[needed].notna().all(axis=1).to_numpy()
    if not known.any():
        raise ValueError(
            f"`{caller}` expects rows that have {', '.join(needed)}. Received {len(known)} rows, none of which has all."
        )
    if not known.all():
        warnings.warn(
            f"`{caller}` leaves out {(~known).sum()} of {len(known)} rows, where one of {', '.join(needed)} is empty.",
            UserWarning,
            stacklevel=4,
        )
    table = predictions[known]
    strange = sorted({str(name) for name in table["predicted"]} - {str(name) for name in table["label"].cat.categories})
    if strange:
        raise ValueError(
            f"`{caller}` expects `predicted` to hold classes of `label`. Received also: {', '.join(strange[:5])}."
        )
    return table


def warn_small(counts: Counts, smallest: int) -> None:
    """Says which groups have too few images to speak of."""
    few = [f"{counts.name(place)} ({n})" for place, n in enumerate(counts.images) if n < smallest]
    if few:
        more = f" and {len(few) - 8} more" if len(few) > 8 else ""
        warnings.warn(
            f"Groups with fewer than {smallest} images: {', '.join(few[:8])}{more}. Their scores are mostly chance: "
            "collect more, or join groups.",
            UserWarning,
            stacklevel=3,
        )

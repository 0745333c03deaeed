"""Which score has which interval; `metrics.intervals` has the intervals, and the reasons."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnlab.metrics import intervals
from cnnlab.metrics.table import Outcome
from cnnlab.metrics.values import BINS, Counts, Statistic, area_scorer, counter, row_values, scorer

SHARES = ("accuracy", "weighted_recall", "top_")  # of images
MEANS_OF_CLASSES = ("balanced_accuracy", "macro_", "roc_auc", "pr_auc")
MEANS_OF_IMAGES = ("log_loss", "brier")
SIGNED = ("kappa", "mcc")  # from -1 to 1


@dataclass(frozen=True)
class Sampling:
    """How resamples are drawn.

    Attributes:
        units: Of each row, the number of what is drawn as a whole: the row itself, or its group.
        grouped: Whether those are groups.
        count: Resamples.
        seed: Same seed, same resamples.
    """

    units: np.ndarray
    grouped: bool
    count: int
    seed: int

    @property
    def size(self) -> int:
        """Units in all."""
        return int(self.units.max()) + 1

    @property
    def freedom(self) -> float:
        """Degrees of freedom of a variance between units; rows are counted as plenty."""
        return self.size - 1 if self.grouped else np.inf

    def witnesses(self, codes: np.ndarray, count: int) -> np.ndarray:
        """Of each class, how many units have it."""
        pairs = np.unique(np.stack([codes, self.units]), axis=1)
        return np.bincount(pairs[0], minlength=count)


def sampling(table: pd.DataFrame, group: str | None, *, count: int, seed: int) -> Sampling:
    """Draws rows, or the groups of a column.

    Raises:
        ValueError: If resamples are too few to say anything, or there is one group only.
    """
    if count < 100:
        raise ValueError(f"`bootstrap` expects 0, or at least 100 resamples; 1000 is usual. Received: {count}.")
    if group is None:
        return Sampling(np.arange(len(table)), False, count, seed)
    units = pd.factorize(table[group])[0]
    if units.max() < 1:
        raise ValueError(
            f"Intervals over groups need at least two of them, better 20. Received one group in the column {group!r}, "
            f"{table[group].iloc[0]!r}. Leave `group` out only if the images are independent of each other."
        )
    return Sampling(units, True, count, seed)


def score_limits(seen: Outcome, found: dict[str, float], how: Sampling, *, top: int) -> dict[str, intervals.Limits]:
    """The interval of each score in `found`."""
    drawn = intervals.bootstrap(scorer(seen, top=top), how.units, count=how.count, seed=how.seed)
    rows = row_values(seen, top=top)
    few = intervals.freedom_of_few(area_scorer(seen), how.units)
    class_size, class_freedom = intervals.freedom_of(how.witnesses(seen.true, len(seen.classes)))
    limits: dict[str, intervals.Limits] = {}
    for name, value in found.items():
        if name == "calibration_error":
            limits[name] = _calibration(seen, how)
        elif name in MEANS_OF_IMAGES:
            limits[name] = intervals.unbounded(rows[name], how.units, count=how.count, seed=how.seed)
        elif name.startswith(SHARES) and not how.grouped:
            limits[name] = _pair(intervals.wilson(value, how.size))
        elif name.startswith(MEANS_OF_CLASSES):
            freedom = 1 / (1 / class_freedom + 1 / few.get(name, np.inf))
            limits[name] = _pair(
                intervals.bounded(value, drawn[name], corner=class_size, freedom=min(freedom, how.freedom))
            )
        else:
            lowest = -1.0 if name in SIGNED else 0.0
            limits[name] = _pair(
                intervals.bounded(value, drawn[name], corner=how.size, freedom=how.freedom, lowest=lowest)
            )
    return limits


def _pair(limits: tuple[np.ndarray, np.ndarray]) -> intervals.Limits:
    return float(limits[0]), float(limits[1])


def _calibration(seen: Outcome, how: Sampling) -> intervals.Limits:
    right = seen.true == seen.predicted
    return intervals.calibration(
        np.asarray(seen.confidence), right, how.units, bins=BINS, count=min(how.count, 500), seed=how.seed
    )


def class_limits(seen: Outcome, counts: Counts, how: Sampling) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The interval of precision, recall and F1 of every class."""
    hits, support, claimed = counts.hits[0], counts.support[0], counts.claimed[0]
    either = support + claimed - hits
    if not how.grouped:
        low, high = intervals.wilson(hits / np.maximum(either, 1), either)
        return {
            "precision": intervals.wilson(counts.precision[0], claimed),
            "recall": intervals.wilson(counts.recall[0], support),
            "f1": (2 * low / (1 + low), 2 * high / (1 + high)),
        }
    classes = len(seen.classes)
    drawn = intervals.bootstrap(_per_class(seen), how.units, count=how.count, seed=how.seed)
    with_label = how.witnesses(seen.true, classes)
    with_claim = how.witnesses(seen.predicted, classes)
    groups = {"precision": with_claim, "recall": with_label, "f1": np.maximum(with_label, with_claim)}
    return {
        name: intervals.bounded(getattr(counts, name)[0], drawn[name], corner=size, freedom=size - 1)
        for name, size in groups.items()
    }


def _per_class(seen: Outcome) -> Statistic:
    count = counter(seen)

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        counts = count(weights)
        return {
            "precision": np.where(counts.claimed > 0, counts.precision, np.nan),
            "recall": np.where(counts.support > 0, counts.recall, np.nan),
            "f1": np.where(counts.present, counts.f1, np.nan),
        }

    return statistic

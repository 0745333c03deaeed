"""Every metric as a function of row weights: with ones it is the score, with a bootstrap's counts its resampled scores.

Writing them for many weightings at once is what makes a thousand resamples cheap: one product of matrices takes the
place of a thousand calls. The definitions are scikit-learn's, which the tests hold against it.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse

from cnnlab.metrics.table import Outcome

BINS = 15

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]  # of weights, shape (images, weightings)


def divide(top: np.ndarray, bottom: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """`top / bottom`, and `empty` where there is nothing to divide by."""
    top, bottom = np.broadcast_arrays(np.asarray(top, float), np.asarray(bottom, float))
    return np.divide(top, bottom, out=np.full(top.shape, empty), where=bottom > 0)


def one_hot(codes: np.ndarray, count: int, values: np.ndarray | None = None) -> scipy.sparse.csr_array:
    """Shape (count, rows): 1, or the row's value, in the line of its code; sums rows by code once multiplied."""
    rows = len(codes)
    data = np.ones(rows) if values is None else np.asarray(values, float)
    return scipy.sparse.csr_array((data, (codes, np.arange(rows))), shape=(count, rows))


class Counts:
    """Per weighting and class: images of it (`support`), predictions of it (`claimed`), and both (`hits`)."""

    def __init__(self, support: np.ndarray, claimed: np.ndarray, hits: np.ndarray):
        self.support, self.claimed, self.hits = support, claimed, hits
        self.present = (support + claimed) > 0
        self.images = support.sum(axis=1)

    @property
    def precision(self) -> np.ndarray:
        """Per class; 0 for one that is never predicted."""
        return divide(self.hits, self.claimed)

    @property
    def recall(self) -> np.ndarray:
        """Per class; 0 for one without images."""
        return divide(self.hits, self.support)

    @property
    def f1(self) -> np.ndarray:
        """Per class; 0 for one without a hit."""
        return divide(2 * self.hits, self.support + self.claimed)

    def macro(self, values: np.ndarray) -> np.ndarray:
        """The mean over the classes that occur, as label or as prediction."""
        return divide((values * self.present).sum(axis=1), self.present.sum(axis=1), np.nan)

    def weighted(self, values: np.ndarray) -> np.ndarray:
        """The mean over the images' classes."""
        return divide((values * self.support).sum(axis=1), self.images, np.nan)

    def balanced_accuracy(self) -> np.ndarray:
        """The mean recall of the classes that have images."""
        return divide(self.recall.sum(axis=1), (self.support > 0).sum(axis=1), np.nan)

    def kappa(self) -> np.ndarray:
        """Agreement beyond chance; nan where chance alone agrees always."""
        chance = (self.support * self.claimed).sum(axis=1)
        return divide(self.images * self.hits.sum(axis=1) - chance, self.images**2 - chance, np.nan)

    def mcc(self) -> np.ndarray:
        """The correlation of label and prediction; 0 where one of them is constant."""
        squared = self.images**2
        covariance = self.images * self.hits.sum(axis=1) - (self.support * self.claimed).sum(axis=1)
        spread = (squared - (self.support**2).sum(axis=1)) * (squared - (self.claimed**2).sum(axis=1))
        return divide(covariance, np.sqrt(np.maximum(spread, 0)))


def from_counts(counts: Counts) -> dict[str, np.ndarray]:
    """The scores that need only label and prediction, each of shape (weightings,)."""
    return {
        "accuracy": divide(counts.hits.sum(axis=1), counts.images, np.nan),
        "balanced_accuracy": counts.balanced_accuracy(),
        "macro_precision": counts.macro(counts.precision),
        "macro_recall": counts.macro(counts.recall),
        "macro_f1": counts.macro(counts.f1),
        "weighted_precision": counts.weighted(counts.precision),
        "weighted_recall": counts.weighted(counts.recall),
        "weighted_f1": counts.weighted(counts.f1),
        "kappa": counts.kappa(),
        "mcc": counts.mcc(),
    }


def counter(outcome: Outcome) -> Callable[[np.ndarray], Counts]:
    """Prepares counting; the result takes weights of shape (images, weightings)."""
    count = len(outcome.classes)
    right = (outcome.true == outcome.predicted).astype(float)
    support, claimed = one_hot(outcome.true, count), one_hot(outcome.predicted, count)
    hits = one_hot(outcome.true, count, right)
    return lambda weights: Counts((support @ weights).T, (claimed @ weights).T, (hits @ weights).T)


def scorer(outcome: Outcome, *, top: int = 3) -> Statistic:
    """Prepares all scores that the table allows, for weights of shape (images, weightings)."""
    count, rows = counter(outcome), row_values(outcome, top=top)
    areas = None if outcome.probability is None else Areas(outcome.true, outcome.probability)
    error = None if outcome.confidence is None else calibration_error(outcome.confidence, excess(outcome))

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        images = weights.sum(axis=0)
        found = from_counts(count(weights))
        found |= {name: divide(row @ weights, images, np.nan) for name, row in rows.items()}
        if areas is not None:
            found |= dict(zip(("roc_auc", "pr_auc"), map(_mean, areas(weights)), strict=True))
        if error is not None:
            found["calibration_error"] = error(weights)
        return found

    return statistic


def values(outcome: Outcome, *, top: int = 3) -> dict[str, float]:
    """All scores that the table allows, each row counted once."""
    found = scorer(outcome, top=top)(np.ones((len(outcome), 1)))
    return {name: float(value[0]) for name, value in found.items()}


def row_values(outcome: Outcome, *, top: int = 3) -> dict[str, np.ndarray]:
    """The scores that are plain means over images: the value of each image."""
    chance = outcome.probability
    if chance is None:
        return {}
    rows = np.arange(len(outcome))
    found = {}
    if chance.shape[1] > top:
        # scikit-learn's way with ties: of equal probabilities the later class comes first
        best = np.argsort(chance, axis=1, kind="stable")[:, -top:]
        found[f"top_{top}_accuracy"] = (best == outcome.true[:, None]).any(axis=1).astype(float)
    tiny = np.finfo(float).eps
    found["log_loss"] = -np.log(np.clip(chance[rows, outcome.true], tiny, 1 - tiny))
    wanted = np.zeros_like(chance)
    wanted[rows, outcome.true] = 1
    # two classes make the same error twice, so that the score of one is the custom: 0 to 1; beyond two, 0 to 2
    found["brier"] = ((chance - wanted) ** 2).sum(axis=1) / (2 if chance.shape[1] == 2 else 1)
    return found


class Areas:
    """Area under the ROC curve and average precision, of each class against the rest.

    Only where the score of a positive image lies does either area gain anything. So rows are summed between those
    places, which is a product with a matrix that holds one 1 per row and class.
    """

    def __init__(self, true: np.ndarray, probability: np.ndarray):
        self.classes = probability.shape[1]
        self.slices: dict[int, slice] = {}
        between: list[np.ndarray] = []
        exact: list[np.ndarray] = []
        tied: list[np.ndarray] = []
        start = 0
        for number in range(self.classes):
            positive, score = true == number, probability[:, number]
            if not positive.any():
                continue
            levels = np.unique(score[positive])[::-1]
            place = np.searchsorted(-levels, -score)  # the first level that the row's score reaches
            reached = place < len(levels)
            equal = reached & (levels[np.minimum(place, len(levels) - 1)] == score)
            for cells, rows in ((between, reached), (exact, positive), (tied, equal & ~positive)):
                cells.append(np.stack([start + place[rows], np.flatnonzero(rows)]))
            self.slices[number] = slice(start, start + len(levels))
            start += len(levels)
        shape = (start, len(true))
        self.between, self.exact, self.tied = (_ones(cells, shape) for cells in (between, exact, tied))

    def __call__(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both areas, each of shape (weightings, classes); nan where a class or its rest has no weight."""
        images = weights.sum(axis=0)
        between, exact, tied = self.between @ weights, self.exact @ weights, self.tied @ weights
        roc, average = np.full((2, self.classes, weights.shape[1]), np.nan)
        for number, part in self.slices.items():
            here, equal = exact[part], tied[part]
            hits, flagged = np.cumsum(here, axis=0), np.cumsum(between[part], axis=0)
            positives = hits[-1]
            below = (images - positives) - (flagged - hits) + equal / 2
            roc[number] = divide((here * below).sum(axis=0), positives * (images - positives), np.nan)
            average[number] = divide((here * divide(hits, flagged)).sum(axis=0), positives, np.nan)
        return roc.T, average.T


def _ones(cells: list[np.ndarray], shape: tuple[int, int]) -> scipy.sparse.csr_array:
    lines, rows = np.concatenate(cells, axis=1)
    return scipy.sparse.csr_array((np.ones(len(lines)), (lines, rows)), shape=shape)


def _mean(columns: np.ndarray) -> np.ndarray:
    """The mean of what is known in each row; nan where nothing is."""
    known = ~np.isnan(columns)
    return divide(np.where(known, columns, 0).sum(axis=1), known.sum(axis=1), np.nan)


def excess(outcome: Outcome) -> np.ndarray:
    """By how much each image's confidence was too high: less 1 where the prediction is right."""
    return np.asarray(outcome.confidence) - (outcome.true == outcome.predicted)


def bin_of(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The number of the equally wide bin, each open at its left end and closed at its right."""
    return np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)


def calibration_error(
    confidence: np.ndarray, excess: np.ndarray, bins: int = BINS
) -> Callable[[np.ndarray], np.ndarray]:
    """Expected calibration error: how far confidence is from accuracy, over bins, weighted by their images."""
    gaps = one_hot(bin_of(confidence, bins), bins, excess)
    return lambda weights: divide(np.abs(gaps @ weights).sum(axis=0), weights.sum(axis=0), np.nan)

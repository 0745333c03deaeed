"""Every metric as a function of row weights: with ones it is the score, with a bootstrap's counts its resampled scores.

Writing them for many weightings at once is what makes a thousand resamples cheap: one product of matrices takes the
place of a thousand calls. The definitions are scikit-learn's, which the tests hold against it.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse

from cnnlab._common import is_whole
from cnnlab.metrics.predictions import Outcome

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
        self.precision, self.recall = divide(hits, claimed), divide(hits, support)
        self.f1 = divide(2 * hits, support + claimed)


def from_counts(counts: Counts) -> dict[str, np.ndarray]:
    """The scores that need only label and prediction, each of shape (weightings,)."""
    support, claimed, images, right = counts.support, counts.claimed, counts.images, counts.hits.sum(axis=1)
    by_chance = (support * claimed).sum(axis=1)
    spread = (images**2 - (support**2).sum(axis=1)) * (images**2 - (claimed**2).sum(axis=1))
    of_class = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1}
    present = counts.present.sum(axis=1)  # a class is where it occurs, as label or as prediction
    return {
        "accuracy": divide(right, images, np.nan),
        "balanced_accuracy": divide(counts.recall.sum(axis=1), (support > 0).sum(axis=1), np.nan),
        **{f"macro_{name}": divide(values.sum(axis=1), present, np.nan) for name, values in of_class.items()},
        **{
            f"weighted_{name}": divide((values * support).sum(axis=1), images, np.nan)
            for name, values in of_class.items()
        },
        "kappa": divide(images * right - by_chance, images**2 - by_chance, np.nan),
        "mcc": divide(images * right - by_chance, np.sqrt(np.maximum(spread, 0))),
    }


def counter(outcome: Outcome) -> Callable[[np.ndarray], Counts]:
    """Prepares counting; the result takes weights of shape (images, weightings)."""
    count = len(outcome.classes)
    support, claimed = one_hot(outcome.true, count), one_hot(outcome.predicted, count)
    hits = one_hot(outcome.true, count, outcome.true == outcome.predicted)
    return lambda weights: Counts((support @ weights).T, (claimed @ weights).T, (hits @ weights).T)


def scorer(outcome: Outcome, *, top: int = 3) -> Statistic:
    """Prepares all scores that the table allows, for weights of shape (images, weightings)."""
    if not is_whole(top):
        raise ValueError(f"`top` expects a whole number of classes from 1, such as 3. Received: {top!r}.")
    count, rows = counter(outcome), row_values(outcome, top=top)
    area = None if outcome.probability is None else areas(outcome.true, outcome.probability)
    error = None if outcome.confidence is None else calibration_error(outcome.confidence, excess(outcome))

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        images = weights.sum(axis=0)
        found = from_counts(count(weights))
        found |= {name: divide(row @ weights, images, np.nan) for name, row in rows.items()}
        if area is not None:
            found |= area(weights)
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


def areas(true: np.ndarray, probability: np.ndarray) -> Statistic:
    """Prepares the areas under ROC and precision-recall curves: means over the classes, each against the rest.

    Only where the score of a positive image lies does either area gain anything, so rows are summed between those
    levels, by a product with a matrix that holds one 1 per row.
    """
    numbers, starts = np.unique(true), [0]
    cells: list[list[np.ndarray]] = [[], [], []]
    for number in numbers:
        positive, score = true == number, probability[:, number]
        levels = np.unique(score[positive])[::-1]
        place = np.minimum(np.searchsorted(-levels, -score), len(levels) - 1)  # the first level that the score reaches
        tied = (levels[place] == score) & ~positive
        for part, rows in zip(cells, (score >= levels[-1], positive, tied), strict=True):
            part.append(np.stack([starts[-1] + place[rows], np.flatnonzero(rows)]))
        starts.append(starts[-1] + len(levels))
    places = [np.concatenate(part, axis=1) for part in cells]
    matrices = [scipy.sparse.csr_array((np.ones(part.shape[1]), part), (starts[-1], len(true))) for part in places]

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        images = weights.sum(axis=0)
        roc, average = np.full((2, probability.shape[1], weights.shape[1]), np.nan)
        sums = (np.split(matrix @ weights, starts[1:-1]) for matrix in matrices)
        for number, between, here, tied in zip(numbers, *sums, strict=True):
            hits, flagged = np.cumsum(here, axis=0), np.cumsum(between, axis=0)
            positives = hits[-1]
            below = (images - positives) - (flagged - hits) + tied / 2
            roc[number] = divide((here * below).sum(axis=0), positives * (images - positives), np.nan)
            average[number] = divide((here * divide(hits, flagged)).sum(axis=0), positives, np.nan)
        return {"roc_auc": _mean(roc), "pr_auc": _mean(average)}

    return statistic


def _mean(classes: np.ndarray) -> np.ndarray:
    """The mean over the classes that have a value; nan where none has."""
    known = ~np.isnan(classes)
    return divide(np.where(known, classes, 0).sum(axis=0), known.sum(axis=0), np.nan)


def excess(outcome: Outcome) -> np.ndarray:
    """By how much each image's confidence was too high: less 1 where the prediction is right."""
    return np.asarray(outcome.confidence) - (outcome.true == outcome.predicted)


def bin_of(confidence: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The number of the equally wide bin, each open at its left end and closed at its right."""
    return np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)


def calibration_error(confidence: np.ndarray, excess: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Expected calibration error: how far confidence is from accuracy, over bins, weighted by their images."""
    gaps = one_hot(bin_of(confidence), BINS, excess)
    return lambda weights: divide(np.abs(gaps @ weights).sum(axis=0), weights.sum(axis=0), np.nan)

"""How far a score could lie from the truth by chance.

Resampling tells how much a score moves; it does not by itself give an honest interval. The middle 95 % of resampled
values is too short on test sets of a few hundred images, and claims certainty when no mistake was seen. So the
resamples give the variance here, and the interval is shaped by what the score is:

- a share of images (accuracy, recall, precision) has Wilson's interval, which needs no resampling;
- F1 of a class is a function of the share hits / (images that are it or are called it), whose interval is carried over;
- other scores between 0 and 1 (macro and weighted means, areas, and kappa and the correlation on their scale of -1 to
  1) get Wilson's interval for the number of images at which a plain share would vary as much as the resampled score:
  its effective size. Where rare classes or few images decide, Student's quantile replaces the normal one;
- means without an upper bound (log loss, Brier) have a bootstrap-t interval;
- the calibration error, which is never 0 by chance alone, has the errors under which what was seen is not surprising.

Resampling draws images (or groups) whatever their class: the mixture of classes in a test set is drawn as well. Held
fixed (a stratified bootstrap), intervals of precision and F1 came out too short wherever it was not fixed in truth, and
freeing it cost next to nothing where it was.
"""

from collections.abc import Iterator

import numpy as np
import scipy.special
import scipy.stats

from cnnlab.metrics.values import Statistic, bin_of, divide

LEVEL = 0.95
MOST_NUMBERS = 2_000_000  # of a block of weights: 16 MB
MOST_LEFT_OUT = 2000  # units

Limits = tuple[float, float]


def resamples(units: np.ndarray, *, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yields blocks of row weights, shape (rows, resamples): how often each row is in a resample.

    Args:
        units: Of each row, the number of what is drawn as a whole: the row itself, or its group.
        count: Resamples in all.
        seed: Same seed, same resamples.
    """
    generator = np.random.default_rng(seed)
    size = int(units.max()) + 1
    step = max(1, MOST_NUMBERS // max(size, len(units)))
    for start in range(0, count, step):
        rows = min(step, count - start)
        drawn = generator.integers(0, size, (rows, size)) + size * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        yield times.T[units].astype(float)


def bootstrap(statistic: Statistic, units: np.ndarray, *, count: int, seed: int) -> dict[str, np.ndarray]:
    """The resampled values of every score; the first axis of each is the resample."""
    parts = [statistic(weights) for weights in resamples(units, count=count, seed=seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def quantile(freedom: float | np.ndarray = np.inf) -> np.ndarray:
    """How many standard errors the interval reaches: 1.96 when the variance is known, more when it is guessed."""
    return np.asarray(scipy.stats.t.ppf((1 + LEVEL) / 2, np.maximum(freedom, 1)))


def wilson(
    share: np.ndarray | float, count: np.ndarray | float, freedom: np.ndarray | float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share of `count` images; honest near 0 and 1. Nan where there are none.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    z = quantile(freedom)
    share, count = np.asarray(share, float), np.asarray(count, float)
    count = np.where(count > 0, count, np.nan)
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return np.clip(center - half, 0, 1), np.clip(center + half, 0, 1)


def bounded(
    value: np.ndarray | float,
    drawn: np.ndarray,
    *,
    corner: np.ndarray | float,
    freedom: np.ndarray | float = np.inf,
    lowest: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval at the effective size: the count at which a share would vary as the resampled score does.

    Args:
        value: The score, or one for each class.
        drawn: Its resampled values, resamples along the first axis.
        corner: The size to assume where resampling sees no variance, as when there is no mistake.
        freedom: Degrees of freedom of that variance.
        lowest: The worst possible value, 0 or -1; the best is 1.

    Source: the effective size is that of surveys, as in Korn and Graubard (1998), Confidence intervals for proportions
        with small expected number of positive counts estimated from survey data.
    """
    share = (np.asarray(value, float) - lowest) / (1 - lowest)
    known = ~np.isnan(drawn)
    few = known.mean(axis=0) < 0.5  # not defined in most resamples: nothing can be said
    count = np.maximum(known.sum(axis=0), 1)
    scaled = np.where(known, (drawn - lowest) / (1 - lowest), 0)
    mean = scaled.sum(axis=0) / count
    variance = (np.where(known, scaled - mean, 0) ** 2).sum(axis=0) / np.maximum(count - 1, 1)
    blind = (variance <= 1e-12) | (share <= 0) | (share >= 1)
    size = np.where(blind, corner, divide(share * (1 - share), np.where(blind, 1, variance)))
    low, high = wilson(np.where(few, np.nan, share), size, freedom)
    return lowest + (1 - lowest) * low, lowest + (1 - lowest) * high


def freedom_of(sizes: np.ndarray) -> tuple[float, float]:
    """What a mean over classes knows: its effective size, and degrees of freedom, given the images of each class.

    Source: Satterthwaite (1946), An approximate distribution of estimates of variance components.
    """
    sizes = sizes[sizes > 0]
    parts = 1 / sizes
    freedom = parts.sum() ** 2 / (parts**2 / np.maximum(sizes - 1, 1)).sum()
    return len(sizes) ** 2 / parts.sum(), freedom


def freedom_of_few(statistic: Statistic, units: np.ndarray) -> dict[str, float]:
    """Degrees of freedom of a score that hangs on few images, as an area does on the positives that rank low.

    Leaving out one unit at a time shows how much hangs on each; the more of it on few, the less is known of the
    variance, by the kurtosis. With more than 2,000 units it matters no longer.

    Source: O'Neill (2014), Some useful moment results in sampling problems, for the variance of a variance.
    """
    size = int(units.max()) + 1
    if size > MOST_LEFT_OUT:
        return {}
    step = max(1, MOST_NUMBERS // len(units))
    parts = [
        statistic((units[:, None] != np.arange(start, min(start + step, size))).astype(float))
        for start in range(0, size, step)
    ]
    freedom = {}
    for name in parts[0]:
        left = np.concatenate([part[name] for part in parts])
        off = left - np.nanmean(left) if (~np.isnan(left)).any() else np.zeros(1)
        spread = np.nanmean(off**2)
        kurtosis = np.nanmean(off**4) / spread**2 if spread > 0 else 1.0
        freedom[name] = float(2 * size / (kurtosis - 1)) if kurtosis > 1 else np.inf
    return freedom


def unbounded(rows: np.ndarray, units: np.ndarray, *, count: int, seed: int) -> Limits:
    """The bootstrap-t interval of the mean of `rows`, none of them below 0.

    Source: Efron and Tibshirani (1993), An introduction to the bootstrap, chapter 12.
    """
    sums, sizes = np.bincount(units, rows), np.bincount(units).astype(float)
    mean, error = _mean_and_error(np.ones((len(sizes), 1)), sums, sizes)
    if not error[0] > 0:
        return float(mean[0]), float(mean[0])
    parts = [
        _mean_and_error(weights, sums, sizes) for weights in resamples(np.arange(len(sizes)), count=count, seed=seed)
    ]
    means, errors = (np.concatenate(part) for part in zip(*parts, strict=True))
    studentised = divide(means - mean[0], errors, np.nan)
    low, high = np.nanquantile(studentised, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return max(float(mean[0] - high * error[0]), 0.0), float(mean[0] - low * error[0])


def _mean_and_error(weights: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = sizes @ weights
    mean = (sums @ weights) / images
    squares = sums**2 @ weights - 2 * mean * ((sums * sizes) @ weights) + mean**2 * (sizes**2 @ weights)
    return mean, np.sqrt(np.maximum(squares, 0)) / images


def calibration(
    confidence: np.ndarray, right: np.ndarray, units: np.ndarray, *, bins: int, count: int, seed: int
) -> Limits:
    """The calibration errors under which the one that was seen would be no surprise.

    By chance alone the error of a perfect model is above 0, and resampling adds that chance once more. So it is turned
    round: for each possible error, outcomes are drawn from a model whose confidence is off by as much, and the limits
    are where the error that was seen leaves the middle 95 % of theirs.
    """
    generator = np.random.default_rng(seed)
    excess = confidence - right
    seen = bin_of(confidence, bins)
    images = np.bincount(seen, minlength=bins)
    filled = images > 0
    middle = np.bincount(seen, confidence, bins)[filled] / images[filled]
    share = images[filled] / len(seen)
    found = float(np.abs(np.bincount(seen, excess, bins)).sum() / len(seen))
    size = max(round(len(seen) / design_effect(excess, units)), 1)
    off = _accuracies(middle, too_sure=bool(excess.mean() >= 0))
    reached = np.maximum.accumulate((np.abs(middle - off) * share).sum(axis=1))
    steps = np.linspace(0, min(found + 1.5 / np.sqrt(size), reached[-1]), 41)
    chance = off[np.minimum(np.searchsorted(reached, steps), len(off) - 1)]
    possible = (np.abs(middle - chance) * share).sum(axis=1)
    drawn = generator.multinomial(size, share, (count, 1))
    errors = np.abs(middle * drawn - generator.binomial(drawn, chance)).sum(axis=2) / size
    quantiles = np.quantile(errors, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    lowest, highest = np.maximum.accumulate(quantiles, axis=1)
    low = 0.0 if found <= highest[0] else float(np.interp(found, highest, possible))
    high = float(np.interp(found, lowest, possible))
    if found >= lowest[-1]:  # nearly no mistakes: no accuracy of the bins explains it, other confidences would
        high = max(high, abs(excess.mean()) + float(quantile()) * excess.std() / np.sqrt(size))
    return min(low, found), max(high, found)


def _accuracies(middle: np.ndarray, *, too_sure: bool) -> np.ndarray:
    """What the accuracy of each bin could be, farther and farther from its confidence; shape (steps, bins).

    Too sure, all bins are off by the same amount, which 0 ends; not sure enough, by the same logit, which nothing ends:
    bins that are always right would have no chance in them.
    """
    if too_sure:
        return np.maximum(middle - np.linspace(0, 1, 1001)[:, None], 0)
    shifts = np.concatenate([np.linspace(0, 3, 601), np.linspace(3, 40, 400)[1:]])
    return scipy.special.expit(scipy.special.logit(np.clip(middle, 1e-9, 1 - 1e-9)) + shifts[:, None])


def design_effect(rows: np.ndarray, units: np.ndarray) -> float:
    """How much more the mean of `rows` varies than if each row were a witness of its own; 1 at least."""
    off = rows - rows.mean()
    return max(float(divide(np.array((np.bincount(units, off) ** 2).sum()), np.array((off**2).sum()), 1.0)), 1.0)

"""How far apart groups are, and whether chance alone could have parted them."""

import bisect
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cnnlab.fairness.groups import SMALLEST, By, Counts, count, warn_small

LEVEL = 0.95
# Of what each end leaves out. 0.025 would do if it were known which groups are the best and the worst; that they are
# picked by what is seen makes such intervals hold the truth in 90 of 100 simulated tables only, with three groups.
TAIL = 0.014
STEPS = 61  # gaps that are tried, from none up
Rate = tuple[np.ndarray, np.ndarray]  # of each group: the images that count, and those they are a share of

# What each gap compares; of two rates, the wider gap counts.
MEASURES = {
    "demographic_parity": ("selection_rate",),
    "equal_opportunity": ("true_positive_rate",),
    "equalized_odds": ("true_positive_rate", "false_positive_rate"),
}


def gaps(
    predictions: pd.DataFrame,
    by: By,
    *,
    positive: str | Sequence[str] | None = None,
    bootstrap: int = 1000,
    smallest: int = SMALLEST,
    seed: int = 0,
) -> pd.DataFrame:
    """Measures how far the best and the worst group are apart, and whether that can be chance.

    The gap between groups that are served equally well is never 0 by chance alone, and grows with their number. So the
    interval has the gaps under which the one that was seen would be no surprise; where `low` is 0, there may be none.
    In simulated tables with 200 images a group it held the true gap in 93 to 99 of 100 cases.

    Args:
        predictions: A table with label, predicted and the columns of `by`.
        by: Column that says which group an image belongs to; of several columns, every combination that occurs.
        positive: The class or classes that matter, each against the rest; all of them where None.
        bootstrap: Draws for each gap that is tried.
        smallest: Groups with fewer images bring a warning.
        seed: Same seed, same intervals.

    Returns:
        One row per gap: measure, class, gap, low, high (95 %), lowest, highest (the groups at either end). Measures are
        accuracy (class "all") and, for each class, demographic_parity (is it called as often?), equal_opportunity (is
        it found as often where it is?) and equalized_odds (the same, and called as rarely where it is not; the wider
        of both). A group without such images takes no part.

    Raises:
        KeyError: If a column is missing.
        ValueError: If there is one group only, or `positive` is no class.

    Warns:
        UserWarning: If a group is too small to speak of.

    Source: Hardt, Price and Srebro (2016), Equality of opportunity in supervised learning; the gaps are fairlearn's
        `demographic_parity_difference`, `equal_opportunity_difference` and `equalized_odds_difference`.

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
    counts = count(predictions, by, positive, caller="fairness.gaps")
    if len(counts.images) < 2:
        raise ValueError(
            f"`fairness.gaps` expects at least two groups in {by!r}. Received one: {counts.name(0)}. There is "
            "nothing to compare it with."
        )
    warn_small(counts, smallest)
    generator = np.random.default_rng(seed)
    rows: list[tuple[object, ...]] = [("accuracy", "all", *_row(counts, [counts.accuracy()], bootstrap, generator))]
    for name in counts.positive:
        for measure, rates in MEASURES.items():
            parts = [counts.rate(rate, name) for rate in rates]
            rows.append((measure, name, *_row(counts, parts, bootstrap, generator)))
    return pd.DataFrame(rows, columns=["measure", "class", "gap", "low", "high", "lowest", "highest"])


def _row(
    counts: Counts, parts: list[Rate], bootstrap: int, generator: np.random.Generator
) -> tuple[float, float, float, str, str]:
    if any((images > 0).sum() < 2 for _, images in parts):
        return np.nan, np.nan, np.nan, "", ""
    shares = [np.divide(hits, images, out=np.full(len(images), np.nan), where=images > 0) for hits, images in parts]
    widths = [float(np.nanmax(share) - np.nanmin(share)) for share in shares]
    widest = int(np.argmax(widths))
    low, high = _interval(parts, max(widths), bootstrap, generator)
    ends = (int(np.nanargmin(shares[widest])), int(np.nanargmax(shares[widest])))
    return max(widths), low, high, counts.name(ends[0]), counts.name(ends[1])


def _interval(parts: list[Rate], found: float, bootstrap: int, generator: np.random.Generator) -> tuple[float, float]:
    """The gaps that leave the one seen within what they bring about, but for `TAIL` at either end.

    Groups keep their places between the worst and the best; only the distance is stretched or shrunk, around the rate
    of all images together.
    """
    sizes = [images[images > 0] for _, images in parts]
    second = min(np.sort(of)[1] for of in sizes)  # the gap moves about as much as the rates of so many images
    tried = np.linspace(0, min(1.0, found + 3 / np.sqrt(second)), STEPS)
    rates = [_stretched(rate, found, tried) for rate in parts]
    actual = np.max([np.ptp(shares, axis=1) for shares in rates], axis=0)

    def drawn(step: int) -> np.ndarray:
        """Gaps that would be seen if the true one were that of the step."""
        return np.max(
            [
                np.ptp(generator.binomial(of, shares[step], (bootstrap, len(of))) / of, axis=1)
                for shares, of in zip(rates, sizes, strict=True)
            ],
            axis=0,
        )

    wide = bisect.bisect_left(range(STEPS), True, key=lambda step: bool((drawn(step) >= found - 1e-9).mean() >= TAIL))
    past = bisect.bisect_left(range(STEPS), True, key=lambda step: bool((drawn(step) <= found + 1e-9).mean() < TAIL))
    return float(actual[min(wide, STEPS - 1)]), float(actual[max(past - 1, 0)])


def _stretched(rate: Rate, found: float, tried: np.ndarray) -> np.ndarray:
    """The rate of each group if the gap were another one. Shape (gaps, groups)."""
    hits, images = rate[0][rate[1] > 0], rate[1][rate[1] > 0]
    together = hits.sum() / images.sum()
    # where all are equal, it is the smallest group that could be apart
    shape = (
        (hits / images - together) / found if found > 0 else -(np.arange(len(hits)) == images.argmin()).astype(float)
    )
    return np.clip(together + tried[:, None] * shape, 0, 1)

"""Is the second model better than the first, or is the difference what chance makes of equal models?"""

import numpy as np
import pandas as pd
import scipy.stats

from cnnlab._common import require_columns
from cnnlab.metrics import intervals
from cnnlab.metrics.formulas import scorer, values
from cnnlab.metrics.predictions import Group, Outcome, is_grouped, outcome, scored, units_of

LOSSES = ("log_loss", "brier", "calibration_error")  # the smaller the better


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    group: Group = None,
    bootstrap: int = 1000,
    top: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Compares two models on the same images, and says which differences are more than noise.

    Both models meet the same easy and hard images, so that their difference is known far better than either score:
    each resample draws images and scores both models on them (a paired bootstrap). Choose the score to decide by before
    looking; among fifteen, one differs "significantly" by chance more often than not.

    Args:
        a: Predictions of the first model.
        b: Predictions of the second for the same images, in any order where both tables have `path`.
        group: Column, or columns, of `a` that say which images belong together; see `scores`.
        bootstrap: Resamples.
        top: As in `scores`.
        seed: Same seed, same answer.

    Returns:
        One row per score that both tables allow: metric, a, b, difference (b less a), low, high (95 % interval of the
        difference: as many bootstrap standard errors as Student's t says), p_value (of a difference as large between
        equal models), mcnemar, and verdict: "a is better", "b is better" or "noise". Of 100 simulated pairs of equal
        models, 2 to 6 were called different. `mcnemar` is the mid-p value of McNemar's exact test, which looks only at
        the images where one model is right and the other wrong; it is given for accuracy, if images are independent.

    Raises:
        ValueError: If the tables are not about the same images with the same labels, or `group` has one group only.

    Source: Efron and Tibshirani (1993), An introduction to the bootstrap; Fagerland, Lydersen and Laake (2013), The
        McNemar test for binary matched-pairs data: mid-p and asymptotic are better than exact conditional.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["cat", "dog"] * 50)
        >>> a = pd.DataFrame({"label": label, "predicted": ["cat"] * 30 + list(label[30:])})
        >>> b = pd.DataFrame({"label": label, "predicted": ["cat"] * 4 + list(label[4:])})
        >>> metrics.compare(a, b)[["metric", "a", "b", "difference", "verdict"]].head(1)
             metric    a    b  difference      verdict
        0  accuracy 0.85 0.98        0.13  b is better
    """
    a, b = _paired(a, b)
    a = scored(a, caller="metrics.compare")
    first, second = (outcome(table, caller="metrics.compare") for table in (a, b.loc[a.index]))
    units = units_of(a, group, caller="metrics.compare")
    freedom = int(units.max())  # one less than there are
    if not freedom and is_grouped(units):
        raise ValueError(
            "`metrics.compare` expects at least two groups of images, better 20. Received one. `group=False` takes "
            "the images as independent of each other."
        )
    score_first, score_second = scorer(first, top=top), scorer(second, top=top)

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        one, other = score_first(weights), score_second(weights)
        return {name: other[name] - one[name] for name in one if name in other}

    one, other = values(first, top=top), values(second, top=top)
    drawn = intervals.bootstrap(difference, units, count=bootstrap, seed=seed)
    rows = [(k, one[k], other[k], *_judged(k, other[k] - one[k], drawn[k], freedom)) for k in drawn]
    table = pd.DataFrame(rows, columns=["metric", "a", "b", "difference", "low", "high", "p_value", "verdict"])
    alone = (table["metric"] == "accuracy") & (not is_grouped(units))
    table.insert(7, "mcnemar", np.where(alone, mcnemar(first, second), np.nan))
    return table


def _judged(name: str, found: float, moved: np.ndarray, freedom: int) -> tuple[float, float, float, float, str]:
    """A difference, its interval and p-value by Student's t, and what that says."""
    freedom = max(freedom, 1)
    # resampling n images varies as if divided by n, not by n - 1
    small = np.sqrt((freedom + 1) / freedom)
    error = small * float(np.nanstd(moved, ddof=1)) if (~np.isnan(moved)).sum() > len(moved) / 2 else np.nan
    reach = float(scipy.stats.t.ppf(intervals.TAILS[1], freedom)) * error
    if error <= 1e-12:
        p_value = 1.0 if abs(found) <= 1e-12 else 0.0
    else:
        p_value = float(2 * scipy.stats.t.sf(abs(found) / error, freedom))
    better = (found > 0) != (name in LOSSES)
    verdict = ("b is better" if better else "a is better") if p_value < 1 - intervals.LEVEL else "noise"
    return found, found - reach, found + reach, p_value, verdict


def mcnemar(first: Outcome, second: Outcome) -> float:
    """The mid-p value of McNemar's exact test."""
    right, also = first.true == first.predicted, second.true == second.predicted
    lost, won = int((right & ~also).sum()), int((~right & also).sum())
    exact = scipy.stats.binom(lost + won, 0.5)
    return float(min(1.0, 2 * exact.cdf(min(lost, won)) - exact.pmf(min(lost, won))))


def _paired(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables in the order of `a`, which has no prediction where either lacks one, or its label."""
    for table in (a, b):
        require_columns(table, "label", "predicted", caller="metrics.compare")
    if "path" in a and "path" in b:
        if set(a["path"]) != set(b["path"]) or a["path"].duplicated().any() or b["path"].duplicated().any():
            strange = len(set(a["path"]) ^ set(b["path"]))
            raise ValueError(
                "`metrics.compare` expects predictions of both models for the same images, each once. Received "
                f"{len(a)} and {len(b)} rows; {strange} images are in one table only. Predict the same table with both."
            )
        b = b.set_index("path", drop=False).loc[a["path"]]
    elif len(a) != len(b):
        raise ValueError(
            "`metrics.compare` expects predictions of both models for the same images, in the same order where the "
            f"tables have no `path`. Received {len(a)} and {len(b)} rows."
        )
    known = np.all([table[name].notna() for table in (a, b) for name in ("label", "predicted")], axis=0)
    labels = [table["label"].astype(object).to_numpy() for table in (a, b)]
    labelled = a["label"].notna().to_numpy() & b["label"].notna().to_numpy()
    differ = int((labels[0][labelled] != labels[1][labelled]).sum())
    if differ:
        raise ValueError(
            "`metrics.compare` expects both tables to give each image the same label. "
            f"{differ} differ: were labels corrected in one of them only?"
        )
    if known.any():  # else `scored` explains what is missing
        a = a.assign(predicted=a["predicted"].where(known))
    return a.reset_index(drop=True), b.reset_index(drop=True)

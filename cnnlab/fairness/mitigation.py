"""Thresholds that narrow a gap between groups, and what they cost."""

import numpy as np
import pandas as pd
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator, ClassifierMixin

from cnnlab._common import require_columns
from cnnlab.fairness.rates import MEASURES, RATES, RESULTS, By, checked_classes, class_shares, group_names
from cnnlab.metrics.formulas import Statistic, counter, divide
from cnnlab.metrics.intervals import TAILS
from cnnlab.metrics.intervals import bootstrap as resampled
from cnnlab.metrics.predictions import (
    Group,
    Outcome,
    by_columns,
    known_probabilities,
    outcome,
    scored,
    units_of,
    with_calls,
)

CONSTRAINTS = {
    "demographic_parity": "demographic_parity",
    "equal_opportunity": "true_positive_rate_parity",
    "equalized_odds": "equalized_odds",
}


def equalize(
    predictions: pd.DataFrame,
    by: By,
    *,
    on: pd.DataFrame,
    positive: str,
    measure: str = "equalized_odds",
    objective: str = "balanced_accuracy_score",
    seed: int = 0,
) -> pd.DataFrame:
    """Gives each group thresholds of its own that narrow a gap, learned on other images.

    Args:
        predictions: A table with p_<class> and the columns of `by`, labelled or not.
        by: Column or columns that say which group an image belongs to; the group must be known whenever the model is
            used.
        on: Predictions of validation images of the same groups, to learn the thresholds from.
        positive: The class that matters; images not predicted as it get the likeliest of the other classes.
        measure: The gap to narrow: demographic_parity, equal_opportunity or equalized_odds (see `gaps`).
        objective: What to keep as high as possible meanwhile: accuracy_score or balanced_accuracy_score.
        seed: Between two thresholds the decision is drawn by lot, which equal odds can need; same seed, same lots.

    Returns:
        A copy with new `predicted` and `confidence`. See what it costs with `cost`.

    Raises:
        ValueError: If a group was not seen in `on`, or lacks images of the class or of the others there.

    Source: Hardt, Price and Srebro (2016), by fairlearn's `ThresholdOptimizer`.
    """
    if measure not in CONSTRAINTS:
        raise ValueError(f"`measure` expects one of {', '.join(CONSTRAINTS)}. Received: measure={measure!r}.")
    keys = by_columns(by, RESULTS, caller="fairness.equalize")
    learned = _learn(on, keys, positive, CONSTRAINTS[measure], objective)
    require_columns(predictions, *keys, caller="fairness.equalize")
    classes, chance, known = known_probabilities(predictions, positive, caller="fairness.equalize")
    known = known & predictions[keys].notna().all(axis=1).to_numpy()
    group = group_names(predictions.loc[known, keys])
    unseen = sorted(set(group) - set(learned.interpolated_thresholder_.interpolation_dict))
    if unseen:
        raise ValueError(
            f"`fairness.equalize` expects groups that `on` has as well. Received also: {', '.join(unseen[:5])}. "
            "No threshold is known for them."
        )
    of_class = chance[known][:, [list(classes).index(positive)]]
    called = np.zeros(len(predictions), dtype=bool)
    called[known] = learned.predict(of_class, sensitive_features=group, random_state=seed)
    return with_calls(predictions, classes, positive, called, np.where(known[:, None], chance, np.nan))


def _learn(on: pd.DataFrame, keys: list[str], positive: str, constraint: str, objective: str) -> ThresholdOptimizer:
    table = scored(on, *keys, caller="fairness.equalize")
    classes, chance, known = known_probabilities(table, positive, caller="fairness.equalize")
    table, chance = table[known], chance[known]
    group = group_names(table[keys])
    truth = (table["label"].astype(object) == positive).to_numpy().astype(int)
    for name, part in pd.Series(truth).groupby(group.to_numpy()):
        if part.min() == part.max():
            raise ValueError(
                f"`fairness.equalize` expects images of {positive!r} and of others in every group of `on`. Received "
                f"{len(part)} images of the group {name}, all of which are {'it' if part.min() else 'others'}."
            )
    optimizer = ThresholdOptimizer(
        estimator=_Chance(), constraints=constraint, objective=objective, prefit=True, predict_method="predict_proba"
    )
    return optimizer.fit(chance[:, [list(classes).index(positive)]], truth, sensitive_features=group)


class _Chance(ClassifierMixin, BaseEstimator):
    """A fitted classifier for fairlearn whose one feature is the probability already."""

    classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: np.ndarray, y: np.ndarray) -> "_Chance":
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return np.concatenate([1 - X, X], axis=1)


def cost(
    before: pd.DataFrame,
    after: pd.DataFrame,
    by: By,
    *,
    positive: str,
    group: Group = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Sets side by side what a change of thresholds wins and what it costs.

    Args:
        before: Predictions, with label, predicted and the columns of `by`.
        after: Predictions of the same rows, such as `equalize` or `metrics.apply_threshold` give.
        by: Column or columns of the groups.
        positive: The class that matters.
        group: Column, or columns, of `before` that say which images belong together; see `groups`.
        bootstrap: Resamples of the images (or of what belongs together), within their groups.
        seed: Same seed, same intervals.

    Returns:
        One row per measure: measure, before, after, change, low, high (the middle 95 % of the change over resamples).
        Measures are accuracy, true_positive_rate, false_positive_rate and selection_rate of all images, then the gaps,
        each named "gap" and its measure.

    Raises:
        ValueError: If the tables do not have the same rows.
    """
    if len(before) != len(after) or not before.index.equals(after.index):
        raise ValueError(
            "`fairness.cost` expects both tables to have the same rows in the same order. Received "
            f"{len(before)} and {len(after)} rows. Use the table that was given to `fairness.equalize`."
        )
    for name in [name for name in ("path", "label") if name in before and name in after]:
        differ = sum(str(one) != str(other) for one, other in zip(before[name], after[name], strict=True))
        if differ:
            raise ValueError(
                f"`fairness.cost` expects both tables to have the same rows in the same order. Received another {name} "
                f"in {differ} of {len(before)} rows. Use the order of the table that was given to `fairness.equalize`."
            )
    keys = by_columns(by, RESULTS, caller="fairness.cost")
    known = before["predicted"].notna().to_numpy() & after["predicted"].notna().to_numpy()
    first = before.assign(_after=after["predicted"].astype(object).to_numpy()).loc[known]
    first = scored(first, *keys, caller="fairness.cost")
    checked_classes(positive, first["label"].cat.categories, caller="fairness.cost")
    found = []
    for number, (_, part) in enumerate(first.groupby(keys, observed=True)):
        seen = [outcome(table, caller="fairness.cost") for table in (part, part.assign(predicted=part["_after"]))]
        statistic = _both(seen[0], seen[1], list(part["label"].cat.categories).index(positive))
        units = units_of(part, group, keys=keys, caller="fairness.cost")
        whole = statistic(np.ones((len(part), 1)))
        drawn = resampled(statistic, units, count=bootstrap, seed=(seed, number))
        found.append({name: np.concatenate([whole[name], drawn[name]]) for name in whole})
    one, other = (
        _measures({name: np.stack([part[f"{name} {time}"] for part in found], axis=1) for name in RATES})
        for time in ("before", "after")
    )
    rows = []
    for name in one:
        moved = other[name] - one[name]
        low, high = np.nanquantile(moved[1:], TAILS)
        rows.append((name, one[name][0], other[name][0], moved[0], low, high))
    return pd.DataFrame(rows, columns=["measure", "before", "after", "change", "low", "high"])


def _both(before: Outcome, after: Outcome, place: int) -> Statistic:
    """Of each rate before and after, the images that count and those they are a share of; (weightings, 2)."""
    counters = {"before": counter(before), "after": counter(after)}

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        for time, count in counters.items():
            for name, pair in class_shares(count(weights)).items():
                column = 0 if name == "accuracy" else place
                found[f"{name} {time}"] = np.stack([part[:, column] for part in pair], axis=1)
        return found

    return statistic


def _measures(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All measures of resamples, from the counts of each rate of shape (resamples, groups, 2)."""
    found, spread = {}, {}
    for name, pair in counts.items():
        together = pair.sum(axis=1)
        found[name] = divide(together[:, 0], together[:, 1], np.nan)
        share = divide(pair[..., 0], pair[..., 1], np.nan)
        known = ~np.isnan(share)
        highest, lowest = np.where(known, share, -np.inf).max(axis=1), np.where(known, share, np.inf).min(axis=1)
        spread[name] = np.where(known.sum(axis=1) > 1, highest - lowest, np.nan)
    for measure, names in {"accuracy": ("accuracy",), **MEASURES}.items():
        found[f"gap_{measure}"] = np.max([spread[name] for name in names], axis=0)
    return found

"""Thresholds that narrow a gap between groups, and what they cost."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator, ClassifierMixin

from cnnlab._common import require_columns
from cnnlab.fairness.gaps import LEVEL, MEASURES
from cnnlab.fairness.groups import By, whole_rows

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
        predictions: A table with label, p_<class> and the columns of `by`.
        by: Column or columns that say which group an image belongs to; the group must be known whenever the model is
            used.
        on: Predictions of validation images of the same groups, to learn the thresholds from.
        positive: The class that matters; images not called so get the likeliest of the other classes.
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
    keys = [by] if isinstance(by, str) else list(by)
    learned = _learn(on, keys, positive, CONSTRAINTS[measure], objective)
    require_columns(predictions, "label", *keys, *_probability_columns(predictions), caller="fairness.equalize")
    table = predictions
    names = _probability_columns(table)
    known = table[[*keys, *names]].notna().all(axis=1).to_numpy()
    group = _group(table[known], keys)
    unseen = sorted(set(group) - set(learned.interpolated_thresholder_.interpolation_dict))
    if unseen:
        raise ValueError(
            f"`fairness.equalize` expects groups that `on` has as well. Received also: {', '.join(unseen[:5])}. "
            "No threshold is known for them."
        )
    chance = table.loc[known, names].to_numpy(dtype=float)
    place = list(table["label"].cat.categories).index(positive)
    called = np.asarray(learned.predict(chance[:, [place]], sensitive_features=group, random_state=seed), dtype=bool)
    others = chance.copy()
    others[:, place] = -1
    codes, confidence = np.full(len(table), -1), np.full(len(table), np.nan)
    codes[known] = np.where(called, place, others.argmax(axis=1))
    confidence[known] = chance[np.arange(len(chance)), codes[known]]
    categories = table["label"].cat.categories
    return table.assign(predicted=pd.Categorical.from_codes(codes, categories=categories), confidence=confidence)


def _learn(on: pd.DataFrame, keys: list[str], positive: str, constraint: str, objective: str) -> ThresholdOptimizer:
    table = whole_rows(on, [*keys, *_probability_columns(on)], caller="fairness.equalize")
    if positive not in table["label"].cat.categories:
        raise ValueError(
            f"`positive` expects one of the classes {', '.join(map(str, table['label'].cat.categories[:10]))}. "
            f"Received: {positive!r}."
        )
    group = _group(table, keys)
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
    return optimizer.fit(table[[f"p_{positive}"]].to_numpy(dtype=float), truth, sensitive_features=group)


def _group(table: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    return table[list(keys)].astype(str).agg(", ".join, axis=1)


def _probability_columns(table: pd.DataFrame) -> list[str]:
    require_columns(table, "label", caller="fairness.equalize")
    return [f"p_{name}" for name in table["label"].cat.categories]


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
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Sets side by side what a change of thresholds wins and what it costs.

    Args:
        before: Predictions, with label, predicted and the columns of `by`.
        after: Predictions of the same rows, such as `equalize` or `metrics.apply_threshold` give.
        by: Column or columns of the groups.
        positive: The class that matters.
        bootstrap: Resamples of the images, within their groups.
        seed: Same seed, same intervals.

    Returns:
        One row per measure: measure, before, after, change, low, high (95 % of the change). Measures are accuracy,
        true_positive_rate, false_positive_rate and selection_rate of all images, then the gaps, each named gap_….

    Raises:
        ValueError: If the tables do not have the same rows.
    """
    if len(before) != len(after) or not before.index.equals(after.index):
        raise ValueError(
            "`fairness.cost` expects both tables to have the same rows in the same order. Received "
            f"{len(before)} and {len(after)} rows. Use the table that was given to `fairness.equalize`."
        )
    known = (before["predicted"].notna() & after["predicted"].notna()).to_numpy()
    members = _members(before[known], after[known], by, positive)
    generator = np.random.default_rng(seed)
    drawn = np.stack([generator.multinomial(of.sum(), of / of.sum(), bootstrap) for of in members], axis=1)
    one, other = (_measures(members[None], table) for table in ("before", "after"))
    first, second = (_measures(drawn, table) for table in ("before", "after"))
    rows = []
    for name in one:
        low, high = np.nanquantile(second[name] - first[name], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        rows.append((name, one[name][0], other[name][0], other[name][0] - one[name][0], low, high))
    return pd.DataFrame(rows, columns=["measure", "before", "after", "change", "low", "high"])


# All that the measures need to know of an image are five answers, so that an image is one of 32 kinds.
KINDS = np.arange(32)
IS = KINDS & 1 > 0
CALLED = {"before": KINDS & 2 > 0, "after": KINDS & 4 > 0}
RIGHT = {"before": KINDS & 8 > 0, "after": KINDS & 16 > 0}


def _members(before: pd.DataFrame, after: pd.DataFrame, by: By, positive: str) -> np.ndarray:
    """How many images of each kind each group has. Shape (groups, 32)."""
    keys = [by] if isinstance(by, str) else list(by)
    whole_rows(after, keys, caller="fairness.cost")
    before = whole_rows(before, keys, caller="fairness.cost")
    label = before["label"].astype(object).to_numpy()
    guesses = [table["predicted"].astype(object).to_numpy() for table in (before, after.loc[before.index])]
    answers = [label == positive, *(guess == positive for guess in guesses), *(guess == label for guess in guesses)]
    kind = sum(answer.astype(int) << place for place, answer in enumerate(answers))
    group = before.groupby(keys, observed=True).ngroup().to_numpy()
    return np.bincount(group * len(KINDS) + kind, minlength=(group.max() + 1) * len(KINDS)).reshape(-1, len(KINDS))


def _measures(members: np.ndarray, table: str) -> dict[str, np.ndarray]:
    """All measures of resamples. Shape of `members`: (resamples, groups, 32)."""
    called, right = CALLED[table], RIGHT[table]
    rates = {
        "accuracy": (right, np.full(len(KINDS), True)),
        "true_positive_rate": (IS & called, IS),
        "false_positive_rate": (~IS & called, ~IS),
        "selection_rate": (called, np.full(len(KINDS), True)),
    }
    found, gaps = {}, {}
    for name, (hits, among) in rates.items():
        top, bottom = members[..., hits].sum(axis=2), members[..., among].sum(axis=2)
        found[name] = _divide(top.sum(axis=1), bottom.sum(axis=1))
        share = _divide(top, bottom)
        lowest, highest = (
            np.where(bottom > 0, share, np.inf).min(axis=1),
            np.where(bottom > 0, share, -np.inf).max(axis=1),
        )
        gaps[name] = np.where((bottom > 0).sum(axis=1) > 1, highest - lowest, np.nan)
    for measure, names in {"accuracy": ("accuracy",), **MEASURES}.items():
        found[f"gap_{measure}"] = np.max([gaps[name] for name in names], axis=0)
    return found


def _divide(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)

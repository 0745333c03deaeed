"""Measures which operations cost accuracy, with models quick enough to ask every time."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cnnlab._common import progress, require_columns
from cnnlab.augment.policy import Policy
from cnnlab.augment.settings import MIXERS
from cnnlab.images import Preparation, prepare
from cnnlab.images.levels import levels_of

SIDE = 64  # operations are applied at this size
FEATURE_SIDE = 16  # and judged at this one
COPIES = 2  # changed copies beside every original
FOLDS = 3
COMPONENTS = 40
MARGIN = 0.01  # less accuracy than that is not worth a warning
SUSPECT = "likely changes labels"


def check(policy: Policy, table: pd.DataFrame, *, images: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Measures for each operation of a policy whether training with it costs accuracy on untouched images.

    A mirrored 2 may pass for a 5, a turned 6 is a 9: an operation that changes what an image means teaches wrong
    labels. A linear discriminant on small images is trained on originals, and again with changed copies
    added; both are scored on originals they have not seen. Such a model cannot learn two contradicting pictures
    apart, so what a label does not survive shows as lost accuracy, and a change that occurs in the data anyway does
    not. Where it loses, a support vector machine is asked too: if that one gains, the labels are fine and the
    verdict is "helps a stronger model". Neither sees fine texture: what they find harmless may still hide small
    defects.

    Args:
        policy: What is to be judged; mixers are left out, as they change labels on purpose.
        table: One row per image with `path` and a categorical `label`; training rows.
        images: How many of them to use, alike of each class as far as there are enough.
        seed: Decides which images, and what is sampled.

    Returns:
        One row per operation: operation, setting, accuracy (without it), accuracy_with, change, low, high (the change's
        interval, at 95 % for all operations together) and verdict.

    Warns:
        UserWarning: If operations cost accuracy beyond chance.

    Raises:
        ValueError: If fewer than two classes have three readable images.

    Source: linear discriminant analysis, support vector machine and cross-validation of scikit-learn.
    """
    from scipy.stats import norm

    require_columns(table, "path", "label", caller="augment.check")
    trial = Trial(*_sample(table, images, seed), seed=seed)
    operations = [name for name in policy.operations if name not in MIXERS]
    plain = trial.right(linear)
    level = norm.ppf(1 - 0.025 / max(len(operations), 1))  # 95 % over all comparisons together (Bonferroni)
    rows = []
    for operation in progress(operations, label="Checking operations", unit="operation"):
        single = policy.only(operation)
        right = trial.right(linear, single)
        change, reach = _difference(right, plain, level)
        verdict = _verdict(trial, single, plain, change, reach)
        facts = (operation, getattr(policy, operation), plain.mean(), right.mean())
        rows.append((*facts, change, change - reach, change + reach, verdict))
    columns = ["operation", "setting", "accuracy", "accuracy_with", "change", "low", "high", "verdict"]
    result = pd.DataFrame(rows, columns=columns)
    _warn(result[result["verdict"] == SUSPECT])
    return result


class Trial:
    """Images on which models are trained with and without an operation, each image scored by one that never saw it."""

    def __init__(self, pictures: np.ndarray, labels: np.ndarray, *, seed: int) -> None:
        from sklearn.decomposition import PCA
        from sklearn.model_selection import StratifiedKFold

        self.pictures, self.labels, self.seed = pictures, labels, seed
        features = _features(pictures)
        self.folds = []
        for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(features, labels):
            # The components are those of the originals, so that all models look at the same things.
            components = PCA(min(COMPONENTS, len(train) - 1), whiten=True, random_state=seed).fit(features[train])
            self.folds.append((train, test, components.transform, components.transform(features)))

    def right(self, make: Callable[[], Any], policy: Policy | None = None) -> np.ndarray:
        """Whether each image is recognised, by a model trained on the policy's copies and the originals."""
        rows = np.arange(len(self.labels))
        copies = []
        if policy is not None:
            sampled = [policy.sample(rows, seed=self.seed, epoch=copy) for copy in range(COPIES)]
            copies = [_features(policy.apply(self.pictures, parameters)) for parameters in sampled]
        found = np.zeros(len(self.labels), dtype=bool)
        for train, test, transform, features in self.folds:
            seen = np.concatenate([features[train], *(transform(copy[train]) for copy in copies)])
            model = make().fit(seen, np.tile(self.labels[train], 1 + len(copies)))
            found[test] = model.predict(features[test]) == self.labels[test]
        return found


def linear() -> Any:
    """The judge: too simple to keep contradictions apart."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.01)


def curved() -> Any:
    """The second judge: can learn that a picture looks several ways."""
    from sklearn.svm import SVC

    return SVC(C=3)


def _verdict(trial: Trial, single: Policy, plain: np.ndarray, change: float, reach: float) -> str:
    majority = np.bincount(trial.labels).max() / len(trial.labels)
    if plain.mean() < majority + 2 * np.sqrt(majority * (1 - majority) / len(plain)):
        return "cannot tell: the quick model is no better than guessing"
    if change - reach > 0:
        return "helps"
    if change + reach >= 0 or change > -MARGIN:
        return "no harm seen"
    second, doubt = _difference(trial.right(curved, single), trial.right(curved), 1.96)
    return "helps a stronger model" if second - doubt > 0 else SUSPECT


def _difference(right: np.ndarray, plain: np.ndarray, level: float) -> tuple[float, float]:
    """Mean difference of two models on the same images, and how far its interval reaches to each side."""
    change = right.astype(float) - plain
    return float(change.mean()), float(level * change.std() / np.sqrt(len(change)))


def _warn(suspects: pd.DataFrame) -> None:
    if suspects.empty:
        return
    found = "; ".join(
        f"{row['operation']}={row['setting']!r} costs {-100 * row['change']:.1f} points of accuracy "
        f"({-100 * row['high']:.1f} to {-100 * row['low']:.1f})"
        for row in suspects.to_dict("records")
    )
    warnings.warn(
        "These operations likely change what some images mean, as training with them loses on untouched images: "
        f"{found}. Leave them out, or weaken them and check again.",
        stacklevel=3,
    )


def _features(pictures: np.ndarray) -> np.ndarray:
    small = [cv2.resize(picture, (FEATURE_SIDE, FEATURE_SIDE), interpolation=cv2.INTER_AREA) for picture in pictures]
    return np.stack(small).reshape(len(small), -1).astype(np.float32) / 255


def _sample(table: pd.DataFrame, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some readable images of every class, small, with the numbers of their classes."""
    shuffled = table.dropna(subset=["path", "label"]).sample(frac=1, random_state=seed)
    each = max(FOLDS, images // max(shuffled["label"].nunique(), 1))
    chosen = shuffled.groupby("label", observed=True).head(each)
    preparation = Preparation((SIDE, SIDE), resize="stretch", levels=levels_of(table))
    found: dict[int, list[np.ndarray]] = {}
    pairs = zip(chosen["path"], chosen["label"].cat.codes, strict=True)
    for path, code in progress(pairs, label="Reading", total=len(chosen)):
        with suppress(OSError, ValueError):
            found.setdefault(int(code), []).append(prepare(str(path), preparation))
    enough = {code: pictures for code, pictures in sorted(found.items()) if len(pictures) >= FOLDS}
    if len(enough) < 2:
        raise ValueError(
            f"`augment.check` needs two classes with at least {FOLDS} readable images each. Received: "
            f"{sum(map(len, found.values()))} readable of {len(chosen)} images in {chosen['label'].nunique()} classes."
        )
    labels = np.repeat(list(enough), [len(pictures) for pictures in enough.values()])
    return np.concatenate([np.stack(pictures) for pictures in enough.values()]), labels

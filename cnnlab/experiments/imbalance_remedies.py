"""What can be done about rare classes, each in the same training loop, so that they can be compared."""

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import metrics, models, tables
from cnnlab._answers import with_probabilities
from cnnlab.experiments.imbalance_synthetic import METHODS, synthesize
from cnnlab.experiments.predicting import outputs_by_row, predict
from cnnlab.experiments.runner import Runner, Trained
from cnnlab.experiments.training_run import Rows, TrainingRun, compiled
from cnnlab.models.fingerprint import describe
from cnnlab.models.losses import LogitAdjusted
from cnnlab.tables.linking import Group

THRESHOLD_SHARE = 0.2  # of a fold's training rows, for choosing a threshold
POWERS = np.arange(0, 1.51, 0.1)


@dataclass(frozen=True)
class Remedy:
    """One thing, or several at once, to do about rare classes; `experiments.imbalance` tries them side by side.

    Args:
        balance: As in `pipelines.load`: "oversample", "undersample" or a share.
        class_weights: Whether `tables.class_weights` weigh the loss.
        loss: "focal" (Keras's own, gamma 2), "logit_adjustment" (`models.LogitAdjusted`), or a function of the training
            rows that returns a Keras loss; instead of the one the model was compiled with.
        mix: "mixup" or "cutmix": new images of the rare classes, see `synthesize`.
        extra: Further training rows, path and label, such as rendered images. They are never scored.
        smote: Whether the last layer is fitted anew, on the network's features balanced by imbalanced-learn's SMOTE.
        threshold: Whether probabilities are divided by a power of their class's share, chosen for macro-F1 on
            validation rows from inside the training part; with two classes, this moves the threshold.

    Raises:
        ValueError: If `loss` or `mix` is an unknown word.

    Example:
        >>> Remedy(balance=0.5, loss="focal")
        Remedy(balance=0.5, class_weights=False, loss='focal', mix=None, extra=None, smote=False, threshold=False)
        >>> Remedy(loss="focus")
        Traceback (most recent call last):
        ValueError: `loss` expects 'focal', 'logit_adjustment' or a function. Received: 'focus'.
    """

    balance: Literal["oversample", "undersample"] | float | None = None
    class_weights: bool = False
    loss: Literal["focal", "logit_adjustment"] | Callable[[pd.DataFrame], Any] | None = None
    mix: Literal["mixup", "cutmix"] | None = None
    extra: pd.DataFrame | None = None
    smote: bool = False
    threshold: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.loss, str) and self.loss not in LOSSES:
            raise ValueError(f"`loss` expects {', '.join(map(repr, LOSSES))} or a function. Received: {self.loss!r}.")
        if self.mix is not None and self.mix not in METHODS:
            raise ValueError(f"`mix` expects {', '.join(map(repr, METHODS))} or None. Received: {self.mix!r}.")

    def facts(self) -> dict[str, str]:
        """What a result depends on, as text by name."""
        return {f"remedy.{part.name}": describe(getattr(self, part.name)) for part in fields(self)}


LOSSES = {  # of the training rows
    "focal": lambda train: keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0),
    "logit_adjustment": lambda train: LogitAdjusted(train["label"].value_counts(sort=False).to_list()),
}
REMEDIES = {
    "none": Remedy(),
    "class_weights": Remedy(class_weights=True),
    "oversample": Remedy(balance="oversample"),
    "undersample": Remedy(balance="undersample"),
    "focal": Remedy(loss="focal"),
    "logit_adjustment": Remedy(loss="logit_adjustment"),
    "mixup": Remedy(mix="mixup"),
    "cutmix": Remedy(mix="cutmix"),
    "smote": Remedy(smote=True),
    "threshold": Remedy(threshold=True),
}


@dataclass(frozen=True)
class RemedyRun(TrainingRun):
    """A training run under a remedy, with as many training steps as without one."""

    remedy: Remedy = Remedy()
    group: Group = None


class RemedyRunner(Runner):
    """Trains under remedies; what is kept of a run is the tables runs (images, steps, seconds) and predictions."""

    kept = ("runs", "predictions")

    def train_heads(self, runs: Sequence[TrainingRun]) -> None:
        """Nothing: a remedy changes the images, the loss or the network."""

    def train(self, run: TrainingRun) -> Trained:
        """Trains one network on the rows of its remedy, as any other run, and predicts the test rows."""
        assert isinstance(run, RemedyRun)
        began, remedy, loading, test = time.perf_counter(), run.remedy, run.recipe.loading, run.rows.test
        steps = run.recipe.epochs * -(-len(run.rows.train) // run.recipe.batch_size)
        train, held_out = run.rows.train, None

        def build() -> keras.Model:
            model = compiled(run.build)
            if remedy.loss is not None:
                make = LOSSES[remedy.loss] if isinstance(remedy.loss, str) else remedy.loss
                options = {"steps_per_execution": model.steps_per_execution, "jit_compile": model.jit_compile}
                model.compile(optimizer=model.optimizer, loss=make(rows), **options)
            return model

        def fit(model: keras.Model, data: Any, *, class_weight: Any = None, **_: Any) -> Any:
            # so many steps, however many images an epoch has under a remedy
            return type(model).fit(model, data.repeat().take(steps), class_weight=class_weight, verbose=0)

        if remedy.threshold:
            with warnings.catch_warnings(action="ignore"):  # of rare classes: that is what all of this is about
                parts = tables.split(train, val=THRESHOLD_SHARE, test=0.0, group=run.group, seed=run.seed)
            train, held_out = (parts[parts["split"] == name] for name in ("train", "val"))
        with tempfile.TemporaryDirectory() as folder:
            rows = _more_rows(train, remedy, folder, loading, run.seed)
            recipe = replace(
                run.recipe,
                fit=fit,
                class_weight="balanced" if remedy.class_weights else None,
                loading=loading | {"balance": remedy.balance} | ({"one_hot": True} if remedy.loss == "focal" else {}),
            )
            found, model = super().train(replace(run, build=build, rows=Rows(rows, rows[:0], test), recipe=recipe))
            predictions = found["predictions"]
            if remedy.smote:
                model = with_smote(model, rows, seed=run.seed)
                predictions = predict(model, test).drop(columns="fold")
        if held_out is not None:
            share = train["label"].value_counts(sort=False, normalize=True).to_numpy()
            predictions = shift(predictions, share, choose_power(predict(model, held_out), share))
        facts = {"images": len(rows), "steps": steps, "seconds": round(time.perf_counter() - began, 3)}
        return Trained({"runs": pd.DataFrame([facts]), "predictions": predictions}, model)


def _more_rows(
    rows: pd.DataFrame, remedy: Remedy, folder: str | os.PathLike[str], loading: dict[str, Any], seed: int
) -> pd.DataFrame:
    """The training rows with the images that a remedy adds."""
    parts = [rows]
    if remedy.extra is not None:
        parts.append(remedy.extra.assign(label=remedy.extra["label"].astype(object).astype(rows["label"].dtype)))
    if remedy.mix:
        size = {key: loading[key] for key in ("image_size", "resize") if key in loading}
        parts.append(synthesize(rows, folder, method=remedy.mix, seed=seed, **size))
    return pd.concat([part[["path", "label"]] for part in parts], ignore_index=True) if len(parts) > 1 else rows


def with_smote(model: keras.Model, rows: pd.DataFrame, *, seed: int) -> keras.Model:
    """The network, sharing its layers, with the last one fitted anew on features that SMOTE has balanced.

    Source:
        Chawla et al. (2002), SMOTE; on features as in Kang et al. (2020), Decoupling representation and
        classifier.
    """
    from sklearn.linear_model import LogisticRegression

    names = models.class_names(model)
    last = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    if not last or last[-1].units != len(names):
        raise ValueError(
            f"SMOTE expects a network that ends in a Dense layer of {len(names)} outputs; {model.name!r} does not. "
            "Leave the remedy 'smote' out."
        )
    features = last[-1].input
    embed = keras.Model(model.inputs, features)
    prepared = models.preparation(model)
    x, _ = outputs_by_row(embed, rows, prepared, tuple(features.shape[1:]), batch_size=64)
    readable = ~np.isnan(x).any(axis=1)
    x, y = smote(x[readable], rows["label"].cat.codes.to_numpy()[readable], seed=seed)
    head = LogisticRegression(max_iter=2000).fit(x, y)
    weights, bias = head.coef_.T, head.intercept_
    if len(head.classes_) == 2:  # scikit-learn keeps half of what a softmax has
        weights, bias = np.concatenate([-weights, weights], axis=1) / 2, np.array([-bias[0], bias[0]]) / 2
    kernel = np.zeros((x.shape[1], len(names)), np.float32)
    start = np.full(len(names), -1e3, np.float32)  # a class without images is never called
    kernel[:, head.classes_], start[head.classes_] = weights, bias
    layer = keras.layers.Dense(len(names), activation="softmax", dtype="float32", name="probabilities")
    whole = keras.Model(model.inputs, layer(features), name=f"{model.name}_smote")
    layer.set_weights([kernel, start])
    return models.with_classes(whole, names, resize=prepared.resize, levels=prepared.levels)


def smote(x: np.ndarray, y: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and classes, balanced by imbalanced-learn; the one row of a class without neighbours is copied."""
    from imblearn.over_sampling import SMOTE, RandomOverSampler

    classes, counts = np.unique(y, return_counts=True)
    alone = {int(code): 2 for code in classes[counts == 1]}
    if alone:
        x, y = RandomOverSampler(sampling_strategy=alone, random_state=seed).fit_resample(x, y)
    neighbours = int(min(5, max(counts.min(), 2) - 1))
    return SMOTE(k_neighbors=neighbours, random_state=seed).fit_resample(x, y)


def shift(predictions: pd.DataFrame, share: np.ndarray, power: float) -> pd.DataFrame:
    """Predictions, each probability divided by its class's share to a power; 0 leaves them, 1 levels classes.

    Source: Menon et al. (2021), post-hoc logit adjustment.
    """
    names = [f"p_{name}" for name in predictions["label"].cat.categories]
    moved = predictions[names].to_numpy(dtype=float) / np.maximum(share, 1e-12) ** power
    return with_probabilities(predictions, moved / moved.sum(axis=1, keepdims=True))


def choose_power(validation: pd.DataFrame, share: np.ndarray) -> float:
    """The power for `shift` with the best macro-F1 on validation predictions; of equal ones the middle."""
    known = validation[validation["predicted"].notna()]
    moved = (metrics.scores(shift(known, share, float(power))).set_index("metric")["value"] for power in POWERS)
    found = [float(scores["macro_f1"]) for scores in moved]
    best = np.flatnonzero(np.isclose(found, np.max(found)))
    return float(POWERS[best[len(best) // 2]])

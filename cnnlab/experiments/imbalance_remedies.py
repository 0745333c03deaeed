"""What can be done about rare classes, each in the same training loop, so that they can be compared."""

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, Literal

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import metrics, models, pipelines, tables
from cnnlab.experiments.imbalance_synthetic import METHODS, synthesize
from cnnlab.experiments.memory import graphs_released
from cnnlab.experiments.predicting import predict, with_probabilities
from cnnlab.experiments.validating import compiled
from cnnlab.images.sizing import Resize
from cnnlab.models.losses import LogitAdjusted

INNER_SHARE = 0.2  # of a fold's training rows, for choosing a threshold
POWERS = np.arange(0, 1.51, 0.1)


@dataclass(frozen=True)
class Remedy:
    """One thing, or several at once, to do about rare classes; `experiments.imbalance` tries them side by side.

    Args:
        balance: As in `pipelines.load`: "oversample", "undersample" or a share.
        class_weights: Whether `tables.class_weights` weigh the loss.
        loss: "focal" (Keras's own, gamma 2), "logit_adjustment" (`models.LogitAdjusted`), or a function of the training
            rows that returns a Keras loss; in place of the one the model was compiled with.
        mix: "mixup" or "cutmix": new images of the rare classes, see `synthesize`.
        extra: Further training rows, path and label, such as rendered images. They are never scored.
        smote: Whether the last layer is fitted anew, on the network's features balanced by imbalanced-learn's SMOTE.
        threshold: Whether probabilities are divided by a power of their class's share, chosen for macro-F1 on inner
            validation rows; with two classes, this moves the threshold.

    Raises:
        ValueError: If `loss` or `mix` is an unknown word.

    Example:
        >>> Remedy(balance=0.5, loss="focal").named
        "balance=0.5, loss='focal'"
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

    @property
    def named(self) -> str:
        """What differs from doing nothing, in words that are equal in the next session."""
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value is not False:
                words = getattr(value, "__qualname__", None) or repr(value)
                parts.append(f"{field.name}={f'{len(value)} rows' if isinstance(value, pd.DataFrame) else words}")
        return ", ".join(parts)


def focal(train: pd.DataFrame) -> keras.losses.Loss:
    """Focal loss, which looks away from images that are right already."""
    return keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0)


def logit_adjustment(train: pd.DataFrame) -> keras.losses.Loss:
    """Cross-entropy with a margin by class share."""
    return LogitAdjusted(train["label"].value_counts(sort=False).to_list())


LOSSES = {"focal": focal, "logit_adjustment": logit_adjustment}

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


def run_remedy(
    build: Callable[..., keras.Model],
    training_rows: pd.DataFrame,
    held_out: pd.DataFrame,
    *,
    remedy: Remedy,
    seed: int,
    group: str | None,
    recipe: dict[str, Any],
) -> dict[str, pd.DataFrame]:
    """Trains one model under a remedy and predicts `held_out`; every remedy gets as many training steps as none.

    Returns:
        Tables runs (one row: images, steps, seconds) and predictions.
    """
    began = time.perf_counter()
    loading = {key: value for key, value in recipe.items() if key != "epochs"}
    steps = recipe["epochs"] * -(-len(training_rows) // loading.get("batch_size", 32))
    inner = None
    if remedy.threshold:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of rare classes: that is what all of this is about
            parts = tables.split(training_rows, val=INNER_SHARE, test=0.0, group=group, seed=seed)
        training_rows, inner = parts[parts["split"] == "train"], parts[parts["split"] == "val"]
    with tempfile.TemporaryDirectory() if remedy.mix else nullcontext("") as folder:
        rows = _more_rows(training_rows, remedy, folder, recipe, seed)
        model = _fit(build, rows, remedy, steps=steps, seed=seed, loading=loading)
        resize = {key: loading[key] for key in ("resize",) if key in loading}
        if remedy.smote:
            model = with_smote(model, rows, seed=seed, **resize)
    predictions = predict(model, held_out, **resize)
    if inner is not None:
        share = training_rows["label"].value_counts(sort=False, normalize=True).to_numpy()
        power = choose_power(predict(model, inner, **resize), share)
        predictions = shift(predictions, share, power)
    seconds = round(time.perf_counter() - began, 3)
    run = {"images": len(rows), "steps": steps, "seconds": seconds}
    return {"runs": pd.DataFrame([run]), "predictions": predictions.drop(columns=["split", "fold"], errors="ignore")}


def _more_rows(
    rows: pd.DataFrame, remedy: Remedy, folder: str | os.PathLike[str], recipe: dict[str, Any], seed: int
) -> pd.DataFrame:
    """The training rows with the images that a remedy adds."""
    parts = [rows]
    if remedy.extra is not None:
        parts.append(remedy.extra.assign(label=remedy.extra["label"].astype(object).astype(rows["label"].dtype)))
    if remedy.mix:
        size = {key: recipe[key] for key in ("image_size", "resize") if key in recipe}
        parts.append(synthesize(rows, folder, method=remedy.mix, seed=seed, **size))
    return pd.concat([part[["path", "label"]] for part in parts], ignore_index=True) if len(parts) > 1 else rows


def _fit(
    build: Callable[..., keras.Model],
    rows: pd.DataFrame,
    remedy: Remedy,
    *,
    steps: int,
    seed: int,
    loading: dict[str, Any],
) -> keras.Model:
    """A trained model. So many steps, however many images an epoch has under this remedy."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = compiled(build)
    loading = loading | ({"one_hot": True} if remedy.loss == "focal" else {})
    if remedy.loss is not None:
        make = LOSSES[remedy.loss] if isinstance(remedy.loss, str) else remedy.loss
        model.compile(
            optimizer=model.optimizer,
            loss=make(rows),
            steps_per_execution=model.steps_per_execution,
            jit_compile=model.jit_compile,
        )
    data = pipelines.load(rows, training=True, seed=seed, balance=remedy.balance, **loading)
    weights = tables.class_weights(rows) if remedy.class_weights else None
    with graphs_released():
        model.fit(data.repeat().take(steps), class_weight=weights, verbose=0)
    return model


def with_smote(model: keras.Model, rows: pd.DataFrame, *, seed: int, resize: Resize = "fit") -> keras.Model:
    """The network with its last layer fitted anew, on features of `rows` that SMOTE has balanced.

    Args:
        model: Trained; ends in a Dense layer with one output per class.
        rows: The rows that it was trained on.
        seed: Of SMOTE.
        resize: As in `pipelines.load`.

    Returns:
        A model of the same shapes that shares its layers with the one given.

    Raises:
        ValueError: If the model does not end in a Dense layer.

    Source:
        Chawla et al. (2002), SMOTE, by imbalanced-learn; on features as in Kang et al. (2020), Decoupling
        representation and classifier.
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
    data = pipelines.load(rows, image_size=tuple(model.input_shape[1:3]), batch_size=64, cache=False, resize=resize)
    batches = [(embed.predict_on_batch(images), labels) for images, labels in data.as_numpy_iterator()]
    x, y = (np.concatenate(part) for part in zip(*batches, strict=True))
    x, y = smote(x, y, seed=seed)
    head = LogisticRegression(max_iter=2000).fit(x, y)
    weights, bias = head.coef_.T, head.intercept_
    if len(head.classes_) == 2:  # scikit-learn keeps half of what a softmax has
        weights, bias = np.concatenate([-weights, weights], axis=1) / 2, np.array([-bias[0], bias[0]]) / 2
    kernel = np.zeros((x.shape[1], len(names)), np.float32)
    start = np.full(len(names), -1e3, np.float32)  # a class without images is never called
    kernel[:, head.classes_], start[head.classes_] = weights, bias
    layer = keras.layers.Dense(len(names), activation="softmax", dtype="float32", name="probabilities")
    result = models.with_classes(keras.Model(model.inputs, layer(features), name=f"{model.name}_smote"), names)
    layer.set_weights([kernel, start])
    return result


def smote(x: np.ndarray, y: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (rows, features) and classes (rows,), balanced; a class of one row, which has no neighbour, is copied.

    Source: imbalanced-learn's `SMOTE` and `RandomOverSampler`.
    """
    from imblearn.over_sampling import SMOTE, RandomOverSampler

    classes, counts = np.unique(y, return_counts=True)
    alone = {int(code): 2 for code in classes[counts == 1]}
    if alone:
        x, y = RandomOverSampler(sampling_strategy=alone, random_state=seed).fit_resample(x, y)
    neighbours = int(min(5, max(counts.min(), 2) - 1))
    return SMOTE(k_neighbors=neighbours, random_state=seed).fit_resample(x, y)


def shift(predictions: pd.DataFrame, share: np.ndarray, power: float) -> pd.DataFrame:
    """Predictions with each class's probability divided by its share to a power: 0 leaves them, 1 levels all classes.

    Args:
        predictions: With p_<class>.
        share: Of each class in training, 0 to 1.
        power: 0 or more.

    Source: Menon et al. (2021), post-hoc logit adjustment.
    """
    names = [f"p_{name}" for name in predictions["label"].cat.categories]
    moved = predictions[names].to_numpy(dtype=float) / np.maximum(share, 1e-12) ** power
    return with_probabilities(predictions, moved / moved.sum(axis=1, keepdims=True))


def choose_power(validation: pd.DataFrame, share: np.ndarray) -> float:
    """The power for `shift` with the best macro-F1 on validation predictions; of equal ones the middle."""
    known = validation[validation["predicted"].notna()]
    found = [_macro_f1(shift(known, share, float(power))) for power in POWERS]
    best = np.flatnonzero(np.isclose(found, np.max(found)))
    return float(POWERS[best[len(best) // 2]])


def _macro_f1(predictions: pd.DataFrame) -> float:
    scores = metrics.scores(predictions)
    return float(scores["value"].to_numpy(dtype=float)[(scores["metric"] == "macro_f1").argmax()])

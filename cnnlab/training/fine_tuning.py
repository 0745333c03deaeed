"""Fine-tuning in phases: first the new head alone, then the upper layers of the pretrained network, gently."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import models, pipelines
from cnnlab._common import progress
from cnnlab.training.batches import checked_batch, described, labels_fit, require_batches, size_fits
from cnnlab.training.callbacks import EpochBar
from cnnlab.training.compiling import on_accelerator, worth_compiling
from cnnlab.training.ends import suitable_loss
from cnnlab.training.schedules import one_cycle
from cnnlab.training.state import source_of, values_of
from cnnlab.training.watching import numbers

HEAD_RATE = 1e-2  # peak, for a head on features that do not change
HEAD_STEPS = 1500  # on stored features, where a step costs next to nothing
HEAD_BATCH = 64
HEAD_LOOKS = 40  # at the validation images; a look takes as long as many steps of a head
GROUPS = 3  # of unfrozen layers, each with its own learning rate
FALLOFF = 0.4  # from one group to the one below it, which learned more general things
WORST = (-math.inf, -math.inf)


def fine_tune(
    model: keras.Model,
    train: Any,
    val: Any,
    *,
    head_epochs: int = 5,
    epochs: int = 20,
    unfreeze: float = 1.0,
    learning_rate: float = 1e-3,
    loss: Any = None,
    select: str = "accuracy",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    head_callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int | None = None,
) -> keras.callbacks.History:
    """Trains a model of `models.pretrained` or `models.reuse` in two phases, compiling it by itself.

    1. The head. The network below is frozen, so its features of the training images are computed once for each of
       `head_epochs` passes (every pass augments anew), and the head learns on the stored features, which takes seconds.
       A model with its own `train_step` learns its head from the images instead.
    2. The layers. They are unfrozen, batch normalisation excepted, and trained together with the head on a cycle of
       low learning rates: the deeper a group of layers, the lower, because it holds what all images have in common.

    The best weights of both phases are kept, as `select` says, so the second phase cannot make it worse there. Weights
    that are frozen are compared before and after: they have not moved, or an error says so.

    Args:
        model: Compiled or not. Afterwards it is compiled with plain AdamW.
        train: Batches to learn from, such as `pipelines.load(…, training=True)`.
        val: Batches that choose the weights; never the test part.
        head_epochs: Passes over the images for the head, 1 or more.
        epochs: Of the second phase; 0 leaves it out.
        unfreeze: Share of the network's layers, counted from the head down, that learn in the second phase, 0 to 1.
            Less than all of them is faster, and enough for images much like those the network learned from.
        learning_rate: Peak of the cycle for the head and the uppermost layers in the second phase.
        loss: What Keras takes as a loss; the cross-entropy that fits network and labels where not given.
        select: The best weights are those with the highest validation "accuracy" and, of equal ones, the lowest loss;
            or with the lowest validation "loss", which rises with confidence even where more answers are right.
        callbacks: For the second phase, such as `training.callbacks(folder)` or `widgets.monitor()`.
        head_callbacks: For the first phase, whose model is the head alone.
        seed: Of order, augmentation and dropout, as in `keras.utils.set_random_seed`; makes `train` begin with its
            first epoch.

    Returns:
        The History of both phases with a column `phase`; its attribute `phases` is a table with one row per phase:
        phase, epochs, learning (weights), frozen (weights), moved (largest change of a frozen weight: 0), val_loss,
        val_accuracy.

    Raises:
        ValueError: If the model has no network inside, an argument is out of range, or the data are not batches of
            images and labels that fit the model.
        RuntimeError: If a frozen weight moved.

    Source:
        Howard and Ruder 2018, "Universal Language Model Fine-tuning" (discriminative rates, gradual unfreezing).

    Example:
        >>> history = fine_tune(model, train_data, val_data, epochs=10)  # doctest: +SKIP
    """
    if head_epochs < 1 or epochs < 0 or not 0 <= unfreeze <= 1 or not learning_rate > 0:
        raise ValueError(
            "`training.fine_tune` expects `head_epochs` of 1 or more, `epochs` of 0 or more, `unfreeze` from 0 to 1 "
            f"and `learning_rate` above 0. Received: head_epochs={head_epochs}, epochs={epochs}, unfreeze={unfreeze}, "
            f"learning_rate={learning_rate}."
        )
    if select not in ("accuracy", "loss"):
        raise ValueError(f'`select` expects "accuracy" or "loss". Received: {select!r}.')
    batches = _length(train)
    _length(val)
    if seed is not None:
        _begin_with(seed, model, train)
    models.unfreeze(model, share=0)
    fitting = suitable_loss(model, train) if loss is None else {"loss": loss, "metrics": ["accuracy"]}
    settings = Settings(model, train, val, select, fitting)
    phases = [Phase("head", settings).run(lambda: _train_head(settings, head_epochs, batches, head_callbacks))]
    if epochs and unfreeze:
        models.unfreeze(model, share=unfreeze)
        before, best = model.get_weights(), phases[0].best
        optimizer = discriminative(model, learning_rate, steps=epochs * batches)
        phases.append(Phase("layers", settings).run(lambda: _fit(settings, optimizer, epochs, callbacks)))
        if not phases[1].best > best:
            model.set_weights(before)
    model.compile(keras.optimizers.AdamW(learning_rate / 10), jit_compile=worth_compiling(), **fitting)
    return _joined(model, phases)


def _begin_with(seed: int, model: keras.Model, data: Any) -> None:
    """Makes global random state, the generators of dropout, and the order of the data those of the seed."""
    keras.utils.set_random_seed(seed)
    weights = {id(weight) for weight in model.weights}
    generators = [one for one in model.variables if id(one) not in weights and tuple(one.shape) == (2,)]
    for number, state in enumerate(generators):
        state.assign(np.array([seed % 2**31, number]))
    if source_of(data) is not None:
        pipelines.set_epoch(data, 0)


class Settings(NamedTuple):
    """What both phases share: model, data, what is selected by, and `loss` and `metrics`."""

    model: keras.Model
    train: Any
    val: Any
    select: str
    fitting: dict[str, Any]


def quality(logs: dict[str, Any], select: str) -> tuple[float, float]:
    """How good an epoch was, to be compared; what is no number is worst."""
    flat = numbers(logs)
    wanted = ("val_accuracy", "val_loss") if select == "accuracy" else ("val_loss",)
    missing = [name for name in wanted if name not in flat]
    if missing:
        raise ValueError(
            f"`select={select!r}` expects training to report {missing[0]!r}. Received: {', '.join(flat)}. A model with "
            "its own `test_step` returns it there."
        )
    values = (flat["val_accuracy"], -flat["val_loss"]) if select == "accuracy" else (-flat["val_loss"], 0.0)
    return values if all(map(math.isfinite, values)) else WORST


class BestWeights(keras.callbacks.Callback):
    """Gives the model the weights of its best epoch at the end."""

    def __init__(self, select: str) -> None:
        super().__init__()
        self.select, self.best, self.weights = select, WORST, None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keeps them."""
        now = quality(logs or {}, self.select)
        if now > self.best:
            self.best, self.weights = now, self.model.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts them back."""
        if self.weights is not None:
            self.model.set_weights(self.weights)


class Phase:
    """One phase of training and the proof that what was frozen stayed.

    Args:
        name: For the History.
        settings: With the model's layers' `trainable` set as the phase wants it.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self.model, self.select = name, settings.model, settings.select
        self.history: dict[str, list[float]] = {}
        self.moved = 0.0
        self.learning = sum(math.prod(weight.shape) for weight in self.model.trainable_weights)
        self.frozen = self.model.count_params() - self.learning

    def run(self, train: Callable[[], dict[str, list[float]]]) -> "Phase":
        """Calls `train`, which returns a history, and compares the frozen weights."""
        frozen = self.model.non_trainable_weights
        before = values_of(frozen)
        self.history = train()
        changes = [np.abs(now - then).max(initial=0) for now, then in zip(values_of(frozen), before, strict=True)]
        self.moved = float(np.max(changes, initial=0.0))  # what is no number has moved
        if self.moved:
            raise RuntimeError(
                f"Frozen weights moved by up to {self.moved:.3g} in the phase {self.name!r}, which must not happen: is "
                "there a layer that writes into its weights while training?"
            )
        return self

    def qualities(self) -> list[tuple[float, float]]:
        """How good each epoch was."""
        epochs = range(len(self.history["val_loss"]))
        return [quality({key: values[epoch] for key, values in self.history.items()}, self.select) for epoch in epochs]

    @property
    def best(self) -> tuple[float, float]:
        """How good its best epoch was."""
        return max(self.qualities())

    def row(self) -> dict[str, Any]:
        """What the table says of it."""
        epoch = self.qualities().index(self.best)
        return {
            "phase": self.name,
            "epochs": len(self.history["val_loss"]),
            "learning": self.learning,
            "frozen": self.frozen,
            "moved": self.moved,
            "val_loss": self.history["val_loss"][epoch],
            "val_accuracy": self.history.get("val_accuracy", [math.nan] * (epoch + 1))[epoch],
        }


def _joined(model: keras.Model, phases: list[Phase]) -> keras.callbacks.History:
    history = keras.callbacks.History()
    history.set_model(model)
    keys = [key for key in phases[0].history if all(key in phase.history for phase in phases)]
    history.history = {key: [value for phase in phases for value in phase.history[key]] for key in keys}
    history.history["phase"] = [phase.name for phase in phases for _ in phase.history["val_loss"]]
    history.epoch = list(range(len(history.history["phase"])))
    history.phases = pd.DataFrame([phase.row() for phase in phases])
    return history


def _length(data: Any) -> int:
    """How many batches there are."""
    require_batches(data)
    try:
        return len(data)
    except TypeError as error:
        raise ValueError(
            "`training.fine_tune` expects data of known length, such as `pipelines.load` makes. Received: "
            f"{type(data).__name__} ({error}). `data.take(n)` ends an endless one."
        ) from error


def _train_head(
    settings: Settings, passes: int, batches: int, callbacks: Sequence[keras.callbacks.Callback]
) -> dict[str, list[float]]:
    model = settings.model
    if type(model).train_step is not keras.Model.train_step:
        for data in (settings.train, settings.val):
            _check_fits(model, *checked_batch(next(iter(data), None)))
        return _fit(settings, _adamw(HEAD_RATE, passes * batches), passes, callbacks)
    body, head = split_at_head(model)
    parts = [_features(model, body, data, count) for data, count in ((settings.train, passes), (settings.val, 1))]
    (features, labels), validation = ([np.concatenate(part) for part in zip(*one, strict=True)] for one in parts)
    rounds = max(passes, math.ceil(HEAD_STEPS * HEAD_BATCH / len(features)))
    epochs = max(passes, min(rounds, HEAD_LOOKS))
    together = math.ceil(rounds / epochs)  # rounds through few images are one epoch together
    features, labels = np.concatenate([features] * together), np.concatenate([labels] * together)
    steps = epochs * math.ceil(len(features) / HEAD_BATCH)
    head.compile(
        keras.optimizers.AdamW(one_cycle(HEAD_RATE, steps=steps), weight_decay=0.01),
        steps_per_execution=1 if on_accelerator() else 16,
        jit_compile=worth_compiling(),
        **settings.fitting,
    )
    return head.fit(
        features, labels, batch_size=HEAD_BATCH, epochs=epochs, callbacks=[*callbacks, BestWeights(settings.select)],
        validation_data=(validation[0], _alike(validation[1], labels)), verbose=0,
    ).history  # fmt: skip


def _alike(labels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Class numbers as one-hot where the training labels are."""
    if other.ndim == 2 and other.shape[1] > 1 and labels.size == len(labels):
        return np.eye(other.shape[1], dtype="float32")[labels.reshape(-1).astype(int)]
    return labels


def _features(model: keras.Model, body: keras.Model, data: Any, passes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for _ in range(passes):
        for batch in progress(data, label="features", unit="batch"):
            images, labels = checked_batch(batch)
            _check_fits(model, images, labels)
            found.append((np.asarray(body.predict_on_batch(images)), labels))
    if not found:
        raise ValueError("`training.fine_tune` expects at least one batch in `train` and in `val`. Received none.")
    return found


def _check_fits(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Refuses images of another size and labels of other classes than the model has, which Keras says at length."""
    wanted, classes = model.input_shape[1:], model.output_shape[-1]
    if not size_fits(wanted, images):
        raise ValueError(
            f"`training.fine_tune` expects images of the model's size {wanted} (height, width, channels). Received "
            f"{images.shape[1:]}: load them with the model's `image_size`."
        )
    if not labels_fit(labels, classes):
        raise ValueError(
            f"`training.fine_tune` expects labels of the model's {classes} classes, numbers from 0 to {classes - 1} or "
            f"{classes} shares. Received {described(labels)}: build the model with the classes of these images."
        )


def split_at_head(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Two models of the same layers: images to features that do not change while training, and features to classes."""
    inside = models.backbone(model)
    following = model.layers[model.layers.index(inside) :]
    first = next(layer for layer in following[1:] if layer.weights or isinstance(layer, keras.layers.Dropout))
    return keras.Model(model.inputs, first.input), keras.Model(first.input, model.outputs)


def _fit(
    settings: Settings, optimizer: Any, epochs: int, callbacks: Sequence[keras.callbacks.Callback]
) -> dict[str, list[float]]:
    """Trains the whole model, as it is frozen, on images."""
    settings.model.compile(optimizer, jit_compile=worth_compiling(), **settings.fitting)
    bars = [] if callbacks else [EpochBar()]
    return settings.model.fit(
        settings.train, validation_data=settings.val, epochs=epochs,
        callbacks=[*callbacks, *bars, BestWeights(settings.select)], verbose=0,
    ).history  # fmt: skip


def discriminative(model: keras.Model, peak: float, *, steps: int) -> keras.optimizers.Optimizer:
    """An optimizer whose learning rate falls from the head down: AdamW for each group of layers, every one on a cycle.

    Args:
        model: With some layers unfrozen.
        peak: For the head; the groups of layers get `FALLOFF` of the one above.
        steps: Training steps in all.
    """
    layers = models.trainable_layers(model)[::-1]
    size = math.ceil(len(layers) / GROUPS)
    rates = {}
    for index, layer in enumerate(layers):
        for weight in layer.trainable_weights:
            rates[weight.path] = FALLOFF ** (1 + index // size)
    optimizers = {rate: _adamw(peak * rate, steps) for rate in sorted(set(rates.values()))}
    chosen = {re.escape(path): optimizers[rate] for path, rate in rates.items()}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(_adamw(peak, steps), chosen))


def _adamw(peak: float, steps: int) -> keras.optimizers.Optimizer:
    return keras.optimizers.AdamW(one_cycle(peak, steps=steps))

"""Fine-tuning in phases: first the new head alone, then the upper layers of the pretrained network, gently."""

import math
import re
from collections.abc import Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import models
from cnnlab._common import progress
from cnnlab.training.batches import checked_batch, described, labels_fit, require_batches, size_fits
from cnnlab.training.callbacks import EpochBar
from cnnlab.training.compiling import on_accelerator
from cnnlab.training.schedules import one_cycle
from cnnlab.training.state import values_of

HEAD_RATE = 1e-2  # peak, for a head on features that do not change
HEAD_STEPS = 1500  # on stored features, where a step costs next to nothing
HEAD_BATCH = 64
HEAD_LOOKS = 40  # at the validation images; a look takes as long as many steps of a head
GROUPS = 3  # of unfrozen layers, each with its own learning rate
FALLOFF = 0.4  # from one group to the one below it, which learned more general things


def fine_tune(
    model: keras.Model,
    train: Any,
    val: Any,
    *,
    head_epochs: int = 5,
    epochs: int = 20,
    unfreeze: float = 1.0,
    learning_rate: float = 1e-3,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.callbacks.History:
    """Trains a model of `models.pretrained` or `models.reuse` in two phases, compiling it by itself.

    1. The head. The network below is frozen, so its features of the training images are computed once for each of
       `head_epochs` passes (every pass augments anew), and the head learns on the stored features, which takes seconds.
    2. The layers. They are unfrozen, batch normalisation excepted, and trained together with the head on a cycle of
       low learning rates: the deeper a group of layers, the lower, because it holds what all images have in common.

    The weights with the lowest validation loss of both phases are kept, so the second phase cannot make it worse there.
    Weights that are frozen are compared before and after: they have not moved, or an error says so.

    Args:
        model: Compiled or not. Afterwards it is compiled with plain AdamW.
        train: Batches to learn from, such as `pipelines.load(…, training=True)`.
        val: Batches that choose the weights; never the test part.
        head_epochs: Passes over the images for the head, 1 or more.
        epochs: Of the second phase; 0 leaves it out.
        unfreeze: Share of the network's layers, counted from the head down, that learn in the second phase, 0 to 1.
            Less than all of them is faster, and enough for images much like those the network learned from.
        learning_rate: Peak of the cycle for the head and the uppermost layers in the second phase.
        callbacks: For the second phase, such as `training.callbacks(folder)` or `widgets.monitor()`.

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
    require_batches(train)
    require_batches(val)
    models.unfreeze(model, share=0)
    phases = [Phase("head", model).run(lambda: _train_head(model, train, val, head_epochs))]
    if epochs and unfreeze:
        models.unfreeze(model, share=unfreeze)
        best = phases[0].best
        phases.append(
            Phase("layers", model).run(lambda: _train_layers(model, train, val, epochs, learning_rate, callbacks, best))
        )
    model.compile(keras.optimizers.AdamW(learning_rate / 10), loss=_loss(train), metrics=["accuracy"], **_speed())
    return _joined(model, phases)


class Phase:
    """One phase of training and the proof that what was frozen stayed.

    Args:
        name: For the History.
        model: With its layers' `trainable` set as the phase wants it.
    """

    def __init__(self, name: str, model: keras.Model) -> None:
        self.name, self.model = name, model
        self.history: dict[str, list[float]] = {}
        self.moved = 0.0

    def run(self, train: Any) -> "Phase":
        """Calls `train`, which returns a history, and compares the frozen weights."""
        frozen = self.model.non_trainable_weights
        before = values_of(frozen)
        self.history = train()
        changes = [np.abs(now - then).max(initial=0) for now, then in zip(values_of(frozen), before, strict=True)]
        self.moved = float(max(changes, default=0.0))
        if self.moved:
            raise RuntimeError(
                f"Frozen weights moved by up to {self.moved:.3g} in the phase {self.name!r}, which must not happen: is "
                "there a layer that writes into its weights while training?"
            )
        return self

    @property
    def best(self) -> float:
        """The lowest validation loss."""
        return min(self.history["val_loss"])

    def row(self) -> dict[str, Any]:
        """What the table says of it."""
        epoch = int(np.argmin(self.history["val_loss"]))
        return {
            "phase": self.name,
            "epochs": len(self.history["val_loss"]),
            "learning": sum(math.prod(weight.shape) for weight in self.model.trainable_weights),
            "frozen": sum(math.prod(weight.shape) for weight in self.model.non_trainable_weights),
            "moved": self.moved,
            "val_loss": self.history["val_loss"][epoch],
            "val_accuracy": self.history["val_accuracy"][epoch],
        }


def _joined(model: keras.Model, phases: list[Phase]) -> keras.callbacks.History:
    history = keras.callbacks.History()
    history.set_model(model)
    keys = [key for key in phases[0].history if all(key in phase.history for phase in phases)]
    history.history = {key: [value for phase in phases for value in phase.history[key]] for key in keys}
    history.history["phase"] = [phase.name for phase in phases for _ in phase.history["val_loss"]]
    history.epoch = list(range(len(history.history["phase"])))
    rows = []
    for phase, share in zip(phases, (0, None), strict=False):
        row = phase.row()
        if share == 0:  # the model is in the state of the last phase now
            head = {id(weight) for weight in models.backbone(model).weights}
            row["learning"] = sum(math.prod(one.shape) for one in model.weights if id(one) not in head)
            row["frozen"] = model.count_params() - row["learning"]
        rows.append(row)
    history.phases = pd.DataFrame(rows)
    return history


def _loss(data: Any) -> str:
    soft = len(getattr(data, "element_spec", (None, np.zeros(1)))[1].shape) == 2
    return "categorical_crossentropy" if soft else "sparse_categorical_crossentropy"


def _speed() -> dict[str, Any]:
    """XLA only where it helps."""
    return {"jit_compile": "auto" if on_accelerator() or keras.backend.backend() == "jax" else False}


def _train_head(model: keras.Model, train: Any, val: Any, passes: int) -> dict[str, list[float]]:
    body, head = split_at_head(model)
    features, labels = (np.concatenate(parts) for parts in zip(*_features(model, body, train, passes), strict=True))
    val_features, val_labels = (np.concatenate(parts) for parts in zip(*_features(model, body, val, 1), strict=True))
    rounds = max(passes, math.ceil(HEAD_STEPS * HEAD_BATCH / len(features)))
    epochs = max(passes, min(rounds, HEAD_LOOKS))
    together = math.ceil(rounds / epochs)  # rounds through few images are one epoch together
    features, labels = np.concatenate([features] * together), np.concatenate([labels] * together)
    steps = epochs * math.ceil(len(features) / HEAD_BATCH)
    head.compile(
        keras.optimizers.AdamW(one_cycle(HEAD_RATE, steps=steps), weight_decay=0.01),
        loss=_loss(train),
        metrics=["accuracy"],
        steps_per_execution=1 if on_accelerator() else 16,
        **_speed(),
    )
    val_labels = _alike(val_labels, labels)
    stop = keras.callbacks.EarlyStopping(patience=epochs, restore_best_weights=True)
    result = head.fit(
        features, labels, batch_size=HEAD_BATCH, epochs=epochs, validation_data=(val_features, val_labels),
        callbacks=[stop], verbose=0,
    )  # fmt: skip
    return result.history


def _alike(labels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Class numbers as one-hot where the training labels are."""
    return np.eye(other.shape[1], dtype="float32")[labels] if other.ndim == 2 and labels.ndim == 1 else labels


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


def _train_layers(
    model: keras.Model,
    train: Any,
    val: Any,
    epochs: int,
    learning_rate: float,
    callbacks: Sequence[keras.callbacks.Callback],
    best: float,
) -> dict[str, list[float]]:
    before = model.get_weights()
    optimizer = discriminative(model, learning_rate, steps=epochs * len(train))
    model.compile(optimizer, loss=_loss(train), metrics=["accuracy"], **_speed())
    stop = keras.callbacks.EarlyStopping(patience=epochs, restore_best_weights=True)
    bars = [] if callbacks else [EpochBar()]
    history = model.fit(train, validation_data=val, epochs=epochs, callbacks=[*callbacks, *bars, stop], verbose=0)
    if min(history.history["val_loss"]) > best:
        model.set_weights(before)
    return history.history


def discriminative(model: keras.Model, peak: float, *, steps: int) -> keras.optimizers.Optimizer:
    """An optimizer whose learning rate falls from the head down: AdamW for each group of layers, every one on a cycle.

    Args:
        model: With some layers of its network unfrozen.
        peak: For the head; the groups of layers get `FALLOFF` of the one above.
        steps: Training steps in all.

    Returns:
        A plain `keras.optimizers.MultiOptimizer`.
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

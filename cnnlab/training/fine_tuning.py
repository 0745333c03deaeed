"""Fine-tuning in phases: first the new head alone, then the upper layers of the pretrained network, gently."""

import logging
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
from cnnlab._upstream import build_before_tracing
from cnnlab.models.losses import are_soft
from cnnlab.pipelines.cache import free_memory
from cnnlab.training.batches import check_fits, checked_batch, first_shapes, require_batches, source_of, suitable_loss
from cnnlab.training.best import numbers
from cnnlab.training.callbacks import EpochBar
from cnnlab.training.compiling import on_accelerator, worth_compiling
from cnnlab.training.schedules import one_cycle
from cnnlab.training.state import assign, values_of

logger = logging.getLogger("cnnlab")
HEAD_RATE = 1e-2  # peak, for a head on features that do not change
HEAD_DECAY = 1.0  # times the rate; at 0.01 a head is much too sure (clothing: temperature 2.3, not 1.2)
HEAD_STEPS = 1500  # on stored features, where a step costs next to nothing
HEAD_BATCH = 64
HEAD_LOOKS = 40  # at the validation images; a look takes as long as many steps of a head
GROUPS = 3  # of unfrozen layers, each with its own learning rate
FALLOFF = 0.4  # from one group to the one below it, which learned more general things
SHARES = (0.25, 0.5, 0.75)  # of the tuned weights, in the averages that are tried
WORST = (-math.inf, -math.inf)


def fine_tune(
    model: keras.Model,
    train: Any,
    val: Any,
    *,
    head_epochs: int = 2,
    epochs: int = 8,
    unfreeze: float = 0.8,
    learning_rate: float = 1e-3,
    loss: Any = None,
    select: str = "accuracy",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    head_callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int | None = None,
) -> keras.callbacks.History:
    """Trains a model of `models.pretrained` or `models.reuse` in two phases, compiling it by itself.

    1. The head. The network below is frozen, so its features are computed once in each of `head_epochs` passes, and
       the head learns on them in seconds; from the images with an own `train_step`, or where memory is short.
    2. The layers. They are unfrozen, batch normalisation excepted, and trained with the head on a cycle of low learning
       rates: the deeper a group of layers, the lower, because it holds what all images have in common.

    Then weights before and after the second phase are averaged, so that less of what was known is forgotten. Of a few
    such averages, both ends among them, the model gets the best on the validation images, as `select` says.

    Args:
        model: Compiled or not. Afterwards it is compiled with plain AdamW.
        train: Batches to learn from, such as `pipelines.load(…, training=True)`.
        val: Batches that choose the weights; never the test part.
        head_epochs: Passes over the images for the head, 1 or more.
        epochs: Of the second phase; 0 leaves it out.
        unfreeze: Share of the network's layers, counted from the head down, that learn in the second phase, 0 to 1.
            The lowest fifth of EfficientNetLite0 sees edges and colours, and takes a third of the time.
        learning_rate: Peak of the cycle for the head and the uppermost layers in the second phase.
        loss: What Keras takes as a loss; the cross-entropy that fits network and labels where not given.
        select: The best weights are those with the highest validation "accuracy" and, of equal ones, the lowest loss;
            or with the lowest validation "loss", which rises with confidence even where more answers are right.
        callbacks: For the second phase, such as `training.callbacks(folder)` or `widgets.monitor()`.
        head_callbacks: For the first phase, whose model is the head alone.
        seed: Of order, augmentation and dropout; `train` then begins with its first epoch.

    Returns:
        The History of both phases with a column `phase`; its attribute `phases` is a table with one row per phase:
        phase, epochs, learning and frozen (weights), moved (largest change of a frozen one: 0), val_loss and
        val_accuracy of its best epoch, share (of its weights in the average that was kept).

    Raises:
        ValueError: If the model has no network inside, an argument is out of range, or the data do not fit the model.
        RuntimeError: If a frozen weight moved.

    Source:
        Howard and Ruder 2018, "Universal Language Model Fine-tuning" (discriminative rates, gradual unfreezing);
        Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT: weights before and after averaged).

    Example:
        >>> history = fine_tune(model, train_data, val_data, epochs=10)  # doctest: +SKIP
    """
    _check_arguments(head_epochs, epochs, unfreeze, learning_rate, select)
    steps = _checked_steps(model, train, val)
    _begin(seed, model, train)
    fitting = {"loss": loss, "metrics": ["accuracy"]} if loss is not None else suitable_loss(model, train)
    task = Task(model, train, val, select, fitting)
    phases, share = [_run_phase("head", task, lambda: _train_head(task, head_epochs, steps, head_callbacks))], 0.0
    if epochs and unfreeze:
        models.unfreeze(model, share=unfreeze)
        before = values_of(model.trainable_weights)
        optimizer = discriminative(model, learning_rate, steps=epochs * steps)
        phases.append(_run_phase("layers", task, lambda: _fit(task, optimizer, epochs, callbacks)))
        share = average_weights(task, before, [phase.quality for phase in phases])
    return _finished(task, phases, share, learning_rate / 10)


class Task(NamedTuple):
    """What both phases share; `fitting` has `loss` and `metrics`."""

    model: keras.Model
    train: Any
    val: Any
    select: str
    fitting: dict[str, Any]


class Phase(NamedTuple):
    """What a phase of training gave: its epochs, how good the best one was, and a row of the table."""

    history: dict[str, list[float]]
    quality: tuple[float, float]
    row: dict[str, Any]


def _check_arguments(head_epochs: int, epochs: int, unfreeze: float, learning_rate: float, select: str) -> None:
    if head_epochs < 1 or epochs < 0 or not 0 <= unfreeze <= 1 or not learning_rate > 0:
        raise ValueError(
            "`training.fine_tune` expects `head_epochs` of 1 or more, `epochs` of 0 or more, `unfreeze` from 0 to 1 "
            f"and `learning_rate` above 0. Received: head_epochs={head_epochs}, epochs={epochs}, unfreeze={unfreeze}, "
            f"learning_rate={learning_rate}."
        )
    if select not in ("accuracy", "loss"):
        raise ValueError(f'`select` expects "accuracy" or "loss". Received: {select!r}.')


def _checked_steps(model: keras.Model, train: Any, val: Any) -> int:
    """How many batches of training images there are; data of unknown length, or of two kinds of labels, are refused."""
    for data in (val, train):
        require_batches(data)
        try:
            steps = len(data)
        except TypeError as error:
            raise ValueError(
                "`training.fine_tune` expects data of known length, such as `pipelines.load` makes. Received: "
                f"{type(data).__name__} ({error}). `data.take(n)` ends an endless one."
            ) from error
    labels = [shapes[1] for shapes in map(first_shapes, (train, val)) if shapes]
    if len({are_soft(some) and some.shape[1] == model.output_shape[-1] for some in labels}) > 1:
        raise ValueError(
            "`training.fine_tune` expects the labels of `train` and `val` in the same form. Received shares of the "
            "classes, as `one_hot`, mixup and cutmix make, on one side and class numbers on the other: load both with "
            "`one_hot=True`."
        )
    return steps


def _begin(seed: int | None, model: keras.Model, data: Any) -> None:
    """Gives random state, the generators of dropout and the order of the data the seed; freezes the network."""
    if seed is not None:
        keras.utils.set_random_seed(int(seed))
        weights = {id(weight) for weight in model.weights}
        generators = [one for one in model.variables if id(one) not in weights and tuple(one.shape) == (2,)]
        for number, state in enumerate(generators):
            state.assign(np.array([seed % 2**31, number]))
        if source_of(data) is not None:
            pipelines.set_epoch(data, 0)
    models.unfreeze(model, share=0)


def quality(logs: dict[str, Any], select: str) -> tuple[float, float]:
    """How good an epoch was, to be compared; NaN is worst."""
    flat = numbers(logs)
    for name in ("val_accuracy", "val_loss") if select == "accuracy" else ("val_loss",):
        if name not in flat:
            raise ValueError(
                f"`select={select!r}` expects training to report {name!r}. Received: {', '.join(flat)}. A model with "
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


def _run_phase(name: str, task: Task, train: Callable[[], dict[str, list[float]]]) -> Phase:
    """Calls `train`, which returns a history, and proves that what was frozen stayed."""
    frozen = task.model.non_trainable_weights
    before = values_of(frozen)
    learning = sum(math.prod(weight.shape) for weight in task.model.trainable_weights)
    history = train()
    changes = [np.abs(now - then).max(initial=0) for now, then in zip(values_of(frozen), before, strict=True)]
    moved = float(np.max(changes, initial=0.0))  # NaN has moved
    if moved:
        raise RuntimeError(
            f"Frozen weights moved by up to {moved:.3g} in the phase {name!r}, which must not happen: is there a layer "
            "that writes into its weights while training?"
        )
    epochs = [dict(zip(history, values, strict=True)) for values in zip(*history.values(), strict=True)]
    qualities = [quality(epoch, task.select) for epoch in epochs]
    best = epochs[qualities.index(max(qualities))]
    row = {"phase": name, "epochs": len(epochs), "learning": learning, "frozen": task.model.count_params() - learning}
    row |= {"moved": moved, "val_loss": best["val_loss"], "val_accuracy": best.get("val_accuracy", math.nan)}
    return Phase(history, max(qualities), row)


def average_weights(task: Task, before: Sequence[np.ndarray], qualities: Sequence[tuple[float, float]]) -> float:
    """Gives the model its best weights on the line from those before tuning to those it has; the share of the latter.

    Batch normalisation is frozen, so that its averages fit every point of the line.
    """
    weights = task.model.trainable_weights
    after = values_of(weights)
    found = {0.0: qualities[0], 1.0: qualities[1]}
    for share in SHARES if qualities[1] > WORST else ():
        assign(weights, _between(before, after, share))
        logs = task.model.evaluate(task.val, verbose=0, return_dict=True)
        found[share] = quality({f"val_{name}": value for name, value in logs.items()}, task.select)
    best = max(found, key=lambda share: found[share])
    assign(weights, _between(before, after, best))
    return best


def _between(before: Sequence[np.ndarray], after: Sequence[np.ndarray], share: float) -> Sequence[np.ndarray]:
    """Weights on the straight line between two networks; at its ends exactly theirs."""
    if share in (0, 1):
        return after if share else before
    return [(1 - share) * start + share * end for start, end in zip(before, after, strict=True)]


def _finished(task: Task, phases: list[Phase], share: float, rate: float) -> keras.callbacks.History:
    """The history of all phases, of a model that is ready to be trained on."""
    task.model.compile(keras.optimizers.AdamW(rate), jit_compile=worth_compiling(), **task.fitting)
    history = keras.callbacks.History()
    history.set_model(task.model)
    keys = [key for key in phases[0].history if all(key in phase.history for phase in phases)]
    history.history = {key: [value for phase in phases for value in phase.history[key]] for key in keys}
    history.phases = pd.DataFrame([phase.row for phase in phases]).assign(share=[1 - share, share][: len(phases)])
    history.history["phase"] = history.phases["phase"].repeat(history.phases["epochs"]).tolist()
    history.epoch = list(range(len(history.history["phase"])))
    return history


def _train_head(
    task: Task, passes: int, steps: int, callbacks: Sequence[keras.callbacks.Callback]
) -> dict[str, list[float]]:
    if type(task.model).train_step is not keras.Model.train_step:
        for data in (task.train, task.val):
            check_fits(task.model, *checked_batch(next(iter(data), None)))
        return _fit(task, _adamw(HEAD_RATE, passes * steps), passes, callbacks)
    body, head = split_at_head(task.model)
    try:
        features, labels = _features(task.model, body, task.train, passes)
        val_features, val_labels = _features(task.model, body, task.val, 1)
    except MemoryError as error:
        logger.warning("The head learns from the images, which takes longer: %s.", error)
        return _fit(task, _adamw(HEAD_RATE, passes * steps), passes, callbacks)
    rounds = max(passes, math.ceil(HEAD_STEPS * HEAD_BATCH / len(features)))
    epochs = max(passes, min(rounds, HEAD_LOOKS))
    together = math.ceil(rounds / epochs)  # rounds through few images are one epoch together
    if together > 1:
        features, labels = np.concatenate([features] * together), np.concatenate([labels] * together)
    schedule = one_cycle(HEAD_RATE, steps=epochs * math.ceil(len(features) / HEAD_BATCH))
    head.compile(
        keras.optimizers.AdamW(schedule, weight_decay=HEAD_DECAY),
        steps_per_execution=1 if on_accelerator() else 16,
        jit_compile=worth_compiling(),
        **task.fitting,
    )
    build_before_tracing(head)
    return head.fit(
        features, labels, batch_size=HEAD_BATCH, epochs=epochs, callbacks=[*callbacks, BestWeights(task.select)],
        validation_data=(val_features, val_labels), verbose=0,
    ).history  # fmt: skip


def _features(model: keras.Model, body: keras.Model, data: Any, passes: int) -> tuple[np.ndarray, np.ndarray]:
    """What the frozen body makes of all images in some passes over the data, and their labels; or MemoryError."""
    features, labels = [], []
    for _ in range(passes):
        for batch in progress(data, label="features", unit="batch"):
            images, answers = checked_batch(batch)
            check_fits(model, images, answers)
            features.append(np.asarray(body.predict_on_batch(images)))
            need = 2 * passes * len(data) * features[0].nbytes  # as batches, and then joined
            if len(features) == 1 and need > (free := free_memory()):
                raise MemoryError(f"their features would take {need / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free")
            labels.append(answers)
    if not features:
        raise ValueError("`training.fine_tune` expects at least one batch in `train` and in `val`. Received none.")
    return np.concatenate(features), np.concatenate(labels)


def split_at_head(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Two models of the same layers: images to features that do not change while training, and features to classes."""
    inside = models.backbone(model)
    following = model.layers[model.layers.index(inside) :]
    first = next(layer for layer in following[1:] if layer.weights or isinstance(layer, keras.layers.Dropout))
    return keras.Model(model.inputs, first.input), keras.Model(first.input, model.outputs)


def _fit(
    task: Task, optimizer: Any, epochs: int, callbacks: Sequence[keras.callbacks.Callback]
) -> dict[str, list[float]]:
    """Trains the whole model, as it is frozen, on images."""
    task.model.compile(optimizer, jit_compile=worth_compiling(), **task.fitting)
    build_before_tracing(task.model)
    return task.model.fit(
        task.train, validation_data=task.val, epochs=epochs, verbose=0,
        callbacks=[*(callbacks or [EpochBar()]), BestWeights(task.select)],
    ).history  # fmt: skip


def discriminative(model: keras.Model, peak: float, *, steps: int) -> keras.optimizers.Optimizer:
    """AdamW for each group of layers, its rate `FALLOFF` of that of the group above; all on cycles of `steps` steps."""
    layers = models.trainable_layers(model)[::-1]
    size = math.ceil(len(layers) / GROUPS)
    group_of = {weight.path: 1 + i // size for i, layer in enumerate(layers) for weight in layer.trainable_weights}
    optimizers = {group: _adamw(peak * FALLOFF**group, steps) for group in sorted(set(group_of.values()))}
    chosen = {re.escape(path): optimizers[group] for path, group in group_of.items()}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(_adamw(peak, steps), chosen))


def _adamw(peak: float, steps: int) -> keras.optimizers.Optimizer:
    return keras.optimizers.AdamW(one_cycle(peak, steps=steps))

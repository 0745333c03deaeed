"""What is tried before hours are spent: a few steps that find a learning rate and catch most beginners' faults."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab._common import progress
from cnnlab._upstream import build_before_tracing, compiled_twin
from cnnlab.models.losses import are_soft
from cnnlab.training.batches import described, labels_fit, repeated, size_fits, suitable_loss
from cnnlab.training.compiling import worth_compiling
from cnnlab.training.state import untouched

DIVERGED = 4.0  # a loss so many times the best one ends the test, as in fastai
SAFETY = 6  # between the rate of the lowest loss and the suggestion
SMOOTHING = 4.0  # steps; standard deviation of the Gaussian that takes the noise of single batches out
ENOUGH = 0.7  # of the first loss: so far down one batch must be learned by heart
TRIES = 100  # steps at most
BATCH = 32  # images at most
SPREAD = 2e-3  # probabilities that differ less between images ignore them
Check = tuple[str, bool, str, str]  # a row of the table; the advice is for where it did not pass


class LearningRates(NamedTuple):
    """What the range test gives.

    Attributes:
        table: One row per step: step, learning_rate, loss of that batch, smoothed, and suggested (True in one row).
        suggestion: The learning rate to train with, or the peak of a cycle.
    """

    table: pd.DataFrame
    suggestion: float


def find_learning_rate(
    model: keras.Model, data: Any, *, lowest: float = 1e-6, highest: float = 1.0, steps: int = 100
) -> LearningRates:
    """Trains for a moment with ever higher learning rates and suggests the one at which the loss falls best.

    The rate rises from `lowest` to `highest` by the same factor each step, until the loss explodes. Afterwards
    weights, optimizer, random state and the data's count of epochs are what they were, bit for bit.

    Args:
        model: Compiled or not. Its optimizer's kind and settings are used (AdamW where it is not compiled), and its
            loss.
        data: Batches to train on, such as `pipelines.load(…, training=True)`; never the test part.
        lowest: First learning rate.
        highest: Last learning rate.
        steps: How many batches; the data is gone through again where it has fewer.

    Returns:
        `.table` and `.suggestion`; `plots.learning_rates` draws them.

    Raises:
        ValueError: If the range is empty, there are fewer than 10 steps, or the loss is not a number from the start.

    Source:
        Smith 2017, "Cyclical Learning Rates for Training Neural Networks"; `fastai.Learner.lr_find`.

    Example:
        >>> import numpy as np
        >>> from cnnlab import models, training
        >>> model = models.small_cnn(image_size=(8, 8), classes=["dark", "light"], filters=(4,))
        >>> light = np.arange(32) % 2
        >>> batch = np.full((32, 8, 8, 3), 255, "uint8") * light[:, None, None, None].astype("uint8"), light
        >>> found = training.find_learning_rate(model, [batch], steps=20)
        >>> 1e-6 < found.suggestion < 1
        True
    """
    if not (0 < lowest < highest and steps >= 10):
        raise ValueError(
            "`find_learning_rate` expects 0 < `lowest` < `highest` and `steps` of 10 or more. "
            f"Received: lowest={lowest}, highest={highest}, steps={steps}."
        )
    rates = np.geomspace(lowest, highest, steps)
    with untouched(model, data):
        losses = _losses(model, data, rates)
    table = pd.DataFrame(
        {"step": np.arange(len(losses)), "learning_rate": rates[: len(losses)], "loss": losses},
    )
    table["smoothed"] = smoothed(table["loss"].to_numpy())
    row = suggested(table["learning_rate"].to_numpy(), table["smoothed"].to_numpy())
    table["suggested"] = table.index == row
    return LearningRates(table, float(table["learning_rate"][row]))


def _losses(model: keras.Model, data: Any, rates: np.ndarray) -> list[float]:
    """Loss of each batch before the step with its rate; ends where the loss explodes."""
    batches = repeated(data)
    images, labels = next(batches)
    probe = compiled_like(model, images, labels)
    losses: list[float] = []
    for rate in progress(rates, label="learning rates", unit="step"):
        probe.optimizer.learning_rate = rate
        loss = one_step(probe, images, labels)
        if not math.isfinite(loss) or (losses and loss > DIVERGED * max(min(losses), 0.1) and len(losses) >= 10):
            break
        losses.append(loss)
        images, labels = next(batches)
    if len(losses) < 10:
        raise ValueError(
            f"`find_learning_rate` expects a loss that can be computed for 10 batches. It exploded or was NaN "
            f"after {len(losses)}. Ask `training.preflight(model, data)` what is wrong."
        )
    return losses


def smoothed(losses: np.ndarray) -> np.ndarray:
    """The losses without the noise of single batches: means of neighbours, the near ones counting more."""
    distance = np.arange(len(losses))[:, None] - np.arange(len(losses))[None, :]
    weights = np.exp(-0.5 * (distance / SMOOTHING) ** 2)
    return weights @ losses / weights.sum(axis=1)


def suggested(rates: np.ndarray, losses: np.ndarray) -> int:
    """The row of the suggestion: a sixth of the rate of the lowest loss, beyond which training becomes unstable.

    A loss that falls to the very end of the range says little about instability: six times the rate at which it falls
    fastest is the limit then. Measured with AdamW on digits and rendered parts, with batch normalisation and without.
    """
    lowest = int(losses.argmin())
    fastest = int(np.gradient(losses, np.log(rates))[: lowest + 1].argmin())
    return int(np.searchsorted(rates, min(rates[lowest] / SAFETY, rates[fastest] * SAFETY)))


def preflight(model: keras.Model, data: Any) -> pd.DataFrame:
    """Looks over a model and its training data: pixels, labels, first loss, and whether one batch can be learned.

    Takes seconds. Afterwards weights, optimizer, random state and the data's count of epochs are what they were, bit
    by bit.

    Args:
        model: Compiled or not; gives one probability per class.
        data: Batches to train on, such as `pipelines.load(…, training=True)`.

    Returns:
        One row per check: check, passed, found, advice (empty where it passed). What cannot be looked at because an
        earlier check failed is left out.

    Raises:
        ValueError: If `data` has no batch of (images, labels), or its labels are not numbers.

    Source:
        Karpathy 2019, "A Recipe for Training Neural Networks".

    Example:
        >>> import numpy as np
        >>> from cnnlab import models, training
        >>> model = models.small_cnn(image_size=(8, 8), classes=["dark", "light"], filters=(4,))
        >>> images = np.linspace(0, 1, 4 * 8 * 8 * 3).reshape(4, 8, 8, 3)
        >>> looked = training.preflight(model, [(images, np.array([0, 1, 0, 1]))])
        >>> looked.loc[0, "found"], bool(looked.loc[0, "passed"])
        ('0 to 1', False)
    """
    with untouched(model, data):
        images, labels = next(repeated(data))
        checks = list(_checks(model, images[:BATCH], labels[:BATCH]))
    table = pd.DataFrame(checks, columns=["check", "passed", "found", "advice"])
    return table.assign(advice=table["advice"].mask(table["passed"], ""))


def _checks(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> Iterator[Check]:
    low, high = float(np.min(images)), float(np.max(images))
    yield (
        "pixels",
        bool(np.isfinite(images).all() and low >= 0 and 1 < high <= 255),
        f"{low:.4g} to {high:.4g}",
        "Expected 0 to 255, as rescaling sits inside the model. Do not divide by 255 in the pipeline.",
    )
    shape = getattr(model, "input_shape", None)  # a network of one's own class may not say it
    fits = shape is None or size_fits(tuple(shape[1:]), images)
    wanted = "whatever comes" if shape is None else tuple(shape[1:])
    advice = "Load with `pipelines.load(…, like=model)`."
    yield "image size", fits, f"{images.shape[1:]}, the model takes {wanted}", advice
    if not fits or not np.isfinite(images).all():
        return
    outputs = np.asarray(keras.ops.convert_to_numpy(model(images, training=False)))
    outputs = np.hstack([1 - outputs, outputs]) if outputs.shape[-1] == 1 else outputs
    classes = outputs.shape[-1]
    known = _labels(labels, classes)
    yield known
    yield (
        "probabilities",
        bool(np.allclose(outputs.sum(axis=-1), 1, atol=1e-2) and (outputs >= 0).all()),
        f"each image's outputs add up to {outputs.sum(axis=-1).mean():.3g}",
        'End the model with `Dense(classes, activation="softmax")`, or `Dense(1, activation="sigmoid")` for two.',
    )
    learnable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    yield (
        "something to learn",
        learnable > 0,
        f"{learnable:,} of {model.count_params():,} weights may change",
        "Everything is frozen: set `trainable = True` on some layer, or use `models.unfreeze`.",
    )
    if known[1] and learnable:
        yield from _trial(model, images, labels, outputs)


def _labels(labels: np.ndarray, classes: int) -> Check:
    right = labels_fit(labels, classes)
    numbers = labels.argmax(axis=1) if are_soft(labels) else labels.reshape(-1)
    several = len(np.unique(numbers)) > 1 or len(numbers) < 4
    advice = (
        f"Expected class numbers from 0 to {classes - 1}, or {classes} shares that add up to 1, as the model has "
        f"{classes} outputs."
        if not right
        else "A whole batch of one class: shuffle before batching, as `pipelines.load(training=True)` does."
    )
    return "labels", right and several, f"{described(labels)}, {len(np.unique(numbers))} classes in a batch", advice


def _trial(model: keras.Model, images: np.ndarray, labels: np.ndarray, outputs: np.ndarray) -> Iterator[Check]:
    """First loss, answers that differ, and memorizing one batch."""
    chance = math.log(outputs.shape[-1])
    probe = compiled_like(model, images, labels)
    first = loss_of(probe.evaluate(images, labels, verbose=0, return_dict=True))
    yield (
        "first loss",
        math.isfinite(first) and first < 3 * chance + 0.5,
        f"{first:.3g}, guessing costs ln({outputs.shape[-1]}) = {chance:.3g}",
        "Far above guessing before any training: is preprocessing missing from the model, or there twice?",
    )
    spread = float(outputs.std(axis=0).max()) if len(outputs) > 1 else 1.0
    yield (
        "looks at the image",
        spread > SPREAD,
        f"probabilities differ by {spread:.2g} between images",
        "All images get the same answer: are pixels rescaled twice, or are all activations zero?",
    )
    lowest, steps = first, 0
    while steps < TRIES and math.isfinite(lowest) and lowest > ENOUGH * min(first, chance):
        loss = one_step(probe, images, labels)
        lowest, steps = (loss if not math.isfinite(loss) else min(lowest, loss)), steps + 1
    yield (
        "learns one batch",
        math.isfinite(lowest) and lowest <= ENOUGH * min(first, chance),
        f"loss {first:.3g} to {lowest:.3g} in {steps} steps on {len(images)} images",
        "It cannot memorize even a few images: try `training.find_learning_rate`, and look at images and labels.",
    )


def compiled_like(model: keras.Model, images: Any, labels: Any) -> Any:
    """The same network, with its own `train_step` if it has one, compiled by itself for the same loss.

    Its layers are the model's: what it learns is to be undone by `untouched`.
    """
    twin = compiled_twin(model)
    loss = model.loss if getattr(model, "compiled", False) else suitable_loss(model, (images, labels))["loss"]
    twin.compile(optimizer_like(model), loss=loss, jit_compile=worth_compiling())
    build_before_tracing(twin)
    return twin


def one_step(model: Any, images: Any, labels: Any) -> float:
    """Trains on one batch; the loss before the step."""
    model.reset_metrics()
    return loss_of(model.train_on_batch(images, labels, return_dict=True))


def loss_of(logs: dict[str, Any]) -> float:
    """The loss among what a step returned."""
    if "loss" not in logs:
        raise ValueError(
            f"Expected the network's own `train_step` and `test_step` to return the loss as 'loss'. Received: "
            f"{', '.join(logs)}."
        )
    return float(logs["loss"])


def optimizer_like(model: keras.Model) -> keras.optimizers.Optimizer:
    """An optimizer set up as the model's own, without its memory; AdamW for a model that is not compiled."""
    own: Any = getattr(model, "optimizer", None)
    while getattr(own, "inner_optimizer", None) is not None:  # scaling the loss is not the question here
        own = own.inner_optimizer
    if own is None or hasattr(own, "optimizers"):
        return keras.optimizers.AdamW()
    config = own.get_config()
    if not isinstance(config.get("learning_rate"), float):
        config["learning_rate"] = 1e-3  # a schedule would change the rate by itself
    return type(own).from_config(config)

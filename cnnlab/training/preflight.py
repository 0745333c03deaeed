"""Looks over a model and its data before hours are spent: seconds that catch most beginners' faults."""

import math
from collections.abc import Iterator
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab.models.losses import are_soft
from cnnlab.training.batches import described, labels_fit, repeated, size_fits
from cnnlab.training.state import untouched
from cnnlab.training.trying import compiled_like, loss_of, one_step

ENOUGH = 0.7  # of the first loss: so far down one batch must be learned by heart
TRIES = 100  # steps at most
BATCH = 32  # images at most
SPREAD = 2e-3  # probabilities that differ less between images ignore them


Check = tuple[str, bool, str, str]  # a row of the table; the advice is for where it did not pass


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
    yield _pixels(images)
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


def _pixels(images: np.ndarray) -> Check:
    low, high = float(np.min(images)), float(np.max(images))
    right = bool(np.isfinite(images).all() and low >= 0 and 1 < high <= 255)
    return (
        "pixels",
        right,
        f"{low:.4g} to {high:.4g}",
        "Expected 0 to 255, as rescaling sits inside the model. Do not divide by 255 in the pipeline.",
    )


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

"""The learning-rate range test: which learning rate does a network want on this data?"""

import math
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab._common import progress
from cnnlab.training.batches import repeated
from cnnlab.training.state import untouched
from cnnlab.training.trying import compiled_like, one_step

DIVERGED = 4.0  # a loss so many times the best one ends the test, as in fastai
SAFETY = 6  # between the rate of the lowest loss and the suggestion
SMOOTHING = 4.0  # steps; standard deviation of the Gaussian that takes the noise of single batches out


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
    weights, optimizer, random state and the data's count of epochs are what they were, bit by bit.

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

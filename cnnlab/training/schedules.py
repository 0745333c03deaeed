"""Learning rates that change while training, as plain Keras schedules."""

import math
from collections.abc import Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras


def one_cycle(peak: float, *, steps: int, warmup: float = 0.25, start: float = 0.1) -> Any:
    """Rises to `peak` and falls to nothing along a cosine: fast training in few epochs.

    Args:
        peak: The highest learning rate; what `training.find_learning_rate` suggests.
        steps: Training steps in all: epochs × `len(train_data)`.
        warmup: Share of the steps spent rising, 0 to below 1.
        start: The first learning rate, as a share of `peak`.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Smith and Topin 2017, "Super-Convergence"; the cosine form of `fastai.Learner.fit_one_cycle`.

    Example:
        >>> schedule = one_cycle(0.01, steps=100)
        >>> [round(float(schedule(step)), 4) for step in (0, 25, 100)]
        [0.001, 0.01, 0.0]
    """
    if not (peak > 0 and steps >= 1 and 0 <= warmup < 1):
        raise ValueError(
            "`one_cycle` expects `peak` above 0, `steps` of 1 or more and `warmup` from 0 to below 1. "
            f"Received: peak={peak}, steps={steps}, warmup={warmup}."
        )
    rising = math.floor(steps * warmup)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak * start if rising else peak,
        decay_steps=steps - rising,
        warmup_target=peak if rising else None,
        warmup_steps=rising,
        name="one_cycle",
    )


def warmup_cosine(peak: float, *, steps: int, warmup: float = 0.05, end: float = 0.0) -> Any:
    """Rises from 0 to `peak` in a short while, then falls along half a cosine: the usual choice for long trainings.

    Args:
        peak: The highest learning rate.
        steps: Training steps in all: epochs × `len(train_data)`.
        warmup: Share of the steps spent rising, 0 to below 1.
        end: The last learning rate, as a share of `peak`, 0 to below 1.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Loshchilov and Hutter 2017, "SGDR", without the restarts; Goyal et al. 2017 for the warm-up.

    Example:
        >>> schedule = warmup_cosine(0.01, steps=100, warmup=0.1)
        >>> [round(float(schedule(step)), 4) for step in (0, 10, 55, 100)]
        [0.0, 0.01, 0.005, 0.0]
    """
    if not (peak > 0 and steps >= 1 and 0 <= warmup < 1 and 0 <= end < 1):
        raise ValueError(
            "`warmup_cosine` expects `peak` above 0, `steps` of 1 or more, `warmup` and `end` from 0 to below 1. "
            f"Received: peak={peak}, steps={steps}, warmup={warmup}, end={end}."
        )
    rising = math.floor(steps * warmup)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if rising else peak,
        decay_steps=steps - rising,
        alpha=end,
        warmup_target=peak if rising else None,
        warmup_steps=rising,
        name="warmup_cosine",
    )


def step_down(start: float, *, steps: int, at: Sequence[float] = (0.5, 0.75), factor: float = 0.1) -> Any:
    """Stays level and falls by `factor` at given shares of the training.

    Args:
        start: The first learning rate.
        steps: Training steps in all: epochs × `len(train_data)`.
        at: When to fall, as rising shares of the steps, above 0 and below 1.
        factor: What the rate is multiplied by each time, above 0 and below 1.

    Returns:
        A `keras.optimizers.schedules.PiecewiseConstantDecay`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        He et al. 2016, "Deep Residual Learning".

    Example:
        >>> schedule = step_down(0.1, steps=100)
        >>> [round(float(schedule(step)), 4) for step in (0, 50, 51, 80)]
        [0.1, 0.1, 0.01, 0.001]
    """
    rising = all(0 < share < 1 for share in at) and list(at) == sorted(set(at))
    if not (start > 0 and steps >= 1 and 0 < factor < 1 and at and rising):
        raise ValueError(
            "`step_down` expects `start` above 0, `steps` of 1 or more, `factor` and each of `at` between 0 and 1, "
            f"`at` rising. Received: start={start}, steps={steps}, at={tuple(at)}, factor={factor}."
        )
    rates = [start * factor**count for count in range(len(at) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [max(1, round(steps * share)) for share in at], rates, name="step_down"
    )


def plateau(*, patience: int = 3, factor: float = 0.3, monitor: str = "val_loss", lowest: float = 1e-6) -> Any:
    """Lowers the learning rate whenever the validation loss stops falling; needs no number of epochs in advance.

    A callback, as it has to see the loss: `model.fit(callbacks=[*training.callbacks(…), training.plateau()])`, with a
    learning rate that is a number. Its patience should be below that of `training.callbacks`.

    Args:
        patience: Epochs without improvement before the rate is lowered.
        factor: What the rate is multiplied by, above 0 and below 1.
        monitor: What improvement is measured by.
        lowest: The rate goes no lower than this.

    Returns:
        A `keras.callbacks.ReduceLROnPlateau`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> plateau(patience=2).patience
        2
    """
    if not (patience >= 1 and 0 < factor < 1 and lowest >= 0):
        raise ValueError(
            "`plateau` expects `patience` of 1 or more, `factor` between 0 and 1 and `lowest` of 0 or more. "
            f"Received: patience={patience}, factor={factor}, lowest={lowest}."
        )
    return keras.callbacks.ReduceLROnPlateau(monitor=monitor, patience=patience, factor=factor, min_lr=lowest)

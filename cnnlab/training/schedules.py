"""Learning rates that change while training, as plain Keras schedules."""

import math
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

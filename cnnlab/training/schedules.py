"""Learning rates that change while training, as plain Keras schedules."""

import logging
import math
from collections.abc import Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._upstream import schedules_of
from cnnlab.training.best import Watched

LOOKS = 41  # at a schedule
logger = logging.getLogger("cnnlab")


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
    return _warmed_up(peak, steps, warmup, start=start, name="one_cycle")


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
    return _warmed_up(peak, steps, warmup, start=0.0, alpha=end, name="warmup_cosine")


def _warmed_up(peak: float, steps: int, warmup: float, *, start: float, **options: Any) -> Any:
    rising = math.floor(steps * warmup)
    if not rising:
        return keras.optimizers.schedules.CosineDecay(peak, steps, **options)
    return keras.optimizers.schedules.CosineDecay(
        peak * start, steps - rising, warmup_target=peak, warmup_steps=rising, **options
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


def plateau(
    *, patience: int = 3, factor: float = 0.3, monitor: str = "val_loss", mode: str = "auto", lowest: float = 1e-6
) -> Any:
    """Lowers the learning rate whenever the validation loss stops falling; needs no number of epochs in advance.

    A callback, as it has to see the loss: `model.fit(callbacks=[*training.callbacks(…), training.plateau()])`, with a
    learning rate that is a number. Its patience should be below that of `training.callbacks`. Without validation data
    it goes by the training loss.

    Args:
        patience: Epochs without improvement before the rate is lowered.
        factor: What the rate is multiplied by, above 0 and below 1.
        monitor: What improvement is measured by.
        mode: "min" or "max" for a number whose direction Keras does not know.
        lowest: The rate goes no lower than this.

    Returns:
        A `keras.callbacks.ReduceLROnPlateau`.

    Raises:
        ValueError: If an argument is out of range; when `fit` begins, if the learning rate is a schedule.

    Example:
        >>> plateau(patience=2).patience
        2
    """
    if not (patience >= 1 and 0 < factor < 1 and lowest >= 0):
        raise ValueError(
            "`plateau` expects `patience` of 1 or more, `factor` between 0 and 1 and `lowest` of 0 or more. "
            f"Received: patience={patience}, factor={factor}, lowest={lowest}."
        )
    return Plateau(Watched(monitor, mode), patience=patience, factor=factor, min_lr=lowest)


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Keras's own, which looks at epochs that were validated and refuses a learning rate that has a rule already."""

    def __init__(self, watched: Watched, **options: Any) -> None:
        super().__init__(monitor=watched.name, **options)
        self.watched = watched

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks at optimizer and data before the first step."""
        super().on_train_begin(logs)
        refuse_two_rules(self.model.optimizer, [self])
        self.watched.begin(self)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Lowers the rate where patience is used up."""
        logs = {} if logs is None else logs
        if self.watched.value(logs) is None:  # not validated
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)
            return
        self.monitor, self.mode = self.watched.name, self.watched.direction()
        super().on_epoch_end(epoch, logs)


def refuse_two_rules(optimizer: Any, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Refuses callbacks that set the learning rate where a schedule does, or several optimizers: Keras would fail.

    Warns of two callbacks, of which the one that sets it every epoch may undo what the other has done.
    """
    kinds = keras.callbacks.ReduceLROnPlateau | keras.callbacks.LearningRateScheduler
    rules = [type(one).__name__ for one in callbacks if isinstance(one, kinds)]
    if rules and not hasattr(optimizer, "learning_rate"):
        raise ValueError(
            f"`{rules[0]}` expects an optimizer with one learning rate. Received: {type(optimizer).__name__}, which "
            "has one for each group of layers. Leave the callback out, and give its optimizers schedules."
        )
    names = [getattr(rate, "name", None) or type(rate).__name__ for rate in schedules_of(optimizer)]
    if rules and names:
        raise ValueError(
            f"Expected one rule for the learning rate. Received two: the schedule {names[0]!r} and the callback "
            f"{rules[0]}. Compile with a number as `learning_rate`, or leave the callback, such as `training.plateau`, "
            "out."
        )
    if len(set(rules)) > 1:
        logger.warning(
            "Two callbacks set the learning rate, %s: what one has done is lost where the other sets a rate of its "
            "own. Leave one out, or let the function of LearningRateScheduler give back the rate it is given.",
            " and ".join(rules),
        )


def refuse_what_is_over(optimizer: Any, *, epochs: int, steps: int | None, done: int = 0) -> None:
    """Refuses a schedule that is over before `epochs` of `steps` steps begin; warns of one that ends within them.

    `done` steps of the first epoch lie behind a run that goes on within it.
    """
    first, count = int(getattr(optimizer, "iterations", 0)), epochs * (steps or 1) - done
    for rate in schedules_of(optimizer) if count > 1 else []:
        places = np.unique(np.linspace(first + 1, first + count - 1, LOOKS).astype(int))
        nothing = [int(place) for place in places if float(rate(place)) == 0]
        name = getattr(rate, "name", None) or type(rate).__name__
        if len(nothing) == len(places):
            raise ValueError(
                f"Expected a learning rate above 0. The schedule {name!r} is over: after {first} steps its learning "
                "rate is 0, so nothing would be learned. Compile the model anew, with a schedule of as many steps as "
                "are to be trained."
            )
        if steps and len(nothing) > 0.05 * len(places):
            logger.warning(
                "The schedule %r is over after step %d of %d: nothing is learned from there on. Make it of "
                "`epochs * len(data)` = %d steps.", name, nothing[0], first + count, count,
            )  # fmt: skip

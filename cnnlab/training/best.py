"""The best epoch of a training: by which number, its model in a file, its weights back at the end."""

import logging
import math
import re
from pathlib import Path
from typing import Any, ClassVar

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._common import atomic_path, is_whole
from cnnlab._upstream import fit_around, metric_mode
from cnnlab.models.losses import saved_plainly
from cnnlab.training.callback_state import Fields
from cnnlab.training.running import Budget, disk_watched
from cnnlab.training.state import assign, values_of

BEST = "best.keras"
BEST_SHARE = 0.005  # of the time may go into writing the best model while training
LAST_GOOD = "The last checkpoint and the best model so far are whole."
logger = logging.getLogger("cnnlab")


def numbers(logs: dict[str, Any] | None) -> dict[str, float]:
    """What an epoch reported as plain numbers; a metric that is an array becomes `name_0`, `name_1`.

    >>> numbers({"loss": np.float32(0.5), "f1_score": np.array([0.25, 1.0])})
    {'loss': 0.5, 'f1_score_0': 0.25, 'f1_score_1': 1.0}
    """
    flat: dict[str, float] = {}
    for key, value in (logs or {}).items():
        values = np.asarray(keras.ops.convert_to_numpy(value) if hasattr(value, "shape") else value, dtype=float)
        several = {f"{key}_{index}": float(each) for index, each in enumerate(values.reshape(-1))}
        flat |= {key: float(values)} if values.ndim == 0 else several
    return flat


class Watched:
    """A number that training reports after an epoch, and its direction: "min", "max", or "auto", which asks Keras.

    Without validation data the training's own number stands in for `val_…`. `argument` is what the person gave it as.
    """

    def __init__(self, monitor: str, mode: str = "auto", *, argument: str = "monitor") -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f'`mode` expects "auto", "min" or "max". Received: {mode!r}.')
        if not isinstance(monitor, str) or not monitor:
            raise ValueError(f"`{argument}` expects the name of a number that training reports. Received: {monitor!r}.")
        self.given = self.name = monitor
        self.asked, self.argument = mode, argument
        self.mode: str | None = None
        self.model: Any = None
        self.every = 1

    def begin(self, callback: keras.callbacks.Callback, *, consequence: str = "") -> None:
        """Finds out how often the `fit` around `callback` validates; warns of the `consequence` where it does not."""
        self.name, self.model, self.mode = self.given, callback.model, None if self.asked == "auto" else self.asked
        arguments = fit_around(callback).arguments
        every = arguments.get("validation_freq", 1)
        self.every = every if is_whole(every) else 0
        if arguments and arguments["validation_data"] is None and self.name.startswith("val_"):
            self.name = self.name.removeprefix("val_")
            if consequence:
                logger.warning("There are no validation data, so %s.", consequence.format(self.name))

    def value(self, logs: dict[str, Any] | None) -> float | None:
        """The number; None after an epoch without validation."""
        flat = numbers(logs)
        if self.name in flat:
            return flat[self.name]
        if self.name.startswith("val_") and not any(key.startswith("val_") for key in flat) and self.every != 1:
            return None
        several = f"{self.name}_0" in flat
        raise ValueError(
            f"`{self.argument}` expects a number that training reports: {', '.join(flat)}. Received: {self.given!r}"
            + (", which is several: name one of them, or have Keras average them." if several else ".")
        )

    def better(self, value: float | None, best: float | None) -> bool:
        """Whether a value improves on the best so far; NaN never does."""
        if value is None or value != value:
            return False
        return best is None or (value < best if self.direction() == "min" else value > best)

    def direction(self) -> str:
        """Whether less ("min") or more ("max") of it is better."""
        if self.mode is None:
            known = metric_mode(self.model, self.name) or metric_mode(self.model, re.sub(r"_\d+$", "", self.name))
            self.mode = known or ("min" if self.name.endswith("loss") else None)
        if self.mode is None:
            raise ValueError(
                f"`{self.argument}` expects a number whose direction Keras knows, or `mode` with it. Received: "
                f'{self.name!r}: say mode="max" if more of it is better, mode="min" if less.'
            )
        return self.mode


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras's own, for epochs that were validated; NaN counts as no improvement."""

    def __init__(self, watched: Watched, *, patience: int) -> None:
        super().__init__(monitor=watched.name, patience=patience, restore_best_weights=True)
        self.watched = watched

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Says so where patience watches the training itself."""
        super().on_train_begin(logs)
        said = "patience watches the training's own {!r}, which may improve while a network only memorizes its images"
        self.watched.begin(self, consequence=said)
        self.monitor = self.watched.name

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the epoch, if it has the number."""
        value = self.watched.value(logs)
        if value is None or (value != value and self.best_weights is None):
            return
        self.mode = self.watched.direction()
        if value != value:
            value = math.inf if self.mode == "min" else -math.inf
        super().on_epoch_end(epoch, {self.monitor: value})


class BestModel(keras.callbacks.Callback):
    """Saves the model of the best epoch as `best.keras`; written whole or not at all.

    Writing a model takes longer than some epochs do, so where it would cost too much its values are held in memory
    until there is time, at the latest when training ends. Ends training where the loss is NaN.
    """

    remembered: ClassVar[Fields] = {"best": "number", "best_epoch": "count", "waiting": "variables"}

    def __init__(self, folder: Path, watched: Watched) -> None:
        super().__init__()
        self.folder, self.watched, self.monitor = folder, watched, watched.name
        self.best: float | None = None
        self.best_epoch = 0
        self.waiting: list[np.ndarray] | None = None
        self.budget = Budget(BEST_SHARE)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier run."""
        self.best = self.waiting = None
        self.best_epoch = 0
        self.failed_epoch: int | None = None
        self.at_first = values_of(self.model.variables)  # until there is a best epoch
        self.budget = Budget(BEST_SHARE)
        self.watched.begin(self)
        self.monitor = self.watched.name

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keeps this epoch if it is the best so far; without validation data the training value decides."""
        flat = numbers(logs)
        if not math.isfinite(flat.get("loss", 0.0)):
            self.failed_epoch, self.model.stop_training = epoch, True
            return
        self.at_first = []
        value = self.watched.value(logs)
        if self.watched.better(value, self.best):
            self.best, self.best_epoch, self.waiting = value, epoch, values_of(self._variables())
        if self.waiting is not None and self.budget.allows():
            self._write(self.waiting)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Writes what waits; gives the model weights that are numbers."""
        if self.failed_epoch is not None:
            self._go_back(self.failed_epoch)
        elif self.best is None and not self.at_first:
            logger.warning("%r was NaN in every epoch, so there is no best one and no %s.", self.monitor, BEST)
        if self.waiting is not None:
            self._write(self.waiting)

    def _go_back(self, epoch: int) -> None:
        if self.waiting is not None:
            assign(self._variables(), self.waiting)
        elif self.best is not None:
            try:
                self.model.load_weights(self.folder / BEST)
            except Exception as error:  # the run may have been a stranger's, and h5py and zipfile raise what they like
                raise ValueError(
                    f"The loss of epoch {epoch + 1} is no finite number, and the best model so far, "
                    f"{str(self.folder / BEST)!r}, cannot be read: {error}. Begin anew with `training.callbacks`."
                ) from error
        else:
            assign(self.model.variables[: len(self.at_first)], self.at_first)
        logger.warning(
            "The loss of epoch %d is not a finite number, so training stopped. The model has %s. Lower the learning "
            "rate, for example to `training.find_learning_rate(…).suggestion`, ask `training.preflight` about the "
            "data, and begin anew.", epoch + 1,
            f"the weights of epoch {self.best_epoch + 1} again, which {BEST} holds, too" if self.best is not None
            else f"the weights it began with; no epoch was good enough for a {BEST}",
        )  # fmt: skip

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]

    def _write(self, best: list[np.ndarray]) -> None:
        with self.budget.spent(), disk_watched(self.folder, LAST_GOOD):
            now = values_of(self._variables())
            assign(self._variables(), best)
            try:
                with atomic_path(self.folder / BEST) as temporary:
                    saved_plainly(self.model).save(temporary)
            finally:
                assign(self._variables(), now)
        self.waiting = None

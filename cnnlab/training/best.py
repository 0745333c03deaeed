"""The best epoch of a training: its model in a file, its weights back at the end."""

import logging
import math
from pathlib import Path
from typing import Any, ClassVar

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._common import atomic_path
from cnnlab.models.losses import saved_plainly
from cnnlab.training.memory import Fields
from cnnlab.training.running import Budget, disk_watched
from cnnlab.training.state import assign, values_of
from cnnlab.training.watching import Watched, numbers

BEST = "best.keras"
BEST_SHARE = 0.005  # of the time may go into writing the best model while training
LAST_GOOD = "The last checkpoint and the best model so far are whole."
logger = logging.getLogger("cnnlab")


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

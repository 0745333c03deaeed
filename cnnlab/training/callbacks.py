"""What a run leaves behind: its configuration, its history, its best model."""

import csv
import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._common import atomic_path, is_quiet
from cnnlab.training.checkpoint import FOLDER
from cnnlab.training.resuming import Checkpoints
from cnnlab.training.running import Budget, disk_watched
from cnnlab.training.state import assign, values_of

PACKAGES = (
    "cnnlab",
    "keras",
    "tensorflow",
    "jax",
    "numpy",
    "pandas",
    "scikit-learn",
    "pillow",
    "opencv-python-headless",
)
RUN = "run.json"
HISTORY = "history.csv"
BEST = "best.keras"
TENSORBOARD = "tensorboard"
LEFT_BEHIND = (HISTORY, BEST, TENSORBOARD, RUN, FOLDER)
BEST_SHARE = 0.005  # of the time may go into writing the best model while training
LAST_GOOD = "The last checkpoint and the best model so far are whole."
OPTIONS: dict[str, Any] = {"patience": None, "monitor": "val_loss", "seed": None, "tensorboard": True}


def callbacks(
    run_folder: str | os.PathLike[str],
    *,
    patience: int | None = None,
    monitor: str = "val_loss",
    seed: int | None = None,
    tensorboard: bool = True,
) -> list[keras.callbacks.Callback]:
    """Plain Keras callbacks that keep a record of a run and, with `patience`, stop it early with its best weights.

    A bar counts the epochs where somebody watches, so `model.fit(verbose=0)` is not silent.
    `run.json` holds configuration, seed and package versions, `history.csv` one row an epoch, `best.keras` the model
    of the best epoch, `tensorboard/` the same curves for TensorBoard, and `checkpoint/` what `training.resume` needs
    to go on exactly where the run was stopped. Files of an earlier run in the same folder are moved to `earlier/`,
    never deleted. While training, the best model is written as often as it costs next to no time; at the end it is
    there in any case.

    Args:
        run_folder: Where to; made if it does not exist.
        patience: Stop after so many epochs without improvement and go back to the best weights. None trains all epochs.
        monitor: What improvement is measured by: "val_loss", "val_accuracy", "loss" …
        seed: Noted in `run.json`.
        tensorboard: Whether to log for TensorBoard.

    Returns:
        A list for `model.fit(callbacks=…)`; add your own to it, their memory is kept, too.

    Raises:
        ValueError: If `patience` is below 1.

    Example:
        >>> [type(callback).__name__ for callback in callbacks("runs/first", patience=5, tensorboard=False)]
        ['Checkpoints', 'EpochBar', 'RunRecord', 'BestModel', 'EarlyStopping']
    """
    options = {"patience": patience, "monitor": monitor, "seed": seed, "tensorboard": tensorboard}
    return _made(Path(run_folder), options, resume=False)


def resume(run_folder: str | os.PathLike[str], **options: Any) -> list[keras.callbacks.Callback]:
    """The callbacks of a run that was interrupted: with them, `model.fit` goes on where it stopped, bit by bit.

    Build and compile the model and load the data as before, then call `fit` as before, with these callbacks. Weights,
    optimizer, epoch and step, the memory of all callbacks, history, order of the data and random state are those of
    the last checkpoint, so that on a CPU the end is the one that the run would have had by itself. Killed, crashed,
    switched off: all the same. A run that is over is not trained again, unless `epochs` asks for more of them. Where
    the folder holds no run yet, one is begun, so a cell or script with `resume` may simply be run again.

    The order of the images is kept for datasets of `pipelines.load`. On other backends than TensorFlow an epoch that
    was interrupted is done again from its beginning.

    Args:
        run_folder: The one that `training.callbacks` or `training.resume` was given.
        **options: As for `training.callbacks`; those the run was begun with where not given.

    Returns:
        A list for `model.fit(callbacks=…)`.

    Raises:
        TypeError: If there is no such option.
        ValueError: When `fit` begins, if model, optimizer or data are not the run's, or no checkpoint is whole.

    Example:
        >>> history = model.fit(  # doctest: +SKIP
        ...     train_data, validation_data=val_data, epochs=20, callbacks=training.resume("../runs/first")
        ... )
    """
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise TypeError(f"`training.resume` expects the options {', '.join(OPTIONS)}. Received: {unknown[0]!r}.")
    folder = Path(run_folder)
    return _made(folder, OPTIONS | _noted(folder) | options, resume=True)


def _noted(folder: Path) -> dict[str, Any]:
    """The options that a run was begun with."""
    try:
        record = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: record[name] for name in OPTIONS if name in record}


def _made(folder: Path, options: dict[str, Any], *, resume: bool) -> list[keras.callbacks.Callback]:
    patience, monitor = options["patience"], options["monitor"]
    if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 1):
        raise ValueError(f"`patience` expects a number of epochs, 1 or more, or None. Received: {patience!r}.")
    result: list[keras.callbacks.Callback] = [
        Checkpoints(folder, resume=resume, left_behind=LEFT_BEHIND),
        EpochBar(),
        RunRecord(folder, options),
        BestModel(folder, monitor=monitor),
    ]
    if options["tensorboard"] and importlib.util.find_spec("tensorflow"):
        result.append(TensorBoard(folder / TENSORBOARD, write_graph=False))
    if patience is not None:
        result.append(keras.callbacks.EarlyStopping(monitor=monitor, patience=patience, restore_best_weights=True))
    return result


class EpochBar(keras.callbacks.Callback):
    """One bar for the whole training, with the latest numbers; silent in a run that nobody watches."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the bar."""
        from tqdm.auto import tqdm

        self.bar = tqdm(total=self.params.get("epochs"), desc="training", unit="epoch", disable=is_quiet(), leave=False)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """One epoch further."""
        self.bar.set_postfix({key: f"{value:.3f}" for key, value in (logs or {}).items() if "rate" not in key})
        self.bar.update()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the bar."""
        self.bar.close()


class RunRecord(keras.callbacks.Callback):
    """Writes `run.json` when training starts and one row of `history.csv` after each epoch."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        super().__init__()
        self.folder, self.options = folder, options
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes the folder and notes what is about to be trained, and by what; or that an earlier run goes on."""
        self.rows = []
        self.epoch_began = time.perf_counter()
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        note = self.folder / RUN
        if note.is_file():  # `Checkpoints` has put a run aside that does not go on
            record = json.loads(note.read_text(encoding="utf-8"))
            record.setdefault("resumed", []).append(now)
        else:
            record = {
                "started": now,
                **self.options,
                "fit": {key: self.params.get(key) for key in ("epochs", "steps")},
                "model": {"name": self.model.name, "parameters": self.model.count_params()},
                "compile": self.model.get_compile_config(),
                "backend": keras.backend.backend(),
                "python": platform.python_version(),
                "platform": platform.platform(),
                "packages": package_versions(),
            }
        with disk_watched(self.folder, "Nothing was trained yet."), atomic_path(note) as temporary:
            temporary.write_text(json.dumps(record, indent=1, default=str), encoding="utf-8")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the epoch's clock."""
        self.epoch_began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Rewrites the history as a whole, so that an interruption leaves complete rows."""
        seconds = round(time.perf_counter() - self.epoch_began, 3)
        self.rows.append(
            {"epoch": epoch} | {key: float(value) for key, value in (logs or {}).items()} | {"seconds": seconds}
        )
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with (
            disk_watched(self.folder, LAST_GOOD),
            atomic_path(self.folder / HISTORY) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's own, which also makes a summary of each batch and, where only epochs are asked for, writes it nowhere."""

    on_train_batch_begin = keras.callbacks.Callback.on_train_batch_begin
    on_train_batch_end = keras.callbacks.Callback.on_train_batch_end


class BestModel(keras.callbacks.Callback):
    """Saves the model of the best epoch as `best.keras`; written whole or not at all.

    Writing a model takes longer than some epochs do, so where it would cost too much its values are held in memory
    until there is time, at the latest when training ends.
    """

    def __init__(self, folder: Path, *, monitor: str) -> None:
        super().__init__()
        self.folder, self.monitor = folder, monitor
        self.best: float | None = None
        self.waiting: list[np.ndarray] | None = None
        self.budget = Budget(BEST_SHARE)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier run."""
        self.best = self.waiting = None
        self.budget = Budget(BEST_SHARE)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keeps this epoch if it is the best so far; without validation data the training value decides."""
        value = watched(logs or {}, self.monitor, argument="monitor")
        if is_better(self.monitor, value, self.best):
            self.best, self.waiting = value, values_of(self._variables())
        if self.waiting is not None and self.budget.allows():
            self._write(self.waiting)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Writes what waits."""
        if self.waiting is not None:
            self._write(self.waiting)

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]

    def _write(self, best: list[np.ndarray]) -> None:
        with self.budget.spent(), disk_watched(self.folder, LAST_GOOD):
            now = values_of(self._variables())
            assign(self._variables(), best)
            try:
                with atomic_path(self.folder / BEST) as temporary:
                    self.model.save(temporary)
            finally:
                assign(self._variables(), now)
        self.waiting = None


def watched(logs: dict[str, Any], name: str, *, argument: str) -> float:
    """The number called `name` that an epoch reported; without validation data, the training's own.

    Raises:
        ValueError: If training reports no such number; `argument` is what the person gave it as.
    """
    value = logs.get(name, logs.get(name.removeprefix("val_")))
    if value is None:
        raise ValueError(f"`{argument}` expects a number that training reports: {', '.join(logs)}. Received: {name!r}.")
    return float(value)


def is_better(monitor: str, value: float, best: float | None) -> bool:
    """Whether `value` improves on `best`: lower for losses and errors, higher for anything else."""
    if value != value:  # not a number
        return False
    lower_is_better = any(word in monitor for word in ("loss", "error", "entropy"))
    return best is None or (value < best if lower_is_better else value > best)


def package_versions() -> dict[str, str]:
    """Versions of the packages that can change a result."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions

"""What a run leaves behind: its configuration, its history, its best model."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab._common import atomic_path, is_quiet, is_whole, put_aside, read_json
from cnnlab.models.naming import is_built
from cnnlab.training.best import BEST, LAST_GOOD, BestModel, EarlyStopping, Watched, numbers
from cnnlab.training.callback_state import Fields
from cnnlab.training.checkpoint import FOLDER
from cnnlab.training.distributed import process_index
from cnnlab.training.resuming import Checkpoints
from cnnlab.training.running import disk_watched

PACKAGES = "cnnlab keras tensorflow jax numpy pandas scikit-learn pillow opencv-python-headless"  # can change a result
RUN = "run.json"
HISTORY = "history.csv"
TENSORBOARD = "tensorboard"
LEFT_BEHIND = (HISTORY, BEST, TENSORBOARD, RUN, FOLDER)
OPTIONS: dict[str, Any] = {"patience": None, "monitor": "val_loss", "mode": "auto", "seed": None, "tensorboard": True}
KINDS = {"patience": int, "monitor": str, "mode": str, "seed": int, "tensorboard": bool}


def callbacks(
    run_folder: str | os.PathLike[str],
    *,
    patience: int | None = None,
    monitor: str = "val_loss",
    mode: str = "auto",
    seed: int | None = None,
    tensorboard: bool = True,
) -> list[keras.callbacks.Callback]:
    """Plain Keras callbacks that keep a record of a run and, with `patience`, stop it early with its best weights.

    A bar counts the epochs where somebody watches, so `model.fit(verbose=0)` is not silent.
    `run.json` holds configuration, seed and package versions, `history.csv` one row an epoch ("nan" for a loss that
    was NaN, nothing for what was not measured), `best.keras` the model of the best epoch, `tensorboard/` the same
    curves for TensorBoard, and `checkpoint/` what `training.resume` needs to go on exactly where the run was stopped.
    Files of an earlier run in the same folder are moved to `earlier/`, never deleted. While training, the best model is
    written as often as it costs next to no time; at the end it is there, unless no epoch had a loss that is a number. A
    loss that is none ends training, with the best weights back in the model. Plain Keras loads `best.keras`, whatever
    loss it was trained with.

    One process at a time trains in a folder. Where several workers train together, the first writes into `run_folder`
    and the others into `worker_1`, `worker_2` … in it.

    Args:
        run_folder: Where to; made if it does not exist.
        patience: Stop after so many epochs without improvement and go back to the best weights. None trains all epochs.
            Only epochs that were validated count.
        monitor: What improvement is measured by: "val_loss", "val_accuracy", "loss" … Without validation data the
            training's own number stands in.
        mode: Whether less ("min") or more ("max") of it is better; "auto" leaves that to Keras, which knows its own
            metrics.
        seed: Noted in `run.json`.
        tensorboard: Whether to log for TensorBoard.

    Returns:
        A list for `model.fit(callbacks=…)`; add your own to it. Numbers, arrays and lists or dicts of them that they
        gather are kept for `training.resume`; text is not, as it may name a file.

    Raises:
        ValueError: If `patience` is below 1 or `mode` is none; when `fit` begins, if the folder holds links, two rules
            set the learning rate, its schedule is over, or the data never end.
        TimeoutError: When `fit` begins, if another process trains in the folder.

    Example:
        >>> [type(callback).__name__ for callback in callbacks("runs/first", patience=5, tensorboard=False)]
        ['Checkpoints', 'EpochBar', 'RunRecord', 'BestModel', 'EarlyStopping']
    """
    options = {"patience": patience, "monitor": monitor, "mode": mode, "seed": seed, "tensorboard": tensorboard}
    return _callbacks(_own_folder(Path(run_folder).expanduser()), options, resume=False)


def resume(run_folder: str | os.PathLike[str], **options: Any) -> list[keras.callbacks.Callback]:
    """The callbacks of a run that was interrupted: with them, `model.fit` goes on where it stopped, bit for bit.

    Build and compile the model and load the data as before, then call `fit` as before, with these callbacks. Weights,
    optimizer, epoch and step, the memory of all callbacks, history, order of the data and random state are those of
    the last checkpoint, so that on a CPU the end is the one that the run would have had by itself. Killed, crashed,
    switched off: all the same. A run that is over is not trained again, unless `epochs` or `patience` ask for more.
    Where the folder holds no run yet, one is begun, so a cell or script with `resume` may simply be run again.

    The order of the images is kept for datasets of `pipelines.load`. On other backends than TensorFlow an epoch that
    was interrupted is done again from its beginning.

    Args:
        run_folder: The one that `training.callbacks` or `training.resume` was given.
        **options: As for `training.callbacks`; those the run was begun with where not given.

    Returns:
        A list for `model.fit(callbacks=…)`.

    Raises:
        TypeError: If there is no such option.
        ValueError: When `fit` begins, if model, optimizer, data, labels, class weights or steps are not the run's, or
            no checkpoint is whole.

    Example:
        >>> history = model.fit(  # doctest: +SKIP
        ...     train_data, validation_data=val_data, epochs=20, callbacks=training.resume("../runs/first")
        ... )
    """
    for name in options:
        if name not in OPTIONS:
            raise TypeError(f"`training.resume` expects the options {', '.join(OPTIONS)}. Received: {name!r}.")
    folder = _own_folder(Path(run_folder).expanduser())
    record = _read_record(folder)
    begun_with = {name: record[name] for name, kind in KINDS.items() if type(record.get(name)) is kind}
    return _callbacks(folder, OPTIONS | begun_with | options, resume=True)


def _read_record(folder: Path) -> dict[str, Any]:
    """What `run.json` says; empty where it says nothing that can be understood."""
    try:
        record = read_json(folder / RUN)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _own_folder(folder: Path) -> Path:
    """Where this process writes, of several that train together."""
    return folder / f"worker_{process_index()}" if process_index() else folder


def _callbacks(folder: Path, options: dict[str, Any], *, resume: bool) -> list[keras.callbacks.Callback]:
    options |= {name: int(value) for name, value in options.items() if is_whole(value, least=0)}  # as JSON has them
    patience, monitor, mode = options["patience"], options["monitor"], options["mode"]
    if patience is not None and not is_whole(patience):
        raise ValueError(f"`patience` expects a number of epochs, 1 or more, or None. Received: {patience!r}.")
    result: list[keras.callbacks.Callback] = [
        Checkpoints(folder, resume=resume, left_behind=LEFT_BEHIND),
        EpochBar(),
        RunRecord(folder, options),
        BestModel(folder, Watched(monitor, mode)),
    ]
    if options["tensorboard"] and importlib.util.find_spec("tensorflow"):
        result.append(TensorBoard(folder / TENSORBOARD, write_graph=False))
    if patience is not None:
        result.append(EarlyStopping(Watched(monitor, mode), patience=patience))
    return result


class EpochBar(keras.callbacks.Callback):
    """One bar for the whole training, with the latest numbers; silent in a run that nobody watches."""

    bar: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens a bar for this training."""
        from tqdm.auto import tqdm

        self.on_train_end()  # of a training that an error or an interruption ended
        self.bar = tqdm(desc="training", total=self.params["epochs"], unit="epoch", leave=False, disable=is_quiet())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the epoch; those before it, too, where a run goes on."""
        self.bar.set_postfix(numbers(logs), refresh=False)
        self.bar.update(epoch + 1 - self.bar.n)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the bar away."""
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"bar": None}  # which holds locks, and cannot be copied


class RunRecord(keras.callbacks.Callback):
    """Writes `run.json` when training starts and one row of `history.csv` after each epoch."""

    remembered: ClassVar[Fields] = {"rows": "rows"}

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        super().__init__()
        self.folder, self.options = folder, options
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes the folder and notes what is about to be trained, and by what; or that an earlier run goes on."""
        self.rows = []
        self.epoch_began = time.perf_counter()
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        record = _read_record(self.folder)
        if record and isinstance(record.setdefault("resumed", []), list):  # runs that do not go on are put aside by now
            record["resumed"].append(now)
        else:
            # A network in Python code makes its weights when it sees the first images.
            parameters = self.model.count_params() if is_built(self.model) else None
            record = {
                "started": now,
                **self.options,
                "fit": {key: self.params.get(key) for key in ("epochs", "steps")},
                "model": {"name": self.model.name, "parameters": parameters},
                "compile": self.model.get_compile_config(),
                "backend": keras.backend.backend(),
                "python": platform.python_version(),
                "platform": platform.platform(),
                "packages": _package_versions(),
            }
            put_aside(self.folder, [RUN])
        with disk_watched(self.folder, "Nothing was trained yet."), atomic_path(self.folder / RUN) as temporary:
            temporary.write_text(json.dumps(record, indent=1, default=str), encoding="utf-8")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the epoch's clock."""
        self.epoch_began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Rewrites the history as a whole, so that an interruption leaves complete rows."""
        seconds = round(time.perf_counter() - self.epoch_began, 3)
        self.rows.append({"epoch": epoch} | numbers(logs) | {"seconds": seconds})
        with disk_watched(self.folder, LAST_GOOD), atomic_path(self.folder / HISTORY) as temporary:
            # NaN is not the same as what was not measured, whose cell stays empty.
            rows = [{key: "nan" if value != value else value for key, value in row.items()} for row in self.rows]
            pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's own, which also makes a summary of each batch and, where only epochs are asked for, writes it nowhere."""

    on_train_batch_begin = keras.callbacks.Callback.on_train_batch_begin
    on_train_batch_end = keras.callbacks.Callback.on_train_batch_end

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes plain numbers only."""
        super().on_epoch_end(epoch, numbers(logs))

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes plain numbers only."""
        super().on_test_end(numbers(logs))


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES.split():
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions

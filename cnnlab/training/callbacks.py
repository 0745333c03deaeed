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

from cnnlab._common import atomic_path, is_quiet, put_aside

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
    of the best epoch, `tensorboard/` the same curves for TensorBoard. Files of an earlier run in the same folder are
    moved to `earlier/`, never deleted.

    Args:
        run_folder: Where to; made if it does not exist.
        patience: Stop after so many epochs without improvement and go back to the best weights. None trains all epochs.
        monitor: What improvement is measured by: "val_loss", "val_accuracy", "loss" …
        seed: Noted in `run.json`.
        tensorboard: Whether to log for TensorBoard.

    Returns:
        A list for `model.fit(callbacks=…)`.

    Raises:
        ValueError: If `patience` is below 1.

    Example:
        >>> [type(callback).__name__ for callback in callbacks("runs/first", patience=5, tensorboard=False)]
        ['EpochBar', 'RunRecord', 'BestModel', 'EarlyStopping']
    """
    if patience is not None and (isinstance(patience, bool) or not isinstance(patience, int) or patience < 1):
        raise ValueError(f"`patience` expects a number of epochs, 1 or more, or None. Received: {patience!r}.")
    folder = Path(run_folder)
    result: list[keras.callbacks.Callback] = [
        EpochBar(),
        RunRecord(folder, monitor=monitor, seed=seed),
        BestModel(folder, monitor=monitor),
    ]
    if tensorboard and importlib.util.find_spec("tensorflow"):
        result.append(keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False))
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

    def __init__(self, folder: Path, *, monitor: str, seed: int | None) -> None:
        super().__init__()
        self.folder, self.monitor, self.seed = folder, monitor, seed
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes the folder and notes what is about to be trained, and by what."""
        if (self.folder / RUN).exists():
            put_aside(self.folder, [HISTORY, BEST, "tensorboard", RUN])
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows = []
        self.epoch_began = time.perf_counter()
        record = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seed": self.seed,
            "monitor": self.monitor,
            "fit": {key: self.params.get(key) for key in ("epochs", "steps")},
            "model": {"name": self.model.name, "parameters": self.model.count_params()},
            "compile": self.model.get_compile_config(),
            "backend": keras.backend.backend(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": package_versions(),
        }
        with atomic_path(self.folder / RUN) as temporary:
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
        with atomic_path(self.folder / HISTORY) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


class BestModel(keras.callbacks.Callback):
    """Saves the model as `best.keras` whenever the monitored number improves; written whole or not at all."""

    def __init__(self, folder: Path, *, monitor: str) -> None:
        super().__init__()
        self.folder, self.monitor = folder, monitor
        self.best: float | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier run."""
        self.best = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves where this epoch is the best so far; without validation data the training value decides."""
        logs = logs or {}
        value = logs.get(self.monitor, logs.get(self.monitor.removeprefix("val_")))
        if value is None:
            raise ValueError(
                f"`monitor` expects a number that training reports: {', '.join(logs)}. Received: {self.monitor!r}."
            )
        if is_better(self.monitor, float(value), self.best):
            self.best = float(value)
            with atomic_path(self.folder / BEST) as temporary:
                self.model.save(temporary)


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

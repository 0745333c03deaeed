"""Exact resume: a run that was stopped at any moment goes on as if it had not been."""

import logging
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

from cnnlab import pipelines
from cnnlab._common import put_aside
from cnnlab.training import checkpoint as checkpoints
from cnnlab.training.memory import Memory
from cnnlab.training.running import Budget, Fit, disk_watched, fit_around

CHECKPOINT_SHARE = 0.005  # of the time may go into checkpoints
logger = logging.getLogger("cnnlab")


class Checkpoints(keras.callbacks.Callback):
    """Keeps all that training needs to go on; the first in the list, so that it sees what the others made of an epoch.

    A checkpoint is taken before an epoch, and within one before a step, whenever the last one's cost is small beside
    the time that went by since.

    Args:
        folder: Of the run.
        resume: Whether a run that is there goes on; otherwise it is moved aside.
        left_behind: Names of what a run leaves in its folder.
    """

    def __init__(self, folder: Path, *, resume: bool, left_behind: tuple[str, ...]) -> None:
        super().__init__()
        self.folder, self.resume, self.left_behind = folder, resume, left_behind
        self.budget = Budget(CHECKPOINT_SHARE)
        self.found: checkpoints.Checkpoint | None = None
        self.fit: Fit
        self.memory: Memory | None = None

    # Beginning

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts an earlier run aside, or gives the model what the run's last checkpoint holds."""
        self.fit, self.memory, self.found = fit_around(self), None, None
        self.feed = getattr(self.fit.data, "_cnnlab_feed", None)
        self.begun = (0, 0)  # epoch and step that come next
        self.skipped = 0
        self.budget = Budget(self.budget.share)
        if self.resume:
            self.found = checkpoints.read(self.folder)
        if self.found is None and any((self.folder / name).exists() for name in self.left_behind):
            put_aside(self.folder, self.left_behind)
        if self.found is not None:
            self._check_data(self.found.facts["data"])
            checkpoints.put_into(self.model, self.found, self.folder, "model", "optimizer")
            over = self.found.facts["over"]
            self.model._initial_epoch = self.params["epochs"] if over else self.found.facts["epoch"]

    def _check_data(self, facts: dict[str, Any] | None) -> None:
        if facts is None or self.feed is None:
            logger.warning(
                "The run in %s goes on, but not exactly: the order of its images is kept only for the very dataset "
                "that `pipelines.load` returns.",
                self.folder,
            )
            return
        self.feed.seed = facts["seed"]  # drawn anew where the person named none
        here = self._data_facts() or {}
        if here != facts:
            changed = ", ".join(f"{key} was {facts[key]}, is {here[key]}" for key in facts if facts[key] != here[key])
            raise ValueError(
                f"`training.resume` expects the data that the run in {str(self.folder)!r} was begun with. Received "
                f"other data: {changed}. Load it as before, or begin anew with `training.callbacks`; "
                "`keras.models.load_model` gives you the network of `best.keras` to train further on other data."
            )

    def _data_facts(self) -> dict[str, Any] | None:
        if self.feed is None:
            return None
        policy = None if self.feed.policy is None else repr(self.feed.policy)
        return {
            "seed": self.feed.seed,
            "images": len(self.feed.paths),
            "batch_size": self.feed.batch_size,
            "image_size": list(self.feed.image_size),
            "augment": policy,
            "balance": self.feed.balance,
        }

    # Epochs and steps

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Makes the order of the data that of the epoch; takes a checkpoint, or goes on from the one that was found."""
        self.begun, self.skipped = (epoch, 0), 0
        if self.memory is None:
            self._remember()
            if self.found is not None and self.found.facts["step"]:
                self._go_on_within(epoch, self.found.facts["step"], self.found)
                return
        elif self.budget.allows():
            self._write()
        if self.feed is not None:
            pipelines.set_epoch(self.fit.data, epoch)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes a checkpoint within an epoch that lasts."""
        self.begun = (self.begun[0], batch)
        if batch > self.skipped and self._can_stop_within() and self.budget.allows():
            self._write()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the last checkpoint, before others go back to the best weights."""
        self.model._initial_epoch = None
        if self.memory is None:  # nothing was left to do
            self._remember()
        elif not averages_weights(self.model.optimizer) and not self._cut_short():
            # With a moving average Keras has already put the averages in place of the weights that training needs.
            self.begun = (self.begun[0] + 1, 0)
            self._write()

    def _remember(self) -> None:
        self.model._initial_epoch = None
        self.memory = Memory([one for one in self.fit.callbacks if one is not self])
        if self.found is not None:
            absent = self.memory.give_back(self.found.facts["callbacks"], self.found.arrays)
            if absent:
                logger.warning(
                    "The run in %s had callbacks that are missing now: %s. It goes on without what they remembered.",
                    self.folder, ", ".join(name.rsplit(" ", 1)[0] for name in absent),
                )  # fmt: skip

    def _cut_short(self) -> bool:
        """Whether the last epoch was left in the middle: it is then to be done again from the last checkpoint."""
        steps = self.params.get("steps")
        return bool(steps) and self.begun[1] + self.model.steps_per_execution < steps

    def _can_stop_within(self) -> bool:
        return self.feed is not None and keras.backend.backend() == "tensorflow"

    def _write(self) -> None:
        epoch, step = self.begun
        assert self.memory is not None
        with self.budget.spent(), disk_watched(self.folder, f"The checkpoint before epoch {epoch + 1} is whole."):
            memory, arrays = self.memory.taken()
            facts = {
                "epoch": epoch,
                "step": step,
                "over": any(getattr(callback, "stopped_epoch", 0) > 0 for callback in self.fit.callbacks),
                "data": self._data_facts(),
                "callbacks": memory,
            }
            taken = checkpoints.taken_from(self.model, facts)
            checkpoints.write(self.folder, checkpoints.Checkpoint(taken.facts, taken.arrays | arrays))

    def _go_on_within(self, epoch: int, step: int, found: checkpoints.Checkpoint) -> None:
        """Lets Keras count the steps that were done without doing them, then feeds it the rest of the epoch."""
        model = self.model
        rest = pipelines.rest(self.fit.data, epoch=epoch, step=step)
        model._symbolic_build(data_batch=next(iter(rest)))  # makes the metrics' variables, which are to be filled
        checkpoints.put_into(model, found, self.folder, "model", "optimizer", "metric")
        plain, batches, this_epoch, done = model.train_function, iter(rest), None, 0
        self.skipped = step

        def train_function(iterator: Any) -> Any:
            nonlocal this_epoch, done
            this_epoch = iterator if this_epoch is None else this_epoch
            if iterator is not this_epoch:  # the next epoch, or another `fit` after an interruption
                model.train_function = plain
                return plain(iterator)
            if done < step:
                done += model.steps_per_execution
                return model.get_metrics_result()
            return plain(batches)

        model.train_function = train_function


def averages_weights(optimizer: Any) -> bool:
    """Whether the optimizer keeps a moving average of the weights, and puts it in their place at the end."""
    inner = getattr(optimizer, "inner_optimizer", None)
    parts = [optimizer, *([inner] if inner is not None else []), *getattr(optimizer, "optimizers", [])]
    return any(getattr(part, "use_ema", False) for part in parts)

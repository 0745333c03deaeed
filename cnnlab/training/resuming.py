"""Exact resume: a run that was stopped at any moment goes on as if it had not been."""

import contextlib
import hashlib
import json
import logging
import os
import re
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab import pipelines
from cnnlab._common import in_threads, put_aside
from cnnlab._upstream import Fit, begin_at_epoch, build_for_training, fit_around, optimizers_in
from cnnlab.models.fingerprint import describe, layers_digest
from cnnlab.models.naming import is_built
from cnnlab.training import checkpoint as checkpoints
from cnnlab.training.batches import source_of
from cnnlab.training.callback_state import Memory
from cnnlab.training.running import Budget, disk_watched, leave_folder, own_folder
from cnnlab.training.schedules import refuse_two_rules, refuse_what_is_over

CHECKPOINT_SHARE = 0.005  # of the time may go into checkpoints
ADDED = ("code of augment", "file sizes")  # what older checkpoints do not say
logger = logging.getLogger("cnnlab")


class Checkpoints(keras.callbacks.Callback):
    """Keeps all that training needs to go on; the first in the list, so that it sees what the others made of an epoch.

    A checkpoint is taken before an epoch, and within one before a step, whenever the last one's cost is small compared
    with the time that went by since. A run that is in `folder` goes on with `resume`; else the names `left_behind` by
    it are moved aside.
    """

    fit: Fit
    found: checkpoints.Checkpoint | None
    memory: Memory | None

    def __init__(self, folder: Path, *, resume: bool, left_behind: tuple[str, ...]) -> None:
        super().__init__()
        self.folder, self.resume, self.left_behind = folder, resume, left_behind
        self.budget = Budget(CHECKPOINT_SHARE)

    # Beginning

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts an earlier run aside, or gives the model what the run's last checkpoint holds."""
        self.fit, self.memory, self.found = fit_around(self), None, None
        self.data = self.fit.arguments.get("x")
        # With `steps_per_epoch` a pass over the data goes on across epochs. The images of every step follow from its
        # number then where the data begin again, and otherwise where an epoch is a pass.
        self.passes_follow = bool(self.fit.arguments.get("steps_per_epoch"))
        begun_again = hasattr(self.data, "_cnnlab_begun_again") and keras.backend.backend() == "tensorflow"
        self.source: Any = source_of(self.data) if begun_again or not self.passes_follow else None
        self.steps = self.params.get("steps")
        self.begun = (0, 0)  # epoch and step that come next
        self.skipped = 0
        self.budget = Budget(self.budget.share)
        cardinality = getattr(self.data, "cardinality", None)
        if self.steps is None and callable(cardinality) and int(cardinality()) == -1:
            raise ValueError(
                "Expected data that end, or `steps_per_epoch`. Received a dataset that goes on for ever, with which "
                "the first epoch would never be over: call `fit(…, steps_per_epoch=…)`."
            )
        refuse_two_rules(self.model.optimizer, self.fit.callbacks)
        own_folder(self.folder, self.left_behind)
        try:
            self._begin()
        except BaseException:
            leave_folder(self.folder)
            raise

    def _begin(self) -> None:
        self.optimizer = _settings(self.model.optimizer) | _learning(self.model)
        self.file_sizes = _sizes(self.data, self._validation()[0])
        if self.resume:
            if not is_built(self.model) and self.data is not None:  # its variables are made when it sees images
                self.model(self.data[:1] if hasattr(self.data, "shape") else next(iter(self.data))[0])
            self.found = checkpoints.read(self.folder, self.model)
        if self.found is None:
            refuse_what_is_over(self.model.optimizer, epochs=self.params["epochs"], steps=self.steps)
            put_aside(self.folder, self.left_behind)
        else:
            checkpoints.values_for(self.model, self.found, self.folder, "model")
            self._check_same(self.found.facts)
            checkpoints.put_into(self.model, self.found, self.folder, "model", "optimizer")
            over = self.found.facts["over"] and self._stays_over(self.found.facts["callbacks"])
            epoch = self.params["epochs"] if over else self.found.facts["epoch"]
            done = self.found.facts["step"] if self.source is not None and not over else 0
            left = self.params["epochs"] - epoch
            refuse_what_is_over(self.model.optimizer, epochs=left, steps=self.steps, done=done)
            begin_at_epoch(self.model, epoch)
        self.facts = self._data_facts()
        self.network = layers_digest(self.model, trainable=False) if is_built(self.model) else ""

    def _stays_over(self, memory: dict[str, Any]) -> bool:
        """Whether patience is used up for what it is now, too."""
        stoppers = [one for one in self.fit.callbacks if type(one).__name__ == "EarlyStopping"]
        for index, one in enumerate(stoppers):
            known = memory.get(f"EarlyStopping {index}", {})
            wait = known.get("wait") if known.get("monitor") == one.monitor else None
            if isinstance(wait, int) and wait >= one.patience:
                return True
        return False

    def _check_same(self, facts: dict[str, Any]) -> None:
        """Refuses to go on with something else than the run was begun with."""
        seed = facts["data"].get("seed")
        if self.source is not None and isinstance(seed, int) and 0 <= seed < 2**63:
            if self.source.given_seed is not None and self.source.seed != seed:
                logger.warning(
                    "The run in %s goes on with the seed of its data, %s, not with %s.",
                    self.folder,
                    seed,
                    self.source.seed,
                )
            self.source.seed = seed
        layers = layers_digest(self.model, trainable=False)
        pairs = {"data": (self._data_facts(), facts["data"]), "optimizer": (self.optimizer, facts["optimizer"])}
        pairs["network"] = {"layers": layers}, {"layers": facts.get("network", layers)}
        for what, (here, there) in pairs.items():
            changed = [key for key in {**there, **here} if here.get(key) != there.get(key)]
            changed = [key for key in changed if key in there or key not in ADDED]
            if "file sizes" in changed:
                changed.remove("file sizes")
                logger.warning("The run in %s goes on with files of other sizes. Are the images the same?", self.folder)
            kinds = {key.partition(" ")[0] for key in changed}
            if kinds == {"learning_rate"} and int(self.model.optimizer.iterations):
                continue  # training has changed it, in this process
            if kinds == {"schedule"} and all(here.get(key) and there.get(key) for key in changed):
                logger.warning("The run in %s goes on with another learning-rate schedule than before.", self.folder)
                continue
            if changed:
                what = " and ".join(changed) if {"loss", "precision"}.issuperset(changed) else what
                raise ValueError(
                    f"`training.resume` expects the same {what} as the run in {str(self.folder)!r} was begun with. "
                    f"Received other {what}: "
                    + ", ".join(f"{key} was {there.get(key)!s:.80}, is {here.get(key)!s:.80}" for key in changed)
                    + ". Go on as before, or begin anew with `training.callbacks`; `keras.models.load_model` gives you "
                    "the network of `best.keras` to train further in another way."
                )
        if self.source is None:
            logger.warning(
                "The run in %s goes on, but not exactly: the order of its images is kept only for the very dataset "
                "that `pipelines.load` returns.", self.folder,
            )  # fmt: skip

    def _data_facts(self) -> dict[str, Any]:
        """What must be the same when the run goes on."""
        given = self.fit.arguments
        facts = {"steps per epoch": self.steps} | _examples(self.data, given.get("y"))
        if weights := given.get("class_weight"):
            facts["class_weight"] = {str(key): float(weights[key]) for key in sorted(weights)}
        facts["sample_weight"] = _digest_of(given.get("sample_weight"))
        found, left_out = _examples(*self._validation()), ("seed", "batch_size", *ADDED)
        validation = {key: value for key, value in found.items() if key not in left_out}
        facts["validation data"] = _digest(json.dumps(validation, default=int).encode())
        return facts | {"file sizes": self.file_sizes}

    def _validation(self) -> tuple[Any, Any]:
        """Images and labels of `validation_data`."""
        held_out = self.fit.arguments.get("validation_data")
        return (*held_out, None)[:2] if isinstance(held_out, tuple | list) else (held_out, None)

    # Epochs and steps

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Makes the order of the data that of the epoch; takes a checkpoint, or goes on from the one that was found."""
        self.begun, self.skipped, first = (epoch, 0), 0, self.memory is None
        if first:
            self._remember()
            step = self.found.facts["step"] if self.found is not None else 0
            if self.found is not None and self.source is not None and (step or self._place(epoch, step)[1]):
                self._go_on_within(epoch, step, self.found)
                return
        elif self.budget.allows():
            self._write()
        if self.source is not None and (first or not self.passes_follow):
            pipelines.set_epoch(self.data, self._place(epoch, 0)[0])

    def _place(self, epoch: int, step: int) -> tuple[int, int]:
        """Which pass over the data a step belongs to, and where in it."""
        return divmod(epoch * self.steps + step, len(self.source)) if self.passes_follow else (epoch, step)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes a checkpoint within an epoch that lasts."""
        self.begun = (self.begun[0], batch)
        if batch > self.skipped and self._can_stop_within() and self.budget.allows():
            self._write()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the last checkpoint, before others go back to the best weights."""
        begin_at_epoch(self.model, None)
        # Left in the middle, the last epoch is to be done again from the last checkpoint.
        cut_short = self.steps and self.begun[1] + self.model.steps_per_execution < self.steps
        if self.memory is None:  # nothing was left to do
            self._remember()
        elif not cut_short and np.isfinite(np.asarray((logs or {}).get("loss", 0.0), dtype=float)).all():
            averages = any(getattr(one, "use_ema", False) for one in optimizers_in(self.model.optimizer))
            self.begun = (self.begun[0] + 1, 0)
            if not averages:  # of weights, which Keras has put in place of those that training needs by now
                self._write()
        self.fit, self.data, self.source, self.memory = Fit([], {}), None, None, None  # lets go of the data
        leave_folder(self.folder)

    def _remember(self) -> None:
        begin_at_epoch(self.model, None)
        self.memory = Memory([one for one in self.fit.callbacks if one is not self], self.model)
        if self.found is None:
            return
        try:
            left = self.memory.give_back(self.found.facts["callbacks"], self.found.arrays)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"Expected the memory of callbacks in the checkpoint of {str(self.folder)!r}. Received something else: "
                f"{error}. Begin anew with `training.callbacks`."
            ) from error
        if left:
            logger.warning(
                "The run in %s goes on without what some callbacks remembered: %s.", self.folder, "; ".join(left)
            )

    def _can_stop_within(self) -> bool:
        return self.source is not None and keras.backend.backend() == "tensorflow"

    def _write(self) -> None:
        epoch, step = self.begun
        assert self.memory is not None
        with self.budget.spent(), disk_watched(self.folder, f"The checkpoint before epoch {epoch + 1} is whole."):
            memory, arrays = self.memory.taken()
            self.network = self.network or layers_digest(self.model, trainable=False)  # it may be built only now
            facts = {
                "epoch": epoch,
                "step": step,
                "over": any(getattr(callback, "stopped_epoch", 0) > 0 for callback in self.fit.callbacks),
                "data": self.facts,
                "optimizer": self.optimizer,
                "network": self.network,
                "callbacks": memory,
            }
            taken = checkpoints.taken_from(self.model, facts)
            checkpoints.write(self.folder, checkpoints.Checkpoint(taken.facts, taken.arrays | arrays))

    def _go_on_within(self, epoch: int, step: int, found: checkpoints.Checkpoint) -> None:
        """Lets Keras count the steps that were done without doing them, then feeds it the rest."""
        model = self.model
        number, within = self._place(epoch, step)
        rest = pipelines.rest(self.data, epoch=number, step=within)
        rest = rest.concatenate(self.data) if self.passes_follow else rest
        build_for_training(model, next(iter(rest)))  # the metrics' variables are to be filled
        checkpoints.put_into(model, found, self.folder, "model", "optimizer", *(["metric"] if step else []))
        pipelines.set_epoch(self.data, number + 1)
        plain, batches, this_epoch, done = model.train_function, iter(rest), None, 0
        self.skipped = step

        def train_function(iterator: Any) -> Any:
            nonlocal this_epoch, done
            this_epoch = iterator if this_epoch is None else this_epoch
            if iterator is not this_epoch:  # the next epoch, or another `fit` after an interruption
                model.train_function = plain
                return plain(iterator)
            at_once = model.steps_per_execution
            done += at_once
            if done <= step:
                return model.get_metrics_result()
            if done - step < at_once:  # it was saved within what is one execution now
                return plain(islice(batches, done - step))
            return plain(batches)

        model.train_function = train_function


def _examples(data: Any, labels: Any) -> dict[str, Any]:
    """What is known of images and labels: of those of `pipelines.load` how they are prepared, of arrays the labels."""
    facts: dict[str, Any] = {}
    source = source_of(data)
    if source is not None:
        labels = source.codes
        facts = {
            "seed": source.seed,
            "images": len(source.paths),
            "batch_size": source.batch_size,
            "preparation": repr(source.preparation),
            "augment": None if source.policy is None else re.sub(" at 0x[0-9a-fA-F]+", "", repr(source.policy)),
            "code of augment": describe(getattr(source.policy, "function", None)),
            "balance": source.balance,
            "files": _digest("\n".join(Path(path).name for path in source.paths).encode()),
        }
    return facts | ({"labels": _digest_of(labels)} if hasattr(labels, "shape") else {})


def _sizes(*data: Any) -> str:
    """A digest of how large the files of datasets are: mostly others where pictures of the same names are, unread."""
    paths = [path for one in data for path in getattr(source_of(one), "paths", ())]
    parts = [paths[start : start + 1000] for start in range(0, len(paths), 1000)]
    return _digest(repr(in_threads(lambda part: [_size(path) for path in part], parts)).encode())


def _size(path: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        return os.stat(path).st_size  # noqa: PTH116  (making a Path takes four times as long)
    return -1


def _learning(model: keras.Model) -> dict[str, Any]:
    """What decides how a network learns, apart from its weights and the rest of the optimizer."""
    with warnings.catch_warnings(action="ignore"):  # of a function without a name, which is only looked at
        loss = (model.get_compile_config() or {}).get("loss")
    precisions = sorted({layer.dtype_policy.name for layer in [model, *model.layers]})
    return {"loss": json.dumps(_nameless(loss), default=str, sort_keys=True), "precision": ", ".join(precisions)}


def _digest_of(values: Any) -> str | None:
    if not hasattr(values, "shape"):
        return None
    return _digest(np.ascontiguousarray(keras.ops.convert_to_numpy(values)).tobytes())


def _settings(optimizer: Any) -> dict[str, Any]:
    """What an optimizer and those within it were made with, as plain values; schedules apart from the rest."""
    found: dict[str, Any] = {}
    for number, one in enumerate(optimizers_in(optimizer)):
        settings = json.loads(json.dumps(keras.saving.serialize_keras_object(one), default=str))
        config = {"optimizer": settings.get("class_name"), **_nameless(settings.get("config", {}))}
        config.pop("inner_optimizer", None)  # which comes next
        config.pop("optimizer_map", None)  # goes by the names of weights, which Keras counts up
        if isinstance(config.get("learning_rate"), dict):
            config["schedule"] = config.pop("learning_rate")
        found |= {f"{key} {number}" if number else key: value for key, value in config.items()}
    return found


def _nameless(value: Any) -> Any:
    """Without the names of optimizers, which Keras counts up."""
    if isinstance(value, list):
        return [_nameless(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _nameless(item) for key, item in value.items() if key not in ("name", "shared_object_id")}


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()

"""Checkpoints: all that training needs to go on as if it had never stopped, in one file that is whole or not used.

A file is numpy's own `npz`, whose parts have check sums. Two are kept, the latest and the one before.
"""

import io
import json
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._common import atomic_path, read_arrays
from cnnlab.training.state import assign, random_state, set_random_state, values_of

FOLDER = "checkpoint"
LATEST, PREVIOUS = "latest.ckpt", "previous.ckpt"
COPIES = 12  # of the model that a checkpoint may hold: optimizer, callbacks' best weights …
SPARE = 2**27  # bytes beside them
logger = logging.getLogger("cnnlab")


class Checkpoint(NamedTuple):
    """What is kept of a run.

    Attributes:
        facts: Plain values: epoch, step, over, data, optimizer, network, random, and the callbacks' memory with arrays
            replaced by their name.
        arrays: `model_0`, `optimizer_0`, `metric_0` …, in the order of the variables, and `callback_0` ….
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint into `folder/checkpoint`; the latest one becomes the one before."""
    buffer = io.BytesIO()
    named = checkpoint.facts | {"arrays": sorted(checkpoint.arrays)}  # a damaged list of contents may leave some out
    facts = np.frombuffer(json.dumps(named, default=int).encode(), np.uint8)
    np.savez(buffer, facts=facts, **checkpoint.arrays)  # type: ignore[arg-type]
    latest, previous = (folder / FOLDER / name for name in (LATEST, PREVIOUS))
    with atomic_path(latest) as temporary:
        with temporary.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if latest.exists():
            latest.replace(previous)


def read(folder: Path, model: keras.Model) -> Checkpoint | None:
    """The latest whole checkpoint of a run, or None where there is none; `model`, built, says how large it can be."""
    paths = [folder / FOLDER / name for name in (LATEST, PREVIOUS)]
    for path in filter(Path.is_dir, paths):
        raise ValueError(f"Expected a checkpoint. {str(path)!r} is a folder, so none can be written there. Remove it.")
    there = [path for path in paths if path.exists() or path.is_symlink()]
    limit = SPARE + COPIES * 4 * model.count_params()
    for path in there:
        try:
            return _read_file(path, limit)
        except Exception as error:  # whatever numpy, zipfile and json raise on what somebody made up
            logger.warning("%s is damaged or was cut off (%s); the checkpoint before it is used.", path, error)
    if there:
        raise ValueError(
            f"Expected a whole checkpoint in {str(folder / FOLDER)!r}. Received only damaged ones: "
            f"{', '.join(path.name for path in there)}. Begin anew with `callbacks=training.callbacks(…)`; "
            "`best.keras` in the run's folder holds the best epoch so far."
        )
    return None


def _read_file(path: Path, limit: int) -> Checkpoint:
    if path.is_symlink():
        raise ValueError("it is a link")
    arrays = read_arrays(path, limit=limit)
    facts = _checked(json.loads(arrays.pop("facts").tobytes()))
    if facts.pop("arrays", None) != sorted(arrays):
        raise ValueError("parts of it are missing")
    return Checkpoint(facts, arrays)


def _checked(facts: Any) -> dict[str, Any]:
    """The facts, where each is of the type it must be."""
    kinds = {"epoch": int, "step": int, "over": bool}
    kinds |= dict.fromkeys(("data", "optimizer", "random", "callbacks"), dict)
    right = isinstance(facts, dict) and all(type(facts.get(key)) is kind for key, kind in kinds.items())
    right = right and 0 <= facts["epoch"] < 2**31 and 0 <= facts["step"] < 2**31
    if not right or not all(isinstance(one, dict) for one in facts["callbacks"].values()):
        raise ValueError("its facts are none")
    return facts


def variables_of(model: keras.Model) -> dict[str, list[Any]]:
    """All that a training step may change, by kind; the model's own includes the generators of dropout and the like."""
    return {"model": model.variables, "optimizer": model.optimizer.variables, "metric": model.metrics_variables}


def taken_from(model: keras.Model, facts: dict[str, Any]) -> Checkpoint:
    """A checkpoint of the model as it is now."""
    arrays = {
        f"{kind}_{index}": value
        for kind, variables in variables_of(model).items()
        for index, value in enumerate(values_of(variables))
    }
    return Checkpoint(facts | {"random": random_state()}, arrays)


def put_into(model: keras.Model, checkpoint: Checkpoint, folder: Path, *kinds: str) -> None:
    """Gives variables of these kinds the values of a checkpoint, and random state as it was."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    wanted = {kind: values_for(model, checkpoint, folder, kind) for kind in kinds}
    for kind, values in wanted.items():
        assign(variables_of(model)[kind], values)
    try:
        set_random_state(checkpoint.facts["random"])
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Expected the state of random generators in the checkpoint of {str(folder)!r}. Received none: {error}. "
            "Begin anew with `training.callbacks`."
        ) from error


def values_for(model: keras.Model, checkpoint: Checkpoint, folder: Path, kind: str) -> list[np.ndarray]:
    """What the checkpoint holds for variables of a kind; refused if it is of another model or optimizer."""
    count = sum(name.startswith(f"{kind}_") for name in checkpoint.arrays)
    values = [checkpoint.arrays.get(f"{kind}_{index}", np.empty(0)) for index in range(count)]
    here = [tuple(variable.shape) for variable in variables_of(model)[kind]]
    there = [value.shape for value in values]
    if here == there:
        return values
    detail = f"{len(here)} variables here, {len(there)} there"
    for index, (ours, theirs) in enumerate(zip(here, there, strict=False)):
        if ours != theirs:
            detail = f"variable {index} has the shape {ours} here, {theirs} there"
            break
    raise ValueError(
        f"`training.resume` expects the same {kind} as the run in {str(folder)!r} was made with. Received another one: "
        f"{detail}. Build and compile it as before, or begin anew with `training.callbacks`."
    )

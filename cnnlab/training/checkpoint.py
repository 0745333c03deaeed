"""Checkpoints: all that training needs to go on as if it had never stopped, in one file that is whole or not used.

A file is a mark, a digest and numpy's own `npz`. Two are kept, the latest and the one before.
"""

import hashlib
import io
import json
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._common import atomic_path
from cnnlab.training.state import assign, random_state, set_random_state, values_of

FOLDER = "checkpoint"
LATEST, PREVIOUS = "latest.ckpt", "previous.ckpt"
MARK = b"cnnlab checkpoint 1\n"
DIGEST = 32  # bytes
logger = logging.getLogger("cnnlab")


class Checkpoint(NamedTuple):
    """What is kept of a run.

    Attributes:
        facts: Plain values: epoch, step, data, random, and the callbacks' state with arrays replaced by their number.
        arrays: `model_0`, `optimizer_0`, `metric_0` …, in the order of the variables, and `callback_0` ….
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Puts a checkpoint into `folder/checkpoint`; the latest one becomes the one before."""
    buffer = io.BytesIO()
    facts = np.frombuffer(json.dumps(checkpoint.facts).encode(), np.uint8)
    np.savez(buffer, facts=facts, **checkpoint.arrays)  # type: ignore[arg-type]
    content = buffer.getbuffer()
    latest, previous = (folder / FOLDER / name for name in (LATEST, PREVIOUS))
    with atomic_path(latest) as temporary:
        with temporary.open("wb") as file:
            file.write(MARK)
            file.write(hashlib.blake2b(content, digest_size=DIGEST).digest())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if latest.exists():
            latest.replace(previous)


def read(folder: Path) -> Checkpoint | None:
    """The latest checkpoint of a run that is whole, or None where there is none.

    Raises:
        ValueError: If there are checkpoints, and none of them is whole.
    """
    paths = [folder / FOLDER / name for name in (LATEST, PREVIOUS)]
    there = [path for path in paths if path.is_file()]
    for path in there:
        checkpoint = _read_file(path)
        if checkpoint is not None:
            return checkpoint
        logger.warning("%s is damaged or was cut off; the checkpoint before it is used.", path)
    if there:
        raise ValueError(
            f"Expected a whole checkpoint in {str(folder / FOLDER)!r}. Received only damaged ones: "
            f"{', '.join(path.name for path in there)}. Begin anew with `callbacks=training.callbacks(…)`; "
            "`best.keras` in the run's folder holds the best epoch so far."
        )
    return None


def _read_file(path: Path) -> Checkpoint | None:
    data = path.read_bytes()
    start = len(MARK) + DIGEST
    content = memoryview(data)[start:]
    if data[: len(MARK)] != MARK or data[len(MARK) : start] != hashlib.blake2b(content, digest_size=DIGEST).digest():
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    return Checkpoint(json.loads(arrays.pop("facts").tobytes()), arrays)


def variables_of(model: keras.Model) -> dict[str, list[Any]]:
    """All that a training step may change, by kind; the model's own includes the generators of dropout and the like."""
    return {"model": model.variables, "optimizer": model.optimizer.variables, "metric": model.metrics_variables}


def taken_from(model: keras.Model, facts: dict[str, Any]) -> Checkpoint:
    """A checkpoint of the model as it is now."""
    arrays: dict[str, np.ndarray] = {}
    for kind, variables in variables_of(model).items():
        arrays |= {f"{kind}_{index}": value for index, value in enumerate(values_of(variables))}
    return Checkpoint(facts | {"random": random_state()}, arrays)


def put_into(model: keras.Model, checkpoint: Checkpoint, folder: Path, *kinds: str) -> None:
    """Gives variables of these kinds the values of a checkpoint, and random state as it was.

    Raises:
        ValueError: If the checkpoint is of another model or optimizer.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    groups = variables_of(model)
    for kind in kinds:
        names = [name for name in checkpoint.arrays if name.startswith(f"{kind}_")]
        values = [checkpoint.arrays[f"{kind}_{index}"] for index in range(len(names))]
        _check_same(
            kind, [tuple(variable.shape) for variable in groups[kind]], [value.shape for value in values], folder
        )
        assign(groups[kind], values)
    set_random_state(checkpoint.facts["random"])


def _check_same(kind: str, here: list[tuple[int, ...]], there: list[tuple[int, ...]], folder: Path) -> None:
    if here == there:
        return
    different = next((index for index, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1]), None)
    detail = (
        f"{len(here)} variables here, {len(there)} there"
        if different is None
        else f"variable {different} has the shape {here[different]} here, {there[different]} there"
    )
    raise ValueError(
        f"`training.resume` expects the same {kind} as the run in {str(folder)!r} was made with. Received another one: "
        f"{detail}. Build and compile it as before, or begin anew with `training.callbacks`."
    )

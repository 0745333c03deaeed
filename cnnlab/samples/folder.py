"""A folder of generated images that can be interrupted, finished later, and is never mixed with anything else."""

import io
import json
import numbers
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cnnlab._common import atomic_path, is_number, is_whole, read_json, require_seed

RECIPE = ".cnnlab.json"
TRUTH = ".truth.csv"


@contextmanager
def recipe(folder: str | os.PathLike[str], made_by: dict[str, Any]) -> Iterator[Callable[[str, bytes], None] | None]:
    """Opens `folder` for the images that `made_by` describes and yields a function `write(name, data)`.

    Yields None where the folder is already complete. Files already there are kept, so an interrupted run continues.

    Raises:
        FileExistsError: If the folder holds something else; nothing in it is touched.
        NotADirectoryError: If `folder` is a file.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"Expected a folder to put images into. Received a file: {folder}. Name another one.")
    note = folder / RECIPE
    made_by = json.loads(json.dumps(made_by))  # compare what JSON keeps: tuples become lists
    theirs, complete = _read(note)
    if theirs is None and folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f"Expected an empty or a new folder for {made_by['name']}, so that nothing of yours is mixed with it. "
            f"{folder} holds other files. Name another folder."
        )
    if theirs is not None and theirs != made_by:
        changed = ", ".join(f"{key}={theirs.get(key)!r}" for key in made_by if theirs.get(key) != made_by[key])
        raise FileExistsError(
            f"{folder} already holds images made with other arguments ({changed}). Name another folder, or delete this "
            "one yourself."
        )
    if complete:
        yield None
        return
    _write(note, json.dumps({"made_by": made_by, "complete": False}, indent=1).encode())

    def write(name: str, data: bytes) -> None:
        if not (folder / name).exists():
            _write(folder / name, data)

    try:
        yield write
    except (ConnectionError, ValueError):
        if [entry.name for entry in folder.iterdir()] == [RECIPE]:  # so that the next call may have other arguments
            note.unlink()
            folder.rmdir()
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"Writing {made_by['name']} to {folder} stopped half-way ({error.strerror}). What is there is kept: make "
            "room and run the same call again to continue",
        ) from error
    _write(note, json.dumps({"made_by": made_by, "complete": True}, indent=1).encode())


def _read(note: Path) -> tuple[dict[str, Any] | None, bool]:
    """What a folder was made by, and whether all of it is there; None where it is not a folder of ours."""
    try:
        state = read_json(note)
        return dict(state["made_by"]), bool(state["complete"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, False


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def plain_numbers(caller: str, lowest: Mapping[str, float], seed: Any, **given: Any) -> list[Any]:
    """The numbers, then the seed, as Python's own; refuses what is too low, and what is not whole where that is."""
    require_seed(seed, caller=caller)
    fits = {name: is_number if isinstance(least, float) else is_whole for name, least in lowest.items()}
    if not all(fits[name](value, least=lowest[name]) for name, value in given.items()):
        whole = {name: "" if isinstance(least, float) else "whole " for name, least in lowest.items()}
        expected = ", ".join(f"{whole[name]}`{name}` ≥ {least}" for name, least in lowest.items())
        received = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(f"`{caller}` expects numbers: {expected}. Received: {received}.")
    return [int(x) if isinstance(x, numbers.Integral) else float(x) for x in (*given.values(), seed)]


def plain_share(name: str, share: Any, *, of: str, highest: float = 1) -> float:
    """The share as Python's own float; refuses what is not between 0 and the highest."""
    if not is_number(share, most=highest):
        raise ValueError(f"`{name}` expects a share of {of} from 0 to {highest}. Received: {share!r}.")
    return float(share)


def encoded(image: np.ndarray, format: str, **options: Any) -> bytes:
    """A uint8 image as the bytes of a file: "PNG" without loss, "JPEG" as a camera would."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format, **options)
    return buffer.getvalue()


def truth(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """What is really in a folder that `samples.inspection` or `samples.surveillance` made, to check results against.

    Args:
        folder: The folder that was passed to either.

    Returns:
        For `inspection` one row per file: path (as `tables.from_folder` writes it), true_label (what was rendered),
        planted ("" or one of "wrong label", "broken", "copy", "near copy"), picture (equal numbers are the same
        picture). For `surveillance` one row per event: event, day, label, begin, end (seconds of video).

    Raises:
        FileNotFoundError: If the folder has no truth.

    Example:
        >>> import tempfile
        >>> from cnnlab import samples
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = samples.inspection(folder + "/parts", per_class=4, plant={"wrong_labels": 0.1}, seed=0)
        ...     int((samples.truth(folder + "/parts")["planted"] == "wrong label").sum())
        2
    """
    path = Path(folder).expanduser() / TRUTH
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a folder that `samples.inspection` or `samples.surveillance` has made. {folder} has no {TRUTH}. "
            "Make it with `samples.inspection(folder, plant={...})`, or pass the folder that it returned."
        )
    table = pd.read_csv(path, dtype={"planted": str, "true_label": str}, keep_default_na=False)
    if "path" not in table:
        return table
    return table.assign(path=[str(Path(folder).expanduser() / name) for name in table["path"]])

"""A folder of generated images that can be interrupted, finished later, and is never mixed with anything else."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from cnnlab._common import atomic_path, read_json

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
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"Expected a folder to put images into. Received a file: {folder}. Name another one.")
    note = folder / RECIPE
    made_by = json.loads(json.dumps(made_by))  # compare what JSON keeps: tuples become lists
    state = read_recipe(note)
    if state is None and folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f"Expected an empty or a new folder for {made_by['name']}, so that nothing of yours is mixed with it. "
            f"{folder} holds other files. Name another folder."
        )
    if state is not None and state["made_by"] != made_by:
        changed = [key for key in made_by if state["made_by"].get(key) != made_by[key]]
        theirs = ", ".join(f"{key}={state['made_by'].get(key)!r}" for key in changed)
        raise FileExistsError(
            f"{folder} already holds images made with other arguments ({theirs}). Name another folder, or delete this "
            "one yourself."
        )
    if state is not None and state["complete"]:
        yield None
        return
    write_recipe(note, made_by, complete=False)

    def write(name: str, data: bytes) -> None:
        target = folder / name
        if not target.exists():
            with atomic_path(target) as temporary:
                temporary.write_bytes(data)

    try:
        yield write
    except ConnectionError:
        _forget(folder)
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"Writing {made_by['name']} to {folder} stopped half-way ({error.strerror}). What is there is kept: make "
            "room and run the same call again to continue",
        ) from error
    except ValueError:
        _forget(folder)
        raise
    write_recipe(note, made_by, complete=True)


def _forget(folder: Path) -> None:
    """Removes the note where no image came to it, so that the next call may have other arguments."""
    if [entry.name for entry in folder.iterdir()] == [RECIPE]:
        (folder / RECIPE).unlink()
        folder.rmdir()


def read_recipe(note: Path) -> dict[str, Any] | None:
    """What the folder was made by, or None where it is not a folder of ours."""
    try:
        state = read_json(note)
        return {"made_by": dict(state["made_by"]), "complete": bool(state["complete"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_recipe(note: Path, made_by: dict[str, Any], *, complete: bool) -> None:
    """Notes what the folder is made by and whether all of it is there."""
    with atomic_path(note) as temporary:
        temporary.write_text(json.dumps({"made_by": made_by, "complete": complete}, indent=1), encoding="utf-8")


def truth(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """What is really in a folder that `samples.inspection` made: for checking what an audit found.

    Args:
        folder: The folder that was passed to `samples.inspection`.

    Returns:
        One row per file: path (as `tables.from_folder` writes it), true_label (what was rendered), planted
        ("" or one of "wrong label", "broken", "copy", "near copy"), picture (equal numbers are the same picture).

    Raises:
        FileNotFoundError: If the folder has no planted truth.

    Example:
        >>> import tempfile
        >>> from cnnlab import samples
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = samples.inspection(folder + "/parts", per_class=4, plant={"wrong_labels": 0.1}, seed=0)
        ...     int((samples.truth(folder + "/parts")["planted"] == "wrong label").sum())
        2
    """
    path = Path(folder) / TRUTH
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a folder that `samples.inspection` has made. {folder} has no {TRUTH}. Make it with "
            "`samples.inspection(folder, plant={...})`, or pass the folder that it returned."
        )
    table = pd.read_csv(path, dtype={"planted": str, "true_label": str}, keep_default_na=False)
    return table.assign(path=[str(Path(folder) / name) for name in table["path"]])

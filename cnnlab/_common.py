"""What every room shares: checks that explain themselves, writes that cannot be cut in half, progress bars."""

import difflib
import errno
import io
import json
import math
import os
import platform
import secrets
import stat
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import filelock
import numpy as np
import pandas as pd

Item = TypeVar("Item")
Result = TypeVar("Result")

JSON_DEPTH = 50
COPIES = "group"  # the column of `audit.scan`: equal for images that show the same picture


def require_columns(table: pd.DataFrame, *columns: str, caller: str) -> None:
    """Refuses what is not a table, lacks a column, or has a `label` that is not categorical.

    `caller` is the public function that asks, for the message: `"pipelines.load"`.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"`{caller}` expects a table (pandas DataFrame) with one row per image, such as `tables.from_folder` "
            f"returns. Received: {type(table).__name__}."
        )
    for column in columns:
        require_column(table, column, caller=caller)
        if isinstance(table[column], pd.DataFrame):
            raise ColumnError(f"`{caller}` expects one column {column!r}. Received several of this name: drop one.")
    if "label" in columns and not isinstance(table["label"].dtype, pd.CategoricalDtype):
        raise TypeError(
            f"`{caller}` expects `label` to be a pandas Categorical, because names and order of the classes travel "
            f"in it. Received: dtype {table['label'].dtype}. "
            "Use `table.assign(label=table['label'].astype('category'))`, or `tables.from_folder` / `tables.from_csv`."
        )


def require_column(table: pd.DataFrame, column: str, *, caller: str) -> None:
    """Refuses a table that lacks `column`, naming the nearest ones it has."""
    if column not in table.columns:
        names = list(map(str, table.columns))
        raise ColumnError(
            f"`{caller}` expects a column {column!r}. Received the columns {', '.join(names)}."
            f"{did_you_mean(column, names, count=3)}"
        )


def require_features(table: pd.DataFrame, features: Any, *, least: int = 1, caller: str) -> np.ndarray:
    """The features of a table's images as float64; refuses what is not one row of `least` or more for each."""
    values = np.asarray(features)
    if values.ndim != 2 or len(values) != len(table) or values.shape[1] < least or values.dtype.kind not in "fiu":
        raise ValueError(
            f"`{caller}` expects `features` with one row of numbers, {least} or more, for each of the {len(table)} "
            "images, such as `experiments.features('EfficientNetLite0', table)`. Received: "
            f"{values.dtype}, shape {values.shape}."
        )
    return values.astype(np.float64)


def did_you_mean(word: object, names: Iterable[str], *, count: int) -> str:
    """A question that ends a message: which of these names are nearest to the word, in any case; "" where none is."""
    lower = {name.lower(): name for name in names}
    near = [lower[name] for name in difflib.get_close_matches(str(word).lower(), lower, n=count)]
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def is_whole(value: object, *, least: int = 1) -> TypeGuard[int]:
    """Whether this is a whole number, Python's or NumPy's, of at least so much; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def is_number(value: object, *, least: float = 0, most: float = math.inf) -> TypeGuard[float]:
    """Whether this is a finite number, Python's or NumPy's, within limits; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(math.isfinite(value) and least <= value <= most)


def class_number(asked: object, classes: Sequence[Hashable]) -> int:
    """The number of a class that is asked for by name or number; -1 where there is none, or it could be two.

    Of classes that are numbers themselves, such as grades, a number is the name.

    >>> class_number(1, [1, 2, 3]), class_number(1, ["a", "b", "c"]), class_number(1, ["1", "2", "3"])
    (0, 1, -1)
    """
    names = [str(name) for name in classes]
    if isinstance(asked, str) or not all(isinstance(name, str) for name in classes):
        return names.index(str(asked)) if str(asked) in names else -1
    if not is_whole(asked, least=0) or asked >= len(names) or str(asked) in {*names} - {names[asked]}:
        return -1
    return int(asked)


def require_seed(seed: object, *, caller: str) -> None:
    """Refuses what would not give the same result again."""
    if not is_whole(seed, least=0):
        raise TypeError(
            f"`{caller}` expects a whole number from 0 as `seed`, so that a second call gives the same. Received: "
            f"{seed!r}. For example seed=0."
        )


class ColumnError(KeyError, ValueError):
    """A table lacks a column; prints as a plain sentence, which KeyError alone would put in quotes."""

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary name next to `path`; renames it to `path` on success, removes it on any failure.

    A reader sees the old file or the new one, never half of one.
    """
    with atomic_paths(path) as (temporary,):
        yield temporary


@contextmanager
def atomic_paths(*paths: str | os.PathLike[str]) -> Iterator[list[Path]]:
    """Gives a temporary name for each path and renames all, in this order, once the whole block has succeeded.

    What fills a disk happens before the first rename. A process that dies between two renames leaves the first files
    new and the others old, so name the file last that makes the others valid.
    """
    targets = [Path(path) for path in paths]
    temporaries: list[Path] = []
    try:
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(4)}{target.suffix}")
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # less the umask, as any new file
            temporaries.append(temporary)
        modes = [
            (target if target.is_file() and not target.is_symlink() else temporary).stat().st_mode
            for target, temporary in zip(targets, temporaries, strict=True)
        ]
        yield temporaries
        for target, temporary, mode in zip(targets, temporaries, modes, strict=True):
            temporary.chmod(stat.S_IMODE(mode))  # some writers put a private file of their own there
            temporary.replace(target)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: str | os.PathLike[str], *, timeout: float = 60) -> Iterator[None]:
    """Lets one process or thread at a time read, change and write `path`: a file, or a folder that one run owns.

    The lock is a hidden file next to it, released also when the process dies. Locking the same path again inside the
    block waits for itself.

    Raises:
        TimeoutError: If another holder does not let go for `timeout` seconds.
    """
    path = Path(path)
    note = path.with_name(f".{path.name[:40]}.lock")
    note.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(note)
    try:
        lock.acquire(timeout=timeout, poll_interval=0.01)
    except filelock.Timeout:
        holder = "another program"
        with suppress(OSError, ValueError):
            holder = read_bytes(note, limit=200).decode().partition("\n")[0] or holder
        raise TimeoutError(
            f"{str(path)!r} is in use by {holder}, for {timeout:g} seconds already. Wait until it is done, or close it."
        ) from None
    # On disks that cannot lock, filelock keeps notes of its own in the file: leave those alone.
    ours = False
    try:
        with suppress(OSError, ValueError):
            ours = read_bytes(note, limit=200)[:8] in (b"", b"process ")
            if ours:
                note.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):  # Windows does not part with it while it is open
            if ours:
                note.unlink()  # who waits for it sees that it is gone, and makes a new one
        lock.release()


def read_bytes(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """Reads a regular file of at most `limit` bytes; pipes and devices, which may never end, are not waited for.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is larger, or no regular file.
    """
    # Without O_NONBLOCK, opening a named pipe waits for somebody to write into it.
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise ValueError(f"Expected a regular file. {str(path)!r} is a socket, or a link to itself.") from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"Expected a regular file. {str(path)!r} is a folder, a pipe or a device.")
        if status.st_size > limit:
            raise ValueError(f"Expected a file of at most {limit:,} bytes. {str(path)!r} has {status.st_size:,}.")
        with open(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def read_arrays(path: str | os.PathLike[str], *, limit: int) -> dict[str, np.ndarray]:
    """Reads what `np.savez` wrote, with its check sums; of a stranger's file only numbers, not packed."""
    import ml_dtypes

    data = read_bytes(path, limit=limit)
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        if sum(member.file_size for member in archive.zip.infolist()) > len(data):
            raise ValueError("it unpacks to more than it is")
        found = archive.items()
        arrays = {name: value.view(ml_dtypes.bfloat16) if value.dtype == "V2" else value for name, value in found}
    for name, value in arrays.items():
        if value.dtype.kind not in "biuf" and value.dtype != ml_dtypes.bfloat16:
            raise ValueError(f"{name} holds no numbers")
    return arrays


def read_json(path: str | os.PathLike[str], *, limit: int = 2**24) -> Any:
    """Reads a JSON file that somebody else may have written: what is damaged or hostile becomes one sentence.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "deep.json").write_text("[" * 100_000)
        ...     read_json(Path(folder) / "deep.json")
        Traceback (most recent call last):
        ValueError: Expected a JSON file. '.../deep.json' holds something else, or was damaged: nested too deeply.
    """
    data = read_bytes(path, limit=limit)
    try:
        value = json.loads(data.decode("utf-8-sig"))
        level = [value] if isinstance(value, dict | list) else []
        for _ in range(JSON_DEPTH):
            inner = (part.values() if isinstance(part, dict) else part for part in level)
            level = [item for part in inner for item in part if isinstance(item, dict | list)]
        if level:
            raise RecursionError
        return value
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise ValueError(f"Expected a JSON file. {str(path)!r} holds something else, or was damaged: {reason}.")


def progress(items: Iterable[Item], *, label: str, total: int | None = None, unit: str = "img") -> Iterable[Item]:
    """Wraps `items` in a tqdm bar in a notebook or a terminal; stays silent where nobody is watching."""
    from tqdm.auto import tqdm

    return tqdm(items, desc=label, total=total, unit=unit, disable=is_quiet(), leave=False)


def is_quiet() -> bool:
    """Whether nobody is watching: CNNLAB_QUIET is set, or neither a notebook nor a terminal is attached."""
    if os.environ.get("CNNLAB_QUIET", "") not in ("", "0"):
        return True
    return "ipykernel" not in sys.modules and not sys.stderr.isatty()


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers below `count`, spread over all of them.

    >>> evenly_spaced(10, 4).tolist(), evenly_spaced(2, 4).tolist()
    ([0, 3, 6, 9], [0, 1])
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def available_cores() -> int:
    """Cores that this process may use, which containers and job queues keep below what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`[function(item) for item in items]` on all cores, for work that runs outside of Python's lock."""
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(function, items))


def put_aside(folder: Path, names: Iterable[str]) -> Path | None:
    """Moves what an earlier run left in `folder` into the folder that it returns, `folder/earlier/<time>`, if any."""
    there = [folder / name for name in names if (folder / name).exists()]
    if not there:
        return None
    if (folder / "earlier").is_symlink():
        raise ValueError(
            f"Expected a folder for earlier results. {str(folder / 'earlier')!r} is a link: nothing outside of "
            f"{str(folder)!r} is written. Remove the link, or choose another folder."
        )
    target = folder_aside(folder, max(path.stat().st_mtime for path in there))
    for path in there:
        path.rename(target / path.name)
    return target


def folder_aside(folder: Path, when: float | None = None) -> Path:
    """Makes the folder `folder/earlier/<time>` for what is in the way; the time is now where None."""
    stamp, number = time.strftime("%Y%m%d-%H%M%S", time.localtime(when)), 1
    (folder / "earlier").mkdir(parents=True, exist_ok=True)
    while True:
        target = folder / "earlier" / (stamp if number == 1 else f"{stamp}-{number}")
        with suppress(FileExistsError):
            target.mkdir()
            return target
        number += 1

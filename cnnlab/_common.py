"""What every room shares: checks that explain themselves, writes that cannot be cut in half, progress bars."""

import difflib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pandas as pd

Item = TypeVar("Item")
Result = TypeVar("Result")


def require_columns(table: pd.DataFrame, *columns: str, caller: str) -> None:
    """Refuses a table that lacks a column, naming the nearest ones it has.

    Args:
        table: The table a person passed.
        columns: Names it must have. For `label` the column must also be categorical, since the class order
            travels in the categories.
        caller: The public function that asks, for the message: `"pipelines.load"`.

    Raises:
        TypeError: If `table` is no DataFrame, or `label` is not categorical.
        KeyError: If a column is missing.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"`{caller}` expects a table (pandas DataFrame) with one row per image, such as `tables.from_folder` "
            f"returns. Received: {type(table).__name__}."
        )
    for column in columns:
        require_column(table, column, caller=caller)
    if "label" in columns and not isinstance(table["label"].dtype, pd.CategoricalDtype):
        raise TypeError(
            f"`{caller}` expects `label` to be a pandas Categorical, because names and order of the classes travel "
            f"in it. Received: dtype {table['label'].dtype}. "
            "Use `table.assign(label=table['label'].astype('category'))`, or `tables.from_folder` / `tables.from_csv`."
        )


def require_column(table: pd.DataFrame, column: str, *, caller: str) -> None:
    """Refuses a table that lacks `column`, naming the nearest ones it has."""
    if column not in table.columns:
        near = difflib.get_close_matches(column, [str(name) for name in table.columns], n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise ColumnError(
            f"`{caller}` expects a column {column!r}. Received the columns {', '.join(map(str, table.columns))}.{hint}"
        )


class ColumnError(KeyError, ValueError):
    """A table lacks a column; prints as a plain sentence, which KeyError alone would put in quotes."""

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary name beside `path`; renames it to `path` on success, removes it on any failure.

    A reader sees the old file or the new one, never half of one.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     (Path(folder) / "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:80]}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)  # mkstemp makes files private; what people share should follow their umask
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def progress(items: Iterable[Item], *, label: str, total: int | None = None, unit: str = "img") -> Iterable[Item]:
    """Wraps `items` in a tqdm bar in a notebook or a terminal; stays silent in a non-interactive run.

    Set the environment variable CNNLAB_QUIET=1 to silence it everywhere, as headless notebooks do.
    """
    from tqdm.auto import tqdm

    return tqdm(items, desc=label, total=total, unit=unit, disable=is_quiet(), leave=False)


def is_quiet() -> bool:
    """Whether nobody is watching: CNNLAB_QUIET is set, or neither a notebook nor a terminal is attached."""
    if os.environ.get("CNNLAB_QUIET", "") not in ("", "0"):
        return True
    return "ipykernel" not in sys.modules and not sys.stderr.isatty()


def available_cores() -> int:
    """Cores that this process may use, which containers and job queues keep below what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`[function(item) for item in items]` on all cores, for work that runs outside of Python's lock."""
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(function, items))


def put_aside(folder: Path, names: Iterable[str]) -> Path | None:
    """Moves what an earlier run left in `folder` into `folder/earlier/<time>`, so that nothing is written over.

    Returns:
        Where it went, or None where there was nothing to move.
    """
    there = [folder / name for name in names if (folder / name).exists()]
    if not there:
        return None
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(max(path.stat().st_mtime for path in there)))
    target, number = folder / "earlier" / stamp, 1
    while target.exists():
        number += 1
        target = folder / "earlier" / f"{stamp}-{number}"
    target.mkdir(parents=True)
    for path in there:
        path.rename(target / path.name)
    return target

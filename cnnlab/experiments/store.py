"""Results on disk, one folder per experiment, so that an interrupted one goes on where it was."""

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd

from cnnlab import tables
from cnnlab._common import atomic_path, locked, read_json
from cnnlab.tables.linking import say_once

FORMAT = 2  # of what lies in a folder; raised when results of before can no longer be compared
SETTINGS = "experiment.json"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
LARGEST_JSON = 64 * 2**20
LARGEST_TABLE = 2**30
REMEMBERED = 2**26  # bytes of tables that need not be read from disk again
FACTS = ("images", "epochs", "seconds", "problem")  # of every run, beside its scores
SCORES = ("accuracy", "balanced_accuracy", *FACTS)
FOREVER = 1e9  # seconds
PATIENCE = 5  # seconds until it is said who is waited for
SHOWN = 60  # characters of a setting that an error shows
Tables = dict[str, pd.DataFrame]


class Store:
    """Tables under names, on disk where there is a folder; one of other `settings` is refused.

    Small ones that it has written itself stay in memory: a fold of heads is trained faster than a CSV is read.
    Whatever is read from the folder may have come from a stranger: names, types and sizes are checked, and
    nothing outside the folder is touched.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, settings: Mapping[str, str]) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        self.memory: dict[str, Tables] = {}
        self.room = REMEMBERED
        if self.folder is not None:
            require_plain_files(self.folder)
            self.claim("", settings)

    def claim(self, name: str, settings: Mapping[str, str]) -> None:
        """Writes down what the results under `name` depend on; refuses if they depend on anything else."""
        if self.folder is None:
            return
        note = self._path(name) / SETTINGS
        if not note.is_file():
            with locked(note):
                if not note.is_file():  # nobody else has written one since
                    with atomic_path(note) as temporary:
                        text = json.dumps({"format": FORMAT, "settings": dict(settings)}, indent=1, ensure_ascii=False)
                        temporary.write_text(text, encoding="utf-8")
                    return
        try:
            state = read_json(note, limit=LARGEST_JSON)
        except ValueError as error:
            raise ValueError(f"{error} Move the folder away and call again, or name another one.") from None
        if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("settings"), dict):
            raise FileExistsError(
                f"{str(note.parent)!r} holds an experiment of another version of cnnlab (format), whose results "
                "cannot be compared with today's. Name another folder, or move this one away."
            )
        there: dict[str, str] = state["settings"]
        differ = [key for key in {**there, **settings} if there.get(key) != settings.get(key)]
        if "table" in differ and "files" in differ:
            differ.remove("files")  # which follows
        if differ:
            shown = "; ".join(
                f"{key}: {_excerpt(there.get(key))} there, {_excerpt(settings.get(key))} now" for key in differ[:5]
            )
            raise FileExistsError(
                f"{str(note.parent)!r} holds an experiment with other settings ({', '.join(map(str, differ))} differ). "
                f"Name another folder, or call with the settings of before to go on with it. {shown}."
            )

    def has(self, name: str) -> bool:
        """Whether the results under `name` are complete."""
        if self.folder is None or name in self.memory:
            return name in self.memory
        mark = self._path(name) / "complete"
        if mark.is_dir():
            raise ValueError(f"Expected the mark of complete results. {str(mark)!r} is a folder. Remove it.")
        return mark.is_file()

    def get(self, name: str, *, only: str = "*") -> dict[str, pd.DataFrame] | None:
        """The tables kept under `name`, or just one of them; None while they are not complete."""
        if not self.has(name):
            return None
        if name in self.memory:
            return self.memory[name]
        found = {path.stem: _read_table(path) for path in sorted(self._path(name).glob(f"{only}.csv"))}
        if only not in ("*", *found):
            raise damaged(self._path(name) / f"{only}.csv", "it is not there")
        if (scores := found.get("scores")) is not None:
            wrong = [f"no {column}" for column in SCORES if column not in scores]
            wrong += [] if len(scores) == 1 else [f"{len(scores)} rows, not one"]
            if wrong:
                raise damaged(self._path(name) / "scores.csv", f"it has {wrong[0]}")
        return found

    def put(self, name: str, results: Mapping[str, pd.DataFrame]) -> None:
        """Keeps tables under `name`; the mark that they are complete comes last."""
        if self.folder is None:
            self.memory[name] = dict(results)
            return
        folder = self._path(name)
        for key, table in results.items():
            tables.save(table, folder / f"{key}.csv")
        with atomic_path(folder / "complete") as temporary:
            temporary.write_text("", encoding="utf-8")
        size = sum(int(table.memory_usage(deep=True).sum()) for table in results.values())
        plain = not any(object in table.dtypes.tolist() for table in results.values())  # a Path is read as text
        if plain and size <= self.room:
            self.room -= size
            self.memory[name] = {key: table.reset_index(drop=True) for key, table in results.items()}

    @contextmanager
    def alone(self, name: str, *, wait: bool) -> Iterator[None]:
        """Keeps other processes from the results under `name` inside the block.

        Where one has them: TimeoutError, or with `wait` until it lets go, and it is said which one that is.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self._lock(name, PATIENCE if wait else 0))
            except TimeoutError as error:
                if not wait:
                    raise
                say_once(str(error))
                stack.enter_context(self._lock(name, FOREVER))
            yield

    def _lock(self, name: str, timeout: float) -> AbstractContextManager[None]:
        return nullcontext() if self.folder is None else locked(self._path(name), timeout=timeout)

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        parts = name.split("/") if name else []
        if not all(map(NAME.fullmatch, parts)):
            raise ValueError(
                f"{str(self.folder)!r} is damaged, or was made by somebody to do harm: it names a result "
                f"{_excerpt(name)}, where letters, digits, '_' and '-' are expected. Nothing was read or written under "
                "that name; use another folder."
            )
        return self.folder.joinpath(*parts)


def require_plain_files(folder: Path) -> None:
    """Refuses a folder in which a link or a device could lead what is written there to somewhere else."""
    for place, names, files in os.walk(folder):
        for path in (Path(place, name) for name in (*names, *files)):
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # the lock of another process, which is done
                continue
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = "a link" if stat.S_ISLNK(mode) else "no plain file"
                raise ValueError(
                    f"{str(path)!r} is {kind}. A folder of results holds plain files alone, so that "
                    "nothing outside it is read or written. Remove it, or name another folder."
                )


def _read_table(path: Path) -> pd.DataFrame:
    try:
        if path.stat().st_size > LARGEST_TABLE:
            raise ValueError(f"more than {LARGEST_TABLE:,} bytes")
        return tables.read(path)
    except Exception as error:  # pandas raises kinds of its own for types that somebody made up
        raise damaged(path, error) from error


def damaged(path: Path, reason: Any) -> ValueError:
    """The error about a file of results that cannot be used."""
    return ValueError(
        f"{str(path)!r} cannot be read: {reason}. Move the folder {path.parent.name!r} away and call again: it is "
        "computed anew. Or name another one."
    )


def _excerpt(value: Any) -> str:
    """A setting for an error, on one line and not too long."""
    if value is None:
        return "not given"
    text = re.sub(r"[^\x20-\x7e\u00a0-\ud7ff]", "?", str(value))
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def owned(folder: str | os.PathLike[str] | None) -> AbstractContextManager[None]:
    """Keeps other processes out of a folder of results inside the block, who are told which one has it."""
    return nullcontext() if folder is None else locked(Path(folder).expanduser(), timeout=0)

"""Results on disk, one folder per piece of work, so that an interrupted experiment goes on where it was."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from cnnlab import tables
from cnnlab._common import atomic_path

SETTINGS = "experiment.json"


class Store:
    """Tables under names, kept in memory, and on disk where there is a folder.

    Args:
        folder: Where to; in memory only where None.
        settings: What the results depend on. A folder of other settings is refused, never mixed or overwritten.

    Raises:
        FileExistsError: If the folder holds an experiment with other settings.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, settings: dict[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.memory: dict[str, dict[str, pd.DataFrame]] = {}
        if self.folder is not None:
            self._claim(self.folder / SETTINGS, {key: _plain(value) for key, value in settings.items()})

    def _claim(self, note: Path, settings: dict[str, str]) -> None:
        if note.is_file():
            there = json.loads(note.read_text(encoding="utf-8"))
            changed = [key for key in settings if there.get(key) != settings[key]]
            if changed:
                raise FileExistsError(
                    f"{str(note.parent)!r} holds an experiment with other settings ({', '.join(changed)} differ). Name "
                    "another folder, or call with the settings of before to go on with it."
                )
            return
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps(settings, indent=1, ensure_ascii=False), encoding="utf-8")

    def has(self, name: str) -> bool:
        """Whether the work under `name` is complete."""
        return name in self.memory if self.folder is None else (self.folder / name / "complete").is_file()

    def get(self, name: str, *, only: str = "*") -> dict[str, pd.DataFrame] | None:
        """The tables kept under `name`, or just one of them; None while the work is not complete."""
        if not self.has(name):
            return None
        if self.folder is None:
            return self.memory[name]
        return {path.stem: tables.read(path) for path in sorted((self.folder / name).glob(f"{only}.csv"))}

    def put(self, name: str, results: dict[str, pd.DataFrame]) -> None:
        """Keeps tables under `name`; the mark that they are complete comes last."""
        if self.folder is None:
            self.memory[name] = results
            return
        for key, table in results.items():
            tables.save(table, self.folder / name / f"{key}.csv")
        with atomic_path(self.folder / name / "complete") as temporary:
            temporary.write_text("", encoding="utf-8")


def _plain(value: Any) -> str:
    """A setting as text that is equal when the setting is; a table by its content."""
    if isinstance(value, pd.DataFrame):
        facts = value.astype(str)
        return hashlib.sha256(pd.util.hash_pandas_object(facts, index=False).to_numpy().tobytes()).hexdigest()
    return repr(value)

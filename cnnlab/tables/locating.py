"""Where the images lie that a list names: with Windows slashes, without endings, or on another machine."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path, PurePosixPath

from cnnlab.tables.layout import is_image

TRIED = 50  # rows on which to find out how many leading folders to leave out


def locate(names: Sequence[str], start: Path) -> tuple[list[str], list[str]]:
    """Finds the files that `names` mean, below `start`: a path for each name, and those at which there is no file.

    What is not there as it is written is looked for with other slashes, without blanks around it, in other capitals or
    accents, with an ending where the name has none, and without the leading folders of another machine.
    """
    paths = [str(start / name) for name in names]
    missing = [row for row, path in enumerate(paths) if not names[row].strip() or not os.path.exists(path)]  # noqa: PTH110
    find = partial(_find, start, cache(_names_in))
    parts = {row: _parts(names[row]) for row in missing}
    tried = missing[:: max(1, len(missing) // TRIED)]
    best = 0, 0  # images found by leaving out so many folders
    for level in range(max((len(parts[row]) for row in tried), default=0)):
        found = {row: hit for row in tried if (hit := find(parts[row][level:]))}
        unique = len(set(found.values())) == len({parts[row] for row in found})
        if unique and len(found) > best[0]:
            best = len(found), level
    hits = {row: hit for row in missing if (hit := find(parts[row][best[1] :]))}
    if best[1] and len(set(hits.values())) < len({parts[row] for row in hits}):
        hits = {}  # two folders of the list would become one here
    for row, hit in hits.items():
        paths[row] = hit
    return paths, [paths[row] for row in missing if row not in hits]


def _parts(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name.strip().replace("\\", "/")).parts
    return tuple(part for part in parts if part not in ("/", "//") and not part.endswith(":"))


def _find(start: Path, names_in: Callable[[Path], dict[str, list[str]]], parts: tuple[str, ...]) -> str:
    """The one file below `start` that these folders and this name mean, "" where there is none."""
    if not parts or ".." in parts:
        return ""
    folder = start.joinpath(*parts[:-1])
    there = names_in(folder)
    hits = there.get(_key(parts[-1])) or there.get(f"{_key(parts[-1])}.*") or []
    if len(hits) > 1:
        raise ValueError(
            f"Expected one image for {parts[-1]!r} in {str(folder)!r}. There are {', '.join(map(repr, hits))}. "
            "Write the name with its ending, or leave one of them."
        )
    return str(folder / hits[0]) if hits else ""


def _names_in(folder: Path) -> dict[str, list[str]]:
    """The files of a folder by their names, and images also by their names without ending."""
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:  # noqa: PTH208
        names.setdefault(_key(name), []).append(name)
        if is_image(name):
            names.setdefault(f"{_key(os.path.splitext(name)[0])}.*", []).append(name)  # noqa: PTH122
    return names


def _key(name: str) -> str:
    """Equal for names that differ only in capitals, or in how accents are written."""
    return unicodedata.normalize("NFC", name).casefold()

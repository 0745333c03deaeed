"""What the folders of an image folder mean: ready-made splits, classes, or what archives and servers leave behind."""

import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path, PurePosixPath

from cnnlab import images

SPLITS = ("train", "val", "test")
SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
FILLERS = {"set", "data", "dataset", "split", "image", "images", "img", "imgs", "photos", "pictures", "folder"}
IMAGE_ENDINGS = tuple(ending for ending in images.ENDINGS if not images.needs_extra(ending))
# Left by macOS archives, Synology and QNAP servers, Windows disks and Python; beside all names that begin with a dot.
CLUTTER_FOLDERS = {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information"}
TRIED = 50  # rows on which to find out how many leading folders to leave out


def split_of(name: str) -> str:
    """Which split a name means: "train", "val", "test", or "" where it means none.

    Example:
        >>> [split_of(name) for name in ("Training_Set", "images_train", "VALID", "testset", "train2017", "train car")]
        ['train', 'train', 'val', 'test', 'train', '']
    """
    rest, split = _read_name(name)
    return "" if rest else split


def _read_name(name: str) -> tuple[tuple[str, ...], str]:
    """The words of a name that mean no split, and the split that one other word means."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())  # "imagesTrain" too
    words = [re.sub(r"(?<=[a-z])(set|images|data)$", "", word) if word not in FILLERS else word for word in words]
    meant = [SPLIT_OF[word] for word in words if word in SPLIT_OF]
    rest = tuple(word for word in words if word not in SPLIT_OF and word not in FILLERS)
    return (rest, meant[0]) if len(meant) == 1 else (rest, "")


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder` that a person put there."""
    return sorted(entry for entry in folder.iterdir() if is_shown(entry.name) and entry.is_dir())


def is_shown(name: str) -> bool:
    """Whether a folder of this name is a person's, not a program's."""
    return not name.startswith(".") and name.lower() not in CLUTTER_FOLDERS


def is_image(name: str) -> bool:
    """Whether the ending of a file name says that it is an image."""
    return name.lower().endswith(IMAGE_ENDINGS) and not name.startswith(".")


def walk(folder: Path, unreadable: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """All files below `folder`, each real folder once, so that a loop of links ends.

    Args:
        folder: Where to begin.
        unreadable: Called for each folder that may not be read.
    """
    # The folders above count as seen: a link back up would bring the other classes under this one's name.
    above = (parent.stat() for parent in folder.resolve().parents)
    seen = {(status.st_dev, status.st_ino) for status in above}
    try:
        for root, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
            status = Path(root).stat()
            if status.st_ino and (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if is_shown(name))
            yield from (Path(root) / name for name in sorted(files))
    except RecursionError:  # Python 3.12 goes on; there the system refuses such paths
        raise ValueError(f"Expected folders of images. Those in {str(folder)!r} are nested too deeply.") from None


def _holds_images(folder: Path) -> bool:
    return any(is_image(path.name) for path in walk(folder))


def _class_names(folder: Path) -> set[str]:
    return {entry.name for entry in subfolders(folder) if _holds_images(entry)}


def folders_of_classes(folder: Path) -> dict[str, Path]:
    """Where class folders lie: {"": the folder itself}, or the folder for each ready-made split.

    Raises:
        ValueError: If it is not clear which folders are splits and which are classes.
    """
    named = _named_splits(folder)
    inside = {entry: _unpacked(entry) for entry in named}
    holding = {entry: split for entry, split in named.items() if _class_names(inside[entry])}
    loose = [entry.name for entry in named if entry not in holding and _holds_images(entry)]
    beside = [entry.name for entry in subfolders(folder) if entry not in named and _holds_images(entry)]
    where = f"in {str(folder)!r}"
    if not holding:
        if len({named[folder / name] for name in loose}) > 1 or (loose and not beside):
            raise ValueError(
                f"Expected one subfolder per class. {_listed(loose)} {where} look like ready-made splits, but hold "
                "their images without class folders. Sort the images into subfolders named after their classes, use "
                "`tables.from_csv`, or rename the folders if these are the classes."
            )
        inner = _unpacked(folder)
        return {"": folder} if inner == folder else folders_of_classes(inner)
    if loose:
        raise ValueError(
            f"Expected one subfolder per class in each ready-made split. The images of {_listed(loose)} {where} lie in "
            "the folder itself. Sort them into subfolders named after their classes, or move the folder elsewhere and "
            "read it with `tables.from_folder(…, labelled=False)`."
        )
    double = [entry.name for entry, split in holding.items() if list(holding.values()).count(split) > 1]
    if double:
        raise ValueError(
            f"Expected one folder for each of train, val and test {where}. {_listed(double)} mean the same one. Rename "
            "one of them, or put their images together."
        )
    nested = [entry.name for entry in holding if any(_class_names(inner) for inner in _named_splits(inside[entry]))]
    if nested and len(holding) == 1 and not beside:
        return folders_of_classes(next(inside[entry] for entry in holding))
    if nested:
        raise ValueError(
            f"Expected class folders in each ready-made split. {_listed(nested)} {where} hold splits again. Move those "
            "out, so that train, val and test are in one folder, or move the rest elsewhere."
        )
    if beside:
        shared = set.intersection(*(_class_names(inside[entry]) for entry in holding))
        if len(holding) < 2 or not shared:
            raise ValueError(
                f"Expected ready-made splits or classes {where}, and found both: {_listed([e.name for e in holding])} "
                f"as well as {_listed(beside)}. Move one or the other elsewhere, or rename what is not a split."
            )
        warnings.warn(
            f"{_listed(beside)} next to the ready-made splits {where} are not splits and were passed over with all "
            "their images.",
            stacklevel=3,
        )
    empty = [entry.name for entry in named if entry not in holding]
    if empty:
        warnings.warn(f"{_listed(empty)} {where} hold no image and were passed over.", stacklevel=3)
    return {split: inside[entry] for entry, split in holding.items()}


def _named_splits(folder: Path) -> dict[Path, str]:
    """Subfolders whose name means a split; "seg_train" does so only next to "seg_test" or another such name."""
    read = {entry: _read_name(entry.name) for entry in subfolders(folder)}
    found = {}
    for entry, (rest, split) in read.items():
        family = {other for words, other in read.values() if words == rest and other}
        if split and (not rest or len(family) > 1):
            found[entry] = split
    return found


def _unpacked(folder: Path) -> Path:
    """Where an archive was unpacked into a folder of its own name, or all lies in "images": the folder that counts."""
    holding = [entry for entry in subfolders(folder) if _holds_images(entry)]
    if len(holding) != 1 or any(is_image(entry.name) and not entry.is_dir() for entry in folder.iterdir()):
        return folder
    (inner,) = holding
    rest, split = _read_name(inner.name)
    same = inner.name.lower() == folder.name.lower() or (split and split == split_of(folder.name) and not rest)
    filler = not rest and not split
    if same or filler or any(_class_names(entry) for entry in _named_splits(inner)):
        return _unpacked(inner)
    return folder


def _listed(names: list[str]) -> str:
    return " and ".join(repr(name) for name in sorted(names))


def locate(names: Sequence[str], start: Path) -> tuple[list[str], list[str]]:
    """Finds the files that `names` mean, below `start`: a path for each name, and those at which there is no file.

    What is not there as it is written is looked for with other slashes, without blanks around it, in other capitals or
    accents, with an ending where the name has none, "7.0" as 7, and without the leading folders of another machine.
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
    name = _key(parts[-1])
    number = re.sub(r"^(\d+)\.0$", r"\1", name)  # pandas writes ids as floats where one of the column is missing
    hits = there.get(name) or there.get(f"{name}.*") or there.get(f"{number}.*") or []
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

"""New files to their places, all or none: nothing of a person's is written over, nothing outside the folder touched."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cnnlab._common import locked
from cnnlab.serving.description import ABOUT, CARD, FILE_OF, Description, read_description
from cnnlab.serving.engines import digest_of


@contextmanager
def working_folder(folder: Path) -> Iterator[Path]:
    """A folder inside the export for files that are being made; what is left in it is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        yield working
    finally:
        shutil.rmtree(working, ignore_errors=True)


@contextmanager
def turn(folder: Path) -> Iterator[Description | None]:
    """Waits until no other export or card is being put into the folder; gives what is described there now.

    Raises:
        TimeoutError: If another one does not end.
    """
    with locked(folder / ABOUT):
        earlier = None
        with suppress(FileNotFoundError, ValueError):  # none, or one that nobody can read: it will be moved aside
            earlier = read_description(folder)
        yield earlier


def put_in_place(
    folder: Path, working: Path, new: Sequence[str], names: Sequence[str], earlier: Description | None
) -> None:
    """Moves new files from the working folder to their names; if anything fails, all is as before.

    Args:
        folder: The export.
        working: Where the new files are.
        new: Their names; the last one makes the others valid.
        names: All names that this may touch. What has one and is not replaced moves to `earlier/`, and so does what is
            replaced and was not written by the export described.
        earlier: The export that is there.
    """
    replaced = working / "replaced"
    replaced.mkdir()
    moves = []
    aside: Path | None = None
    for name in names:
        path = folder / name
        if path.is_symlink() or path.exists():
            if name in new and _is_ours(path, earlier):
                moves.append((path, replaced / name))
            else:
                aside = aside or _folder_aside(folder)
                moves.append((path, aside / name))
    moves += [(working / name, folder / name) for name in new]
    done = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise


def _is_ours(path: Path, earlier: Description | None) -> bool:
    """Whether the file is, to the byte, what the earlier export wrote; then nothing of anybody's is lost."""
    if earlier is None or path.is_symlink() or not path.is_file():
        return False
    if path.name == ABOUT:
        return True
    noted = {FILE_OF[name]: str(file["sha256"]) for name, file in earlier.formats.items()} | {CARD: earlier.card}
    return digest_of(path) == noted.get(path.name)


def _folder_aside(folder: Path) -> Path:
    """A new folder below `earlier/`.

    Raises:
        ValueError: If `earlier` leads somewhere else.
    """
    if (folder / "earlier").is_symlink():
        raise ValueError(f"{str(folder / 'earlier')!r} is a link that leads out of the export. Remove it first.")
    stamp, number = time.strftime("%Y%m%d-%H%M%S"), 1
    while True:
        target = folder / "earlier" / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            target.mkdir(parents=True)
            return target
        except FileExistsError:
            number += 1

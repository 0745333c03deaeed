"""New files to their places, all or none: nothing of a person's is written over, nothing outside the folder touched."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cnnlab._common import folder_aside, locked
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
    """Waits until no other export or card is being put into the folder; gives what is described there now."""
    with locked(folder / ABOUT):
        earlier = None
        with suppress(FileNotFoundError, ValueError):  # none, or one that nobody can read: it will be moved aside
            earlier = read_description(folder)
        yield earlier


def put_in_place(
    folder: Path, working: Path, new: Sequence[str], names: Sequence[str], earlier: Description | None
) -> None:
    """Moves the `new` files from the working folder to their places; if anything fails, all is as before.

    The last of them makes the others valid. What has one of the `names` and is not replaced moves to `earlier/`, and so
    does what is replaced and is not, to the byte, what the export described as `earlier` wrote.
    """
    replaced = working / "replaced"
    replaced.mkdir()
    there = [folder / name for name in names if (folder / name).is_symlink() or (folder / name).exists()]
    ours = [path for path in there if path.name in new and _is_ours(path, earlier)]
    if len(ours) < len(there) and (folder / "earlier").is_symlink():
        raise ValueError(f"{str(folder / 'earlier')!r} is a link that leads out of the export. Remove it first.")
    aside = folder_aside(folder) if len(ours) < len(there) else folder
    moves = [(path, (replaced if path in ours else aside) / path.name) for path in there]
    done = []
    try:
        for source, target in [*moves, *((working / name, folder / name) for name in new)]:
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
    noted = {FILE_OF[name]: str(file["sha256"]) for name, file in earlier.formats.items()} | {CARD: earlier.card}
    return path.name == ABOUT or digest_of(path) == noted.get(path.name)

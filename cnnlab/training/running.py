"""How callbacks keep what they write cheap, whole, and to themselves."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cnnlab._common import locked

HELD: dict[Path, ExitStack] = {}  # folders of this process, which lets go of them when it dies
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Budget:
    """Lets something be done only as often as it takes a small share, 0 to 1, of the time."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.cost = 0.0
        self.last = time.perf_counter()

    def allows(self) -> bool:
        """Whether enough time went by since the last one."""
        return (time.perf_counter() - self.last) * self.share >= self.cost

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Measures what the block costs."""
        began = time.perf_counter()
        yield
        self.last = time.perf_counter()
        # A slow first time, when files are cold, is soon forgotten; a disk that has become slow is noticed at once.
        self.cost = max(self.last - began, self.cost / 2)


class DiskFullError(OSError):
    """The disk took no more; prints as a plain sentence."""

    def __str__(self) -> str:
        return str(self.args[-1])


@contextmanager
def disk_watched(folder: Path, rescue: str) -> Iterator[None]:
    """Turns "no space left", however a library says it, into a sentence that says what is safe (`rescue`) and to do."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        text = str(error)
        full = getattr(error, "errno", None) in NO_SPACE or any(os.strerror(code) in text for code in NO_SPACE)
        if not full:
            raise
        raise DiskFullError(
            errno.ENOSPC,
            f"The disk that holds {str(folder)!r} is full, so training stopped. {rescue} Free some space there, then "
            f"go on with `callbacks=training.resume({str(folder)!r})`.",
        ) from error


def own_folder(folder: Path, names: tuple[str, ...]) -> None:
    """Takes a run folder for this process, until `leave_folder` or its end; `names` in it must be what a run writes."""
    for name in (*names, "earlier"):
        path = folder / name
        if path.is_symlink():
            raise ValueError(
                f"Expected files of a run in {str(folder)!r}. Received {name!r}, which is a link to somewhere else: "
                "nothing outside the folder is written. Remove the link, or choose another folder."
            )
        kind = "file" if path.suffix else "folder"
        if path.exists() and not (path.is_file() if path.suffix else path.is_dir()):
            raise ValueError(
                f"Expected a {kind} or nothing at {str(path)!r}, where a run writes. Received something else, which "
                "stays as it is: move it away, or choose another folder."
            )
    leave_folder(folder)  # to a `fit` of this process that an error or an interruption ended
    stack = ExitStack()
    try:
        stack.enter_context(locked(folder, timeout=0))
    except TimeoutError as error:
        raise TimeoutError(f"A run is being trained there: {error} Or choose another folder.") from error
    HELD[folder.resolve()] = stack


def leave_folder(folder: Path) -> None:
    """Lets others have the folder."""
    held = HELD.pop(folder.resolve(), None)
    if held is not None:
        held.close()

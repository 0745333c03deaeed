"""What may be opened: regular files of sensible size, and how much memory all decoding together may take."""

import os
import stat
import threading
from importlib.util import find_spec

MAX_BYTES = 512 * 2**20  # of a file
ENDINGS_OF = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "HEIF": (".heic", ".heif"),
    "DICOM": (".dcm", ".dicom"),
}
ENDINGS = tuple(ending for endings in ENDINGS_OF.values() for ending in endings)
PACKAGES = {"HEIF": ("pillow_heif", "pillow-heif"), "DICOM": ("pydicom", "pydicom")}  # module, and what pip calls it


class UnreadableImageError(ValueError):
    """A file that is not an image, is damaged, or is larger than anyone means.

    Attributes:
        problem: What is wrong, in a few words, as `audit.scan` puts it into its column `problem`.
    """

    def __init__(self, problem: str, name: str = "the image") -> None:
        super().__init__(f"{name} cannot be read: {problem}.")
        self.problem, self.name = problem, name

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.problem, self.name)


def needs_extra(ending: str) -> str:
    """How to install what files of this ending need, or "" where nothing is missing.

    Args:
        ending: With its dot, in any case.

        >>> needs_extra(".jpg")
        ''
    """
    for kind, (module, package) in PACKAGES.items():
        if ending.lower() in ENDINGS_OF[kind] and find_spec(module) is None:
            return f"{kind} files need the package {package}: pip install 'cnnlab[formats]'"
    return ""


def read_file(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a regular file; nothing that could block, never end, or fill the memory is opened.

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableImageError: If it is a folder, a pipe, a device, or larger than 512 MB.
    """
    name = os.fspath(path)
    try:
        status = os.stat(name)  # noqa: PTH116  (half the time of a Path, for every file)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError("not a file: a folder" if stat.S_ISDIR(status.st_mode) else "not a file", name)
        if status.st_size > MAX_BYTES:
            raise UnreadableImageError(f"too large: {status.st_size / 2**20:,.0f} MB", name)
        with open(name, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(status.st_size)
    except UnreadableImageError:
        raise
    except ValueError as error:  # a path with a null character
        raise UnreadableImageError(f"unreadable: {error}", repr(name)) from None


class Budget:
    """Lets threads wait until the memory that they are about to take is free."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._begin()
        if hasattr(os, "register_at_fork"):  # a new process has the memory to itself, and none of the other threads
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.free, self.changed = self.limit, threading.Condition()

    def hold(self, size: int) -> "Held":
        """For `with`: waits for `size` bytes, at most the limit, and gives them back at the end."""
        return Held(self, min(size, self.limit))


class Held:
    """Some of a budget; a class, as that takes a fifth of the time of a generator, for every image."""

    def __init__(self, budget: Budget, size: int) -> None:
        self.budget, self.size = budget, size

    def __enter__(self) -> None:
        with self.budget.changed:
            while self.budget.free < self.size:
                self.budget.changed.wait()
            self.budget.free -= self.size

    def __exit__(self, *_: object) -> None:
        with self.budget.changed:
            self.budget.free += self.size
            self.budget.changed.notify_all()


MEMORY = Budget(768 * 2**20)  # bytes that decoding takes at a time, all threads together

"""Keeps decoded images, in memory or on disk, so that an epoch after the first need not decode again."""

import hashlib
import logging
import os
import struct
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from cnnlab._common import atomic_path

MEMORY_SHARE = 0.25  # of the memory free when the dataset is made; the rest belongs to the network
HEADER = struct.Struct("<8sII")  # mark, height, width; the pixels follow
MARK = b"cnnlab1\n"
logger = logging.getLogger("cnnlab")

Kind = Literal["auto", "memory", "disk", False]


class Cache(Protocol):
    """Keeps images by row (memory) or by content (disk)."""

    by_content: bool

    def get(self, key: object) -> np.ndarray | None:
        """The image kept under `key`, read-only, or None."""

    def put(self, key: object, image: np.ndarray) -> None:
        """Keeps `image` under `key`, if there is room."""


class NoCache:
    """Keeps nothing."""

    by_content = False

    def get(self, key: object) -> None:
        """Nothing."""

    def put(self, key: object, image: np.ndarray) -> None:
        """Does nothing."""


class MemoryCache:
    """Keeps images in this process until the limit is reached; what comes later is decoded every time."""

    by_content = False

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.images: dict[object, np.ndarray] = {}

    def get(self, key: object) -> np.ndarray | None:
        """The image kept for a row, or None."""
        return self.images.get(key)

    def put(self, key: object, image: np.ndarray) -> None:
        """Keeps the image if the limit allows; two threads at once may pass it by one image."""
        if key not in self.images and self.bytes + image.nbytes <= self.limit:
            self.bytes += image.nbytes
            # An image that is a part of a larger one would keep all of it alive.
            self.images[key] = image if image.base is None else image.copy()


class DiskCache:
    """One file per image, named by what the image was made of, so that datasets, folds and processes share it.

    A changed file or another size has another name; a file is complete or absent, whoever writes at the same time.
    """

    by_content = True

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder) if folder else default_folder()
        self.full = False

    def path(self, key: str) -> Path:
        """Where the image of that key lies; two levels, because folders of 100,000 files are slow."""
        return self.folder / key[:2] / f"{key[2:]}.rgb"

    def get(self, key: object) -> np.ndarray | None:
        """The image kept under a key; None if there is none, or it is not whole."""
        try:
            data = self.path(str(key)).read_bytes()
        except OSError:
            return None
        if len(data) < HEADER.size:
            return None
        mark, height, width = HEADER.unpack_from(data)
        if mark != MARK or len(data) != HEADER.size + height * width * 3:
            return None
        return np.frombuffer(data, np.uint8, offset=HEADER.size).reshape(height, width, 3)

    def put(self, key: object, image: np.ndarray) -> None:
        """Writes the image; if the disk refuses, says so once and goes on without."""
        if self.full:
            return
        try:
            with atomic_path(self.path(str(key))) as temporary, temporary.open("wb") as file:
                file.write(HEADER.pack(MARK, *image.shape[:2]))
                file.write(np.ascontiguousarray(image).data)
        except OSError as error:
            self.full = True
            logger.warning("The image cache in %s takes no more (%s); reading the files instead.", self.folder, error)


def content_key(data: bytes, *how: object) -> str:
    """A name for the image that these bytes become when treated like this."""
    digest = hashlib.blake2b(data, digest_size=16)
    digest.update(MARK + repr(how).encode())
    return digest.hexdigest()


def default_folder() -> Path:
    """Where `cache="disk"` keeps images: $CNNLAB_CACHE, or the user's cache folder. May be deleted at any time."""
    named = os.environ.get("CNNLAB_CACHE")
    if named:
        return Path(named) / "images"
    root = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(root) / "cnnlab" / "images"


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of the container if that is less."""
    import psutil

    free = psutil.virtual_memory().available
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return max(free, 0)

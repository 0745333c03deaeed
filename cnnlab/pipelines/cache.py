"""Keeps decoded images, in memory or on disk, so that an epoch after the first need not decode again."""

import hashlib
import logging
import os
import re
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import PIL

from cnnlab._common import atomic_path, read_bytes

MEMORY_SHARE = 0.25  # of the memory free when the dataset is made; the rest belongs to the network
DISK_LIMIT = 20.0  # GB; $CNNLAB_CACHE_GB says another
KEPT = 0.8  # of the limit, when the least recently used images go
HEADER = struct.Struct("<8sII")  # mark, height, width; the pixels follow
MARK = b"cnnlab1\n"
# What decodes: another version may give other pixels. The number is raised when `cnnlab.images` does.
DECODER = f"3, OpenCV {cv2.__version__}, Pillow {PIL.__version__}"
OURS = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}\.rgb")  # names of files that a cache may remove
logger = logging.getLogger("cnnlab")

Kind = Literal["auto", "memory", "disk", False]


class MemoryCache:
    """Keeps images by row in this process until the limit is reached; what comes later is decoded every time."""

    by_content = False

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.images: dict[object, np.ndarray] = {}

    def get(self, key: object) -> np.ndarray | None:
        """The image kept under a key, or None."""
        return self.images.get(key)

    def put(self, key: object, image: np.ndarray) -> None:
        """Keeps the image if the limit allows; two threads at once may pass it by one image."""
        if key not in self.images and self.bytes + image.nbytes <= self.limit:
            self.bytes += image.nbytes
            # An image that is a part of a larger one would keep all of it alive.
            self.images[key] = image if image.base is None else image.copy()


class DiskCache:
    """One file per image, named by its content, so that datasets share it; the least recently used go first."""

    by_content = True

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, limit: int | None = None) -> None:
        self.folder = Path(folder) if folder else default_folder()
        self.limit = disk_limit() if limit is None else limit
        self.full = False
        self._room: int | None = None  # bytes that may be written before the folder is looked at again
        self._lock = threading.Lock()

    def path(self, key: str) -> Path:
        """Where the image of that key lies; two levels, because folders of 100,000 files are slow."""
        return self.folder / key[:2] / f"{key[2:]}.rgb"

    def get(self, key: object) -> np.ndarray | None:
        """The image kept under a key; None if there is none, or it is not whole."""
        path = self.path(str(key))
        try:
            data = read_bytes(path, limit=self.limit)
            os.utime(path)  # used now: it goes last
        except (OSError, ValueError):  # a named pipe in its place is not waited for
            return None
        mark, height, width = HEADER.unpack_from(data) if len(data) >= HEADER.size else (b"", 0, 0)
        if mark != MARK or len(data) != HEADER.size + height * width * 3:
            return None
        return np.frombuffer(data, np.uint8, offset=HEADER.size).reshape(height, width, 3)

    def put(self, key: object, image: np.ndarray) -> None:
        """Writes the image; if the disk refuses, says so once and goes on without."""
        if self.full:
            return
        try:
            self._make_room(HEADER.size + image.nbytes)
            with atomic_path(self.path(str(key))) as temporary, temporary.open("wb") as file:
                file.write(HEADER.pack(MARK, *image.shape[:2]))
                file.write(np.ascontiguousarray(image).data)
        except OSError as error:
            self.full = True
            logger.warning("The image cache in %s takes no more (%s); reading the files instead.", self.folder, error)

    def _make_room(self, size: int) -> None:
        """Looks at the folder when as much was written as had room, and lets the least recently used images go."""
        with self._lock:
            if self._room is None or size > self._room:
                held = cached_files(self.folder)
                total = sum(status.st_size for status in held.values())
                if total + size > self.limit:
                    for path in sorted(held, key=lambda path: held[path].st_mtime):
                        if total <= KEPT * self.limit:
                            break
                        path.unlink(missing_ok=True)
                        total -= held[path].st_size
                self._room = max(self.limit - total, int((1 - KEPT) * self.limit))
            self._room -= size


Cache = MemoryCache | DiskCache


def cached_files(folder: Path) -> dict[Path, os.stat_result]:
    """The images that a cache wrote into a folder, and nothing else that lies there."""
    found = {}
    for inner in sorted(folder.glob("[0-9a-f][0-9a-f]")):
        if inner.is_symlink() or not inner.is_dir():
            continue
        for path in inner.iterdir():
            if OURS.fullmatch(f"{inner.name}/{path.name}") and not path.is_symlink():
                with suppress(OSError):  # another process let it go meanwhile
                    found[path] = path.stat()
    return found


def describe() -> str:
    """Where the cache of images is and how large, in one sentence."""
    files = cached_files(folder := default_folder())
    size = sum(status.st_size for status in files.values()) / 1e9
    return f"{folder}: {len(files):,} images, {size:.2f} GB of at most {disk_limit() / 1e9:g} GB ($CNNLAB_CACHE_GB)."


def clear() -> int:
    """Empties the cache of images; the number of files that went. Anything else in the folder stays."""
    files = cached_files(default_folder())
    for path in files:
        path.unlink(missing_ok=True)
    for inner in {path.parent for path in files}:
        if not any(inner.iterdir()):
            inner.rmdir()
    return len(files)


def content_key(data: bytes, *how: object) -> str:
    """A name for the image that these bytes become when treated like this, by this version of the decoder."""
    digest = hashlib.blake2b(data, digest_size=16)
    digest.update(MARK + repr((DECODER, *how)).encode())
    return digest.hexdigest()


def default_folder() -> Path:
    """Where `cache="disk"` keeps images: $CNNLAB_CACHE, or the user's cache folder. May be deleted at any time."""
    named = os.environ.get("CNNLAB_CACHE")
    if named:
        return Path(named) / "images"
    root = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(root) / "cnnlab" / "images"


def disk_limit() -> int:
    """Bytes that the cache on disk may take: of $CNNLAB_CACHE_GB, or 20 GB."""
    named = os.environ.get("CNNLAB_CACHE_GB", "")
    try:
        limit = float(named or DISK_LIMIT)
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e9:
        raise ValueError(f"$CNNLAB_CACHE_GB must be a number of gigabytes above 0. Received: {named!r}.")
    return int(limit * 1e9)


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of the container if that is less."""
    import psutil

    free = psutil.virtual_memory().available
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # no such control group, or "max"
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(free, 0)

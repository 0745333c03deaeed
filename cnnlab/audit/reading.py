"""Reads all files of a table, in parallel, and keeps of each what the audit needs."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnnlab._common import available_cores, progress
from cnnlab.audit import files
from cnnlab.audit.copies import Thumbnails, thumbnails
from cnnlab.audit.register import COLOUR, FINE

CHUNK = 16  # files per task: enough to make the handing out cheap, few enough to keep all cores busy to the end
NOTHING = np.zeros((FINE, FINE, 3), np.uint8)
KEPT = np.empty(0, np.uint8)  # stands for pixels that went into the thumbnails


class Facts(NamedTuple):
    """What all files hold, in the order of the paths."""

    table: pd.DataFrame  # the fields of `files.File`, except pixels and lines
    shown: NDArray[np.bool_]  # which could be decoded
    sharpness: NDArray[np.float64]  # see `files.sharpness`; NaN where nothing could be decoded
    thumbnails: Thumbnails


def read_all(paths: Sequence[str]) -> Facts:
    """Reads every file once, with a progress bar.

    Threads, not processes: Pillow decodes without holding Python's lock, and nothing has to be copied between them or
    started anew, which notebooks on Windows and macOS are slow at.
    """
    count = len(paths)
    grey = np.zeros((count, FINE, FINE), np.uint8)
    colour = np.zeros((count, COLOUR, COLOUR, 3), np.uint8)
    sharpness = np.full(count, np.nan)
    found: list[files.File] = []

    def one_by_one() -> Iterator[files.File]:
        for part in _chunks(paths):
            rows = slice(len(found), len(found) + len(part.files))
            grey[rows], colour[rows], sharpness[rows] = part.thumbnails.grey, part.thumbnails.colour, part.sharpness
            yield from part.files

    for file in progress(one_by_one(), label="audit", total=count):
        found.append(file)
    table = pd.DataFrame(found, columns=list(files.File._fields)).drop(columns=["pixels", "lines"])
    shown = np.array([file.pixels is not None for file in found], bool)
    side = table[["width", "height"]].min(axis=1).to_numpy(np.int64)
    return Facts(table, shown, sharpness, Thumbnails(grey, colour, side))


class _Part(NamedTuple):
    files: list[files.File]
    sharpness: NDArray[np.float64]
    thumbnails: Thumbnails


def _chunks(paths: Sequence[str]) -> Iterator[_Part]:
    parts = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    pool = ThreadPoolExecutor(min(available_cores(), 16))
    try:
        yield from pool.map(_read_chunk, parts)
    finally:
        pool.shutdown(cancel_futures=True)  # after an interrupt, too: do not read the rest first


def _read_chunk(paths: Sequence[str]) -> _Part:
    found = [files.read(path) for path in paths]
    lines: dict[int, list[int]] = {}
    for row, file in enumerate(found):
        if file.lines is not None:
            lines.setdefault(file.lines.shape[1], []).append(row)
    sharpness = np.full(len(found), np.nan)
    for rows in lines.values():
        sharpness[rows] = files.sharpness([found[row].lines for row in rows])  # type: ignore[misc]
    pixels = np.stack([NOTHING if file.pixels is None else file.pixels for file in found])
    side = np.array([min(file.width, file.height) for file in found])
    found = [file if file.pixels is None else file._replace(pixels=KEPT, lines=KEPT) for file in found]
    return _Part(found, sharpness, thumbnails(pixels, side))

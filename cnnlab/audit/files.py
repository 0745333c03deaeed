"""Looks at image files, each once, and says what is wrong with them; never raises, whatever they hold."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnnlab._common import available_cores, progress
from cnnlab.audit.copies import Thumbnails
from cnnlab.audit.registration import COLOUR, FINE
from cnnlab.images import UnreadableImageError, read_file
from cnnlab.images.colours import as_bytes, repeated, toned
from cnnlab.images.decoding import Picture, decode
from cnnlab.images.files import ENDINGS_OF
from cnnlab.images.sizing import reduce_by, reduction

WORKING_SIDE = 160  # pixels: images are looked at with a shorter side of this to twice this, or as small as they are
LINES, LONGEST_LINE, PIECE = 12, 192, 24  # rows, and columns, looked at for blur; their pixels; pieces of them
BLANK = 4  # grey levels between the darkest and the brightest value of an image that shows nothing
LITTLE = 0.25  # of the range of 16 bits: images that stay below are darker than they are meant to be
CHUNK = 16  # files per task: enough to make the handing out cheap, few enough to keep all cores busy to the end
NO_GREY, NO_COLOUR = np.zeros((FINE, FINE), np.uint8), np.zeros((COLOUR, COLOUR, 3), np.uint8)


class File(NamedTuple):
    """What one file holds; the facts are empty where it cannot be read."""

    problem: str = ""
    notes: tuple[str, ...] = ()
    digest: bytes = b""  # of all bytes
    bytes: int = 0
    format: str = ""
    width: int = 0  # upright
    height: int = 0
    levels: tuple[float, float] | None = None  # smallest and largest number in a deep image
    window: tuple[float, float] | None = None  # that a DICOM image asks to be seen in
    sharpness: float = np.nan  # see `_sharpness`
    lines: NDArray[np.uint8] | None = None  # by which it is judged
    grey: NDArray[np.uint8] = NO_GREY  # see `Thumbnails`
    colour: NDArray[np.uint8] = NO_COLOUR


class Facts(NamedTuple):
    """What all files hold, in the order of the paths."""

    table: pd.DataFrame  # the fields of `File` up to sharpness
    shown: NDArray[np.bool_]  # which could be decoded
    thumbnails: Thumbnails


def read_all(paths: Sequence[str]) -> Facts:
    """Reads every file once, with a progress bar.

    Threads, not processes: Pillow decodes without holding Python's lock, and nothing has to be copied between them or
    started anew, which notebooks on Windows and macOS are slow at.
    """
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    pool = ThreadPoolExecutor(min(available_cores(), 16))
    try:
        files = (file for some in pool.map(_read_chunk, chunks) for file in some)
        found = list(progress(files, label="audit", total=len(paths)))
    finally:
        pool.shutdown(cancel_futures=True)  # after an interrupt, too: do not read the rest first
    table = pd.DataFrame(found, columns=list(File._fields)).drop(columns=["lines", "grey", "colour"])
    grey = np.array([file.grey for file in found], np.uint8).reshape(-1, FINE, FINE)
    colour = np.array([file.colour for file in found], np.uint8).reshape(-1, COLOUR, COLOUR, 3)
    side = table[["width", "height"]].min(axis=1).to_numpy(np.int64)
    return Facts(table, np.array([file.grey is not NO_GREY for file in found], bool), Thumbnails(grey, colour, side))


def _read_chunk(paths: Sequence[str]) -> list[File]:
    found = [read(path) for path in paths]
    by_length: dict[int, list[int]] = {}
    for row, file in enumerate(found):
        if file.lines is not None:
            by_length.setdefault(file.lines.shape[1], []).append(row)
    for rows in by_length.values():
        for row, value in zip(rows, _sharpness([found[row].lines for row in rows]), strict=True):  # type: ignore[misc]
            found[row] = found[row]._replace(sharpness=value, lines=None)
    return found


def read(path: str) -> File:
    """Reads and judges the file at `path`."""
    try:
        data = read_file(path)
    except FileNotFoundError:
        return File("missing: there is no such file")
    except UnreadableImageError as error:
        return File(error.problem)
    except OSError as error:
        return File(f"unreadable: {error.strerror or error}")
    return judge(data, os.path.splitext(path)[1].lower())  # noqa: PTH122  (half the time of a Path)


def judge(data: bytes, ending: str) -> File:
    """Judges the bytes of a file whose name has this ending."""
    facts = File(digest=hashlib.sha256(data).digest(), bytes=len(data))
    try:
        picture = decode(data, _to_working_size)
    except UnreadableImageError as error:
        return facts._replace(problem=error.problem)
    values, levels = picture.values, None
    if picture.deep:
        levels = _extremes(values)
        shown = toned(values, levels if levels[0] < levels[1] else None)  # for looking at; one's own range will do
        values = repeated(reduce_by(as_bytes(shown), _to_working_size(picture.size)))
    # To a whole multiple of the size first, then down by the mean: as good as the mean at once, in half the time.
    multiple = FINE * max(1, min(4, min(values.shape[:2]) // FINE))
    pixels = cv2.resize(values, (multiple, multiple), interpolation=cv2.INTER_LINEAR)
    pixels = cv2.resize(pixels, (FINE, FINE), interpolation=cv2.INTER_AREA)
    some = pixels.tobytes()[::131]  # a few values say of nearly every picture that it is not blank
    if levels is not None:
        blank = levels[1] - levels[0] <= BLANK / 255 * max(map(abs, levels))
    else:
        blank = max(some) - min(some) <= 3 * BLANK and np.ptp(values, axis=(0, 1)).max() <= BLANK
    words = "blank: fully transparent" if picture.alpha and pixels.min() == 255 else "blank: one colour all over"
    return facts._replace(
        problem=words if blank else "",
        notes=_notes(picture, ending, levels),
        format=picture.format,
        width=picture.size[1],
        height=picture.size[0],
        levels=levels,
        window=picture.window,
        lines=_lines(values),
        grey=cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY),  # type: ignore[arg-type]
        colour=cv2.resize(pixels, (COLOUR, COLOUR), interpolation=cv2.INTER_AREA),  # type: ignore[arg-type]
    )


def _to_working_size(size: tuple[int, int]) -> int:
    return reduction(size, (WORKING_SIDE, WORKING_SIDE), "fit")


def _extremes(values: NDArray) -> tuple[float, float]:
    """The smallest and the largest number of a deep image, whatever is not a number left out."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _notes(picture: Picture, ending: str, levels: tuple[float, float] | None) -> tuple[str, ...]:
    """What is unusual about the kind of file; it can be read all the same."""
    sixteen = picture.values.dtype == np.uint16
    notes = {
        f"{picture.format} file named {ending or 'without an ending'}": ending not in ENDINGS_OF[picture.format],
        "several pages" if picture.format == "TIFF" else "animated": picture.frames > 1,
        "alpha": picture.alpha,
        "palette": picture.mode in ("P", "PA"),
        picture.mode: picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"),
        "16-bit" if sixteen else "32-bit": levels is not None,
    }
    if levels is not None and sixteen and levels[1] < LITTLE * 65535:
        notes[f"uses {max(1, round(100 * levels[1] / 65535))} % of its 16-bit range"] = True
    notes["rotated by EXIF"] = picture.turn != 1
    return tuple(words for words, holds in notes.items() if holds)


def _lines(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows and columns spread over the picture, their middle parts, in green: enough to see a blur by."""
    height, width, _ = values.shape
    length = min(height, width, LONGEST_LINE)
    length -= length % PIECE if length > PIECE else 0
    top, left = (height - length) // 2, (width - length) // 2
    rows, columns = (np.arange(1, LINES + 1) * side // (LINES + 1) for side in (height, width))
    across, down = values[rows, left : left + length, 1], values[top : top + length, columns, 1]
    return np.concatenate([across, down.T])


def _sharpness(lines: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """How strong the finest structure is against the next coarser, where there is most of it: blur takes it away.

    About 1 in a sharp picture and 0.45 in a blurred one, whatever its contrast; a blurred background does not count.
    The lines of several pictures are all of one length.
    """
    fine = np.concatenate(lines).astype(np.float32)
    middle = cv2.GaussianBlur(fine, (7, 1), 1.0)
    coarse = cv2.GaussianBlur(middle, (9, 1), 1.73)  # together with the first: 2.0
    pieces = (max(1, fine.shape[1] // PIECE), len(fine))
    first = cv2.resize(cv2.absdiff(fine, middle), pieces, interpolation=cv2.INTER_AREA).reshape(len(lines), -1)
    second = cv2.resize(cv2.absdiff(middle, coarse), pieces, interpolation=cv2.INTER_AREA).reshape(len(lines), -1)
    most = second.argsort(axis=1)[:, -max(1, second.shape[1] // 5) :]
    first, second = (np.take_along_axis(values, most, axis=1).sum(axis=1) for values in (first, second))
    return (first / np.maximum(second, 1e-3)).astype(np.float64)

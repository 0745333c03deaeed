"""Looks at one image file, once, and says what is wrong with it; never raises, whatever the file holds."""

import hashlib
import os
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cnnlab.audit.register import FINE
from cnnlab.images import UnreadableImageError, read_file
from cnnlab.images.colours import as_bytes, repeated, toned
from cnnlab.images.decoding import Picture, decode
from cnnlab.images.files import ENDINGS_OF
from cnnlab.images.sizing import reduce_by, reduction

WORKING_SIDE = 160  # pixels: images are looked at with a shorter side of this to twice this, or as small as they are
LINES, LONGEST_LINE, PIECE = 12, 192, 24  # rows, and columns, looked at for blur; their pixels; pieces of them
BLANK = 4  # grey levels between the darkest and the brightest value of an image that shows nothing
LITTLE = 0.25  # of the range of 16 bits: images that stay below are darker than they are meant to be


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
    pixels: NDArray[np.uint8] | None = None  # red, green, blue, shape (FINE, FINE, 3), upright
    lines: NDArray[np.uint8] | None = None  # for `sharpness`


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
    return _judged(picture, ending, facts)


def _to_working_size(size: tuple[int, int]) -> int:
    return reduction(size, (WORKING_SIDE, WORKING_SIDE), "fit")


def _judged(picture: Picture, ending: str, facts: File) -> File:
    (height, width), values = picture.size, picture.values
    levels = None
    if picture.deep:
        levels = extremes = _extremes(values)
        shown = toned(
            values, extremes if extremes[0] < extremes[1] else None
        )  # for looking at; one's own range will do
        values = repeated(reduce_by(as_bytes(shown), _to_working_size(picture.size)))
    facts = facts._replace(
        format=picture.format,
        width=width,
        height=height,
        notes=_notes(picture, ending, levels),
        levels=levels,
        window=picture.window,
    )
    # To a whole multiple of the size first, then down by the mean: as good as the mean at once, in half the time.
    multiple = FINE * max(1, min(4, min(values.shape[:2]) // FINE))
    pixels = cv2.resize(values, (multiple, multiple), interpolation=cv2.INTER_LINEAR)
    pixels = cv2.resize(pixels, (FINE, FINE), interpolation=cv2.INTER_AREA)
    some = pixels.tobytes()[::131]  # a few values say of nearly every picture that it is not blank
    if levels is not None:
        blank = levels[1] - levels[0] <= BLANK / 255 * max(map(abs, levels))
    else:
        blank = max(some) - min(some) <= 3 * BLANK and np.ptp(values, axis=(0, 1)).max() <= BLANK
    if blank:
        problem = "blank: fully transparent" if picture.alpha and pixels.min() == 255 else "blank: one colour all over"
        facts = facts._replace(problem=problem)
    return facts._replace(pixels=pixels, lines=_lines(values))  # type: ignore[arg-type]


def _extremes(values: NDArray) -> tuple[float, float]:
    """The smallest and the largest number of a deep image, whatever is not a number left out."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _notes(picture: Picture, ending: str, levels: tuple[float, float] | None) -> tuple[str, ...]:
    """What is unusual about the kind of file; it can be read all the same."""
    notes = []
    if ending not in ENDINGS_OF[picture.format]:
        notes.append(f"{picture.format} file named {ending or 'without an ending'}")
    if picture.frames > 1:
        notes.append("several pages" if picture.format == "TIFF" else "animated")
    if picture.alpha:
        notes.append("alpha")
    if picture.mode in ("P", "PA"):
        notes.append("palette")
    if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(picture.mode)
    if levels is not None:
        sixteen = picture.values.dtype == np.uint16
        notes.append("16-bit" if sixteen else "32-bit")
        if sixteen and levels[1] < LITTLE * 65535:
            notes.append(f"uses {max(1, round(100 * levels[1] / 65535))} % of its 16-bit range")
    if picture.turn != 1:
        notes.append("rotated by EXIF")
    return tuple(notes)


def _lines(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows and columns spread over the picture, their middle parts, in green: enough to see a blur by."""
    height, width, _ = values.shape
    length = min(height, width, LONGEST_LINE)
    length -= length % PIECE if length > PIECE else 0
    top, left = (height - length) // 2, (width - length) // 2
    rows, columns = (np.arange(1, LINES + 1) * side // (LINES + 1) for side in (height, width))
    across, down = values[rows, left : left + length, 1], values[top : top + length, columns, 1]
    return np.concatenate([across, down.T])


def sharpness(lines: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """How strong the finest structure is against the next coarser, where there is most of it: blur takes it away.

    About 1 in a sharp picture and 0.45 in a blurred one, whatever its contrast; a blurred background does not count.

    Args:
        lines: The lines of several pictures, all of one length.
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

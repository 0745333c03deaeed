"""Reads one image file, once, and says what is wrong with it; never raises, whatever the file holds."""

import hashlib
import io
import os
import stat
import struct
import threading
import zlib
from contextlib import nullcontext
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from cnnlab.audit import jpeg
from cnnlab.audit.register import FINE

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF")
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
}
OTHERS = {  # what files named like images often are instead: first bytes, from where, name
    b"%PDF": (0, "a PDF document"),
    b"PK\x03\x04": (0, "a ZIP archive"),
    b"8BPS": (0, "a Photoshop file"),
    b"ftypavif": (4, "an AVIF image; convert it to JPEG or PNG"),
    b"ftyphei": (4, "a HEIC image; convert it to JPEG or PNG"),
    b"ftypmif1": (4, "a HEIC image; convert it to JPEG or PNG"),
    b"\x00\x00\x00\x0cjP": (0, "a JPEG 2000 image; convert it to JPEG or PNG"),
    b"<": (0, "text that starts like HTML, XML or SVG"),
    b"{": (0, "text that starts like JSON"),
}
FAMILY = {"MPO": "JPEG", "DIB": "BMP"}
MAX_PIXELS = 89_478_485  # Pillow's own limit for a picture that may be a bomb
MAX_BYTES = 512 * 2**20
LARGE = 8_000_000  # pixels, or bytes of file: from here on one at a time, so that threads do not add up
WORKING_SIDE = 160  # pixels: images are looked at with a shorter side of this to twice this, or as small as they are
LINES, LONGEST_LINE, PIECE = 12, 192, 24  # rows, and columns, looked at for blur; their pixels; pieces of them
BLANK = 4  # grey levels between the darkest and the brightest value of an image that shows nothing
TURNS = {  # what makes a picture upright, by its EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_one_at_a_time = threading.Lock()


class File(NamedTuple):
    """What one file holds; the facts are empty where it cannot be read."""

    problem: str = ""
    notes: tuple[str, ...] = ()
    digest: bytes = b""  # of all bytes
    bytes: int = 0
    format: str = ""
    width: int = 0
    height: int = 0
    pixels: NDArray[np.uint8] | None = None  # red, green, blue, shape (FINE, FINE, 3), upright
    lines: NDArray[np.uint8] | None = None  # for `sharpness`


def read(path: str) -> File:
    """Reads and judges the file at `path`."""
    try:
        status = os.stat(path)  # noqa: PTH116  (a str: half the time of a Path, for every file)
        if not stat.S_ISREG(status.st_mode):
            return File("not a file: a folder" if stat.S_ISDIR(status.st_mode) else "not a file")
        if status.st_size > MAX_BYTES:
            return File(f"too large: {status.st_size / 2**20:,.0f} MB", bytes=status.st_size)
        with _one_at_a_time if status.st_size > LARGE else nullcontext():
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123
                data = file.readall()
            facts = File(digest=hashlib.sha256(data).digest(), bytes=len(data))
            return _judge(data, os.path.splitext(path)[1].lower(), facts)  # noqa: PTH122
    except FileNotFoundError:
        return File("missing: there is no such file")
    except OSError as error:
        return File(f"unreadable: {error.strerror or error}")
    except ValueError as error:  # a path with a null character
        return File(f"unreadable: {error}")


def _judge(data: bytes, ending: str, facts: File) -> File:
    """Opens, checks the declared size, and only then decodes."""
    if not data:
        return facts._replace(problem="empty: 0 bytes")
    try:
        _refuse_bombs(*_declared_by_webp(data))
        image = _opened(data)
        _refuse_bombs(*image.size)
        kind, width, height = FAMILY.get(image.format or "", image.format or ""), *image.size
        facts = facts._replace(format=kind, width=width, height=height, notes=_notes(image, kind, data, ending))
        with _one_at_a_time if len(data) <= LARGE < width * height else nullcontext():
            return _decoded(image, data, facts)
    except Exception as error:  # decoders raise every kind of error on broken data
        return facts._replace(problem=_described(error, data))


def _opened(data: bytes) -> Image.Image:
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _refuse_bombs(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{width} × {height} pixels")


def _declared_by_webp(data: bytes) -> tuple[int, int]:
    """The size that a WebP file declares, since Pillow makes room for it before it can be asked; else 0, 0."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 0, 0
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return tuple(size & 0x3FFF for size in struct.unpack("<HH", data[26:30]))  # type: ignore[return-value]


def _described(error: Exception, data: bytes) -> str:
    """One phrase about why a file cannot be read."""
    words = " ".join(str(error).split())[:120]
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {words}" if "×" in words else "too large: more pixels than can be decoded safely"
    if isinstance(error, MemoryError):
        return "too large: not enough memory to decode it"
    if isinstance(error, UnidentifiedImageError):
        start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:16]
        for first_bytes, (at, name) in OTHERS.items():
            if start[at:].startswith(first_bytes):
                return f"not an image: {name}"
        known = (b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")
        return "damaged: its header cannot be read" if data.startswith(known) else "not an image"
    if "truncated" in words.lower() or "end of" in words.lower() or isinstance(error, EOFError):
        return f"truncated: {words}" if not words.lower().startswith("image file is") else "truncated"
    return f"damaged: {words or type(error).__name__}"


def _notes(image: Image.Image, kind: str, data: bytes, ending: str) -> tuple[str, ...]:
    """What is unusual about the kind of file; it can be read all the same."""
    notes = []
    if ending not in ENDINGS[kind]:
        notes.append(f"{kind} file named {ending or 'without an ending'}")
    if getattr(image, "is_animated", False):
        notes.append("several pages" if kind == "TIFF" else "animated")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        notes.append("alpha")
    if image.mode in ("P", "PA"):
        notes.append("palette")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(image.mode)
    if image.mode.startswith("I;16") or (kind == "PNG" and data[24] == 16):
        notes.append("16-bit")
    elif image.mode in ("I", "F"):
        notes.append("32-bit")
    if _orientation(image) in TURNS:
        notes.append("rotated by EXIF")
    return tuple(notes)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # broken metadata turns nothing
        return 1


def _decoded(image: Image.Image, data: bytes, facts: File) -> File:
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        decoded, problem = jpeg.decode(image, data, WORKING_SIDE)
    else:
        decoded, problem = None, _unfinished(data)
    if problem:
        return facts._replace(problem=problem)
    if decoded is None:
        image.draft(None, (WORKING_SIDE, WORKING_SIDE))  # for JPEG; others pass over it
        image.load()
    if "A" in image.getbands() and image.getchannel("A").getextrema()[1] == 0:
        return facts._replace(problem="blank: fully transparent")
    values = _working_copy(image if decoded is None else _wrapped(decoded))
    # To a whole multiple of the size first, then down by the mean: as good as the mean at once, in half the time.
    multiple = FINE * max(1, min(4, min(values.shape[:2]) // FINE))
    pixels = cv2.resize(values, (multiple, multiple), interpolation=cv2.INTER_LINEAR)
    pixels = cv2.resize(pixels, (FINE, FINE), interpolation=cv2.INTER_AREA)
    turn = TURNS.get(_orientation(image))
    if turn is not None:
        pixels = np.asarray(Image.fromarray(pixels).transpose(turn))
    some = pixels.tobytes()[::131]  # a few values say of nearly every picture that it is not blank
    if max(some) - min(some) <= 3 * BLANK and np.ptp(values, axis=(0, 1)).max() <= BLANK:
        facts = facts._replace(problem="blank: one colour all over")
    return facts._replace(pixels=pixels, lines=_lines(values))  # type: ignore[arg-type]


def _lines(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows and columns spread over the picture, their middle parts, in green: enough to see a blur by."""
    height, width, _ = values.shape
    length = min(height, width, LONGEST_LINE)
    length -= length % PIECE if length > PIECE else 0
    top, left = (height - length) // 2, (width - length) // 2
    rows, columns = (np.arange(1, LINES + 1) * side // (LINES + 1) for side in (height, width))
    across, down = values[rows, left : left + length, 1], values[top : top + length, columns, 1]
    return np.concatenate([across, down.T])


def _unfinished(data: bytes) -> str:
    """Damage that Pillow passes over: wrong checksums in a PNG, a file that ends before it says it does."""
    if data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        return "truncated: the file is shorter than it declares"
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ""
    at = 8
    while at + 12 <= len(data):
        size, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        body = memoryview(data)[at + 4 : at + 8 + size]
        if len(body) < 4 + size:
            break
        wanted = int.from_bytes(data[at + 8 + size : at + 12 + size])
        if name in (b"IHDR", b"PLTE", b"IDAT", b"IEND") and zlib.crc32(body) != wanted:
            return f"damaged: the checksum of its {name.decode()} data is wrong"
        at += 12 + size
        if name == b"IEND":
            return ""
    return "truncated: the end of the picture is missing"


def _wrapped(pixels: NDArray[np.uint8]) -> Image.Image:
    """Pixels as a picture, without a copy."""
    height, width, channels = pixels.shape
    mode = "L" if channels == 1 else "RGB"
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)  # type: ignore[arg-type]


def _working_copy(image: Image.Image) -> NDArray[np.uint8]:
    """The picture in 8-bit red, green and blue, reduced by a whole number to about `WORKING_SIDE`."""
    if image.width * image.height > LARGE:  # thinned out before it is converted, to need no second large picture
        step = max(1, min(image.size) // (4 * WORKING_SIDE))
        image = image.resize((image.width // step, image.height // step), Image.Resampling.NEAREST)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0, neginf=0)
        low, high = min(values.min(), 0), max(values.max(), 255)
        image = Image.fromarray(((values - low) * (255 / (high - low))).astype(np.uint8))
    if image.mode != "RGB":
        image = image.convert("RGB")
    factor = min(image.size) // WORKING_SIDE
    if factor > 1:
        image = image.reduce(factor)
    # A third of the time of `np.asarray`, and read-only.
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)


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

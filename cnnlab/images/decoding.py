"""Bytes of a file, or a Pillow image, to pixels: upright, sRGB, on white where transparent; or a refusal in words."""

import io
import struct
import warnings
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from cnnlab.images import colours, jpeg, limits, optional_formats
from cnnlab.images.files import MAX_BYTES, MEMORY, UnreadableImageError
from cnnlab.images.levels import Levels
from cnnlab.images.sizing import reduce_by

# About sizes, which are checked here, and odd metadata. Once and for all: `catch_warnings` in the threads that read
# would leave the whole process with the filters of whichever thread happened to end last.
warnings.filterwarnings("ignore", module=r"PIL\.")

PLUGINS = (  # imported above, so that Pillow need not load all it has, PostScript included
    AvifImagePlugin, BmpImagePlugin, GifImagePlugin, Jpeg2KImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin,
    PpmImagePlugin, TiffImagePlugin, WebPImagePlugin,
)  # fmt: skip
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
FAMILY = {"MPO": "JPEG", "DIB": "BMP"}
ORIENTATION = 0x0112
SCALED = 100_000  # pixels; smaller JPEG files are decoded at full size, which takes no time worth saving
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # what makes a picture upright, by its EXIF orientation
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image.swapaxes(0, 1)[::-1],
}
Reduce = Callable[[tuple[int, int]], int]  # by how much an image of (height, width), upright, may shrink


class Picture(NamedTuple):
    """One decoded file."""

    values: np.ndarray  # uint8 (height, width, 3), reduced; of deep images their own numbers, full size
    format: str  # of FORMATS, or "" where it was no file
    mode: str  # Pillow's name for how its pixels are stored
    size: tuple[int, int]  # height and width of the whole, upright
    turn: int  # EXIF orientation, 1 to 8
    frames: int  # 2 where there are several
    alpha: bool
    window: Levels | None = None  # the levels that a DICOM image asks to be seen in

    @property
    def deep(self) -> bool:
        """Whether the values are not 8-bit ones."""
        return self.values.dtype != np.uint8


def decode(data: bytes, reduce: Reduce = lambda size: 1, *, name: str = "the bytes given") -> Picture:
    """Decodes the bytes of a file, reduced by the 1, 2, 4 … that `reduce` gives for its height and width.

    Raises:
        UnreadableImageError: If it is not an image, damaged, or too large, whatever the decoder raised.
    """
    if not data:
        raise UnreadableImageError("empty: 0 bytes", name)
    try:
        if data[:3] == jpeg.START:
            picture = _decode_jpeg(data, reduce, name)
            if picture is not None:
                return picture
        kind = optional_formats.needs_package(data)
        if kind:
            optional_formats.require_package(kind, name)
        if kind == "DICOM":
            return _decode_dicom(data, reduce, name)
        readable = (*FORMATS, kind) if kind else FORMATS
        limits.require_few_pieces(data, name)
        data = limits.with_plain_numbers(data, name)
        with MEMORY.hold(limits.taken_by_webp(data, name)), Image.open(io.BytesIO(data), formats=readable) as image:
            limits.require_whole(data, name)
            limits.require_plain_tiles(image, data, name)
            return _from_opened(image, reduce, name, data)
    except UnreadableImageError:
        raise
    except Exception as error:  # decoders raise every kind of error on broken data
        raise UnreadableImageError(limits.described(error, data), name) from error


def _decode_dicom(data: bytes, reduce: Reduce, name: str) -> Picture:
    dataset = optional_formats.open_dicom(data, name)
    size = int(dataset.Rows), int(dataset.Columns)
    frame = optional_formats.packed_frame(dataset)
    each = limits.BYTES["JPEG2000"] if frame else limits.DEEP_BYTES
    limits.require_sensible(size, each, name)
    if frame:
        _require_frame_of(size, frame, name)
    with MEMORY.hold(size[0] * size[1] * each):
        values, window = optional_formats.dicom_values(dataset)
    if values.dtype == np.uint8:
        values = reduce_by(values, reduce(size))
    frames = min(2, int(dataset.get("NumberOfFrames") or 1))
    return Picture(values, "DICOM", dataset.PhotometricInterpretation, size, 1, frames, alpha=False, window=window)


def _require_frame_of(size: tuple[int, int], frame: bytes, name: str) -> None:
    """Refuses the compressed frame of a DICOM file that would unfold to more than its header says."""
    declared = declared_size(frame)
    if frame[:3] == jpeg.START:
        jpeg.require_few_scans(frame, jpeg.header(frame, name), name)
    elif declared is not None:
        with Image.open(io.BytesIO(frame), formats=FORMATS) as image:
            limits.require_plain_tiles(image, frame, name)
    elif len(frame) > 2**16 + 12 * size[0] * size[1]:  # packed by run lengths
        raise UnreadableImageError("damaged: it has more data than pixels", name)
    if declared not in (None, size):
        raise UnreadableImageError("damaged: its header contradicts itself", name)


def _decode_jpeg(data: bytes, reduce: Reduce, name: str) -> Picture | None:
    """The fast way; None where Pillow has to decode."""
    head = jpeg.header(data, name)
    jpeg.require_few_scans(data, head, name)
    if head is None or not jpeg.is_usual(head):
        return None
    size = head.height, head.width
    stored = 3 if head.at_once else 9  # others are held twice, as numbers of 16 bits and as pixels
    limits.require_sensible(size, stored, name)
    turn = orientation(head.exif)
    seen = turned_size(size, turn)
    factor = reduce(seen)
    at_once = min(factor, 8) if size[0] * size[1] >= SCALED else 1
    with MEMORY.hold(size[0] * size[1] * (stored - 3) + 3 * size[0] * size[1] // at_once**2):
        values = jpeg.decode(data, head, at_once, name)
        if len(head.layers) == 4:  # Pillow knows when it is stored inverted
            return None
        values = reduce_by(colours.to_srgb(values, head.profile), factor // at_once)
        mode = "L" if len(head.layers) == 1 else "RGB"
        return Picture(upright(values, turn), "JPEG", mode, seen, turn, 1, alpha=False)


def declared_size(data: bytes) -> tuple[int, int] | None:
    """Height and width from the header alone, before any EXIF turn; None where it cannot be made out."""
    try:
        if data[:3] == jpeg.START:
            head = jpeg.header(data)
            return None if head is None else (head.height, head.width)
        limits.require_few_pieces(data, "")
        with MEMORY.hold(limits.taken_by_webp(data, "")), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.height, image.width
    except Exception:  # Pillow raises many kinds; decoding will say what is wrong
        return None


def from_pillow(image: Image.Image, reduce: Reduce) -> Picture:
    """The pixels of a Pillow image, as `decode` gives them of its file; of one not yet touched, its file is decoded."""
    name = "the Pillow image"
    try:
        data = _bytes_behind(image)
        return decode(data, reduce, name=name) if data else _from_opened(image, reduce, name, b"")
    except UnreadableImageError:
        raise
    except Exception as error:
        raise UnreadableImageError(limits.described(error, b""), name) from error


def _from_opened(image: Image.Image, reduce: Reduce, name: str, data: bytes) -> Picture:
    size = image.height, image.width
    kind = FAMILY.get(image.format or "", image.format or "")
    each = limits.BYTES.get(kind, limits.DEEP_BYTES if image.mode[0] in "IF" else 7)
    limits.require_sensible(size, each, name)
    several = bool(getattr(image, "is_animated", False))
    alpha, mode = colours.has_alpha(image), image.mode
    held = 0 if kind == "WEBP" and data else size[0] * size[1] * each
    with MEMORY.hold(held):
        if data:
            limits.require_all_rows(image, name)
        limits.require_colours_together(image, name)
        deep_colour = bool(data) and _is_deep_colour(image)
        turn = _orientation_of(image)  # for which Pillow loads a PNG, and forgets how it is stored
        to_turn = 1 if kind == "TIFF" else turn  # Pillow turns a TIFF itself
        seen = turned_size(size, to_turn)
        image.load()
        values = _deep_values(image, kind, data if deep_colour else b"")
        if values is None:
            values = colours.to_rgb(image, reduce(seen))
    return Picture(upright(values, to_turn), kind, mode, seen, turn, 1 + several, alpha)


def _bytes_behind(image: Image.Image) -> bytes:
    """The file of an image that was opened and not yet loaded, where its pixels would be others: else b"".

    Those of a large JPEG file are decoded at reduced size, Pillow keeps 8 bits of colours of 16, and of a TIFF that it
    maps from the disk and has to turn it mixes up the rows.
    """
    file = getattr(image, "fp", None)
    if not isinstance(image, ImageFile.ImageFile) or not image.tile or file is None or image.tell() != 0:
        return b""
    large = isinstance(image, JpegImagePlugin.JpegImageFile) and image.width * image.height >= SCALED
    turned = isinstance(image, TiffImagePlugin.TiffImageFile) and _orientation_of(image) != 1
    if not (large or turned or _is_deep_colour(image)):
        return b""
    position = file.tell()
    file.seek(0)
    data = file.read(MAX_BYTES)
    file.seek(position)
    return data


def _deep_values(image: Image.Image, kind: str, data: bytes) -> np.ndarray | None:
    """The numbers of a loaded image of more than 8 bits, shape (height, width, 1 or 3); None of any other.

    `data` is the file, where that has 16 bits a colour, of which Pillow keeps 8.
    """
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.uint16)[..., None]
        return 65535 - grey if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 else grey  # 0 is white
    if image.mode in ("I", "F"):
        return np.asarray(image, dtype=np.uint16 if kind == "PPM" and image.mode == "I" else None)[..., None]
    if not data:
        return None
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.ndim != 3 or deep.shape[2] not in (3, 4):
        return None
    values = deep[..., 2::-1]
    if deep.shape[2] == 4 and image.mode == "RGBA":  # else a fourth channel, such as infrared
        share = deep[..., 3:].astype(np.float32) / 65535
        shown = values if tags.get(TiffImagePlugin.EXTRASAMPLES) == (1,) else values * share  # 1: multiplied before
        values = np.clip(np.rint(shown + 65535 * (1 - share)), 0, 65535).astype(np.uint16)
    return np.ascontiguousarray(values)


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether a file with 16 bits a colour lies behind an image of 8, and no profile that only 8 bits can follow."""
    if image.mode not in ("RGB", "RGBA") or colours.has_profile(image):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return set(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, ())) == {16}
    return isinstance(image, PngImagePlugin.PngImageFile) and any("16B" in str(tile[3]) for tile in image.tile)


def turned_size(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """Height and width of a picture once it is upright."""
    return (size[1], size[0]) if turn >= 5 else size


def upright(values: np.ndarray, turn: int) -> np.ndarray:
    """The picture as it is meant to be seen."""
    return np.ascontiguousarray(TURNS[turn](values)) if turn in TURNS else values


def orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where the data say nothing, or nothing that makes sense."""
    exif = exif[6:] if exif[:6] == b"Exif\0\0" else exif
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 14:
        return 1
    (start,) = struct.unpack_from(order + "I", exif, 4)
    if start + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(order + "H", exif, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, number, value = struct.unpack_from(order + "HHIH", exif, at)
        if tag == ORIENTATION:
            return value if kind == 3 and number == 1 and 1 <= value <= 8 else 1
    return 1


def _orientation_of(image: Image.Image) -> int:
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            return int(image.tag_v2.get(ORIENTATION, 1))
        exif = image.info.get("exif")
        found = orientation(exif) if isinstance(exif, bytes) else int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # broken metadata turns nothing
        return 1
    return found if found in TURNS else 1

"""Any image file to uint8 RGB, and to the size of a network: one way for training, evaluation and serving."""

import io
import os
import struct
import warnings
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

# About sizes, which are checked here, and odd metadata. Once and for all: `catch_warnings` in the threads that read
# would leave the whole process with the filters of whichever thread happened to end last.
warnings.filterwarnings("ignore", module=r"PIL\.")

Resize = Literal["fit", "pad", "stretch"]
Source = str | os.PathLike[str] | bytes

RESIZES = ("fit", "pad", "stretch")
LARGEST = 178_956_970  # pixels; a larger header is a mistake or an attack (Pillow's own limit)
JPEG = b"\xff\xd8\xff"
# At 1/2, 1/4 and 1/8 the JPEG decoder does the averaging itself, and most of the work falls away. 16 | 256 and so on:
# OpenCV's IMREAD_REDUCED_* and IMREAD_COLOR_RGB in one.
JPEG_FLAGS = {factor: code | cv2.IMREAD_COLOR_RGB for factor, code in ((1, 0), (2, 16), (4, 32), (8, 64))}
FRAME_HEADERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


class UnreadableImageError(ValueError):
    """A file that is no image, is cut short, or is larger than anyone means; the message says which."""


def read_image(source: Source, *, reduce: int = 1) -> np.ndarray:
    """Reads one image of any kind as RGB.

    JPEG, PNG, GIF, BMP, WEBP, TIFF and whatever else Pillow knows; of moving pictures the first frame. The EXIF
    orientation is applied. Grey and palette images become RGB, 16 bits become 8, transparent parts turn white.

    Args:
        source: A path, or the bytes of the file.
        reduce: 2, 4 or 8 gives the image at that fraction of its size, each pixel the average of a block; of JPEG
            files faster than the full size.

    Returns:
        uint8, 0-255, of shape (height, width, 3).

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableImageError: If it is no image, broken, or has more than 179 million pixels; a ValueError.

        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("L", (6, 4), 128).save(file, "PNG")
        >>> read_image(file.getvalue()).shape
        (4, 6, 3)
    """
    data = read_bytes(source)
    return decode(data, reduce=reduce, name=describe(source))


def read_bytes(source: Source) -> bytes:
    """The bytes of a file, read at one go."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"An image is read from a path or from bytes. Received: {type(source).__name__}.")
    with open(source, "rb", buffering=0) as file:  # noqa: PTH123  (half the time of Path.read_bytes, per image)
        return file.read()


def describe(source: Source) -> str:
    """What to call the source in a message."""
    return "the bytes given" if isinstance(source, (bytes, bytearray, memoryview)) else str(source)


def decode(data: bytes, *, reduce: int = 1, name: str = "the bytes given") -> np.ndarray:
    """Decodes the bytes of a file; as `read_image`."""
    if not data:
        raise UnreadableImageError(f"{name} is empty.")
    if data[:3] == JPEG:
        image = _decode_jpeg(data, reduce, name)
        if image is not None:
            return image
    return reduce_by(_decode_any(data, name), reduce)


def _decode_jpeg(data: bytes, reduce: int, name: str) -> np.ndarray | None:
    """The fast way; None where the strict one has to judge."""
    size = jpeg_size(data)
    if size is None or b"\xff\xd9" not in data[-4096:]:  # cut short: OpenCV would fill up with grey and say nothing
        return None
    _require_sensible(size, name)
    return cv2.imdecode(np.frombuffer(data, np.uint8), JPEG_FLAGS[reduce])


def _decode_any(data: bytes, name: str) -> np.ndarray:
    """The thorough way, through Pillow."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            _require_sensible((image.height, image.width), name)
            _require_all_rows(image, name)
            image.load()
            return np.ascontiguousarray(_to_rgb(ImageOps.exif_transpose(image)))
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError(f"{name} is no image of a kind that can be read ({len(data):,} bytes).") from None
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"{name} is refused: {error}") from None
    except (OSError, SyntaxError, ValueError, IndexError, struct.error, EOFError, MemoryError) as error:
        raise UnreadableImageError(f"{name} is broken: {error}.") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_to_rgb(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return np.asarray(image.convert("RGB"))


def _deep_to_rgb(grey: np.ndarray) -> np.ndarray:
    """16-bit and float grey levels: 65535 is white; floats are taken as 0-1 or 0-255, whichever holds them."""
    if grey.dtype.kind == "f":
        grey = np.nan_to_num(grey) * (255.0 if np.nanmax(grey, initial=0.0) <= 1 else 1.0)
    else:
        grey = grey.astype(np.float32) / 257.0
    return np.repeat(np.clip(np.rint(grey), 0, 255).astype(np.uint8)[..., None], 3, axis=-1)


def _require_sensible(size: tuple[int, int], name: str) -> None:
    height, width = size
    if height * width > LARGEST:
        raise UnreadableImageError(
            f"{name} claims {width:,} × {height:,} pixels; more than {LARGEST:,} are refused unread, since a small "
            "file may unfold to more than the memory of this machine. Scale it down with a trusted tool first."
        )
    if height * width == 0:
        raise UnreadableImageError(f"{name} has no pixels.")


def _require_all_rows(image: Image.Image, name: str) -> None:
    """Refuses a TIFF that has no data for its last rows, which Pillow fills up with black and says nothing."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        rows = image.tag_v2[TiffImagePlugin.IMAGELENGTH]  # `height` may be that of the image after its EXIF turn
        there = max((extents[3] for _, extents, *_ in image.tile if extents), default=0)
        if there < rows:
            raise UnreadableImageError(f"{name} is broken: it has data for {there:,} of its {rows:,} rows.")


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width from a JPEG's header, before any EXIF turn; None where it cannot be made out."""
    position, end = 2, len(data) - 8
    while position < end:
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in WITHOUT_LENGTH:
            position += 2
        elif marker in FRAME_HEADERS:
            return (data[position + 5] << 8) | data[position + 6], (data[position + 7] << 8) | data[position + 8]
        else:
            position += 2 + ((data[position + 2] << 8) | data[position + 3])
    return None


def image_size_of(data: bytes) -> tuple[int, int] | None:
    """Height and width from the header alone, before any EXIF turn; None where it cannot be made out."""
    if data[:3] == JPEG:
        return jpeg_size(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.height, image.width
    except Exception:  # Pillow raises many kinds; decoding will say what is wrong
        return None


def reduction(size: tuple[int, int] | None, image_size: tuple[int, int], resize: str, detail: float = 1.0) -> int:
    """The largest of 1, 2, 4, 8 … by which an image may shrink and still hold every pixel that the result needs.

    Args:
        size: Height and width of the image, before any EXIF turn.
        image_size: Height and width of the result.
        resize: `"fit"`, `"pad"` or `"stretch"`.
        detail: How far the result may be enlarged by augmentation.
    """
    if size is None:
        return 1
    (height, width), (to_height, to_width) = size, image_size
    steps = []
    for tall, wide in ((height, width), (width, height)):  # an EXIF turn may swap the sides
        pick = max if resize == "pad" else min
        steps.append(pick(tall / to_height, wide / to_width))
    step, factor = min(steps) / detail, 1
    while factor * 2 <= step:
        factor *= 2
    return factor


def reduce_by(image: np.ndarray, factor: int) -> np.ndarray:
    """Averages blocks of factor × factor pixels; what is left of a block at the right and the bottom is dropped."""
    if factor == 1:
        return image
    height, width = image.shape[0] // factor, image.shape[1] // factor
    if not height or not width:
        return image
    return cv2.resize(image[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA)


def windows(size: tuple[int, int], image_size: tuple[int, int], resize: str) -> tuple[Any, Any]:
    """Which part of the image lands on which part of the result: two of (left, top, width, height), whole pixels."""
    (height, width), (to_height, to_width) = size, image_size
    source, target = (0, 0, width, height), (0, 0, to_width, to_height)
    step_x, step_y = width / to_width, height / to_height
    if resize == "fit":
        step = min(step_x, step_y)
        w, h = min(width, max(1, round(to_width * step))), min(height, max(1, round(to_height * step)))
        source = ((width - w) // 2, (height - h) // 2, w, h)
    elif resize == "pad":
        step = max(step_x, step_y)
        w, h = min(to_width, max(1, round(width / step))), min(to_height, max(1, round(height / step)))
        target = ((to_width - w) // 2, (to_height - h) // 2, w, h)
    return source, target


@lru_cache(maxsize=4096)
def base_matrix(size: tuple[int, int], image_size: tuple[int, int], resize: str) -> np.ndarray:
    """The resize as an affine map from pixels of the result to pixels of the image, shape (2, 3); not to be changed."""
    (left, top, width, height), (to_left, to_top, to_width, to_height) = windows(size, image_size, resize)
    x, y = width / to_width, height / to_height
    return np.array(
        [[x, 0.0, left - 0.5 + (0.5 - to_left) * x], [0.0, y, top - 0.5 + (0.5 - to_top) * y]], dtype=np.float64
    )


def resize(image: np.ndarray, image_size: tuple[int, int], mode: Resize = "fit") -> np.ndarray:
    """Brings one image to the size of a network.

    Blocks of 2, 4, 8 … pixels are averaged as long as enough remain, then neighbours are interpolated: sharp, and
    without the moiré of plain bilinear scaling. The same steps are behind `load`.

    Args:
        image: uint8, 0-255, of shape (any height, any width, 3).
        image_size: Height and width wanted.
        mode: `"fit"` fills the result and cuts off what does not fit, equally on both sides; `"pad"` shows everything,
            with black bars; `"stretch"` shows everything, distorted.

    Returns:
        uint8, of shape (height, width, 3).

        >>> resize(np.zeros((30, 40, 3), np.uint8), (10, 10)).shape
        (10, 10, 3)
    """
    require_image(image)
    factor = reduction(image.shape[:2], image_size, mode)
    return _resample(reduce_by(image, factor), image_size, mode)


def _resample(image: np.ndarray, image_size: tuple[int, int], mode: str) -> np.ndarray:
    if image.shape[:2] == tuple(image_size):
        return image
    (left, top, width, height), (to_left, to_top, to_width, to_height) = windows(image.shape[:2], image_size, mode)
    part = image[top : top + height, left : left + width]
    part = cv2.resize(part, (to_width, to_height), interpolation=cv2.INTER_LINEAR)
    if part.shape[:2] == tuple(image_size):
        return part
    result = np.zeros((*image_size, 3), np.uint8)
    result[to_top : to_top + to_height, to_left : to_left + to_width] = part
    return result


def prepare(source: Source | np.ndarray, image_size: tuple[int, int], mode: Resize = "fit") -> np.ndarray:
    """One image exactly as `load` hands it to a network for evaluation: what serving calls.

    Args:
        source: A path, the bytes of a file, or an image as `read_image` returns it.
        image_size: Height and width wanted.
        mode: As for `resize`.

    Returns:
        uint8, 0-255, of shape (height, width, 3). Of a large JPEG file, which is decoded at reduced scale, it
        differs from `resize(read_image(path), ...)` by a fraction of a grey level.
    """
    if isinstance(source, np.ndarray):
        return resize(source, image_size, mode)
    return prepare_bytes(read_bytes(source), image_size, mode, name=describe(source))


def prepare_bytes(data: bytes, image_size: tuple[int, int], mode: str, *, name: str) -> np.ndarray:
    """As `prepare`, from the bytes of a file."""
    return _resample(reduced(data, image_size, mode, name=name), image_size, mode)


def reduced(data: bytes, image_size: tuple[int, int], mode: str, *, detail: float = 1.0, name: str) -> np.ndarray:
    """Decodes to the smallest size that holds all that the result needs, enlarged by `detail` at most."""
    if data[:3] != JPEG:
        image = decode(data, name=name)
        return reduce_by(image, reduction(image.shape[:2], image_size, mode, detail))
    factor = reduction(jpeg_size(data), image_size, mode, detail)
    at_once = min(factor, 8)
    return reduce_by(decode(data, reduce=at_once, name=name), factor // at_once)


def require_image(image: np.ndarray) -> None:
    """Refuses what is no RGB image of bytes."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8:
        received = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            "An image is expected as uint8, 0-255, of shape (height, width, 3), as `read_image` returns. "
            f"Received: {received}."
        )

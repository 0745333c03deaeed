"""`read`, and `prepare`: one image exactly as a network gets it, in training, evaluation and use."""

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from cnnlab._common import is_whole
from cnnlab.images import colours, sizing
from cnnlab.images.decoding import Picture, Reduce, decode, from_pillow
from cnnlab.images.files import MAX_BYTES, MEMORY, UnreadableImageError, read_file
from cnnlab.images.levels import OVERSHOOT, Levels, require_levels
from cnnlab.images.sizing import RESIZES, Resize

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray


@dataclass(frozen=True)
class Preparation:
    """How images are brought to a network: it belongs to the model, and is saved with it.

    Args:
        image_size: Height and width, in pixels.
        channels: 3 for colour, 1 for brightness (ITU-R 601).
        resize: `"fit"` cuts off what does not fit, `"pad"` adds black bars, `"stretch"` distorts.
        levels: Which values of deep images (more than 8 bits) become 0 and 255; None where there are none.

        >>> Preparation((96, 96)).to_dict()
        {'image_size': [96, 96], 'channels': 3, 'resize': 'fit', 'levels': None}
    """

    image_size: tuple[int, int]
    channels: int = 3
    resize: Resize = "fit"
    levels: Levels | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", require_image_size(self.image_size))
        object.__setattr__(self, "levels", require_levels(self.levels))
        if isinstance(self.channels, bool) or self.channels not in (1, 3):
            raise ValueError(f"`channels` must be 3 (colour) or 1 (grey). Received: channels={self.channels!r}.")
        if not isinstance(self.resize, str) or self.resize not in RESIZES:
            raise ValueError(
                f"`resize` must be one of {', '.join(map(repr, RESIZES))}. Received: resize={self.resize!r}."
            )

    def to_dict(self) -> dict[str, Any]:
        """As plain lists, numbers and text, for a JSON file."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Any) -> "Preparation":
        """What `to_dict` gave, checked as if a stranger had written it.

        Raises:
            ValueError: If it is something else.
        """
        names = {"image_size", "channels", "resize", "levels"}
        if not isinstance(values, dict) or "image_size" not in values or not set(values) <= names:
            raise ValueError(
                f"A preparation is a dictionary with {', '.join(sorted(names))}. Received: {values!r:.200}."
            )
        return cls(**values)


def require_image_size(image_size: object) -> tuple[int, int]:
    """Refuses what is no (height, width) in whole pixels from 1."""
    sides = image_size if isinstance(image_size, (tuple, list)) else ()
    whole = [isinstance(side, (int, np.integer)) and not isinstance(side, bool) and side >= 1 for side in sides]
    if whole != [True, True]:
        raise ValueError(
            "`image_size` must be (height, width) in whole pixels of at least 1, for example (96, 96). "
            f"Received: image_size={image_size!r}."
        )
    return int(sides[0]), int(sides[1])


def read(source: Source, *, levels: Levels | None = None, reduce: int = 1) -> np.ndarray:
    """Reads one image of any kind as RGB.

    JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM, AVIF and JPEG 2000; of moving pictures the first frame. The EXIF orientation
    is applied, colour profiles become sRGB, grey, palette and CMYK images become RGB, transparent parts turn white.

    Args:
        source: A path, the bytes of a file, a file opened with "rb", a Pillow image, or an array or tensor of 0-255; of
            uint16, where `levels` are given, one of these.
        levels: Of deep images (16-bit, 32-bit, float) the values that become 0 and 255: the same for a whole data set.
        reduce: 2, 4 or 8 gives the image at that fraction of its size, each pixel the average of a block; of large
            JPEG files faster than the full size.

    Returns:
        uint8, 0-255, of shape (height, width, 3). A deep image read without levels comes as float32, so that nothing is
        lost: 65535 is 255; floats are taken as 0-1 or 0-255, whichever holds them (for a network as 0-1 only).

    Raises:
        FileNotFoundError: If there is no such file.
        UnreadableImageError: If it is not an image, damaged, or too large; a ValueError.
        ValueError: If `reduce` is another number.

        >>> read(np.zeros((4, 6), np.uint8)).shape
        (4, 6, 3)
    """
    if not is_whole(reduce) or reduce not in (1, 2, 4, 8):
        raise ValueError(f"`reduce` expects 1, 2, 4 or 8. Received: {reduce!r}.")
    return read_reduced(source, lambda size: reduce, require_levels(levels))


def read_reduced(
    source: Source, reduce: Reduce, levels: Levels | None, name: str = "", *, strict: bool = False
) -> np.ndarray:
    """As `read`, reduced as a function of (height, width) says; float32 only of a deep image read without levels.

    Where it is `strict`, numbers without levels are 0 to 65535, floats 0 to 1, in every file; others are refused.
    """
    picture = decoded(source, reduce, name, deep_arrays=levels is not None)
    if not picture.deep:
        return picture.values
    if strict and levels is None and picture.window is None:
        low, high = colours.reach(picture.values)
        if low < -OVERSHOOT or high > (1 + OVERSHOOT if picture.values.dtype.kind == "f" else 65535):
            raise UnreadableImageError(
                f"its numbers reach from {low:.6g} to {high:.6g}, and nothing says which are black and white. Pass "
                "`levels=(low, high)` for the whole data set, or let `audit.scan` find them",
                name or (os.fspath(source) if isinstance(source, str | os.PathLike) else "the image"),
            )
    with MEMORY.hold(4 * picture.values.size if levels is None else picture.values.size):
        values = sizing.reduce_by(colours.toned(picture.values, levels, picture.window), reduce(picture.size))
    return colours.repeated(values)


def decoded(source: Source, reduce: Reduce, name: str, *, deep_arrays: bool = False) -> Picture:
    """What a source holds, with what is known about it; arrays of uint16 may be deep images."""
    if hasattr(source, "read"):  # a file that somebody has opened
        source = source.read(MAX_BYTES + 1)
        if not isinstance(source, bytes) or len(source) > MAX_BYTES:
            raise UnreadableImageError(
                "not an image: expected a file opened with 'rb', of at most 512 MiB", name or "the file given"
            )
    if isinstance(source, (bytes, bytearray, memoryview)):
        return decode(bytes(source), reduce, name=name or "the bytes given")
    if isinstance(source, (str, os.PathLike)):
        return decode(read_file(source), reduce, name=os.fspath(source))
    if isinstance(source, Image.Image):
        return from_pillow(source, reduce)
    if not isinstance(source, np.ndarray) and hasattr(source, "__array__"):
        source = np.asarray(source)  # a tensor
    if not isinstance(source, np.ndarray):
        raise TypeError(
            "An image is read from a path, from bytes, from an open file, from a Pillow image, or from an array "
            f"(height, width, 3) of 0-255. Received: {type(source).__name__}."
        )
    deep = deep_arrays and source.dtype == np.uint16
    values = _from_array(source, deep)
    size = values.shape[0], values.shape[1]
    return Picture(values if deep else sizing.reduce_by(values, reduce(size)), "", "RGB", size, 1, 1, alpha=False)


def _from_array(image: np.ndarray, deep: bool) -> np.ndarray:
    """An array of 0-255 as uint8 RGB; one of a deep image as it is."""
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise ValueError(
            f"Expected an array (height, width, 3) or (height, width). Received the shape {image.shape}. Convert the "
            "image to RGB first."
        )
    if deep:
        return image
    if image.dtype.kind not in "iuf":
        raise TypeError(f"Expected an array of numbers 0-255. Received the dtype {image.dtype}.")
    if image.dtype != np.uint8:
        if not np.isfinite(image).all() or image.min() < 0 or image.max() > 255:
            raise ValueError(f"Expected pixels 0-255. Received values from {image.min()} to {image.max()}.")
        if image.size > 64 and 0 < image.max() <= 1 + OVERSHOOT:
            raise ValueError(
                "Expected pixels 0-255. Received values from 0 to 1: multiply by 255, the model rescales itself."
            )
        image = colours.as_bytes(image)
    return colours.repeated(image)


def prepare(source: Source, preparation: Preparation, *, name: str = "") -> np.ndarray:
    """One image exactly as `pipelines.load`, `experiments.predict` and `serving.Predictor` hand it to a network.

    Args:
        source: As for `read`.
        preparation: Size, channels, resize mode and levels; `models.preparation(model)` has those of a model.
        name: What to call bytes in a message.

    Returns:
        uint8, 0-255, of shape (height, width, channels). Of a large JPEG file, which is decoded at reduced scale, it
        differs from `resize(read(path), ...)` by a fraction of a grey level.

        >>> prepare(np.zeros((30, 40, 3), np.uint8), Preparation((10, 10), channels=1)).shape
        (10, 10, 1)
    """
    size, mode = preparation.image_size, preparation.resize
    image = read_reduced(
        source, lambda whole: sizing.reduction(whole, size, mode), preparation.levels, name, strict=True
    )
    image = sizing.resample(colours.as_bytes(image), size, mode)
    return colours.luma(image) if preparation.channels == 1 else image


def reduced(source: Source, size: tuple[int, int], mode: str, *, levels: Levels | None) -> np.ndarray:
    """Decodes to the smallest image that holds every pixel which one of that height and width needs; uint8."""
    return colours.as_bytes(read_reduced(source, lambda whole: sizing.reduction(whole, size, mode), levels))

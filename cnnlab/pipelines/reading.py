"""Names of before there was `cnnlab.images`; they go with version 0.3."""

from typing import Any

import numpy as np

from cnnlab import images
from cnnlab.images.decoding import declared_size
from cnnlab.images.files import UnreadableImageError, read_file
from cnnlab.images.preparing import reduced
from cnnlab.images.sizing import RESIZES, Resize, base_matrix, reduce_by, reduction, resample, resize, windows

__all__ = [
    "RESIZES", "Resize", "UnreadableImageError", "base_matrix", "image_size_of", "prepare", "prepare_bytes",
    "read_bytes", "read_image", "reduce_by", "reduced", "reduction", "resample", "resize", "windows",
]  # fmt: skip

read_image = images.read
read_bytes = read_file
image_size_of = declared_size


def prepare(source: Any, image_size: tuple[int, int], mode: Resize = "fit") -> np.ndarray:
    """`images.prepare`, of before there was `images.Preparation`.

    >>> prepare(np.zeros((30, 40, 3), np.uint8), (10, 10)).shape
    (10, 10, 3)
    """
    return images.prepare(source, images.Preparation(image_size, resize=mode))


def prepare_bytes(data: bytes, image_size: tuple[int, int], mode: Any, *, name: str) -> np.ndarray:
    """As `prepare`, from the bytes of a file."""
    return images.prepare(data, images.Preparation(image_size, resize=mode), name=name)

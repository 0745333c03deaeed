"""Any size to the size of a network: blocks of pixels averaged, then neighbours interpolated."""

from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np

Resize = Literal["fit", "pad", "stretch"]
RESIZES = ("fit", "pad", "stretch")


def reduction(size: tuple[int, int], image_size: tuple[int, int], resize: str, detail: float = 1.0) -> int:
    """The largest of 1, 2, 4, 8 … by which an image may shrink and still hold every pixel that the result needs.

    `detail` says how far augmentation may enlarge the result.
    """
    (height, width), (to_height, to_width) = size, image_size
    pick = max if resize == "pad" else min
    return power_of_two(pick(height / to_height, width / to_width) / detail)


def power_of_two(number: float) -> int:
    """The largest of 1, 2, 4, 8 … that is not above a number; 1 below 1."""
    return 1 << max(int(number).bit_length() - 1, 0)


def reduce_by(image: np.ndarray, factor: int) -> np.ndarray:
    """Averages blocks of factor × factor pixels; what is left of a block at the right and the bottom is dropped."""
    if factor == 1:
        return image
    height, width = image.shape[0] // factor, image.shape[1] // factor
    if not height or not width:
        return image
    image = image[: height * factor, : width * factor]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)


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
        image: uint8, or float32 of a deep image, 0-255, of shape (any height, any width, 3), as `read` returns.
        image_size: Height and width wanted.
        mode: `"fit"` fills the result and cuts off what does not fit, equally on both sides; `"pad"` shows everything,
            with black bars; `"stretch"` shows everything, distorted.

    Returns:
        Shape (height, width, 3), of the same type.

        >>> resize(np.zeros((30, 40, 3), np.uint8), (10, 10)).shape
        (10, 10, 3)
    """
    require_image(image)
    factor = reduction(image.shape[:2], image_size, mode)
    return resample(reduce_by(image, factor), image_size, mode)


def resample(image: np.ndarray, image_size: tuple[int, int], mode: str) -> np.ndarray:
    """Interpolates between neighbours to exactly the size wanted."""
    if image.shape[:2] == tuple(image_size):
        return image
    (left, top, width, height), (to_left, to_top, to_width, to_height) = windows(image.shape[:2], image_size, mode)
    part = image[top : top + height, left : left + width]
    part = cv2.resize(part, (to_width, to_height), interpolation=cv2.INTER_LINEAR)
    if part.shape[:2] == tuple(image_size):
        return part
    result = np.zeros((*image_size, 3), image.dtype)
    result[to_top : to_top + to_height, to_left : to_left + to_width] = part
    return result


def require_image(image: np.ndarray) -> None:
    """Refuses what is no RGB image of bytes, or of floats as deep images are read."""
    known = isinstance(image, np.ndarray) and image.dtype in (np.uint8, np.float32)
    if not known or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
        received = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(
            "An image is expected as uint8, 0-255, of shape (height, width, 3), as `images.read` returns. "
            f"Received: {received}."
        )

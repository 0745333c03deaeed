"""What sampled parameters mean for pixels: maps of places and colours, blurs, rectangles.

Functions that take `xp` work with numpy and with `keras.ops` alike, so that pipeline and layer share them.
"""

import math
from types import ModuleType
from typing import Any

import numpy as np

from cnnlab.augment.sampling import SampledParameters

GREY = 127.5
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG uses
FLIPS = {"flip_x", "flip_y"}
GEOMETRY = FLIPS | {"rotate", "zoom", "shift_x", "shift_y", "shear", "crop_width"}
COLOUR = {"brightness", "contrast", "saturation", "hue", "grayscale"}


def matrices(sampled: SampledParameters, image_size: tuple[int, int], xp: ModuleType) -> Any | None:
    """Affine maps from pixels of the result to pixels of the image at the same size; None without geometry.

    The picture is cropped, mirrored, turned counter-clockwise, sheared and zoomed about the centre, then shifted right
    and down. Shape (images, 6): x_from = a x + b y + c, y_from = d x + e y + f; whole numbers are centres of pixels.
    """
    active = GEOMETRY & sampled.keys()
    if not active:
        return None
    height, width = image_size
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    zero = sampled[min(active)] * 0.0
    one = zero + 1.0
    angle = sampled.get("rotate", zero) * (math.pi / 180)
    cos, sin = xp.cos(angle), xp.sin(angle)
    tan = xp.tan(sampled.get("shear", zero) * (math.pi / 180))
    shrink = one / sampled.get("zoom", one)
    # Inverse of the steps, last one first: shift, zoom and shear, turn, mirror, crop.
    scale_x = (1 - 2 * sampled.get("flip_x", zero)) * sampled.get("crop_width", one) * shrink
    scale_y = (1 - 2 * sampled.get("flip_y", zero)) * sampled.get("crop_height", one) * shrink
    a, b = scale_x * cos, scale_x * (cos * tan - sin)
    d, e = scale_y * sin, scale_y * (sin * tan + cos)
    from_x = center_x + sampled.get("shift_x", zero) * width
    from_y = center_y + sampled.get("shift_y", zero) * height
    to_x = sampled.get("crop_x", one * 0.5) * width - 0.5
    to_y = sampled.get("crop_y", one * 0.5) * height - 0.5
    return xp.stack([a, b, to_x - a * from_x - b * from_y, d, e, to_y - d * from_x - e * from_y], axis=-1)


def colours(sampled: SampledParameters, xp: ModuleType) -> tuple[Any | None, Any, Any] | None:
    """Matrix, gain and offset of `pixel @ matrix.T * gain + offset`; None without colour operations.

    The matrix, of shape (images, 3, 3), is None where channels are not mixed; it leaves greys alone.
    """
    active = COLOUR & sampled.keys()
    if not active:
        return None
    zero = sampled[min(active)] * 0.0
    gain = sampled.get("contrast", zero + 1.0)
    offset = gain * (sampled.get("brightness", zero) - GREY) + GREY
    if not {"saturation", "hue", "grayscale"} & active:
        return None, gain, offset
    eye, ones = np.eye(3), np.ones((3, 3)) / 3
    luma = np.tile(np.asarray(LUMA), (3, 1))
    axis = np.asarray([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)

    def times(factor: Any, constant: Any) -> Any:
        constant = constant if xp is np else xp.convert_to_tensor(constant, dtype="float32")
        return factor[:, None, None] * constant

    saturation = sampled.get("saturation", zero + 1.0)
    matrix = times(saturation, eye) + times(1 - saturation, luma)
    if "hue" in active:  # a turn about the grey axis
        cos, sin = xp.cos(sampled["hue"] * 2 * math.pi), xp.sin(sampled["hue"] * 2 * math.pi)
        matrix = xp.matmul(times(cos, eye) + times(1 - cos, ones) + times(sin, axis), matrix)
    if "grayscale" in active:
        grey = sampled["grayscale"]
        matrix = xp.matmul(times(1 - grey, eye) + times(grey, luma), matrix)
    return matrix, gain, offset


def blur_kernels(sampled: SampledParameters, largest: float, xp: ModuleType) -> Any | None:
    """Weights of the Gaussian blurs, shape (images, 2 × radius + 1); the radius is the policy's, three sigma."""
    if "blur" not in sampled:
        return None
    radius = max(1, math.ceil(3 * largest))
    distance = np.arange(-radius, radius + 1, dtype="float32")
    sigma = xp.maximum(sampled["blur"], 0.05)  # below, the weights are those of no blur at all
    weights = xp.exp(-0.5 * (distance[None, :] / sigma[:, None]) ** 2)
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def erasures(sampled: SampledParameters, image_size: tuple[int, int], xp: ModuleType) -> Any | None:
    """Left, top, right, bottom of the erased rectangles, shape (images, 4), in whole pixels; the last two exclusive."""
    if "erase_x" not in sampled:
        return None
    height, width = image_size
    left, top = sampled["erase_x"], sampled["erase_y"]
    right, bottom = left + sampled["erase_width"], top + sampled["erase_height"]
    return xp.floor(xp.stack([left * width, top * height, right * width, bottom * height], axis=-1) + 0.5)

"""Whether two small pictures are the same picture: aligned exactly, then compared in detail.

A perceptual hash calls two photographs of different hands on one wall alike. What sets a copy apart is that, once
it is shifted and stretched onto its original, the fine structure agrees everywhere and nothing is left over anywhere.

Source:
    Registration after B. Lucas and T. Kanade, "An iterative image registration technique with an application to
    stereo vision" (1981), with gain and offset as in tangent distance (P. Simard, Y. LeCun, J. Denker, 1993).
"""

import functools
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]

COARSE = 16  # pixels a side of the first comparison
FINE = 48  # pixels a side of the last
COLOUR = 12  # pixels a side of the colours; a JPEG of poor quality keeps no finer ones
STILL = np.array([1, 0, 1, 0], np.float32)  # stretch and shift along x, then along y, of a picture left as it is
LARGEST_STRETCH = LARGEST_SHIFT = 0.2
# A weak pull towards "left as it is", as strong as noise of 2 grey levels against a pose of 0.05: it keeps pictures
# that are flat along one direction from sliding away along it.
PULL = np.array([2.0**2 / 0.05**2] * 4 + [1e-3] * 2, np.float32)


@functools.cache
def _blur(side: int, passes: int) -> Floats:
    """The matrix that blurs a column of `side` pixels with the filter 1-2-1, `passes` times, edges repeated."""
    once = scipy.ndimage.convolve1d(np.eye(side, dtype=np.float32), [0.25, 0.5, 0.25], axis=0, mode="nearest")
    return np.linalg.matrix_power(once, passes)


def blurred(pictures: Floats, passes: int = 1) -> Floats:
    """Pictures of shape (…, side, side), each blurred with 1-2-1 along both axes."""
    matrix = _blur(pictures.shape[-1], passes)
    return matrix @ (pictures @ matrix.T)


def flipped(pictures: NDArray, mirrored: NDArray[np.bool_]) -> Floats:
    """Pictures (count, rows, columns, …) as float32, the mirrored ones left to right."""
    pictures = pictures.astype(np.float32)
    pictures[mirrored] = pictures[mirrored][:, :, ::-1]
    return pictures


def warped(pictures: Floats, pose: Floats) -> tuple[Floats, Floats]:
    """Pictures (count, side, side) seen in a pose (count, 4), and the mask of pixels that exist there."""
    side = pictures.shape[1]
    at = pose[:, ::2, None] * _positions(side) + pose[:, 1::2, None]  # (count, x and y, side)
    pixel = np.clip((at + 1) * (side / 2) - 0.5, 0, side - 1)
    across, down = np.maximum(0, 1 - np.abs(pixel[..., None] - np.arange(side, dtype=np.float32))).swapaxes(0, 1)
    in_x, in_y = (np.abs(at) <= 1 + 1e-4).astype(np.float32).swapaxes(0, 1)
    return down @ pictures @ across.transpose(0, 2, 1), in_y[:, :, None] * in_x[:, None, :]


def _positions(side: int) -> Floats:
    """Pixel centres from -1 to 1."""
    return (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1


def changes(pictures: Floats) -> list[Floats]:
    """How pictures (count, side, side) change with stretch and shift along x, then along y, and with contrast."""
    side = pictures.shape[1]
    u = _positions(side)
    along_x, along_y = (np.gradient(pictures, axis=axis) * (side / 2) for axis in (2, 1))
    return [along_x * u, along_x, along_y * u[:, None], along_y, pictures]


def inner(pictures: Floats) -> Floats:
    """Pictures (count, side, side) without their outermost pixels, which a cropped copy lacks, as centred vectors."""
    vectors = pictures[:, 1:-1, 1:-1].reshape(len(pictures), (pictures.shape[1] - 2) ** 2)
    return vectors - vectors.mean(axis=1, keepdims=True)


def fit(first: Floats, second: Floats) -> Floats:
    """Correlation of pairs of pictures, their outermost pixels left out."""
    first, second = inner(first), inner(second)
    spread = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.maximum(spread, 1e-3)


def registered(first: Floats, second: Floats, pose: Floats, *, steps: int = 4) -> Floats:
    """Poses, refined from `pose`, in which `first` looks most like `second`, whatever their brightness and contrast.

    Gauss-Newton; pixels that one picture lacks are left out.
    """
    count, side, _ = first.shape
    u = _positions(side)
    along_x, along_y = (np.gradient(first, axis=axis) * (side / 2) for axis in (2, 1))
    unit = np.eye(6, dtype=np.float32)
    for _ in range(steps):
        view, mask = warped(first, pose)
        view_x, view_y = warped(along_x, pose)[0], warped(along_y, pose)[0]
        change = np.stack([view_x * u, view_x, view_y * u[:, None], view_y, -second, -np.ones_like(second)], axis=1)
        change = (change * mask[:, None]).reshape(count, 6, side * side)
        slope = -(change @ (view * mask).reshape(count, side * side, 1))
        slope[:, :4, 0] -= PULL[:4] * (pose - STILL)
        squares = change @ change.transpose(0, 2, 1) + PULL[:, None] * unit
        squares += 1e-4 * np.diagonal(squares, axis1=1, axis2=2)[:, :, None] * unit
        pose = pose + np.clip(np.linalg.solve(squares, slope)[:, :4, 0], -0.06, 0.06)
        pose[:, ::2] = np.clip(pose[:, ::2], 1 - LARGEST_STRETCH, 1 / (1 - LARGEST_STRETCH))
        pose[:, 1::2] = np.clip(pose[:, 1::2], -LARGEST_SHIFT, LARGEST_SHIFT)
    return pose


def is_same(
    first: Floats, second: Floats, first_colour: NDArray, second_colour: NDArray, pose: Floats
) -> tuple[NDArray[np.bool_], Floats]:
    """Compares pairs in detail, the first of each seen in its pose: which are the same picture, and what differs.

    The limits lie in the gap between copies and look-alikes, see `benchmarks/audit.py`.

    Args:
        first: Grey levels 0 to 255, shape (pairs, FINE, FINE).
        second: Likewise.
        first_colour: Red, green and blue 0 to 255, shape (pairs, COLOUR, COLOUR, 3).
        second_colour: Likewise.
        pose: Shape (pairs, 4).

    Returns:
        The verdict, and the largest local difference in units of what compression and resampling leave.
    """
    view, mask = warped(first, pose)
    one, other = blurred(view), blurred(second)
    detail = _correlation(one - blurred(one, 3), other - blurred(other, 3), mask)  # of the middle frequencies
    gain, offset = _brightness(view, second, mask)
    expected = np.clip(gain * view + offset, 0, 255)
    # what compression, resampling at edges, and values cut off at white leave at each pixel, in grey levels
    edges = np.hypot(np.gradient(second, axis=1), np.gradient(second, axis=2))
    tolerance = 8 + 0.5 * blurred(edges, 2) + 0.25 * blurred(np.maximum(np.maximum(second, expected) - 215, 0), 2)
    leftover = (np.abs(blurred((expected - second) * mask, 2)) / tolerance).max(axis=(1, 2))
    alike = (_correlation(view, second, mask) >= 0.94) & (detail >= 0.93) & (leftover <= 1.4)
    tint = _tint(first_colour, second_colour, pose, gain, offset)
    return alike & (tint <= 1.2) & (_overhang(pose) <= 0.02), leftover


def _mean(values: Floats, mask: Floats) -> Floats:
    """The mean of each picture over its mask, shape (count, 1, 1)."""
    return (values * mask).sum(axis=(1, 2), keepdims=True) / mask.sum(axis=(1, 2), keepdims=True)


def _correlation(first: Floats, second: Floats, mask: Floats) -> Floats:
    """Pearson's r of each pair over its mask; 0 where one side is constant."""
    first, second = (first - _mean(first, mask)) * mask, (second - _mean(second, mask)) * mask
    spread = (first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2))
    return (first * second).sum(axis=(1, 2)) / np.sqrt(np.maximum(spread, 1e-3))


def _brightness(view: Floats, second: Floats, mask: Floats) -> tuple[Floats, Floats]:
    """Gain and offset that turn `view` into `second`, from pixels that are not cut off at black or white."""
    inside = mask * ((view < 245) & (second < 245) & (view > 3) & (second > 3))
    too_few = inside.sum(axis=(1, 2), keepdims=True) < 0.3 * mask.sum(axis=(1, 2), keepdims=True)
    inside = np.where(too_few, mask, inside)
    mean_view, mean_second = _mean(view, inside), _mean(second, inside)
    size = inside.sum(axis=(1, 2), keepdims=True)
    spread_view = _mean((view - mean_view) ** 2, inside) * size
    spread_second = _mean((second - mean_second) ** 2, inside) * size
    gain = np.sqrt((spread_second + 1) / (spread_view + 1))
    return gain, mean_second - gain * mean_view


def _tint(first: NDArray, second: NDArray, pose: Floats, gain: Floats, offset: Floats) -> Floats:
    """The largest local difference of colour, in units of what compression and resampling leave."""
    first, second = (colour.transpose(0, 3, 1, 2) for colour in (first, second))
    view, mask = warped(first.reshape(-1, COLOUR, COLOUR), np.repeat(pose, 3, axis=0))
    left = np.clip(gain[..., None] * view.reshape(first.shape) + offset[..., None], 0, 255) - second
    left = left - left.mean(axis=1, keepdims=True)  # what all channels share is brightness, judged above
    hue = second - second.mean(axis=1, keepdims=True)
    edges = blurred(np.hypot(np.gradient(hue, axis=2), np.gradient(hue, axis=3)))
    return (np.abs(blurred(left * mask.reshape(first.shape))) / (15 + 0.5 * edges)).max(axis=(1, 2, 3))


def _overhang(pose: Floats) -> Floats:
    """How far the second picture reaches outside the first, or the first outside the second, whichever is less.

    A copy that was cut lies wholly inside its original. Two different pictures of one scene, or one small shape in
    two places, are shifted against each other instead.
    """
    stretch, shift = pose[:, ::2], np.abs(pose[:, 1::2])
    second_in_first, first_in_second = (shift + stretch).max(axis=1), ((1 + shift) / stretch).max(axis=1)
    return np.minimum(second_in_first, first_in_second) - 1

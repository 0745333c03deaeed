"""Whether two small pictures are the same picture: laid over each other exactly, then compared in detail.

A perceptual hash calls two photographs of different hands on one wall alike. What sets a copy apart is that, once
it is shifted and stretched onto its original, the fine structure agrees everywhere and nothing is left over anywhere.

Source:
    Registration after B. Lucas and T. Kanade, "An iterative image registration technique with an application to
    stereo vision" (1981), with gain and offset as in tangent distance (P. Simard, Y. LeCun, J. Denker, 1993).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

COARSE = 16  # pixels a side of the first comparison
MIDDLE = 24  # pixels a side of the second
FINE = 48  # pixels a side of the third
COLOUR = 12  # pixels a side of the colours; a JPEG of poor quality keeps no finer ones
STILL = np.array([1, 0, 1, 0], np.float32)  # stretch and shift along x, then along y, of a picture left as it is
LARGEST_STRETCH = 0.2
LARGEST_SHIFT = 0.2
# A weak pull towards "left as it is", as strong as noise of 2 grey levels against a pose of 0.05: it keeps pictures
# that are flat along one direction from sliding away along it.
PULL = np.array([2.0**2 / 0.05**2] * 4 + [1e-3] * 2, np.float32)


class Verdict(NamedTuple):
    """How well pairs agree, one number per pair and measure."""

    alike: Floats  # correlation of the pictures, -1 to 1
    detail: Floats  # correlation of their middle frequencies, -1 to 1
    leftover: Floats  # the largest local difference, in units of what compression and resampling leave
    tint: Floats  # the largest local difference of colour, likewise
    overhang: Floats  # how far one picture leaves the other's frame; a cut-out does not. Share of half a side


def is_same(verdict: Verdict) -> NDArray[np.bool_]:
    """The decision; its limits lie in the gap between copies and look-alikes, see `benchmarks/audit.py`."""
    return (
        (verdict.alike >= 0.94)
        & (verdict.detail >= 0.93)
        & (verdict.leftover <= 1.4)
        & (verdict.tint <= 1.2)
        & (verdict.overhang <= 0.02)
    )


def smoothing(side: int, passes: int) -> Floats:
    """The matrix that blurs a column of `side` pixels with the filter 1-2-1, `passes` times, edges repeated."""
    once = np.zeros((side, side), np.float32)
    for row in range(side):
        for offset, weight in ((-1, 0.25), (0, 0.5), (1, 0.25)):
            once[row, min(max(row + offset, 0), side - 1)] += weight
    return np.linalg.matrix_power(once, passes)


BLUR = {(side, passes): smoothing(side, passes) for side in (COLOUR, COARSE, MIDDLE, FINE) for passes in (1, 2, 3)}


def flipped(pictures: Floats, mirrored: NDArray[np.bool_]) -> Floats:
    """Pictures (count, rows, columns, …), the mirrored ones left to right."""
    pictures = pictures.copy()
    pictures[mirrored] = pictures[mirrored][:, :, ::-1]
    return pictures


def blurred(pictures: Floats, passes: int = 1) -> Floats:
    """Pictures of shape (count, side, side), each blurred with 1-2-1 along both axes."""
    matrix = BLUR[pictures.shape[1], passes]
    return matrix @ (pictures @ matrix.T)


def positions(side: int) -> Floats:
    """Pixel centres from -1 to 1."""
    return (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1


def sampling(stretch: Floats, shift: Floats, side: int) -> tuple[Floats, Floats]:
    """Matrices (count, side, side) that resample one axis at `stretch` * u + `shift`, and which samples exist."""
    at = stretch[:, None] * positions(side) + shift[:, None]
    exists = (np.abs(at) <= 1 + 1e-4).astype(np.float32)
    pixel = np.clip((at + 1) * (side / 2) - 0.5, 0, side - 1)
    weights = np.maximum(0, 1 - np.abs(pixel[:, :, None] - np.arange(side, dtype=np.float32)))
    return weights, exists


def warped(pictures: Floats, pose: Floats) -> tuple[Floats, Floats]:
    """Pictures (count, side, side) seen in a pose (count, 4), and the mask of pixels that exist there."""
    side = pictures.shape[1]
    across, in_x = sampling(pose[:, 0], pose[:, 1], side)
    down, in_y = sampling(pose[:, 2], pose[:, 3], side)
    return down @ pictures @ across.transpose(0, 2, 1), in_y[:, :, None] * in_x[:, None, :]


def changes(pictures: Floats) -> Floats:
    """How a picture changes with stretch and shift along x and y, and with contrast: (count, 5, inner pixels).

    The outermost pixels are left out, since a cropped copy does not have them.
    """
    count, side, _ = pictures.shape
    u = positions(side)
    along_x, along_y = np.gradient(pictures, axis=2) * (side / 2), np.gradient(pictures, axis=1) * (side / 2)
    vectors = np.stack([along_x * u, along_x, along_y * u[:, None], along_y, pictures], axis=1)
    return centred(vectors[:, :, 1:-1, 1:-1].reshape(count, 5, (side - 2) ** 2))


def centred(vectors: Floats) -> Floats:
    """Vectors along the last axis, less their mean."""
    return vectors - vectors.mean(axis=-1, keepdims=True)


def inner(pictures: Floats) -> Floats:
    """Pictures (count, side, side) without their outermost pixels, as centred vectors."""
    return centred(pictures[:, 1:-1, 1:-1].reshape(len(pictures), (pictures.shape[1] - 2) ** 2))


def basis(pictures: Floats) -> Floats:
    """What a picture becomes under a small change (see `changes`), as 5 orthonormal vectors each."""
    vectors = changes(pictures)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-3)
    orthonormal, _ = np.linalg.qr(vectors.transpose(0, 2, 1))
    return np.ascontiguousarray(orthonormal.transpose(0, 2, 1))


def roughly_registered(first: Floats, second: Floats, pose: Floats, *, steps: int) -> Floats:
    """Poses, refined from `pose`, in which `first` looks most like `second`, whatever their brightness and contrast.

    Quick, because what changes is worked out once, on `second`, and each step is undone on `first` instead.

    Source:
        S. Baker, I. Matthews, "Lucas-Kanade 20 years on: a unifying framework" (2004): inverse compositional.
    """
    vectors = changes(second)
    squares = vectors @ vectors.transpose(0, 2, 1)
    squares += np.eye(5, dtype=np.float32) * (PULL[:5] + 1e-4 * np.diagonal(squares, axis1=1, axis2=2))[:, :, None]
    solved = np.linalg.solve(squares, vectors)
    pose = pose.copy()
    for _ in range(steps):
        change = (solved @ inner(warped(first, pose)[0])[:, :, None])[:, :, 0]
        change = np.clip(change[:, :4] / np.maximum(change[:, 4:], 0.2), -0.08, 0.08)
        stretch = pose[:, ::2] / (1 + change[:, ::2])
        pose[:, 1::2] -= stretch * change[:, 1::2]
        pose[:, ::2] = stretch
        _limit(pose)
    return pose


def fit(first: Floats, second: Floats) -> Floats:
    """Correlation of pairs of pictures, their outermost pixels left out."""
    first, second = inner(first), inner(second)
    spread = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / np.maximum(spread, 1e-3)


def structure(pictures: Floats) -> Floats:
    """Pictures less what a blur leaves of them."""
    return pictures - blurred(pictures, 3)


def _limit(pose: Floats) -> None:
    np.clip(pose[:, ::2], 1 - LARGEST_STRETCH, 1 / (1 - LARGEST_STRETCH), out=pose[:, ::2])
    np.clip(pose[:, 1::2], -LARGEST_SHIFT, LARGEST_SHIFT, out=pose[:, 1::2])


def registered(first: Floats, second: Floats, pose: Floats, *, steps: int) -> Floats:
    """Poses, refined from `pose`, in which `first` looks most like `second`, whatever their brightness and contrast.

    Slower and more exact than `roughly_registered`: pixels that one picture lacks are left out (Gauss-Newton).
    """
    count, side, _ = first.shape
    u = positions(side)
    along_x, along_y = np.gradient(first, axis=2) * (side / 2), np.gradient(first, axis=1) * (side / 2)
    unit = np.eye(6, dtype=np.float32)
    for _ in range(steps):
        view, mask = warped(first, pose)
        view_x, _ = warped(along_x, pose)
        view_y, _ = warped(along_y, pose)
        change = np.stack([view_x * u, view_x, view_y * u[:, None], view_y, -second, -np.ones_like(second)], axis=1)
        change = (change * mask[:, None]).reshape(count, 6, side * side)
        squares = change @ change.transpose(0, 2, 1)
        slope = -(change @ (view * mask).reshape(count, side * side, 1))
        slope[:, :4, 0] -= PULL[:4] * (pose - STILL)
        squares += PULL[None, :, None] * unit
        squares += 1e-4 * np.diagonal(squares, axis1=1, axis2=2)[:, :, None] * unit
        step = np.linalg.solve(squares, slope)[:, :4, 0]
        pose = pose + np.clip(step, -0.06, 0.06)
        _limit(pose)
    return pose


def correlation(first: Floats, second: Floats, mask: Floats) -> Floats:
    """Pearson's r of each pair over its mask; 0 where one side is constant."""
    size = mask.sum(axis=(1, 2))
    first = (first - ((first * mask).sum(axis=(1, 2)) / size)[:, None, None]) * mask
    second = (second - ((second * mask).sum(axis=(1, 2)) / size)[:, None, None]) * mask
    spread = (first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2))
    return (first * second).sum(axis=(1, 2)) / np.sqrt(np.maximum(spread, 1e-3))


def compare(first: Floats, second: Floats, first_colour: Floats, second_colour: Floats, pose: Floats) -> Verdict:
    """Compares pairs in detail, the first of each seen in its pose.

    Args:
        first: Grey levels 0 to 255, shape (pairs, FINE, FINE).
        second: Likewise.
        first_colour: Red, green and blue 0 to 255, shape (pairs, COLOUR, COLOUR, 3).
        second_colour: Likewise.
        pose: Shape (pairs, 4).
    """
    view, mask = warped(first, pose)
    view_fine, second_fine = blurred(view), blurred(second)
    detail = correlation(structure(view_fine), structure(second_fine), mask)
    gain, offset = _brightness(view, second, mask)
    expected = np.clip(gain[:, None, None] * view + offset[:, None, None], 0, 255)
    left = np.abs(blurred((expected - second) * mask, 2))
    return Verdict(
        alike=correlation(view, second, mask),
        detail=detail,
        leftover=(left / _tolerance(second, expected)).max(axis=(1, 2)),
        tint=_tint(first_colour, second_colour, pose, gain, offset),
        overhang=overhang(pose),
    )


def _brightness(view: Floats, second: Floats, mask: Floats) -> tuple[Floats, Floats]:
    """Gain and offset that turn `view` into `second`, from pixels that are not cut off at black or white."""
    inside = mask * ((view < 245) & (second < 245) & (view > 3) & (second > 3))
    too_few = inside.sum(axis=(1, 2)) < 0.3 * mask.sum(axis=(1, 2))
    inside = np.where(too_few[:, None, None], mask, inside)
    size = inside.sum(axis=(1, 2))
    mean_view, mean_second = (view * inside).sum(axis=(1, 2)) / size, (second * inside).sum(axis=(1, 2)) / size
    spread_view = (((view - mean_view[:, None, None]) ** 2) * inside).sum(axis=(1, 2))
    spread_second = (((second - mean_second[:, None, None]) ** 2) * inside).sum(axis=(1, 2))
    gain = np.sqrt((spread_second + 1) / (spread_view + 1))
    return gain, mean_second - gain * mean_view


def _tolerance(second: Floats, expected: Floats) -> Floats:
    """What compression, resampling at edges, and values cut off at white leave at each pixel, in grey levels."""
    edges = np.hypot(np.gradient(second, axis=1), np.gradient(second, axis=2))
    cut_off = np.maximum(np.maximum(second, expected) - 215, 0)
    return 8 + 0.5 * blurred(edges, 2) + 0.25 * blurred(cut_off, 2)


def _tint(first: Floats, second: Floats, pose: Floats, gain: Floats, offset: Floats) -> Floats:
    across, in_x = sampling(pose[:, 0], pose[:, 1], COLOUR)
    down, in_y = sampling(pose[:, 2], pose[:, 3], COLOUR)
    second = second.transpose(0, 3, 1, 2)
    view = down[:, None] @ first.transpose(0, 3, 1, 2) @ across.transpose(0, 2, 1)[:, None]
    expected = np.clip(gain[:, None, None, None] * view + offset[:, None, None, None], 0, 255)
    left = expected - second
    left -= left.mean(axis=1, keepdims=True)  # what all channels share is brightness, judged above
    mask = (in_y[:, :, None] * in_x[:, None, :])[:, None]
    matrix = BLUR[COLOUR, 1]
    left = np.abs(matrix @ (left * mask) @ matrix.T)
    hue = second - second.mean(axis=1, keepdims=True)
    edges = matrix @ np.hypot(np.gradient(hue, axis=2), np.gradient(hue, axis=3)) @ matrix.T
    return (left / (15 + 0.5 * edges)).max(axis=(1, 2, 3))


def overhang(pose: Floats) -> Floats:
    """How far the second picture reaches outside the first, or the first outside the second, whichever is less.

    A copy that was cut lies wholly inside its original. Two different pictures of one scene, or one small shape in
    two places, are shifted against each other instead.
    """
    stretch, shift = pose[:, ::2], pose[:, 1::2]
    second_in_first = np.maximum(shift + stretch, stretch - shift).max(axis=1) - 1
    first_in_second = (np.maximum(1 - shift, 1 + shift) / stretch).max(axis=1) - 1
    return np.minimum(second_in_first, first_in_second)

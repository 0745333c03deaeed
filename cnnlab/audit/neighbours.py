"""Which pictures are worth a closer look: the nearest few of each, found without comparing all with all."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from cnnlab._common import in_threads
from cnnlab.audit import register
from cnnlab.audit.register import Floats

Integers = NDArray[np.int64]

FREQUENCIES = 6  # the lowest waves along each axis make the descriptor
NEIGHBOURS = 5  # candidates of each picture
KD_TREES, TREES, CHECKS = 1, 4, 48  # OpenCV's number of the method, how many trees, and leaves looked at
AT_ONCE = 2048  # pictures
LOWEST_LIKENESS = 0.5  # of two descriptors, as a cosine
EXPLAINED = 0.9  # share of a blurred picture that its copy must explain


class Candidates(NamedTuple):
    """Pairs of rows, the second of each mirrored left to right or not."""

    one: Integers
    other: Integers
    mirrored: NDArray[np.bool_]


def candidates(pictures: Floats) -> Candidates:
    """Pairs of pictures that may be the same one: near each other, and explained by a small shift or stretch.

    The work grows as n log n.

    Args:
        pictures: Blurred grey levels, shape (count, register.COARSE, register.COARSE).

    Source:
        M. Muja, D. Lowe, "Fast approximate nearest neighbors with automatic algorithm configuration" (2009): FLANN.
    """
    count = len(pictures)
    if count < 2:
        return Candidates(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool))
    points = np.concatenate(descriptors(pictures))  # point r + count is the mirror image of picture r
    row, point = _neighbours(points, count)
    other, mirrored = point % count, point >= count
    low, high = np.minimum(row, other), np.maximum(row, other)
    _, once = np.unique((low * count + high) * 2 + mirrored, return_index=True)
    low, high, mirrored = low[once], high[once], mirrored[once]
    near = _nearly_fits(pictures, low, high, mirrored)
    return Candidates(low[near], high[near], mirrored[near])


def descriptors(pictures: Floats) -> tuple[Floats, Floats]:
    """The lowest frequencies of each picture, and of its mirror image, as unit vectors; brightness drops out.

    Higher frequencies carry less energy; they are raised by the square root of their frequency.

    Source:
        The waves that a perceptual hash takes the signs of (`imagehash.phash`), kept as numbers.
    """
    waves = dctn(pictures, axes=(1, 2), norm="ortho")[:, :FREQUENCIES, :FREQUENCIES]
    rows, columns = np.mgrid[:FREQUENCIES, :FREQUENCIES]
    waves = waves * np.sqrt(np.hypot(rows, columns)).astype(np.float32)
    mirror = waves * np.where(columns % 2, -1, 1).astype(np.float32)  # mirrored, the odd waves change sign
    return _unit(waves), _unit(mirror)


def _unit(waves: Floats) -> Floats:
    vectors = waves.reshape(len(waves), -1)[:, 1:]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-3)


def _neighbours(points: Floats, count: int) -> tuple[Integers, Integers]:
    """For each of the first `count` points the nearest ones that OpenCV's forest of k-d trees finds: row, point."""

    def grown() -> Any:
        return cv2.flann_Index(points, {"algorithm": KD_TREES, "trees": TREES})  # type: ignore[attr-defined]

    def nearest(start: int) -> tuple[Integers, Floats]:
        asked = points[start : min(start + AT_ONCE, count)]
        point, distance = index.knnSearch(asked, min(NEIGHBOURS + 2, len(points)), params={"checks": CHECKS})
        return point.astype(np.int64), distance  # squared distances

    with ThreadPoolExecutor(1) as pool:  # a new thread begins with OpenCV's own random seed: the same trees every time
        index = pool.submit(grown).result()
    found = in_threads(nearest, range(0, count, AT_ONCE))
    point, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    row = np.repeat(np.arange(count), point.shape[1]).reshape(point.shape)
    good = (point >= 0) & (point % count != row)  # not itself, nor its own mirror image
    good &= distance <= 2 * (1 - LOWEST_LIKENESS)  # which is what the cosine of unit vectors comes to
    good &= good.cumsum(axis=1) <= NEIGHBOURS
    return row[good], point[good]


def _nearly_fits(pictures: Floats, low: Integers, high: Integers, mirrored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether small shifts, stretches and changes of contrast of one picture explain nearly all of the other.

    Source:
        Tangent distance: P. Simard, Y. LeCun, J. Denker, "Efficient pattern recognition using a new transformation
        distance" (1993).
    """

    def explained(part: slice) -> NDArray[np.bool_]:
        one, number = np.unique(low[part], return_inverse=True)
        other = register.inner(register.flipped(pictures[high[part]], mirrored[part]))
        share = np.einsum("pkd,pd->pk", register.basis(pictures[one])[number], other)
        return (share**2).sum(axis=1) >= EXPLAINED * (other**2).sum(axis=1)

    parts = [slice(start, start + 2048) for start in range(0, len(low), 2048)]  # sorted by `low`: few bases in each
    return np.concatenate([np.zeros(0, bool), *in_threads(explained, parts)])

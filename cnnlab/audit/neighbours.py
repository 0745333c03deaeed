"""Which pictures are worth a closer look: the nearest few of each, found without comparing all with all."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from cnnlab._common import in_threads
from cnnlab.audit import registration
from cnnlab.audit.registration import Floats, Integers

FREQUENCIES = 6  # the lowest waves along each axis make the descriptor
NEIGHBOURS = 5  # candidates of each picture
KD_TREES, TREES, CHECKS = 1, 4, 48  # OpenCV's number of the method, how many trees, and leaves looked at
AT_ONCE = 2048  # pictures
LEAST_COSINE = 0.5  # between two descriptors
EXPLAINED = 0.9  # share of a blurred picture that its copy must explain


class Candidates(NamedTuple):
    """Pairs of rows, the second of each mirrored left to right or not."""

    one: NDArray[Any]
    other: NDArray[Any]
    mirrored: NDArray[Any]


def candidates(pictures: Floats) -> Candidates:
    """Pairs of pictures that may be the same one: near each other, and explained by a small shift or stretch.

    The work grows as n log n.

    Args:
        pictures: Blurred grey levels, shape (count, registration.COARSE, registration.COARSE).

    Source:
        M. Muja, D. Lowe, "Fast approximate nearest neighbors with automatic algorithm configuration" (2009): FLANN.
    """
    count = len(pictures)
    if count < 2:
        return Candidates(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool))
    row, point = nearest(_descriptors(pictures), count)
    other, mirrored = point % count, point >= count
    keys = np.unique((np.minimum(row, other) * count + np.maximum(row, other)) * 2 + mirrored)
    found = Candidates(keys // 2 // count, keys // 2 % count, keys % 2 == 1)
    parts = [
        Candidates(*(part[start : start + AT_ONCE] for part in found)) for start in range(0, len(found.one), AT_ONCE)
    ]
    close = np.concatenate([np.zeros(0, bool), *in_threads(lambda part: _explained(pictures, part), parts)])
    return Candidates(*(part[close] for part in found))


def _descriptors(pictures: Floats) -> Floats:
    """The lowest frequencies of each picture, then of each mirror image, as unit vectors; brightness drops out.

    Higher frequencies carry less energy; they are raised by the square root of their frequency.

    Source:
        The waves that a perceptual hash takes the signs of (`imagehash.phash`), kept as numbers.
    """
    waves = dctn(pictures, axes=(1, 2), norm="ortho")[:, :FREQUENCIES, :FREQUENCIES]
    rows, columns = np.mgrid[:FREQUENCIES, :FREQUENCIES]
    waves = waves * np.sqrt(np.hypot(rows, columns)).astype(np.float32)
    mirror = waves * np.where(columns % 2, -1, 1).astype(np.float32)  # mirrored, the odd waves change sign
    vectors = np.concatenate([waves, mirror]).reshape(2 * len(waves), -1)[:, 1:]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-3)


def nearest(points: Floats, count: int) -> tuple[Integers, Integers]:
    """For each of the first `count` points the nearest ones that OpenCV's forest of k-d trees finds: row, point.

    Point r + count is the mirror image of picture r.
    """
    with ThreadPoolExecutor(1) as pool:  # a new thread begins with OpenCV's own random seed: the same trees every time
        index = pool.submit(cv2.flann_Index, points, {"algorithm": KD_TREES, "trees": TREES}).result()  # type: ignore[attr-defined]

    def search(start: int) -> tuple[Integers, Floats]:
        few = min(NEIGHBOURS + 2, len(points))
        return index.knnSearch(points[start : min(start + AT_ONCE, count)], few, params={"checks": CHECKS})

    found = in_threads(search, range(0, count, AT_ONCE))
    point, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    row = np.repeat(np.arange(count), point.shape[1]).reshape(point.shape)
    good = (point >= 0) & (point % count != row)  # not itself, nor its own mirror image
    good &= distance <= 2 * (1 - LEAST_COSINE)  # squared distances of unit vectors
    good &= good.cumsum(axis=1) <= NEIGHBOURS
    return row[good], point[good].astype(np.int64)


def _explained(pictures: Floats, pairs: Candidates) -> NDArray[np.bool_]:
    """Whether small shifts, stretches and changes of contrast of one picture explain nearly all of the other.

    Source:
        Tangent distance: P. Simard, Y. LeCun, J. Denker, "Efficient pattern recognition using a new transformation
        distance" (1993).
    """
    one, number = np.unique(pairs.one, return_inverse=True)  # sorted: few different ones in each part
    vectors = np.stack([registration.inner(change) for change in registration.changes(pictures[one])], axis=1)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-3)
    basis = np.linalg.qr(vectors.transpose(0, 2, 1))[0][number]
    other = registration.inner(registration.flipped(pictures[pairs.other], pairs.mirrored))
    share = np.einsum("pdk,pd->pk", basis, other)
    return (share**2).sum(axis=1) >= EXPLAINED * (other**2).sum(axis=1)

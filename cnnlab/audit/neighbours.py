"""Which pictures are worth a closer look: the nearest few of each, found without comparing all with all."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from cnnlab.audit import register
from cnnlab.audit.register import Floats

Integers = NDArray[np.int64]

FREQUENCIES = 6  # the lowest waves along each axis make the descriptor
NEIGHBOURS = 5  # candidates of each picture
PER_LEAF = 3  # of these, at most so many from one leaf
TREES = 20
LEAF = 64
LOWEST_LIKENESS = 0.5  # of two descriptors, as a cosine
EXPLAINED = 0.9  # share of a blurred picture that its copy must explain


class Candidates(NamedTuple):
    """Pairs of rows, the second of each mirrored left to right or not."""

    one: Integers
    other: Integers
    mirrored: NDArray[np.bool_]


def candidates(pictures: Floats) -> Candidates:
    """Pairs of pictures that may be the same one: near each other, and explained by a small shift or stretch.

    The work grows as n log n: a forest of random splits gathers what is alike into leaves, and only within a leaf is
    everything compared with everything.

    Args:
        pictures: Blurred grey levels, shape (count, register.COARSE, register.COARSE).

    Source:
        Random projection trees: S. Dasgupta, Y. Freund, "Random projection trees and low dimensional manifolds" (2008).
    """
    count = len(pictures)
    if count < 2:
        return Candidates(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool))
    points = np.concatenate(descriptors(pictures))  # point r + count is the mirror image of picture r
    row, point, likeness = _neighbours(points, count)
    order = np.lexsort((-likeness, row))
    row, point = row[order], point[order]
    nearest = np.arange(len(row)) - np.searchsorted(row, row) < NEIGHBOURS
    row, other, mirrored = row[nearest], point[nearest] % count, point[nearest] >= count
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


def _neighbours(points: Floats, count: int) -> tuple[Integers, Integers, Floats]:
    """For each of the first `count` points some of the nearest ones: row, point, cosine; each pair once."""
    rng = np.random.default_rng(0)
    depth = max(0, int(np.ceil(np.log2(len(points) / LEAF))))
    found = [_leaf_neighbours(points, _leaves(points, depth, rng), count) for _ in range(TREES if depth else 1)]
    row, point, likeness = (np.concatenate(part) for part in zip(*found, strict=True))
    _, once = np.unique(row * len(points) + point, return_index=True)
    return row[once], point[once], likeness[once]


def _leaves(points: Floats, depth: int, rng: np.random.Generator) -> Integers:
    """Splits the points in half `depth` times, each time along the line through two of them; pads with -1."""
    count = len(points)
    order, place = np.arange(count), np.arange(count)
    for level in range(depth):
        one, other = rng.choice(count, 2, replace=False)
        along = (points @ (points[one] - points[other]))[order]
        along = (along - along.min()) / max(float(np.ptp(along)), 1e-9) * 0.999
        order = order[np.argsort(place * 2**level // count + along)]
    bounds = -(-np.arange(2**depth + 1) * count // 2**depth)
    at = bounds[:-1, None] + np.arange(np.diff(bounds).max())
    return np.where(at < bounds[1:, None], order[np.minimum(at, count - 1)], -1)


def _leaf_neighbours(points: Floats, leaves: Integers, count: int) -> tuple[Integers, Integers, Floats]:
    rows, near, likenesses = [], [], []
    for start in range(0, len(leaves), 256):
        leaf = leaves[start : start + 256]
        cosine = points[leaf] @ points[leaf].transpose(0, 2, 1)
        cosine[np.broadcast_to((leaf < 0)[:, None, :], cosine.shape)] = -1
        cosine[(leaf[:, :, None] - leaf[:, None, :]) % count == 0] = -1  # itself, and its own mirror image
        asking = (leaf >= 0) & (leaf < count)
        row, which, cosine = leaf[asking], np.nonzero(asking)[0], cosine[asking]
        every = np.arange(len(cosine))
        for _ in range(PER_LEAF):
            best = cosine.argmax(axis=1)
            likeness = cosine[every, best]
            good = likeness >= LOWEST_LIKENESS
            rows.append(row[good])
            near.append(leaf[which, best][good])
            likenesses.append(likeness[good])
            cosine[every, best] = -1
    return np.concatenate(rows), np.concatenate(near), np.concatenate(likenesses)


def _nearly_fits(pictures: Floats, low: Integers, high: Integers, mirrored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether small shifts, stretches and changes of contrast of one picture explain nearly all of the other.

    Source:
        Tangent distance: P. Simard, Y. LeCun, J. Denker, "Efficient pattern recognition using a new transformation
        distance" (1993).
    """
    near = np.zeros(len(low), bool)
    for start in range(0, len(low), 4096):  # sorted by `low`, so that each batch needs few bases
        part = slice(start, start + 4096)
        one, number = np.unique(low[part], return_inverse=True)
        other = register.inner(register.flipped(pictures[high[part]], mirrored[part]))
        explained = np.einsum("pkd,pd->pk", register.basis(pictures[one])[number], other)
        near[part] = (explained**2).sum(axis=1) >= EXPLAINED * (other**2).sum(axis=1)
    return near

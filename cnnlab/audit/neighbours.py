"""Which pictures are worth a closer look: the nearest few of each, found without comparing all with all."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from cnnlab._common import in_threads
from cnnlab.audit import register
from cnnlab.audit.register import Floats

Integers = NDArray[np.int64]

FREQUENCIES = 6  # the lowest waves along each axis make the descriptor
NEIGHBOURS = 5  # candidates of each picture
PER_LEAF = 3  # of these, at most so many from one leaf
TREES = 20
AT_ONCE = 4  # trees
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
    """For each of the first `count` points some of the nearest ones: row, point; each pair once."""
    rng = np.random.default_rng(0)
    depth = max(0, int(np.ceil(np.log2(len(points) / LEAF))))
    # For each tree and level two points, between which it splits.
    trees = [[rng.choice(len(points), 2, replace=False) for _ in range(depth)] for _ in range(TREES if depth else 1)]
    nearest = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    for start in range(0, len(trees), AT_ONCE):  # and forget the farther ones in between, to stay small in memory
        found = in_threads(
            lambda ends: _leaf_neighbours(points, _leaves(points, ends), count), trees[start : start + AT_ONCE]
        )
        nearest = _nearest(*(np.concatenate(part) for part in zip(nearest, *found, strict=True)), total=len(points))
    return nearest[0], nearest[1]


def _nearest(row: Integers, point: Integers, likeness: Floats, *, total: int) -> tuple[Integers, Integers, Floats]:
    """Of each row's pairs the most alike, each once."""
    _, once = np.unique(row * total + point, return_index=True)
    row, point, likeness = row[once], point[once], likeness[once]
    order = np.lexsort((-likeness, row))
    row, point, likeness = row[order], point[order], likeness[order]
    first = np.arange(len(row)) - np.searchsorted(row, row) < NEIGHBOURS
    return row[first], point[first], likeness[first]


def _leaves(points: Floats, between: list[Integers]) -> Integers:
    """Splits the points in half again and again, each time along the line through two of them; pads with -1."""
    count, depth = len(points), len(between)
    order, place = np.arange(count), np.arange(count)
    for level, (one, other) in enumerate(between):
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

    def explained(part: slice) -> NDArray[np.bool_]:
        one, number = np.unique(low[part], return_inverse=True)
        other = register.inner(register.flipped(pictures[high[part]], mirrored[part]))
        share = np.einsum("pkd,pd->pk", register.basis(pictures[one])[number], other)
        return (share**2).sum(axis=1) >= EXPLAINED * (other**2).sum(axis=1)

    parts = [slice(start, start + 2048) for start in range(0, len(low), 2048)]  # sorted by `low`: few bases in each
    return np.concatenate([np.zeros(0, bool), *in_threads(explained, parts)])

"""Which images show the same picture: resized, recompressed, mirrored, brightened, slightly cropped."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cnnlab._common import in_threads
from cnnlab.audit import register
from cnnlab.audit.neighbours import Candidates, Integers, candidates
from cnnlab.audit.register import COARSE, COLOUR, FINE, MIDDLE, STILL, Floats, flipped

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's "L"
BATCH = 128  # pairs compared at once: 1 MB of float32 in each step, so that they stay in the cache
ROUGH_FIT = 0.96  # correlation of blurred pictures, roughly registered
ROUGH_DETAIL = 0.9  # and of their structure
SMALL = 40  # pixels: below this, compression and halving eat the structure, and what is left is compared softly
PLAIN = 2.0  # standard deviation in grey levels below which a picture shows nothing to recognise
CROWD = 12  # more images than this are seldom one picture: such groups must agree more closely


class Thumbnails(NamedTuple):
    """What is kept of every image to find copies: 2.7 kB each."""

    grey: NDArray[np.uint8]  # (count, FINE, FINE)
    colour: NDArray[np.uint8]  # (count, COLOUR, COLOUR, 3)
    side: NDArray[np.int64]  # (count,) pixels along the shorter side of the file


def thumbnails(pixels: NDArray[np.uint8], side: NDArray[np.int64]) -> Thumbnails:
    """Turns RGB pictures of shape (count, FINE, FINE, 3) into what is kept of them."""
    stacked = pixels.reshape(-1, FINE, 3)
    grey = cv2.cvtColor(stacked, cv2.COLOR_RGB2GRAY).reshape(-1, FINE, FINE)
    colour = cv2.resize(stacked, (COLOUR, len(pixels) * COLOUR), interpolation=cv2.INTER_AREA)
    return Thumbnails(grey, colour.reshape(-1, COLOUR, COLOUR, 3), side)  # type: ignore[arg-type]


def groups(count: int, first: Integers, second: Integers) -> Integers:
    """Numbers the connected groups of `count` rows from 0 up, in the order of their first member."""
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    _, first_member, number = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_member))[number].astype(np.int64)


def same_value(values: NDArray) -> tuple[Integers, Integers]:
    """Pairs (earlier, later) that link rows of equal value into chains."""
    order = np.argsort(values, kind="stable")
    equal = values[order[1:]] == values[order[:-1]]
    return order[:-1][equal], order[1:][equal]


def near_copies(thumbs: Thumbnails) -> tuple[Integers, Integers]:
    """Pairs of rows that show the same picture; enough of them to connect each group of copies.

    Candidates are laid over each other and compared in detail, because many different pictures are alike from afar:
    a perceptual hash alone takes different hands before one wall for copies.
    """
    count = len(thumbs.grey)
    coarse = _by_parts(thumbs.grey, lambda grey: _shrunk(grey, COARSE))
    shown = np.flatnonzero(_by_parts(thumbs.grey, lambda grey: grey.std(axis=(1, 2), dtype=np.float32)) >= PLAIN)
    # Pictures that come out equal would fill each other's lists of neighbours: link them, and look at one.
    digests = [hashlib.blake2b(thumbs.grey[row].tobytes() + thumbs.colour[row].tobytes()).digest() for row in shown]
    earlier, later = same_value(np.array(digests, dtype="S64"))
    first, second, leftover = [shown[earlier]], [shown[later]], [np.zeros(len(later), np.float32)]
    shown = np.delete(shown, later)
    found = candidates(coarse[shown])
    pairs = Candidates(shown[found.one], shown[found.other], found.mirrored)
    parts = [slice(start, start + BATCH) for start in range(0, len(pairs.one), BATCH)]
    batches = [Candidates(pairs.one[part], pairs.other[part], pairs.mirrored[part]) for part in parts]
    compared = in_threads(lambda batch: _compared(thumbs, coarse, batch), batches)
    for batch, (same, difference) in zip(batches, compared, strict=True):
        first.append(batch.one[same])
        second.append(batch.other[same])
        leftover.append(difference[same])
    one, other, difference = (np.concatenate(part) for part in (first, second, leftover))  # type: ignore[assignment]
    kept = without_crowds(count, one, other, difference)  # type: ignore[arg-type]
    return one[kept], other[kept]  # type: ignore[return-value]


def _by_parts(pictures: NDArray, function: Callable[[NDArray], Floats]) -> Floats:
    """Applies `function` to a thousand pictures at a time, to stay small in memory."""
    parts = [function(pictures[start : start + 1024]) for start in range(0, len(pictures), 1024)]
    return np.concatenate(parts) if parts else function(pictures)


def _shrunk(grey: NDArray, side: int) -> Floats:
    """Pictures (count, FINE, FINE) at `side` pixels a side, softened."""
    mean = np.kron(np.eye(side, dtype=np.float32), np.full((1, FINE // side), side / FINE, np.float32))
    matrix = register.BLUR[side, 1] @ mean
    return matrix @ (grey.astype(np.float32) @ matrix.T)


def _compared(thumbs: Thumbnails, coarse: Floats, pairs: Candidates) -> tuple[NDArray[np.bool_], Floats]:
    """Which pairs are the same picture, and what differs; each step looks closer at what the one before left open."""
    same = np.zeros(len(pairs.one), bool)
    leftover = np.zeros(len(pairs.one), np.float32)
    still = np.tile(STILL, (len(pairs.one), 1))

    first, second = coarse[pairs.one], flipped(coarse[pairs.other], pairs.mirrored)
    pose = register.roughly_registered(first, second, still, steps=4)
    fit = register.fit(register.warped(first, pose)[0], second)
    fit_still = register.fit(first, second)
    small = np.minimum(thumbs.side[pairs.one], thumbs.side[pairs.other]) < SMALL

    def judge(rows: Integers, pose: Floats, *, soften: bool = False) -> Integers:
        grey = _grey(thumbs, pairs, rows)
        if soften:
            grey = tuple(register.blurred(register.blurred(pictures, 3), 3) for pictures in grey)  # type: ignore[assignment]
        verdict = register.compare(*grey, *_colour(thumbs, pairs, rows), pose)
        same[rows], leftover[rows] = register.is_same(verdict), verdict.leftover
        return rows[~same[rows]]

    rows = np.flatnonzero(small & (fit_still >= ROUGH_FIT))
    judge(rows, still[rows], soften=True)
    left = np.flatnonzero((fit >= ROUGH_FIT) & ~same)
    first, second = (_shrunk(grey, MIDDLE) for grey in _grey(thumbs, pairs, left))
    pose[left] = register.roughly_registered(first, second, pose[left], steps=2)
    view = register.warped(first, pose[left])[0]
    left = left[register.fit(register.structure(view), register.structure(second)) >= ROUGH_DETAIL]

    unmoved = fit_still[left] >= fit[left] - 0.01
    left = np.concatenate([left[~unmoved], judge(left[unmoved], still[left[unmoved]])])
    left = judge(left, pose[left])
    first, second = (register.blurred(grey) for grey in _grey(thumbs, pairs, left))
    judge(left, register.registered(first, second, pose[left], steps=4))
    return same, leftover


def _grey(thumbs: Thumbnails, pairs: Candidates, rows: Integers) -> tuple[Floats, Floats]:
    first, second = thumbs.grey[pairs.one[rows]], thumbs.grey[pairs.other[rows]]
    return first.astype(np.float32), flipped(second.astype(np.float32), pairs.mirrored[rows])


def _colour(thumbs: Thumbnails, pairs: Candidates, rows: Integers) -> tuple[Floats, Floats]:
    first, second = thumbs.colour[pairs.one[rows]], thumbs.colour[pairs.other[rows]]
    return first.astype(np.float32), flipped(second.astype(np.float32), pairs.mirrored[rows])


def without_crowds(count: int, first: Integers, second: Integers, leftover: Floats) -> NDArray[np.bool_]:
    """Which links to keep: in groups of more than `CROWD` images only ever closer ones.

    A camera that stands still before changing parts makes hundreds of pictures that differ in one detail. Those are
    not copies of each other, and one group of them all could not be split.
    """
    kept = np.ones(len(first), bool)
    for limit in (0.7, 0.35, 0.18, 0.09):
        number = groups(count, first[kept], second[kept])
        crowded = np.bincount(number)[number[first]] > CROWD
        kept &= ~(crowded & (leftover > limit))
    return kept

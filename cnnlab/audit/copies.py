"""Which images show the same picture: resized, recompressed, mirrored, brightened, slightly cropped."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cnnlab._common import in_threads
from cnnlab.audit import registration
from cnnlab.audit.neighbours import Candidates, candidates
from cnnlab.audit.registration import COARSE, FINE, STILL, Floats, Integers, flipped

BATCH = 128  # pairs compared at once: 1 MB of float32 in each step, so that they stay in the cache
MIDDLE = 24  # pixels a side of the second comparison, between COARSE and FINE
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


def groups(count: int, first: Integers, second: Integers) -> Integers:
    """Numbers the connected groups of `count` rows from 0 up, in the order of their first member."""
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return pd.factorize(connected_components(links, directed=False)[1])[0]


def same_value(values: Sequence[int] | NDArray) -> tuple[Integers, Integers]:
    """Pairs that link each row to the first one of equal value."""
    number = pd.factorize(np.asarray(values))[0]
    first = np.unique(number, return_index=True)[1][number]
    later = np.flatnonzero(first != np.arange(len(number)))
    return first[later], later


def near_copies(thumbs: Thumbnails) -> tuple[Integers, Integers]:
    """Pairs of rows that show the same picture; enough of them to connect each group of copies.

    Candidates are aligned and compared in detail, because many different pictures are alike from afar:
    a perceptual hash alone takes different hands before one wall for copies.
    """
    shown = np.flatnonzero([cv2.meanStdDev(grey)[1][0, 0] >= PLAIN for grey in thumbs.grey])
    # Pictures that come out equal would fill each other's lists of neighbours: link them, and look at one.
    earlier, later = same_value([hash(thumbs.grey[row].tobytes() + thumbs.colour[row].tobytes()) for row in shown])
    links: list[tuple[NDArray[Any], ...]] = [(shown[earlier], shown[later], np.zeros(len(later)))]
    shown = np.delete(shown, later)
    coarse = np.zeros((len(thumbs.grey), COARSE, COARSE), np.float32)
    for part in (slice(start, start + 1024) for start in range(0, len(coarse), 1024)):
        coarse[part] = _shrunk(thumbs.grey[part], COARSE)
    found = candidates(coarse[shown])
    pairs = Candidates(shown[found.one], shown[found.other], found.mirrored)
    starts = range(0, len(pairs.one), BATCH)
    batches = [Candidates(*(part[start : start + BATCH] for part in pairs)) for start in starts]
    links += in_threads(lambda batch: _compared(thumbs, coarse, batch), batches)
    first, second, leftover = (np.concatenate(part) for part in zip(*links, strict=True))
    kept = without_crowds(len(thumbs.grey), first, second, leftover)
    return first[kept], second[kept]


def _shrunk(grey: NDArray, side: int) -> Floats:
    """Pictures (count, FINE, FINE) at `side` pixels a side, softened."""
    mean = np.kron(np.eye(side, dtype=np.float32), np.full((1, FINE // side), side / FINE, np.float32))
    return registration.blurred(mean @ (grey.astype(np.float32) @ mean.T))


def _compared(thumbs: Thumbnails, coarse: Floats, pairs: Candidates) -> tuple[NDArray[Any], ...]:
    """The pairs that are the same picture, and what differs; each step looks closer at what is left open."""
    same, leftover = np.zeros(len(pairs.one), bool), np.zeros(len(pairs.one), np.float32)
    still = np.tile(STILL, (len(pairs.one), 1))
    first, second = coarse[pairs.one], flipped(coarse[pairs.other], pairs.mirrored)
    pose = registration.registered(first, second, still)
    fit, fit_still = registration.fit(registration.warped(first, pose)[0], second), registration.fit(first, second)

    def greys(rows: Integers) -> tuple[Floats, Floats]:
        first, second = thumbs.grey[pairs.one[rows]], thumbs.grey[pairs.other[rows]]
        return first.astype(np.float32), flipped(second, pairs.mirrored[rows])

    def judge(rows: Integers, pose: Floats, *, soften: bool = False, closely: bool = False) -> None:
        first, second = (registration.blurred(grey, 6) if soften else grey for grey in greys(rows))
        if closely:
            pose = registration.registered(registration.blurred(first), registration.blurred(second), pose)
        colours = thumbs.colour[pairs.one[rows]], flipped(thumbs.colour[pairs.other[rows]], pairs.mirrored[rows])
        same[rows], leftover[rows] = registration.is_same(first, second, *colours, pose)

    small = np.minimum(thumbs.side[pairs.one], thumbs.side[pairs.other]) < SMALL
    rows = np.flatnonzero(small & (fit_still >= ROUGH_FIT))
    judge(rows, still[rows], soften=True)
    near = (fit >= ROUGH_FIT) & ~same
    rows = np.flatnonzero(near)
    first, second = (_shrunk(grey, MIDDLE) for grey in greys(rows))
    pose[rows] = registration.registered(first, second, pose[rows], steps=2)
    first = registration.warped(first, pose[rows])[0]
    near[rows] = (
        registration.fit(first - registration.blurred(first, 3), second - registration.blurred(second, 3))
        >= ROUGH_DETAIL
    )
    rows = np.flatnonzero(near & (fit_still >= fit - 0.01))
    judge(rows, still[rows])
    rows = np.flatnonzero(near & ~same)
    judge(rows, pose[rows])
    rows = np.flatnonzero(near & ~same)
    judge(rows, pose[rows], closely=True)
    return pairs.one[same], pairs.other[same], leftover[same]


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

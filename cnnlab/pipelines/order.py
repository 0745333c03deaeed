"""Which rows an epoch shows, in which order, and how often."""

import numpy as np


def epoch_rows(
    codes: np.ndarray, *, epoch: int, seed: int, training: bool, balance: str | float | None, shard: tuple[int, int]
) -> np.ndarray:
    """The rows of one epoch and how often each came before, shape (images, 2), for the class of every row."""
    index, count = shard
    if not training:
        rows = np.arange(index, len(codes), count)
        return np.stack([rows, np.zeros_like(rows)], axis=1)
    generator = np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, epoch], np.uint64)))
    pairs = generator.permutation(_balanced(codes, balance, generator))
    each = len(pairs) // count  # alike for every worker, or they would wait for one another at the end
    return pairs[index : each * count : count]


def epoch_length(codes: np.ndarray, *, training: bool, balance: str | float | None, shard: tuple[int, int]) -> int:
    """How many images `epoch_rows` returns, without drawing them."""
    index, count = shard
    if not training:
        return len(range(index, len(codes), count))
    return int(_wanted(np.bincount(codes)[np.unique(codes)], balance).sum()) // count


def _wanted(counts: np.ndarray, balance: str | float | None) -> np.ndarray:
    """How many images of each class an epoch shows, for the counts of the classes that have any."""
    if balance is None:
        return counts
    if balance == "undersample":
        return np.full_like(counts, counts.min())
    share = 1.0 if balance == "oversample" else float(balance)
    return np.maximum(counts, np.ceil(share * counts.max() - 1e-9).astype(counts.dtype))


def _balanced(codes: np.ndarray, balance: str | float | None, generator: np.random.Generator) -> np.ndarray:
    everything = np.arange(len(codes))
    if balance is None:
        return np.stack([everything, np.zeros_like(everything)], axis=1)
    parts = []
    classes, counts = np.unique(codes, return_counts=True)
    for code, wanted in zip(classes, _wanted(counts, balance), strict=True):
        rows = generator.permutation(np.flatnonzero(codes == code))
        place = np.arange(wanted)  # whole rounds, then a random rest: no row is shown twice more than another
        parts.append(np.stack([rows[place % len(rows)], place // len(rows)], axis=1))
    return np.concatenate(parts)

"""How fast a dataset is, and what takes the time."""

from __future__ import annotations

import time
import timeit
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cnnlab.images import read_file
from cnnlab.pipelines.control import source_of
from cnnlab.pipelines.source import BatchSource

if TYPE_CHECKING:
    import tensorflow as tf


def measure(dataset: tf.data.Dataset, *, seconds: float = 3.0, images: int = 256) -> pd.DataFrame:
    """Measures images a second, and what takes the time of one image.

    The stages are measured one after the other on a single thread, without any cache; `all` is the dataset as training
    sees it, on all threads and with its cache, from the second pass on where that fits into the time. So `all` may be
    faster than the stages add up to. Passes count as epochs.

    Args:
        dataset: What `load` returned.
        seconds: How long to run the dataset, about.
        images: How many images to take apart.

    Returns:
        One row per stage (read, decode, augment, batch) and one for `all`: stage, milliseconds (per image), share (of
        the stages' sum), images_per_second. The resize counts to `augment` where geometry is drawn, else to `decode`.

    Raises:
        TypeError: If `dataset` does not come from `load`.
        ValueError: If no image can be read.
    """
    source = source_of(dataset, "measure")
    spent = _stages(source, images)
    rate = _rate(dataset, seconds)
    whole = sum(spent.values())
    table = pd.DataFrame({"stage": [*spent, "all"], "milliseconds": [1000 * s for s in (*spent.values(), 1 / rate)]})
    table["share"] = [*(seconds / whole for seconds in spent.values()), np.nan]
    table["images_per_second"] = 1000 / table["milliseconds"]
    return table


def _rate(dataset: tf.data.Dataset, seconds: float) -> float:
    """Images a second of the fastest pass: the first one fills caches, and other programs only slow it down."""
    until, fastest = time.perf_counter() + seconds, 0.0
    while True:
        count, start = 0, time.perf_counter()
        for images, _ in dataset:
            count += int(images.shape[0])
            if time.perf_counter() > until:
                break
        fastest = max(fastest, count / (time.perf_counter() - start))
        if time.perf_counter() > until:
            return fastest


def _stages(source: BatchSource, images: int) -> dict[str, float]:
    """Seconds per image of each stage on this thread, the best of three rounds."""
    import tensorflow as tf

    pairs = source.rows_of(0)[:images]
    found = []
    for position, row in enumerate(pairs[:, 0]):
        with suppress(OSError, ValueError):
            data = read_file(source.paths[row])
            found.append((position, source.paths[row], data, source.decode(data, source.paths[row])))
    if not found:
        raise ValueError(f"None of the images tried can be read. The first: {source.paths[pairs[0, 0]]}")
    readable, paths, files, pictures = zip(*found, strict=True)
    pairs = pairs[list(readable)]
    starts = range(0, len(pairs), source.batch_size)
    written = np.empty((min(source.batch_size, len(pairs)), *source.image_size, 3), np.uint8)

    def read() -> None:
        for path in paths:
            read_file(path)

    def decode() -> None:
        for data, path in zip(files, paths, strict=True):
            source.decode(data, path)

    def augment() -> None:
        for start in starts:
            transform = source.transform(source.sample(0, pairs[start : start + source.batch_size]))
            for place, picture in enumerate(pictures[start : start + source.batch_size]):
                source.write_image(picture, place, written[place], transform)

    def batch() -> None:
        for start in starts:
            part = pairs[start : start + source.batch_size]
            mixed, labels = source.finish(written[: len(part)], source.labels_of(part[:, 0]), source.sample(0, part))
            tf.constant(mixed), tf.constant(labels)

    stages = {"read": read, "decode": decode, "augment": augment, "batch": batch}
    return {stage: min(timeit.repeat(work, number=1, repeat=3)) / len(pairs) for stage, work in stages.items()}

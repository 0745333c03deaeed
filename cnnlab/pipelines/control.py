"""Asks and steers a dataset that `load` made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cnnlab.pipelines.source import BatchSource

if TYPE_CHECKING:
    import tensorflow as tf


def source_of(dataset: tf.data.Dataset, caller: str) -> BatchSource:
    """What stands behind the dataset."""
    source = getattr(dataset, "_cnnlab_source", None)
    if source is None:
        raise TypeError(
            f"`pipelines.{caller}` expects the dataset that `pipelines.load` returned, before any `.map`, `.take` or "
            f"the like. Received: {type(dataset).__name__}."
        )
    return source


def broken(dataset: tf.data.Dataset) -> pd.DataFrame:
    """The files that could not be read so far, and so were left out.

    Complete once the dataset was gone through; a file that could be read later is dropped from the list.

    Args:
        dataset: What `load` returned.

    Returns:
        One row per broken file, under the index it has in the table: path, problem.
    """
    source = source_of(dataset, "broken")
    found = dict(sorted(dict(source.broken).items()))  # of a copy, as a pass may be running
    return pd.DataFrame(
        {"path": [source.paths[row] for row in found], "problem": list(found.values())},
        index=source.index[list(found)],
        dtype="str",
    )


def delivered(dataset: tf.data.Dataset) -> np.ndarray:
    """Which rows of the table the images of an evaluation pass belong to, once the pass is over.

    All of them in order, unless files are broken: outputs of `model.predict` go back to their rows with this.

    Args:
        dataset: What `load` returned, without `training`.

    Returns:
        One number per image delivered: its position in the table, or -1 for an image that stood in for a whole batch of
        broken ones and is to be ignored.

    Raises:
        ValueError: If the dataset is for training, where every pass has another order.
    """
    source = source_of(dataset, "delivered")
    if source.training:
        raise ValueError("`pipelines.delivered` is about evaluation. Received: a dataset loaded with training=True.")
    positions: list[int] = []
    for batch in range(len(source)):
        kept = [row for row in source.batch_rows(0, batch)[:, 0].tolist() if row not in source.broken]
        positions.extend(kept or [-1])
    return np.array(positions, dtype=np.int64)


def set_epoch(dataset: tf.data.Dataset, epoch: int) -> None:
    """Makes the next pass over a training dataset that epoch; by itself each pass is the one after the last.

    Called at the beginning of every epoch, it makes order and augmentation depend on the epoch's number alone: without
    it Keras, which looks at one batch to build a fresh model, begins with the second pass.

    Args:
        dataset: What `load` returned.
        epoch: Number of the epoch, from 0.

    Raises:
        ValueError: If `epoch` is negative.
    """
    if epoch < 0:
        raise ValueError(f"`epoch` must be a whole number from 0. Received: epoch={epoch!r}.")
    source_of(dataset, "set_epoch").next_epoch = int(epoch)


def rest(dataset: tf.data.Dataset, *, epoch: int, step: int) -> tf.data.Dataset:
    """The batches of one epoch from `step` on, to go on exactly where a training run stopped.

    Skips without making the batches before. Passes over the result repeat that epoch; `dataset` itself goes on with the
    one after.

    Args:
        dataset: What `load` returned.
        epoch: Number of the epoch, from 0.
        step: How many batches were done.

    Returns:
        A dataset of `len(dataset) - step` batches.

    Raises:
        ValueError: If the epoch has no such step.
    """
    source = source_of(dataset, "rest")
    if epoch < 0 or not 0 <= step < len(source):
        raise ValueError(
            f"`step` must be from 0 to {len(source) - 1}, and `epoch` from 0. Received: epoch={epoch}, step={step}."
        )
    source.next_epoch = epoch + 1
    return source.dataset(epoch, step)

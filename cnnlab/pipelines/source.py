"""What stands behind a dataset of `load`: which rows, which epoch, how a batch is made, what was broken."""

from __future__ import annotations

import logging
import random
import threading
import weakref
from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd

from cnnlab._common import available_cores
from cnnlab.augment.sampling import SampledParameters
from cnnlab.images import Preparation, read_file
from cnnlab.images.colours import as_bytes, luma
from cnnlab.images.decoding import declared_size
from cnnlab.images.preparing import read_reduced
from cnnlab.images.sizing import base_matrix, reduction, resample
from cnnlab.pipelines import cache as caches
from cnnlab.pipelines import order

if TYPE_CHECKING:
    import tensorflow as tf

ORDERS = 4  # epochs whose order is kept at a time
logger = logging.getLogger("cnnlab")


@dataclass(eq=False)
class BatchSource:
    """What stands behind a dataset: knows the rows, counts the epochs, makes the batches, remembers broken files."""

    table: InitVar[pd.DataFrame]
    preparation: Preparation
    batch_size: int
    training: bool
    policy: Any  # an augment.Policy, or what acts like one
    given_seed: int | None
    balance: str | float | None
    shard: tuple[int, int]
    one_hot: bool

    def __post_init__(self, table: pd.DataFrame) -> None:
        self.index = table.index
        self.paths = table["path"].astype(str).tolist()
        self.codes = table["label"].cat.codes.to_numpy(np.int32)
        self.class_names = [str(name) for name in table["label"].cat.categories]
        self.image_size, self.resize = self.preparation.image_size, self.preparation.resize
        self.seed = random.randrange(2**31) if self.given_seed is None else int(self.given_seed)
        self.cache: caches.Cache = caches.MemoryCache(0)
        self.broken: dict[int, str] = {}
        self.next_epoch = 0  # number of the pass that would begin now
        self._deep_was_said = False
        self._orders: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    # Which images, in which batches

    def __len__(self) -> int:
        """Batches in an epoch."""
        images = order.epoch_length(self.codes, training=self.training, balance=self.balance, shard=self.shard)
        return -(-images // self.batch_size)

    def take_epoch(self) -> int:
        """The number of the pass that begins now."""
        with self._lock:
            self.next_epoch += 1
            return self.next_epoch - 1

    def rows_of(self, epoch: int) -> np.ndarray:
        """Rows and repeats of an epoch, shape (images, 2)."""
        return order.epoch_rows(
            self.codes, epoch=epoch, seed=self.seed, training=self.training, balance=self.balance, shard=self.shard
        )

    def batch_rows(self, epoch: int, batch: int) -> np.ndarray:
        """Rows and repeats of one batch; the order of an epoch is sampled once for all its batches."""
        with self._lock:
            if epoch not in self._orders:
                if len(self._orders) >= ORDERS:
                    del self._orders[next(iter(self._orders))]
                self._orders[epoch] = self.rows_of(epoch)
            rows = self._orders[epoch]
        return rows[batch * self.batch_size : (batch + 1) * self.batch_size]

    # Making a batch

    def make_batch(self, epoch: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of some rows. Runs in several threads at once, which share nothing but the cache."""
        sampled = self.sample(epoch, rows)
        transform = self.transform(sampled)
        images = np.empty((len(rows), *self.image_size, 3), np.uint8)
        kept: list[int] = []
        for position, row in enumerate(rows[:, 0].tolist()):
            image = self._readable(row)
            if image is not None:
                self.write_image(image, position, images[len(kept)], transform)
                kept.append(position)
        if not kept:
            return self._stand_in(epoch, int(rows[-1, 0]))
        if sampled is not None and len(kept) < len(rows):
            sampled = {name: values[kept] for name, values in sampled.items()}
        return self.finish(images[: len(kept)], self.labels_of(rows[kept, 0]), sampled)

    def sample(self, epoch: int, rows: np.ndarray) -> SampledParameters | None:
        """What happens to each of these rows in that epoch."""
        if self.policy is None:
            return None
        return self.policy.sample(rows[:, 0], repeats=rows[:, 1], seed=self.seed, epoch=epoch)

    def transform(self, sampled: SampledParameters | None) -> Any:
        """What changes images as sampled; one for each batch, as it remembers what images of one size share."""
        return None if sampled is None else self.policy.transform(sampled, self.image_size)

    def write_image(self, image: np.ndarray, position: int, out: np.ndarray, transform: Any) -> None:
        """Writes an image that `decode` returned into `out`, of the target size, changed as sampled."""
        if transform is None:
            np.copyto(out, image)
        elif self.detail is None:
            transform(position, image, out)
        else:
            size = image.shape[:2]
            base = None if size == self.image_size else base_matrix(size, self.image_size, self.resize)
            transform(position, image, out, base=base, black=self.resize == "pad")

    def labels_of(self, rows: np.ndarray) -> np.ndarray:
        """Class numbers, or one-hot."""
        codes = self.codes[rows]
        return np.eye(len(self.class_names), dtype=np.float32)[codes] if self.one_hot else codes

    def finish(
        self, images: np.ndarray, labels: np.ndarray, sampled: SampledParameters | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Makes images grey, if the network's are, and blends those of the batch, if the policy says so."""
        if self.preparation.channels == 1:
            images = luma(images)
        return self.policy.mix(images, labels, sampled) if sampled and self.policy.mixes else (images, labels)

    @cached_property
    def detail(self) -> float | None:
        """How far the policy may enlarge, as it resamples itself; None if images are to come at the target size."""
        return self.policy.magnification if self.policy is not None and self.policy.moves else None

    def pixels(self, row: int) -> np.ndarray:
        """The decoded image of a row, from the cache if it is there: at the target size, or larger for a policy."""
        path = self.paths[row]
        data = read_file(path) if self.cache.by_content else b""
        key = self._content_key(data) if self.cache.by_content else row
        image = self.cache.get(key)
        if image is None:
            image = self.decode(data or read_file(path), path)
            self.cache.put(key, image)
        return image

    def _content_key(self, data: bytes) -> str:
        """A name for what `decode` makes of a file, by all that decides its pixels and nothing else."""
        if self.detail is None:
            return caches.content_key(data, self.image_size, self.resize, self.preparation.levels)
        size = declared_size(data)
        return caches.content_key(data, size and self.reduction(size), self.preparation.levels)

    def reduction(self, size: tuple[int, int]) -> int:
        """By how much an image of that height and width is reduced while it is decoded."""
        return reduction(size, self.image_size, self.resize, self.detail or 1.0)

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """What is cached: the image at the target size, or as large as the policy needs it."""
        image = read_reduced(data, self.reduction, self.preparation.levels, name, strict=True)
        if image.dtype != np.uint8:
            self._say_deep(name)
            image = as_bytes(image)
        return resample(image, self.image_size, self.resize) if self.detail is None else image

    # What is said

    def _say_deep(self, name: str) -> None:
        if not self._deep_was_said:
            self._deep_was_said = True
            logger.warning(
                "%s has more than 8 bits, and nothing says which of its levels are black and white: all that its type "
                "can hold are. Say it once for the whole data set, such as `pipelines.load(…, levels=(0, 4095))`; "
                "`audit.scan` finds the levels.", name,
            )  # fmt: skip

    def _readable(self, row: int) -> np.ndarray | None:
        """The image of a row; None where it cannot be read, which is remembered and, the first time, said."""
        try:
            image = self.pixels(row)
        except (OSError, ValueError) as error:
            problem = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
            problem = getattr(error, "problem", problem)  # of an UnreadableImageError
            with self._lock:  # two threads may meet the first ones at once
                first = not self.broken
                self.broken[row] = problem
            if first:
                logger.warning(
                    "Skipping %s: %s. Others are skipped without a word; `pipelines.broken(dataset)` lists them.",
                    self.paths[row], problem.rstrip("."),
                )  # fmt: skip
            return None
        self.broken.pop(row, None)
        return image

    def _stand_in(self, epoch: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        """One readable image instead of a batch of broken ones, so that `len(dataset)` stays true."""
        for step in range(1, len(self.paths)):
            other = (row + step) % len(self.paths)
            if other not in self.broken and self._readable(other) is not None:
                return self.make_batch(epoch, np.array([[other, 0]]))
        raise ValueError(
            f"None of the {len(self.paths):,} images can be read. The first: {self.paths[0]}: {self.broken.get(0)}"
        )

    # The dataset

    def dataset(self, epoch: int | None = None, first: int = 0) -> tf.data.Dataset:
        """The batches from `first` on as a dataset: of one epoch, or of another one on each pass."""
        import tensorflow as tf

        count = len(self)
        images_shape = (None, *self.image_size, self.preparation.channels)
        labels_shape = (None, len(self.class_names)) if self.one_hot else (None,)
        labels_dtype = tf.float32 if self.one_hot else tf.int32
        # TensorFlow keeps every function that it is given here for as long as the process lives. They hold this source
        # weakly, and the dataset holds it: images in memory go when the dataset does.
        reference = weakref.ref(self)

        def next_epoch() -> np.int64:
            return np.int64(_alive(reference).take_epoch() if epoch is None else epoch)

        def work(epoch: np.ndarray, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            source = _alive(reference)
            return source.make_batch(int(epoch), source.batch_rows(int(epoch), int(batch)))

        def number(epoch: tf.Tensor) -> tf.data.Dataset:
            return tf.data.Dataset.range(first, count).map(lambda batch: (epoch, batch))

        def make(epoch: tf.Tensor, batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = tf.numpy_function(work, [epoch, batch], [tf.uint8, labels_dtype])
            return tf.ensure_shape(images, images_shape), tf.ensure_shape(labels, labels_shape)

        # Python is asked for the epoch once a pass. `Dataset.from_generator` would be simpler, but sets an option
        # of the C allocator that makes every large array of the process several times dearer.
        passes = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(next_epoch, [], tf.int64))
        batches = passes.flat_map(number).apply(tf.data.experimental.assert_cardinality(count - first))
        # Whole batches in parallel: Python is called once a batch, and OpenCV lets the other threads run meanwhile.
        cv2.setNumThreads(1)  # the batches are parallel; threads within each would only get into each other's way
        dataset = batches.map(make, num_parallel_calls=available_cores(), deterministic=True).prefetch(2)
        options = tf.data.Options()
        # Nothing here is left to tune, and the thread that would do it now and then misses that it is to stop: whoever
        # drops an iterator, as `fit` does after every epoch, then waits until it wakes, up to a minute.
        options.autotune.enabled = False
        policy = tf.data.experimental.AutoShardPolicy
        options.experimental_distribute.auto_shard_policy = policy.OFF if self.shard[1] > 1 else policy.DATA
        dataset = dataset.with_options(options)
        dataset._cnnlab_source = self
        return dataset


def _alive(reference: weakref.ref[BatchSource]) -> BatchSource:
    source = reference()
    if source is None:
        raise RuntimeError("The dataset that `pipelines.load` returned was deleted while its batches were still read.")
    return source

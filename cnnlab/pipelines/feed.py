"""What stands behind a dataset of `load`: which rows, which epoch, how a batch is made, what was broken."""

import logging
import threading
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import pandas as pd
import tensorflow as tf

from cnnlab._common import available_cores
from cnnlab.images import Preparation
from cnnlab.images.colours import luma
from cnnlab.pipelines import cache as caches
from cnnlab.pipelines import order, reading

ORDERS = 4  # epochs whose order is kept at a time
Draws = dict[str, np.ndarray]
logger = logging.getLogger("cnnlab")


class Feed:
    """What stands behind a dataset: knows the rows, counts the epochs, makes the batches, remembers broken files."""

    def __init__(self, table: pd.DataFrame, *, preparation: Preparation, batch_size: int) -> None:
        self.index = table.index
        self.paths = table["path"].astype(str).tolist()
        self.codes = table["label"].cat.codes.to_numpy(np.int32)
        self.class_names = [str(name) for name in table["label"].cat.categories]
        self.class_count = len(self.class_names)
        self.preparation = preparation
        self.image_size = preparation.image_size
        self.resize = preparation.resize
        self.batch_size = batch_size
        self.training = False
        self.policy: Any = None
        self.seed = 0
        self.balance: str | float | None = None
        self.shard = (0, 1)
        self.one_hot = False
        self.cache: caches.Cache = caches.NoCache()
        self.broken: dict[int, str] = {}
        self._next_epoch = 0
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
            epoch = self._next_epoch
            self._next_epoch += 1
        return epoch

    @property
    def next_epoch(self) -> int:
        """The number of the pass that would begin now."""
        return self._next_epoch

    def set_epoch(self, epoch: int) -> None:
        """Makes the next pass that epoch."""
        with self._lock:
            self._next_epoch = epoch

    def rows_of(self, epoch: int) -> np.ndarray:
        """Rows and repeats of an epoch, shape (images, 2)."""
        return order.epoch_rows(
            self.codes, epoch=epoch, seed=self.seed, training=self.training, balance=self.balance, shard=self.shard
        )

    def batch_rows(self, epoch: int, batch: int) -> np.ndarray:
        """Rows and repeats of one batch; the order of an epoch is drawn once for all its batches."""
        with self._lock:
            if epoch not in self._orders:
                if len(self._orders) >= ORDERS:
                    del self._orders[next(iter(self._orders))]
                self._orders[epoch] = self.rows_of(epoch)
            rows = self._orders[epoch]
        return rows[batch * self.batch_size : (batch + 1) * self.batch_size]

    # Making a batch

    @property
    def label_dtype(self) -> tf.DType:
        """float32 for one-hot labels, int32 for class numbers."""
        return tf.float32 if self.one_hot else tf.int32

    def work(self, epoch: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of some rows. Runs in several threads at once, which share nothing but the cache."""
        drawn = self.draw(epoch, rows)
        brush = self.brush(drawn)
        images = np.empty((len(rows), *self.image_size, 3), np.uint8)
        kept: list[int] = []
        for position, row in enumerate(rows[:, 0].tolist()):
            try:
                image = self.pixels(row)
            except (OSError, ValueError) as error:
                self._remember(row, error)
                continue
            self.broken.pop(row, None)
            self.put(image, position, images[len(kept)], brush)
            kept.append(position)
        if not kept:
            return self._stand_in(epoch, int(rows[-1, 0]))
        if drawn is not None and len(kept) < len(rows):
            drawn = {name: values[kept] for name, values in drawn.items()}
        images = images[: len(kept)]
        if self.preparation.channels == 1:
            images = luma(images.reshape(-1, images.shape[2], 3)).reshape(*images.shape[:3], 1)
        return self.mix(images, self.labels_of(rows[kept, 0]), drawn)

    def draw(self, epoch: int, rows: np.ndarray) -> Draws | None:
        """What happens to each of these rows in that epoch."""
        if self.policy is None:
            return None
        return self.policy.draw(rows[:, 0], repeats=rows[:, 1], seed=self.seed, epoch=epoch)

    def brush(self, drawn: Draws | None) -> Any:
        """What paints images as drawn; one for each batch, as it remembers what images of one size have in common."""
        return None if drawn is None else self.policy.brush(drawn, self.image_size)

    def put(self, image: np.ndarray, position: int, out: np.ndarray, brush: Any) -> None:
        """Paints an image that `decode` returned into `out`, of the target size."""
        if brush is None:
            np.copyto(out, image)
        elif self.detail is None:
            brush(position, image, out)
        else:
            size = image.shape[:2]
            base = None if size == self.image_size else reading.base_matrix(size, self.image_size, self.resize)
            brush(position, image, out, base=base, black=self.resize == "pad")

    def labels_of(self, rows: np.ndarray) -> np.ndarray:
        """Class numbers, or one-hot."""
        codes = self.codes[rows]
        return np.eye(self.class_count, dtype=np.float32)[codes] if self.one_hot else codes

    def mix(self, images: np.ndarray, labels: np.ndarray, drawn: Draws | None) -> tuple[np.ndarray, np.ndarray]:
        """Blends the images of a batch, if the policy says so."""
        return (images, labels) if drawn is None else self.policy.mix(images, labels, drawn)

    @cached_property
    def detail(self) -> float | None:
        """How far the policy may enlarge, as it resamples itself; None if images are to come at the target size."""
        return self.policy.magnification if self.policy is not None and self.policy.moves else None

    def pixels(self, row: int) -> np.ndarray:
        """The decoded image of a row, from the cache if it is there: at the target size, or larger for a policy."""
        path, detail = self.paths[row], self.detail
        data = None
        key: object = row
        if self.cache.by_content:
            data = reading.read_bytes(path)
            key = caches.content_key(data, self.image_size, self.resize, self.preparation.levels, detail)
        image = self.cache.get(key)
        if image is None:
            data = reading.read_bytes(path) if data is None else data
            image = self.decode(data, path)
            self.cache.put(key, image)
        return image

    def decode(self, data: bytes, name: str) -> np.ndarray:
        """What is cached: the image at the target size, or as large as the policy needs it."""
        size, resize, detail = self.image_size, self.resize, self.detail
        image = reading.reduced(data, size, resize, detail=detail or 1.0, levels=self.preparation.levels, name=name)
        return reading.resample(image, size, resize) if detail is None else image

    # Broken files

    def _remember(self, row: int, error: Exception) -> None:
        problem = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        first = not self.broken
        self.broken[row] = problem
        if first:
            logger.warning(
                "Skipping %s: %s. Others are skipped without a word; `pipelines.broken(dataset)` lists them.",
                self.paths[row], problem.rstrip("."),
            )  # fmt: skip

    def _stand_in(self, epoch: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        """One readable image in place of a batch of broken ones, so that `len(dataset)` stays true."""
        for step in range(1, len(self.paths)):
            other = (row + step) % len(self.paths)
            if other not in self.broken:
                try:
                    self.pixels(other)
                except (OSError, ValueError) as error:
                    self._remember(other, error)
                else:
                    return self.work(epoch, np.array([[other, 0]]))
        raise ValueError(
            f"None of the {len(self.paths):,} images can be read. The first: {self.paths[0]}: {self.broken.get(0)}"
        )

    # The dataset

    def dataset(self, epoch: int | None = None, first: int = 0) -> tf.data.Dataset:
        """The batches from `first` on as a dataset: of one epoch, or of another one on each pass."""
        images_shape = (None, *self.image_size, self.preparation.channels)
        count = len(self)

        def next_epoch() -> np.int64:
            return np.int64(self.take_epoch() if epoch is None else epoch)

        def number(epoch: tf.Tensor) -> tf.data.Dataset:
            return tf.data.Dataset.range(first, count).map(lambda batch: (epoch, batch))

        def work(epoch: np.ndarray, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return self.work(int(epoch), self.batch_rows(int(epoch), int(batch)))

        def make(epoch: tf.Tensor, batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = tf.numpy_function(work, [epoch, batch], [tf.uint8, self.label_dtype])
            labels_shape = (None, self.class_count) if self.one_hot else (None,)
            return tf.ensure_shape(images, images_shape), tf.ensure_shape(labels, labels_shape)

        # Python is asked for the epoch once a pass. `Dataset.from_generator` would be simpler, but sets an option
        # of the C allocator that makes every large array of the process several times dearer.
        passes = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(next_epoch, [], tf.int64))
        batches = passes.flat_map(number).apply(tf.data.experimental.assert_cardinality(count - first))
        # Whole batches in parallel: Python is called once a batch, and OpenCV lets the other threads run meanwhile.
        cv2.setNumThreads(1)  # the batches are parallel; threads within each would only get into each other's way
        dataset = batches.map(make, num_parallel_calls=available_cores(), deterministic=True).prefetch(2)
        options = tf.data.Options()
        sharded = self.shard[1] > 1
        policy = tf.data.experimental.AutoShardPolicy
        options.experimental_distribute.auto_shard_policy = policy.OFF if sharded else policy.DATA
        dataset = dataset.with_options(options)
        dataset._cnnlab_feed = self
        return dataset

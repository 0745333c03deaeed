"""What a frozen network makes of each image, computed once and kept on disk."""

import hashlib
import logging
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import images, models, pipelines
from cnnlab._common import atomic_path, progress, require_columns
from cnnlab.experiments.fingerprint import layers_digest, weights_digest
from cnnlab.images import Preparation
from cnnlab.images.sizing import Resize
from cnnlab.models.metadata import find_metadata
from cnnlab.pipelines.cache import content_key, default_folder

AT_A_TIME = 2  # batches in TensorFlow at the same time, since one does not fill two cores
logger = logging.getLogger("cnnlab")


def features(
    backbone: keras.Model,
    table: pd.DataFrame,
    *,
    batch_size: int = 32,
    resize: Resize | None = None,
    cache: bool = True,
) -> np.ndarray:
    """Computes what a network makes of each image: the numbers that a last layer, or scikit-learn, can learn from.

    Each image is computed once and kept, in $CNNLAB_CACHE or the user's cache folder, under the content of its file and
    the weights of the network: renamed files, other tables, folds and processes find it there.

    Args:
        backbone: Raw images 0-255 in. Maps of features are averaged over the image; of a classifier of `cnnlab.models`,
            the input of its last dense layer is taken.
        table: With the columns path and label.
        batch_size: Images at a time.
        resize: Another resize mode than the model's, as in `pipelines.load`.
        cache: Whether to look up and keep the results on disk.

    Returns:
        float32, of shape (rows, features), in the order of the table; not a number where an image cannot be read.

    Raises:
        TypeError: If `backbone` is no Keras model.
        ValueError: If the size of its images is open.

    Example:
        >>> import tempfile
        >>> from cnnlab import experiments, models, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     model = models.small_cnn(image_size=(32, 32), classes=table["label"].cat.categories, filters=(4,))
        ...     experiments.features(model, table, cache=False).shape
        (6, 4)
    """
    require_columns(table, "path", "label", caller="experiments.features")
    if not isinstance(backbone, keras.Model):
        raise TypeError(f"`experiments.features` expects a keras.Model. Received: {type(backbone).__name__}.")
    cut = before_last_layer(backbone)
    if len(cut.input_shape) != 4 or None in cut.input_shape[1:3]:
        raise ValueError(
            "`experiments.features` expects a network for images of one size, with an input of shape (height, width, "
            f"channels). Received one for {cut.input_shape[1:]}. Build it with `input_shape=(224, 224, 3)`."
        )
    prepared = models.preparation(backbone)
    prepared = prepared if resize is None else replace(prepared, resize=resize)
    values = embed(cut, table, prepared=prepared, batch_size=batch_size, cache=cache)
    return values.mean(axis=tuple(range(1, values.ndim - 1))) if values.ndim > 2 else values


def before_last_layer(model: keras.Model) -> keras.Model:
    """Of a classifier that carries class names, the part before its last dense layer; any other network unchanged."""
    if find_metadata(model) is None:
        return model
    last = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][-1]
    return keras.Model(model.inputs[0], last.input)


def embed(
    backbone: keras.Model, table: pd.DataFrame, *, prepared: Preparation, batch_size: int = 32, cache: bool = True
) -> np.ndarray:
    """As `features`, with the output of `backbone` as it is: float32, of shape (rows, …).

    Args:
        backbone: Raw images 0-255 in.
        table: With the columns path and label.
        prepared: How images are prepared.
        batch_size: Images at a time.
        cache: Whether to look up and keep the results on disk.
    """
    keys = [_key(path, prepared) for path in table["path"].astype(str)]
    kept = FeatureCache(digest(backbone) if cache else None, shape=backbone.output_shape[1:])
    features = kept.get(keys)
    first_row = {key: row for row, key in reversed(list(enumerate(keys))) if key is not None and key not in features}
    if first_row:
        rows = sorted(first_row.values())
        computed = _compute(backbone, table.iloc[rows], batch_size=batch_size, prepared=prepared)
        fresh = {keys[row]: values for row, values in zip(rows, computed, strict=True) if np.isfinite(values).all()}
        kept.put(fresh)
        features |= fresh
    nothing = np.full(backbone.output_shape[1:], np.nan, np.float32)
    return np.stack([features.get(key, nothing) if key is not None else nothing for key in keys])


def _key(path: str, prepared: Preparation) -> str | None:
    """A name for the pixels that a network gets of a file: its content, and everything that decides how it is read."""
    try:
        return content_key(images.read_file(path), sorted(prepared.to_dict().items()))
    except (OSError, ValueError):
        return None


def _compute(backbone: keras.Model, table: pd.DataFrame, *, batch_size: int, prepared: Preparation) -> np.ndarray:
    """The features of every row; not a number where an image cannot be read."""
    result = np.full((len(table), *backbone.output_shape[1:]), np.nan, np.float32)
    data = pipelines.load(table, like=prepared, batch_size=batch_size, cache=False)
    batches = progress(data.as_numpy_iterator(), label="features", total=len(data), unit="batch")
    try:
        values = np.concatenate(list(_forward(backbone, (images for images, _ in batches))))
    except Exception as error:  # the pipeline's words, when not one file can be read
        if len(pipelines.broken(data)) < len(table):
            raise
        logger.warning("None of %d images can be read: %s", len(table), error)
        return result
    rows = pipelines.delivered(data)
    result[rows[rows >= 0]] = values[rows >= 0]
    return result


def _forward(backbone: keras.Model, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The network's answers in order, by one compiled function, whatever the machine is doing."""
    if keras.backend.backend() != "tensorflow":
        for images in batches:
            yield np.asarray(backbone.predict_on_batch(images.astype(np.float32)), np.float32)
        return
    import tensorflow as tf

    function: Callable[[np.ndarray], Any] = tf.function(
        lambda images: tf.cast(backbone(tf.cast(images, tf.float32), training=False), tf.float32),
        input_signature=[tf.TensorSpec((None, *backbone.input_shape[1:]), tf.uint8)],
    )
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for images in batches:
            waiting.append(pool.submit(function, images))
            if len(waiting) > AT_A_TIME:
                yield waiting.popleft().result().numpy()
        while waiting:
            yield waiting.popleft().result().numpy()


def digest(model: keras.Model) -> str:
    """A name for what a network computes: its layers, how they are joined, and its weights."""
    return hashlib.blake2b(
        f"{layers_digest(model, trainable=False)} {weights_digest(model.weights)}".encode(), digest_size=16
    ).hexdigest()


class FeatureCache:
    """Features on disk under the content of their images; one file for each time that new ones were computed.

    Args:
        name: Of the network; None keeps nothing.
        shape: Of the features of one image.
    """

    def __init__(self, name: str | None, *, shape: tuple[int, ...]) -> None:
        self.folder = None if name is None else default_folder().parent / "features" / name
        self.shape = tuple(shape)

    def get(self, keys: list[str | None]) -> dict[str | None, np.ndarray]:
        """The features that are there of these images; what is damaged is passed over, to be computed anew."""
        wanted = set(keys)
        features: dict[str | None, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.npz")) if self.folder else []:
            try:
                features |= {key: value for key, value in self._read(path).items() if key in wanted}
            except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile):
                continue
        return features

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        with zipfile.ZipFile(path) as packed:
            if sum(part.file_size for part in packed.infolist()) > path.stat().st_size:  # they are stored, not packed
                raise ValueError("packed")
        with np.load(path, allow_pickle=False) as file:
            keys, values = file["keys"], file["values"]
        if values.shape != (len(keys), *self.shape) or values.dtype != np.float32 or not np.isfinite(values).all():
            raise ValueError("other features")
        return dict(zip(keys.tolist(), values, strict=True))

    def put(self, values: dict[str | None, np.ndarray]) -> None:
        """Keeps features; if the disk refuses, they are computed again next time."""
        if self.folder is None or not values:
            return
        name = hashlib.blake2b("".join(sorted(map(str, values))).encode(), digest_size=16).hexdigest()
        try:
            with atomic_path(self.folder / f"{name}.npz") as temporary, temporary.open("wb") as file:
                np.savez(file, keys=np.array([str(key) for key in values]), values=np.stack(list(values.values())))
        except OSError as error:
            logger.warning("The features could not be kept in %s (%s); going on without.", self.folder, error)

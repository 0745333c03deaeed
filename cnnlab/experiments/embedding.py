"""What a frozen network makes of each image, computed once and kept on disk."""

import hashlib
import json
import logging
import re
import tempfile
import time
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import pipelines
from cnnlab._common import atomic_path, available_cores, progress, require_columns
from cnnlab._quiet import native_stderr_held
from cnnlab.images.files import read_file
from cnnlab.images.sizing import Resize
from cnnlab.pipelines.cache import content_key, default_folder

Engine = Callable[[np.ndarray], np.ndarray]

WORTH_CONVERTING = 20.0  # seconds that must lie ahead; converting a network to LiteRT takes about ten
TRIED = 4  # batches by which an engine is judged
ALIKE = 1e-3  # largest relative difference of the features of two engines
logger = logging.getLogger("cnnlab")


def features(
    backbone: keras.Model, table: pd.DataFrame, *, batch_size: int = 32, resize: Resize = "fit", cache: bool = True
) -> np.ndarray:
    """Computes what a network makes of each image: the numbers that a last layer, or scikit-learn, can learn from.

    Each image is computed once and kept, in $CNNLAB_CACHE or the user's cache folder, under the content of its file and
    the weights of the network: renamed files, other tables, folds and processes find it there. Where many images are
    ahead and there is no GPU, TensorFlow and LiteRT are both tried on the first ones and the faster one goes on.

    Args:
        backbone: Raw images 0-255 in. Maps of features are averaged over the image; of a classifier of `cnnlab.models`,
            the input of its last dense layer is taken.
        table: With the columns path and label.
        batch_size: Images at a time.
        resize: As in `pipelines.load`.
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
    values = embed(before_last_layer(backbone), table, batch_size=batch_size, resize=resize, cache=cache)
    return values.mean(axis=tuple(range(1, values.ndim - 1))) if values.ndim > 2 else values


def before_last_layer(model: keras.Model) -> keras.Model:
    """Of a classifier that carries class names, the part before its last dense layer; any other network unchanged."""
    if not any(layer.name == "class_names" for layer in model.layers):
        return model
    last = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][-1]
    return keras.Model(model.inputs[0], last.input)


def embed(
    backbone: keras.Model, table: pd.DataFrame, *, batch_size: int = 32, resize: Resize = "fit", cache: bool = True
) -> np.ndarray:
    """As `features`, with the output of `backbone` as it is: float32, of shape (rows, …)."""
    size = backbone.input_shape[1:3]
    if len(backbone.input_shape) != 4 or None in size:
        raise ValueError(
            "`experiments.features` expects a network for images of one size, with an input of shape (height, width, "
            f"channels). Received one for {backbone.input_shape[1:]}. Build it with `input_shape=(224, 224, 3)`."
        )
    keys = [_key(path, size, resize) for path in table["path"].astype(str)]
    shelf = Shelf(digest(backbone) if cache else None)
    known = shelf.get(keys)
    first_row = {key: row for row, key in reversed(list(enumerate(keys))) if key is not None and key not in known}
    if first_row:
        rows = sorted(first_row.values())
        found = _compute(backbone, table.iloc[rows], batch_size=batch_size, resize=resize)
        fresh: dict[str | None, np.ndarray] = {
            keys[row]: values for row, values in zip(rows, found, strict=True) if not np.isnan(values).any()
        }
        shelf.put(fresh)
        known |= fresh
    nothing = np.full(backbone.output_shape[1:], np.nan, np.float32)
    return np.stack([known.get(key, nothing) if key is not None else nothing for key in keys])


def _key(path: str, size: tuple[int, int], resize: str) -> str | None:
    try:
        return content_key(read_file(path), tuple(size), resize)
    except OSError:
        return None


def _compute(backbone: keras.Model, table: pd.DataFrame, *, batch_size: int, resize: Resize) -> np.ndarray:
    """The features of every row. Broken files shift the rows of their batches: they are left out and all is redone."""
    result = np.full((len(table), *backbone.output_shape[1:]), np.nan, np.float32)
    rows = np.arange(len(table))
    engine = Fastest(backbone, images=len(table))
    while len(rows):
        data = pipelines.load(
            table.iloc[rows], image_size=backbone.input_shape[1:3], batch_size=batch_size, resize=resize, cache=False
        )
        batches = progress(data.as_numpy_iterator(), label="features", total=len(data), unit="batch")
        values = list(_answers(engine, (images for images, _ in batches)))
        broken = set(pipelines.broken(data)["path"])
        if not broken:
            result[rows] = np.concatenate(values)
            break
        rows = rows[~table["path"].iloc[rows].isin(broken).to_numpy()]
    return result


def _answers(engine: "Fastest", batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The engine's answers in order; two batches at a time where it allows, since one does not fill two cores."""
    waiting: deque[Future[np.ndarray]] = deque()
    with ThreadPoolExecutor(2) as pool:
        for images in batches:
            if not engine.many_at_a_time:
                yield engine(images)
                continue
            waiting.append(pool.submit(engine.engine, images))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Fastest:
    """Runs a network on batches of images by the engine that proves faster.

    Starts with TensorFlow. After some batches, if so much is left that converting pays, LiteRT is tried on the last
    batch and goes on if it is faster and gives the same numbers.

    Args:
        backbone: The network.
        images: How many there will be.
    """

    def __init__(self, backbone: keras.Model, *, images: int) -> None:
        self.backbone, self.left = backbone, images
        self.engine = tensorflow_engine(backbone)
        self.name = "tensorflow"
        self.seconds: list[float] = []  # per image, of the batches after the first, which compiles
        self.calls = 0

    @property
    def many_at_a_time(self) -> bool:
        """Whether batches may be given to `engine` at the same time: once TensorFlow has been chosen."""
        return self.name == "tensorflow" and self.calls >= TRIED and keras.backend.backend() == "tensorflow"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features of one batch."""
        began = time.perf_counter()
        result = self.engine(images)
        self.calls += 1
        self.left -= len(images)
        if self.name == "tensorflow" and 1 < self.calls <= TRIED:
            self.seconds.append((time.perf_counter() - began) / len(images))
            if self.calls == TRIED and self.left * min(self.seconds) > WORTH_CONVERTING and not _on_accelerator():
                self._try_litert(images, result)
        return result

    def _try_litert(self, images: np.ndarray, expected: np.ndarray) -> None:
        try:
            other = litert_engine(self.backbone)
            other(images)
        except Exception:  # whatever a converter dislikes about a network
            return
        began = time.perf_counter()
        found = other(images)
        seconds = (time.perf_counter() - began) / len(images)
        if seconds < min(self.seconds) and np.abs(found - expected).max() <= ALIKE * np.abs(expected).max():
            self.engine, self.name = other, "litert"


def tensorflow_engine(backbone: keras.Model) -> Engine:
    """Runs the network in one compiled call."""
    if keras.backend.backend() != "tensorflow":
        return lambda images: np.asarray(backbone.predict_on_batch(images.astype(np.float32)))
    import tensorflow as tf

    function = tf.function(
        lambda images: backbone(tf.cast(images, tf.float32), training=False),
        input_signature=[tf.TensorSpec((None, *backbone.input_shape[1:]), tf.uint8)],
    )
    return lambda images: function(images).numpy()


def litert_engine(backbone: keras.Model, *, at_once: int = 8) -> Engine:
    """Runs the network in LiteRT, few images at a time, which is where it is fastest."""
    from ai_edge_litert.interpreter import Interpreter

    with tempfile.TemporaryDirectory() as folder, native_stderr_held(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter speaks of its own future
        path = Path(folder) / "backbone.tflite"
        backbone.export(path, format="litert", verbose=False)
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=available_cores())
        source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
        interpreter.resize_tensor_input(source, (at_once, *backbone.input_shape[1:]))
        interpreter.allocate_tensors()

    def run(images: np.ndarray) -> np.ndarray:
        results = []
        for start in range(0, len(images), at_once):
            part = images[start : start + at_once].astype(np.float32)
            padding = [(0, at_once - len(part))] + [(0, 0)] * (part.ndim - 1)
            interpreter.set_tensor(source, np.pad(part, padding))
            interpreter.invoke()
            results.append(interpreter.get_tensor(target)[: len(part)].copy())
        return np.concatenate(results)

    return run


def _on_accelerator() -> bool:
    return any(not name.lower().startswith("cpu") for name in keras.distribution.list_devices())


def digest(model: keras.Model) -> str:
    """A name for what a network computes: its layers, how they are joined, and its weights."""
    config = json.dumps(model.get_config(), default=str, sort_keys=True)
    # Keras numbers the layers that a process makes; whether they may learn does not change what they compute.
    plain = re.sub(r'_\d+"|"trainable": (true|false),?', '"', config)
    found = hashlib.blake2b(plain.encode(), digest_size=16)
    for variable in model.weights:
        found.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).data)
    return found.hexdigest()


class Shelf:
    """Features on disk under the content of their images; one file for each time that new ones were computed.

    Args:
        name: Of the network; None keeps nothing.
    """

    def __init__(self, name: str | None) -> None:
        self.folder = None if name is None else default_folder().parent / "features" / name

    def get(self, keys: list[str | None]) -> dict[str | None, np.ndarray]:
        """The features that are there of these images."""
        wanted = set(keys)
        found: dict[str | None, np.ndarray] = {}
        for path in sorted(self.folder.glob("*.npz")) if self.folder else []:
            try:
                with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                    found |= dict(zip(file["keys"].tolist(), file["values"], strict=True))
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # not whole: computed anew
                continue
        return {key: value for key, value in found.items() if key in wanted}

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

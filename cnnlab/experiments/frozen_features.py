"""Features of a frozen backbone, computed once and kept; and heads on them, trained side by side as one program."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import _upstream, images, models
from cnnlab._common import atomic_path, is_quiet, require_columns
from cnnlab.experiments.predicting import outputs_by_row
from cnnlab.images import Preparation
from cnnlab.images.sizing import Resize
from cnnlab.models.catalogue import NETWORKS, require_known
from cnnlab.models.fingerprint import layers_digest, own_code, weights_digest
from cnnlab.models.metadata import find_metadata
from cnnlab.models.naming import before_head
from cnnlab.pipelines.cache import content_key, default_folder

# Layers that keep weights and nothing else: frozen, they do the same in training as in use.
WEIGHTS_ONLY = {
    "Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D",
    "SeparableConv2D", "Dense", "EinsumDense", "Embedding", "PReLU", "BatchNormalization", "LayerNormalization",
    "GroupNormalization", "RMSNormalization", "Normalization", "MultiHeadAttention", "GroupedQueryAttention",
    "LayerScale", "Functional", "Sequential",
}  # fmt: skip
logger = logging.getLogger("cnnlab")


def features(
    backbone: keras.Model | str,
    table: pd.DataFrame,
    *,
    image_size: tuple[int, int] | None = None,
    pyramid: bool = False,
    batch_size: int = 32,
    resize: Resize | None = None,
    cache: bool = True,
) -> np.ndarray:
    """Computes what a network makes of each image: the numbers that a last layer, or scikit-learn, can learn from.

    Each image is computed once and kept, in $CNNLAB_CACHE or the user's cache folder, under the content of its file and
    the weights of the network: renamed files, other tables, folds and processes find it there.

    Args:
        backbone: A name of `models.table()`, with its ImageNet weights, such as "EfficientNetLite0", whose weights come
            with pip. Or a network: raw images 0-255 in. Maps of features are averaged over the image; of a classifier
            of `cnnlab.models`, the input of its last dense layer is taken.
        table: With the column path; labels are not looked at.
        image_size: Height and width in pixels for a network by name; those that it was trained on where None.
        pyramid: For a network by name, adds features of its finer maps, as `models.pretrained(pyramid=True)` does.
        batch_size: Images at a time.
        resize: Another resize mode than the model's, as in `pipelines.load`.
        cache: Whether to look up and keep the results on disk.

    Returns:
        float32, of shape (rows, features), in the order of the table; not a number where an image cannot be read.

    Raises:
        TypeError: If `backbone` is neither a name nor a Keras model, or a model comes with an `image_size`.
        ValueError: If there is no such network, the size of its images is open, or it cannot be cut
            before a last dense layer.
        FileNotFoundError: If the weights of this name are neither here nor to be fetched.

    Example:
        >>> import tempfile
        >>> from cnnlab import experiments, models, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     model = models.small_cnn(image_size=(32, 32), classes=table["label"].cat.categories, filters=(4,))
        ...     experiments.features(model, table, cache=False).shape
        (6, 4)
    """
    require_columns(table, "path", caller="experiments.features")
    if isinstance(backbone, str):
        backbone = _by_name(backbone, image_size, pyramid)
    elif not isinstance(backbone, keras.Model) or image_size is not None or pyramid:
        raise TypeError(
            "`experiments.features` expects a name of `models.table()`, or a keras.Model without `image_size` and "
            f"`pyramid`. Received: {type(backbone).__name__}, image_size={image_size}, pyramid={pyramid}."
        )
    cut, head_input = backbone, before_head(backbone, caller="experiments.features")
    if find_metadata(backbone) is not None:
        if head_input is None:
            raise ValueError(
                "`experiments.features` expects a classifier with a last Dense layer, whose input it takes. Received "
                f"{backbone.name!r}, which has none. Pass `keras.Model(model.inputs, layer.output)` with the layer "
                "whose output you want."
            )
        cut = keras.Model(backbone.inputs[0], head_input)
    if len(cut.input_shape) != 4 or None in cut.input_shape[1:3]:
        raise ValueError(
            "`experiments.features` expects a network for images of one size, with an input of shape (height, width, "
            f"channels). Received one for {cut.input_shape[1:]}. Build it with `input_shape=(224, 224, 3)`."
        )
    prepared = models.preparation(backbone)
    prepared = prepared if resize is None else replace(prepared, resize=resize)
    values = embed(cut, table, prepared, batch_size=batch_size, cache=cache)
    return values.mean(axis=tuple(range(1, values.ndim - 1))) if values.ndim > 2 else values


def _by_name(name: str, image_size: tuple[int, int] | None, pyramid: bool) -> keras.Model:
    """A pretrained network, whose head is of no interest."""
    require_known(name)
    side = NETWORKS[name].image_size
    try:
        return models.pretrained(name, image_size=image_size or (side, side), classes=["any", "other"], pyramid=pyramid)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"`experiments.features` has no ImageNet weights of {name} to compute features with. {error} "
            "`models.table().query('here')` lists the networks whose weights are on this machine."
        ) from error


def embed(
    backbone: keras.Model, table: pd.DataFrame, prepared: Preparation, *, batch_size: int = 32, cache: bool = True
) -> np.ndarray:
    """What a network answers for each image, float32 (rows, …); not a number where an image cannot be read."""
    shape = tuple(backbone.output_shape[1:])
    stored_as = np.dtype([("key", "U32"), ("values", np.float32, shape)])
    folder = default_folder().parent / "features" / digest(backbone)
    keys = [_key(path, prepared) for path in table["path"].astype(str)]
    known = dict(_kept(folder, stored_as)) if cache else {}
    rows = sorted({key: row for row, key in enumerate(keys) if key and key not in known}.values())
    if rows:
        network = keras.Model(backbone.inputs[0], backbone.outputs[0])
        network.compile(jit_compile=False)
        missing = table.iloc[rows]
        found, _ = outputs_by_row(network, missing, prepared, shape, batch_size=batch_size, verbose=not is_quiet())
        fresh = np.zeros(len(rows), stored_as)
        fresh["key"], fresh["values"] = [keys[row] for row in rows], found
        fresh = fresh[np.isfinite(found).reshape(len(rows), -1).all(axis=1)]
        known |= zip(fresh["key"].tolist(), fresh["values"], strict=True)
        if cache and len(fresh):
            name = hashlib.blake2b(fresh["key"].tobytes(), digest_size=16).hexdigest()
            try:
                with atomic_path(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
                    np.save(file, fresh)
            except OSError as error:
                logger.warning("The features could not be kept in %s (%s); going on without.", folder, error)
    return np.stack([known.get(key, np.full(shape, np.nan, np.float32)) for key in keys])


def _key(path: str, prepared: Preparation) -> str:
    """A name for the pixels that a network gets of a file; "" where it cannot be read."""
    try:
        return content_key(images.read_file(path), sorted(prepared.to_dict().items()))
    except (OSError, ValueError):
        return ""


def _kept(folder: Path, stored_as: np.dtype[Any]) -> Iterator[tuple[str, np.ndarray]]:
    """The features on disk by key; what is damaged is passed over, to be computed anew."""
    for path in sorted(folder.glob("*.npy")):
        if not path.is_file():  # a named pipe would be waited for
            continue
        try:
            rows = np.lib.format.open_memmap(path, mode="r")
            sound = rows.dtype == stored_as and rows.ndim == 1 and np.isfinite(rows["values"]).all()
            keys = rows["key"].tolist() if sound else []
        except Exception:  # numpy raises what its tokenizer raises on a header that somebody made up
            continue
        yield from zip(keys, rows["values"] if sound else [], strict=True)


def digest(model: keras.Model) -> str:
    """A name for what a network computes: its layers, how they are joined, its weights and the code of own layers."""
    content = f"{layers_digest(model, trainable=False)} {weights_digest(model.weights)}"
    content += own_code(_upstream.layers_within(model))
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


class BackboneAndHead(NamedTuple):
    """A network in two: images to features, the same in every epoch; features to probabilities, what is trained."""

    backbone: keras.Model
    head: keras.Model


def split_backbone(model: keras.Model) -> BackboneAndHead | None:
    """The frozen backbone of a compiled network and its head; None where training on features is not exactly the same.

    Frozen is what comes before the first layer that has trainable weights, keeps a state or draws at random. A dropout
    inside a backbone draws, even if it is called with `training=False`, which Keras 3 overrides when the network around
    it trains. Everything must be Keras's own: a class or function of somebody else's, in the network or in what it was
    compiled with, may look at images.
    """
    if not model.compiled or not model.built or model.run_eagerly or not _is_kerass(model):
        return None
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        return None
    changing: set[int] = set()
    seams: dict[int, Any] = {}
    frozen = False
    for call in _upstream.calls_of(keras.Model(model.inputs, model.outputs)):
        if not _changes(call.operation) and not any(id(tensor) in changing for tensor in call.input_tensors):
            frozen |= bool(getattr(call.operation, "weights", []))
            continue
        seams |= {id(tensor): tensor for tensor in call.input_tensors if id(tensor) not in changing}
        changing |= {id(tensor) for tensor in call.output_tensors}
    if len(seams) != 1 or not frozen or id(model.outputs[0]) not in changing:
        return None
    (seam,) = seams.values()
    while isinstance(before := _upstream.operation_of(seam), keras.layers.Dropout):
        seam = before.input  # of rate 0; others may follow in a search
    backbone = keras.Model(model.inputs[0], seam, name="backbone")
    if len(backbone.input_shape) != 4 or None in (*backbone.input_shape[1:], *backbone.output_shape[1:]):
        return None
    return BackboneAndHead(backbone, keras.Model(seam, model.outputs[0], name="head"))


def _is_kerass(model: keras.Model) -> bool:
    """Whether model, layers, optimizer, loss and metrics are Keras's own, or this package's, which look at no image."""

    def known(config: Any) -> bool:
        if isinstance(config, list | tuple):
            return all(map(known, config))
        if not isinstance(config, dict):
            return True
        root = str(config.get("module") or "keras").partition(".")[0]
        own = config.get("class_name") in ("function", "__lambda__", "Lambda")
        return root in ("keras", "builtins", "cnnlab") and not own and all(map(known, config.values()))

    try:
        described = known([model.get_config(), model.get_compile_config()])
    except Exception:  # what cannot be written down is somebody's own
        return False
    return described and type(model).__module__.startswith("keras.") and hasattr(model, "inputs")


def _changes(operation: Any) -> bool:
    """Whether a call gives something else in the next epoch for the same input, or adds to the loss."""
    if not isinstance(operation, keras.Layer):
        return False
    return bool(operation.trainable_weights) or any(map(_layer_changes, _upstream.layers_within(operation)))


def _layer_changes(layer: Any) -> bool:
    if isinstance(layer, keras.layers.ActivityRegularization) or getattr(layer, "activity_regularizer", None):
        return True
    if getattr(layer, "rate", None) == 0 or getattr(layer, "drop_path_rate", None) == 0:
        return False
    if any(isinstance(value, keras.random.SeedGenerator) for value in vars(layer).values()):
        return True
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.trainable)  # without center and scale nothing in it is trainable, yet its statistics move
    return bool(layer.weights) and type(layer).__name__ not in WEIGHTS_ONLY

"""A Keras network as it is exported: uncompiled, in float32, with its features as a second output."""

from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf

from cnnlab import models
from cnnlab.images import Preparation
from cnnlab.serving.engines import Answer, Engine


def for_use(model: keras.Model, preparation: Preparation) -> keras.Model:
    """The network alone, which plain Keras loads: no optimizer, no loss; its names and preparation stay inside.

    Layers and weights are those of `model`.
    """
    names = models.class_names(model)
    if getattr(model, "inputs", None) is None:  # Python code of somebody's own: one layer of a network of layers
        inputs = keras.Input((*preparation.image_size, preparation.channels))
        model = keras.Model(inputs, model(inputs, training=False), name=model.name)
    elif type(model) not in (keras.Model, keras.Sequential):
        model = keras.Model(model.input, model.output, name=model.name)
    return models.with_classes(
        model,
        names,
        resize=preparation.resize,
        levels=preparation.levels,
        image_size=None if None not in model.input_shape[1:3] else preparation.image_size,
    )


def two_outputs(model: keras.Model, image_size: tuple[int, int] | None = None) -> keras.Model:
    """The same network with a second output, its features; the names are those in every exported graph.

    Args:
        model: Takes one batch of images.
        image_size: Of those images, where the network leaves it open.
    """
    model = _in_float32(model, image_size)
    probabilities = model.output
    if probabilities.shape[-1] == 1:  # one sigmoid for two classes
        probabilities = keras.ops.concatenate([1 - probabilities, probabilities], axis=-1)
    return keras.Model(model.input, {"probabilities": probabilities, "features": _features_of(model)})


def _features_of(model: keras.Model) -> keras.KerasTensor:
    """The tensor that the last dense layer reads: what the network has seen, before it decides."""
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    seen = dense[-1].input if dense else model.output
    seen = seen if len(seen.shape) == 2 else keras.layers.Flatten()(seen)
    return seen if seen.dtype == "float32" else keras.ops.cast(seen, "float32")


def _in_float32(model: keras.Model, image_size: tuple[int, int] | None) -> keras.Model:
    """The model itself, or a copy of fixed size that takes float32 and computes in it, as CPUs and converters want."""
    is_open = image_size is not None and None in model.input_shape[1:]
    other = is_open or model.input.dtype != "float32"
    if _computes_in_float32(model) and not other:
        return model

    def plain(layer: Any) -> Any:
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    size = image_size if is_open and image_size else model.input_shape[1:3]
    fixed = keras.Input((*size, model.input_shape[3] or 3), dtype="float32") if other else None
    copy = keras.models.clone_model(model, input_tensors=fixed, clone_function=plain, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def _computes_in_float32(network: Any) -> bool:
    inside = getattr(network, "layers", None)
    return network.compute_dtype == "float32" if inside is None else all(map(_computes_in_float32, inside))


def keras_engine(model: keras.Model) -> Engine:
    """Runs a Keras model in one compiled call, quicker for few images than `model.predict`."""
    both = two_outputs(model)
    function = tf.function(lambda images: both(images, training=False), reduce_retracing=True)

    def run(images: np.ndarray) -> Answer:
        answer = function(tf.constant(images, tf.float32))
        return answer["probabilities"].numpy(), answer["features"].numpy()

    return run

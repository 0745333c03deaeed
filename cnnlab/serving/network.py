"""A Keras network with its features as a second output, in float32; and run in one compiled call."""

from collections.abc import Callable
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf

from cnnlab.models.naming import before_head


def two_outputs(model: keras.Model, image_size: tuple[int, int] | None = None) -> keras.Model:
    """The network with the outputs "probabilities" and "features"; for images of one size where it takes any."""
    model = _in_float32(model, image_size)
    probabilities = model.output
    if probabilities.shape[-1] == 1:  # one sigmoid for two classes
        probabilities = keras.ops.concatenate([1 - probabilities, probabilities], axis=-1)
    # what the last dense layer reads: what the network has seen, before it decides
    read = before_head(model, caller="serving.export")
    features = model.output if read is None else read
    features = features if len(features.shape) == 2 else keras.layers.Flatten()(features)
    features = features if features.dtype == "float32" else keras.ops.cast(features, "float32")
    return keras.Model(model.input, {"probabilities": probabilities, "features": features})


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


def keras_engine(model: keras.Model) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Runs a Keras model in one compiled call, quicker for few images than `model.predict`."""
    both = two_outputs(model)
    return tensorflow_engine(tf.function(lambda images: both(images, training=False), reduce_retracing=True))


def tensorflow_engine(function: Any) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Runs a TensorFlow function that gives both outputs."""

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answer = function(tf.constant(images, tf.float32))
        return answer["probabilities"].numpy(), answer["features"].numpy()

    return run

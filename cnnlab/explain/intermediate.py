"""What a network computes between image and answer, and how much a class score depends on it.

The layers are run one by one from the outside, so that the model itself is never changed.
"""

from collections.abc import Callable
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab.explain.graph import IMAGE, Graph, Key
from cnnlab.models.naming import PASSING

SQUASHING = (keras.activations.softmax, keras.activations.sigmoid)
UNCHANGED = (*PASSING, keras.layers.ActivityRegularization)


def sensitivity(
    graph: Graph, images: np.ndarray, number: int, targets: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a step makes of images, and the derivative of each image's score for its target class with respect to it.

    With two `classes` and one sigmoid, target 1 is the class it speaks for and 0 the other.
    """
    key: Key = (number, 0)
    output = graph.values({IMAGE: images}, [key])[0]
    scores = before_softmax(graph)

    def score(changed: Any) -> Any:
        found = scores({IMAGE: images, key: keras.ops.cast(changed, output.dtype)})
        found = keras.ops.cast(keras.ops.reshape(found, (len(images), -1)), "float32")
        if found.shape[1] == 1 and classes == 2:
            return keras.ops.sum(found[:, 0] * (2.0 * targets - 1.0).astype("float32"))
        return keras.ops.sum(found * keras.ops.one_hot(targets, classes, dtype="float32"))

    at = keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))
    return at, _gradient(score, at)


def before_softmax(graph: Graph) -> Callable[[dict[Key, Any]], Any]:
    """How to compute a classifier's scores as they are before its softmax or sigmoid, where it ends in one.

    It may end in a layer with such an activation, in a layer or an operation of its own, or in neither.
    """
    key = graph.outputs[0]
    while key[0] >= 0:
        step = graph.steps[key[0]]
        activation = getattr(step.layer, "activation", None)
        own = step.kind in ("Softmax", "Sigmoid") or isinstance(step.layer, keras.layers.Activation)
        if own and (activation in SQUASHING or activation is None):
            scores = step.reads[0]
            return lambda known: graph.values(known, [scores])[0]
        if activation in SQUASHING:
            twin = _linear(step.layer, step.input_shapes[0])
            return lambda known: step.run(graph.values(known, step.reads), twin)[0]
        if not isinstance(step.layer, UNCHANGED) and not (own and activation is keras.activations.linear):
            break
        key = step.reads[0]
    return lambda known: graph.values(known, graph.outputs[:1])[0]


def _linear(layer: keras.layers.Layer, input_shape: tuple[int | None, ...]) -> keras.layers.Layer:
    """A layer of the same weights that gives out what the activation would be applied to."""
    twin: keras.layers.Layer = type(layer).from_config(layer.get_config() | {"activation": "linear"})
    twin.build(input_shape)
    twin.set_weights(layer.get_weights())
    return twin


def _gradient(function: Callable[[Any], Any], at: np.ndarray) -> np.ndarray:
    """The derivative of a function of one array that returns one number."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        point = tf.constant(at)
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = function(point)
        return np.asarray(tape.gradient(value, point, unconnected_gradients=tf.UnconnectedGradients.ZERO))
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(at))
    if backend == "torch":
        import torch

        start = keras.ops.convert_to_tensor(at).requires_grad_(True)
        return keras.ops.convert_to_numpy(torch.autograd.grad(function(start), start)[0])
    raise RuntimeError(f"Expected Keras to run on TensorFlow, JAX or PyTorch, to have gradients. It runs on {backend}.")

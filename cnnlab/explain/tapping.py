"""Reads what layers pass on, and how much a score depends on it, without taking the network apart.

Works on Functional, Sequential, nested and subclassed models alike, and on every backend of Keras that has gradients:
for the time of one call, the layer's own `call` is wrapped.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab.explain.graph import leaf_layers


@contextmanager
def tapped(layer: keras.layers.Layer, change: Callable[[Any], Any]) -> Iterator[None]:
    """Lets `change` see, and replace, what a layer passes on inside the block."""
    original = layer.call
    layer.call = lambda *inputs, **options: change(original(*inputs, **options))
    try:
        yield
    finally:
        del layer.call


def outputs_of(model: keras.Model, images: np.ndarray, layers: Sequence[keras.layers.Layer]) -> list[np.ndarray]:
    """What each of `layers` passes on while `model` looks at `images`."""
    seen: dict[int, Any] = {}

    def run(waiting: Sequence[keras.layers.Layer]) -> None:
        if not waiting:
            model(images, training=False)
            return
        first, *others = waiting

        def keep(output: Any) -> Any:
            seen[id(first)] = output
            return output

        with tapped(first, keep):
            run(others)

    run(layers)
    return [keras.ops.convert_to_numpy(seen[id(layer)]) for layer in layers]


@contextmanager
def before_softmax(model: keras.Model) -> Iterator[None]:
    """Lets a classifier give its scores before the softmax inside the block, where it ends in one."""
    last: Any = next(
        (
            layer
            for layer in reversed(leaf_layers(model))
            if not isinstance(layer, keras.layers.Dropout | keras.layers.Reshape | keras.layers.Flatten)
        ),
        None,
    )
    if getattr(last, "activation", None) is not keras.activations.softmax:
        yield
        return
    last.activation = keras.activations.linear
    try:
        yield
    finally:
        last.activation = keras.activations.softmax


def sensitivity(
    model: keras.Model, images: np.ndarray, layer: keras.layers.Layer, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a layer passes on, and the derivative of each image's score for its target class with respect to it."""
    output = outputs_of(model, images, [layer])[0]
    chosen = keras.ops.one_hot(targets, model.output_shape[-1])

    def score(shift: Any) -> Any:
        with tapped(layer, lambda passed: passed + keras.ops.cast(shift, passed.dtype)), before_softmax(model):
            return keras.ops.sum(keras.ops.cast(model(images, training=False), "float32") * chosen)

    return output, _gradient(score, np.zeros(output.shape, "float32"))


def _gradient(function: Callable[[Any], Any], at: np.ndarray) -> np.ndarray:
    """The derivative of a function of one array that returns one number."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        point = tf.constant(at)
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = function(point)
        return np.asarray(tape.gradient(value, point))
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(at))
    if backend == "torch":
        import torch

        start = keras.ops.convert_to_tensor(at).requires_grad_(True)
        return keras.ops.convert_to_numpy(torch.autograd.grad(function(start), start)[0])
    raise RuntimeError(f"Expected Keras to run on TensorFlow, JAX or PyTorch, to have gradients. It runs on {backend}.")

"""Which part of an image made a network decide as it did; the layers are run one by one, so that none is changed."""

from collections.abc import Callable
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab.explain.graph import IMAGE, Graph, Key, graph_of
from cnnlab.explain.inputs import Target, checked_images, checked_targets
from cnnlab.models.naming import PASSING, class_probabilities

Square = tuple[slice, slice]
SQUASHING = (keras.activations.softmax, keras.activations.sigmoid)
UNCHANGED = (*PASSING, keras.layers.ActivityRegularization)


def grad_cam(model: keras.Model, images: Any, *, target: Target = None, layer: str | None = None) -> np.ndarray:
    """Grad-CAM: where in an image a network found what speaks for a class.

    The maps of one layer, each weighted by how much the score of the class would rise with it, added up; what speaks
    against the class is left out. The score is the one before the softmax or sigmoid. The model is not changed.

    Args:
        model: A trained classifier with one output: Functional, Sequential, subclassed of Keras layers, or with a
            pretrained network nested inside.
        images: One image (height, width, channels) of raw pixels 0-255, or a batch of them.
        target: The class, by name or number, or one for each image; the predicted class where None. With one sigmoid,
            1 is the class that it speaks for and 0 the other.
        layer: Whose maps; where None, the last layer that passes on a map of more than one place.

    Returns:
        A heat map of the image's height and width for each image, 0 (nothing) to 1 (the strongest place in this image),
        to be drawn by `plots.heatmap`. All 0 where nothing speaks for the class.

    Raises:
        ValueError: If there is no such layer or class, the layer passes on no maps, the model has several outputs, or
            the images are not what it takes.
        TypeError: If Keras cannot follow the model's connections.

    Source:
        Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, 2017.

    Example:
        >>> from cnnlab import explain, models
        >>> model = models.small_cnn(image_size=(16, 16), classes=["cat", "dog"])
        >>> explain.grad_cam(model, np.full((16, 16, 3), 128), target="dog").shape
        (16, 16)
    """
    batch, single = checked_images(model, images, caller="explain.grad_cam")
    targets, classes = checked_targets(model, target, batch, caller="explain.grad_cam")
    graph = graph_of(model, batch.shape[1:])
    number = _last_maps(graph) if layer is None else graph.find(layer)
    chosen = graph.steps[number]
    if len(chosen.shape) != 4:
        raise ValueError(
            "`explain.grad_cam` expects a layer that passes on maps (height, width, features). "
            f"{chosen.layer.name!r} passes on an array of shape {chosen.shape[1:]}."
        )
    maps, slopes = sensitivity(graph, batch, number, targets, classes)
    weights = slopes.mean(axis=(1, 2), keepdims=True)
    heat = np.maximum((maps * weights).sum(axis=-1, keepdims=True), 0).astype("float32")
    heat = keras.ops.convert_to_numpy(keras.ops.image.resize(heat, batch.shape[1:3], interpolation="bilinear"))[..., 0]
    strongest = heat.max(axis=(1, 2), keepdims=True)
    heat = np.divide(heat, strongest, out=np.zeros_like(heat), where=strongest > 0)
    return heat[0] if single else heat


def occlusion(
    model: keras.Model,
    images: Any,
    *,
    target: Target = None,
    patch: int | None = None,
    stride: int | None = None,
    fill: float | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """Occlusion: how much less probable a class becomes when a part of the image is covered.

    Slow but honest: it asks the network nothing but what it predicts. A grey square is moved over the image; each pixel
    gets the mean loss in probability over all squares that covered it.

    Args:
        model: A trained classifier.
        images: One image (height, width, channels) of raw pixels 0-255, or a batch of them.
        target: The class, by name or number, or one for each image; the predicted class where None.
        patch: Side of the square in pixels; a fifth of the image where None.
        stride: Pixels that the square moves at a time; half of its side where None.
        fill: What covers it, 0-255; the image's own mean colour where None.
        batch_size: Covered images that the network sees at a time.

    Returns:
        A map of the image's height and width for each image: loss in probability, -1 to 1. Below 0, covering
        the place makes the class more probable.

    Raises:
        ValueError: If there is no such class, the square does not fit, or the images are not what the model takes.

    Source:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014.

    Example:
        >>> from cnnlab import explain, models
        >>> model = models.small_cnn(image_size=(16, 16), classes=["cat", "dog"])
        >>> explain.occlusion(model, np.full((16, 16, 3), 128)).shape
        (16, 16)
    """
    batch, single = checked_images(model, images, caller="explain.occlusion")
    targets, _ = checked_targets(model, target, batch, caller="explain.occlusion")
    height, width = batch.shape[1:3]
    patch = max(min(height, width) // 5, 1) if patch is None else patch
    stride = max(patch // 2, 1) if stride is None else stride
    if not 1 <= patch <= min(height, width) or not 1 <= stride <= patch:
        raise ValueError(
            f"`explain.occlusion` expects `patch` from 1 to {min(height, width)} and `stride` from 1 to `patch`, so "
            f"that every pixel is covered. Received: patch={patch}, stride={stride}."
        )
    places = [(top, left) for top in _starts(height, patch, stride) for left in _starts(width, patch, stride)]
    squares = [(slice(top, top + patch), slice(left, left + patch)) for top, left in places]
    parts = [squares[first : first + batch_size] for first in range(0, len(squares), batch_size)]
    heat = np.stack([_loss(model, *pair, parts, fill) for pair in zip(batch, targets, strict=True)])
    return heat[0] if single else heat


def _loss(
    model: keras.Model, image: np.ndarray, target: int, parts: list[list[Square]], fill: float | None
) -> np.ndarray:
    """Mean loss in probability of one class, pixel by pixel."""
    colour = image.mean(axis=(0, 1)) if fill is None else fill
    whole = class_probabilities(model, model(image[None], training=False))[0, target]
    lost, times = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    for part in parts:
        covered = np.repeat(image[None], len(part), axis=0)
        for one, square in zip(covered, part, strict=True):
            one[square] = colour
        answers = class_probabilities(model, model(covered, training=False))[:, target]
        for answer, square in zip(answers, part, strict=True):
            lost[square] += whole - answer
            times[square] += 1
    return lost / times


def _starts(length: int, patch: int, stride: int) -> list[int]:
    """Where squares begin so that together they cover `length` pixels."""
    return sorted({*range(0, length - patch + 1, stride), length - patch})


def _last_maps(graph: Graph) -> int:
    """The last step that passes on a map of more than one place; of one place where none has more."""
    sizes = {
        number: step.shape[1:3]
        for number, step in enumerate(graph.steps)
        if len(step.shape) == 4 and isinstance(step.layer, keras.layers.Layer)
    }
    if not sizes:
        raise ValueError(f"`explain.grad_cam` expects a model with convolutions. {graph.name!r} passes on no maps.")
    return max([number for number, size in sizes.items() if size != (1, 1)] or sizes)


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

"""What a network has learned to look for, and what it finds in an image."""

from collections.abc import Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab.explain.graph import IMAGE, Graph, graph_of
from cnnlab.explain.inputs import checked_images

CONVOLUTIONS = (
    keras.layers.Conv2D | keras.layers.Conv2DTranspose | keras.layers.DepthwiseConv2D | keras.layers.SeparableConv2D
)


def filters(model: keras.Model, layer: str | None = None) -> np.ndarray:
    """The weights of a convolution, one small picture for each feature that it looks for.

    Args:
        model: Any Keras model, networks nested inside or not.
        layer: Name of a convolution; the first one where None.

    Returns:
        An array (filters, height, width, channels), to be drawn by `plots.filters`. A depthwise convolution has one
        filter of one channel for each feature; a separable one is given as the ordinary convolution that does the same.

    Raises:
        ValueError: If there is no such convolution.

    Example:
        >>> from cnnlab import explain, models
        >>> model = models.small_cnn(image_size=(28, 28), classes=["cat", "dog"], channels=1)
        >>> explain.filters(model).shape
        (24, 3, 3, 1)
    """
    graph = graph_of(model)
    layers = [step.layer for step in graph.steps] if layer is None else [graph.steps[graph.find(layer)].layer]
    found = next((one for one in layers if isinstance(one, CONVOLUTIONS)), None)
    if found is None:
        what = " and a model without one" if layer is None else f", a {type(layers[0]).__name__}"
        raise ValueError(f"`explain.filters` expects the name of a convolution. Received: {layer!r}{what}.")
    if isinstance(found, keras.layers.SeparableConv2D):  # of the ordinary convolution that does the same
        depthwise, pointwise = map(keras.ops.convert_to_numpy, (found.depthwise_kernel, found.pointwise_kernel))
        return np.einsum("hwcm,cmf->fhwc", depthwise, pointwise.reshape(*depthwise.shape[2:], -1))
    kernel = keras.ops.convert_to_numpy(found.kernel)
    if isinstance(found, keras.layers.DepthwiseConv2D):  # one filter for each channel that comes in
        return kernel.reshape(*kernel.shape[:2], -1).transpose(2, 0, 1)[..., None]
    return kernel.transpose((2, 0, 1, 3) if isinstance(found, keras.layers.Conv2DTranspose) else (3, 0, 1, 2))


def feature_maps(model: keras.Model, image: Any, *, layers: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Where in an image each feature of each layer is found.

    Args:
        model: Any Keras model, networks nested inside or not.
        image: One image (height, width, channels) of raw pixels 0-255.
        layers: Names of layers; where None, every convolution, after its activation where that is a layer of its own.

    Returns:
        For each layer an array (height, width, features), to be drawn by `plots.feature_maps`.

    Raises:
        ValueError: If a layer does not exist or passes on no maps, or the image is not what the model takes.

    Example:
        >>> import numpy as np
        >>> from cnnlab import explain, models
        >>> model = models.small_cnn(image_size=(28, 28), classes=["cat", "dog"], filters=(4, 8))
        >>> maps = explain.feature_maps(model, np.full((28, 28, 3), 128))
        >>> {layer: values.shape for layer, values in maps.items()}
        {'relu_1': (28, 28, 4), 'relu_2': (14, 14, 8)}
    """
    batch, _ = checked_images(model, image, caller="explain.feature_maps")
    if len(batch) != 1:
        raise ValueError(
            f"`explain.feature_maps` expects one image (height, width, channels). Received {len(batch)} images."
        )
    graph = graph_of(model, batch.shape[1:])
    names = [layers] if isinstance(layers, str) else layers
    numbers = _shown(graph) if names is None else [graph.find(name) for name in names]
    values = graph.values({IMAGE: batch}, [(number, 0) for number in numbers])
    maps = {}
    for number, value in zip(numbers, values, strict=True):
        name = graph.steps[number].layer.name
        if len(value.shape) != 4:
            raise ValueError(
                f"`explain.feature_maps` expects layers that pass on maps (height, width, features). {name!r} passes "
                f"on an array of shape {tuple(value.shape[1:])}."
            )
        maps[name] = keras.ops.convert_to_numpy(value)[0]
    return maps


def _shown(graph: Graph) -> list[int]:
    """The last step of each convolution's row of convolution, normalisation and activation."""
    chosen: list[int] = []
    last = None  # the end of the row that is being followed
    for number, step in enumerate(graph.steps):
        if isinstance(step.layer, CONVOLUTIONS):
            chosen.append(number)
            last = (number, 0)
        elif last is not None and step.reads == (last,):
            last = (number, 0) if isinstance(step.layer, keras.layers.BatchNormalization) else None
            if isinstance(step.layer, keras.layers.Activation | keras.layers.ReLU):
                chosen[-1] = number
    return chosen

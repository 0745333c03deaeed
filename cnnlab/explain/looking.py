"""What a network has learned to look for, and what it finds in an image."""

from collections.abc import Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab.explain.graph import find_layer, leaf_layers
from cnnlab.explain.inputs import checked_images
from cnnlab.explain.tapping import outputs_of

CONVOLUTIONS = keras.layers.Conv2D | keras.layers.DepthwiseConv2D


def filters(model: keras.Model, layer: str | None = None) -> np.ndarray:
    """The weights of a convolution, one small picture for each feature that it looks for.

    Args:
        model: Any Keras model, networks nested inside or not.
        layer: Name of a convolution; the first one where None.

    Returns:
        An array (filters, height, width, channels), to be drawn by `plots.filters`.

    Raises:
        ValueError: If there is no such convolution.

    Example:
        >>> from cnnlab import explain, models
        >>> model = models.small_cnn(image_size=(28, 28), classes=["cat", "dog"], channels=1)
        >>> explain.filters(model).shape
        (24, 3, 3, 1)
    """
    found = find_layer(model, layer) if layer is not None else None
    if found is None:
        found = next((one for one in leaf_layers(model) if isinstance(one, CONVOLUTIONS)), None)
    if not isinstance(found, CONVOLUTIONS):
        raise ValueError(
            "`explain.filters` expects the name of a convolution. Received: "
            f"{layer!r}{f', a {type(found).__name__}' if found is not None else ' and a model without one'}."
        )
    kernel = keras.ops.convert_to_numpy(found.kernel)
    if isinstance(found, keras.layers.DepthwiseConv2D):  # one filter for each channel that comes in
        return kernel.reshape(*kernel.shape[:2], -1).transpose(2, 0, 1)[..., None]
    return kernel.transpose(3, 0, 1, 2)


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
    batch, single = checked_images(model, image, caller="explain.feature_maps")
    if not single and len(batch) != 1:
        raise ValueError(
            f"`explain.feature_maps` expects one image (height, width, channels). Received {len(batch)} images."
        )
    names = [layers] if isinstance(layers, str) else layers
    found = _shown(model) if names is None else [find_layer(model, name) for name in names]
    names = [layer.name for layer in found]
    values = outputs_of(model, batch, found)
    for name, value in zip(names, values, strict=True):
        if value.ndim != 4:
            raise ValueError(
                f"`explain.feature_maps` expects layers that pass on maps (height, width, features). {name!r} passes "
                f"on an array of shape {value.shape[1:]}."
            )
    return {name: value[0] for name, value in zip(names, values, strict=True)}


def _shown(model: keras.Model) -> list[keras.layers.Layer]:
    """The last step of each convolution's row of convolution, normalisation and activation."""
    chosen: list[keras.layers.Layer] = []
    follows = False
    for layer in leaf_layers(model):
        if isinstance(layer, CONVOLUTIONS):
            chosen.append(layer)
            follows = True
        elif isinstance(layer, keras.layers.Activation | keras.layers.ReLU) and follows:
            chosen[-1] = layer
            follows = False
        elif not isinstance(layer, keras.layers.BatchNormalization):
            follows = False
    return chosen

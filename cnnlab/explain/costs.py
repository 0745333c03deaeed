"""What each layer of a network costs: weights to store, and multiplications to carry out."""

import math
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab.explain.activations import CONVOLUTIONS
from cnnlab.explain.graph import Step, graph_of


def summary(model: keras.Model) -> pd.DataFrame:
    """The layers of a model as a table: what they pass on, their weights, and their work for one image.

    Args:
        model: A built model with a fixed image size: Functional, Sequential or subclassed, with or without networks
            nested inside.

    Returns:
        A table with one row per call of a layer: layer (after the names of the networks it is in), kind, output (height
        × width × features), parameters, trainable (how many of them learn now), multiply_adds (products of a weight and
        a value that are summed up, for one image; what is done value by value, such as normalising, is not counted).

    Raises:
        TypeError: If Keras does not know the model's connections.

    Example:
        >>> from cnnlab import explain, models
        >>> model = models.small_cnn(image_size=(28, 28), classes=["cat", "dog"], channels=1, filters=(4,))
        >>> table = explain.summary(model)
        >>> print(table[table["kind"] == "Conv2D"].to_string(index=False))
         layer   kind      output  parameters  trainable  multiply_adds
        conv_1 Conv2D 28 × 28 × 4          36         36          28224
    """
    counted: set[int] = set()
    rows = []
    for step in graph_of(model).steps:
        layer = step.layer
        # a layer that is called twice has its weights once; operations of keras.ops have none
        weights = [] if id(layer) in counted or not isinstance(layer, keras.Layer) else layer.weights
        counted.add(id(layer))
        rows.append(
            {
                "layer": step.path,
                "kind": step.kind,
                "output": " × ".join("?" if side is None else str(side) for side in step.shape[1:]),
                "parameters": sum(math.prod(weight.shape) for weight in weights),
                "trainable": sum(math.prod(weight.shape) for weight in layer.trainable_weights) if weights else 0,
                "multiply_adds": _multiply_adds(step),
            }
        )
    return pd.DataFrame(rows).astype({"multiply_adds": "Int64"})


def _multiply_adds(step: Step) -> Any:
    """Products of weight and value for one image; missing where the image size is open."""
    layer = step.layer
    # a transposed convolution spreads each value that comes in, all others gather for each that goes out
    places = (step.input_shapes[0] if isinstance(layer, keras.layers.Conv2DTranspose) else step.shape)[1:-1]
    if isinstance(layer, keras.layers.SeparableConv2D):
        kernels = [layer.depthwise_kernel, layer.pointwise_kernel]
    elif isinstance(layer, CONVOLUTIONS | keras.layers.Dense):
        kernels = [layer.kernel]
    else:
        return 0
    if None in places:
        return pd.NA
    return sum(math.prod(kernel.shape) for kernel in kernels) * math.prod(places)  # type: ignore[arg-type]

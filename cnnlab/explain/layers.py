"""The layers of a network as tables: what each costs, and which part of the image a place in its map can see."""

import math
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab.explain.activations import CONVOLUTIONS
from cnnlab.explain.graph import IMAGE, Step, graph_of

WINDOWS = (
    keras.layers.Conv2D
    | keras.layers.DepthwiseConv2D
    | keras.layers.SeparableConv2D
    | keras.layers.MaxPooling2D
    | keras.layers.AveragePooling2D
)
COLUMNS = [
    *("layer", "kind", "rows", "columns", "field_height", "field_width", "step_height", "step_width"),
    *("top", "left", "bottom", "right"),
]


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


class Reach(NamedTuple):
    """What the places of a map see along one axis: place i sees pixels start + i × step, `size` of them."""

    start: int
    size: int
    step: int


Axes = tuple[Reach, Reach] | None  # down and across; None where it is not known


def receptive_fields(model: keras.Model) -> pd.DataFrame:
    """How large a part of the image each layer sees, layer by layer.

    Computed from kernels, strides, dilation and padding. It is the most that a place can see; the middle of the field
    counts more than its rim. Layers that mix all places, such as a global pooling, see the whole image.

    Args:
        model: A built model with a fixed image size: Functional, Sequential or subclassed, with or without networks
            nested inside.

    Returns:
        A table with one row per layer: layer, kind; rows and columns (of its map; missing where there is none);
        field_height and field_width (pixels); step_height and step_width (pixels from one place's field to the next
        one's); top, left, bottom, right (edges of the field of the place in the middle of the map, in pixels, beyond
        the image where the field reaches into the padding). Missing after layers that enlarge maps.

    Raises:
        TypeError: If Keras does not know the model's connections.
        ValueError: If the model takes images of any size.

    Example:
        >>> from cnnlab import explain, models
        >>> model = models.small_cnn(image_size=(28, 28), classes=["cat", "dog"])
        >>> fields = explain.receptive_fields(model).set_index("layer")
        >>> fields.loc[["conv_1", "conv_2", "conv_3"], "field_height"].tolist()
        [3, 8, 18]
    """
    graph = graph_of(model)
    height, width = graph.image_shape[:2] if len(graph.image_shape) == 3 else (None, None)
    if not height or not width:
        raise ValueError(
            "`explain.receptive_fields` expects a model with a fixed image size (height, width, channels). Received "
            f"one that takes {graph.image_shape}."
        )
    whole = (Reach(0, height, 0), Reach(0, width, 0))
    known: dict[int, Axes] = {IMAGE[0]: (Reach(0, 1, 1), Reach(0, 1, 1))}
    rows = []
    for number, step in enumerate(graph.steps):
        known[number] = _after(step, [known[made_by] for made_by, _ in step.reads], whole)
        rows.append(_row(step, known[number]))
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[2:], "Int64"))


def _row(step: Step, axes: Axes) -> dict[str, Any]:
    maps = step.shape[1:3] if len(step.shape) == 4 else (None, None)
    row: dict[str, Any] = {"layer": step.path, "kind": step.kind, "rows": maps[0], "columns": maps[1]}
    if axes is None:
        return row
    down, across = axes
    top, left = (reach.start + (count or 1) // 2 * reach.step for reach, count in zip(axes, maps, strict=True))
    edges = {"top": top, "left": left, "bottom": top + down.size, "right": left + across.size}
    sizes = {"field_height": down.size, "field_width": across.size}
    return row | sizes | {"step_height": down.step, "step_width": across.step} | edges


def _after(step: Step, given: list[Axes], whole: tuple[Reach, Reach]) -> Axes:
    """What a layer's places see, from what the places it reads see."""
    layer = step.layer
    seen = [axes for axes in given if axes is not None]
    if len(seen) < len(given):
        return None
    if isinstance(layer, WINDOWS):
        return _through_windows(layer, seen[0], step.input_shapes[0])
    if isinstance(layer, keras.layers.ZeroPadding2D | keras.layers.Cropping2D):
        sign, sides = (-1, layer.padding) if isinstance(layer, keras.layers.ZeroPadding2D) else (1, layer.cropping)
        down, across = (
            reach._replace(start=reach.start + sign * side[0] * reach.step)
            for reach, side in zip(seen[0], sides, strict=True)
        )
        return down, across
    if len(step.shape) != 4 or _mixes_places(layer):
        return whole
    if any(len(shape) == 4 and shape[1:3] not in (step.shape[1:3], (1, 1)) for shape in step.input_shapes):
        return whole if step.shape[1:3] == (1, 1) else None
    if any(len(shape) != 4 for shape in step.input_shapes):
        return whole  # the whole image's features, laid out as a map of one place
    down, across = map(_union, zip(*seen, strict=True))
    return down, across


def _through_windows(layer: Any, axes: tuple[Reach, Reach], shape: tuple[Any, ...]) -> Axes:
    sizes = getattr(layer, "kernel_size", None) or layer.pool_size
    dilations = np.broadcast_to(getattr(layer, "dilation_rate", 1), 2).tolist()
    result = []
    for reach, size, stride, dilation, count in zip(axes, sizes, layer.strides, dilations, shape[1:3], strict=True):
        window = (size - 1) * dilation + 1
        padding = max((-(-count // stride) - 1) * stride + window - count, 0) // 2 if layer.padding == "same" else 0
        start = reach.start - padding * reach.step
        result.append(Reach(start, reach.size + (window - 1) * reach.step, reach.step * stride))
    return result[0], result[1]


def _mixes_places(layer: Any) -> bool:
    if isinstance(layer, keras.layers.LayerNormalization):
        return not set(np.atleast_1d(layer.axis)) <= {-1, 3}
    return isinstance(layer, keras.layers.GroupNormalization) or "GlobalAverage" in type(layer).__name__


def _union(reaches: tuple[Reach, ...]) -> Reach:
    """The field that holds several, where branches meet; whoever sees the whole image passes that on."""
    whole = [reach for reach in reaches if not reach.step]
    if whole:
        return whole[0]
    start = min(reach.start for reach in reaches)
    end = max(reach.start + reach.size for reach in reaches)
    return Reach(start, end - start, min(reach.step for reach in reaches))

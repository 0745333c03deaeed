"""Receptive fields: which part of the image a place in a feature map can see."""

from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab.explain.graph import IMAGE, Key, Step, graph_of

POOLINGS = keras.layers.MaxPooling2D | keras.layers.AveragePooling2D
CONVOLUTIONS = keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.SeparableConv2D
COLUMNS = [
    *("layer", "kind", "rows", "columns", "field_height", "field_width", "step_height", "step_width"),
    *("top", "left", "bottom", "right"),
]


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
    known: dict[Key, Axes] = {IMAGE: (Reach(0, 1, 1), Reach(0, 1, 1))}
    rows = []
    for number, step in enumerate(graph.steps):
        axes = _after(step, [known[key] for key in step.reads], whole)
        known |= {(number, output): axes for output in range(8)}
        rows.append(_row(step, axes))
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(COLUMNS[2:], "Int64"))


def _row(step: Step, axes: Axes) -> dict[str, Any]:
    maps = step.shape[1:3] if len(step.shape) == 4 else (None, None)
    row: dict[str, Any] = {"layer": step.path, "kind": step.kind, "rows": maps[0], "columns": maps[1]}
    if axes is None:
        return row
    down, across = axes
    top, left = (reach.start + (count or 1) // 2 * reach.step for reach, count in zip(axes, maps, strict=True))
    return row | {
        "field_height": down.size,
        "field_width": across.size,
        "step_height": down.step,
        "step_width": across.step,
        "top": top,
        "left": left,
        "bottom": top + down.size,
        "right": left + across.size,
    }


def _after(step: Step, given: list[Axes], whole: tuple[Reach, Reach]) -> Axes:
    """What a layer's places see, from what the places it reads see."""
    layer = step.layer
    if any(axes is None for axes in given):
        return None
    seen = [axes for axes in given if axes is not None]
    if isinstance(layer, CONVOLUTIONS | POOLINGS) and not isinstance(layer, keras.layers.Conv2DTranspose):
        return _through_windows(layer, seen[0], step.input_shapes[0])
    if isinstance(layer, keras.layers.ZeroPadding2D | keras.layers.Cropping2D):
        sign, before = (-1, layer.padding) if isinstance(layer, keras.layers.ZeroPadding2D) else (1, layer.cropping)
        return tuple(  # type: ignore[return-value]
            reach._replace(start=reach.start + sign * sides[0] * reach.step)
            for reach, sides in zip(seen[0], before, strict=True)
        )
    if len(step.shape) != 4 or _mixes_places(layer):
        return whole
    if any(len(shape) == 4 and shape[1:3] not in (step.shape[1:3], (1, 1)) for shape in step.input_shapes):
        return whole if step.shape[1:3] == (1, 1) else None
    if any(len(shape) != 4 for shape in step.input_shapes):
        return whole  # the whole image's features, laid out as a map of one place
    return tuple(_union(reaches) for reaches in zip(*seen, strict=True))  # type: ignore[return-value]


def _through_windows(layer: Any, axes: tuple[Reach, Reach], shape: tuple[Any, ...]) -> Axes:
    sizes = getattr(layer, "kernel_size", None) or layer.pool_size
    dilations = getattr(layer, "dilation_rate", (1, 1))
    dilations = (dilations, dilations) if isinstance(dilations, int) else dilations
    result = []
    for reach, size, stride, dilation, count in zip(axes, sizes, layer.strides, dilations, shape[1:3], strict=True):
        window = (size - 1) * dilation + 1
        padding = 0
        if layer.padding == "same":
            padding = max((-(-count // stride) - 1) * stride + window - count, 0) // 2
        result.append(
            Reach(reach.start - padding * reach.step, reach.size + (window - 1) * reach.step, reach.step * stride)
        )
    return result[0], result[1]


def _mixes_places(layer: Any) -> bool:
    if isinstance(layer, keras.layers.LayerNormalization):
        axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
        return any(axis not in (-1, 3) for axis in axes)
    return isinstance(layer, keras.layers.GroupNormalization) or "GlobalAverage" in type(layer).__name__


def _union(reaches: tuple[Reach, ...]) -> Reach:
    """The field that holds several, where branches meet; whoever sees the whole image passes that on."""
    whole = [reach for reach in reaches if not reach.step]
    if whole:
        return whole[0]
    start = min(reach.start for reach in reaches)
    end = max(reach.start + reach.size for reach in reaches)
    return Reach(start, end - start, min(reach.step for reach in reaches))

"""Figures of what a network computes, looks for and finds, how far it sees, and why it decided."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from cnnlab._common import evenly_spaced, require_columns
from cnnlab.metrics.formulas import divide
from cnnlab.plots.style import CYCLE, ORANGE, color_of, finish, image_grid, new_axes, readable, show, shown

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")
WHITE = np.full((2, 2), 255.0)  # a tile where there is no picture


def filters(weights: np.ndarray, *, count: int = 32, columns: int = 8, ax: Axes | None = None) -> Axes:
    """Shows the filters of a convolution as small pictures: grey is 0, brighter is for, darker is against.

    Filters that read three channels are shown in colour, others as the mean of their channels; each is stretched to
    its own largest weight.

    Args:
        weights: From `explain.filters`: (filters, height, width, channels).
        count: How many at most.
        columns: Pictures in a row.
        ax: Where to draw; new Axes where None.

    Raises:
        ValueError: If the array has another shape.

    Example:
        >>> import numpy as np
        >>> from cnnlab import plots
        >>> len(plots.filters(np.ones((5, 3, 3, 1))).child_axes)
        5
    """
    weights = np.asarray(weights, dtype=float)
    if weights.ndim != 4 or not len(weights):
        raise ValueError(
            "`plots.filters` expects the array of `explain.filters`: (filters, height, width, channels). Received "
            f"shape {weights.shape}."
        )
    part = weights[:count] if weights.shape[-1] in (1, 3) else weights[:count].mean(axis=-1, keepdims=True)
    pictures = 127.5 + 127.5 * divide(part, np.abs(part).max(axis=(1, 2, 3), keepdims=True))
    names = [str(number) for number in range(len(part))]
    ax = image_grid(_as_shown(pictures), names, columns=min(columns, len(part)), ax=ax)
    title = f"{len(part)} of {len(weights)} filters, {weights.shape[1]} × {weights.shape[2]}"
    ax.set_title(title, fontsize=9, loc="left")
    return ax


def feature_maps(maps: Mapping[str, np.ndarray], *, image: Any = None, count: int = 7, ax: Axes | None = None) -> Axes:
    """Shows where a network found its features in an image: one line per layer, brighter is stronger.

    Each map is stretched to its own strongest place; a map that is black found its feature nowhere. The strongest maps
    of a layer come first.

    Args:
        maps: From `explain.feature_maps`: for each layer (height, width, features).
        image: The image (height, width, channels) of 0-255, to be shown in front of each line; not shown where None.
        count: Maps of each layer at most.
        ax: Where to draw; new Axes where None.

    Raises:
        ValueError: If there is no layer.

    Example:
        >>> import numpy as np
        >>> from cnnlab import plots
        >>> ax = plots.feature_maps({"relu_1": np.ones((8, 8, 3)), "relu_2": np.ones((4, 4, 3))}, count=3)
        >>> len(ax.child_axes)
        6
    """
    if not maps:
        raise ValueError("`plots.feature_maps` expects the maps of at least one layer. Received none.")
    columns = min(count, max(np.shape(values)[-1] for values in maps.values()))
    pictures, titles = [], []
    for layer, values in maps.items():
        if image is not None:
            pictures += _as_shown(np.asarray(image)[None])
            titles.append(f"image → {shown(layer, 12)}")
        values = np.asarray(values, dtype=float)
        strongest = values.max(axis=(0, 1))
        order = np.argsort(-strongest, kind="stable")[:columns]
        span = np.maximum(strongest - np.minimum(values.min(axis=(0, 1)), 0), 1e-12)
        empty = columns - len(order)
        pictures += [255 * np.clip(values[..., one] / span[one], 0, 1) for one in order] + [WHITE] * empty
        names = [f"feature {one}" for one in order] + [""] * empty
        titles += [f"{shown(layer, 16)}, {len(values)} × {values.shape[1]}\n{names[0]}", *names[1:]]
    return image_grid(pictures, titles, columns=columns + (image is not None), ax=ax)


def receptive_field(
    fields: pd.DataFrame, image: Any, *, layers: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Shows how much of an image the middle of each layer's map can see.

    Args:
        fields: From `explain.receptive_fields`.
        image: One image (height, width, channels) of 0-255, of the size that the network takes.
        layers: Which layers; the convolutions where None, at most seven.
        ax: Where to draw; new Axes where None.

    Raises:
        ValueError: If a layer is not in the table, or none has a field.

    Example:
        >>> import numpy as np
        >>> from cnnlab import explain, models, plots
        >>> model = models.small_cnn(image_size=(28, 28), classes=["cat", "dog"])
        >>> ax = plots.receptive_field(explain.receptive_fields(model), np.zeros((28, 28, 3)))
        >>> [text.get_text() for text in ax.get_legend().get_texts()][0]
        'conv_1: 3 × 3'
    """
    require_columns(fields, "layer", "kind", "top", "left", "bottom", "right", caller="plots.receptive_field")
    known = fields[fields["top"].notna()]
    rows = known[known["kind"].isin(CONVOLUTIONS)]
    if layers is not None:
        missing = set(layers) - set(known["layer"])
        if missing:
            raise ValueError(
                f"`layers` expects layers of the table that have a field, such as {', '.join(rows['layer'][:6])}. "
                f"Received: {', '.join(sorted(missing))}."
            )
        rows = fields[fields["layer"].isin(layers)]
    if not len(rows):
        raise ValueError("`plots.receptive_field` expects a table with convolutions. Received one without.")
    if layers is None:
        rows = rows.iloc[evenly_spaced(len(rows), len(CYCLE))]
    ax = new_axes(ax, (4.6, 3.2))
    (picture,) = _as_shown(np.asarray(image)[None])
    height, width = picture.shape[:2]
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    for number, row in enumerate(rows.to_dict("records")):
        left, top = float(row["left"]), float(row["top"])
        across, down = float(row["right"]) - left, float(row["bottom"]) - top
        label = f"{shown(str(row['layer']).rsplit('/', 1)[-1], 20)}: {row['field_height']} × {row['field_width']}"
        box = Rectangle((left - 0.5, top - 0.5), across, down, fill=False, edgecolor=color_of(number), linewidth=2)
        box.set(label=label, linestyle=("-", "--", ":")[number // len(CYCLE) % 3])
        ax.add_patch(box)
    left, right = min(-0.5, rows["left"].min() - 1), max(width - 0.5, rows["right"].max())
    top, bottom = min(-0.5, rows["top"].min() - 1), max(height - 0.5, rows["bottom"].max())
    ax.set(xlim=(max(left, -0.75 * width), min(right, 1.75 * width)))
    ax.set(ylim=(min(bottom, 1.75 * height), max(top, -0.75 * height)))
    return finish(ax, "pixels", "pixels", loc="upper left", bbox_to_anchor=(1.0, 1.0))


def heatmap(
    images: Any,
    heat: np.ndarray,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 6,
    ax: Axes | None = None,
) -> Axes:
    """Shows images, and beneath each what made the network decide: its heat laid over it.

    All maps have one scale: a colour means the same number in every image.

    Args:
        images: One image (height, width, channels) of 0-255, or a batch of them.
        heat: From `explain.grad_cam` (0 to 1) or `explain.occlusion` (loss in probability; where any of it is below 0,
            red speaks for the class and blue against it), one for each image.
        titles: One for each image, of one line or several.
        columns: Images in a row.
        ax: Where to draw; new Axes where None.

    Raises:
        ValueError: If heat, titles and images do not fit each other.

    Example:
        >>> import numpy as np
        >>> from cnnlab import plots
        >>> len(plots.heatmap(np.zeros((2, 8, 8, 3)), np.ones((2, 8, 8)), titles=["cat", "dog"]).child_axes)
        4
    """
    images, heat = np.asarray(images, dtype=float), np.asarray(heat, dtype=float)
    images = images[None] if images.ndim == 3 else images
    heat = heat[None] if heat.ndim == 2 else heat
    names = [""] * len(images)
    if titles is not None:
        names = ["\n".join(shown(line, 20) for line in str(title).split("\n")) for title in titles]
    if heat.shape != images.shape[:3] or len(names) != len(images):
        raise ValueError(
            "`plots.heatmap` expects one heat map of the image's height and width for each image, and as many titles. "
            f"Received images of shape {images.shape}, heat of shape {heat.shape} and {len(names)} titles."
        )
    columns = min(columns, len(images))
    empty = -len(images) % columns
    cells = [*_as_shown(images), *[WHITE] * empty], [*_laid_over(images, heat), *[WHITE] * empty]
    names += [""] * empty
    pictures, lines = [], []
    for first in range(0, len(names), columns):
        some = slice(first, first + columns)
        pictures += cells[0][some] + cells[1][some]
        lines += names[some] + [""] * columns
    return image_grid(pictures, lines, columns=columns, ax=ax)


def _laid_over(images: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The images in grey under their heat, uint8 (images, height, width, 3)."""
    grey = np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)
    heat = np.nan_to_num(heat)  # where there is none, none is shown
    values = heat / max(float(np.abs(heat).max()), 1e-12)
    signed = heat.min() < 0
    colors = plt.get_cmap("RdBu_r" if signed else "inferno")(values / 2 + 0.5 if signed else values)[..., :3]
    strength = 0.75 * np.sqrt(np.abs(values))[..., None]
    return np.clip((1 - strength) * grey + strength * 255 * colors, 0, 255).astype(np.uint8)


def _as_shown(pictures: np.ndarray) -> list[np.ndarray]:
    """Pictures as matplotlib shows them: uint8, grey ones without their channel."""
    clipped = np.clip(pictures, 0, 255).astype(np.uint8)
    return list(clipped[..., 0] if clipped.shape[-1] == 1 else clipped[..., :3])


def convolution(
    image: np.ndarray, kernel: np.ndarray, result: np.ndarray, *, at: tuple[int, int], ax: Axes | None = None
) -> Axes:
    """Shows a kernel on one place of an image, the products there, and the map that the sums of all places make.

    Args:
        image: Grey levels 0-255 of shape (height, width).
        kernel: Of shape (size, size).
        result: The map, of shape (height - size + 1, width - size + 1).
        at: Row and column of the map that is looked at.
        ax: Where to draw; new Axes where None.

    Raises:
        ValueError: If the place is outside the map.

    Example:
        >>> import numpy as np
        >>> from cnnlab import plots
        >>> ax = plots.convolution(np.zeros((5, 5)), np.ones((3, 3)), np.zeros((3, 3)), at=(1, 1))
        >>> [part.get_title() for part in ax.child_axes]
        ['image, 5 × 5', 'window × kernel', 'map, 3 × 3']
    """
    row, column = at
    if not (0 <= row < result.shape[0] and 0 <= column < result.shape[1]):
        raise ValueError(f"`at` expects a place of the map, which has the shape {result.shape}. Received: at={at}.")
    ax = new_axes(ax, (8.2, 3.1))
    ax.axis("off")
    before, products, after = (ax.inset_axes((x, 0.06, w, 0.82)) for x, w in ((0.0, 0.3), (0.32, 0.34), (0.68, 0.3)))
    size = len(kernel)
    window = image[row : row + size, column : column + size]
    show(before, image)
    before.add_patch(Rectangle((column - 0.5, row - 0.5), size, size, fill=False, color=ORANGE, linewidth=2))
    show(products, window)
    for (y, x), pixel in np.ndenumerate(window):
        words = f"{pixel:.0f} ×\n{kernel[y, x]:.3g}".replace("-", "−")
        how: dict[str, Any] = {"fontsize": 10 if size <= 3 else 7, "color": "black" if pixel > 110 else "white"}
        products.text(x, y, words, ha="center", va="center", **how)
    words = f"all added up: {result[row, column]:,.0f}".replace("-", "−")
    products.set_xlabel(words, fontsize=9, color="black")
    products.spines[:].set(color=ORANGE, linewidth=2)
    reach = max(float(np.abs(result).max()), 1e-9)
    after.imshow(result, cmap="PuOr_r", vmin=-reach, vmax=reach, interpolation="nearest")
    after.set(xticks=[], yticks=[])
    after.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color="black", linewidth=2))
    after.set_xlabel(f"purple −{reach:,.0f} · white 0 · orange {reach:,.0f}", fontsize=8)
    before.set_title(f"image, {image.shape[0]} × {image.shape[1]}", fontsize=9)
    products.set_title("window × kernel", fontsize=9)
    after.set_title(f"map, {result.shape[0]} × {result.shape[1]}", fontsize=9)
    return readable(ax)

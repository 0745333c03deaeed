"""Figure of one step of a convolution."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from cnnlab.plots.style import ORANGE, new_axes, readable, show


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

"""Figure of one step of a convolution."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from cnnlab.plots.style import ORANGE, new_axes, readable


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
    parts = [ax.inset_axes((left, 0.06, width, 0.82)) for left, width in ((0.0, 0.3), (0.32, 0.34), (0.68, 0.3))]
    size = len(kernel)
    parts[0].imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    parts[0].set_title(f"image, {image.shape[0]} × {image.shape[1]}", fontsize=9)
    parts[0].add_patch(Rectangle((column - 0.5, row - 0.5), size, size, fill=False, color=ORANGE, linewidth=2))
    _products(parts[1], image[row : row + size, column : column + size], kernel, result[row, column])
    reach = max(float(np.abs(result).max()), 1e-9)
    parts[2].imshow(result, cmap="PuOr_r", vmin=-reach, vmax=reach, interpolation="nearest")
    parts[2].set_title(f"map, {result.shape[0]} × {result.shape[1]}", fontsize=9)
    parts[2].add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color="black", linewidth=2))
    parts[2].set_xlabel(f"purple −{reach:,.0f} · white 0 · orange {reach:,.0f}", fontsize=8)
    for part in parts:
        part.set_xticks([])
        part.set_yticks([])
    return readable(ax)


def _products(ax: Axes, window: np.ndarray, kernel: np.ndarray, total: float) -> None:
    """The window in grey, with pixel × weight on each of its places and the sum below."""
    size = len(kernel)
    ax.imshow(window, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    for (row, column), pixel in np.ndenumerate(window):
        words = f"{pixel:.0f} ×\n{kernel[row, column]:.3g}".replace("-", "−")
        color = "black" if pixel > 110 else "white"
        ax.text(column, row, words, ha="center", va="center", fontsize=10 if size <= 3 else 7, color=color)
    ax.set_title("window × kernel", fontsize=9)
    ax.set_xlabel(f"all added up: {total:,.0f}".replace("-", "−"), fontsize=9, color="black")
    ax.spines[:].set_color(ORANGE)
    ax.spines[:].set_linewidth(2)

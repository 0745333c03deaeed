"""A kernel to edit and to slide over an image."""

import os
from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from cnnlab import images, plots
from cnnlab.widgets.exploring import Explorer

KERNELS: dict[str, list[list[float]]] = {
    "edge, left to right": [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]],
    "edge, top to bottom": [[-1, -1, -1], [0, 0, 0], [1, 1, 1]],
    "spot": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
    "mean": [[1 / 9] * 3] * 3,
    "as it is": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
}
LARGEST = 64  # pixels: beyond, the window could not be seen


def convolution(image: Any, kernel: Sequence[Sequence[float]] | np.ndarray | None = None) -> "Convolution":
    """Slides a kernel over an image: the window, the products, their sum, and the map that the sums make.

    Args:
        image: A path, or numbers of shape (height, width) or (height, width, channels) from 0 to 255; channels are
            averaged, and a large image is made smaller.
        kernel: Square, of odd size up to 5; an edge detector where None. Can be edited in the view.

    Returns:
        The view: leave it on a cell's last line. Its `kernel` and `result` are arrays. Where widgets do not run, the
        picture of the middle place stands in its place.

    Raises:
        ValueError: If image or kernel have another shape, or the image cannot be read.

    Example:
        >>> import numpy as np
        >>> from cnnlab import widgets
        >>> view = widgets.convolution(np.eye(8) * 255)
        >>> view.boxes[0].value = 5
        >>> view.result.shape
        (6, 6)
    """
    pixels = images.read(image) if isinstance(image, (str, os.PathLike)) else np.asarray(image)
    if pixels.ndim not in (2, 3):
        raise ValueError(
            f"`image` expects the shape (height, width) or (height, width, channels). Received: {pixels.shape}."
        )
    grey = np.asarray(pixels, dtype=float) if pixels.ndim == 2 else pixels.astype(float).mean(axis=-1)
    step = -(-max(grey.shape) // LARGEST)
    grey = grey[::step, ::step]
    numbers = np.asarray(next(iter(KERNELS.values())) if kernel is None else kernel, dtype=float)
    if numbers.ndim != 2 or numbers.shape[0] != numbers.shape[1] or numbers.shape[0] not in (1, 3, 5):
        raise ValueError(f"`kernel` expects 3 × 3 or 5 × 5 numbers. Received the shape {numbers.shape}.")
    if min(grey.shape) < len(numbers):
        raise ValueError(f"`image` must be at least as large as the kernel. Received: {grey.shape}.")
    return Convolution(grey, numbers)


class Convolution(Explorer):
    """What `convolution` returns."""

    def __init__(self, image: np.ndarray, kernel: np.ndarray) -> None:
        self.image, self.size = image, len(kernel)
        self.boxes = [
            ipywidgets.FloatText(value=round(float(value), 3), step=1, layout={"width": "5em"})
            for value in kernel.ravel()
        ]
        known = ["(your own)"] + (list(KERNELS) if self.size == 3 else [])
        self.known = ipywidgets.Dropdown(options=known, description="kernel")
        self.known.observe(lambda _: self._take_known(), "value")
        rows, columns = (side - self.size for side in image.shape)
        self.row = ipywidgets.IntSlider(min=0, max=rows, value=rows // 2, description="row")
        self.column = ipywidgets.IntSlider(min=0, max=columns, value=columns // 2, description="column")
        look = {"grid_template_columns": f"repeat({self.size}, 5.4em)", "margin": "0 2em"}
        sides = [ipywidgets.GridBox(self.boxes, layout=look), ipywidgets.VBox([self.known, self.row, self.column])]
        self._filling = False
        super().__init__([*self.boxes, self.row, self.column], ipywidgets.HBox(sides))

    def draw(self) -> None:
        """Draws anew, but once only while several numbers change together."""
        if not self._filling:
            super().draw()

    def _take_known(self) -> None:
        if self.known.value in KERNELS:
            self._filling = True
            for box, value in zip(self.boxes, np.ravel(KERNELS[self.known.value]), strict=True):
                box.value = round(float(value), 3)
            self._filling = False
            self.draw()

    @property
    def kernel(self) -> np.ndarray:
        """The numbers in the boxes."""
        return np.array([box.value for box in self.boxes]).reshape(self.size, self.size)

    @property
    def result(self) -> np.ndarray:
        """The map: at each place where the kernel fits, the sum of the products."""
        windows = np.lib.stride_tricks.sliding_window_view(self.image, (self.size, self.size))
        return np.einsum("yxij,ij->yx", windows, self.kernel)

    def figure(self) -> Figure:
        """Image with window, products, and map."""
        figure = Figure((8.2, 3.1), layout="constrained")
        at = (self.row.value, self.column.value)
        plots.convolution(self.image, self.kernel, self.result, at=at, ax=figure.subplots())
        return figure

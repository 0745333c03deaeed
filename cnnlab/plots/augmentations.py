"""Figure of a policy: what augmentation does to the images of a table."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from cnnlab._common import require_columns
from cnnlab.plots.style import image_grid, shown, thumbnails

CHOICES = 99  # draws of which a row shows a few, from the weakest to the strongest


def augmentations(
    table: pd.DataFrame,
    policy: Any,
    *,
    row: int = 0,
    columns: int = 6,
    size: int = 128,
    seed: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Shows one image under many draws of a policy, and each operation alone with the value drawn.

    Look whether you would still give every picture the same label. The first line is what training sees. Below, one
    line per operation, from one end of its range to the other; mixers show what becomes of several images and their
    labels.

    Args:
        table: With the columns path and label.
        policy: An `augment.Policy`.
        row: Which image of the table, counted from 0.
        columns: Images in a line.
        size: Side of the images in pixels, as a network would see them; blur and noise depend on it.
        seed: Decides the draws.
        ax: Where to draw; new Axes where None.

    Raises:
        ValueError: If the table has no such row.

    Example:
        >>> import tempfile
        >>> from cnnlab import augment, plots, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     ax = plots.augmentations(table, augment.Policy(flip="horizontal", rotate=10), size=32)
        >>> len(ax.child_axes)
        18
    """
    require_columns(table, "path", "label", caller="plots.augmentations")
    if not -len(table) <= row < len(table):
        raise ValueError(f"`row` must be from 0 to {len(table) - 1}, the rows of the table. Received: row={row}.")
    image = _squares(table.iloc[[row]], size, table)[0]
    pictures, titles = [image], [shown(table["label"].iloc[row], 18)]
    batch = np.repeat(image[None], columns - 1, axis=0)
    pictures.extend(policy.apply(batch, policy.sample(columns - 1, seed=seed)))
    titles.extend(f"draw {number + 1}" for number in range(columns - 1))
    for operation in policy.operations:
        single = policy.only(operation)
        part = _mixed(table, single, columns, size, seed) if single.mixes else _sweep(image, single, columns, seed)
        pictures.extend(part[0])
        titles.extend(part[1])
    return image_grid(pictures, titles, columns=columns, ax=ax)


def _squares(part: pd.DataFrame, size: int, table: pd.DataFrame) -> np.ndarray:
    """The middles of some images of a table."""
    squares = []
    for image in thumbnails(part, 2 * size, of=table):
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        middle = Image.fromarray(image[top : top + side, left : left + side])
        squares.append(np.asarray(middle.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(squares)


def _sweep(image: np.ndarray, policy: Any, columns: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """The image under draws of one operation, in the order of their strength."""
    drawn = policy.sample(CHOICES, seed=seed)
    order = np.lexsort([np.abs(values) if name == "noise" else values for name, values in drawn.items()][::-1])
    chosen = order[np.linspace(0, CHOICES - 1, columns).round().astype(int)]
    drawn = {name: values[chosen] for name, values in drawn.items()}
    return policy.apply(np.repeat(image[None], columns, axis=0), drawn), policy.describe(drawn)


def _mixed(table: pd.DataFrame, policy: Any, columns: int, size: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Several images mixed with one another, and the parts of their labels."""
    some = table.sample(columns, random_state=seed, replace=len(table) < columns)
    images = _squares(some, size, table)
    names = [str(name) for name in some["label"].cat.categories]
    labels = np.eye(len(names), dtype=np.float32)[some["label"].cat.codes]
    mixed, soft = policy.mix(images, labels, policy.sample(columns, seed=seed))
    titles = []
    for shares in soft:
        largest = [code for code in np.argsort(-shares, kind="stable")[:2] if shares[code] >= 0.005]
        parts = [f"{100 * shares[code]:.0f} % {shown(names[code], 12)}" for code in largest]
        titles.append(f"{policy.operations[0]} " + "\n".join(parts))
    return mixed, titles

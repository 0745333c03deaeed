"""A map of images: those that a network sees as similar lie close together."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from cnnlab._common import require_columns, require_features
from cnnlab.plots.style import GREY, color_of, finish, new_axes, shown
from cnnlab.plots.style import thumbnails as images_of

DIMENSIONS = 50  # that t-SNE starts from
PERPLEXITY = 30
MARKERS = "osD^vP*X"  # after seven classes, colours begin again with another mark


def embedding(
    table: pd.DataFrame, features: np.ndarray, *, thumbnails: int = 40, seed: int = 0, ax: Axes | None = None
) -> Axes:
    """Draws a two-dimensional map of images, some of them as thumbnails in the colour of their label.

    Neighbours on the map are alike; distances between far-off clusters, and their sizes, mean little.

    Args:
        table: With the column path, and possibly label.
        features: One row of numbers for each image, such as `experiments.features("EfficientNetLite0", table)`, from
            which t-SNE makes the map; or the places themselves, shape (rows, 2), which are drawn as they are. Images
            whose features are not a number are left out.
        thumbnails: Images to show at most, spread over the map; 0 for dots alone.
        seed: Decides the map.
        ax: Where to draw; new Axes where None.

    Raises:
        ValueError: If the features are not one row of numbers for each image, or of fewer than four images.

    Source:
        L. van der Maaten, G. Hinton, "Visualizing data using t-SNE" (2008): `sklearn.manifold.TSNE` after
        `sklearn.decomposition.PCA` to 50 dimensions.

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from cnnlab import plots
        >>> table = pd.DataFrame({"path": list("abcd"), "label": pd.Categorical(["cat", "cat", "dog", "dog"])})
        >>> ax = plots.embedding(table, np.array([[0, 0], [0, 1], [3, 0], [3, 1]]), thumbnails=0)
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['cat', 'dog']
    """
    require_columns(table, "path", caller="plots.embedding")
    require_columns(table, *(["label"] if "label" in table else []), caller="plots.embedding")
    values = require_features(table, features, least=2, caller="plots.embedding")
    known = np.isfinite(values).all(axis=1)
    table, places = table[known], places_of(values[known], seed)
    ax = new_axes(ax, (9, 7))
    codes = table["label"].cat.codes.to_numpy() if "label" in table else np.full(len(table), -1)
    for code in np.unique(codes):
        mark, color = (MARKERS[code // 7 % len(MARKERS)], color_of(code)) if code >= 0 else ("o", GREY)
        name = shown(table["label"].cat.categories[code], 18) if code >= 0 else "no label"
        x, y = places[codes == code].T
        ax.scatter(x, y, s=18, alpha=0.8, linewidths=0, label=name, marker=mark, color=color)
    ax.set(xticks=[], yticks=[])
    ax.margins(0.08)
    ax.spines[:].set_visible(False)
    chosen = _spread(places, thumbnails)
    for row, image in zip(chosen, images_of(table.iloc[chosen], 48, of=table), strict=True):
        frame = {"edgecolor": color_of(codes[row]) if codes[row] >= 0 else GREY, "linewidth": 1.5}
        picture = OffsetImage(image, zoom=0.6)
        ax.add_artist(AnnotationBbox(picture, places[row], pad=0.1, bboxprops=frame))
    legend: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if "label" in table else {}
    return finish(ax, f"{len(table):,} images; those that the network sees as similar lie close together", **legend)


def places_of(values: np.ndarray, seed: int) -> np.ndarray:
    """Where images lie on the map, shape (rows, 2); features of two numbers are places already."""
    if values.shape[1] == 2:
        return values
    if len(values) < 4:
        raise ValueError(f"`plots.embedding` expects features of four images or more to map. Received: {len(values)}.")
    if not np.ptp(values, axis=0).any():  # one image many times, of which t-SNE would make NaN
        return np.zeros((len(values), 2))
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    few = min(DIMENSIONS, *values.shape)
    values = PCA(few, svd_solver="full", random_state=seed).fit_transform(values)
    return TSNE(perplexity=min(PERPLEXITY, (len(values) - 1) / 3), init="pca", random_state=seed).fit_transform(values)


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    """Rows far from each other: each next one is the farthest from those chosen so far."""
    if not len(places) or count < 1:
        return np.zeros(0, int)
    places = (places - places.min(axis=0)) / np.maximum(np.ptp(places, axis=0), 1e-12)
    chosen = [int(np.linalg.norm(places - 0.5, axis=1).argmin())]
    gap = np.full(len(places), np.inf)
    while len(chosen) < min(count, len(places)):
        gap = np.minimum(gap, np.linalg.norm(places - places[chosen[-1]], axis=1))
        chosen.append(int(gap.argmax()))
    return np.array(chosen)

"""Figures of images: what is in a table, what a policy makes of it, what a model got wrong, and which are alike."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image

from cnnlab._common import require_columns, require_features
from cnnlab.plots.style import GREEN, GREY, RED, color_of, finish, image_grid, new_axes, shown, thumbnails
from cnnlab.plots.style import thumbnails as images_of

BLACK = "#000000"
TITLE = 19  # letters of label and prediction that fit above an image in one line
CHOICES = 99  # draws of which a row shows a few, from the weakest to the strongest
DIMENSIONS = 50  # that t-SNE starts from
PERPLEXITY = 30
MARKERS = "osD^vP*X"  # after seven classes, colours begin again with another mark


def images(table: pd.DataFrame, *, count: int = 12, columns: int = 6, ax: Axes | None = None) -> Axes:
    """Shows images with their labels, taking turns through the classes so that each is seen.

    Args:
        table: With the column path; with `label`, its classes take turns; with `predicted`, titles say so, green where
            right and red where wrong, and `confidence` how certain the model was.
        count: How many at most.
        columns: Images in a row.
        ax: Where to draw; new Axes where None.

    Raises:
        ValueError: If there is nothing to show.

    Example:
        >>> import tempfile
        >>> from cnnlab import plots, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     ax = plots.images(table)
        >>> len(ax.child_axes)
        6
    """
    require_columns(table, "path", *(["label"] if "label" in table else []), caller="plots.images")
    if "label" in table:
        turn = table.groupby("label", observed=True, dropna=False).cumcount()
        table = table.assign(_turn=turn.to_numpy()).sort_values(["_turn", "label"], kind="stable")
    return _show(table, count, columns, ax)


def worst(predictions: pd.DataFrame, *, count: int = 12, columns: int = 6, ax: Axes | None = None) -> Axes:
    """Shows the mistakes that the model was most certain of: look here first for wrong labels and blind spots.

    Args:
        predictions: From `experiments.predict`: path, label, predicted, confidence.
        count: How many at most.
        columns: Images in a row.
        ax: Where to draw; new Axes where None.
    """
    require_columns(predictions, "path", "label", "predicted", "confidence", caller="plots.worst")
    wrong = predictions[_judged(predictions) == RED]
    if not len(wrong):
        ax = new_axes(ax, (5, 1))
        ax.axis("off")
        ax.text(0.5, 0.5, f"no mistakes in {len(predictions)} images", ha="center", va="center")
        return ax
    return _show(wrong.sort_values("confidence", ascending=False, kind="stable"), count, columns, ax)


def uncertain(predictions: pd.DataFrame, *, count: int = 12, columns: int = 6, ax: Axes | None = None) -> Axes:
    """Shows the images that the model was least certain of: the ones to label or collect more of.

    Args:
        predictions: From `experiments.predict`: path, label, predicted, confidence.
        count: How many at most.
        columns: Images in a row.
        ax: Where to draw; new Axes where None.
    """
    require_columns(predictions, "path", "label", "predicted", "confidence", caller="plots.uncertain")
    known = predictions[predictions["predicted"].notna()]
    return _show(known.sort_values("confidence", kind="stable"), count, columns, ax)


def _judged(table: pd.DataFrame) -> np.ndarray:
    """The colour of each prediction: right, wrong, or black where label or prediction are not known."""
    if not {"label", "predicted"} <= set(table):
        return np.full(len(table), BLACK)
    wrong = table["label"].astype(str).to_numpy() != table["predicted"].astype(str).to_numpy()
    known = table[["label", "predicted"]].notna().all(axis=1).to_numpy()
    return np.where(known, np.where(wrong, RED, GREEN), BLACK)


def _show(table: pd.DataFrame, count: int, columns: int, ax: Axes | None) -> Axes:
    if not len(table):
        raise ValueError("Expected a table with at least one image to show. Received one without rows.")
    part = table.head(count)
    colors = _judged(part).tolist()
    known = [name for name in ("label", "predicted") if name in part]
    names = [[shown(name, 18) if pd.notna(name) else "—" for name in row] for row in part[known].to_numpy(dtype=object)]
    arrow = "\n→ " if max(sum(map(len, row)) for row in names) > TITLE else " → "
    titles = [row[0] if color == GREEN else arrow.join(row) for row, color in zip(names, colors, strict=True)]
    if {"predicted", "confidence"} <= set(part):
        certain = ["" if pd.isna(one) else f"\n{one:.0%} certain" for one in part["confidence"]]
        titles = [title + words for title, words in zip(titles, certain, strict=True)]
    return image_grid(thumbnails(part, of=table), titles, columns=min(columns, len(part)), colors=colors, ax=ax)


def class_counts(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Shows how many images each class has, split by split where the table has a split.

    Args:
        table: With the column label, and possibly split.
        ax: Where to draw; new Axes where None.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import plots
        >>> ax = plots.class_counts(pd.DataFrame({"label": pd.Categorical(["cat", "dog", "dog"])}))
        >>> [text.get_text() for text in ax.get_yticklabels()]
        ['cat', 'dog']
    """
    require_columns(table, "label", caller="plots.class_counts")
    classes = table["label"].cat.categories
    parts = pd.Series("images", index=table.index)
    if "split" in table:
        parts = table["split"].astype(object).where(table["split"].notna(), "no split").astype(str)
    order = [name for name in ("train", "val", "test") if (parts == name).any()]
    order += sorted(set(parts) - set(order))
    counts = pd.crosstab(table["label"], parts).reindex(index=classes, columns=order, fill_value=0)
    ax = new_axes(ax, (7, 0.8 + 0.28 * len(classes)))
    left = np.zeros(len(classes))
    for number, name in enumerate(order):
        ax.barh(range(len(classes)), counts[name], 0.75, left, label=shown(name), color=color_of(number))
        left += counts[name].to_numpy()
    for row, total in enumerate(left):
        ax.text(total, row, f" {int(total)}", va="center", fontsize=8)
    ax.set_yticks(range(len(classes)), [shown(name) for name in classes], fontsize=9 if len(classes) <= 30 else 6)
    ax.invert_yaxis()
    ax.margins(x=0.08)
    without = f", {table['label'].isna().sum():,} without label" if table["label"].isna().any() else ""
    legend: dict[str, Any] = {"ncols": len(order), "loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    return finish(ax, f"images (n = {len(table):,}{without})", **(legend if len(order) > 1 else {}))


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

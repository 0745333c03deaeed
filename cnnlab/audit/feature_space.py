"""Images that stand apart, and images that are nearly the same, by what a pretrained network sees in them."""

import numpy as np
import pandas as pd
from scipy.sparse import triu
from sklearn.neighbors import NearestNeighbors

from cnnlab._common import require_columns, require_features

NEIGHBOUR = 5  # the fifth nearest: some odd images that are like each other vouch for nothing
FENCE = 1.5  # interquartile ranges above the third quartile


def outliers(table: pd.DataFrame, features: np.ndarray) -> pd.DataFrame:
    """Finds the images that are unlike all others, or unlike the images of their class.

    An image stands apart if its fifth nearest neighbour is farther away than is usual in this very table, or in its
    class. So a table without oddities gives few rows or none, and a class of fewer than seven images none of its own.
    Look at them (`plots.images`) before you exclude them: rare is not wrong.

    Args:
        table: With the columns path and label.
        features: One row of numbers for each image, such as `experiments.features("EfficientNetLite0", table)`; images
            whose features are not a number are left out.

    Returns:
        path, label, kind ("unlike any class" or "unlike its class"), score (distance in units of the limit, above 1),
        worst first. The index is that of `table`. Of 1,207 photographs of clothes and of waste 9 were listed, of 2,062
        hand signs 194: painted nails, another light. Of four planted pictures of another collection, 98 in 100 were.

    Raises:
        ValueError: If the features are not one row of numbers for each image.

    Source:
        Tukey's fence, 1.5 interquartile ranges above the third quartile (1977), of the distances that
        Y. Sun and others use in "Out-of-distribution detection with deep nearest neighbors" (2022).

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from cnnlab import audit
        >>> features = 5 + np.random.default_rng(0).normal(size=(20, 8))
        >>> features[19, :4] *= -1
        >>> paths = [f"{number}.jpg" for number in range(20)]
        >>> table = pd.DataFrame({"path": paths, "label": pd.Categorical(["a"] * 20)})
        >>> audit.outliers(table, features)[["path", "kind"]].values.tolist()
        [['19.jpg', 'unlike any class']]
    """
    require_columns(table, "path", "label", caller="audit.outliers")
    rows, values = _read(table, features, "audit.outliers")
    points = _unit(values)
    codes = table["label"].cat.codes.to_numpy()[rows]
    anywhere, in_class = _beyond(points), np.zeros(len(rows))
    for code in np.unique(codes[codes >= 0]):
        in_class[codes == code] = _beyond(points[codes == code])
    alone = anywhere > 1
    kind = np.where(alone, "unlike any class", "unlike its class")
    found = table.iloc[rows][["path", "label"]].assign(kind=kind, score=np.where(alone, anywhere, in_class))
    return found[found["score"] > 1].sort_values("score", ascending=False, kind="stable")


def similar(table: pd.DataFrame, features: np.ndarray, *, threshold: float = 0.8) -> pd.DataFrame:
    """Finds pairs of images that a network takes for nearly the same: another crop, another moment of one scene.

    A second opinion on the groups of `audit.scan`, which compares pictures pixel by pixel. What scan
    groups is one picture, and nothing more has to be looked at; these pairs show the same thing, or nearly, and want
    a person's eye. Where they do show one object, link them by a column of their own, as in `tables.linked_groups`.

    Args:
        table: With the column path; with `group`, the result says which pairs `audit.scan` has found already.
        features: As for `outliers`.
        threshold: Least similarity, above 0 and up to 1: the cosine between two images' features, each standardised
            over the table. At 0.8, 11 of 2.5 million pairs of three collections of photographs were listed, and one
            of the 11 shows two things; crops to 90 % of each side were found in more than 8 of 10 cases, those to 75 %
            seldom. 0.65 finds seven in ten of these, among one to six merely alike pairs for each 100 images.

    Returns:
        path, other, similarity, and where the table has a column group, grouped; the most similar first.

    Raises:
        ValueError: If the features are not one row of numbers for each image, or the threshold is out of range.

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from cnnlab import audit
        >>> features = np.random.default_rng(0).normal(size=(10, 50))
        >>> features[7] = features[2] + 0.1
        >>> table = pd.DataFrame({"path": [f"{number}.jpg" for number in range(10)]})
        >>> audit.similar(table, features)[["path", "other"]].values.tolist()
        [['2.jpg', '7.jpg']]
    """
    require_columns(table, "path", caller="audit.similar")
    if not 0 < threshold <= 1:
        raise ValueError(f"`threshold` expects a number above 0 and up to 1, such as 0.8. Received: {threshold!r}.")
    rows, values = _read(table, features, "audit.similar")
    points = _unit((values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-6))
    radius = np.sqrt(2 - 2 * threshold) + 1e-6  # between the ends of two vectors of length 1
    if len(rows) < 2:
        first, second, distance = np.zeros((3, 0), int)
    else:
        near = NearestNeighbors(radius=radius).fit(points).radius_neighbors_graph(mode="distance")
        pairs = triu(near, k=1).tocoo()
        first, second, distance = rows[pairs.row], rows[pairs.col], pairs.data
    paths = table["path"].to_numpy()
    found = pd.DataFrame({"path": paths[first], "other": paths[second], "similarity": 1 - distance**2 / 2})
    if "group" in table:
        group = table["group"].to_numpy()
        found["grouped"] = group[first] == group[second]
    return found.sort_values("similarity", ascending=False, kind="stable", ignore_index=True)


def _read(table: pd.DataFrame, features: np.ndarray, caller: str) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows that have features, and those features."""
    values = require_features(table, features, caller=caller)
    rows = np.flatnonzero(np.isfinite(values).all(axis=1))
    return rows, values[rows]


def _unit(values: np.ndarray) -> np.ndarray:
    """Vectors of length 1: how strong features are all together says more of contrast than of what is seen."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _beyond(points: np.ndarray) -> np.ndarray:
    """The distance of each point to its fifth nearest, in units of the fence; 0 where there are too few to tell."""
    if len(points) < NEIGHBOUR + 2:
        return np.zeros(len(points))
    distance = NearestNeighbors(n_neighbors=NEIGHBOUR).fit(points).kneighbors()[0][:, -1]
    low, high = np.quantile(distance, [0.25, 0.75])
    return distance / max(high + FENCE * (high - low), 1e-9)

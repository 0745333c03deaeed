"""What features say before anybody has labelled: their main axes, tight clusters, and images far from each other."""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

DIMENSIONS = 256
FITTED = 4000  # images that scale, axes and clusters are computed from
CLUSTER = 16  # images of a cluster, those nearest to its centre


def main_axes(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The features of these rows standardised and along their main axes, by the first of them; 0 in other rows."""
    places = np.zeros((len(values), 1), np.float32)
    if len(rows):
        shape = np.sqrt if np.nanmin(values) >= 0 else np.asarray  # a network gives them skewed
        some = shape(values[rows[:FITTED]])
        mean, scale = some.mean(axis=0), np.maximum(some.std(axis=0), 1e-9)
        with np.errstate(invalid="ignore"):  # all images alike
            axes = PCA(min(DIMENSIONS, *some.shape), random_state=0).fit((some - mean) / scale)
        places = np.zeros((len(values), axes.n_components_), np.float32)
        for part in np.array_split(rows, -(-len(rows) // FITTED)):
            places[part] = axes.transform((shape(values[part]) - mean) / scale)
    return places


def tight_clusters(places: np.ndarray, rows: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Of these rows, `count` groups of images that look alike: those nearest to each centre, the tightest first."""
    if len(rows) < 2:
        return []
    clusters = KMeans(min(count, len(rows)), n_init=3, random_state=seed).fit(places[rows])
    gap = ((places[rows] - clusters.cluster_centers_[clusters.labels_]) ** 2).sum(axis=1)
    order = np.argsort(gap)
    each = [order[clusters.labels_[order] == number][:CLUSTER] for number in range(clusters.n_clusters)]
    return [rows[cluster] for cluster in sorted(each, key=lambda cluster: gap[cluster].mean())]


def far_apart(places: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Of these rows, the first and then always the one that is farthest from those chosen (core-set selection)."""
    chosen: list[int] = []
    gap = np.full(len(rows), np.inf)
    while len(chosen) < min(count, len(rows)):
        chosen.append(int(gap.argmax()))
        gap = np.minimum(gap, ((places[rows] - places[rows[chosen[-1]]]) ** 2).sum(axis=1))
        gap[chosen] = -1
    return rows[chosen]

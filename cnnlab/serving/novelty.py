"""How far an image is from everything a network has seen in training: out-of-distribution detection."""

import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cnnlab._common import atomic_path
from cnnlab.serving.description import file_of_export
from cnnlab.serving.engines import require_stored

NEIGHBOUR = 5  # the fifth nearest: one odd training image vouches for nothing


class Novelty:
    """Training images as points of length 1 in the space of a network's features, and the distance that counts as 1."""

    def __init__(self, points: np.ndarray, limit: float = 1.0) -> None:
        self.points, self.limit = np.asarray(points, np.float32), limit
        self._across = np.ascontiguousarray(self.points.T)

    @classmethod
    def fit(cls, features: np.ndarray) -> "Novelty":
        """Learns from features (n, any) of training images."""
        if len(features) < NEIGHBOUR:
            raise ValueError(
                f"`Predictor.fit_novelty` expects at least {NEIGHBOUR} readable training images. Received "
                f"{len(features)}."
            )
        return cls(_normalised(features))

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Of each image (n, any), the distance to the fifth nearest training image, in units of the limit."""
        cosines = _normalised(features) @ self._across
        fifth = np.partition(cosines, -NEIGHBOUR, axis=1)[:, -NEIGHBOUR]
        return np.sqrt(np.maximum(2 - 2 * fifth, 0)) / self.limit

    def set_limit(self, distances: np.ndarray, false_alarms: float) -> pd.DataFrame:
        """Sets the limit so that of new images only the share `false_alarms` lies beyond; gives the report."""
        count = len(distances)
        beyond = math.floor(false_alarms * (count + 1))  # ranks that may be false alarms, of count + 1 equally likely
        if beyond < 1:
            raise ValueError(
                f"`false_alarms={false_alarms}` expects at least {math.ceil(1 / false_alarms) - 1} validation "
                f"images to set the limit by. Received {count} readable ones. Ask for {1 / (count + 1):.2g} or more."
            )
        from scipy.stats import beta

        self.limit = max(float(np.sort(distances)[count - beyond]), 1e-9)
        low, high = beta.ppf([0.025, 0.975], beyond, count + 1 - beyond)
        row = {"limit": self.limit, "false_alarms": beyond / (count + 1), "low": low, "high": high, "images": count}
        return pd.DataFrame([row])

    def write(self, folder: Path, format: str, digest: str) -> None:
        """Keeps it next to the model with the SHA-256 `digest`."""
        with atomic_path(folder / f"novelty_{format}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, points=self.points, limit=self.limit, model=digest)

    @classmethod
    def read(cls, folder: Path, format: str, digest: str, features: int) -> "Novelty | None":
        """What `write` kept; None where nothing was, or, with a warning, where it belongs to another model."""
        names = (f"novelty_{format}.npz", f"familiar_{format}.npz")  # the second: of version 0.1.0
        path = next((folder / name for name in names if (folder / name).exists()), None)
        if path is None:
            return None
        try:
            require_stored(file_of_export(folder, path.name))
            with np.load(path, allow_pickle=False) as kept:
                points, limit, model = kept["points"], float(kept["limit"]), str(kept["model"])
            if model == digest:
                _require_sound(points, limit, features)
        except Exception as error:  # a damaged archive raises kinds of its own
            raise ValueError(
                f"{str(path)!r} is damaged: {str(error)[:200]}. Remove it, and call `Predictor.fit_novelty` again."
            ) from error
        if model == digest:
            return cls(points, limit)
        warnings.warn(
            f"{str(path)!r} was learned for an earlier export and is not used. Call `Predictor.fit_novelty` again.",
            UserWarning,
            stacklevel=4,
        )
        return None


def _require_sound(points: np.ndarray, limit: float, features: int) -> None:
    if points.dtype.kind != "f" or points.ndim != 2 or points.shape[1] != features or len(points) < NEIGHBOUR:
        raise ValueError(f"expected {NEIGHBOUR} or more points of {features} numbers, received {points.shape}")
    if not np.isfinite(points).all() or not 0 < limit < math.inf:
        raise ValueError(f"its numbers are not finite, or its limit is not above 0: {limit}")


def _normalised(features: np.ndarray) -> np.ndarray:
    """Features of length 1: how strong they are all together says more of contrast than of what is seen."""
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)

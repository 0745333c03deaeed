"""How far an image is from everything a network has seen in training."""

import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cnnlab._common import atomic_path


def file_of_format(format: str) -> str:
    """Name of the file in an export that holds what `Predictor.learn_unknown` learned for a format."""
    return f"familiar_{format}.npz"


class Familiar:
    """The training images as points in the space of a network's features, and the limit beyond which all is unknown.

    Attributes:
        basis: Shape (features, directions); features times it have about the same spread in every direction.
        centres: Shape (classes, directions), the mean of each class.
        limit: A raw distance that counts as 1.
    """

    def __init__(self, basis: np.ndarray, centres: np.ndarray, limit: float = 1.0) -> None:
        self.basis = np.asarray(basis, np.float32)
        self.centres = np.asarray(centres, np.float32)
        self.limit = limit

    @classmethod
    def of(cls, features: np.ndarray, labels: np.ndarray) -> "Familiar":
        """Learns from features (n, any) of training images and their class numbers (n,).

        Raises:
            ValueError: If there are fewer than two images.
        """
        from sklearn.covariance import LedoitWolf

        if len(features) < 2:
            raise ValueError(
                f"`Predictor.learn_unknown` expects at least two readable training images. Received {len(features)}."
            )
        points = _normalised(features).astype(float)
        classes, place = np.unique(labels, return_inverse=True)
        means = np.stack([points[place == number].mean(axis=0) for number in range(len(classes))])
        # One spread for all classes, shrunk as far as the number of images asks for.
        precision = LedoitWolf(assume_centered=True).fit(points - means[place]).precision_
        basis = np.linalg.cholesky(precision)
        return cls(basis, means @ basis)

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Of each image (n, any), the distance to the nearest class, in units of the limit."""
        points = _normalised(features) @ self.basis
        return np.sqrt(((points[:, None] - self.centres) ** 2).sum(axis=2)).min(axis=1) / self.limit

    def set_limit(self, distances: np.ndarray, false_alarms: float) -> pd.DataFrame:
        """Sets the limit so that of new images like these only a share lies beyond.

        Args:
            distances: Raw ones of images that were not learned from.
            false_alarms: That share.

        Returns:
            One row: limit, false_alarms, low, high, images.

        Raises:
            ValueError: If so few images cannot promise so small a share.
        """
        if not 0 < false_alarms < 1:
            raise ValueError(f"`false_alarms` expects a share above 0 and below 1. Received: {false_alarms}.")
        count = len(distances)
        beyond = math.floor(false_alarms * (count + 1))  # ranks that may be false alarms, of count + 1 equally likely
        if beyond < 1:
            raise ValueError(
                f"`false_alarms={false_alarms}` expects at least {math.ceil(1 / false_alarms) - 1} validation "
                f"images to set the limit by. Received {count} readable ones. Ask for {1 / (count + 1):.2g} or more."
            )
        self.limit = float(np.sort(distances)[count - beyond])
        from scipy.stats import beta

        low, high = beta.ppf([0.025, 0.975], beyond, count + 1 - beyond)
        row = {"limit": self.limit, "false_alarms": beyond / (count + 1), "low": low, "high": high, "images": count}
        return pd.DataFrame([row])

    def write(self, path: Path, digest: str) -> None:
        """Keeps it beside the model with the SHA-256 `digest`."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, basis=self.basis, centres=self.centres, limit=self.limit, model=digest)

    @classmethod
    def read(cls, path: Path, digest: str) -> "Familiar | None":
        """What `write` kept; None where nothing was, or, with a warning, where it belongs to another model."""
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as kept:
                found = cls(kept["basis"], kept["centres"], float(kept["limit"]))
                model = str(kept["model"])
        except Exception as error:  # a damaged archive raises kinds of its own
            raise ValueError(
                f"{str(path)!r} is damaged. Remove it, or call `Predictor.learn_unknown` again after removing it."
            ) from error
        if model != digest:
            warnings.warn(
                f"{str(path)!r} was learned for an earlier export and is not used. Call `Predictor.learn_unknown` "
                "again.",
                UserWarning,
                stacklevel=4,
            )
            return None
        return found


def _normalised(features: np.ndarray) -> np.ndarray:
    """Features of length 1: how strong they are all together says more of contrast than of what is seen."""
    features = np.asarray(features, np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)

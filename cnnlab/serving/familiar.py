"""How far an image is from everything a network has seen in training."""

import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from cnnlab._common import atomic_path

NEIGHBOUR = 5  # the fifth nearest: one odd training image vouches for nothing
LEARNED = 2_000  # training images that are remembered; more make each answer slower


def file_of_format(format: str) -> str:
    """Name of the file in an export that holds what `Predictor.learn_unknown` learned for a format."""
    return f"familiar_{format}.npz"


class Familiar:
    """The training images as points in the space of a network's features, and the limit beyond which all is unknown.

    Attributes:
        points: Shape (images, features), each of length 1.
        limit: A raw distance that counts as 1.
    """

    def __init__(self, points: np.ndarray, limit: float = 1.0) -> None:
        self.points = np.asarray(points, np.float32)
        self.limit = limit
        self._across = np.ascontiguousarray(self.points.T)

    @classmethod
    def of(cls, features: np.ndarray) -> "Familiar":
        """Learns from features (n, any) of training images.

        Raises:
            ValueError: If there are too few images.
        """
        if len(features) < NEIGHBOUR:
            raise ValueError(
                f"`Predictor.learn_unknown` expects at least {NEIGHBOUR} readable training images. Received "
                f"{len(features)}."
            )
        return cls(_normalised(features))

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Of each image (n, any), the distance to the fifth nearest training image, in units of the limit."""
        alike = _normalised(features) @ self._across  # cosines
        fifth = np.partition(alike, -NEIGHBOUR, axis=1)[:, -NEIGHBOUR]
        return np.sqrt(np.maximum(2 - 2 * fifth, 0)) / self.limit

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
        self.limit = max(float(np.sort(distances)[count - beyond]), 1e-9)
        from scipy.stats import beta

        low, high = beta.ppf([0.025, 0.975], beyond, count + 1 - beyond)
        row = {"limit": self.limit, "false_alarms": beyond / (count + 1), "low": low, "high": high, "images": count}
        return pd.DataFrame([row])

    def write(self, path: Path, digest: str) -> None:
        """Keeps it beside the model with the SHA-256 `digest`."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, points=self.points, limit=self.limit, model=digest)

    @classmethod
    def read(cls, path: Path, digest: str) -> "Familiar | None":
        """What `write` kept; None where nothing was, or, with a warning, where it belongs to another model."""
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as kept:
                found = cls(kept["points"], float(kept["limit"]))
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

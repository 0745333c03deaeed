"""An exported model that takes what people have: a path, bytes, an array."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cnnlab import pipelines
from cnnlab.pipelines.reading import Resize
from cnnlab.serving.engines import FILE_OF, open_engine

ABOUT = "export.json"
VERSION = 1


class Prediction(NamedTuple):
    """What a model says of one image: the most probable label, its probability 0-1, and that of every class."""

    label: str
    confidence: float
    probabilities: dict[str, float]


class Predictor:
    """Labels images with an exported model, as fast as this machine can: LiteRT where it was exported.

    Preprocessing is the training's own. One predictor may be shared by several threads.

    Args:
        folder: What `serving.export` wrote.
        format: "litert" or "keras"; the first of them that was exported where None.

    Attributes:
        classes: Names of the classes.
        image_size: Height and width that images are brought to, in pixels.

    Raises:
        FileNotFoundError: If the folder is no export.
        ValueError: If it was written by another version, or its model is damaged.

    Example:
        >>> predictor = Predictor("runs/first/export")  # doctest: +SKIP
        >>> predictor("photo.jpg").label  # doctest: +SKIP
        'scratch'
    """

    def __init__(self, folder: str | os.PathLike[str], *, format: str | None = None) -> None:
        about = read_about(Path(folder))
        self.classes: list[str] = about["classes"]
        self.image_size: tuple[int, int] = tuple(about["image_size"])
        self.channels: int = about["channels"]
        self.resize: Resize = about["resize"]
        kept = about["formats"]
        self.format = format or next((name for name in ("litert", "keras") if name in kept), kept[0])
        if self.format not in kept:
            raise ValueError(f"`format` expects one of those exported: {', '.join(kept)}. Received: {format!r}.")
        self._engine = open_engine(self.format, Path(folder))

    def __call__(self, image: Any) -> Any:
        """Labels one image, or several at once.

        Args:
            image: A path, encoded bytes, or an array (height, width, 3) of 0-255; or a list of these, or one array
                (n, height, width, 3).

        Returns:
            A `Prediction`; a list of them for several images.

        Raises:
            TypeError: If it is something else.
            ValueError: If the image cannot be read, or its pixels are not 0-255.
        """
        several = isinstance(image, Sequence) and not isinstance(image, str | bytes | bytearray)
        several = several or (isinstance(image, np.ndarray) and image.ndim == 4)
        images = list(image) if several else [image]
        if not images:
            return []
        probabilities = self.probabilities(np.stack([self.prepare(one) for one in images]))
        result = [self._named(row) for row in probabilities]
        return result if several else result[0]

    def prepare(self, image: Any) -> np.ndarray:
        """One image as the model expects it: float32 (height, width, channels) of 0-255."""
        if isinstance(image, bytearray):
            image = bytes(image)
        source = image if isinstance(image, str | os.PathLike | bytes) else _pixels(image)
        return as_model_input(pipelines.prepare(source, self.image_size, self.resize), self.channels)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes) of prepared images (n, height, width, channels)."""
        return self._engine(images)

    def _named(self, row: np.ndarray) -> Prediction:
        best = int(row.argmax())
        values = dict(zip(self.classes, map(float, row), strict=True))
        return Prediction(self.classes[best], float(row[best]), values)


def as_model_input(pixels: np.ndarray, channels: int) -> np.ndarray:
    """uint8 RGB pixels as float32, averaged to grey where the model takes one channel."""
    result = pixels.astype(np.float32)
    return result.mean(axis=-1, keepdims=True) if channels == 1 else result


def _pixels(image: Any) -> np.ndarray:
    """An array as uint8 RGB (height, width, 3)."""
    if not isinstance(image, np.ndarray):
        raise TypeError(
            "A predictor expects a path, encoded bytes, or an array (height, width, 3) of 0-255. "
            f"Received: {type(image).__name__}."
        )
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(
            f"Expected an array (height, width, 3) or (height, width). Received the shape {image.shape}. Convert the "
            "image to RGB first."
        )
    if not np.isfinite(image).all() or image.min() < 0 or image.max() > 255:
        raise ValueError(f"Expected pixels 0-255. Received values from {image.min()} to {image.max()}.")
    if image.dtype.kind == "f" and image.size > 64 and 0 < image.max() <= 1:
        raise ValueError(
            "Expected pixels 0-255. Received values from 0 to 1: multiply by 255, the model rescales itself."
        )
    image = np.rint(image).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def read_about(folder: Path) -> dict[str, Any]:
    """What `export.json` says.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged or of another version.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Expected a folder that `serving.export` wrote. {str(folder)!r} has no {ABOUT}. Export the model first."
        ) from error
    except ValueError as error:
        raise ValueError(f"{str(folder / ABOUT)!r} is damaged. Export the model again.") from error
    if about.get("version") != VERSION or not set(about.get("formats", [""])) <= set(FILE_OF):
        raise ValueError(
            f"{str(folder)!r} was exported by another version of cnnlab (format {about.get('version')}; this one reads "
            f"{VERSION}). Export the model again, or install that version."
        )
    return about

"""An exported model that takes what people have: a path, bytes, an array."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from cnnlab import pipelines
from cnnlab._common import require_columns
from cnnlab.pipelines.reading import RESIZES, Resize
from cnnlab.serving.engines import FILE_OF, open_engine
from cnnlab.serving.familiar import LEARNED, Familiar, file_of_format

ABOUT = "export.json"
VERSION = 2
FASTEST_FIRST = ("litert", "litert_float16", "litert_int8", "onnx", "keras", "savedmodel")
BATCH = 32  # images at a time
TINY = float(np.finfo(np.float32).tiny)  # of a probability, before its logarithm


class Prediction(NamedTuple):
    """What a model says of one image.

    Attributes:
        label: The most probable class.
        confidence: Its probability, 0-1.
        probabilities: Of every class.
        distance: How unlike the training images it is, 1 at the limit; None before `Predictor.learn_unknown`.
        unknown: Whether it is beyond that limit, so that the label means little; None before `learn_unknown`.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    distance: float | None = None
    unknown: bool | None = None


class Predictor:
    """Labels images with an exported model, as fast as this machine can: LiteRT where it was exported.

    Preprocessing is the training's own, and confidence is calibrated as the export learned it. One predictor may be
    shared by several threads. LiteRT and ONNX files can do nothing but compute, and Keras files with Python code in
    them are refused; a SavedModel is a program, so open "savedmodel" only of people you trust.

    Args:
        folder: What `serving.export` wrote.
        format: One of those exported; the fastest of them where None, which is "litert".
        temperature: Divides the logits; the export's own where None, 1 for the model's raw probabilities.
        threads: Processor cores for one image; all of this process, at most 4, where None.

    Attributes:
        classes: Names of the classes.
        image_size: Height and width that images are brought to, in pixels.
        format: The format in use.
        temperature: What the logits are divided by.

    Raises:
        FileNotFoundError: If the folder is no export, or its model is gone.
        ModuleNotFoundError: If the runtime of the format is not installed.
        ValueError: If it was written by another version, or its model is damaged or not the one exported.

    Example:
        >>> predictor = Predictor("runs/first/export")  # doctest: +SKIP
        >>> predictor("photo.jpg").label  # doctest: +SKIP
        'scratch'
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        format: str | None = None,
        temperature: float | None = None,
        threads: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        about = read_about(self.folder)
        self.classes: list[str] = about["classes"]
        self.image_size: tuple[int, int] = tuple(about["image_size"])
        self.channels: int = about["channels"]
        self.resize: Resize = about["resize"]
        self.temperature = float(about["temperature"] if temperature is None else temperature)
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"`temperature` expects a number above 0. Received: {temperature}.")
        kept = about["formats"]
        self.format = format or next(name for name in FASTEST_FIRST if name in kept)
        if self.format not in kept:
            raise ValueError(f"`format` expects one of those exported: {', '.join(kept)}. Received: {format!r}.")
        self._digest: str = kept[self.format]["sha256"]
        path = self.folder / FILE_OF[self.format]
        self._engine = open_engine(self.format, path, digest=self._digest, threads=threads)
        self._warm_up(path)
        self._familiar = Familiar.read(self.folder / file_of_format(self.format), self._digest)

    def _warm_up(self, path: Path) -> None:
        """The first image of a runtime takes longer; and a file of another network shows here.

        Raises:
            ValueError: If the file takes other images, or tells other classes apart.
        """
        try:
            shape = self._engine(np.zeros((1, *self.image_size, self.channels), np.float32))[0].shape
        except Exception as error:  # each runtime raises kinds of its own
            raise ValueError(
                f"{str(path)!r} does not take images of {self.image_size} pixels with {self.channels} channels, which "
                f"{ABOUT} promises. Export the model again."
            ) from error
        if shape != (1, len(self.classes)):
            raise ValueError(
                f"{str(path)!r} gives answers of the shape {shape} for one image; {ABOUT} names {len(self.classes)} "
                "classes. Export the model again."
            )

    def __repr__(self) -> str:
        return f"Predictor({str(self.folder)!r}, format={self.format!r}, {len(self.classes)} classes)"

    def __call__(self, image: Any) -> Any:
        """Labels one image, or several at once.

        Args:
            image: A path, encoded bytes, a Pillow image, or an array (height, width, 3) of 0-255; or a list of these,
                or one array (n, height, width, 3).

        Returns:
            A `Prediction`; a list of them for several images.

        Raises:
            TypeError: If it is something else.
            ValueError: If the image cannot be read, or its pixels are not 0-255.
        """
        several = isinstance(image, Sequence) and not isinstance(image, str | bytes | bytearray | memoryview)
        several = several or (isinstance(image, np.ndarray) and image.ndim == 4)
        images = list(image) if several else [image]
        result: list[Prediction] = []
        for start in range(0, len(images), BATCH):
            result += self._answers(np.stack([self.prepare(one) for one in images[start : start + BATCH]]))
        return result if several else result[0]

    def prepare(self, image: Any) -> np.ndarray:
        """One image as the model expects it: float32 (height, width, channels) of 0-255."""
        if isinstance(image, bytearray | memoryview):
            image = bytes(image)
        source = image if isinstance(image, str | os.PathLike | bytes) else as_pixels(image)
        return as_model_input(pipelines.prepare(source, self.image_size, self.resize), self.channels)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, classes) of prepared images (n, height, width, channels)."""
        return self._calibrated(self._engine(images)[0])

    def features(self, images: np.ndarray) -> np.ndarray:
        """What the network has seen before it decides, (n, any), of prepared images (n, height, width, channels)."""
        return self._engine(images)[1]

    def learn_unknown(self, train: pd.DataFrame, val: pd.DataFrame, *, false_alarms: float = 0.01) -> pd.DataFrame:
        """Learns what familiar images look like, so that every `Prediction` also says whether its image is `unknown`.

        A network gives a label to anything, a cat among metal parts included. Here the distance from what it has seen
        of the training images tells; the limit is set so that of new images of the usual kind only `false_alarms` are
        called unknown. What is learned lies in the export's folder and is found there by the next `Predictor`.

        Args:
            train: The rows that the model was trained on; 2,000 of them, evenly spaced, are looked at.
            val: Rows that it was not trained on, to set the limit; at least 1 / `false_alarms` of them.
            false_alarms: Share of usual images that may be called unknown, above 0 and below 1.

        Returns:
            One row: limit, false_alarms (to expect), low, high (95 % interval that so many images leave open), images.

        Raises:
            ValueError: If there are too few images, or `false_alarms` is no share.

        Source: Distance of normalised features to the k-th nearest training image (Sun et al. 2022, Out-of-distribution
            detection with deep nearest neighbors), the limit by split conformal prediction (Bates et al. 2023, Testing
            for outliers with conformal p-values).

        Example:
            >>> predictor.learn_unknown(train, val, false_alarms=0.01)  # doctest: +SKIP
            >>> predictor("cat.jpg").unknown  # doctest: +SKIP
            True
        """
        for name, table in (("train", train), ("val", val)):
            require_columns(table, "path", "label", caller=f"Predictor.learn_unknown({name})")
        places = np.unique(np.linspace(0, len(train) - 1, min(len(train), LEARNED)).round().astype(int))
        familiar = Familiar.of(self._table_features(train.iloc[places]))
        report = familiar.set_limit(familiar.distance(self._table_features(val)), false_alarms)
        familiar.write(self.folder / file_of_format(self.format), self._digest)
        self._familiar = familiar
        return report

    def _table_features(self, table: pd.DataFrame) -> np.ndarray:
        """Features (n, any) of the readable images of a table."""
        data = pipelines.load(table, image_size=self.image_size, batch_size=BATCH, resize=self.resize, cache=False)
        parts = [self.features(as_model_input(images, self.channels)) for images, _ in data.as_numpy_iterator()]
        return np.concatenate(parts)

    def _answers(self, images: np.ndarray) -> list[Prediction]:
        """One answer for each prepared image (n, height, width, channels)."""
        raw, features = self._engine(images)
        rows = self._calibrated(raw)
        if self._familiar is None:
            return [self._named(row, None) for row in rows]
        return [self._named(row, float(one)) for row, one in zip(rows, self._familiar.distance(features), strict=True)]

    def _named(self, row: np.ndarray, distance: float | None) -> Prediction:
        best = int(row.argmax())
        values = dict(zip(self.classes, row.tolist(), strict=True))
        return Prediction(
            self.classes[best], float(row[best]), values, distance, None if distance is None else distance > 1
        )

    def _calibrated(self, probabilities: np.ndarray) -> np.ndarray:
        if self.temperature == 1:
            return probabilities
        logits = np.log(np.maximum(probabilities.astype(float), TINY)) / self.temperature
        result = np.exp(logits - logits.max(axis=1, keepdims=True))
        return result / result.sum(axis=1, keepdims=True)


def as_model_input(pixels: np.ndarray, channels: int) -> np.ndarray:
    """uint8 RGB pixels as float32, averaged to grey where the model takes one channel."""
    result = pixels.astype(np.float32)
    return result.mean(axis=-1, keepdims=True) if channels == 1 else result


def as_pixels(image: Any) -> np.ndarray:
    """An array or a Pillow image as uint8 RGB (height, width, 3).

    Raises:
        TypeError: If it is neither.
        ValueError: If its shape is that of no image, or its values are not 0-255.
    """
    if isinstance(image, Image.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    if not isinstance(image, np.ndarray) and hasattr(image, "__array__"):
        image = np.asarray(image)  # a tensor
    if not isinstance(image, np.ndarray):
        raise TypeError(
            "A predictor expects a path, encoded bytes, a Pillow image, or an array (height, width, 3) of 0-255. "
            f"Received: {type(image).__name__}."
        )
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise ValueError(
            f"Expected an array (height, width, 3) or (height, width). Received the shape {image.shape}. Convert the "
            "image to RGB first."
        )
    if image.dtype != np.uint8:
        image = _as_bytes(image)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _as_bytes(image: np.ndarray) -> np.ndarray:
    if image.dtype.kind not in "iuf":
        raise TypeError(f"Expected an array of numbers 0-255. Received the dtype {image.dtype}.")
    if not np.isfinite(image).all() or image.min() < 0 or image.max() > 255:
        raise ValueError(f"Expected pixels 0-255. Received values from {image.min()} to {image.max()}.")
    if image.dtype.kind == "f" and image.size > 64 and 0 < image.max() <= 1:
        raise ValueError(
            "Expected pixels 0-255. Received values from 0 to 1: multiply by 255, the model rescales itself."
        )
    return np.rint(image).astype(np.uint8)


def read_about(folder: Path) -> dict[str, Any]:
    """What `export.json` says.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged or of another version.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"Expected a folder that `serving.export` wrote. {str(folder)!r} has no {ABOUT}. Export the model first."
        ) from error
    except ValueError as error:
        raise ValueError(f"{str(folder / ABOUT)!r} is damaged. Export the model again.") from error
    version = about.get("version") if isinstance(about, dict) else None
    if version is not None and version != VERSION:
        raise ValueError(
            f"{str(folder)!r} was exported by another version of cnnlab (format {version}; this one reads {VERSION}). "
            "Export the model again, or install that version."
        )
    if version is None or not _is_whole(about):
        raise ValueError(f"{str(folder / ABOUT)!r} is damaged. Export the model again.")
    return about


def _is_whole(about: dict[str, Any]) -> bool:
    """Whether a description holds what a predictor reads; it may have been edited by hand."""
    try:
        height, width = about["image_size"]
        classes, formats = about["classes"], about["formats"]
        return (
            all(isinstance(side, int) and side > 0 for side in (height, width, about["channels"]))
            and about["resize"] in RESIZES
            and isinstance(about["temperature"], int | float)
            and isinstance(classes, list)
            and all(isinstance(name, str) for name in classes)
            and bool(formats)
            and all(name in FILE_OF and isinstance(file["sha256"], str) for name, file in formats.items())
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return False

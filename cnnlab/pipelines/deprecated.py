"""What `cnnlab.images` does, under its names of version 0.1; they go with the next version."""

import os
import warnings
from typing import Any

import numpy as np

from cnnlab import images
from cnnlab.images.sizing import Resize


def _say(old: str, new: str) -> None:
    words = f"`pipelines.{old}` is `{new}` now; the old name goes with the next version."
    warnings.warn(words, DeprecationWarning, stacklevel=3)


def read_image(source: str | os.PathLike[str] | bytes, *, reduce: int = 1) -> np.ndarray:
    """`images.read`, by its old name."""
    _say("read_image", "images.read")
    return images.read(source, reduce=reduce)


def resize(image: np.ndarray, image_size: tuple[int, int], mode: Resize = "fit") -> np.ndarray:
    """`images.resize`, by its old name."""
    _say("resize", "images.resize")
    return images.resize(image, image_size, mode)


def prepare(source: Any, image_size: tuple[int, int], mode: Resize = "fit") -> np.ndarray:
    """`images.prepare`, of before there was `images.Preparation`."""
    _say("prepare", "images.prepare")
    return images.prepare(source, images.Preparation(image_size, resize=mode))

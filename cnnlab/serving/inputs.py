"""What a predictor is given and how it decides: one image or several, and the class that an image is called."""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from cnnlab._common import is_number

NAMED = 3  # unreadable images that a warning names
EXACT = 1e-5  # share by which formats may differ in a probability that equals the threshold


def as_list(image: Any) -> list[Any] | None:
    """The images of a list, a column, an iterator or an array of four axes; None where it is one image.

    >>> as_list("a.png"), as_list(["a.png", "b.png"]), as_list(np.array(["a.png"]))
    (None, ['a.png', 'b.png'], ['a.png'])
    """
    if isinstance(image, pd.DataFrame | Mapping | set | frozenset):
        raise TypeError(
            "A predictor expects an image, or several in an order: a list, or a column such as table['path']. "
            f"Received: {type(image).__name__}. For a table call `predictor.table(table)`."
        )
    if isinstance(image, str | bytes | bytearray | memoryview | os.PathLike | Image.Image) or hasattr(image, "read"):
        return None
    if hasattr(image, "__array__"):  # numpy, a tensor, a column
        array = np.asarray(image)
        if array.ndim == 1 and array.dtype.kind in "OUT":
            return array.tolist()
        return list(array) if array.ndim == 4 else None
    return list(image) if isinstance(image, Iterable) else None


def likeliest(probabilities: np.ndarray, classes: Sequence[str], threshold: Mapping[str, float]) -> np.ndarray:
    """Number of the class that each row is called: as `metrics.apply_threshold`, or the most probable one.

    >>> likeliest(np.array([[0.6, 0.4], [0.9, 0.1]]), ["good", "crack"], {"crack": 0.3}).tolist()
    [1, 0]
    """
    best = probabilities.argmax(axis=1)
    for name, least in threshold.items():
        place = list(classes).index(name)
        others = probabilities.copy()
        others[:, place] = -1
        best = np.where(probabilities[:, place] >= least * (1 - EXACT), place, others.argmax(axis=1))
    return best


def require_temperature(temperature: float) -> None:
    """Refuses a temperature that no calibration can have found."""
    if not 1e-5 <= temperature <= 1e5:
        raise ValueError(f"`temperature` expects a number above 0, such as 1.5. Received: {temperature}.")


def checked_threshold(threshold: Any, classes: Sequence[str]) -> dict[str, float]:
    """A class and its threshold as numbers, or none; a ValueError where it is something else."""
    if isinstance(threshold, Mapping) and len(threshold) <= 1 and {*map(str, threshold)} <= {*classes}:
        values = list(threshold.values())
        if all(is_number(one, most=1 + EXACT) or one == np.inf for one in values):  # inf: never called
            return {str(name): float(least) for name, least in threshold.items()}
    raise ValueError(
        f"`threshold` expects one class and its probability, such as {{{classes[-1]!r}: 0.3}}; the classes are "
        f"{', '.join(map(str, classes[:10]))}. Received: {threshold!r}."
    )


def warn_of_unreadable(problems: Sequence[str], *, stacklevel: int) -> None:
    """Names the images that have no answer."""
    broken = [f"number {place}: {problem}" for place, problem in enumerate(problems) if problem]
    if broken:
        more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        warnings.warn(
            f"{len(broken)} of {len(problems)} images could not be read and have no answer: "
            f"{'; '.join(broken[:NAMED])}{more}",
            UserWarning,
            stacklevel=stacklevel,
        )

"""Is 90 % certain right nine times in ten? Reliability, and the temperature that fixes it."""

import warnings

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from cnnlab._answers import TINY, scaled_by_temperature
from cnnlab._common import is_whole
from cnnlab.metrics import intervals
from cnnlab.metrics.formulas import BINS, bin_of, divide
from cnnlab.metrics.predictions import known_probabilities, outcome, required_probability, scored


def reliability(predictions: pd.DataFrame, *, bins: int = BINS) -> pd.DataFrame:
    """Sets confidence against what came true: of the images called with about 0.9, how many were right?

    Args:
        predictions: A table with label, predicted and confidence.
        bins: Equally wide parts of 0 to 1.

    Returns:
        One row per bin that has images: left, right (its edges), confidence and accuracy (means of its images), low,
        high (Wilson's 95 % interval of the accuracy), images.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["cat", "dog"] * 10)
        >>> wrong = ["dog"] + list(label[1:])
        >>> table = pd.DataFrame({"label": label, "predicted": wrong, "confidence": 0.97})
        >>> metrics.reliability(table, bins=10).round(2)
           left  right  confidence  accuracy   low  high  images
        0   0.9    1.0        0.97      0.95  0.76  0.99      20
    """
    if not is_whole(bins):
        raise ValueError(f"`bins` expects a whole number from 1 up. Received: bins={bins!r}.")
    table = scored(predictions, "confidence", caller="metrics.reliability")
    seen = outcome(table, caller="metrics.reliability")
    confidence = np.asarray(seen.confidence)
    place = bin_of(confidence, bins)
    images = np.bincount(place, minlength=bins)
    accuracy = divide(np.bincount(place, seen.true == seen.predicted, bins), images, np.nan)
    low, high = intervals.wilson(accuracy, images)
    edges = np.linspace(0, 1, bins + 1)
    found: dict[str, np.ndarray] = {"left": edges[:-1], "right": edges[1:]}
    found["confidence"] = divide(np.bincount(place, confidence, bins), images, np.nan)
    found |= {"accuracy": accuracy, "low": low, "high": high, "images": images}
    return pd.DataFrame(found)[images > 0].reset_index(drop=True)


def temperature(validation: pd.DataFrame) -> float:
    """Finds by how much a model is too sure of itself: divide its logits by this number, and confidence becomes honest.

    Above 1 the model was too sure, below 1 not sure enough. Classes keep their order in every row, so that accuracy
    stays what it was.

    Args:
        validation: Predictions with p_<class> for images that were used neither for training nor for the final score.

    Returns:
        The temperature; 1.0, with a warning, where the model made no mistake and nothing can be learned.

    Raises:
        ValueError: If the table has no probabilities.

    Source: Guo et al. (2017), On calibration of modern neural networks: the number with the least log loss.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["cat"] * 7 + ["dog"] * 3)
        >>> table = pd.DataFrame({"label": label, "predicted": "cat", "p_cat": 0.99, "p_dog": 0.01})
        >>> round(metrics.temperature(table), 1)
        5.4
    """
    seen = outcome(scored(validation, caller="metrics.temperature"), caller="metrics.temperature")
    chance = required_probability(seen.probability, caller="metrics.temperature")
    rows, rest = np.arange(len(seen)), chance.copy()
    rest[rows, seen.true] = -1
    if (chance[rows, seen.true] > rest.max(axis=1)).all():
        warnings.warn(
            f"The model made no mistake on the {len(seen)} images given, so that its temperature cannot be told and "
            "stays 1. Use more images.",
            UserWarning,
            stacklevel=2,
        )
        return 1.0
    logits = np.log(np.maximum(chance, TINY))

    def loss(power: float) -> float:
        return -float(log_softmax(logits / np.exp(power), axis=1)[rows, seen.true].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-7, 7), method="bounded", options={"xatol": 1e-6}).x))


def calibrate(predictions: pd.DataFrame, *, on: pd.DataFrame | float) -> pd.DataFrame:
    """Gives predictions the confidence that they deserve, learned on other images.

    Args:
        predictions: A table with p_<class>, labelled or not.
        on: Predictions of the validation images, from which `temperature` is learned; or that number.

    Returns:
        A copy with new p_<class> and confidence; `predicted` stays as it is.

    Raises:
        ValueError: If the temperature is not above 0, or a table has no probabilities.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["cat", "dog"])
        >>> table = pd.DataFrame({"label": label, "predicted": label, "p_cat": [0.9, 0.2], "p_dog": [0.1, 0.8]})
        >>> metrics.calibrate(table, on=2.0)[["p_cat", "p_dog"]].round(2).to_numpy().tolist()
        [[0.75, 0.25], [0.33, 0.67]]
    """
    factor = temperature(on) if isinstance(on, pd.DataFrame) else float(on)
    if not 0 < factor < np.inf:
        raise ValueError(f"`on` expects a table of predictions or a temperature above 0. Received: on={on}.")
    classes, matrix, _ = known_probabilities(predictions, caller="metrics.calibrate")
    matrix = scaled_by_temperature(matrix, factor)
    table = predictions.assign(**{f"p_{name}": matrix[:, place] for place, name in enumerate(classes)})
    if "predicted" in table:
        place = classes.get_indexer(pd.Index(table["predicted"].astype(object)))
        table["confidence"] = np.where(place >= 0, matrix[np.arange(len(table)), place], np.nan)
    return table

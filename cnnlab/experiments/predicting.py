"""A model and a table to a table of predictions."""

import warnings
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import models, pipelines
from cnnlab._common import require_columns
from cnnlab.pipelines.reading import Resize


def predict(model: keras.Model, table: pd.DataFrame, *, batch_size: int = 64, resize: Resize = "fit") -> pd.DataFrame:
    """Predicts every image of a table; everything in `metrics` and `plots` starts from what this returns.

    Args:
        model: Carries its class names, as those of `cnnlab.models` do.
        table: With the columns path and label; the order of its rows is kept.
        batch_size: Images at a time.
        resize: How images are brought to the model's size, as in `pipelines.load`.

    Returns:
        A copy with predicted (Categorical in the label's categories), confidence (probability of the predicted class,
        0-1) and `p_<class>` for every class. Unreadable images keep their row, with these columns missing.

    Raises:
        ValueError: If the table's classes are not the model's.

    Warns:
        UserWarning: If images could not be read.

    Example:
        >>> import tempfile
        >>> from cnnlab import experiments, models, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     model = models.small_cnn(image_size=(32, 32), classes=table["label"].cat.categories, filters=(4,))
        ...     predictions = experiments.predict(model, table)
        >>> predictions.columns[-6:].tolist()
        ['p_crack', 'p_good', 'p_inclusion', 'p_pit', 'p_scratch', 'p_stain']
    """
    require_columns(table, "path", "label", caller="experiments.predict")
    names = models.class_names(model)
    categories = [str(name) for name in table["label"].cat.categories]
    if categories != names:
        raise ValueError(
            f"`experiments.predict` expects a table with the model's classes, in the model's order: {names}. Received "
            f"{categories}. Use `table['label'].cat.set_categories([...])`, or train a model for these classes."
        )
    return with_probabilities(table, answers(model, table, batch_size=batch_size, resize=resize))


def answers(model: keras.Model, table: pd.DataFrame, *, batch_size: int = 64, resize: Resize = "fit") -> np.ndarray:
    """Probabilities of shape (rows, classes) in the order of the table; not a number where an image cannot be read.

    Warns:
        UserWarning: If images could not be read.
    """
    size = tuple(model.input_shape[1:3])
    probabilities = np.full((len(table), model.output_shape[-1]), np.nan, np.float32)
    rows = np.arange(len(table))
    while len(rows):
        data = pipelines.load(table.iloc[rows], image_size=size, batch_size=batch_size, resize=resize, cache=False)
        found = model.predict(data, verbose=0)
        broken = set(pipelines.broken(data)["path"])
        if not broken:
            probabilities[rows] = found
            break
        # Broken files shift the rows of their batches: leave them out and look once more.
        rows = rows[~table["path"].iloc[rows].isin(broken).to_numpy()]
    if len(rows) < len(table):
        warnings.warn(
            f"{len(table) - len(rows)} of {len(table)} images could not be read and have no prediction; "
            "`audit.scan` says what is wrong with them.",
            stacklevel=3,
        )
    return probabilities


def with_probabilities(table: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """A prediction table: `table` with the columns that follow from probabilities (rows, classes) of 0-1.

    Rows without probabilities (not a number) get no prediction.
    """
    categories = table["label"].cat.categories
    known = ~np.isnan(probabilities).any(axis=1)
    best = np.where(known, np.nan_to_num(probabilities).argmax(axis=1), -1)
    columns: dict[str, Any] = {
        "predicted": pd.Categorical.from_codes(best, categories=categories),
        "confidence": np.where(known, np.nan_to_num(probabilities).max(axis=1), np.nan).astype(float),
    }
    chance = pd.DataFrame(probabilities.astype(float), table.index, [f"p_{name}" for name in categories])
    plain = table.drop(columns=[*columns, *chance], errors="ignore").assign(**columns)
    return pd.concat([plain, chance], axis=1)  # column by column, pandas warns from a hundred classes on

"""A model and a table to a table of predictions."""

import warnings
from dataclasses import replace

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import models, pipelines
from cnnlab._answers import with_probabilities
from cnnlab._common import require_columns
from cnnlab.images import Preparation
from cnnlab.images.sizing import Resize
from cnnlab.models.naming import output_count


def predict(
    model: keras.Model, table: pd.DataFrame, *, batch_size: int = 64, resize: Resize | None = None
) -> pd.DataFrame:
    """Predicts every image of a table; everything in `metrics` and `plots` starts from what this returns.

    Images are prepared as the model says (`models.preparation`): size, channels, resize mode and levels.

    Args:
        model: Carries its class names, as those of `cnnlab.models` do and `models.with_classes` makes any; one without
            names takes those of the table.
        table: With the column path; the order of its rows is kept. Labels may be there or not.
        batch_size: Images at a time.
        resize: Another resize mode than the model's, for a trial.

    Returns:
        A copy with predicted (Categorical in the label's categories), confidence (probability of the predicted class,
        0-1) and `p_<class>` for every class. Unreadable images keep their row, with these columns missing.

    Raises:
        ValueError: If the table's classes are not the model's, or the model does not return probabilities.

    Warns:
        UserWarning: If images could not be read, or the training images were prepared otherwise.

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
    require_columns(table, "path", *(["label"] if "label" in table else []), caller="experiments.predict")
    categories = [str(name) for name in table["label"].cat.categories] if "label" in table else None
    names = models.ensure_classes(model, categories, caller="experiments.predict")
    if categories not in (None, names):
        raise ValueError(
            f"`experiments.predict` expects a table with the model's classes, in the model's order: {names}. Received "
            f"{categories}. Use `table['label'].cat.set_categories([...])`, or train a model for these classes."
        )
    said = pipelines.prepared_otherwise(names, models.preparation(model))
    if said and resize is None:
        warnings.warn(said, stacklevel=2)
    found, read = answers(model, table, batch_size=batch_size, resize=resize)
    lost = int(np.isnan(found[read]).any(axis=1).sum())
    if lost:
        warnings.warn(
            f"{lost} of {len(table)} images have no prediction, because {model.name!r} answers them with NaN: its "
            "weights are no numbers, or what it makes of these images. Train it anew, with a lower learning rate.",
            stacklevel=2,
        )
    return with_probabilities(table, found, None if "label" in table else names)


def answers(
    model: keras.Model,
    table: pd.DataFrame,
    *,
    batch_size: int = 64,
    resize: Resize | None = None,
    prepared: Preparation | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of shape (rows, classes) in the order of the table, and which of the images could be read.

    Warns:
        UserWarning: If images could not be read.
    """
    prepared = prepared or models.preparation(model)
    if resize is not None:
        prepared = replace(prepared, resize=resize)
    unlabelled = table.assign(label=pd.Categorical(["any"] * len(table)))
    data = pipelines.load(unlabelled, like=prepared, batch_size=batch_size, cache=False)
    rows = np.array([], dtype=np.int64)
    probabilities = np.full((len(table), max(2, output_count(model, prepared))), np.nan, np.float32)
    read = np.zeros(len(table), bool)
    try:
        found = models.class_probabilities(model, model.predict(data, verbose=0))
    except Exception:
        if len(pipelines.broken(data)) < len(table):  # not one that can be read: the rows stay empty, as any would
            raise
    else:
        rows = pipelines.delivered(data)
        probabilities[rows[rows >= 0]] = found[rows >= 0]
        read[rows[rows >= 0]] = True
    broken = int((~read).sum())
    if broken:
        warnings.warn(
            f"{broken} of {len(table)} images could not be read and have no prediction; "
            "`audit.scan` says what is wrong with them.",
            stacklevel=3,
        )
    return probabilities, read

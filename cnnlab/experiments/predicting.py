"""A model and a table to a table of predictions, of the images as they are or of several views of each."""

import warnings
from dataclasses import replace

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import augment, models, pipelines
from cnnlab._answers import with_probabilities
from cnnlab._common import progress, require_columns
from cnnlab.images import Preparation
from cnnlab.images.colours import luma
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
    categories = table["label"].cat.categories if "label" in table else None
    names = models.ensure_classes(model, categories, caller="experiments.predict")
    said = pipelines.prepared_otherwise(names, models.preparation(model))
    if said and resize is None:
        warnings.warn(said, stacklevel=2)
    prepared = models.preparation(model)
    prepared = prepared if resize is None else replace(prepared, resize=resize)
    found, read = probabilities_of(model, table, prepared, batch_size=batch_size)
    lost = int(np.isnan(found[read]).any(axis=1).sum())
    if lost:
        warnings.warn(
            f"{lost} of {len(table)} images have no prediction, because {model.name!r} answers them with NaN: its "
            "weights are NaN, or become so for these images. Train it again, with a lower learning rate.",
            stacklevel=2,
        )
    return with_probabilities(table, found, None if "label" in table else names)


def predict_augmented(
    model: keras.Model,
    table: pd.DataFrame,
    policy: augment.Policy,
    *,
    views: int = 8,
    seed: int = 0,
    batch_size: int = 64,
    resize: Resize | None = None,
) -> pd.DataFrame:
    """Predicts every image of a table from the untouched image and several augmented views of it.

    Costs `views` + 1 times as much as `experiments.predict`, and often gains what a somewhat larger network would. Use
    a policy no stronger than the one of the training, and decide on validation images whether it pays.

    Args:
        model: Carries its class names, as those of `cnnlab.models` do.
        table: With the column path; the order of its rows is kept.
        policy: What may happen to an image; operations that mix images have no meaning here.
        views: Augmented views of each image, 1 or more.
        seed: Decides the views.
        batch_size: Images at a time.
        resize: Another resize mode than the model's, for a trial.

    Returns:
        A prediction table, as `experiments.predict` gives.

    Raises:
        ValueError: If the table's classes are not the model's, `views` is below 1, or the policy mixes images.

    Example:
        >>> import tempfile
        >>> from cnnlab import augment, experiments, models, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     model = models.small_cnn(image_size=(32, 32), classes=table["label"].cat.categories, filters=(4,))
        ...     seen = experiments.predict_augmented(model, table, augment.Policy(flip="both"), views=2)
        >>> bool(seen["confidence"].between(0, 1).all())
        True
    """
    if not isinstance(policy, augment.Policy) or views < 1 or policy.mixes:
        raise ValueError(
            "`experiments.predict_augmented` expects `views` of 1 or more and an augment.Policy without `mixup` and "
            f"`cutmix`. Received: views={views}, {policy!r}."
        )
    plain = predict(model, table, batch_size=batch_size, resize=resize)
    prepared = models.preparation(model)
    colour = replace(prepared, channels=3, resize=resize or prepared.resize)  # in which policies work
    columns = [f"p_{name}" for name in models.class_names(model)]
    readable = np.flatnonzero(plain["predicted"].notna().to_numpy())
    total = plain[columns].to_numpy(np.float64, copy=True)
    rows = table.iloc[readable]
    if len(rows):
        rows = rows.assign(label=pd.Categorical(["any"] * len(rows)))
        data = pipelines.load(rows, like=colour, batch_size=batch_size, cache=False)
        place = 0
        for images, _ in progress(data.as_numpy_iterator(), label="views", total=len(data), unit="batch"):
            here = readable[place : place + len(images)]
            for view in range(views):
                changed = policy.apply(images, policy.sample(here, seed=seed, epoch=view))
                changed = luma(changed) if prepared.channels == 1 else changed
                total[here] += models.class_probabilities(model, model.predict_on_batch(changed))
            place += len(images)
    found = (total / (views + 1)).astype(np.float32)
    return with_probabilities(table, found, None if "label" in table else models.class_names(model))


def probabilities_of(
    model: keras.Model, table: pd.DataFrame, prepared: Preparation, *, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (rows, classes), and which images could be read; of the others, with a warning, not a number."""
    outputs, read = outputs_by_row(model, table, prepared, (output_count(model, prepared),), batch_size=batch_size)
    broken = int((~read).sum())
    if broken:
        warnings.warn(
            f"{broken} of {len(table)} images could not be read and have no prediction; "
            "`audit.scan` says what is wrong with them.",
            stacklevel=3,
        )
    return models.class_probabilities(model, outputs), read


def outputs_by_row(
    model: keras.Model,
    table: pd.DataFrame,
    prepared: Preparation,
    shape: tuple[int, ...],
    *,
    batch_size: int,
    verbose: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """What a network returns for each row, float32 (rows, *shape), and which could be read; else not a number."""
    unlabelled = table.assign(label=pd.Categorical(["any"] * len(table)))
    data = pipelines.load(unlabelled, like=prepared, batch_size=batch_size, cache=False)
    result, read = np.full((len(table), *shape), np.nan, np.float32), np.zeros(len(table), bool)
    steps = model.steps_per_execution
    if keras.backend.backend() == "tensorflow":  # which traces one step after the other where several are asked for
        model.make_predict_function()
        model.steps_per_execution = 1
    try:
        outputs = model.predict(data, verbose=int(verbose))
    except Exception:
        if len(pipelines.broken(data)) < len(table):
            raise
        return result, read  # not one can be
    finally:
        model.steps_per_execution = steps
    rows = pipelines.delivered(data)
    result[rows[rows >= 0]], read[rows[rows >= 0]] = outputs[rows >= 0], True
    return result, read

"""k-fold cross-validation: every image is predicted once by a network that has never seen it."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import tables
from cnnlab._common import progress
from cnnlab.experiments.runner import Runner, build_facts, experiment_facts, plain_table, require_counts
from cnnlab.experiments.store import Store, owned
from cnnlab.experiments.training_run import Recipe, TrainingRun, rows_of_fold
from cnnlab.tables.linking import Group


class Validation(NamedTuple):
    """What cross-validation gives: three tables.

    Attributes:
        scores: One row per repeat and fold: accuracy on the held-out rows, images, epochs trained, seconds, problem
            ("" or why there is no score).
        histories: One row per repeat, fold and epoch.
        predictions: One row per repeat and image, predicted by the network that did not see it; a prediction table.
    """

    scores: pd.DataFrame
    histories: pd.DataFrame
    predictions: pd.DataFrame


def cross_validate(
    build: Callable[..., keras.Model],
    table: pd.DataFrame,
    *,
    folds: int = 5,
    image_size: tuple[int, int],
    epochs: int,
    seed: int,
    group: Group = None,
    repeats: int = 1,
    patience: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    fit: Callable[..., Any] | None = None,
    callbacks: Any = None,
    class_weight: Any = None,
    **loading: Any,
) -> Validation:
    """Trains a fresh model for each fold and predicts the images that were held out of it.

    Stratified by class and grouped where `group` is given. With `patience`, training stops early by rows from inside
    the training part, never by the fold that is scored. With `folder`, an interrupted call continues with the fold it
    was in when it is made again; what was computed with another network, other settings or other images is refused.
    Where the model's backbone is frozen and pixels are not augmented, features are computed once, kept on disk, and
    the heads of all folds are trained on them.

    Args:
        build: Returns a new, compiled model.
        table: With the columns path and label; a column `split` is not looked at.
        folds: How many, 2 or more.
        image_size: Height and width in pixels.
        epochs: At most so many.
        seed: Decides folds, initial weights, order and augmentation.
        group: A column whose equal values stay in one fold, or several, as in `tables.linked_groups`: None uses the
            column group where there is one, False none.
        repeats: How often the folds are assigned anew.
        patience: Epochs without improvement before a fold stops and goes back to its best weights; None: all epochs.
        folder: Where finished folds are kept; in memory only where None.
        fit: Called in place of the model's own `fit`, with the model first and the same arguments.
        callbacks: Keras callbacks, copied for each fold, or a function that makes new ones.
        class_weight: As in `model.fit`, by class number or name; "balanced" for `tables.class_weights` of each fold.
        **loading: Passed on to `pipelines.load`: batch_size, augment, balance, resize, cache.

    Returns:
        scores, histories and predictions, each a DataFrame.

    Raises:
        ValueError: If a class is smaller than the number of folds.
            Or if `build` returns layers that an earlier fold has trained.
        TypeError: If `build` does not return a compiled model.
        FileExistsError: If the folder holds an experiment with other settings, in words that name them.
        TimeoutError: If another process works in the folder.

    Example:
        >>> validation = cross_validate(build, table, image_size=(64, 64), epochs=10, seed=0)  # doctest: +SKIP
        >>> validation.scores["accuracy"].mean()  # doctest: +SKIP
    """
    require_counts(epochs=epochs, repeats=repeats)
    rows = plain_table(table, caller="experiments.cross_validate")
    assigned = [tables.folds(rows, count=folds, group=group, seed=seed + repeat) for repeat in range(repeats)]
    recipe = Recipe(epochs, patience, fit, callbacks, class_weight, loading={"image_size": tuple(image_size)} | loading)
    settings = experiment_facts(rows, recipe, group=group, folds=folds, seed=seed)
    if folder is not None:
        settings |= build_facts(build, seed)
    runs = {}
    for repeat, table_with_folds in enumerate(assigned):
        for fold in range(folds):
            place = seed + 1000 * repeat + fold
            parts = rows_of_fold(table_with_folds, fold, seed=place, group=group, patience=patience)
            runs[repeat, fold] = TrainingRun(f"repeat_{repeat}_fold_{fold}", build, parts, place, recipe)
    with owned(folder):
        found = Runner(rows, Store(folder, settings)).results(list(runs.values()))
        watched = progress(found, label="cross-validation", total=len(runs), unit="fold")
        results = [
            {key: part.assign(repeat=repeat, fold=fold) for key, part in result.items()}
            for (repeat, fold), result in zip(runs, watched, strict=True)
        ]
    scores, histories, predictions = (
        pd.concat([result[key] for result in results], ignore_index=True)
        for key in ("scores", "history", "predictions")
    )
    row = np.concatenate([run.rows.test.index for run in runs.values()])
    if len(predictions) != len(row):
        raise ValueError(
            f"Expected {len(row)} predictions in {str(folder)!r}. Received {len(predictions)}: its results are "
            "damaged. Move the folder away and call again: they are computed anew."
        )
    predictions = predictions.iloc[np.lexsort((row, predictions["repeat"].to_numpy()))].reset_index(drop=True)
    front = ["repeat", "fold"]
    return Validation(
        scores[front + [column for column in scores if column not in front]],
        histories[front + [column for column in histories if column not in front]],
        predictions,
    )

"""k-fold cross-validation: every image is predicted once by a network that has never seen it."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab import tables
from cnnlab._common import progress, require_columns
from cnnlab.experiments.fitting import Embeddings, Job, compiled, deal, run_fold, run_together
from cnnlab.experiments.store import Store


class Validation(NamedTuple):
    """What cross-validation gives: three tables.

    Attributes:
        scores: One row per repeat and fold: accuracy on the held-out rows, images, epochs trained, seconds.
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
    group: str | None = None,
    repeats: int = 1,
    patience: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    fit: Callable[..., Any] | None = None,
    **loading: Any,
) -> Validation:
    """Trains a fresh model for each fold and predicts the images that were held out of it.

    Stratified by class and grouped where `group` is given. With `patience`, training stops early by rows from inside
    the training part, never by the fold that is scored. With `folder`, an interrupted call continues with the fold it
    was in when it is made again. Where the model's backbone is frozen and pixels are not augmented, features are
    computed once, kept on disk, and the heads of all folds are trained on them as one program.

    Args:
        build: Returns a new, compiled model.
        table: With the columns path and label; a column `split` is not looked at.
        folds: How many, 2 or more.
        image_size: Height and width in pixels.
        epochs: At most so many.
        seed: Decides folds, initial weights, order and augmentation.
        group: A column whose equal values stay in one fold.
        repeats: How often all folds are dealt anew.
        patience: Epochs without improvement before a fold stops and goes back to its best weights; None: all epochs.
        folder: Where finished folds are kept; in memory only where None.
        fit: Called in place of the model's own `fit`, with the model first and the same arguments.
        **loading: Passed on to `pipelines.load`: batch_size, augment, balance, resize, cache.

    Returns:
        scores, histories and predictions, each a DataFrame.

    Raises:
        ValueError: If a class is smaller than the number of folds.
        TypeError: If `build` does not return a compiled model.
        FileExistsError: If the folder holds an experiment with other settings.

    Example:
        >>> validation = cross_validate(build, table, image_size=(64, 64), epochs=10, seed=0)  # doctest: +SKIP
        >>> validation.scores["accuracy"].mean()  # doctest: +SKIP
    """
    require_columns(table, "path", "label", caller="experiments.cross_validate")
    if epochs < 1 or repeats < 1:
        raise ValueError(f"`epochs` and `repeats` expect 1 or more. Received: epochs={epochs}, repeats={repeats}.")
    plain = table.drop(columns=["split", "fold"], errors="ignore").reset_index(drop=True)
    dealt = [tables.folds(plain, count=folds, group=group, seed=seed + repeat) for repeat in range(repeats)]
    recipe = {"image_size": tuple(image_size), "epochs": epochs, "patience": patience, "seed": seed} | loading
    facts = ["path", "label", *([group] if group else [])]
    store = Store(folder, recipe | {"table": plain[facts], "folds": folds, "group": group})
    embeddings = Embeddings(plain)
    results = []
    for repeat in progress(range(repeats), label="cross-validation", unit="repeat"):
        names = {fold: f"repeat_{repeat}_fold_{fold}" for fold in range(folds)}
        first = seed + 1000 * repeat
        missing = {
            fold: deal(dealt[repeat], fold, seed=first + fold, group=group, patience=patience)
            for fold, name in names.items()
            if store.get(name) is None
        }
        if missing:
            job = Job(compiled(build), missing, recipe, first)
            together = {} if fit is not None else run_together({repeat: job}, embeddings)
            for fold, rows in progress(missing.items(), label=f"repeat {repeat + 1}", unit="fold"):
                if repeat in together:
                    found, _ = together[repeat][fold]
                else:
                    found = run_fold(
                        build, rows, seed=first + fold, recipe=recipe, fit=fit, embeddings=embeddings
                    ).tables
                store.put(names[fold], found)
        for fold, name in names.items():
            found = store.get(name) or {}
            results.append({key: part.assign(repeat=repeat, fold=fold) for key, part in found.items()})
    scores, histories, predictions = (
        pd.concat([result[key] for result in results], ignore_index=True)
        for key in ("scores", "history", "predictions")
    )
    order = {path: index for index, path in enumerate(plain["path"])}
    predictions = predictions.sort_values(
        ["repeat", "path"], key=lambda column: column.map(order) if column.name == "path" else column, ignore_index=True
    )
    front = ["repeat", "fold"]
    return Validation(
        scores[front + [column for column in scores if column not in front]],
        histories[front + [column for column in histories if column not in front]],
        predictions,
    )

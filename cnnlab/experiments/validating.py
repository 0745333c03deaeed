"""k-fold cross-validation: every image is predicted once by a network that has never seen it."""

import inspect
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab import pipelines, tables
from cnnlab._common import progress, require_columns
from cnnlab.experiments.predicting import predict
from cnnlab.experiments.store import Store

INNER_SHARE = 0.15  # of a fold's training rows, for early stopping


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
    **loading: Any,
) -> Validation:
    """Trains a fresh model for each fold and predicts the images that were held out of it.

    Stratified by class and grouped where `group` is given. With `patience`, training stops early by rows from inside
    the training part, never by the fold that is scored. With `folder`, an interrupted call continues with the fold it
    was in when it is made again.

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
    pieces = [(repeat, fold) for repeat in range(repeats) for fold in range(folds)]
    results = []
    for repeat, fold in progress(pieces, label="cross-validation", unit="fold"):
        name = f"repeat_{repeat}_fold_{fold}"
        found = store.get(name)
        if found is None:
            held_out = dealt[repeat]["fold"] == fold
            parts = [dealt[repeat][~held_out], dealt[repeat][held_out]]
            found = run_fold(build, *parts, seed=seed + 1000 * repeat + fold, group=group, recipe=recipe)
            store.put(name, found)
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


def run_fold(
    build: Callable[..., keras.Model],
    training_rows: pd.DataFrame,
    held_out: pd.DataFrame,
    *,
    seed: int,
    group: str | None,
    recipe: dict[str, Any],
) -> dict[str, pd.DataFrame]:
    """Trains one model on `training_rows` and predicts `held_out`; the same seed gives the same result on a CPU.

    Returns:
        Tables scores (one row), history (one row per epoch) and predictions.
    """
    loading = {key: value for key, value in recipe.items() if key not in ("epochs", "patience", "seed")}
    resize = {key: loading[key] for key in ("resize",) if key in loading}
    watching = {key: value for key, value in loading.items() if key in ("image_size", "batch_size", "resize")}
    validation, callbacks = None, []
    if recipe["patience"] is not None:
        inner = tables.split(training_rows, val=INNER_SHARE, test=0.0, group=group, seed=seed)
        training_rows, watched = inner[inner["split"] == "train"], inner[inner["split"] == "val"]
        validation = pipelines.load(watched, **watching)
        callbacks = [keras.callbacks.EarlyStopping(patience=recipe["patience"], restore_best_weights=True)]
    began = time.perf_counter()
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = compiled(build)
    data = pipelines.load(training_rows, training=True, seed=seed, **loading)
    history = model.fit(data, validation_data=validation, epochs=recipe["epochs"], callbacks=callbacks, verbose=0)
    predictions = predict(model, held_out, **resize).drop(columns=["split", "fold"], errors="ignore")
    known = predictions["predicted"].notna()
    right = predictions.loc[known, "label"].astype(str) == predictions.loc[known, "predicted"].astype(str)
    score = {
        "accuracy": float(right.mean()),
        "images": int(known.sum()),
        "epochs": len(history.epoch),
        "seconds": round(time.perf_counter() - began, 3),
    }
    return {
        "scores": pd.DataFrame([score]),
        "history": pd.DataFrame({"epoch": history.epoch} | history.history),
        "predictions": predictions,
    }


def compiled(build: Callable[..., keras.Model], *arguments: Any) -> keras.Model:
    """Calls `build` and checks what comes back.

    Raises:
        TypeError: If it is no compiled Keras model.
    """
    if not callable(build):
        raise TypeError(f"`build` expects a function that returns a compiled model. Received: {type(build).__name__}.")
    takes = [p for p in inspect.signature(build).parameters.values() if p.default is p.empty and p.kind not in (2, 4)]
    model = build(*arguments[: len(takes)])
    if not isinstance(model, keras.Model):
        raise TypeError(f"`build` expects to return a keras.Model. It returned: {type(model).__name__}.")
    if not model.compiled:
        raise TypeError(
            "`build` expects to return a compiled model. It returned one that is not: end it with "
            "`return training.compile(model)` or `model.compile(…)`."
        )
    return model

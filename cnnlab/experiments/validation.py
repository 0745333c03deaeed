"""How well a network does on images that it has not seen: k-fold cross-validation, and the learning curve."""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import metrics, tables
from cnnlab.experiments.runner import checked_rows, experiment_facts, fold_runs, joined, run_all
from cnnlab.experiments.store import Tables
from cnnlab.experiments.training_run import Recipe, Rows, TrainingRun, train_val_rows
from cnnlab.tables.linking import Group

VAL_SHARE = 0.25  # of the images, where the table of a learning curve is not divided
SCORES = ("accuracy", "balanced_accuracy", "macro_f1")


class Validation(NamedTuple):
    """What cross-validation gives: three tables.

    Attributes:
        scores: One row per repeat and fold: accuracy on the held-out rows, images, epochs trained, seconds, problem
            ("" or why there is no score).
        histories: One row per repeat, fold and epoch.
        predictions: One row per repeat and image, predicted by the network that did not see it; a prediction table. Its
            index is the table's; counted from 0 where there are several repeats.
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
        fit: Called instead of the model's own `fit`, with the model first and the same arguments.
        callbacks: Keras callbacks, copied for each fold, or a function that makes new ones.
        class_weight: As in `model.fit`, by class number or name (of classes that are numbers, by name); "balanced" for
            `tables.class_weights` of each fold.
        **loading: Passed on to `pipelines.load`: batch_size, augment, balance, resize, cache.

    Returns:
        scores, histories and predictions, each a DataFrame.

    Raises:
        ValueError: If a class is smaller than the number of folds.
            Or if `build` returns layers that an earlier fold has trained.
        TypeError: If `build` does not return a compiled model, or `seed` is not a whole number from 0.
        FileExistsError: If the folder holds an experiment with other settings, in words that name them.
        TimeoutError: If another process works in the folder.

    Example:
        >>> validation = cross_validate(build, table, image_size=(64, 64), epochs=10, seed=0)  # doctest: +SKIP
        >>> validation.scores["accuracy"].mean()  # doctest: +SKIP
    """
    rows = checked_rows(table, caller="experiments.cross_validate", seed=seed, epochs=epochs, repeats=repeats)
    recipe = Recipe(epochs, patience, fit, callbacks, class_weight, loading={"image_size": tuple(image_size)} | loading)
    runs = fold_runs(build, rows, recipe, folds=folds, repeats=repeats, seed=seed, group=group)
    settings = experiment_facts(rows, recipe, group=group, folder=folder, folds=folds, seed=seed, build=build)
    results = run_all(list(runs.values()), rows, folder, settings, label="cross-validation", unit="fold")
    found, first = joined(runs, results), ["repeat", "fold"]
    scores, histories = (found[key][first + list(found[key].columns.drop(first))] for key in ("scores", "history"))
    predictions = found["predictions"].set_axis(table.index) if repeats == 1 else found["predictions"]
    return Validation(scores, histories, predictions)


def learning_curve(
    build: Callable[..., keras.Model],
    table: pd.DataFrame,
    *,
    sizes: Sequence[float] = (0.1, 0.2, 0.4, 0.7, 1.0),
    image_size: tuple[int, int],
    epochs: int,
    seed: int,
    repeats: int = 3,
    group: Group = None,
    patience: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    **loading: Any,
) -> pd.DataFrame:
    """Trains on more and more of the training images, and scores each network on the same held-out images.

    Each larger part contains the smaller ones and keeps the classes' shares, so that what changes is the number of
    images alone. Rows of the split `val` are held out where the table is split, and those of `test` are not touched;
    else a quarter of all images is held out. Few images mean few steps: give enough `epochs` that the smallest part is
    learned, too.

    Args:
        build: Returns a new, compiled model.
        table: With the columns path and label; with `split` or without.
        sizes: Numbers from 0 to 1 are shares of the training images, whole numbers from 2 up are images.
        image_size: Height and width in pixels.
        epochs: At most so many.
        seed: Decides which images come first, initial weights, order and augmentation.
        repeats: How often each size is trained, each time on other images in another order.
        group: A column whose equal values stay together, among the held out as among the parts; or several, as in
            `tables.linked_groups`.
        patience: Epochs without improvement, on rows from inside the part, before a run stops; None: all epochs.
        folder: Where finished runs are kept, so that a later call continues, or adds sizes; in memory only where None.
        **loading: Passed on to `pipelines.load`: batch_size, augment, balance, resize, cache.

    Returns:
        Two rows per size and repeat, one for each part ("training": the images learned from; "held out"): images
        (learned from), repeat, part, scored (images), accuracy, balanced_accuracy, macro_f1, epochs, seconds.
        `plots.learning_curve` draws it.

    Raises:
        ValueError: If a size is out of range, or too small to have each class once.
        TypeError: If `build` does not return a compiled model, or `seed` is not a whole number from 0.
        FileExistsError: If the folder holds an experiment with other settings.

    Example:
        >>> curve = learning_curve(build, table, image_size=(64, 64), epochs=10, seed=0)  # doctest: +SKIP
        >>> plots.learning_curve(curve, metric="macro_f1")  # doctest: +SKIP
    """
    checked_rows(table, caller="experiments.learning_curve", seed=seed, epochs=epochs, repeats=repeats)
    training, val = _training_and_val(table, group, seed)
    recipe = Recipe(epochs, patience, loading={"image_size": tuple(image_size)} | loading)
    runs = []
    for repeat, count in itertools.product(range(repeats), _counts(sizes, training)):
        part, place = _first_rows(training, group, count=count, seed=seed + repeat), seed + 1000 * repeat
        rows = Rows(*train_val_rows(part, seed=place, group=group, patience=patience), pd.concat([part, val]))
        runs.append(TrainingRun(f"images_{count}_repeat_{repeat}", build, rows, place, recipe))
    both = pd.concat([training, val])
    size = {"training": len(training)}
    settings = experiment_facts(both, recipe, group=group, folder=folder, seed=seed, build=build, **size)
    results = run_all(runs, both, folder, settings, label="learning curve", unit="run")
    parts = [
        {"images": len(run.rows.test) - len(val), "repeat": int(run.name.rpartition("_")[2])} | row
        for run, result in zip(runs, results, strict=True)
        for row in _scores(result, len(run.rows.test) - len(val))
    ]
    return pd.DataFrame(parts).sort_values(["images", "repeat"], kind="stable", ignore_index=True)


def _training_and_val(table: pd.DataFrame, group: Group, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to learn from and the rows to score by; those of the test split are neither."""
    if "split" not in table or not (table["split"] == "val").any():
        free = table if "split" not in table else table[table["split"] == "train"]
        table = tables.split(free, val=VAL_SHARE, test=0.0, group=group, seed=seed)
    plain = table.drop(columns=["split", "fold"], errors="ignore")
    train, val = (plain[(table["split"] == side).to_numpy()] for side in ("train", "val"))
    return train.reset_index(drop=True), val.set_axis(np.arange(len(train), len(train) + len(val)))


def _counts(sizes: Sequence[float], training_rows: pd.DataFrame) -> list[int]:
    """Sizes as numbers of images, rising, each once."""
    most, fewest = len(training_rows), training_rows["label"].nunique()
    counts = []
    for size in sizes:
        share = isinstance(size, float) and 0 < size <= 1
        if not share and (isinstance(size, bool) or size != int(size) or not 2 <= size <= most):
            raise ValueError(
                f"`sizes` expects shares above 0 and up to 1.0, or whole numbers of images from 2 to {most}, which is "
                f"what there is to learn from. Received: {size!r}."
            )
        counts.append(round(size * most) if share else int(size))
    if not counts or min(counts) < fewest:
        raise ValueError(
            f"`sizes` expects at least {fewest} images in each part, one for each class. Received: "
            f"{list(sizes)!r}, of {most} images to learn from."
        )
    return sorted(set(counts))


def _first_rows(rows: pd.DataFrame, group: Group, *, count: int, seed: int) -> pd.DataFrame:
    """So many rows, or as near to it as whole groups and one of every class allow, in the table's order.

    Units (rows or groups) come in random order, and each is placed by the share of its class's rows that have come up
    to its middle, so that each beginning of the list has the classes in the shares of the whole; but the first of every
    class comes at the very front.
    """
    units = tables.linked_groups(rows, group)
    codes = pd.Series(rows["label"].cat.codes.to_numpy()).groupby(units)
    table = pd.DataFrame({"code": codes.agg(lambda values: values.mode().iloc[0]), "size": codes.size()})
    table = table.iloc[np.random.default_rng(seed).permutation(len(table))]
    by_class = table.groupby("code")["size"]
    place = (by_class.cumsum() - table["size"] / 2) / by_class.transform("sum")
    place[by_class.cumcount() == 0] = 0.0
    rank = pd.Series(np.arange(len(table)), index=place.sort_values(kind="stable").index)
    order = np.argsort(rank[units].to_numpy(), kind="stable")
    ends = np.append(np.flatnonzero(np.diff(units[order])) + 1, len(order))
    ends = ends[min(rows["label"].nunique(), len(ends)) - 1 :]
    return rows.iloc[np.sort(order[: ends[np.argmin(np.abs(ends - count))]])]


def _scores(found: Tables, images: int) -> list[dict[str, Any]]:
    """Scores of the images that a network learned from, and of those it has not seen."""
    spent = {name: found["scores"][name].iloc[0] for name in ("epochs", "seconds")}
    rows = []
    for name, rows_of_part in (("training", slice(0, images)), ("held out", slice(images, None))):
        predictions = found["predictions"].iloc[rows_of_part]
        known = predictions[predictions["predicted"].notna()]
        values = metrics.scores(known).set_index("metric")["value"]
        rows.append({"part": name, "scored": len(known)} | {score: values[score] for score in SCORES} | spent)
    return rows

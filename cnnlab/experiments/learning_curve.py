"""Would more images help? The same network, trained on more and more of the images there are."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import metrics, tables
from cnnlab._common import progress, require_columns
from cnnlab.experiments.runner import Runner, build_facts, experiment_facts, require_counts
from cnnlab.experiments.store import Store, owned
from cnnlab.experiments.training_run import Recipe, Rows, Tables, TrainingRun, validation_rows
from cnnlab.tables.linking import Group

HELD_OUT = 0.25  # of the images, where the table is not divided
SCORES = ("accuracy", "balanced_accuracy", "macro_f1")


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
    images alone. Rows of the split `val` are held out where the table is divided, and those of `test` are not touched;
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
        TypeError: If `build` does not return a compiled model.
        FileExistsError: If the folder holds an experiment with other settings.

    Example:
        >>> curve = learning_curve(build, table, image_size=(64, 64), epochs=10, seed=0)  # doctest: +SKIP
        >>> plots.learning_curve(curve, metric="macro_f1")  # doctest: +SKIP
    """
    require_columns(table, "path", "label", caller="experiments.learning_curve")
    require_counts(epochs=epochs, repeats=repeats)
    training_rows, held_out = _sides(table, group, seed)
    counts = _counts(sizes, training_rows)
    both = pd.concat([training_rows, held_out])
    recipe = Recipe(epochs, patience, loading={"image_size": tuple(image_size)} | loading)
    settings = experiment_facts(both, recipe, group=group, training=len(training_rows), seed=seed)
    if folder is not None:
        settings |= build_facts(build, seed)
    runs = []
    for repeat in range(repeats):
        for count in counts:
            place = seed + 1000 * repeat
            part = _beginning(training_rows, group, count=count, seed=seed + repeat)
            rows = _rows(part, held_out, group=group, patience=patience, seed=place)
            runs.append(TrainingRun(f"images_{count}_repeat_{repeat}", build, rows, place, recipe))
    with owned(folder):
        found = Runner(both, Store(folder, settings)).results(runs)
        parts = [
            _scores(result, len(run.rows.test) - len(held_out)).assign(repeat=int(run.name.rpartition("_")[2]))
            for run, result in zip(
                runs, progress(found, label="learning curve", total=len(runs), unit="run"), strict=True
            )
        ]
    curve = pd.concat(parts, ignore_index=True)
    front = ["images", "repeat", "part", "scored"]
    curve = curve[front + [column for column in curve if column not in front]]
    return curve.sort_values(["images", "repeat"], kind="stable", ignore_index=True)


def _sides(table: pd.DataFrame, group: Group, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to learn from and the rows to score by; those of the test split are neither."""
    if "split" not in table or not (table["split"] == "val").any():
        free = table if "split" not in table else table[table["split"] == "train"]
        table = tables.split(free, val=HELD_OUT, test=0.0, group=group, seed=seed)
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


def _order(rows: pd.DataFrame, units: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Positions of the rows so that each beginning of the list has the classes in the shares of the whole.

    Units (rows or groups) stay together. Within a class they come in random order, and each is placed by the share of
    the class's rows that have come up to its middle; but the first of every class comes at the very front.
    """
    codes = pd.Series(rows["label"].cat.codes.to_numpy()).groupby(units)
    table = pd.DataFrame({"code": codes.agg(lambda values: values.mode().iloc[0]), "size": codes.size()})
    table = table.iloc[generator.permutation(len(table))]
    by_class = table.groupby("code")["size"]
    place = (by_class.cumsum() - table["size"] / 2) / by_class.transform("sum")
    place[by_class.cumcount() == 0] = 0.0
    rank = pd.Series(np.arange(len(table)), index=place.sort_values(kind="stable").index)
    return np.argsort(rank.loc[units].to_numpy(), kind="stable")


def _beginning(rows: pd.DataFrame, group: Group, *, count: int, seed: int) -> pd.DataFrame:
    """The first `count` rows, or as near to it as whole groups and one of every class allow, in the table's order."""
    units = tables.linked_groups(rows, group)
    order = _order(rows, units, np.random.default_rng(seed))
    ends = np.append(np.flatnonzero(np.diff(units[order])) + 1, len(order))
    ends = ends[min(rows["label"].nunique(), len(ends)) - 1 :]
    return rows.iloc[np.sort(order[: ends[np.argmin(np.abs(ends - count))]])]


def _rows(part: pd.DataFrame, held_out: pd.DataFrame, *, group: Group, patience: int | None, seed: int) -> Rows:
    """The rows of one run; it is scored on the images it learned from, too, in front of the held-out ones."""
    train, val = validation_rows(part, seed=seed, group=group, patience=patience)
    return Rows(
        train.drop(columns="split", errors="ignore"),
        val.drop(columns="split", errors="ignore"),
        pd.concat([part, held_out]),
    )


def _scores(found: Tables, images: int) -> pd.DataFrame:
    """A row of scores for the images that a network learned from, and one for those it has not seen."""
    spent = {name: found["scores"][name].iloc[0] for name in ("epochs", "seconds")}
    rows = []
    for name, rows_of_part in (("training", slice(0, images)), ("held out", slice(images, None))):
        predictions = found["predictions"].iloc[rows_of_part]
        known = predictions[predictions["predicted"].notna()]
        values = metrics.scores(known).set_index("metric")["value"]
        facts = {"images": images, "part": name, "scored": len(known)}
        rows.append(facts | {score: values[score] for score in SCORES} | spent)
    return pd.DataFrame(rows)

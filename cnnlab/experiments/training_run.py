"""One training run: a network learns from some rows, on their images or on stored features, and is tested on others."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import models, pipelines, tables
from cnnlab.experiments.fingerprint import describe
from cnnlab.experiments.heads import HeadRun, TrainedHead
from cnnlab.experiments.predicting import answers, with_probabilities
from cnnlab.images import Preparation
from cnnlab.models.metadata import find_metadata, input_shape, set_preparation
from cnnlab.pipelines.order import epoch_rows
from cnnlab.tables.linking import Group

VAL_SHARE = 0.15  # of the training rows, for early stopping
PIXELS = ("image_size", "resize", "levels")  # what the preparation of a network says, too
Tables = dict[str, pd.DataFrame]


class Rows(NamedTuple):
    """The rows that a network learns from, those that tell it when to stop (none without patience), and its test."""

    train: pd.DataFrame
    val: pd.DataFrame
    test: pd.DataFrame


def rows_of_fold(folds: pd.DataFrame, fold: int, *, seed: int, group: Group, patience: int | None) -> Rows:
    """The rows of one fold of a table with the column `fold`; those for early stopping come from the training rows."""
    test, train = folds[folds["fold"] == fold], folds[folds["fold"] != fold]
    return Rows(*validation_rows(train, seed=seed, group=group, patience=patience), test)


def validation_rows(
    train: pd.DataFrame, *, seed: int, group: Group, patience: int | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows in two: to learn from, and to stop by; the second is empty without patience."""
    if patience is None:
        return train, train.iloc[:0]
    parts = tables.split(train, val=VAL_SHARE, test=0.0, group=group, seed=seed)
    return parts[parts["split"] != "val"], parts[parts["split"] == "val"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: At most so many.
        patience: Epochs without improvement on validation rows before it stops; None: all epochs.
        fit: Called in place of the model's own `fit`, with the model first; or None.
        callbacks: Keras callbacks, or a function that makes them; each run gets new ones.
        class_weight: As in `model.fit`, class names or "balanced" as well.
        objective: A name that `model.evaluate` gives for the test rows, beside accuracy; or None.
        loading: What `pipelines.load` takes.
    """

    epochs: int
    patience: int | None = None
    fit: Callable[..., Any] | None = None
    callbacks: Any = None
    class_weight: Any = None
    objective: str | None = None
    loading: dict[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, str]:
        """What a result depends on, as text by name."""
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(pipelines.load).parameters.items()
            if parameter.default is not parameter.empty
        }
        same = ("training", "seed", "cache", "shard", "like")
        loading = {name: value for name, value in (defaults | self.loading).items() if name not in same}
        own = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "loading"}
        return {name: describe(value) for name, value in (own | loading).items()}


@dataclass(frozen=True)
class TrainingRun:
    """One training: which network, on which rows, how.

    Attributes:
        name: Under which its results are kept.
        build: Returns a new, compiled model.
        rows: Those of the experiment's table, by its index, which counts from 0.
        seed: Of initial weights, order and augmentation.
        recipe: How it is trained.
    """

    name: str
    build: Callable[..., keras.Model]
    rows: Rows
    seed: int
    recipe: Recipe


class Trained(NamedTuple):
    """scores (one row), history (one row per epoch) and predictions of the test rows; and the model."""

    tables: Tables
    model: keras.Model


def settle_preparation(model: keras.Model, recipe: Recipe, classes: Sequence[str]) -> Preparation:
    """How images are prepared for a network: as the recipe says, else as it says itself; from now on it says so, too.

    Raises:
        ValueError: If the recipe's image size is not the network's, or it does not tell apart these classes, in this
            order.
    """
    _settle_size(model, recipe, classes)
    prepared = models.require_supported(model, classes=classes, caller="build")
    own = find_metadata(model)
    if own is not None and list(own.classes) != list(classes):
        raise ValueError(
            f"`build` expects to return a network for the classes of the table, in their order: {list(classes)[:20]}. "
            f"It returned one for {list(own.classes)[:20]}. Pass `classes=table['label'].cat.categories`."
        )
    return prepared


def _settle_size(model: keras.Model, recipe: Recipe, classes: Sequence[str]) -> None:
    asked = {name: recipe.loading[name] for name in PIXELS if recipe.loading.get(name) is not None}
    size = tuple(asked.pop("image_size"))
    height, width, channels = input_shape(model)
    if height is None or width is None:
        set_preparation(model, Preparation(size, channels or 3, **asked), classes)
        return
    own = models.preparation(model)
    if own.image_size != size:
        raise ValueError(
            f"`image_size` expects the size that the network of `build` takes, {own.image_size}. Received: {size}."
        )
    prepared = replace(own, **asked)
    if prepared != own:
        set_preparation(model, prepared, classes)


class Outcome(NamedTuple):
    """What a training run gives: history, predictions of the test rows, and what `evaluate` says of them if asked."""

    history: pd.DataFrame
    predictions: pd.DataFrame
    scores: dict[str, float]


def train_on_images(model: keras.Model, run: TrainingRun) -> Outcome:
    """Trains the whole network on images, by its own `fit` or the one of the recipe."""
    rows, recipe = run.rows, run.recipe
    prepared = settle_preparation(model, recipe, names_of(rows.test))
    loading = {name: value for name, value in recipe.loading.items() if name not in PIXELS} | {"like": prepared}
    reading = {name: loading[name] for name in ("like", "batch_size", "one_hot") if name in loading}
    reading |= {"one_hot": True} if getattr(loading.get("augment"), "mixes", False) else {}
    weights = class_weights(recipe.class_weight, rows.train)
    history = (recipe.fit or type(model).fit)(
        model,
        pipelines.load(rows.train, training=True, seed=run.seed, **loading),
        validation_data=None if rows.val.empty else pipelines.load(rows.val, **reading),
        epochs=recipe.epochs,
        callbacks=_callbacks(recipe),
        verbose=0,
        **({} if weights is None else {"class_weight": weights}),
    )
    probabilities = np.empty((0, len(rows.test["label"].cat.categories)))
    if not rows.test.empty:
        probabilities, _ = answers(model, rows.test, prepared=prepared)
    predictions, scores = with_probabilities(rows.test, probabilities), {}
    if recipe.objective and not rows.test.empty:
        scores = model.evaluate(pipelines.load(rows.test, cache=False, **reading), verbose=0, return_dict=True)
    return Outcome(_history(history), predictions, scores)


def train_on_features(
    model: keras.Model, head: keras.Model, run: TrainingRun, *, features: np.ndarray, codes: np.ndarray
) -> Outcome:
    """Trains the head of a network, by Keras, on the features of its frozen backbone.

    Args:
        model: The whole network, compiled.
        head: Shares its layers with it.
        run: What is trained; its rows count from 0, as the features do.
        features: Of shape (rows, …).
        codes: Class of each row.
    """
    recipe = run.recipe
    train, val, test = (readable(rows, features) for rows in run.rows)
    head.compile_from_config(model.get_compile_config())
    options: dict[str, Any] = {
        name: recipe.loading.get(name, value) for name, value in (("batch_size", 32), ("balance", None))
    }
    data = FeatureBatches(features, codes, train, seed=run.seed, **options)
    history = head.fit(
        data,
        validation_data=(features[val], codes[val]) if len(val) else None,
        epochs=recipe.epochs,
        callbacks=[data.epoch_counter(), *_callbacks(recipe)],
        class_weight=class_weights(recipe.class_weight, run.rows.train),
        shuffle=False,
        verbose=0,
    )
    rows = run.rows.test.index.to_numpy()
    probabilities = np.empty((0, len(run.rows.test["label"].cat.categories)))
    if len(rows):
        probabilities = models.class_probabilities(model, keras.ops.convert_to_numpy(head(features[rows])))
    scores = {}
    if recipe.objective and len(test):
        scores = head.evaluate(features[test], codes[test], verbose=0, return_dict=True)
    return Outcome(_history(history), with_probabilities(run.rows.test, probabilities), scores)


def head_outcome(run: TrainingRun, trained: TrainedHead, codes: np.ndarray) -> Outcome:
    """The outcome of a run whose head was trained beside others."""
    probabilities = trained.probabilities
    known = ~np.isnan(probabilities).any(axis=1)
    labels = codes[run.rows.test.index.to_numpy()][known]
    scores = {}
    if run.recipe.objective and len(labels):
        chance = np.maximum(probabilities[known, labels], 1e-7)
        scores = {"loss": float(-np.log(chance).mean())}
    return Outcome(trained.history, with_probabilities(run.rows.test, probabilities), scores)


def head_run(head: Any, run: TrainingRun, features: np.ndarray) -> HeadRun:
    """A run as `heads.train_heads` takes it."""
    train, val = (readable(rows, features) for rows in run.rows[:2])
    options = {name: run.recipe.loading[name] for name in ("batch_size", "balance") if name in run.recipe.loading}
    recipe, test = run.recipe, run.rows.test.index.to_numpy()
    return HeadRun(head, run.seed, train, val, test, epochs=recipe.epochs, patience=recipe.patience, **options)


def _callbacks(recipe: Recipe) -> list[Any]:
    given = recipe.callbacks or []
    own = given() if callable(given) else copy.deepcopy(list(given))
    if recipe.patience is None:
        return own
    return [keras.callbacks.EarlyStopping(patience=recipe.patience, restore_best_weights=True), *own]


def names_of(table: pd.DataFrame) -> list[str]:
    """The classes of a table."""
    return [str(name) for name in table["label"].cat.categories]


def class_weights(given: Any, train: pd.DataFrame) -> dict[int, float] | None:
    """Weights by class number: as given, by class name, or "balanced" for those of `tables.class_weights`.

    Raises:
        ValueError: If a name is no class.
    """
    if given is None:
        return None
    if isinstance(given, str) and given == "balanced":
        return tables.class_weights(train)
    names = names_of(train)
    numbers = {name: number for number, name in enumerate(names)}
    keys = [key if isinstance(key, int | np.integer) else numbers.get(str(key), -1) for key in given]
    if not isinstance(given, Mapping) or not all(0 <= key < len(names) for key in keys):
        raise ValueError(
            f"`class_weight` expects 'balanced', or class → weight with classes among {names[:10]} or their numbers. "
            f"Received: {given!r}."
        )
    weights = dict.fromkeys(range(len(names)), 1.0)
    return weights | {int(key): float(value) for key, value in zip(keys, given.values(), strict=True)}


def _history(found: Any) -> pd.DataFrame:
    """What `fit` gave as a table: a History, or the numbers that somebody's own `fit` returns."""
    if isinstance(found, keras.callbacks.History):
        return pd.DataFrame({"epoch": found.epoch} | found.history)
    if isinstance(found, dict):
        return pd.DataFrame([{"epoch": 0} | {key: float(value) for key, value in found.items()}])
    return pd.DataFrame({"epoch": pd.Series(dtype=int)})


def readable(rows: pd.DataFrame, features: np.ndarray) -> np.ndarray:
    """The rows that have features."""
    index = rows.index.to_numpy()
    return index[~np.isnan(features[index]).any(axis=tuple(range(1, features.ndim)))]


class FeatureBatches(keras.utils.PyDataset):
    """Features in the order in which `pipelines.load` would show their images."""

    def __init__(
        self, features: np.ndarray, codes: np.ndarray, rows: Any, *, seed: int, batch_size: int, balance: Any
    ) -> None:
        super().__init__()
        self.features, self.codes, self.rows = features, codes, np.asarray(rows)
        self.seed, self.size, self.balance = seed, batch_size, balance
        self.set_epoch(0)

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[index * self.size : (index + 1) * self.size]
        return self.features[rows], self.codes[rows]

    def set_epoch(self, epoch: int, logs: Any = None) -> None:
        """Sets the order to that of an epoch."""
        codes = self.codes[self.rows]
        order = epoch_rows(codes, epoch=epoch, seed=self.seed, training=True, balance=self.balance, shard=(0, 1))
        self.order = self.rows[order[:, 0]]

    def epoch_counter(self) -> keras.callbacks.Callback:
        """Tells which epoch it is; as Keras looks at batches before the first, the data cannot count itself."""
        return keras.callbacks.LambdaCallback(on_epoch_begin=self.set_epoch)


def compiled(build: Callable[..., keras.Model], *arguments: Any) -> keras.Model:
    """Calls `build` and checks what comes back.

    Raises:
        TypeError: If it is no compiled Keras model.
    """
    if not callable(build):
        raise TypeError(f"`build` expects a function that returns a compiled model. Received: {type(build).__name__}.")
    takes = [p for p in inspect.signature(build).parameters.values() if p.default is p.empty and p.kind not in (2, 4)]
    return checked(build(*arguments[: len(takes)]))


def checked(model: Any) -> keras.Model:
    """What `build` returned, if it is a compiled model.

    Raises:
        TypeError: Otherwise.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`build` expects to return a keras.Model. It returned: {type(model).__name__}.")
    if not model.compiled:
        raise TypeError(
            "`build` expects to return a compiled model. It returned one that is not: end it with "
            "`return training.compile(model)` or `model.compile(…)`."
        )
    return model

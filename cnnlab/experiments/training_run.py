"""One training run: a network learns from some rows, on their images or on stored features, and is tested on others."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import models, pipelines, tables
from cnnlab._answers import with_probabilities
from cnnlab._common import class_number
from cnnlab._upstream import build_before_tracing
from cnnlab.experiments.predicting import probabilities_of
from cnnlab.images import Preparation
from cnnlab.models.fingerprint import describe
from cnnlab.models.metadata import find_metadata, input_shape, set_preparation
from cnnlab.pipelines.order import epoch_rows
from cnnlab.tables.linking import Group

VAL_SHARE = 0.15  # of the training rows, for early stopping
PIXELS = ("image_size", "resize", "levels")  # what the preparation of a network says, too
SPEED = ("training", "seed", "cache", "shard", "like")  # arguments of `pipelines.load` that change no result


class Rows(NamedTuple):
    """The rows that a network learns from, those that tell it when to stop (none without patience), and its test."""

    train: pd.DataFrame
    val: pd.DataFrame
    test: pd.DataFrame


def train_val_rows(
    rows: pd.DataFrame, *, seed: int, group: Group, patience: int | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows in two: to learn from, and to stop by; the second is empty without patience."""
    if patience is None:
        return rows, rows.iloc[:0]
    part = tables.split(rows, val=VAL_SHARE, test=0.0, group=group, seed=seed)["split"]
    return rows[part != "val"], rows[part == "val"]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: at most `epochs`, fewer where `patience` sees no improvement on validation rows."""

    epochs: int
    patience: int | None = None
    fit: Callable[..., Any] | None = None  # in place of the model's own, with the model first
    callbacks: Any = None  # of Keras, or a function that makes them; each run gets new ones
    class_weight: Any = None  # as in `model.fit`, class names or "balanced" as well
    objective: str | None = None  # what `model.evaluate` is asked of the test rows, beside accuracy
    loading: dict[str, Any] = field(default_factory=dict)  # what `pipelines.load` takes

    @property
    def batch_size(self) -> int:
        """Images in a batch."""
        return self.loading.get("batch_size", 32)

    def facts(self) -> dict[str, str]:
        """What a result depends on, as text by name."""
        arguments = inspect.signature(pipelines.load).parameters.values()
        loading = {part.name: part.default for part in arguments if part.default is not part.empty} | self.loading
        own = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "loading"}
        return {name: describe(value) for name, value in (own | loading).items() if name not in SPEED}

    def new_callbacks(self) -> list[Any]:
        """Callbacks for one run."""
        given = self.callbacks or []
        own = given() if callable(given) else copy.deepcopy(list(given))
        if self.patience is None:
            return own
        return [keras.callbacks.EarlyStopping(patience=self.patience, restore_best_weights=True), *own]


@dataclass(frozen=True)
class TrainingRun:
    """One training, kept under `name`: which network, on which rows of the experiment's table, how."""

    name: str
    build: Callable[..., keras.Model]
    rows: Rows
    seed: int
    recipe: Recipe


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
    return _fit(
        model,
        run,
        pipelines.load(rows.train, training=True, seed=run.seed, **loading),
        None if rows.val.empty else pipelines.load(rows.val, **reading),
        lambda: probabilities_of(model, rows.test, prepared)[0],
        lambda answered: {"x": pipelines.load(answered, cache=False, **reading)},
    )


def train_on_features(
    model: keras.Model, run: TrainingRun, head: keras.Model, features: np.ndarray, codes: np.ndarray
) -> Outcome:
    """Trains the head, which shares its layers with the network, by Keras on features of the frozen backbone."""
    train, val = (readable_rows(rows, features) for rows in run.rows[:2])
    head.compile_from_config(model.get_compile_config())
    return _fit(
        head,
        run,
        FeatureBatches(run, train, features, codes),
        (features[val], codes[val]) if len(val) else None,
        lambda: models.class_probabilities(
            model, keras.ops.convert_to_numpy(head(features[run.rows.test.index.to_numpy()]))
        ),
        lambda answered: {"x": features[answered.index], "y": codes[answered.index]},
        shuffle=False,
    )


def _fit(
    learner: keras.Model,
    run: TrainingRun,
    data: Any,
    val: Any,
    answer: Callable[[], np.ndarray],
    test: Callable[[pd.DataFrame], dict[str, Any]],
    **options: Any,
) -> Outcome:
    """Trains, predicts the test rows by `answer`, and, if there is an objective, scores the answered ones on `test`."""
    recipe, rows = run.recipe, run.rows
    weights = class_weights(recipe.class_weight, rows.train)
    options |= {} if weights is None else {"class_weight": weights}
    build_before_tracing(learner)
    found = (recipe.fit or type(learner).fit)(
        learner, data, validation_data=val, epochs=recipe.epochs, callbacks=recipe.new_callbacks(), verbose=0, **options
    )
    nothing = np.empty((0, len(names_of(rows.test))))
    predictions = with_probabilities(rows.test, nothing if rows.test.empty else answer())
    scores, answered = {}, rows.test[predictions["predicted"].notna().to_numpy()]
    if recipe.objective and len(answered):
        scores = learner.evaluate(**test(answered), verbose=0, return_dict=True)
    return Outcome(_history(found), predictions, scores)


def _history(found: Any) -> pd.DataFrame:
    """What `fit` gave as a table: a History, or the numbers that somebody's own `fit` returns."""
    if isinstance(found, keras.callbacks.History):
        return pd.DataFrame({"epoch": found.epoch} | found.history)
    if isinstance(found, dict):
        return pd.DataFrame([{"epoch": 0} | {key: float(value) for key, value in found.items()}])
    return pd.DataFrame({"epoch": pd.Series(dtype=int)})


def settle_preparation(model: keras.Model, recipe: Recipe, classes: list[str]) -> Preparation:
    """How images are prepared for a network: as the recipe says, else as it says; from now on it says so."""
    asked = {name: recipe.loading[name] for name in PIXELS if recipe.loading.get(name) is not None}
    size = tuple(asked.pop("image_size"))
    height, width, channels = input_shape(model)
    if height is None or width is None:
        set_preparation(model, Preparation(size, channels or 3, **asked), classes)
    else:
        own = models.preparation(model)
        if own.image_size != size:
            raise ValueError(
                f"`image_size` expects the size that the network of `build` takes, {own.image_size}. Received: {size}."
            )
        if replace(own, **asked) != own:
            set_preparation(model, replace(own, **asked), classes)
    prepared = models.require_supported(model, classes=classes, caller="build")
    metadata = find_metadata(model)
    if metadata is not None and list(metadata.classes) != classes:
        raise ValueError(
            f"`build` expects to return a network for the classes of the table, in their order: {classes[:20]}. "
            f"It returned one for {list(metadata.classes)[:20]}. Pass `classes=table['label'].cat.categories`."
        )
    return prepared


def names_of(table: pd.DataFrame, column: str = "label") -> list[str]:
    """The classes of a table."""
    return [str(name) for name in table[column].cat.categories]


def class_weights(given: Any, train: pd.DataFrame) -> dict[int, float] | None:
    """Weights by class number: as given, by class name, or "balanced" for those of `tables.class_weights`."""
    if given is None:
        return None
    if isinstance(given, str) and given == "balanced":
        return tables.class_weights(train)
    classes = train["label"].cat.categories.tolist()
    numbers = [class_number(name, classes) for name in given] if isinstance(given, Mapping) else [-1]
    if -1 in numbers:
        raise ValueError(
            f"`class_weight` expects 'balanced', or class → weight with classes among {classes[:10]}, or their numbers "
            f"where no class is called by another's. Received: {given!r}."
        )
    weights = dict.fromkeys(range(len(classes)), 1.0)
    return weights | {number: float(value) for number, value in zip(numbers, given.values(), strict=True)}


def readable_rows(rows: pd.DataFrame, features: np.ndarray) -> np.ndarray:
    """The numbers of the rows that have features."""
    index = rows.index.to_numpy()
    return index[~np.isnan(features[index]).any(axis=tuple(range(1, features.ndim)))]


def epoch_order(run: TrainingRun, rows: np.ndarray, codes: np.ndarray, epoch: int) -> np.ndarray:
    """The rows that an epoch shows, in the order in which `pipelines.load` would show their images."""
    balance = run.recipe.loading.get("balance")
    order = epoch_rows(codes[rows], epoch=epoch, seed=run.seed, training=True, balance=balance, shard=(0, 1))
    return rows[order[:, 0]]


class FeatureBatches(keras.utils.PyDataset):
    """Stored features of a run's training rows, in the order of each epoch."""

    def __init__(self, run: TrainingRun, rows: np.ndarray, features: np.ndarray, codes: np.ndarray) -> None:
        super().__init__()
        self.run, self.rows, self.features, self.codes = run, rows, features, codes
        self.epoch, self.order = -1, epoch_order(run, rows, codes, 0)  # Keras looks at batches before the first epoch

    def __len__(self) -> int:
        return -(-len(self.order) // self.run.recipe.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        size = self.run.recipe.batch_size
        rows = self.order[index * size : (index + 1) * size]
        return self.features[rows], self.codes[rows]

    def on_epoch_begin(self) -> None:
        """Goes on to the next epoch."""
        self.epoch += 1
        self.order = epoch_order(self.run, self.rows, self.codes, self.epoch)


def compiled(build: Callable[..., keras.Model], *arguments: Any) -> keras.Model:
    """Calls `build` and checks what comes back."""
    if not callable(build):
        raise TypeError(f"`build` expects a function that returns a compiled model. Received: {type(build).__name__}.")
    model = build(*arguments)
    if not isinstance(model, keras.Model):
        raise TypeError(f"`build` expects to return a keras.Model. It returned: {type(model).__name__}.")
    if not model.compiled:
        raise TypeError(
            "`build` expects to return a compiled model. It returned one that is not: end it with "
            "`return training.compile(model)` or `model.compile(…)`."
        )
    return model

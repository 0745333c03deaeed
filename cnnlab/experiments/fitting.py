"""One training for one fold: on images, or on features where the backbone is frozen."""

import inspect
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import pipelines, tables
from cnnlab.experiments import frozen, stacked
from cnnlab.experiments.embedding import digest, embed
from cnnlab.experiments.heads import Head, head_of
from cnnlab.experiments.memory import graphs_released
from cnnlab.experiments.predicting import answers, with_probabilities
from cnnlab.pipelines.cache import MEMORY_SHARE, free_memory
from cnnlab.pipelines.order import epoch_rows

INNER_SHARE = 0.15  # of a fold's training rows, for early stopping
NOT_FOR_LOADING = ("epochs", "patience", "seed")
ON_FEATURES = {"image_size", "epochs", "patience", "seed", "batch_size", "resize", "cache", "balance", "augment"}
Tables = dict[str, pd.DataFrame]


class Fitted(NamedTuple):
    """What one fold gives.

    Attributes:
        tables: scores (one row), history (one row per epoch) and predictions of the held-out rows.
        model: Trained.
    """

    tables: Tables
    model: keras.Model


class Fold(NamedTuple):
    """The rows that a network learns from, those that tell it when to stop (none without patience), and its judges."""

    train: pd.DataFrame
    watched: pd.DataFrame
    held_out: pd.DataFrame


def deal(dealt: pd.DataFrame, fold: int, *, seed: int, group: str | None, patience: int | None) -> Fold:
    """The rows of one fold of a table with the column `fold`; those for early stopping come from the training part."""
    held_out, train = dealt[dealt["fold"] == fold], dealt[dealt["fold"] != fold]
    return Fold(*inner(train, seed=seed, group=group, patience=patience), held_out)


def inner(
    train: pd.DataFrame, *, seed: int, group: str | None, patience: int | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training rows in two: to learn from, and to stop by; the second is empty without patience."""
    if patience is None:
        return train, train.iloc[:0]
    parts = tables.split(train, val=INNER_SHARE, test=0.0, group=group, seed=seed)
    return parts[parts["split"] == "train"], parts[parts["split"] == "val"]


def run_fold(
    build: Callable[..., keras.Model],
    fold: Fold,
    *,
    seed: int,
    recipe: dict[str, Any],
    fit: Callable[..., Any] | None = None,
    embeddings: "Embeddings | None" = None,
) -> Fitted:
    """Trains one model and predicts the held-out rows; the same seed gives the same result on a CPU.

    Args:
        build: Returns a new, compiled model.
        fold: The rows.
        seed: Of initial weights, order and augmentation.
        recipe: image_size, epochs, patience and what `pipelines.load` takes.
        fit: Called in place of the model's own `fit`, with the model first.
        embeddings: Where features of the table are kept; used where the model's backbone is frozen.
    """
    began = time.perf_counter()
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = compiled(build)
    found = None if embeddings is None or fit is not None else embeddings.of(model, recipe)
    work = _on_images if found is None else _on_features
    with graphs_released():
        history, predictions = work(model, fold, found=found, seed=seed, recipe=recipe, fit=fit)
    return Fitted(collect(history, predictions, time.perf_counter() - began), model)


def _callbacks(recipe: dict[str, Any]) -> list[Any]:
    if recipe["patience"] is None:
        return []
    return [keras.callbacks.EarlyStopping(patience=recipe["patience"], restore_best_weights=True)]


def _on_images(
    model: keras.Model, fold: Fold, *, found: Any, seed: int, recipe: dict[str, Any], fit: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    loading = {key: value for key, value in recipe.items() if key not in NOT_FOR_LOADING}
    resize = {key: loading[key] for key in ("resize",) if key in loading}
    watching = {
        key: value for key, value in loading.items() if key in ("image_size", "batch_size", "resize", "one_hot")
    }
    validation = None if fold.watched.empty else pipelines.load(fold.watched, **watching)
    data = pipelines.load(fold.train, training=True, seed=seed, **loading)
    history = (fit or type(model).fit)(
        model,
        data,
        validation_data=validation,
        epochs=recipe["epochs"],
        callbacks=_callbacks(recipe),
        verbose=0,
    )
    return _history(history), with_probabilities(fold.held_out, answers(model, fold.held_out, **resize))


def _history(found: Any) -> pd.DataFrame:
    """What `fit` gave as a table: a History, or the numbers that somebody's own `fit` returns."""
    if isinstance(found, keras.callbacks.History):
        return pd.DataFrame({"epoch": found.epoch} | found.history)
    if isinstance(found, dict):
        return pd.DataFrame([{"epoch": 0} | {key: float(value) for key, value in found.items()}])
    return pd.DataFrame({"epoch": pd.Series(dtype=int)})


def _on_features(
    model: keras.Model, fold: Fold, *, found: Any, seed: int, recipe: dict[str, Any], fit: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    parts, features, codes = found
    head = head_of(parts.head, compiled_as=model)
    if head is not None:
        run = _run((None, 0), head, fold, features=features, seed=seed, recipe=recipe)
        (trained,) = stacked.train([run], features, codes)
        head.assign(trained.weights)
        return trained.history, with_probabilities(fold.held_out, trained.probabilities)
    train, watched = (_readable(rows, features) for rows in (fold.train, fold.watched))
    parts.head.compile_from_config(model.get_compile_config())
    data = Shuffled(features, codes, train, seed=seed, size=recipe.get("batch_size", 32), balance=recipe.get("balance"))
    validation = (features[watched], codes[watched]) if len(watched) else None
    history = parts.head.fit(
        data,
        validation_data=validation,
        epochs=recipe["epochs"],
        callbacks=[data.counter(), *_callbacks(recipe)],
        shuffle=False,
        verbose=0,
    )
    held_out = features[fold.held_out.index]
    probabilities = np.empty((0, parts.head.output_shape[-1])) if fold.held_out.empty else parts.head(held_out)
    return _history(history), with_probabilities(fold.held_out, keras.ops.convert_to_numpy(probabilities))


def _readable(rows: pd.DataFrame, features: np.ndarray) -> np.ndarray:
    """The rows that have features."""
    index = rows.index.to_numpy()
    return index[~np.isnan(features[index]).any(axis=tuple(range(1, features.ndim)))]


def _run(
    name: tuple[Any, int], head: Head, fold: Fold, *, features: np.ndarray, seed: int, recipe: dict[str, Any]
) -> stacked.Run:
    return stacked.Run(
        name=name,
        head=head,
        seed=seed,
        train=_readable(fold.train, features),
        watched=_readable(fold.watched, features),
        held_out=fold.held_out.index.to_numpy(),
        batch_size=recipe.get("batch_size", 32),
        epochs=recipe["epochs"],
        patience=recipe["patience"],
        balance=recipe.get("balance"),
    )


class Shuffled(keras.utils.PyDataset):
    """Features in the order in which `pipelines.load` would show their images."""

    def __init__(
        self, features: np.ndarray, codes: np.ndarray, rows: Any, *, seed: int, size: int, balance: Any
    ) -> None:
        super().__init__()
        self.features, self.codes, self.rows = features, codes, np.asarray(rows)
        self.seed, self.size, self.balance = seed, size, balance
        self.set_epoch(0)

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[index * self.size : (index + 1) * self.size]
        return self.features[rows], self.codes[rows]

    def set_epoch(self, epoch: int, logs: Any = None) -> None:
        """Draws the order of an epoch."""
        codes = self.codes[self.rows]
        order = epoch_rows(codes, epoch=epoch, seed=self.seed, training=True, balance=self.balance, shard=(0, 1))
        self.order = self.rows[order[:, 0]]

    def counter(self) -> keras.callbacks.Callback:
        """Tells which epoch it is; as Keras looks at batches before the first, the data cannot count itself."""
        return keras.callbacks.LambdaCallback(on_epoch_begin=self.set_epoch)


def collect(history: pd.DataFrame, predictions: pd.DataFrame, seconds: float) -> Tables:
    """The tables of one fold."""
    predictions = predictions.drop(columns=["split", "fold"], errors="ignore")
    labels, guesses = (predictions[name].cat.codes.to_numpy() for name in ("label", "predicted"))
    known = guesses >= 0
    right, classes = (labels == guesses)[known], labels[known]
    recalls = [right[classes == code].mean() for code in np.unique(classes)]
    score = {
        "accuracy": float(right.mean()) if len(right) else np.nan,
        "balanced_accuracy": float(np.mean(recalls)) if recalls else np.nan,
        "images": len(right),
        "epochs": len(history),
        "seconds": round(seconds, 3),
    }
    return {"scores": pd.DataFrame([score]), "history": history, "predictions": predictions}


class Embeddings:
    """Features of one table, for as many frozen backbones as come along.

    Args:
        table: Its index counts its rows from 0.
        resize: As in `pipelines.load`.
    """

    def __init__(self, table: pd.DataFrame, *, resize: Any = "fit") -> None:
        self.table, self.resize = table, resize
        self.codes = table["label"].cat.codes.to_numpy(np.int32)
        self.known: dict[str, np.ndarray] = {}
        self.alike: dict[Any, tuple[str, keras.Model]] = {}  # holds the networks, so that no other takes their place

    def of(self, model: keras.Model, recipe: dict[str, Any]) -> tuple[frozen.Parts, np.ndarray, np.ndarray] | None:
        """Backbone and head, the features of all rows and their classes; None where images are needed.

        They are needed where pixels are augmented, nothing is frozen, or the features do not fit into memory.
        """
        if recipe.get("augment") is not None or not set(recipe) <= ON_FEATURES:
            return None
        parts = frozen.split(model)
        if parts is None or len(parts.backbone.input_shape) != 4 or None in parts.backbone.output_shape[1:]:
            return None
        needed = 4 * float(np.prod(parts.backbone.output_shape[1:])) * len(self.table)
        if needed > MEMORY_SHARE * free_memory():
            return None
        key = frozen.likeness(parts.backbone)
        if key not in self.alike:
            self.alike[key] = (digest(parts.backbone), parts.backbone)
        name = self.alike[key][0]
        if name not in self.known:
            self.known[name] = embed(parts.backbone, self.table, resize=recipe.get("resize", self.resize))
        return parts, self.known[name], self.codes


class Job(NamedTuple):
    """Folds of one compiled model that may be trained beside others.

    Attributes:
        model: Compiled.
        folds: By number.
        recipe: As for `run_fold`.
        seed: That of fold 0; each further fold has the next.
    """

    model: keras.Model
    folds: dict[int, Fold]
    recipe: dict[str, Any]
    seed: int


def run_together(jobs: dict[Any, Job], embeddings: Embeddings) -> dict[Any, dict[int, tuple[Tables, list[np.ndarray]]]]:
    """Trains the heads of all jobs whose backbone is frozen and whose head is plain, as one program.

    Returns:
        By job and fold: the tables and the weights of the head's dense layers. Jobs that need images, or a `fit` of
        their own, are missing.
    """
    runs = []
    for name, job in jobs.items():
        found = embeddings.of(job.model, job.recipe)
        head = None if found is None else head_of(found[0].head, compiled_as=job.model)
        if found is None or head is None:
            continue
        for number, fold in job.folds.items():
            seed = job.seed + number
            run = _run((name, number), head, fold, features=found[1], seed=seed, recipe=job.recipe)
            runs.append((run, found[1]))
    results: dict[Any, dict[int, tuple[Tables, list[np.ndarray]]]] = {}
    for features in {id(features): features for _, features in runs}.values():
        together = [run for run, of in runs if of is features]
        for run, trained in zip(together, stacked.train(together, features, embeddings.codes), strict=True):
            name, number = run.name
            predictions = with_probabilities(jobs[name].folds[number].held_out, trained.probabilities)
            done = collect(trained.history, predictions, trained.seconds)
            results.setdefault(name, {})[number] = (done, trained.weights)
    return results


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

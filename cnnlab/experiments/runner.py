"""The one runner behind every experiment: what is still missing is trained, scored and kept."""

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab._common import require_columns
from cnnlab.experiments.backbone import BackboneAndHead, split_backbone
from cnnlab.experiments.embedding import digest, embed
from cnnlab.experiments.fingerprint import describe, network_facts, table_facts, weights_digest
from cnnlab.experiments.heads import plain_head, train_heads
from cnnlab.experiments.memory import fresh_session, graphs_released
from cnnlab.experiments.store import Store
from cnnlab.experiments.training_run import (
    PIXELS,
    Outcome,
    Recipe,
    Tables,
    TrainingRun,
    compiled,
    head_outcome,
    head_run,
    names_of,
    settle_preparation,
    train_on_features,
    train_on_images,
)
from cnnlab.pipelines.cache import MEMORY_SHARE, free_memory
from cnnlab.tables.linking import Group, group_columns

NO_ANSWERS = (
    "No held-out image was answered with numbers. The last steps of training broke the weights, or no image can be "
    "read. A lower learning rate, or gradient clipping (clipnorm=1.0 in the optimizer), is the usual remedy."
)
ON_FEATURES = {*PIXELS, "batch_size", "cache", "balance", "augment"}


class Trained(NamedTuple):
    """The tables scores (one row), history (one row per epoch) and predictions of the test rows; and the model."""

    tables: Tables
    model: keras.Model


class Runner:
    """Trains what is not kept yet; heads of frozen backbones on features, plain ones of them side by side.

    Args:
        table: All rows; its index counts from 0.
        store: Where results are kept.
        keep: Called with each run that was trained and what it gave, before that is kept.
    """

    def __init__(
        self, table: pd.DataFrame, store: Store, *, keep: Callable[[TrainingRun, Trained], None] | None = None
    ) -> None:
        self.table, self.store, self.keep = table, store, keep
        self.codes = table["label"].cat.codes.to_numpy(np.int32)
        self.features: dict[Any, np.ndarray] = {}
        self.learned: dict[int, weakref.ref[Any]] = {}  # variables that a run has trained

    def results(self, runs: Sequence[TrainingRun]) -> Iterator[Tables]:
        """The tables of each run, in order."""
        self.train_heads(runs)
        for run in runs:
            if not self.store.has(run.name):
                self._done(run, self.train(run))
            yield self.store.get(run.name) or {}

    def train(self, run: TrainingRun) -> Trained:
        """Trains one network and predicts its test rows; the same seed gives the same result on a CPU."""
        began = time.perf_counter()
        fresh_session(run.seed)
        model = compiled(run.build)
        self._require_untrained(model)
        own = run.recipe.fit or run.recipe.callbacks
        parts = None if own else self._parts(model, run.recipe)
        with graphs_released():
            outcome = train_on_images(model, run) if parts is None else self._train_head(model, *parts, run)
        self.learned |= {id(variable): weakref.ref(variable) for variable in model.trainable_variables}
        return Trained(collect(outcome, time.perf_counter() - began), model)

    def train_heads(self, runs: Sequence[TrainingRun]) -> None:
        """Trains all runs of plain heads on frozen backbones that are not kept yet, side by side, and keeps them."""
        by_build: dict[Any, list[TrainingRun]] = {}
        for run in runs:
            if not self.store.has(run.name) and _takes_features(run.recipe) and not run.recipe.class_weight:
                by_build.setdefault(run.build, []).append(run)
        together: dict[int, list[tuple[TrainingRun, Any, keras.Model, np.ndarray]]] = {}
        for number, (build, members) in enumerate(by_build.items()):
            fresh_session(members[0].seed)
            try:
                model = compiled(build)
                split = split_backbone(model)
                if split is None and number == 0:
                    return  # nothing is frozen: not worth building the others
                settle_preparation(model, members[0].recipe, names_of(self.table))
            except Exception:  # whoever comes to this run says what is wrong
                continue
            parts = self._parts(model, members[0].recipe, split)
            head = None if parts is None else plain_head(parts[0], compiled_as=model)
            if parts is not None and head is not None:
                features = parts[1]
                together.setdefault(id(features), []).extend((run, head, model, features) for run in members)
        for beside in together.values():
            self._train_together(beside)

    def _train_together(self, members: list[tuple[TrainingRun, Any, keras.Model, np.ndarray]]) -> None:
        began, features = time.perf_counter(), members[0][3]
        with graphs_released():
            trained = train_heads([head_run(head, run, features) for run, head, _, _ in members], features, self.codes)
        seconds = (time.perf_counter() - began) / len(members)
        for (run, head, model, _), result in zip(members, trained, strict=True):
            head.assign(result.weights)
            self._done(run, Trained(collect(head_outcome(run, result, self.codes), seconds), model))

    def _train_head(self, model: keras.Model, head: keras.Model, features: np.ndarray, run: TrainingRun) -> Outcome:
        plain = None if run.recipe.class_weight else plain_head(head, compiled_as=model)
        if plain is None:
            return train_on_features(model, head, run, features=features, codes=self.codes)
        (result,) = train_heads([head_run(plain, run, features)], features, self.codes)
        plain.assign(result.weights)
        return head_outcome(run, result, self.codes)

    def _done(self, run: TrainingRun, trained: Trained) -> None:
        if self.keep is not None:
            self.keep(run, trained)
        self.store.put(run.name, trained.tables)

    def _parts(
        self, model: keras.Model, recipe: Recipe, split: BackboneAndHead | None = None
    ) -> tuple[keras.Model, np.ndarray] | None:
        """The head and the features of all rows; None where images are needed.

        They are needed where pixels are augmented, nothing is frozen, or the features do not fit into memory.
        """
        split = (split or split_backbone(model)) if _takes_features(recipe) else None
        if split is None:
            return None
        if 4 * float(np.prod(split.backbone.output_shape[1:])) * len(self.table) > MEMORY_SHARE * free_memory():
            return None
        prepared = settle_preparation(model, recipe, names_of(self.table))
        key = (digest(split.backbone), prepared)
        if key not in self.features:
            self.features[key] = embed(split.backbone, self.table, prepared=prepared)
        return split.head, self.features[key]

    def _require_untrained(self, model: keras.Model) -> None:
        for variable in model.trainable_variables:
            if id(variable) in self.learned and self.learned[id(variable)]() is variable:
                raise ValueError(
                    "`build` expects to return a new network each time. It returned layers that an earlier run has "
                    f"trained, such as {getattr(variable, 'path', '')!r}, which would know the images that they are "
                    "tested on. Make the layers inside `build`, or freeze those that come from outside."
                )


def _takes_features(recipe: Recipe) -> bool:
    """Whether a frozen backbone's features may stand for the images: no own code sees them, nothing changes them."""
    own = recipe.fit or recipe.callbacks or recipe.loading.get("augment") is not None
    return not own and set(recipe.loading) <= ON_FEATURES


def collect(outcome: Outcome, seconds: float) -> Tables:
    """The tables of one run; without scores, but with the reason, where the loss was not a number."""
    history, predictions = outcome.history, outcome.predictions.drop(columns=["split", "fold"], errors="ignore")
    labels, guesses = (predictions[name].cat.codes.to_numpy() for name in ("label", "predicted"))
    known = guesses >= 0
    right, classes = (labels == guesses)[known], labels[known]
    recalls = [right[classes == code].mean() for code in np.unique(classes)]
    score = {
        "accuracy": float(right.mean()) if len(right) else np.nan,
        "balanced_accuracy": float(np.mean(recalls)) if recalls else np.nan,
        **{
            name: float(value)
            for name, value in outcome.scores.items()
            if name not in ("accuracy", "balanced_accuracy")
        },
    }
    problem = _problem(history) or ("" if len(right) or predictions.empty else NO_ANSWERS)
    score = dict.fromkeys(score, np.nan) if problem else score
    facts = {"images": len(right), "epochs": len(history), "seconds": round(seconds, 3), "problem": problem}
    return {"scores": pd.DataFrame([score | facts]), "history": history, "predictions": predictions}


def _problem(history: pd.DataFrame) -> str:
    losses = history["loss"] if "loss" in history else pd.Series(dtype=float)
    bad = np.flatnonzero(~np.isfinite(losses.to_numpy(dtype=float)))
    if not len(bad):
        return ""
    return (
        f"The loss is not a number from epoch {int(bad[0]) + 1} on. A lower learning rate, or gradient clipping "
        "(clipnorm=1.0 in the optimizer), is the usual remedy."
    )


def plain_table(table: pd.DataFrame, *, caller: str) -> pd.DataFrame:
    """The rows of an experiment, without the split and folds that they came with; the index counts from 0."""
    require_columns(table, "path", "label", caller=caller)
    return table.drop(columns=["split", "fold"], errors="ignore").reset_index(drop=True)


def require_counts(**counts: int) -> None:
    """Refuses what is no whole number from 1."""
    wrong = [
        value for value in counts.values() if isinstance(value, bool) or not isinstance(value, Integral) or value < 1
    ]
    if wrong:
        names = " and ".join(f"`{name}`" for name in counts)
        received = ", ".join(f"{name}={value!r}" for name, value in counts.items())
        raise ValueError(f"{names} expects a whole number, 1 or more. Received: {received}.")


def build_facts(build: Callable[..., keras.Model], seed: int) -> dict[str, str]:
    """What the network of `build` is, with the weights that no seed changes, such as pretrained ones."""
    fresh_session(seed)
    model = compiled(build)
    facts = network_facts(model)
    fresh_session(seed + 1)
    pairs = zip(model.weights, compiled(build).weights, strict=False)
    values = [(variable, *map(keras.ops.convert_to_numpy, (variable, other))) for variable, other in pairs]
    given = [variable for variable, one, other in values if np.array_equal(one, other)]
    return facts | {"the network's given weights": weights_digest(given)}


def experiment_facts(table: pd.DataFrame, recipe: Recipe, *, group: Group, **settings: Any) -> dict[str, str]:
    """What the results of an experiment depend on, beside the network, as text by name."""
    columns = group_columns(table, group)
    require_columns(table, *columns, caller="group")
    facts = {name: describe(value) for name, value in {**settings, "group": columns}.items()}
    return table_facts(table, columns) | recipe.facts() | facts

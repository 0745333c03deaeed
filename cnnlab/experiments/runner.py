"""The one runner behind every experiment: what is still missing is trained, scored and kept."""

import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import _upstream, tables
from cnnlab._common import is_whole, progress, require_columns, require_seed
from cnnlab.experiments.frozen_features import digest, embed, split_backbone
from cnnlab.experiments.heads import Head, plain_head, train_heads
from cnnlab.experiments.store import Store, Tables, damaged, owned
from cnnlab.experiments.training_run import (
    PIXELS,
    Outcome,
    Recipe,
    Rows,
    TrainingRun,
    compiled,
    names_of,
    settle_preparation,
    train_on_features,
    train_on_images,
    train_val_rows,
)
from cnnlab.models.fingerprint import describe, network_facts, table_facts, weights_digest
from cnnlab.pipelines.cache import MEMORY_SHARE, free_memory
from cnnlab.tables.linking import Group, group_columns, say_once

HELP = "A lower learning rate, or gradient clipping (clipnorm=1.0 in the optimizer), is the usual remedy."
NO_ANSWERS = (
    "No held-out image was answered with numbers. The last steps of training broke the weights, or no image can be "
    f"read. {HELP}"
)
ON_FEATURES = {*PIXELS, "batch_size", "cache", "balance", "augment"}
PREFIX = "CustomGradient-"  # tf.custom_gradient registers under this and a number


class Trained(NamedTuple):
    """The tables scores (one row), history (one row per epoch) and predictions of the test rows; and the model."""

    tables: Tables
    model: keras.Model


class Runner:
    """Trains what is not kept yet; heads of frozen backbones on features, plain ones of them side by side.

    `keep` is called with each run that was trained, and what it gave, before that is kept.
    """

    kept: ClassVar[tuple[str, ...]] = ("scores", "history", "predictions")  # tables of each run

    def __init__(
        self, table: pd.DataFrame, store: Store, *, keep: Callable[[TrainingRun, Trained], None] | None = None
    ) -> None:
        self.table, self.store, self.keep = table, store, keep
        self.codes = table["label"].cat.codes.to_numpy(np.int32)
        self.features: dict[Any, np.ndarray] = {}
        self.learned: dict[int, weakref.ref[Any]] = {}  # variables that a run has trained

    def results(self, runs: Sequence[TrainingRun]) -> Iterator[Tables]:
        """The tables of each run, in order; refuses those of a folder that are not the run's, as it was damaged."""
        self.train_heads(runs)
        for number, run in enumerate(runs):
            # What another process trains at this moment is left to it as long as there is something else to do.
            for one, wait in [*((each, False) for each in runs[number:]), (run, True)]:
                if self.store.has(run.name):
                    break
                self._train_missing(one, wait=wait)
            found = self.store.get(run.name) or {}
            missing = [name for name in self.kept if name not in found]
            reason = f"there is no {missing[0]}.csv" if missing else _other_rows(found["predictions"], run.rows.test)
            if reason:
                raise damaged(Path(self.store.folder or "", run.name, "predictions.csv"), reason)
            yield found

    def _train_missing(self, run: TrainingRun, *, wait: bool) -> None:
        with ExitStack() as stack:
            try:
                stack.enter_context(self.store.alone(run.name, wait=wait))
            except TimeoutError:
                return
            if not self.store.has(run.name):
                self._done(run, self.train(run))

    def train(self, run: TrainingRun) -> Trained:
        """Trains one network and predicts its test rows; the same seed gives the same result on a CPU."""
        began = time.perf_counter()
        fresh_session(run.seed, free_memory=True)
        model = compiled(run.build)
        for variable in model.trainable_variables:
            if id(variable) in self.learned and self.learned[id(variable)]() is variable:
                raise ValueError(
                    "`build` expects to return a new network each time. It returned layers that an earlier run has "
                    f"trained, such as {getattr(variable, 'path', '')!r}, which would know the images that they are "
                    "tested on. Make the layers inside `build`, or freeze those that come from outside."
                )
        parts = self._head_and_features(model, run.recipe)
        with graphs_released():
            if parts is None:
                outcome = train_on_images(model, run)
            else:
                outcome = train_on_features(model, run, *parts, self.codes)
        self.learned |= {id(variable): weakref.ref(variable) for variable in model.trainable_variables}
        return Trained(collect(outcome, time.perf_counter() - began), model)

    def train_heads(self, runs: Sequence[TrainingRun]) -> None:
        """Trains all runs of plain heads on frozen backbones that are not kept yet, side by side, and keeps them."""
        by_build: dict[Any, list[TrainingRun]] = {}
        for run in runs:
            if not self.store.has(run.name) and _takes_features(run.recipe) and not run.recipe.class_weight:
                by_build.setdefault(run.build, []).append(run)
        together: dict[int, list[tuple[TrainingRun, Head, keras.Model, np.ndarray]]] = {}
        for build, members in by_build.items():
            fresh_session(members[0].seed)
            try:
                model = compiled(build)
                parts = self._head_and_features(model, members[0].recipe)
            except Exception:  # whoever comes to this run says what is wrong
                continue
            if parts is None and not together:
                return  # nothing is frozen: not worth building the others
            head = None if parts is None else plain_head(parts[0], compiled_as=model)
            if parts is not None and head is not None:
                together.setdefault(id(parts[1]), []).extend((run, head, model, parts[1]) for run in members)
        for beside in together.values():
            began = time.perf_counter()
            with graphs_released():
                trained = train_heads([(run, head) for run, head, *_ in beside], beside[0][3], self.codes)
            seconds = (time.perf_counter() - began) / len(beside)
            for (run, head, model, _), (outcome, weights) in zip(beside, trained, strict=True):
                for variable, value in zip(head.variables, weights, strict=True):
                    variable.assign(value)
                self._done(run, Trained(collect(outcome, seconds), model))

    def _done(self, run: TrainingRun, trained: Trained) -> None:
        with nullcontext() if self.keep is None else self.store.alone(run.name.partition("/")[0], wait=True):
            if self.keep is not None:
                self.keep(run, trained)
            self.store.put(run.name, trained.tables)

    def _head_and_features(self, model: keras.Model, recipe: Recipe) -> tuple[keras.Model, np.ndarray] | None:
        """Head and features of all rows; None where pixels are augmented, nothing is frozen, memory is short."""
        split = split_backbone(model) if _takes_features(recipe) else None
        if split is None:
            return None
        if 4 * float(np.prod(split.backbone.output_shape[1:])) * len(self.table) > MEMORY_SHARE * free_memory():
            return None
        prepared = settle_preparation(model, recipe, names_of(self.table))
        key = (digest(split.backbone), prepared)
        if key not in self.features:
            self.features[key] = embed(split.backbone, self.table, prepared)
        return split.head, self.features[key]


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
    scores = outcome.scores | {
        "accuracy": float(right.mean()) if len(right) else np.nan,
        "balanced_accuracy": float(np.mean(recalls)) if recalls else np.nan,
    }
    losses = history["loss"].to_numpy(dtype=float) if "loss" in history else np.zeros(0)
    problem = "" if len(right) or predictions.empty else NO_ANSWERS
    if not np.isfinite(losses).all():
        problem = f"The loss is not a number from epoch {int(np.argmin(np.isfinite(losses))) + 1} on. {HELP}"
    first = {name: np.nan if problem else float(scores.pop(name)) for name in ("accuracy", "balanced_accuracy")}
    others = {name: np.nan if problem else float(value) for name, value in scores.items()}
    facts = {"images": len(right), "epochs": len(history), "seconds": round(seconds, 3), "problem": problem}
    return {"scores": pd.DataFrame([first | others | facts]), "history": history, "predictions": predictions}


def _other_rows(predictions: pd.DataFrame, test: pd.DataFrame) -> str:
    """Why a table does not hold predictions of the test rows; "" where it does."""
    names = names_of(test)
    missing = [
        name for name in ("path", "label", "predicted", *(f"p_{name}" for name in names)) if name not in predictions
    ]
    if missing:
        return f"it has no column {missing[0]!r}"
    if len(predictions) != len(test):
        return f"it has {len(predictions)} rows, and {len(test)} images were predicted"
    for name in ("label", "predicted"):
        if not isinstance(predictions[name].dtype, pd.CategoricalDtype) or names_of(predictions, name) != names:
            return f"its column {name!r} has other classes than {', '.join(names)}"
    same = all(predictions[name].astype(str).tolist() == test[name].astype(str).tolist() for name in ("path", "label"))
    return "" if same else "its images or their labels are others than those that were predicted"


def checked_rows(
    table: pd.DataFrame, *, caller: str, seed: object, subject: str = "", **counts: object
) -> pd.DataFrame:
    """The rows of an experiment without the split and folds they came with, the index from 0; refuses wrong arguments.

    Where `subject` chooses by the rows, it is said once that those of the test split cannot test what was chosen.
    """
    if not all(map(is_whole, counts.values())):
        names = " and ".join(f"`{name}`" for name in counts)
        received = ", ".join(f"{name}={value!r}" for name, value in counts.items())
        raise ValueError(f"{names} expects a whole number, 1 or more. Received: {received}.")
    require_seed(seed, caller=caller)
    require_columns(table, "path", "label", caller=caller)
    tested = int((table["split"] == "test").sum()) if subject and "split" in table else 0
    if tested:
        say_once(
            f"{subject} learns from {tested} rows of the test split, which then cannot test its winner. Leave them "
            "out: `table[table['split'] != 'test']`."
        )
    return table.drop(columns=["split", "fold"], errors="ignore").reset_index(drop=True)


def rows_of_folds(
    table: pd.DataFrame, *, folds: int, repeats: int = 1, seed: int, group: Group, patience: int | None
) -> dict[tuple[int, int], tuple[int, Rows]]:
    """Seed and rows of each repeat and fold; those for early stopping come from the training rows."""
    found = {}
    for repeat in range(repeats):
        assigned = tables.folds(table, count=folds, group=group, seed=seed + repeat)
        for fold in range(folds):
            place, test = seed + 1000 * repeat + fold, assigned["fold"] == fold
            train, val = train_val_rows(assigned[~test], seed=place, group=group, patience=patience)
            found[repeat, fold] = place, Rows(train, val, assigned[test])
    return found


def fold_runs(
    build: Callable[..., keras.Model], table: pd.DataFrame, recipe: Recipe, **folds: Any
) -> dict[tuple[int, int], TrainingRun]:
    """The training run of each repeat and fold."""
    return {
        (repeat, fold): TrainingRun(f"repeat_{repeat}_fold_{fold}", build, rows, seed, recipe)
        for (repeat, fold), (seed, rows) in rows_of_folds(table, patience=recipe.patience, **folds).items()
    }


def run_all(
    runs: Sequence[TrainingRun], table: pd.DataFrame, folder: str | os.PathLike[str] | None, settings: dict[str, str],
    *, label: str, unit: str,
) -> list[Tables]:  # fmt: skip
    """The tables of all runs of an experiment, in order; kept in a folder, if there is one, for a later call."""
    with owned(folder):
        found = Runner(table, Store(folder, settings)).results(runs)
        return list(progress(found, label=label, total=len(runs), unit=unit))


def joined(runs: dict[tuple[int, int], TrainingRun], results: Sequence[Tables]) -> Tables:
    """The tables of all runs as one of each kind, with repeat and fold; predictions in the order of the table."""
    whole: Tables = {
        key: pd.concat(
            [part[key].assign(repeat=repeat, fold=fold) for (repeat, fold), part in zip(runs, results, strict=True)],
            ignore_index=True,
        )
        for key in ("runs", "scores", "history", "predictions")
        if key in results[0]
    }
    row = np.concatenate([run.rows.test.index for run in runs.values()])
    order = np.lexsort((row, whole["predictions"]["repeat"].to_numpy()))
    return whole | {"predictions": whole["predictions"].iloc[order].reset_index(drop=True)}


def experiment_facts(
    table: pd.DataFrame, recipe: Recipe, *, group: Group, folder: str | os.PathLike[str] | None, seed: int,
    build: Callable[..., keras.Model] | None = None, **settings: Any,
) -> dict[str, str]:  # fmt: skip
    """What the results in a folder depend on, as text by name; nothing where no folder keeps any.

    Every image file is read for that. With `build`, also its network, with the weights that no seed changes.
    """
    columns = group_columns(table, group)
    require_columns(table, *columns, caller="group")
    if folder is None:
        return {}
    facts = {name: describe(value) for name, value in {**settings, "seed": seed, "group": columns}.items()}
    facts |= table_facts(table, columns) | recipe.facts()
    if build is None:
        return facts
    fresh_session(seed)
    model = compiled(build)
    facts |= network_facts(model)
    fresh_session(seed + 1)
    pairs = zip(model.weights, compiled(build).weights, strict=False)
    values = [(variable, *map(keras.ops.convert_to_numpy, (variable, other))) for variable, other in pairs]
    given = [variable for variable, one, other in values if np.array_equal(one, other)]
    return facts | {"the network's given weights": weights_digest(given)}


def fresh_session(seed: int, *, free_memory: bool = False) -> None:
    """`keras.utils.clear_session` and a seed, with the settings that Keras would reset as well."""
    policy, distribution = keras.config.dtype_policy(), keras.distribution.distribution()
    names = ("interactive_logging", "traceback_filtering", "flash_attention")
    switches = {name: getattr(keras.config, f"is_{name}_enabled")() for name in names}
    keras.utils.clear_session(free_memory=free_memory)
    keras.config.set_dtype_policy(policy)
    keras.distribution.set_distribution(distribution)
    for name, on in switches.items():
        if on is not None:
            getattr(keras.config, f"{'enable' if on else 'disable'}_{name}")()
    keras.utils.set_random_seed(int(seed))


@contextmanager
def graphs_released() -> Iterator[None]:
    """Lets go of the graphs of networks trained inside, which would stay in memory until the process ends.

    Keras's optimizers sum gradients by a function that TensorFlow enters into a register of its own, with the
    whole graph of the training step, and nothing takes it out again (keras-tuner#395). By then the gradient
    is part of the traced step, so that nobody looks it up any more: the network can be used and trained on.
    """
    register = _upstream.gradient_register()
    before = set(register)
    try:
        yield
    finally:
        for name in set(register) - before:
            if name.startswith(PREFIX):
                register.pop(name, None)

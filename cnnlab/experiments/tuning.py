"""The tuner: a `kt.Tuner` whose trial is a cross-validation, kept fold by fold."""

import contextlib
import functools
import io
import os
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import keras_tuner as kt
import ml_dtypes
import numpy as np
import pandas as pd
from keras_tuner.engine.trial import TrialStatus

from cnnlab._common import atomic_path, is_quiet, read_bytes
from cnnlab.experiments.fingerprint import network_facts
from cnnlab.experiments.runner import Runner, Trained, fresh_session, rows_of_folds
from cnnlab.experiments.search_space import Space, recipe_at
from cnnlab.experiments.store import PROBLEM, Store, write_json
from cnnlab.experiments.training_run import Recipe, TrainingRun, compiled, names_of, settle_preparation
from cnnlab.models.naming import is_built
from cnnlab.tables.linking import Group

WEIGHTS = "weights.npz"  # of the best fold of a trial
ROOM = 1024  # bytes that names and shapes of one array take in a file of weights


class CheckedHyperModel(kt.HyperModel):
    """A hypermodel whose `build` and `fit` get the values of the grid themselves, and whose model is checked."""

    def __init__(self, inner: Any, space: Space) -> None:
        own = isinstance(inner, kt.HyperModel)
        if not own and not callable(inner):
            raise TypeError(
                "`build` expects a function `build(hp)` that returns a compiled model, or a kt.HyperModel. "
                f"Received: {type(inner).__name__}."
            )
        super().__init__(name=getattr(inner, "name", None))
        self.inner, self.space = inner, space
        self.read: set[str] = set()
        self.own_fit = type(inner).fit if own and type(inner).fit is not kt.HyperModel.fit else None

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """The model at a point."""
        with self.space.opened(hp, self.read):
            return compiled(self.inner.build if isinstance(self.inner, kt.HyperModel) else self.inner, hp)

    def fit(self, hp: kt.HyperParameters, model: keras.Model, *arguments: Any, **options: Any) -> Any:
        """Trains by the person's own `fit`, if there is one."""
        if self.own_fit is None:
            return model.fit(*arguments, **options)
        with self.space.opened(hp, self.read):
            return self.inner.fit(hp, model, *arguments, **options)


class FoldTuner(kt.Tuner):
    """KerasTuner's Tuner; a trial trains and scores k folds, the same at every point, and keeps each of them."""

    def __init__(
        self,
        oracle: Any,
        hypermodel: CheckedHyperModel,
        table: pd.DataFrame,
        recipe: Recipe,
        *,
        folds: int,
        seed: int,
        group: Group,
        folder: str | os.PathLike[str],
        settings: dict[str, str],
    ) -> None:
        self.table, self.recipe, self.folds, self.seed, self.group = table, recipe, folds, seed, group
        self.parts = functools.cache(functools.partial(rows_of_folds, table, folds=folds, seed=seed, group=group))
        self.parts(patience=recipe.patience)  # refuses what cannot be done before anything is written
        self.store = Store(folder, settings)
        self.runner = Runner(table, self.store, keep=self._keep_best)
        self.bar: Any = None
        self.waits = False
        where = Path(folder).resolve()
        with contextlib.redirect_stdout(io.StringIO()):  # "Reloading Tuner from …"
            super().__init__(oracle, hypermodel, directory=str(where.parent), project_name=where.name)

    def _populate_initial_space(self) -> None:
        if self.hypermodel.space.fixed:
            self.oracle.update_space(self.hypermodel.space.hyperparameters)
        else:
            super()._populate_initial_space()

    def save(self) -> None:
        """Writes the state, whole or not at all."""
        if not self._is_worker():
            self.oracle.save()
        write_json(self._get_tuner_fname(), self.get_state())

    def reload(self) -> None:
        """Reads the oracle's state; the tuner itself has none."""
        if not self._is_worker():
            self.oracle.reload()

    def search(self, **options: Any) -> None:
        """Runs all trials that are missing."""
        from tqdm.auto import tqdm

        with tqdm(desc="search", unit="trial", disable=is_quiet() or self._is_worker(), leave=False) as self.bar:
            super().search(verbose=0, **options)

    def pre_create_trial(self) -> None:
        """Waits a moment where there was nothing to do the last time."""
        if self.waits:
            time.sleep(0.5)
        self.waits = True

    def on_trial_begin(self, trial: Any) -> None:
        """There is something to do."""
        self.waits = False

    def on_trial_end(self, trial: Any) -> None:
        """Counts."""
        super().on_trial_end(trial)
        self.bar.update()

    def _try_run_and_update_trial(self, trial: Any, *arguments: Any, **options: Any) -> None:
        """As KerasTuner's, without the traceback on the screen: the search says at its end what went wrong."""
        try:
            self._run_and_update_trial(trial, *arguments, **options)
            trial.status = TrialStatus.COMPLETED
        except kt.errors.FailedTrialError as error:
            trial.status, trial.message = TrialStatus.FAILED, str(error)

    def run_trial(self, trial: Any, **options: Any) -> dict[str, float]:
        """Trains the folds of a point that are not kept yet; FailedTrialError says in words why it cannot be."""
        name, hp = f"trial_{trial.trial_id}", trial.hyperparameters
        note = Path(self.project_dir) / name / PROBLEM
        note.unlink(missing_ok=True)
        try:
            self.claim(name, hp)
            found = self.runner.results(self.runs(name, hp))
            scores = pd.concat([tables["scores"] for tables in found], ignore_index=True)
            problems = [text for text in scores["problem"] if isinstance(text, str) and text]
            value = np.nan if problems else self._value(scores)
        except FileExistsError:
            raise
        except Exception as error:  # whatever a model or its data may raise: the other points are still wanted
            problem = f"{type(error).__name__}: {error}"
            with atomic_path(note) as temporary:
                temporary.write_text(problem, encoding="utf-8")
            raise kt.errors.FailedTrialError(problem) from error
        if problems:
            raise kt.errors.FailedTrialError(problems[0])
        return {self.oracle.objective.name: value}

    def _value(self, scores: pd.DataFrame) -> float:
        """The objective of a trial: the mean over its folds."""
        name = str(self.oracle.objective.name).removeprefix("val_")
        if name not in scores:
            known = [f"val_{column}" for column in scores if column not in ("images", "epochs", "seconds", "problem")]
            raise ValueError(
                f"`objective` expects one of {', '.join(known)}. Received: {self.oracle.objective.name!r}."
            )
        return float(scores[name].mean())

    def claim(self, name: str, hp: kt.HyperParameters) -> None:
        """Writes down which network a trial trains, and refuses results of another one."""
        fresh_session(self.seed)
        self.store.claim(name, network_facts(self.hypermodel.build(hp)))

    def claim_kept(self) -> None:
        """Refuses to go on where `build` returns other networks than those that have results."""
        for name, trial in sorted(self.oracle.trials.items()):
            if any(self.store.has(f"trial_{name}/fold_{fold}") for fold in range(self.folds)):
                self.claim(f"trial_{name}", trial.hyperparameters)

    def runs(self, name: str, hp: kt.HyperParameters) -> list[TrainingRun]:
        """The training runs of a point, one for each fold."""

        def fit(model: keras.Model, *arguments: Any, **options: Any) -> Any:
            return self.hypermodel.fit(hp, model, *arguments, **options)

        recipe = recipe_at(self.recipe, self.hypermodel.space.behind(hp.values))
        recipe = replace(recipe, fit=None if self.hypermodel.own_fit is None else fit)
        build = functools.partial(self.hypermodel.build, hp)
        return [
            TrainingRun(f"{name}/fold_{fold}", build, rows, seed, recipe)
            for (_, fold), (seed, rows) in self.parts(patience=recipe.patience).items()
        ]

    def train_together(self, points: list[dict[str, Any]]) -> None:
        """Trains all points of a grid whose heads can be trained side by side, before the search comes to them."""
        runs = []
        for number, values in enumerate(points):
            hp = self.oracle.get_space()
            hp.values = dict(values)
            runs += self.runs(f"trial_{number:04d}", hp)
        self.runner.train_heads(runs)

    def _keep_best(self, run: TrainingRun, trained: Trained) -> None:
        """Keeps the weights of a fold if it is the best of its trial so far."""
        trial, _, _ = run.name.partition("/")
        kept = [self.store.get(f"{trial}/fold_{fold}", only="scores") for fold in range(self.folds)]
        others = [self._rank(tables["scores"]) for tables in kept if tables is not None]
        if self._rank(trained.tables["scores"]) > max(others, default=-np.inf) or not others:
            save_weights(trained.model, Path(self.project_dir) / trial / WEIGHTS)

    def _rank(self, scores: pd.DataFrame) -> float:
        name = str(self.oracle.objective.name).removeprefix("val_")
        value = float(scores[name].iloc[0]) if name in scores else np.nan
        return -np.inf if np.isnan(value) else value if self.oracle.objective.direction == "max" else -value

    def load_model(self, trial: Any) -> keras.Model:
        """The model of a trial with the weights of its best fold."""
        name = f"trial_{trial.trial_id}"
        return self.restored(name, trial.hyperparameters, Path(self.project_dir) / name / WEIGHTS)

    def restored(self, name: str, hp: kt.HyperParameters, path: Path) -> keras.Model:
        """The network of a point with the weights of a file."""
        model, recipe = self.hypermodel.build(hp), self.runs(name, hp)[0].recipe
        prepared = settle_preparation(model, recipe, names_of(self.table))
        if not is_built(model):
            model(np.zeros((1, *prepared.image_size, prepared.channels), np.float32))
        return load_weights(model, path)


def save_weights(model: keras.Model, path: Path) -> None:
    """Writes the weights, and the state of the optimizer, whole or not at all."""
    variables = [*model.weights, *model.optimizer.variables]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, *map(keras.ops.convert_to_numpy, variables))


def load_weights(model: keras.Model, path: Path) -> keras.Model:
    """Reads what `save_weights` wrote into a network of the same layers."""
    model.optimizer.build(model.trainable_variables)
    variables = [*model.weights, *model.optimizer.variables]
    expected = sum(int(np.prod(variable.shape)) * 8 + ROOM for variable in variables)
    try:
        data = io.BytesIO(read_bytes(path, limit=expected))
        with zipfile.ZipFile(data) as packed:
            if sum(part.file_size for part in packed.infolist()) > expected:
                raise ValueError("it would take more memory than the network has weights")
        with np.load(data, allow_pickle=False) as file:
            values = [file[f"arr_{number}"] for number in range(len(file.files))]
        values = [value.view(ml_dtypes.bfloat16) if value.dtype == "V2" else value for value in values]
        if not all(value.dtype.kind in "biuf" or value.dtype == ml_dtypes.bfloat16 for value in values):
            raise ValueError("one of its parts holds no numbers")
    except Exception as error:  # zipfile, zlib and numpy raise kinds of their own on what somebody made up
        raise ValueError(f"{str(path)!r} holds no weights that can be read: {error}.") from error
    if len(values) != len(variables):
        variables = model.weights  # a head that was trained on features has an optimizer of its own
    if [value.shape for value in values[: len(variables)]] != [tuple(variable.shape) for variable in variables]:
        raise ValueError(f"`build` returns another model than the one whose weights are in {str(path)!r}.")
    for variable, value in zip(variables, values, strict=False):
        variable.assign(value)
    return model

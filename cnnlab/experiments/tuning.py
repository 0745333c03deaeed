"""The tuner: a `kt.Tuner` whose trial is a cross-validation, kept fold by fold."""

import contextlib
import io
import re
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import keras_tuner as kt
import numpy as np
import pandas as pd
from keras_tuner.engine.trial import TrialStatus

from cnnlab._common import atomic_path, is_quiet, read_bytes
from cnnlab.experiments.fingerprint import network_facts
from cnnlab.experiments.memory import fresh_session
from cnnlab.experiments.oracles import write_json
from cnnlab.experiments.points import Space, recipe_at
from cnnlab.experiments.runner import Runner, Trained
from cnnlab.experiments.store import Store
from cnnlab.experiments.training_run import (
    Recipe,
    Rows,
    TrainingRun,
    checked,
    names_of,
    rows_of_fold,
    settle_preparation,
)
from cnnlab.models.naming import is_built
from cnnlab.tables.linking import Group

WEIGHTS = "weights.npz"  # of the best fold of a trial
PROBLEM = "problem.txt"
FOLD = re.compile(r"(trial_\w+)/fold_(\d+)")
ROOM = 1024  # bytes that names and shapes of one array take in a file of weights


class CheckedHyperModel(kt.HyperModel):
    """A hypermodel whose `build` and `fit` get the values of the grid themselves, and whose model is checked.

    Args:
        inner: A function of `hp`, or a person's own HyperModel.
        space: What stands behind KerasTuner's values.
    """

    def __init__(self, inner: Any, space: Space) -> None:
        if not callable(inner) and not isinstance(inner, kt.HyperModel):
            raise TypeError(
                "`build` expects a function `build(hp)` that returns a compiled model, or a kt.HyperModel. "
                f"Received: {type(inner).__name__}."
            )
        super().__init__(name=getattr(inner, "name", None))
        self.inner, self.space = inner, space
        self.read: set[str] = set()
        own = isinstance(inner, kt.HyperModel) and type(inner).fit is not kt.HyperModel.fit
        self.own_fit = type(inner).fit if own else None

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """The model at a point."""
        with self.space.opened(hp, self.read):
            return checked(self.inner.build(hp) if isinstance(self.inner, kt.HyperModel) else self.inner(hp))

    def fit(self, hp: kt.HyperParameters, model: keras.Model, *arguments: Any, **options: Any) -> Any:
        """Trains by the person's own `fit`, if there is one."""
        if self.own_fit is None:
            return model.fit(*arguments, **options)
        with self.space.opened(hp, self.read):
            return self.inner.fit(hp, model, *arguments, **options)


class FoldTuner(kt.Tuner):
    """KerasTuner's Tuner, with a trial that trains and scores k folds and keeps each of them.

    Args:
        oracle: Which points.
        hypermodel: How they are built.
        table: With the column `fold`; its index counts its rows from 0.
        store: Where results are kept, and KerasTuner keeps its files, too.
        recipe: How networks are trained; a point may change it.
        seed: That of fold 0; each further fold has the next, the same at every point, so that points are compared on
            equal terms.
        group: As in `tables.folds`.
    """

    def __init__(
        self,
        oracle: Any,
        hypermodel: CheckedHyperModel,
        *,
        table: pd.DataFrame,
        store: Store,
        recipe: Recipe,
        seed: int,
        group: Group,
    ) -> None:
        self.table, self.store, self.recipe, self.seed, self.group = table, store, recipe, seed, group
        self.folds = int(table["fold"].max()) + 1
        self.runner = Runner(table.drop(columns="fold"), store, keep=self._keep_best)
        self.rows: dict[tuple[int, Any], Rows] = {}
        self.bar: Any = None
        self.waits = False
        assert store.folder is not None
        folder = store.folder.resolve()
        with contextlib.redirect_stdout(io.StringIO()):  # "Reloading Tuner from …"
            super().__init__(oracle, hypermodel, directory=str(folder.parent), project_name=folder.name)

    def _populate_initial_space(self) -> None:
        if not self.hypermodel.space.fixed:
            super()._populate_initial_space()
        else:
            self.oracle.update_space(self.hypermodel.space.hyperparameters)

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
        if self.bar is not None:
            self.bar.update()

    def _try_run_and_update_trial(self, trial: Any, *arguments: Any, **options: Any) -> None:
        """As KerasTuner's, without the traceback on the screen: the search says at its end what went wrong."""
        try:
            self._run_and_update_trial(trial, *arguments, **options)
            trial.status = TrialStatus.COMPLETED
        except kt.errors.FailedTrialError as error:
            trial.status, trial.message = TrialStatus.FAILED, str(error)

    def run_trial(self, trial: Any, **options: Any) -> dict[str, float]:
        """Trains the folds of a point that are not kept yet.

        Raises:
            kt.errors.FailedTrialError: If the point cannot be trained; in words.
        """
        name, hp = f"trial_{trial.trial_id}", trial.hyperparameters
        note = Path(self.project_dir) / name / PROBLEM
        note.unlink(missing_ok=True)
        try:
            self.claim(name, hp)
            scores = [found["scores"] for found in self.runner.results(self.runs(name, hp))]
            value = self.value_of(pd.concat(scores, ignore_index=True))
        except FileExistsError:
            raise
        except Exception as error:  # whatever a model or its data may raise: the other points are still wanted
            problem = f"{type(error).__name__}: {error}"
            with atomic_path(note) as temporary:
                temporary.write_text(problem, encoding="utf-8")
            raise kt.errors.FailedTrialError(problem) from error
        problems = [text for part in scores for text in part["problem"] if isinstance(text, str) and text]
        if problems:
            raise kt.errors.FailedTrialError(problems[0])
        return {self.oracle.objective.name: value}

    def value_of(self, scores: pd.DataFrame) -> float:
        """The objective of a trial: the mean over its folds.

        Raises:
            ValueError: If nothing of that name was measured.
        """
        name = str(self.oracle.objective.name).removeprefix("val_")
        if name not in scores:
            known = [f"val_{column}" for column in scores if column not in ("images", "epochs", "seconds", "problem")]
            raise ValueError(
                f"`objective` expects one of {', '.join(known)}. Received: {self.oracle.objective.name!r}."
            )
        return float(scores[name].mean())

    def claim(self, name: str, hp: kt.HyperParameters) -> None:
        """Writes down which network a trial trains, and refuses results of another one.

        Raises:
            FileExistsError: Naming what differs.
        """
        fresh_session(self.seed)
        self.store.claim(name, network_facts(self.hypermodel.build(hp)))

    def claim_kept(self) -> None:
        """Refuses to go on where `build` returns other networks than those that have results."""
        for name, trial in sorted(self.oracle.trials.items()):
            if any(self.store.has(f"trial_{name}/fold_{fold}") for fold in range(self.folds)):
                self.claim(f"trial_{name}", trial.hyperparameters)

    def runs(self, name: str, hp: kt.HyperParameters) -> list[TrainingRun]:
        """The training runs of a point, one for each fold."""
        fit = (lambda model, *given, **options: self.hypermodel.fit(hp, model, *given, **options)) if (
            self.hypermodel.own_fit is not None
        ) else None  # fmt: skip
        recipe = replace(recipe_at(self.recipe, self.hypermodel.space.behind(hp.values)), fit=fit)

        def build() -> keras.Model:
            return self.hypermodel.build(hp)

        runs = []
        for fold in range(self.folds):
            key = (fold, recipe.patience)
            if key not in self.rows:
                seed, patience = self.seed + fold, recipe.patience
                self.rows[key] = rows_of_fold(self.table, fold, seed=seed, group=self.group, patience=patience)
            runs.append(TrainingRun(f"{name}/fold_{fold}", build, self.rows[key], self.seed + fold, recipe))
        return runs

    def train_together(self, points: list[dict[str, Any]]) -> None:
        """Trains all points of a grid whose heads can be trained side by side, before the search comes to them."""
        runs = []
        for number, values in enumerate(points):
            hp = self.oracle.get_space()
            hp.values = dict(values)
            runs += self.runs(f"trial_{number:04d}", hp)
        if self.hypermodel.own_fit is None:
            self.runner.train_heads(runs)

    def _keep_best(self, run: TrainingRun, trained: Trained) -> None:
        """Keeps the weights of a fold if it is the best of its trial so far."""
        found = FOLD.fullmatch(run.name)
        if found is None:
            return
        trial, fold = found[1], int(found[2])
        earlier = [
            self.store.get(f"{trial}/fold_{other}", only="scores") for other in range(self.folds) if other != fold
        ]
        value = self._rank(trained.tables["scores"])
        if all(value > self._rank(other["scores"]) for other in earlier if other is not None):
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
        np.savez(file, *[keras.ops.convert_to_numpy(variable) for variable in variables])


def load_weights(model: keras.Model, path: Path) -> keras.Model:
    """Reads what `save_weights` wrote into a network of the same layers.

    Raises:
        ValueError: If the file is damaged, or of another network.
    """
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
        if not all(isinstance(value, np.ndarray) and value.dtype.kind in "biufV" for value in values):
            raise ValueError("one of its parts holds no numbers")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{str(path)!r} holds no weights that can be read: {error}.") from error
    count = (
        len(variables) if len(values) == len(variables) else len(model.weights)
    )  # a head has an optimizer of its own
    shapes = [tuple(variable.shape) for variable in variables[:count]]
    if [value.shape for value in values[:count]] != shapes:
        raise ValueError(f"`build` returns another model than the one whose weights are in {str(path)!r}.")
    for variable, value in zip(variables[:count], values, strict=False):
        variable.assign(value)
    return model

"""The tuner: a `kt.Tuner` whose trial is a cross-validation, kept fold by fold."""

import contextlib
import io
import tempfile
import time
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import keras_tuner as kt
import numpy as np
import pandas as pd
from keras_tuner.engine.trial import TrialStatus

from cnnlab._common import atomic_path, is_quiet
from cnnlab.experiments import frozen
from cnnlab.experiments.fitting import Embeddings, Fold, Job, Tables, checked, deal, run_fold, run_together
from cnnlab.experiments.heads import head_of
from cnnlab.experiments.oracles import OBJECTIVE, write_json
from cnnlab.experiments.points import Space, recipe_at
from cnnlab.experiments.store import Store

CHECKPOINT = "checkpoint.weights.h5"
HEAD = "head.npz"
PROBLEM = "problem.txt"


class Opened(kt.HyperModel):
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
        self.has_own_fit = isinstance(inner, kt.HyperModel) and type(inner).fit is not kt.HyperModel.fit

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        """The model at a point."""
        with self.space.opened(hp, self.read):
            return checked(self.inner.build(hp) if isinstance(self.inner, kt.HyperModel) else self.inner(hp))

    def fit(self, hp: kt.HyperParameters, model: keras.Model, *arguments: Any, **options: Any) -> Any:
        """Trains by the person's own `fit`, if there is one."""
        if not self.has_own_fit:
            return model.fit(*arguments, **options)
        with self.space.opened(hp, self.read):
            return self.inner.fit(hp, model, *arguments, **options)


class Work:
    """What every trial of a search shares.

    Args:
        dealt: The table with the column `fold`; its index counts its rows from 0.
        store: Where results are kept.
        recipe: As for `fitting.run_fold`.
        seed: That of fold 0; each further fold has the next, the same at every point, so that points are compared on
            equal terms.
        group: As in `cross_validate`.
    """

    def __init__(
        self, dealt: pd.DataFrame, *, store: Store, recipe: dict[str, Any], seed: int, group: str | None
    ) -> None:
        self.store, self.recipe, self.seed, self.group = store, recipe, seed, group
        self.dealt = dealt
        self.count = int(dealt["fold"].max()) + 1
        self.embeddings = Embeddings(dealt.drop(columns="fold"))
        self.folds: dict[Any, Fold] = {}

    def fold(self, number: int, recipe: dict[str, Any]) -> Fold:
        """The rows of one fold, which are the same at every point of equal patience."""
        key = (number, recipe["patience"])
        if key not in self.folds:
            seed = self.seed + number
            self.folds[key] = deal(self.dealt, number, seed=seed, group=self.group, patience=recipe["patience"])
        return self.folds[key]


class FoldTuner(kt.Tuner):
    """KerasTuner's Tuner, with a trial that trains and scores k folds and keeps each of them.

    Args:
        oracle: Which points.
        hypermodel: How they are built.
        work: What every trial shares.
        folder: Where KerasTuner keeps its files, too.
    """

    def __init__(self, oracle: Any, hypermodel: Opened, *, work: Work, folder: Path) -> None:
        self.work = work
        self.bar: Any = None
        self.waits = False
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
        name, folder = f"trial_{trial.trial_id}", Path(self.get_trial_dir(trial.trial_id))
        found = self.work.store.get(name, only="scores")
        try:
            if found is None:
                found = self._folds(name, trial.hyperparameters)
        except Exception as error:  # whatever a model or its data may raise: the other points are still wanted
            problem = f"{type(error).__name__}: {error}"
            with atomic_path(folder / PROBLEM) as temporary:
                temporary.write_text(problem, encoding="utf-8")
            raise kt.errors.FailedTrialError(problem) from error
        problems = [text for text in found["scores"]["problem"] if text]
        if problems:
            raise kt.errors.FailedTrialError(problems[0])
        return {OBJECTIVE: float(found["scores"]["accuracy"].mean())}

    def _folds(self, name: str, hp: kt.HyperParameters) -> Tables:
        folder, work = Path(self.project_dir) / name, self.work
        point = self.hypermodel.space.behind(hp.values)
        recipe = recipe_at(work.recipe, point)
        parts = {number: work.store.get(f"{name}/fold_{number}") for number in range(work.count)}
        if all(part is None for part in parts.values()) and self._together({name: hp}):
            return work.store.get(name, only="scores") or {}
        for number in range(work.count):
            if parts[number] is None:
                rows = work.fold(number, recipe)
                seed, fit = work.seed + number, self.fit_at(hp)
                fitted = run_fold(
                    lambda: self.hypermodel.build(hp),
                    rows,
                    seed=seed,
                    recipe=recipe,
                    fit=fit,
                    embeddings=work.embeddings,
                )
                save_weights(fitted.model, folder / f"fold_{number}.weights.h5")
                work.store.put(f"{name}/fold_{number}", fitted.tables)
                parts[number] = fitted.tables
        tables = joined({number: part for number, part in parts.items() if part is not None})
        best = int(tables["scores"]["accuracy"].fillna(-1).argmax())
        if (folder / f"fold_{best}.weights.h5").is_file():
            (folder / f"fold_{best}.weights.h5").replace(folder / CHECKPOINT)
        for number in range(work.count):
            (folder / f"fold_{number}.weights.h5").unlink(missing_ok=True)
        work.store.put(name, tables)
        return tables

    def fit_at(self, hp: kt.HyperParameters) -> Any:
        """The person's own `fit` at a point, with the model first; None if there is none."""
        if not self.hypermodel.has_own_fit:
            return None
        return lambda model, *arguments, **options: self.hypermodel.fit(hp, model, *arguments, **options)

    def train_together(self, points: list[dict[str, Any]]) -> None:
        """Trains all points of a grid whose heads can be trained side by side, before the search comes to them."""
        waiting = {}
        for number, values in enumerate(points):
            name = f"trial_{number:04d}"
            if not self.work.store.has(name) and not self.work.store.has(f"{name}/fold_0"):
                waiting[name] = self.oracle.get_space()
                waiting[name].values = dict(values)
        self._together(waiting)

    def _together(self, points: dict[str, kt.HyperParameters]) -> bool:
        """Trains points as one program and keeps the results of those that allow it; whether all did."""
        if self.hypermodel.has_own_fit:
            return False
        jobs: dict[str, Job] = {}
        for name, hp in points.items():
            recipe = recipe_at(self.work.recipe, self.hypermodel.space.behind(hp.values))
            if recipe.get("augment") is not None:
                continue
            try:
                model = self.hypermodel.build(hp)
            except Exception:  # the search comes to this point and says what is wrong
                continue
            if not jobs and frozen.split(model) is None:
                return False  # nothing is frozen: not worth building the other points
            folds = {number: self.work.fold(number, recipe) for number in range(self.work.count)}
            jobs[name] = Job(model, folds, recipe, self.work.seed)
        results = run_together(jobs, self.work.embeddings)
        for name, by_fold in results.items():
            tables = joined({number: part for number, (part, _) in by_fold.items()})
            best = int(tables["scores"]["accuracy"].fillna(-1).argmax())
            with atomic_path(Path(self.project_dir) / name / HEAD) as temporary, temporary.open("wb") as file:
                np.savez(file, *by_fold[best][1])
            self.work.store.put(name, tables)
        return set(results) == set(points)

    def load_model(self, trial: Any) -> keras.Model:
        """The model of a trial with the weights of its best fold."""
        kept = Path(self.get_trial_dir(trial.trial_id)) / HEAD
        model = self.hypermodel.build(trial.hyperparameters)
        if not kept.is_file():
            return load_weights(model, kept.with_name(CHECKPOINT))
        parts = frozen.split(model)
        head = None if parts is None else head_of(parts.head, compiled_as=model)
        if head is None:
            raise ValueError(f"`build` returns another model than the one that was searched with, at {kept.parent}.")
        with np.load(kept) as file:
            head.assign([file[name] for name in file.files])
        return model


def save_weights(model: keras.Model, path: Path) -> None:
    """Writes weights whole or not at all; Keras wants names that end in `.weights.h5`, also of the temporary file."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        model.save_weights(Path(folder) / path.name)
        (Path(folder) / path.name).replace(path)


def load_weights(model: keras.Model, path: Path) -> keras.Model:
    """Reads what `save_weights` wrote, the state of the optimizer included."""
    model.optimizer.build(model.trainable_variables)
    model.load_weights(path)
    return model


def joined(parts: dict[int, Tables]) -> Tables:
    """The tables of all folds of a point in one, with the column `fold`; scores say whether the loss was a number."""
    result: Tables = {
        key: pd.concat([part[key].assign(fold=number) for number, part in sorted(parts.items())], ignore_index=True)
        for key in ("scores", "history", "predictions")
    }
    problems = [_problem(part["history"]) for _, part in sorted(parts.items())]
    scores = result["scores"].assign(problem=problems)
    broken = scores["problem"] != ""
    result["scores"] = scores.assign(
        **{name: scores[name].where(~broken) for name in ("accuracy", "balanced_accuracy")}
    )
    return result


def _problem(history: pd.DataFrame) -> str:
    losses = history["loss"] if "loss" in history else pd.Series(dtype=float)
    bad = np.flatnonzero(~np.isfinite(losses.to_numpy(dtype=float)))
    if not len(bad):
        return ""
    return (
        f"The loss is not a number from epoch {int(bad[0]) + 1} on. A lower learning rate, or gradient clipping "
        "(clipnorm=1.0 in the optimizer), is the usual remedy."
    )

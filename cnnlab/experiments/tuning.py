"""The tuner: a `kt.Tuner` whose trial is a cross-validation, kept fold by fold.

Oracles keep nothing: the same call proposes the same points again, and those whose folds are kept take no time.
"""

import contextlib
import functools
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import keras_tuner as kt
import numpy as np
import pandas as pd
from keras_tuner.engine.trial import Trial, TrialStatus

from cnnlab import _upstream
from cnnlab._common import atomic_path, is_quiet, is_whole, read_arrays, read_bytes
from cnnlab.experiments.runner import Runner, Trained, fresh_session, rows_of_folds
from cnnlab.experiments.search_space import Space, recipe_at
from cnnlab.experiments.store import FACTS, SETTINGS, Store
from cnnlab.experiments.training_run import Recipe, TrainingRun, compiled, names_of, settle_preparation
from cnnlab.models.fingerprint import describe, network_facts
from cnnlab.models.naming import is_built
from cnnlab.tables.linking import Group

SCORES = ("val_accuracy", "val_balanced_accuracy")  # from predictions, whatever the network logs
FACTOR = 3  # of Hyperband: one in so many goes on to the next round
WEIGHTS = "weights.npz"  # of the best fold of a trial
FAILED = "failed.txt"  # why a trial could not be trained, where later points follow from that
ROOM = 1024  # bytes that names and shapes of one array take in a file of weights


class Bayesian(kt.oracles.BayesianOptimizationOracle):  # type: ignore[misc]
    """Points where a Gaussian process expects something better, none twice."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next point."""
        found = super().populate_space(trial_id)
        if found.get("values") and self._duplicate(found["values"]):
            return self._random_populate_space()
        return found


def objective_of(objective: Any) -> kt.Objective:
    """A name that training logs, with its direction as Keras has it.

    >>> objective_of("val_loss").direction
    'min'
    """
    if isinstance(objective, kt.Objective):
        return objective
    if not isinstance(objective, str) or not objective.startswith("val_"):
        raise ValueError(
            "`objective` expects a score of the held-out images, such as 'val_accuracy' or 'val_loss', or a "
            f"kt.Objective. Received: {objective!r}."
        )
    name = re.sub(r"_\d+$", "", objective.removeprefix("val_"))  # auc_1 is the second AUC of a session
    direction = "max" if objective in SCORES else "min" if name.endswith("loss") else None
    kinds = {kind.lower(): kind for kind in dir(keras.metrics)}
    for candidate in (name, kinds.get(name.replace("_", ""), name)):
        with contextlib.suppress(ValueError, TypeError):  # no metric of Keras's, or one that needs arguments
            metric = keras.metrics.get(candidate)
            direction = direction or _upstream.metric_direction(metric() if isinstance(metric, type) else metric)
    if direction is None:
        raise ValueError(
            f"`objective` expects a name whose direction Keras knows. Received: {objective!r}. Say which is better: "
            f"kt.Objective({objective!r}, 'max') or 'min', after `import keras_tuner as kt`."
        )
    return kt.Objective(objective, direction)


def make_oracle(method: str, *, objective: Any, space: Space, seed: int, trials: int | None, epochs: int) -> kt.Oracle:
    """The oracle for a method: grid, random, hyperband or bayesian."""
    kinds = {
        "grid": kt.oracles.GridSearchOracle,
        "random": kt.oracles.RandomSearchOracle,
        "hyperband": kt.oracles.HyperbandOracle,
        "bayesian": Bayesian,
    }
    if method not in kinds:
        raise ValueError(f"`method` expects one of {', '.join(map(repr, kinds))}. Received: {method!r}.")
    counted = method in ("random", "bayesian")
    if (trials is not None) != counted:
        raise ValueError(
            "`trials`, the number of points to try, is for method='random' and method='bayesian', which need it. "
            f"Received: method={method!r}, trials={trials!r}."
        )
    if trials is not None and not is_whole(trials):
        raise ValueError(f"`trials` expects a number of points, 1 or more. Received: {trials!r}.")
    options: dict[str, Any] = {"max_trials": trials} if counted else {}
    options |= {"max_epochs": epochs, "factor": FACTOR} if method == "hyperband" else {}
    return kinds[method](
        objective=objective_of(objective),
        hyperparameters=space.hyperparameters,
        tune_new_entries=not space.fixed,
        seed=seed + 1,  # KerasTuner takes 0 for none
        max_consecutive_failed_trials=10**9,  # a point that cannot be trained is not a reason to lose the others
        **options,
    )


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


class DivergedError(kt.errors.FailedTrialError):  # type: ignore[misc]
    """A trial whose folds are all kept, but whose loss was not a number."""


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
        self.score = str(oracle.objective.name).removeprefix("val_")
        self.claimed: set[str] = set()
        self.broken: set[str] = set()  # trials that ended with an error
        where = Path(folder).expanduser().resolve()
        super().__init__(oracle, hypermodel, directory=str(where.parent), project_name=where.name)

    def _populate_initial_space(self) -> None:
        if self.hypermodel.space.fixed:
            self.oracle.update_space(self.hypermodel.space.hyperparameters)
        else:
            super()._populate_initial_space()

    def save(self) -> None:
        """Writes nothing: what decides how a search goes on are the folds that are kept."""

    def reload(self) -> None:
        """Reads nothing of what another KerasTuner may have written into the folder."""
        self._populate_initial_space()

    def search(self, **options: Any) -> None:
        """Runs all trials, those of a grid with frozen backbones side by side."""
        from tqdm.auto import tqdm

        if isinstance(self.oracle, kt.oracles.GridSearchOracle) and self.hypermodel.space.fixed:
            self._train_together()
        with tqdm(desc="search", unit="trial", disable=is_quiet(), leave=False) as self.bar:
            super().search(verbose=0, **options)

    def _train_together(self) -> None:
        """Trains all points of a grid whose heads can be trained side by side, before the search comes to them."""
        runs, broken = [], False
        for number, values in enumerate(self.hypermodel.space.points()):
            hp = self.oracle.get_space()
            hp.values = values
            try:
                runs += self.runs(Trial(hp, f"{number:04d}"))
            except FileExistsError:
                raise
            except Exception:  # the search comes to this point and says what is wrong
                broken = True
        if not broken and self.hypermodel.own_fit is None:  # which may read them, too
            self.hypermodel.space.require_effect(self.hypermodel.read)
        self.runner.train_heads(runs)

    def on_trial_end(self, trial: Any) -> None:
        """Counts."""
        super().on_trial_end(trial)
        self.bar.update()

    def _try_run_and_update_trial(self, trial: Any, *arguments: Any, **options: Any) -> None:
        """As KerasTuner's, without the traceback on the screen: the search says at its end what went wrong."""
        note = Path(self.project_dir) / f"trial_{trial.trial_id}" / FAILED
        if note.is_file() and self._is_followed(trial):
            why = read_bytes(note, limit=2**20).decode(errors="replace")
            why += " (in an earlier call, and later points follow from that; to try it again, name another folder)"
            trial.status, trial.message = TrialStatus.FAILED, why
            self.broken.add(trial.trial_id)
            return
        note.unlink(missing_ok=True)
        try:
            self._run_and_update_trial(trial, *arguments, **options)
            trial.status = TrialStatus.COMPLETED
        except FileExistsError:
            raise
        except Exception as error:  # whatever a model or its data may raise: the other points are still wanted
            trial.status, trial.message = TrialStatus.FAILED, f"{type(error).__name__}: {error}"
            if isinstance(error, DivergedError):
                return
            self.broken.add(trial.trial_id)
            adapts = isinstance(self.oracle, Bayesian | kt.oracles.HyperbandOracle)
            if adapts and not self._is_followed(trial):  # by points that followed from its success
                with contextlib.suppress(OSError), atomic_path(note) as temporary:
                    temporary.write_text(trial.message, encoding="utf-8")

    def _is_followed(self, trial: Any) -> bool:
        """Whether a later point has been tried."""
        later = (path.parent.name for path in Path(self.project_dir).glob(f"trial_*/{SETTINGS}"))
        return any(name > f"trial_{trial.trial_id}" for name in later)

    def run_trial(self, trial: Any, **options: Any) -> dict[str, float]:
        """Trains the folds of a point that are not kept yet; DivergedError where a loss was not a number."""
        found = self.runner.results(self.runs(trial))
        scores = pd.concat([tables["scores"] for tables in found], ignore_index=True)
        for problem in scores["problem"]:
            if isinstance(problem, str) and problem:
                raise DivergedError(problem)
        if self.score not in scores:
            known = ", ".join(f"val_{column}" for column in scores if column not in FACTS)
            raise ValueError(f"`objective` expects one of {known}. Received: {self.oracle.objective.name!r}.")
        return {self.oracle.objective.name: float(scores[self.score].mean())}

    def runs(self, trial: Any) -> list[TrainingRun]:
        """The training runs of a trial, one for each fold; refuses kept results of another network or point."""
        name, hp = f"trial_{trial.trial_id}", trial.hyperparameters
        point = self.hypermodel.space.behind(hp.values)
        if name not in self.claimed:
            fresh_session(self.seed)
            self.store.claim(name, network_facts(self.hypermodel.build(hp)) | {"point": describe(point)})
            self.claimed.add(name)

        def fit(model: keras.Model, *arguments: Any, **options: Any) -> Any:
            return self.hypermodel.fit(hp, model, *arguments, **options)

        recipe = replace(recipe_at(self.recipe, point), fit=None if self.hypermodel.own_fit is None else fit)
        build = functools.partial(self.hypermodel.build, hp)
        return [
            TrainingRun(f"{name}/fold_{fold}", build, rows, seed, recipe)
            for (_, fold), (seed, rows) in self.parts(patience=recipe.patience).items()
        ]

    def _keep_best(self, run: TrainingRun, trained: Trained) -> None:
        """Keeps the weights of a fold if it is the best of its trial so far."""
        trial, _, _ = run.name.partition("/")
        kept = [self.store.get(f"{trial}/fold_{fold}", only="scores") for fold in range(self.folds)]
        others = [self._rank(tables["scores"]) for tables in kept if tables is not None]
        if self._rank(trained.tables["scores"]) > max(others, default=-np.inf) or not others:
            save_weights(trained.model, Path(self.project_dir) / trial / WEIGHTS)

    def _rank(self, scores: pd.DataFrame) -> float:
        value = float(scores[self.score].iloc[0]) if self.score in scores else np.nan
        return -np.inf if np.isnan(value) else value if self.oracle.objective.direction == "max" else -value

    def load_model(self, trial: Any, file: str = WEIGHTS) -> keras.Model:
        """The model of a trial with the weights of its best fold, or of another file."""
        model = self.hypermodel.build(trial.hyperparameters)
        prepared = settle_preparation(model, self.runs(trial)[0].recipe, names_of(self.table))
        if not is_built(model):
            model(np.zeros((1, *prepared.image_size, prepared.channels), np.float32))
        return load_weights(model, Path(self.project_dir) / f"trial_{trial.trial_id}" / file)


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
        arrays = read_arrays(path, limit=expected)
        values = [arrays[f"arr_{number}"] for number in range(len(arrays))]
    except Exception as error:  # zipfile, zlib and numpy raise kinds of their own on what somebody made up
        raise ValueError(f"{str(path)!r} holds no weights that can be read: {error}.") from error
    if len(values) != len(variables):
        variables = model.weights  # a head that was trained on features has an optimizer of its own
    if [value.shape for value in values[: len(variables)]] != [tuple(variable.shape) for variable in variables]:
        raise ValueError(f"`build` returns another model than the one whose weights are in {str(path)!r}.")
    for variable, value in zip(variables, values, strict=False):
        variable.assign(value)
    return model

"""KerasTuner's oracles with a complete state: whenever the process ends, the search goes on as if it had not."""

import contextlib
import re
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import keras_tuner as kt
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from cnnlab import _upstream
from cnnlab.experiments.search_space import Space
from cnnlab.experiments.store import PROBLEM, damaged, read_state, require_name, write_json

SCORES = ("val_accuracy", "val_balanced_accuracy")  # from predictions, whatever the network logs
STATUSES = {value for name, value in vars(TrialStatus).items() if name.isupper()}
PLAIN = (bool, int, float, str, type(None))  # what a value of a point may be
FACTOR = 3  # of Hyperband: one in so many goes on to the next round


class Complete(kt.Oracle):  # type: ignore[misc]
    """Keeps the state of an oracle in one file, trials included, which is written whole or not at all.

    KerasTuner writes several files one after the other, and notes that a trial is over only after it has written that
    it is still running: a process that ends in between loses a trial, or runs one again.
    """

    start_order: list[str]
    end_order: list[str]
    ongoing_trials: dict[str, Trial]
    _retry_queue: list[str]

    def get_state(self) -> dict[str, Any]:
        """Everything."""
        return super().get_state() | {"trials": {name: trial.get_state() for name, trial in self.trials.items()}}

    def save(self) -> None:
        """Writes the state."""
        write_json(self._get_oracle_fname(), self.get_state())

    def reload(self) -> None:
        """Reads the state. Trials that were running, or that ended with an error, are run again."""
        path = Path(self._get_oracle_fname())
        state = read_oracle(path)
        try:
            self.trials = {name: Trial.from_state(trial) for name, trial in state["trials"].items()}
            self.set_state(state)
            for name in {*self.start_order, *self.end_order, *self._id_to_hash, *self._retry_queue}:
                require_name(name, path.parent)
            again = {name for name, trial in self.trials.items() if not self._is_over(trial)}
            self.end_order = [name for name in self.end_order if name in self.trials and name not in again]
        except Exception as error:  # whatever KerasTuner does with a state that somebody made up
            raise damaged(path, f"{type(error).__name__}: {error}") from error
        self.ongoing_trials = {}
        self._retry_queue = sorted(again, reverse=True)  # taken from the end

    def _is_over(self, trial: Trial) -> bool:
        """Whether a trial has a result, if only that its loss is not a number; an error may have been repaired."""
        note = Path(self._get_trial_dir(trial.trial_id)) / PROBLEM
        return trial.status == TrialStatus.COMPLETED or (trial.status == TrialStatus.FAILED and not note.is_file())

    @kt.synchronized  # type: ignore[untyped-decorator]
    def give_up(self, tuner_id: str) -> None:
        """Takes the trial of a worker that died, for the next one that asks."""
        trial = self.ongoing_trials.pop(tuner_id, None)
        self.tuner_ids.discard(tuner_id)
        if trial is not None:
            self._retry_queue.append(trial.trial_id)


class GridOracle(Complete, kt.oracles.GridSearchOracle):
    """Every point of the space once, in order. Which one comes next follows from the last one alone."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of the next point; waits for other workers before it says that there is none."""
        values = self.after(self.trials[max(self.trials)].hyperparameters.values if self.trials else None)
        if values is not None:
            return {"status": TrialStatus.RUNNING, "values": values}
        return {"status": TrialStatus.IDLE if self.ongoing_trials else TrialStatus.STOPPED, "values": None}

    def after(self, values: dict[str, Any] | None) -> dict[str, Any] | None:
        """The point that follows; the first one after None, and None after the last."""
        if values is not None:
            return self._get_next_combination(values)
        space = self.get_space()
        space.values = {}
        for hp in space.space:
            if space.is_active(hp):
                space.values[hp.name] = hp.default
        return dict(space.values)

    def points(self) -> list[dict[str, Any]]:
        """All of them, in order."""
        found: list[dict[str, Any]] = []
        while (values := self.after(found[-1] if found else None)) is not None:
            found.append(values)
        return found


class RandomOracle(Complete, kt.oracles.RandomSearchOracle):
    """Points at random, none twice."""


class HyperbandOracle(Complete, kt.oracles.HyperbandOracle):
    """Many points for few epochs, the best of them for more."""


class BayesianOracle(Complete, kt.oracles.BayesianOptimizationOracle):
    """Points where a Gaussian process expects something better, none twice."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next point; its draws follow from the seed and the number of trials, so that they survive a restart."""
        self._random_state = np.random.RandomState([self.seed, len(self.trials)])
        found = super().populate_space(trial_id)
        if found.get("values") and self._duplicate(found["values"]):
            return self._random_populate_space()
        return found


def read_oracle(path: Path) -> dict[str, Any]:
    """The state of an oracle, with trials whose names stay inside the folder and whose values are plain."""
    state = read_state(path)
    trials = state.get("trials") if isinstance(state, dict) else None
    if not isinstance(trials, dict):
        raise damaged(path, "it names no trials")
    for name, trial in trials.items():
        require_name(name, path.parent)
        known = isinstance(trial, dict) and trial.get("trial_id") == name and str(trial.get("status")) in STATUSES
        space = trial.get("hyperparameters") if known else None
        values = space.get("values") if isinstance(space, dict) else None
        if not isinstance(values, dict) or not all(isinstance(value, PLAIN) for value in values.values()):
            raise damaged(path, f"its trial {name!r} does not have the fields of a trial")
    return state


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
    kinds = {"grid": GridOracle, "random": RandomOracle, "hyperband": HyperbandOracle, "bayesian": BayesianOracle}
    if method not in kinds:
        raise ValueError(f"`method` expects one of {', '.join(map(repr, kinds))}. Received: {method!r}.")
    counted = method in ("random", "bayesian")
    if (trials is not None) != counted:
        raise ValueError(
            "`trials`, the number of points to try, is for method='random' and method='bayesian', which need it. "
            f"Received: method={method!r}, trials={trials!r}."
        )
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
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

"""KerasTuner's oracles with a complete state: whenever the process ends, the search goes on as if it had not."""

import json
import os
import re
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import keras_tuner as kt
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from cnnlab._common import atomic_path
from cnnlab.experiments.store import read_state, require_name

METHODS = ("grid", "random", "hyperband", "bayesian")
SCORES = ("val_accuracy", "val_balanced_accuracy")  # from predictions, whatever the network logs
STATUSES = {value for name, value in vars(TrialStatus).items() if name.isupper()}
ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)
PROBLEM = "problem.txt"  # in the folder of a trial that ended with an error
FACTOR = 3  # of Hyperband: one in so many goes on to the next round


class Complete:
    """Keeps the state of an oracle in one file, trials included, which is written whole or not at all.

    KerasTuner writes several files one after the other, and notes that a trial is over only after it has written that
    it is still running: a process that ends in between loses a trial, or runs one again.
    """

    def get_state(self) -> dict[str, Any]:
        """Everything."""
        return super().get_state() | {"trials": {name: trial.get_state() for name, trial in self.trials.items()}}  # type: ignore[misc, attr-defined]

    def save(self) -> None:
        """Writes the state."""
        write_json(self._get_oracle_fname(), self.get_state())  # type: ignore[attr-defined]

    def reload(self) -> None:
        """Reads the state. Trials that were running, or that ended with an error, are run again.

        Raises:
            ValueError: If the file is damaged.
        """
        path = Path(self._get_oracle_fname())  # type: ignore[attr-defined]
        state = read_oracle(path)
        try:
            self.trials = {name: Trial.from_state(trial) for name, trial in state["trials"].items()}
            self.set_state(state)  # type: ignore[attr-defined]
            named = {*self.start_order, *self.end_order, *self._id_to_hash, *self._retry_queue}  # type: ignore[has-type, attr-defined]
            for name in named:
                require_name(name, path.parent)
            again = [name for name, trial in self.trials.items() if not self.is_over(trial)]
            self.end_order = [name for name in self.end_order if name in self.trials and name not in again]  # type: ignore[has-type]
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise ValueError(
                f"{str(path)!r} is damaged: {type(error).__name__}: {error}. Move the folder away and call again, or "
                "name another one."
            ) from error
        self.ongoing_trials: dict[str, Trial] = {}
        self._retry_queue = sorted(again, reverse=True)  # taken from the end

    def is_over(self, trial: Trial) -> bool:
        """Whether a trial has a result, if only that its loss is not a number; an error may have been repaired."""
        return trial.status == TrialStatus.COMPLETED or (
            trial.status == TrialStatus.FAILED and not (Path(self._get_trial_dir(trial.trial_id)) / PROBLEM).is_file()  # type: ignore[attr-defined]
        )

    @kt.synchronized
    def give_up(self, tuner_id: str) -> None:
        """Takes the trial of a worker that died, for the next one that asks."""
        trial = self.ongoing_trials.pop(tuner_id, None)
        self.tuner_ids.discard(tuner_id)  # type: ignore[attr-defined]
        if trial is not None:
            self._retry_queue.append(trial.trial_id)


class GridOracle(Complete, kt.oracles.GridSearchOracle):
    """Every point of the space once, in order. Which one comes next follows from the last one alone."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of the next point; waits for other workers before it says that there is none."""
        last = self.trials[max(self.trials)].hyperparameters.values if self.trials else None
        values = self.after(last)
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
        found, values = [], self.after(None)
        while values is not None:
            found.append(values)
            values = self.after(values)
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
    """The state of an oracle, with trials whose names stay inside the folder and whose values are plain.

    Raises:
        ValueError: If the file is damaged.
    """
    state = read_state(path)
    trials = state.get("trials") if isinstance(state, dict) else None
    if not isinstance(trials, dict):
        raise ValueError(f"{str(path)!r} is damaged: it names no trials. Move the folder away, or name another one.")
    for name, trial in trials.items():
        require_name(name, path.parent)
        known = isinstance(trial, dict) and trial.get("trial_id") == name and trial.get("status") in STATUSES
        space = trial.get("hyperparameters") if known else None
        values = space.get("values") if isinstance(space, dict) else None
        if not isinstance(values, dict) or not all(_is_plain(value) for value in values.values()):
            raise ValueError(
                f"{str(path)!r} is damaged: its trial {name!r} does not have the fields of a trial. Move the folder "
                "away and call again, or name another one."
            )
    return state


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def objective_of(objective: Any) -> kt.Objective:
    """A name that training logs, with its direction as Keras has it.

    Example:
        >>> objective_of("val_loss").direction
        'min'

    Raises:
        ValueError: If nobody knows which direction is better.
    """
    if isinstance(objective, kt.Objective):
        return objective
    if not isinstance(objective, str) or not objective.startswith("val_"):
        raise ValueError(
            "`objective` expects a score of the held-out images, such as 'val_accuracy' or 'val_loss', or a "
            f"kt.Objective. Received: {objective!r}."
        )
    name = objective.removeprefix("val_")
    known = "max" if objective in SCORES else "min" if name.endswith("loss") else _direction(name)
    if known is None:
        raise ValueError(
            f"`objective` expects a name whose direction Keras knows. Received: {objective!r}. Say which is better: "
            f"kt.Objective({objective!r}, 'max') or 'min', after `import keras_tuner as kt`."
        )
    return kt.Objective(objective, known)


def _direction(name: str) -> str | None:
    """Which is better of a metric of Keras's, "max" or "min", by the name it logs under; None for any other."""
    plain = re.sub(r"_\d+$", "", name)  # auc_1 is the second AUC of a session
    camel = "".join(part.capitalize() for part in plain.split("_"))
    kinds = {kind.lower(): kind for kind in dir(keras.metrics)}
    for candidate in (plain, kinds.get(camel.lower(), camel)):
        try:
            metric = keras.metrics.get(candidate)
            metric = metric() if isinstance(metric, type) else metric
        except (ValueError, TypeError):
            continue
        if getattr(metric, "_direction", None) in ("up", "down"):
            return "max" if metric._direction == "up" else "min"
    return None


def make_oracle(
    method: str, *, objective: Any, hyperparameters: Any, fixed: bool, seed: int, trials: int | None, epochs: int
) -> Any:
    """The oracle for a method.

    Args:
        method: One of METHODS.
        objective: What is best at the best point.
        hyperparameters: The space, or None.
        fixed: Whether nothing may be added to the space.
        seed: Any whole number.
        trials: How many points; for random and Bayesian search.
        epochs: The most that Hyperband trains.

    Raises:
        ValueError: If there is no such method, or `trials` does not go with it.
    """
    if method not in METHODS:
        raise ValueError(f"`method` expects one of {', '.join(map(repr, METHODS))}. Received: {method!r}.")
    if (trials is None) == (method in ("random", "bayesian")):
        raise ValueError(
            "`trials`, the number of points to try, is for method='random' and method='bayesian', which need it. "
            f"Received: method={method!r}, trials={trials!r}."
        )
    if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
        raise ValueError(f"`trials` expects a number of points, 1 or more. Received: {trials!r}.")
    common: dict[str, Any] = {
        "objective": objective_of(objective),
        "hyperparameters": hyperparameters,
        "tune_new_entries": not fixed,
        "seed": seed + 1,  # KerasTuner takes 0 for none
        "max_consecutive_failed_trials": 10**9,  # a point that cannot be trained is no reason to lose the others
    }
    if method == "grid":
        return GridOracle(**common)
    if method == "random":
        return RandomOracle(max_trials=trials, **common)
    if method == "bayesian":
        return BayesianOracle(max_trials=trials, **common)
    return HyperbandOracle(max_epochs=epochs, factor=FACTOR, **common)


def write_json(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Writes a state whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(state, default=float), encoding="utf-8")

"""What a search gives: results, ranking, best model, and whether the winner was better or lucky."""

import warnings
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd
import scipy.stats

from cnnlab import metrics, tables
from cnnlab.experiments.training_run import Rows, train_val_rows
from cnnlab.experiments.validation import cross_validate
from cnnlab.tables.linking import Group

BEST = "best.npz"  # weights of the network that was trained on all rows
WHOLE = 999  # added to the seed where a model is trained on all rows
LEVEL = 0.05
PLACES = ("winner", "runner-up")
SCORES = {"accuracy": "val_accuracy", "balanced_accuracy": "val_balanced_accuracy", "epochs": "epochs_trained"}


class Confirmation(NamedTuple):
    """What `Search.confirm` gives.

    Attributes:
        scores: One row per setting and seed: place ("winner" or "runner-up"), trial, seed, accuracy over all folds.
        comparison: One row: accuracy of the winner and the runner-up, difference (winner less runner-up), p_images
            (would it hold on other images? a paired bootstrap over images), p_seeds (would it hold with other seeds? a
            paired t test over seeds), low and high (the difference's 95 % interval by the more doubtful of the two),
            and verdict: "winner", "runner-up" or, where that interval includes zero, "noise".
        predictions: Of winner and runner-up, one row per seed and image; prediction tables.
        searched: The accuracy that the search gave the winner. It is the best of many, hence too high on average.
    """

    scores: pd.DataFrame
    comparison: pd.DataFrame
    predictions: dict[str, pd.DataFrame]
    searched: float

    @property
    def trial(self) -> int:
        """The trial to use: that of the runner-up where it is better, else that of the winner."""
        place = PLACES[self.comparison["verdict"].item() == "runner-up"]
        return int(self.scores.loc[self.scores["place"] == place, "trial"].iloc[0])

    @property
    def verdict(self) -> str:
        """The comparison in a sentence."""
        row = self.comparison.iloc[0]
        numbers = (
            f"{row['winner']:.3f} against {row['runner_up']:.3f}; difference {row['difference']:+.3f}, "
            f"95 % interval {row['low']:+.3f} to {row['high']:+.3f}; the search had said {self.searched:.3f}"
        )
        words = {
            "noise": "Noise: winner and runner-up cannot be told apart",
            "winner": "The winner is better than the runner-up",
            "runner-up": "The runner-up is better than the winner",
        }
        return f"{words[row['verdict']]} ({numbers})."


class Search:
    """What a search gives.

    Attributes:
        tuner: KerasTuner's own; `tuner.get_best_hyperparameters()` and all else works.
        folder: Where everything is kept.
        results: One row per trial and fold: trial, the values of the point, fold, val_accuracy, val_balanced_accuracy,
            images, epochs_trained, seconds, problem ("" or why there is no score).
    """

    def __init__(self, tuner: Any) -> None:
        self.tuner = tuner
        self.folder = Path(tuner.project_dir)
        self._space = tuner.hypermodel.space
        self.objective = tuner.oracle.objective

    def __repr__(self) -> str:
        best, trials = self.ranking().iloc[0], self.results["trial"].nunique()
        score = f"{best['mean']:.3f} ± {best['sd']:.3f}"
        return f"<Search of {trials} trials × {self.tuner.folds} folds; best: {self._in_words(best)} with {score}>"

    def _in_words(self, row: pd.Series) -> str:
        return ", ".join(f"{name}={row[name]}" for name in self.parameters)

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row per trial and fold."""
        rows = []
        for number, trial in enumerate(self._trials):
            scores = self._kept(trial, "scores")
            if scores is None:
                scores = pd.DataFrame({"fold": range(self.tuner.folds)}).assign(problem=trial.message)
            scores = scores.rename(columns=lambda column: SCORES.get(column, column))
            scores = scores.rename(columns={self.objective.name.removeprefix("val_"): self.objective.name})
            rows.append(scores.assign(trial=number, **self._space.shown(trial.hyperparameters.values)))
        table = pd.concat(rows, ignore_index=True)
        first = ["trial", *self.parameters, "fold", self.objective.name, "val_accuracy", "val_balanced_accuracy"]
        last = ["images", "epochs_trained", "seconds", "problem"]
        return table.reindex(columns=list(dict.fromkeys([*first, *last]))).astype({"problem": "str"})

    @cached_property
    def parameters(self) -> list[str]:
        """Names of what was searched."""
        points = (self._space.shown(trial.hyperparameters.values) for trial in self._trials)
        return list(dict.fromkeys(name for values in points for name in values))

    @property
    def histories(self) -> pd.DataFrame:
        """One row per trial, fold and epoch."""
        return self._all("history")

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per trial and image, predicted by a network that did not see it; of one trial, a prediction table."""
        return self._all("predictions")

    def ranking(self) -> pd.DataFrame:
        """One row per trial, the best first: its values, mean and standard deviation of the objective over folds."""
        groups = self.results.groupby("trial", sort=True)
        scores = groups[self.objective.name].agg(mean=lambda values: values.mean(skipna=False), sd="std")
        table = groups[self.parameters].first().join(scores).join(groups["seconds"].sum())
        return table.sort_values("mean", ascending=self.objective.direction == "min", kind="stable").reset_index()

    @property
    def best(self) -> dict[str, Any]:
        """The values of the best point, as `build` gets them."""
        return self._space.behind(self._trials[self.ranking()["trial"].iloc[0]].hyperparameters.values)

    def best_model(self, *, trial: int | None = None, refit: bool = True) -> keras.Model:
        """A network with the settings of the best point.

        Args:
            trial: Another point, by its number in `results`, such as `confirm(…).trial`.
            refit: Whether it is trained anew on all rows, once; it is kept. False gives the one of the best fold, which
                is there already and has not seen the images of that fold.

        Returns:
            A trained, compiled model. It says how its images were prepared (`models.preparation`), a `resize` of the
            grid included.
        """
        from cnnlab.experiments.tuning import save_weights

        point = self._trials[self.ranking()["trial"].iloc[0] if trial is None else trial]
        tuner, kept = self.tuner, self.folder / f"trial_{point.trial_id}" / BEST
        if not refit or kept.is_file():
            return tuner.load_model(point, *([BEST] if refit else []))
        rows, seed, example = tuner.table, tuner.seed + WHOLE, tuner.runs(point)[0]
        learned = train_val_rows(rows, seed=seed, group=tuner.group, patience=example.recipe.patience)
        run = replace(example, name=BEST, rows=Rows(*learned, rows.iloc[:0]), seed=seed)
        model = tuner.runner.train(run).model
        save_weights(model, kept)
        return model

    def confirm(self, *, seeds: int = 5) -> Confirmation:
        """Is the winner better than the runner-up, or was it lucky?

        The best of many points was also the luckiest: its score is too high, and another one may be as good. Both are
        cross-validated again with seeds, and folds, that the search has not seen.

        Args:
            seeds: How often, 2 or more.

        Returns:
            scores, comparison and verdict; see `Confirmation`.

        Raises:
            ValueError: If there are fewer than two points with a score, or fewer than two seeds.
        """
        ranking = self.ranking().dropna(subset=["mean"])
        if len(ranking) < 2 or seeds < 2:
            raise ValueError(
                f"`confirm` expects two points with a score and 2 seeds or more. Received: {len(ranking)} points, "
                f"seeds={seeds}."
            )
        places = {place: int(trial) for place, trial in zip(PLACES, ranking["trial"].head(2), strict=True)}
        tuner, seed, rows, predictions = self.tuner, self.tuner.seed + 10_000, [], {}
        for place, trial in places.items():
            run, *_ = tuner.runs(self._trials[trial])
            recipe = run.recipe
            found = cross_validate(
                run.build, tuner.table, folds=tuner.folds, repeats=seeds, seed=seed, group=tuner.group,
                epochs=recipe.epochs, patience=recipe.patience, fit=recipe.fit, callbacks=recipe.callbacks,
                class_weight=recipe.class_weight, folder=self.folder / "confirm" / f"trial_{trial}_{seeds}_seeds",
                **recipe.loading,
            ).predictions  # fmt: skip
            predictions[place] = found
            known = found[found["predicted"].notna()]
            right = known["label"].astype(str) == known["predicted"].astype(str)
            for repeat, accuracy in right.groupby(known["repeat"]).mean().items():
                rows.append({"place": place, "trial": trial, "seed": seed + repeat, "accuracy": accuracy})
        scores = pd.DataFrame(rows)
        searched = self.results.groupby("trial")["val_accuracy"].mean()
        comparison = _compare(scores, predictions, tuner.group)
        return Confirmation(scores, comparison, predictions, float(searched[places["winner"]]))

    @property
    def _trials(self) -> list[Any]:
        """KerasTuner's, in order."""
        return [trial for _, trial in sorted(self.tuner.oracle.trials.items())]

    def _kept(self, trial: Any, key: str) -> pd.DataFrame | None:
        """One table of a trial over its folds; None where it could not be trained."""
        if trial.trial_id in self.tuner.broken:
            return None
        names = [f"trial_{trial.trial_id}/fold_{fold}" for fold in range(self.tuner.folds)]
        parts = [self.tuner.store.get(name, only=key)[key] for name in names]
        return pd.concat([part.assign(fold=fold) for fold, part in enumerate(parts)], ignore_index=True)

    def _all(self, key: str) -> pd.DataFrame:
        parts = [(number, self._kept(trial, key)) for number, trial in enumerate(self._trials)]
        table = pd.concat([part.assign(trial=n) for n, part in parts if part is not None], ignore_index=True)
        return table[["trial", *table.columns.drop("trial")]]

    def warn_of_problems(self) -> None:
        """Warns of points without a score; an error where none has one."""
        broken = self.results[self.results["problem"] != ""].drop_duplicates("trial")
        if broken.empty:
            return
        first = broken.iloc[0]
        why = f"The first, trial {first['trial']} ({self._in_words(first)}): {first['problem']}"
        count = self.results["trial"].nunique()
        if len(broken) == count:
            raise RuntimeError(f"None of the {count} points could be trained. {why}")
        warnings.warn(f"{len(broken)} of {count} points have no score; the others are kept. {why}", stacklevel=3)


def _compare(scores: pd.DataFrame, predictions: dict[str, pd.DataFrame], group: Group) -> pd.DataFrame:
    """The paired tests; an image that was predicted with several seeds is drawn with all of them."""
    winner, runner_up = (
        part.assign(image=tables.linked_groups(part, group), path=part["path"] + "#" + part["repeat"].astype(str))
        for part in (predictions[place] for place in PLACES)
    )
    both = metrics.compare(runner_up, winner, group="image").set_index("metric").loc["accuracy"]
    pairs = [scores.loc[scores["place"] == place, "accuracy"].to_numpy() for place in PLACES]
    differences = pairs[0] - pairs[1]
    reach = scipy.stats.t.ppf(1 - LEVEL / 2, len(differences) - 1) * scipy.stats.sem(differences)
    low, high = min(both["low"], differences.mean() - reach), max(both["high"], differences.mean() + reach)
    verdict = PLACES[0] if low > 0 else PLACES[1] if high < 0 else "noise"
    row = {"winner": both["b"], "runner_up": both["a"], "difference": both["difference"], "low": low, "high": high}
    row |= {"p_images": both["p_value"], "p_seeds": paired(differences), "verdict": verdict}
    return pd.DataFrame([row])


def paired(differences: np.ndarray) -> float:
    """The p value of a t test that the differences are 0 on average; also where they have no spread."""
    if np.ptp(differences) < 1e-12:  # the test divides by their spread
        return 1.0 if abs(differences[0]) < 1e-12 else 0.0
    return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)

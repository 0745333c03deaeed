"""Was the winner of a search better, or lucky?"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from cnnlab import metrics, tables
from cnnlab.experiments.training_run import TrainingRun
from cnnlab.experiments.validating import cross_validate
from cnnlab.tables.linking import Group

LEVEL = 0.05


class Confirmation(NamedTuple):
    """What `Search.confirm` gives.

    Attributes:
        scores: One row per setting and seed: place ("winner" or "runner-up"), trial, seed, accuracy over all folds.
        comparison: One row: accuracy of the winner and the runner-up, difference (winner less runner-up) with its 95 %
            interval, p_images (would it hold on other images? a paired bootstrap over images), p_seeds (would it hold
            with other seeds? a paired t test over seeds), and verdict: "winner", "runner-up" or "noise". A difference
            must pass both tests.
        predictions: Of winner and runner-up, one row per seed and image; prediction tables.
        searched: The accuracy that the search gave the winner. It is the best of many, hence too high on average.
    """

    scores: pd.DataFrame
    comparison: pd.DataFrame
    predictions: dict[str, pd.DataFrame]
    searched: float

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


def confirm(
    settings: dict[int, TrainingRun],
    table: pd.DataFrame,
    *,
    folds: int,
    seeds: int,
    seed: int,
    group: Group,
    folder: str | os.PathLike[str],
    searched: pd.Series,
) -> Confirmation:
    """Cross-validates two settings with seeds of their own, the same for both, and compares them.

    Args:
        settings: Trial → a run of it, for its network and recipe; the winner first.
        table: With the columns path and label.
        folds: As in `cross_validate`.
        seeds: How many; each deals the folds anew.
        seed: The first of them.
        group: As in `cross_validate`.
        folder: Where it is kept; an interrupted call goes on.
        searched: The accuracy that the search gave each trial.
    """
    places = ("winner", "runner-up")
    rows, predictions = [], {}
    for place, (trial, run) in zip(places, settings.items(), strict=True):
        recipe = run.recipe
        found = cross_validate(
            run.build, table, folds=folds, repeats=seeds, seed=seed, group=group, epochs=recipe.epochs,
            patience=recipe.patience, fit=recipe.fit, callbacks=recipe.callbacks, class_weight=recipe.class_weight,
            folder=Path(folder) / f"trial_{trial}_{seeds}_seeds", **recipe.loading,
        ).predictions  # fmt: skip
        predictions[place] = found
        known = found[found["predicted"].notna()]
        right = known["label"].astype(str) == known["predicted"].astype(str)
        accuracies = right.groupby(known["repeat"]).mean()
        for repeat, accuracy in zip(accuracies.index.tolist(), accuracies, strict=True):
            rows.append({"place": place, "trial": trial, "seed": seed + repeat, "accuracy": float(accuracy)})
    scores = pd.DataFrame(rows)
    return Confirmation(
        scores, _compare(scores, predictions, group), predictions, float(searched[next(iter(settings))])
    )


def _compare(scores: pd.DataFrame, predictions: dict[str, pd.DataFrame], group: Group) -> pd.DataFrame:
    """The paired tests; an image that was predicted with several seeds is drawn with all of them."""
    winner, runner_up = (
        part.assign(image=tables.linked_groups(part, group), path=part["path"] + "#" + part["repeat"].astype(str))
        for part in (predictions["winner"], predictions["runner-up"])
    )
    both = metrics.compare(runner_up, winner, group="image").set_index("metric").loc["accuracy"]
    pairs = [scores.loc[scores["place"] == place, "accuracy"].to_numpy() for place in ("winner", "runner-up")]
    p_seeds = paired(pairs[0] - pairs[1])
    verdict = "noise"
    if max(both["p_value"], p_seeds) < LEVEL:
        verdict = "winner" if both["difference"] > 0 else "runner-up"
    row = {
        "winner": both["b"],
        "runner_up": both["a"],
        "difference": both["difference"],
        "low": both["low"],
        "high": both["high"],
        "p_images": both["p_value"],
        "p_seeds": p_seeds,
        "verdict": verdict,
    }
    return pd.DataFrame([row])


def paired(differences: np.ndarray) -> float:
    """The p value of a t test that the differences are 0 on average.

    >>> paired(np.array([0.01, 0.01, 0.01]))
    0.0
    >>> paired(np.zeros(3))
    1.0
    """
    if np.ptp(differences) < 1e-12:  # the test divides by their spread
        return 1.0 if abs(differences[0]) < 1e-12 else 0.0
    return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)

"""Exercises of 06_tuning: the luck of the best, a grid in steps that count, the best of all folds."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cnnlab.exercises.asking import Off, array, call, equal_number, exercise, expect, kind_of, number

TRIALS, SPREAD = 20, 0.01


@functools.cache
def _luck() -> float:
    """How much the best of equal trials looks better than it is, on average."""
    return float(np.random.default_rng(0).normal(0, SPREAD, (20_000, TRIALS)).max(axis=1).mean())


@exercise
def predict(answer: Any) -> str:
    """20 settings are in truth equally good, and chance moves each measured accuracy by 0.01 (standard deviation). By
    how much does the best of them look better than it is? Guess a number.

    Answer: a number such as 0.01
    Hint: Would the largest of twenty draws lie nearer to the middle than one draw alone?
    Hint: Simulate it: twenty normal draws, their maximum, many times over.
    Hint: `numpy.random.default_rng(0).normal(0, 0.01, (10000, 20))`, then the largest of each row, then the mean.
    Right: The winner of a search is partly lucky: that is why it is trained again on fresh seeds.
    """
    mistakes = {
        0.0: "It would be nothing if you looked at one trial. You picked the best of them.",
        SPREAD: "That is how far a single trial strays; the best of many strays further.",
        SPREAD * TRIALS: "The best of 20 is one trial, not the sum of them.",
        SPREAD / TRIALS**0.5: "That is how far the mean of all strays; you took the best one.",
    }
    equal_number(answer, _luck(), within=0.004, mistakes=mistakes)
    return f"Twenty thousand simulated searches say {_luck():.4f}."


@exercise
def change(answer: Any) -> None:
    """Change the grid: five learning rates from 0.0001 to 0.01, each the same number of times the one before. Hand in
    the grid.

    Answer: a dictionary with learning_rate
    Hint: What matters of a learning rate is its order of magnitude: steps should multiply, not add.
    Hint: From the first to the last it is a factor of 100, in four steps.
    Hint: numpy has a function for it: its name begins with geom.
    Right: Equal steps would have spent four of five trials on the upper half.
    """
    if not isinstance(answer, Mapping):
        raise Off(f"Expected the grid, a dictionary of names and lists. Received {kind_of(answer)}.")
    expect("learning_rate" in answer, f"It has no 'learning_rate'. It has {', '.join(map(str, answer)) or 'nothing'}.")
    rates = np.sort(array(answer["learning_rate"], what="The list of learning rates"))
    expect(rates.ndim == 1 and len(rates) == 5, f"Expected five learning rates. Received {rates.size}.")
    ends = f"It goes from {rates[0]:g} to {rates[-1]:g}, not from 0.0001 to 0.01."
    expect(np.isclose(rates[0], 1e-4, rtol=1e-3) and np.isclose(rates[-1], 1e-2, rtol=1e-3), ends)
    ratios = rates[1:] / rates[:-1]
    expect(
        not np.allclose(np.diff(rates), np.diff(rates)[0], rtol=0.05),
        f"Equal steps: the second one is {ratios[0]:.0f} times the first, the last two are nearly the same.",
    )
    expect(
        np.allclose(ratios, ratios.mean(), rtol=0.1),
        f"The steps multiply by {', '.join(f'{ratio:.1f}' for ratio in ratios)}; they should be alike.",
    )


# The accuracies of four folds, by the rule that would choose them.
FOLDS = {
    "mean": (0.95, 0.95, 0.80, 0.78),
    "median": (0.89, 0.89, 0.89, 0.70),
    "worst fold": (0.84, 0.84, 0.84, 0.84),
    "best single fold": (0.99, 0.76, 0.76, 0.76),
    "": (0.80, 0.80, 0.80, 0.80),
}


def _made_results(seed: int) -> tuple[pd.DataFrame, dict[str, tuple[float, int]]]:
    """A search in which each rule chooses another setting, and which setting that is."""
    rng = np.random.default_rng(seed)
    settings = [(rate, size) for rate in (0.001, 0.003, 0.01) for size in (16, 32)]
    chosen = {rule: settings[place] for rule, place in zip(FOLDS, rng.permutation(len(settings)), strict=False)}
    rows = []
    for setting in settings:
        rule = next((rule for rule in FOLDS if chosen[rule] == setting), "")
        accuracies = rng.permutation(FOLDS[rule]) + 0.005 * rng.random(4)
        rows += [
            {"learning_rate": setting[0], "batch_size": setting[1], "fold": fold, "val_accuracy": accuracy}
            for fold, accuracy in enumerate(accuracies)
        ]
    return pd.DataFrame(rows), chosen


@exercise
def build(answer: Any) -> None:
    """Write `best(results)`: from a table of one row per setting and fold, the `learning_rate` and `batch_size` whose
    mean `val_accuracy` is highest, as a dictionary.

    Answer: a function of a results table
    Hint: Which number says how good a setting is, if there are several folds of it?
    Hint: Group by both parameters together and look at the mean of `val_accuracy`.
    Hint: `means = results.groupby([…])["val_accuracy"].mean()`; `means.idxmax()` names the setting.
    Right: One lucky fold no longer decides.
    """
    for seed in range(4):
        results, by_rule = _made_results(seed)
        found = call(answer, results.sample(frac=1, random_state=seed))
        found = dict(found) if isinstance(found, (Mapping, pd.Series)) else found
        if not isinstance(found, dict) or not {"learning_rate", "batch_size"} <= set(found):
            raise Off(
                "Your function should return a dictionary with learning_rate and batch_size. "
                f"Received {kind_of(found)}."
            )
        chosen = (number(found["learning_rate"]), number(found["batch_size"]))
        rule = next((rule for rule, setting in by_rule.items() if setting == chosen), "")
        expect(rule != "best single fold", "It takes the best single fold, which was luck: its other folds are poor.")
        expect(not rule or rule == "mean", f"It takes the setting with the highest {rule}; the mean uses every fold.")
        expect(rule, f"It chose {chosen}, whose mean over the folds is not the highest.")

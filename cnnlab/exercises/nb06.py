"""Exercises of 06_tuning: the luck of the best, a grid in steps that count, the best of all folds."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cnnlab.exercises.asking import Exercise, Off, array, call, equal_number, expect, kind_of

TRIALS, SPREAD = 20, 0.01


@functools.cache
def _luck() -> float:
    """How much the best of equal trials looks better than it is, on average."""
    return float(np.random.default_rng(0).normal(0, SPREAD, (20_000, TRIALS)).max(axis=1).mean())


def _best_of_equals(answer: Any) -> str:
    mistakes = {
        0.0: "It would be nothing if you looked at one trial. You picked the best of them.",
        SPREAD: "That is how far a single trial strays; the best of many strays further.",
        SPREAD * TRIALS: "The best of 20 is one trial, not the sum of them.",
        SPREAD / TRIALS**0.5: "That is how far the mean of all strays; you took the best one.",
    }
    equal_number(answer, _luck(), within=0.004, mistakes=mistakes)
    return f"Twenty thousand simulated searches say {_luck():.4f}."


def _grid(answer: Any) -> None:
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


def _made_results(seed: int) -> pd.DataFrame:
    """A search in which one lucky fold belongs to a setting that is not the best."""
    rng = np.random.default_rng(seed)
    rates, sizes = (0.001, 0.003, 0.01), (16, 32)
    rows = [
        {"learning_rate": rate, "batch_size": size, "fold": fold, "val_accuracy": 0.8 + 0.02 * rng.random()}
        for rate in rates
        for size in sizes
        for fold in range(3)
    ]
    table = pd.DataFrame(rows)
    good, lucky = rng.choice(6, 2, replace=False)
    table.loc[3 * good + np.arange(3), "val_accuracy"] += 0.05
    table.loc[3 * lucky, "val_accuracy"] = 0.99
    table.loc[3 * lucky + 1, "val_accuracy"] = 0.70
    return table


def _best(answer: Any) -> None:
    for seed in range(4):
        results = _made_results(seed)
        means = results.groupby(["learning_rate", "batch_size"])["val_accuracy"].mean()
        found = call(answer, results.sample(frac=1, random_state=seed))
        found = dict(found) if isinstance(found, (Mapping, pd.Series)) else found
        if not isinstance(found, dict) or not {"learning_rate", "batch_size"} <= set(found):
            raise Off(
                "Your function should return a dictionary with learning_rate and batch_size. "
                f"Received {kind_of(found)}."
            )
        chosen = (float(found["learning_rate"]), int(found["batch_size"]))
        top = results.sort_values("val_accuracy").iloc[-1]
        expect(
            chosen == means.idxmax() or chosen != (top["learning_rate"], top["batch_size"]),
            "It takes the setting with the best single fold, which was luck: its other folds are poor.",
        )
        expect(chosen == means.idxmax(), f"It chose {chosen}, whose mean over the folds is not the highest.")


EXERCISES = (
    Exercise(
        question=f"{TRIALS} settings are in truth equally good, and chance moves each measured accuracy by {SPREAD} "
        "(standard deviation). By how much does the best of them look better than it is? Guess a number.",
        answer="a number such as 0.01",
        hints=(
            "Would the largest of twenty draws lie nearer to the middle than one draw alone?",
            "Simulate it: twenty normal draws, their maximum, many times over.",
            "`numpy.random.default_rng(0).normal(0, 0.01, (10000, 20))`, then the largest of each row, then the mean.",
        ),
        right="The winner of a search is partly lucky: that is why it is trained again on fresh seeds.",
        judge=_best_of_equals,
    ),
    Exercise(
        question="Change the grid: five learning rates from 0.0001 to 0.01, each the same number of times the one "
        "before. Hand in the grid.",
        answer="a dictionary with learning_rate",
        hints=(
            "What matters of a learning rate is its order of magnitude: steps should multiply, not add.",
            "From the first to the last it is a factor of 100, in four steps.",
            "numpy has a function for it: its name begins with geom.",
        ),
        right="Equal steps would have spent four of five trials on the upper half.",
        judge=_grid,
    ),
    Exercise(
        question="Write `best(results)`: from a table of one row per setting and fold, the `learning_rate` and "
        "`batch_size` to take, as a dictionary.",
        answer="a function of a results table",
        hints=(
            "Which number says how good a setting is, if there are several folds of it?",
            "Group by both parameters together and look at the mean of `val_accuracy`.",
            '`means = results.groupby([…])["val_accuracy"].mean()`; `means.idxmax()` names the setting.',
        ),
        right="One lucky fold no longer decides.",
        judge=_best,
    ),
)

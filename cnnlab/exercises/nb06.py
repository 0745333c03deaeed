"""Judges 06_tuning: the luck of the best, a grid in steps that count, the best of all folds, an interval over seeds."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from cnnlab.exercises.answers import Off, array, call, equal_number, expect, expect_type, kind_of, number

TRIALS, SPREAD = 20, 0.01
# The accuracies of four folds, by the rule that would choose them.
FOLDS = {
    "mean": (0.95, 0.95, 0.80, 0.78),
    "median": (0.89, 0.89, 0.89, 0.70),
    "worst fold": (0.84, 0.84, 0.84, 0.84),
    "best single fold": (0.99, 0.76, 0.76, 0.76),
    "": (0.80, 0.80, 0.80, 0.80),
}


@functools.cache
def _luck() -> float:
    """How much the best of equal trials looks better than it is, on average."""
    return float(np.random.default_rng(0).normal(0, SPREAD, (20_000, TRIALS)).max(axis=1).mean())


def predict(answer: Any) -> str:
    """By how much the best of equal trials looks better than it is."""
    mistakes = {
        0.0: "It would be nothing if you looked at one trial. You picked the best of them.",
        SPREAD: "That is how far a single trial strays; the best of many strays further.",
        SPREAD * TRIALS: "The best of 20 is one trial, not the sum of them.",
        SPREAD / TRIALS**0.5: "That is how far the mean of all strays; you took the best one.",
    }
    equal_number(answer, _luck(), within=0.004, mistakes=mistakes)
    return f"Twenty thousand simulated searches say {_luck():.4f}."


def change(answer: Any) -> None:
    """A grid of five learning rates from 0.0001 to 0.01, in steps that multiply."""
    expect_type(answer, Mapping, "the grid, a dictionary of names and lists")
    expect("learning_rate" in answer, f"It has no 'learning_rate'. It has {', '.join(map(str, answer)) or 'nothing'}.")
    rates = np.sort(array(answer["learning_rate"], what="The list of learning rates"))
    expect(rates.shape == (5,), f"Expected five learning rates. Received {rates.size}.")
    ends = f"It goes from {rates[0]:g} to {rates[-1]:g}, not from 0.0001 to 0.01."
    expect(np.allclose(rates[[0, -1]], [1e-4, 1e-2], rtol=1e-3), ends)
    ratios, steps = rates[1:] / rates[:-1], np.diff(rates)
    words = f"Equal steps: the second one is {ratios[0]:.0f} times the first, the last two are nearly the same."
    expect(not np.allclose(steps, steps[0], rtol=0.05), words)
    words = f"The steps multiply by {', '.join(f'{ratio:.1f}' for ratio in ratios)}; they should be alike."
    expect(np.allclose(ratios, ratios.mean(), rtol=0.1), words)


def _made_results(seed: int) -> tuple[pd.DataFrame, dict[tuple[float, float], str]]:
    """A search in which each rule chooses another setting, and which rule that is."""
    rng = np.random.default_rng(seed)
    settings = [(rate, size) for rate in (0.001, 0.003, 0.01) for size in (16, 32)]
    chosen_by = {settings[place]: rule for rule, place in zip(FOLDS, rng.permutation(len(settings)), strict=False)}
    rows = []
    for rate, size in settings:
        accuracies = rng.permutation(FOLDS[chosen_by.get((rate, size), "")]) + 0.005 * rng.random(4)
        for fold, accuracy in enumerate(accuracies):
            rows.append({"learning_rate": rate, "batch_size": size, "fold": fold, "val_accuracy": accuracy})
    return pd.DataFrame(rows), chosen_by


def build(answer: Any) -> None:
    """A function that gives the setting whose mean over the folds is highest."""
    for seed in range(4):
        results, chosen_by = _made_results(seed)
        found = call(answer, results.sample(frac=1, random_state=seed))
        found = dict(found) if isinstance(found, (Mapping, pd.Series)) else found
        if not isinstance(found, dict) or not {"learning_rate", "batch_size"} <= set(found):
            words = "Your function should return a dictionary with learning_rate and batch_size. "
            raise Off(f"{words}Received {kind_of(found)}.")
        chosen = (number(found["learning_rate"]), number(found["batch_size"]))
        rule = chosen_by.get(chosen, "")
        expect(rule != "best single fold", "It takes the best single fold, which was luck: its other folds are poor.")
        expect(rule in ("", "mean"), f"It takes the setting with the highest {rule}; the mean uses every fold.")
        expect(rule, f"It chose {chosen}, whose mean over the folds is not the highest.")


def paired_interval(answer: Any) -> None:
    """A function that gives a mean difference and its interval by Student's t over pairs."""
    for seed, count in enumerate((3, 5, 8)):
        rng = np.random.default_rng(seed)
        shared = rng.normal(0.9, 0.03, count)
        a, b = (shared + rng.normal(shift, 0.01, count) for shift in (0.01, 0))
        differences = a - b
        found = array(call(answer, a.tolist(), b.tolist()), shape=(3,))
        mean, error = differences.mean(), differences.std(ddof=1) / count**0.5
        expect(abs(found[0] + mean) > 1e-9, "The right size with the wrong sign: `a` minus `b`.")
        expect(abs(found[0] - mean) < 1e-9, f"It gives a mean difference of {found[0]:.4f} where it is {mean:.4f}.")
        even = abs(found[1:].mean() - mean) < 1e-9 and found[1] < found[2]
        expect(even, "Its interval should reach as far down as up.")
        steps = scipy.stats.t.ppf(0.975, count - 1)
        unpaired = scipy.stats.ttest_ind(a, b).confidence_interval()
        for wrong, words in (
            (steps * error * count**0.5, "That is the spread of single seeds; the mean of several strays less: / √n."),
            (1.96 * error, f"1.96 is for many seeds. With {count} take Student's t, which is {steps:.2f} here."),
            (steps * error * ((count - 1) / count) ** 0.5, "The standard deviation needs `ddof=1`."),
            ((unpaired.high - unpaired.low) / 2, "It takes the lists apart; the same seeds were used, so pair them."),
            (error, "That is one standard error; 95 % needs more of them."),
        ):
            expect(abs((found[2] - found[1]) / 2 - wrong) > 2e-4 * wrong, words)
        truth = scipy.stats.ttest_rel(a, b).confidence_interval()
        words = f"It gives {found[1]:.4f} to {found[2]:.4f} where scipy has {truth.low:.4f} to {truth.high:.4f}."
        expect(np.allclose(found[1:], truth, atol=1e-6), words)

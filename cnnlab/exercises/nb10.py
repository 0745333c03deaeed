"""Judges 10_imbalance_and_fairness: what accuracy hides, class weights, the gap between groups, who pays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from cnnlab.exercises.answers import call, equal_number, expect, expect_type, made_predictions, number

COUNTS = {"good": 900, "crack": 75, "pit": 25}


def change(answer: Any) -> None:
    """Weights by which the classes weigh the same in sum, and an image 1 on average."""
    expect_type(answer, Mapping, "a dictionary of class name and weight")
    expect(set(answer) == set(COUNTS), f"Expected the classes {', '.join(COUNTS)}. Received {list(answer)}.")
    found = {name: number(answer[name]) for name in COUNTS}
    expect(found["pit"] > found["good"], "The rare class got the smaller weight: it needs the larger one.")
    ratio = found["pit"] / found["good"]
    words = (
        f"A pit counts {ratio:.3g} times as much as a good part; so that the classes weigh the same in sum, it should "
    )
    expect(
        abs(ratio - COUNTS["good"] / COUNTS["pit"]) < 0.01 * ratio,
        f"{words}count as many times more as it is rarer.",
    )
    mean = sum(found[name] * count for name, count in COUNTS.items()) / sum(COUNTS.values())
    words = f"In the right proportion; but an image weighs {mean:.3g} on average, which changes the learning rate in "
    expect(abs(mean - 1) < 0.01, f"{words}secret. It should be 1.")


def _made(seed: int) -> pd.DataFrame:
    """Predictions for three cameras, of which one sees cracks badly."""
    made, rng = made_predictions(rows=300, seed=seed), np.random.default_rng(100 + seed)
    camera = rng.choice(["A", "B", "C"], 300, p=[0.6, 0.3, 0.1])
    hidden = (camera == "C") & (made["label"] == "crack").to_numpy() & (rng.random(300) < 0.6)
    made.loc[hidden, "predicted"] = "good"
    return made.assign(camera=camera)


def build(answer: Any) -> None:
    """A function that gives the recall of cracks of the best camera minus that of the worst."""
    for seed in range(3):
        made = _made(seed)
        right = made["label"] == made["predicted"]
        accuracy = right.groupby(made["camera"]).mean()
        recall = right[made["label"] == "crack"].groupby(made["camera"]).mean()
        truth = float(recall.max() - recall.min())
        mistakes = {
            float(accuracy.max() - accuracy.min()): "That is the gap in accuracy; the question is about cracks.",
            -truth: "The right size with the wrong sign: best minus worst.",
            float(recall.min()): "That is the recall of the worst camera, not the gap.",
        }
        words = f"; the best camera finds {recall.max():.3f}, the worst {recall.min():.3f}."
        equal_number(call(answer, made.copy()), truth, mistakes=mistakes, words=words)


def who_pays(answer: Any) -> None:
    """A function that gives, for each skin, how much more often benign rows are called malignant."""
    for seed in range(3):
        rng, names = np.random.default_rng(seed), ["benign", "malignant"]
        made = pd.DataFrame({"label": pd.Categorical(rng.choice(names, 400, p=[0.8, 0.2]), names)})
        made["skin"] = rng.choice(["dark", "light"], 400)
        before, after = (
            made.assign(predicted=pd.Categorical(rng.choice(names, 400, p=[1 - share, share]), names))
            for share in (0.1, 0.3)
        )
        benign = made["label"] == "benign"
        called = [(table["predicted"] == "malignant").astype(float) for table in (before, after)]
        truth, of_all = (
            (called[1][rows] - called[0][rows]).groupby(made["skin"][rows]).mean() for rows in (benign, benign | True)
        )
        found = call(answer, before.copy(), after.copy())
        expect_type(found, (Mapping, pd.Series), "a dictionary of skin and share")
        expect(set(found.keys()) == set(truth.index), f"Expected the skins dark and light. Received {list(found)}.")
        for skin in ("dark", "light"):
            value = float(truth[skin])
            mistakes = {
                -value: "The right size with the wrong sign: after minus before.",
                float(of_all[skin]): "That counts malignant rows, too; only benign ones are alarmed for nothing.",
            }
            equal_number(found[skin], value, mistakes=mistakes, words=f" for {skin} where it is {value:.4f}.")

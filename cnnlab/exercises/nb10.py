"""Exercises of 10_imbalance_and_fairness: what accuracy hides, class weights, the gap between groups."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import recall_score
from sklearn.utils.class_weight import compute_class_weight

from cnnlab.exercises.asking import Off, call, equal_number, exercise, expect, kind_of, made_predictions, number

COUNTS = {"good": 900, "crack": 75, "pit": 25}


@exercise
def predict(answer: Any) -> str:
    """Of 1,000 parts 50 are cracked, and a model calls all of them good. Its accuracy is 0.95. What is its balanced
    accuracy? Guess first.

    Answer: a number from 0 to 1
    Hint: Balanced accuracy is the mean of the recalls of the classes.
    Hint: What share of the good parts does it call good? What share of the cracks does it call a crack?
    Hint: The mean of one and zero.
    Right: So look at the recall of each class before you believe an accuracy.
    """
    mistakes = {
        0.95: "That is the plain accuracy. Balanced means: the mean of the recalls of the classes.",
        0.05: "That is the share of the cracks.",
        0.0: "It finds no crack, but all good parts: take the mean.",
        0.475: "Take the recall of each class, not its share.",
    }
    equal_number(answer, 0.5, within=0.005, mistakes=mistakes)
    return "With any two classes, always answering one of them gives one half."


@exercise
def change(answer: Any) -> None:
    """Change the weights for a training set of 900 good parts, 75 cracks and 25 pits, so that each class weighs the
    same in sum and an image weighs 1 on average. Hand in a dictionary.

    Answer: a dictionary of class name and weight
    Hint: The rarer the class, the larger the weight of each of its images.
    Hint: The three classes share 1,000 images' worth of weight evenly.
    Hint: All images, divided by the number of classes times the images of this class.
    Right: It is what scikit-learn calls “balanced”.
    """
    if not isinstance(answer, Mapping):
        raise Off(f"Expected a dictionary of class name and weight. Received {kind_of(answer)}.")
    expect(set(answer) == set(COUNTS), f"Expected the classes {', '.join(COUNTS)}. Received {list(answer)}.")
    found = {name: number(answer[name]) for name in COUNTS}
    labels = np.repeat(list(COUNTS), list(COUNTS.values()))
    truth = dict(zip(COUNTS, compute_class_weight("balanced", classes=np.array(list(COUNTS)), y=labels), strict=True))
    expect(found["pit"] > found["good"], "The rare class got the smaller weight: it needs the larger one.")
    ratio = found["pit"] / found["good"]
    expect(
        abs(ratio - truth["pit"] / truth["good"]) < 0.01 * ratio,
        f"A pit counts {ratio:.3g} times as much as a good part; so that the classes weigh the same in sum, it should "
        "count as many times more as it is rarer.",
    )
    mean = sum(found[name] * count for name, count in COUNTS.items()) / sum(COUNTS.values())
    expect(
        abs(mean - 1) < 0.01,
        f"In the right proportion; but an image weighs {mean:.3g} on average, which changes the learning rate in "
        "secret. It should be 1.",
    )


def _made(seed: int) -> pd.DataFrame:
    made = made_predictions(rows=300, seed=seed)
    rng = np.random.default_rng(100 + seed)
    camera = rng.choice(["A", "B", "C"], 300, p=[0.6, 0.3, 0.1])
    hidden = (camera == "C") & (made["label"] == "crack").to_numpy() & (rng.random(300) < 0.6)
    made.loc[hidden, "predicted"] = "good"
    return made.assign(camera=camera)


@exercise
def build(answer: Any) -> None:
    """Write `gap(predictions)`: the recall of `crack` of the best camera minus that of the worst one.

    Answer: a function of a prediction table with a column camera
    Hint: Recall looks at the rows that are cracks; which rows can you leave out first?
    Hint: Of these, what share is predicted as a crack, for each camera?
    Hint: Group the comparison by camera, take the mean, then `max() - min()`.
    Right: Whenever images come from several sources, this is the first number to look at.
    """
    for seed in range(3):
        made = _made(seed)
        cracks = made[made["label"] == "crack"]
        recalls = [
            recall_score(part["label"].astype(str), part["predicted"].astype(str), labels=["crack"], average=None)[0]
            for _, part in cracks.groupby("camera")
        ]
        accuracy = (made["label"].astype(str) == made["predicted"].astype(str)).groupby(made["camera"]).mean()
        truth = max(recalls) - min(recalls)
        mistakes = {
            float(accuracy.max() - accuracy.min()): "That is the gap in accuracy; the question is about cracks.",
            -truth: "The right size with the wrong sign: best minus worst.",
            min(recalls): "That is the recall of the worst camera, not the gap.",
        }
        words = f"; the best camera finds {max(recalls):.3f}, the worst {min(recalls):.3f}."
        equal_number(call(answer, made.copy()), truth, mistakes=mistakes, words=words)

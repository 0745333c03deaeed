"""Judges 08_evaluation: precision and recall, a threshold with a purpose, macro F1 by hand, patients that leak."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from cnnlab import metrics
from cnnlab.exercises.answers import call, equal_number, expect, made_predictions, number


def change(answer: Any) -> None:
    """A function that chooses a threshold with a recall of 0.95 and the fewest false alarms."""
    for seed in range(4):
        validation = made_predictions(rows=200, seed=seed)
        cracks, chance = validation["label"] == "crack", validation["p_crack"]
        chosen = number(call(answer, validation.copy()))
        recall = float((chance[cracks] >= chosen).mean())
        expect(recall >= 0.95, f"With your threshold {chosen:.3f} only {recall:.1%} of the cracks are found.")
        best = metrics.choose_threshold(validation, "crack", recall=0.95)
        alarms, needed = (int((chance[~cracks] >= threshold).sum()) for threshold in (chosen, best))
        words = f"Enough cracks are found, but with {alarms} false alarms where {needed} would do."
        expect(alarms <= needed, words)


def build(answer: Any) -> None:
    """A function that gives the mean F1 of the classes."""
    names = ("crack", "good", "pit", "stain")
    for seed in range(4):
        made = made_predictions(rows=80, classes=names, seed=seed)
        if seed == 3:  # a class that is never predicted
            made["predicted"] = made["predicted"].where(made["predicted"] != "stain", "good")
        macro, micro, weighted = (
            f1_score(made["label"].astype(str), made["predicted"].astype(str), average=kind, zero_division=0)
            for kind in ("macro", "micro", "weighted")
        )
        never = " One of the classes here is never predicted: its F1 is zero." if seed == 3 else ""
        mistakes = {
            micro: "That is the accuracy (micro F1): frequent classes drown the rare ones.",
            weighted: "That is weighted by the number of images; in macro every class counts the same.",
        }
        words = f" where scikit-learn has {macro:.4f}.{never}"
        equal_number(call(answer, made.copy()), macro, mistakes=mistakes, words=words)


def leaked(answer: Any) -> None:
    """A function that gives the share of test rows whose patient is in the training rows."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        patient = rng.permutation(np.repeat(np.arange(40), rng.integers(1, 7, 40)))
        split = rng.choice(["train", "val", "test"], len(patient), p=[0.3, 0.4, 0.3])
        table = pd.DataFrame({"patient": patient, "split": split})
        train, test = (table.loc[table["split"] == name, "patient"] for name in ("train", "test"))
        truth = float(test.isin(train).mean())
        mistakes = {
            len(set(test) & set(train)) / test.nunique(): "That is the share of patients; the question is about rows.",
            float(train.isin(test).mean()): "That is the share of the training rows; the test rows are asked for.",
            float(
                test.isin(table.loc[table["split"] != "test", "patient"]).mean()
            ): "Rows of val are not for training.",
        }
        equal_number(call(answer, table), truth, mistakes=mistakes, words=f" where {truth:.4f} of the test rows are.")

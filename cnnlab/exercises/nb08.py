"""Exercises of 08_evaluation: precision and recall, a threshold with a purpose, macro F1 by hand."""

from typing import Any

from sklearn.metrics import f1_score

from cnnlab import metrics
from cnnlab.exercises.asking import call, equal_number, exercise, expect, made_predictions, number

PRECISION = 8 / (8 + 12)  # right alarms among all alarms


@exercise
def predict(answer: Any) -> str:
    """Among 100 parts are 10 cracks. A model finds 8 of them, and calls 12 good parts a crack as well. What is its
    precision for cracks? Calculate before you try.

    Answer: a number from 0 to 1
    Hint: Precision asks: of all that it called a crack, how many are one?
    Hint: How many parts did it call a crack in all, rightly or wrongly?
    Hint: Right alarms divided by all alarms: eight of twenty.
    Right: A rare class needs more than a good accuracy.
    """
    mistakes = {
        0.8: "That is the recall: of the cracks, how many were found.",
        0.86: "That is the accuracy: of all parts, how many were judged rightly.",
        8 / 92: "Divide by the parts that were called a crack.",
        0.6: "That is the share of the false alarms; precision is about the others.",
        8 / 15: "That is the F1 score, between precision and recall.",
        0.12: "Those are the false alarms among all parts.",
    }
    equal_number(answer, PRECISION, within=0.005, mistakes=mistakes)
    return "Of 20 alarms, 12 are false, though the accuracy is 0.86."


@exercise
def change(answer: Any) -> None:
    """The plant wants at least 95 % of the cracks found, with as few false alarms as possible. Change the code to a
    function `choose(validation)` that returns the threshold for `p_crack`.

    Answer: a function of a prediction table
    Hint: A lower threshold finds more, and gives more false alarms: where is the highest that still finds enough?
    Hint: `metrics.choose_threshold` takes a purpose: recall, precision or costs.
    Hint: `metrics.choose_threshold(validation, "crack", recall=…)`.
    Right: Chosen for a purpose, on validation images; now apply it to the test images, once.
    """
    for seed in range(4):
        validation = made_predictions(rows=200, seed=seed)
        best = metrics.choose_threshold(validation, "crack", recall=0.95)
        chosen = number(call(answer, validation.copy()))
        cracks = validation["label"] == "crack"
        called = validation["p_crack"] >= chosen
        recall = float(called[cracks].mean())
        expect(recall >= 0.95, f"With your threshold {chosen:.3f} only {recall:.1%} of the cracks are found.")
        alarms = int((called & ~cracks).sum())
        needed = int(((validation["p_crack"] >= best) & ~cracks).sum())
        expect(
            alarms <= needed,
            f"Enough cracks are found, but with {alarms} false alarms where {needed} would do.",
        )


@exercise
def build(answer: Any) -> None:
    """Write `macro_f1(predictions)` from `label` and `predicted` by hand: F1 of each class, then the mean.

    Answer: a function of a prediction table
    Hint: For each class count the images found, the wrong alarms and the images missed.
    Hint: F1 of a class is twice the right ones, divided by twice the right ones + wrong ones + missed ones.
    Hint: The plain mean over `predictions["label"].cat.categories`; a class never found has an F1 of zero.
    Right: Every class counts the same, however rare it is.
    """
    names = ("crack", "good", "pit", "stain")
    for seed in range(4):
        made = made_predictions(rows=80, classes=names, seed=seed)
        if seed == 3:  # a class that is never predicted
            made["predicted"] = made["predicted"].where(made["predicted"] != "stain", "good")
        truth, called = made["label"].astype(str), made["predicted"].astype(str)
        scores = {
            kind: f1_score(truth, called, average=kind, zero_division=0) for kind in ("macro", "micro", "weighted")
        }
        never = " One of the classes here is never predicted: its F1 is zero." if seed == 3 else ""
        mistakes = {
            scores["micro"]: "That is the accuracy (micro F1): frequent classes drown the rare ones.",
            scores["weighted"]: "That is weighted by the number of images; in macro every class counts the same.",
        }
        words = f" where scikit-learn has {scores['macro']:.4f}.{never}"
        equal_number(call(answer, made.copy()), scores["macro"], mistakes=mistakes, words=words)

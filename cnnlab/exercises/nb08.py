"""Exercises of 08_evaluation: precision and recall, a threshold with a purpose, macro F1 by hand."""

import functools
from typing import Any

from sklearn.metrics import f1_score, precision_score

from cnnlab import metrics
from cnnlab.exercises.asking import call, equal_number, exercise, expect, made_predictions, number

FOUND, MISSED, FALSE_ALARMS, REST = 8, 2, 12, 78


@functools.cache
def _precision() -> float:
    truth = [1] * (FOUND + MISSED) + [0] * (FALSE_ALARMS + REST)
    called = [1] * FOUND + [0] * MISSED + [1] * FALSE_ALARMS + [0] * REST
    return float(precision_score(truth, called))


@exercise(
    question=f"Among 100 parts are 10 cracks. A model finds {FOUND} of them, and calls {FALSE_ALARMS} good parts a "
    "crack as well. What is its precision for cracks? Calculate before you try.",
    answer="a number from 0 to 1",
    hints=(
        "Precision asks: of all that it called a crack, how many are one?",
        "How many parts did it call a crack in all, rightly or wrongly?",
        "Right alarms divided by all alarms: eight of twenty.",
    ),
    right="A rare class needs more than a good accuracy.",
)
def predict(answer: Any) -> str:
    mistakes = {
        0.8: "That is the recall: of the cracks, how many were found.",
        0.86: "That is the accuracy: of all parts, how many were judged rightly.",
        8 / 92: "Divide by the parts that were called a crack.",
        0.6: "That is the share of the false alarms; precision is about the others.",
        8 / 15: "That is the F1 score, between precision and recall.",
        0.12: "Those are the false alarms among all parts.",
    }
    equal_number(answer, _precision(), within=0.005, mistakes=mistakes)
    return "Of 20 alarms, 12 are false, though the accuracy is 0.86."


@exercise(
    question="The plant wants at least 95 % of the cracks found, with as few false alarms as possible. Change the "
    "code to a function `choose(validation)` that returns the threshold for `p_crack`.",
    answer="a function of a prediction table",
    hints=(
        "A lower threshold finds more, and gives more false alarms: where is the highest that still finds enough?",
        "`metrics.choose_threshold` takes a purpose: recall, precision or costs.",
        '`metrics.choose_threshold(validation, "crack", recall=…)`.',
    ),
    right="Chosen for a purpose, on validation images; now apply it to the test images, once.",
)
def change(answer: Any) -> None:
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


@exercise(
    question="Write `macro_f1(predictions)` from `label` and `predicted` by hand: F1 of each class, then the mean.",
    answer="a function of a prediction table",
    hints=(
        "For each class count: found rightly, called so wrongly, missed.",
        "F1 of a class is twice the right ones, divided by twice the right ones + wrong ones + missed ones.",
        'The plain mean over `predictions["label"].cat.categories`; a class never found has an F1 of zero.',
    ),
    right="Every class counts the same, however rare it is.",
)
def build(answer: Any) -> None:
    names = ("crack", "good", "pit", "stain")
    for seed in range(4):
        made = made_predictions(rows=80, classes=names, seed=seed)
        if seed == 3:  # a class that is never predicted
            made["predicted"] = made["predicted"].where(made["predicted"] != "stain", "good")
        truth, called = made["label"].astype(str), made["predicted"].astype(str)
        scores = {
            kind: f1_score(truth, called, average=kind, zero_division=0) for kind in ("macro", "micro", "weighted")
        }
        found = number(call(answer, made.copy()))
        right = abs(found - scores["macro"]) < 1e-6
        expect(
            right or abs(found - scores["micro"]) > 1e-6,
            "That is the accuracy (micro F1): frequent classes drown the rare ones.",
        )
        expect(
            right or abs(found - scores["weighted"]) > 1e-6,
            "That is weighted by the number of images; macro means that every class counts the same.",
        )
        never = " One of the classes here is never predicted: its F1 is zero." if seed == 3 else ""
        expect(right, f"It gives {found:.4f} where scikit-learn has {scores['macro']:.4f}.{never}")

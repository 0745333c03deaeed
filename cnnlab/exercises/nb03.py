"""Exercises of 03_prepare_images: what copies do to a test, a split by groups, finding leaks."""

import functools
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from cnnlab.exercises.asking import Exercise, call, equal_number, expect, table


@functools.cache
def _copied_share() -> float:
    """The share of test images whose copy is in training, over many random splits of 500 pairs."""
    pictures = np.repeat(np.arange(500), 2)
    shares = []
    for seed in range(40):
        train, test = train_test_split(pictures, test_size=0.2, random_state=seed)
        shares.append(np.isin(test, train).mean())
    return float(np.mean(shares))


def _share(answer: Any) -> str:
    value = float(answer.removesuffix("%")) / 100 if isinstance(answer, str) and "%" in answer else answer
    mistakes = {
        0.2: "That is the share of the images that are in the test part; ask where the copy of one of them is.",
        0.5: "Each picture is there twice, but its copy does not choose between the sides like a coin.",
        1: "Not all of them: sometimes both copies land in the test part.",
        0.04: "That is how often both copies land in the test part; the question is the other case.",
        0.16: "Count among the test images, not among all images.",
    }
    equal_number(value, _copied_share(), within=0.03, mistakes=mistakes)
    return f"Forty random splits give {_copied_share():.2f} on average."


def _split(answer: Any) -> None:
    found = table(answer, "path", "label", "camera", "split")
    parts = set(found["split"].astype(str))
    expect({"train", "test"} <= parts, f"Expected the parts train and test. Received {', '.join(sorted(parts))}.")
    both = found.groupby("camera", observed=True)["split"].nunique()
    expect(
        (both == 1).all(),
        f"The camera {both.idxmax()!r} is in {both.max()} parts, so the test does not ask about a new camera.",
    )
    missing = [name for name, rows in found.groupby("split", observed=True) if rows["label"].nunique() < 2]
    expect(not missing, f"The part {', '.join(map(str, missing))} has one class only.")


def _made_table(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(0, 30, 60))
    split = rng.choice(["train", "val", "test"], 60, p=[0.6, 0.2, 0.2])
    return pd.DataFrame({"path": [f"{place}.png" for place in range(60)], "group": group, "split": split})


def _leaked(answer: Any) -> None:
    for seed in range(3):
        made = _made_table(seed).sample(frac=1, random_state=seed)
        learned = set(made.loc[made["split"] == "train", "group"])
        truth = {row.path for row in made.itertuples() if row.split != "train" and row.group in learned}
        found = table(call(answer, made.copy()), "path", "split")
        expect(len(found), "It finds nothing, though there are leaks. Copies have different paths but the same group.")
        expect(
            not (found["split"] == "train").any(),
            "Training rows are among them. A leak is a val or test image that the network has learned from.",
        )
        extra = set(found["path"]) - truth
        expect(not extra, f"{len(extra)} of its rows have no copy in the training part.")
        missed = truth - set(found["path"])
        expect(not missed, f"It misses {len(missed)} of {len(truth)} leaks; think of val as well as test.")


EXERCISES = (
    Exercise(
        question="Of 500 pictures each is in the folder twice, under different names. A random fifth of the images "
        "becomes the test part. Which share of the test images has its copy in training? Guess a number from 0 to 1.",
        answer="a number from 0 to 1",
        hints=(
            "Take one test image. Its copy is somewhere among all the other images.",
            "The copy lands in the test part about as often as any other image does.",
            "One minus the share of the test part.",
        ),
        right="A test that asks mostly for what was learned by heart: this is why `group` exists.",
        judge=_share,
    ),
    Exercise(
        question="Split the table so that each camera is on one side only, and hand in the table. How far does the "
        "result for a new camera differ?",
        answer="a table with path, label, camera and split",
        hints=(
            "`tables.split` can keep rows together that share something.",
            "The argument `group` names the column whose values stay together.",
            '`tables.split(table, val=…, test=…, group="camera", seed=0)`; with two cameras only, take `val=0`.',
        ),
        right="Now the test asks what you will want to know on the day a new camera is mounted.",
        judge=_split,
    ),
    Exercise(
        question="Write `leaked(table)`: the rows of val and test whose picture (the same `group`) is also in train.",
        answer="a function of a table with path, group and split",
        hints=(
            "First collect the groups that occur in training.",
            "Then keep the rows that are not training and whose group is among those.",
            '`table[(table["split"] != "train") & table["group"].isin(…)]`.',
        ),
        right="Three lines that belong in every project, before the first number is believed.",
        judge=_leaked,
    ),
)

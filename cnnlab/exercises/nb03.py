"""Exercises of 03_prepare_images: what copies do to a test, a split by groups, finding leaks."""

from typing import Any

import numpy as np
import pandas as pd

from cnnlab.exercises.asking import as_on_disk, call, equal_number, exercise, expect, table

COPIED = 800 / 999  # of the other 999 images, 800 are for training


@exercise
def predict(answer: Any) -> None:
    """Of 500 pictures each is in the folder twice, under different names. A random fifth of the images becomes the test
    set. Which share of the test images has its copy in training? Guess a number from 0 to 1.

    Answer: a number from 0 to 1
    Hint: Take one test image. Its copy is somewhere among all the other images.
    Hint: The copy lands in the test set about as often as any other image does.
    Hint: One minus the share of the test set.
    Right: A test that asks mostly for what was memorized: this is why `group` exists.
    """
    mistakes = {
        0.2: "That is the share of the images that are in the test set; ask where the copy of one of them is.",
        0.5: "Each picture is there twice, but its copy does not choose between the splits like a coin.",
        1: "Not all of them: sometimes both copies land in the test set.",
        0.04: "That is how often both copies land in the test set; the question is the other case.",
        0.16: "Count among the test images, not among all images.",
    }
    equal_number(answer, COPIED, within=0.03, mistakes=mistakes)


@exercise
def change(answer: Any) -> None:
    """Split the table so that each camera is in one split only, and hand in the table. How far does the result for a
    new camera differ?

    Answer: a table with path, label, camera and split
    Hint: `tables.split` can keep rows together that share something.
    Hint: The argument `group` names the column whose values stay together.
    Hint: `tables.split(table, val=…, test=…, group="camera", seed=0)`; with two cameras only, take `val=0`.
    Right: Now the test asks what you will want to know on the day a new camera is mounted.
    """
    found = table(answer, "path", "label", "camera", "split")
    names = set(found["split"].astype(str))
    expect({"train", "test"} <= names, f"Expected the splits train and test. Received {', '.join(sorted(names))}.")
    both = found.groupby("camera", observed=True)["split"].nunique()
    expect(
        (both == 1).all(),
        f"The camera {both.idxmax()!r} is in {both.max()} splits, so the test does not ask about a new camera.",
    )
    missing = [name for name, rows in found.groupby("split", observed=True) if rows["label"].nunique() < 2]
    expect(not missing, f"The split {', '.join(map(str, missing))} has one class only.")
    as_on_disk(found, "camera")


def _made_table(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(0, 30, 60))
    split = rng.choice(["train", "val", "test"], 60, p=[0.6, 0.2, 0.2])
    return pd.DataFrame({"path": [f"{place}.png" for place in range(60)], "group": group, "split": split})


@exercise
def build(answer: Any) -> None:
    """Write `leaked(table)`: the rows of val and test whose picture (the same `group`) is also in train.

    Answer: a function of a table with path, group and split
    Hint: First collect the groups that occur in training.
    Hint: Then keep the rows that are not training and whose group is among those.
    Hint: `table[(table["split"] != "train") & table["group"].isin(…)]`.
    Right: Three lines that belong in every project, before the first number is believed.
    """
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
        expect(not extra, f"{len(extra)} of its rows have no copy in the training set.")
        missed = truth - set(found["path"])
        expect(not missed, f"It misses {len(missed)} of {len(truth)} leaks; think of val as well as test.")

"""Judges 03_prepare_images: what copies do to a test, a split by groups, finding leaks, a table to train on."""

from typing import Any

import numpy as np
import pandas as pd

from cnnlab import audit, tables
from cnnlab.exercises.answers import Off, as_on_disk, call, expect, file, table


def change(answer: Any) -> None:
    """A table in which each camera is in one split only."""
    found = table(answer, "path", "label", "camera", "split")
    names = set(found["split"].astype(str))
    expect({"train", "test"} <= names, f"Expected the splits train and test. Received {', '.join(sorted(names))}.")
    both = found.groupby("camera", observed=True)["split"].nunique()
    words = f"The camera '{both.idxmax()}' is in {both.max()} splits, so the test does not ask about a new camera."
    expect((both == 1).all(), words)
    missing = [name for name, rows in found.groupby("split", observed=True) if rows["label"].nunique() < 2]
    expect(not missing, f"The split {', '.join(map(str, missing))} has one class only.")
    as_on_disk(found, "camera")


def build(answer: Any) -> None:
    """A function that gives the rows of val and test whose group is also in train."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        group, split = np.sort(rng.integers(0, 30, 60)), rng.choice(["train", "val", "test"], 60, p=[0.6, 0.2, 0.2])
        made = pd.DataFrame({"path": [f"{row}.png" for row in range(60)], "group": group, "split": split})
        leaked = (split != "train") & np.isin(group, group[split == "train"])
        truth = set(made["path"][leaked])
        found = table(call(answer, made.sample(frac=1, random_state=seed)), "path", "split")
        paths = set(found["path"])
        expect(paths, "It finds nothing, though there are leaks. Copies have different paths but the same group.")
        training = (found["split"] == "train").any()
        words = "Training rows are among them. A leak is a val or test image that the network has learned from."
        expect(not training, words)
        expect(paths <= truth, f"{len(paths - truth)} of its rows have no copy in the training set.")
        missed = len(truth - paths)
        expect(not missed, f"It misses {missed} of {len(truth)} leaks; think of val as well as test.")


def prepared(answer: Any) -> str:
    """A saved table: audited, split in three, no copies in two splits, every class in each."""
    try:
        found = tables.read(file(answer, "a table that `tables.save` wrote"))
    except ValueError as error:
        raise Off(f"`tables.read` cannot read it: {error}") from None
    table(found, "path", "label", "split", "problem", "group")
    names = set(found["split"].astype(str))
    expect({"train", "val", "test"} <= names, f"Expected train, val and test. Received {', '.join(sorted(names))}.")
    broken = int((found["problem"].fillna("") != "").sum())
    expect(not broken, f"{broken} of its rows have a problem: leave them out.")
    leaking = len(audit.leaks(found))
    expect(not leaking, f'{leaking} images have a copy in another split: split with `group="group"`.')
    for name, rows in found.groupby("split", observed=True):
        missing = set(found["label"].cat.categories) - set(rows["label"])
        expect(not missing, f"The split {name} has no image of {', '.join(sorted(missing))}.")
    as_on_disk(found)
    return f"It has {len(found):,} images of {found['label'].nunique()} classes."

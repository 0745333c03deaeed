"""Judges 12_your_own_images: how many test images, a table of one's own, a report per class, a list to review."""

import functools
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnlab import metrics
from cnnlab.exercises.answers import as_on_disk, call, equal_number, expect, made_predictions, table
from cnnlab.metrics.intervals import wilson

ACCURACY, REACH = 0.9, 0.02


@functools.cache
def _images() -> int:
    """The fewest test images whose interval around `ACCURACY` reaches no further than `REACH` either way."""
    images = np.arange(100, 4000, 10)
    low, high = wilson(ACCURACY, images)
    return int(images[high - low <= 2 * REACH][0])


def predict(answer: Any) -> str:
    """The number of test images for an interval of ± 0.02."""
    mistakes: dict[float, str] = {
        100: "With 100 images the interval reaches about 0.06 either way.",
        50: "One image of 50 is 0.02; but chance moves more than one image.",
        2401: "That many would be needed at an accuracy of one half; at 0.9 chance moves less.",
        2400: "That many would be needed at an accuracy of one half; at 0.9 chance moves less.",
        225: "Right for one standard deviation; the interval of 95 % reaches twice as far.",
    }
    equal_number(answer, _images(), within=0.15 * _images(), mistakes=mistakes)
    return f"Wilson's interval asks for {_images()} images."


def change(answer: Any) -> str:
    """A table without problems, each class in each of three splits, each picture in one."""
    found = table(answer, "path", "label", "split", "group", "problem")
    expect(isinstance(found["label"].dtype, pd.CategoricalDtype), "`label` is no Categorical any more.")
    broken = int((found["problem"].fillna("") != "").sum())
    expect(not broken, f"{broken} of its images have a problem, and would be skipped in training.")
    counts = pd.crosstab(found["label"].astype(str), found["split"].astype(str))
    parts = [part for part in ("train", "val", "test") if part not in counts]
    expect(not parts, f"It has no split {', '.join(parts)}.")
    expect(len(counts) >= 2, "It has one class only, and one class needs no network.")
    empty = counts.index[(counts == 0).any(axis=1)]
    expect(not len(empty), f"The class {list(empty)[:1]} is missing from one of the splits.")
    splits = found.groupby("group")["split"].nunique()
    words = f"{(splits > 1).sum()} pictures are in more than one split: the test asks what the network has memorized."
    expect((splits == 1).all(), words)
    as_on_disk(found)
    return f"{len(found):,} images of {len(counts)} classes."


def build(answer: Any) -> None:
    """A function that gives images, recall and its interval of each class, the worst first."""
    for seed in range(3):
        made = made_predictions(rows=90, seed=seed)
        found = table(call(answer, made.copy()), "class", "images", "recall", "low", "high")
        wanted = metrics.per_class(made, bootstrap=100)
        expect(set(found["class"].astype(str)) == set(wanted.index), "Expected one row for each class.")
        given = found.assign(**{"class": found["class"].astype(str)}).set_index("class").loc[wanted.index]
        expect(np.array_equal(given["images"], wanted["support"]), "`images` should count the images of each class.")
        recall = given["recall"].astype(float)
        words = "That is the precision: divide by the images that are the class, not by those predicted as it."
        right = np.allclose(recall, wanted["recall"])
        expect(right or not np.allclose(recall, wanted["precision"]), words)
        expect(right, "`recall` is not the share that is found.")
        for side in ("low", "high"):
            off = np.abs(given[side].astype(float) - wanted[f"recall_{side}"]).max()
            expect(off < 0.03, f"`{side}` is up to {off:.2f} away from Wilson's interval.")
        expect(found["recall"].is_monotonic_increasing, "The worst class should come first: it is what one looks for.")


def review(answer: Any) -> None:
    """A function that writes the least sure rows to a CSV file and returns its path."""
    with tempfile.TemporaryDirectory() as folder:
        for seed, share in enumerate((0.1, 0.25, 0.51)):
            made, file = made_predictions(rows=50 + seed, seed=seed), Path(folder) / f"{seed}.csv"
            path = call(answer, made.copy(), share, str(file))
            expect(path is not None, "Your function should return the path of the file.")
            written = str(path) == str(file) and file.is_file()
            expect(written, f"Write the file that was asked for, {file.name}, and return its path.")
            found, count = pd.read_csv(file), math.ceil(share * len(made))
            names, columns = [str(name) for name in found], ["path", "predicted", "confidence"]
            expect(names == columns, f"Expected the columns {', '.join(columns)}. Received {', '.join(names)}.")
            expect(
                len(found) == count, f"A share of {share} of {len(made)} rows is {count}. The file has {len(found)}."
            )
            least = made.nsmallest(count, "confidence")["path"].tolist()
            expect(set(found["path"]) == set(least), "These are not the rows with the lowest confidence.")
            expect(found["path"].tolist() == least, "The least sure row should come first.")

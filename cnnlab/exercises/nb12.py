"""Exercises of 12_your_own_images: how many test images, a table of one's own, a report per class."""

import functools
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from cnnlab.exercises.asking import as_on_disk, call, equal_number, exercise, expect, made_predictions, table

ACCURACY, REACH = 0.9, 0.02


@functools.cache
def _images() -> int:
    """The fewest test images whose interval around `ACCURACY` reaches no further than `REACH` either way."""
    for images in range(100, 4000, 10):
        interval = binomtest(round(ACCURACY * images), images).proportion_ci(method="wilson")
        if interval.high - interval.low <= 2 * REACH:
            return images
    raise RuntimeError("No number of images is enough.")


@exercise
def predict(answer: Any) -> str:
    """Your model is right in 90% of the cases. How many test images do you need so that the 95 % interval reaches no
    further than 0.02 either way? Guess a number.

    Answer: a whole number
    Hint: With 100 images the standard deviation of the accuracy is 0.03. How does it fall with more images?
    Hint: The standard deviation is the root of p (1 - p) / n, and the interval reaches about twice as far.
    Hint: Solve 1.96 × root of 0.09 / n = 0.02 for n.
    Right: Now you can say before collecting how many images a promise costs.
    """
    mistakes: dict[float, str] = {
        100: "With 100 images the interval reaches about 0.06 either way.",
        50: "One image of 50 is 0.02; but chance moves more than one image.",
        2401: "That many would be needed at an accuracy of one half; at 0.9 chance moves less.",
        2400: "That many would be needed at an accuracy of one half; at 0.9 chance moves less.",
        225: "Right for one standard deviation; the interval of 95 % reaches twice as far.",
    }
    equal_number(answer, _images(), within=0.15 * _images(), mistakes=mistakes)
    return f"Wilson's interval asks for {_images()} images."


@exercise
def change(answer: Any) -> str:
    """Change `data` to a folder of your own and hand in the table that the network would learn from: scanned, without
    problems, and split.

    Answer: a table with path, label, problem, group and split
    Hint: Three steps: `tables.from_folder`, `audit.scan`, `tables.split`.
    Hint: Keep the rows whose `problem` is the empty text before you split.
    Hint: `tables.split(table, val=0.15, test=0.15, group="group", seed=0)`.
    Right: Readable, split, and no picture in two splits.
    """
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
    sides = found.groupby("group")["split"].nunique()
    expect(
        (sides == 1).all(),
        f"{int((sides > 1).sum())} pictures are in more than one split: the test asks what the network has memorized.",
    )
    as_on_disk(found)
    return f"{len(found):,} images of {len(counts)} classes."


@exercise
def build(answer: Any) -> None:
    """Write `report(predictions)`: one row per class with `class`, `images`, `recall` and its interval `low` and
    `high`; the worst class first.

    Answer: a function of a prediction table
    Hint: `metrics.per_class` has nearly all of it; which columns and which order remain?
    Hint: With `bootstrap=…` it adds intervals; by hand, scipy's `binomtest(…).proportion_ci(method="wilson")`.
    Hint: One row for each class: images that are it, share found, interval; then `sort_values("recall")`.
    Right: That table fits on one slide, and says where to collect images next.
    """
    for seed in range(3):
        made = made_predictions(rows=90, seed=seed)
        found = table(call(answer, made.copy()), "class", "images", "recall", "low", "high")
        truth = []
        for name, part in made.groupby("label", observed=True):
            right = int((part["predicted"].astype(str) == name).sum())
            interval = binomtest(right, len(part)).proportion_ci(method="wilson")
            truth.append((name, len(part), right / len(part), interval.low, interval.high))
        wanted = pd.DataFrame(truth, columns=["class", "images", "recall", "low", "high"]).set_index("class")
        expect(set(found["class"].astype(str)) == set(wanted.index), "Expected one row for each class.")
        given = found.assign(**{"class": found["class"].astype(str)}).set_index("class").loc[wanted.index]
        expect(np.array_equal(given["images"], wanted["images"]), "`images` should count the images of each class.")
        called = made["predicted"].value_counts().reindex(wanted.index)
        precision = wanted["recall"] * wanted["images"] / called
        expect(
            np.allclose(given["recall"].astype(float), wanted["recall"])
            or not np.allclose(given["recall"].astype(float), precision),
            "That is the precision: divide by the images that are the class, not by those that are called so.",
        )
        expect(np.allclose(given["recall"].astype(float), wanted["recall"]), "`recall` is not the share that is found.")
        for side in ("low", "high"):
            off = np.abs(given[side].astype(float) - wanted[side]).max()
            expect(off < 0.03, f"`{side}` is up to {off:.2f} away from Wilson's interval.")
        expect(found["recall"].is_monotonic_increasing, "The worst class should come first: it is what one looks for.")

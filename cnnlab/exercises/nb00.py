"""Judges 00_quickstart: the width of an interval, data without augmentation, the surest mistakes."""

import functools
from typing import Any

import numpy as np
import pandas as pd

from cnnlab import metrics
from cnnlab.exercises.answers import Off, call, equal_number, expect, kind_of, made_predictions, table


@functools.cache
def _width(images: int) -> float:
    """How wide the interval around an accuracy of nine tenths is, for so many images."""
    right = np.arange(images) % 10 > 0
    made = pd.DataFrame({"label": pd.Categorical(["a"] * images, ["a", "b"]), "predicted": np.where(right, "a", "b")})
    accuracy = metrics.scores(made, bootstrap=100).iloc[0]
    return float(accuracy["high"] - accuracy["low"])


def predict(answer: Any) -> str:
    """Four times the images give half the width."""
    mistakes = {
        1: "The same width would mean that more images tell nothing more.",
        0.25: "A quarter would be splendid; but chance does not average out as fast as images add up.",
        2: "More images make the interval narrower.",
        4: "More images make the interval narrower.",
    }
    equal_number(answer, _width(1200) / _width(300), within=0.05, mistakes=mistakes)
    return f"At an accuracy of 0.9 it is {_width(300):.3f} wide with 300 images and {_width(1200):.3f} with 1,200."


def change(answer: Any) -> None:
    """The table and a dataset of its images that shuffles them and changes none."""
    from cnnlab import pipelines

    expect(isinstance(answer, tuple) and len(answer) == 2, "Expected two things: a table, and the dataset of it.")
    train, data = table(answer[0], "path", "label"), answer[1]
    if not hasattr(data, "as_numpy_iterator"):
        raise Off(f"Expected a dataset, as `pipelines.load` returns. Received {kind_of(data)}.")
    expect(train["label"].nunique() > 1, "The table should be your training set, with all its classes.")
    plain = pipelines.load(train, image_size=tuple(data.element_spec[0].shape[1:3]), cache=False)
    first, second = _one_epoch(data), _one_epoch(data)
    same = sorted(first) == sorted(second)
    expect(same, "Two epochs of it show different pictures, so something still changes them.")
    words = f"Its {len(first)} images are not those of your table of {len(train)}, or have other labels."
    expect(sorted(first) == sorted(_one_epoch(plain)), words)
    words = "Every epoch brings the images in the same order. Augmentation is gone, and so is the shuffling that "
    expect(first != second, f"{words}training needs.")


def _one_epoch(data: Any) -> list[tuple[bytes, str]]:
    """The pixels and the label of every image, in the order of one epoch."""
    batches = (zip(images.round().astype(np.uint8), labels, strict=True) for images, labels in data.as_numpy_iterator())
    return [(image.tobytes(), str(label)) for batch in batches for image, label in batch]


def build(answer: Any) -> None:
    """A function that gives the wrong rows with the highest confidence, the highest first."""
    for seed in range(3):
        predictions = made_predictions(seed=seed)
        found = table(call(answer, predictions.copy(), 3), "path", "label", "predicted", "confidence")
        right = found["label"].astype(str) == found["predicted"].astype(str)
        expect(not right.any(), "Some of its rows are right answers, and those surprise nobody.")
        expect(len(found) == 3, f"Asked for 3 rows, it returned {len(found)}.")
        wanted = predictions[predictions["label"] != predictions["predicted"]].nlargest(3, "confidence")["path"]
        expect(set(found["path"]) == set(wanted), "These are mistakes, but not the ones the model was surest of.")
        expect(list(found["path"]) == list(wanted), "The right rows; the surest mistake should come first.")

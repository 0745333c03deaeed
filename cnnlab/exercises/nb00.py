"""Exercises of 00_quickstart: how sure a number is, what augmentation changes, which mistakes to look at."""

import functools
from typing import Any

import numpy as np
import pandas as pd

from cnnlab import metrics
from cnnlab.exercises.asking import Off, call, equal_number, exercise, expect, kind_of, made_predictions, table


@functools.cache
def _width(images: int) -> float:
    """How wide the interval around an accuracy of nine tenths is, for so many images."""
    label = pd.Categorical(np.tile(["a", "b"], images // 2))
    wrong = np.arange(images) % 10 == 0
    predicted = pd.Categorical.from_codes(np.where(wrong, 1 - label.codes, label.codes), label.categories)
    scores = metrics.scores(pd.DataFrame({"label": label, "predicted": predicted}), bootstrap=200, seed=0)
    accuracy = scores[scores["metric"] == "accuracy"].iloc[0]
    return float(accuracy["high"] - accuracy["low"])


@exercise
def predict(answer: Any) -> str:
    """With four times as many test images, how many times as wide would the interval around the accuracy be? Write your
    guess down as a number (1 means: as wide as now), then check it.

    Answer: a number
    Hint: An average of more draws moves less. Does its spread halve when the draws double?
    Hint: The spread of an average falls with the square root of the number of draws.
    Hint: It is one divided by the square root of four.
    Right: Four times the images buy half the width: that is why the last digit of an accuracy is so expensive.
    """
    mistakes = {
        1: "The same width would mean that more images tell nothing more.",
        0.25: "A quarter would be splendid; but chance does not average out as fast as images add up.",
        2: "More images make the interval narrower.",
        4: "More images make the interval narrower.",
    }
    equal_number(answer, _width(1200) / _width(300), within=0.05, mistakes=mistakes)
    return f"At an accuracy of 0.9 it is {_width(300):.3f} wide with 300 images and {_width(1200):.3f} with 1,200."


@exercise
def change(answer: Any) -> None:
    """Load the training set again without augmentation and train on it. What happens to the gap between the two curves?
    Hand in your table and the dataset: `(train, data)`.

    Answer: a table and a dataset from `pipelines.load`
    Hint: Look at the cell that makes `train_data`: which argument brings the changes?
    Hint: Leave everything else as it is, above all `training=True`, which shuffles.
    Hint: `pipelines.load(train, image_size=size, training=True, augment=…, seed=seed)`, with nothing for the dots.
    Right: The same pictures in a new order each time; memorized sooner, which is the gap you saw.
    """
    from cnnlab import pipelines

    expect(isinstance(answer, tuple) and len(answer) == 2, "Expected two things: a table, and the dataset of it.")
    train, data = table(answer[0], "path", "label"), answer[1]
    if not hasattr(data, "as_numpy_iterator"):
        raise Off(f"Expected a dataset, as `pipelines.load` returns. Received {kind_of(data)}.")
    expect(train["label"].nunique() > 1, "The table should be your training set, with all its classes.")
    epochs = [_seen(data), _seen(data)]
    plain = _seen(pipelines.load(train, image_size=tuple(data.element_spec[0].shape[1:3]), cache=False))
    expect(
        sorted(epochs[0]) == sorted(epochs[1]),
        "Two epochs of it show different pictures, so something still changes them.",
    )
    expect(
        sorted(epochs[0]) == sorted(plain),
        f"Its {len(epochs[0])} images are not those of your table of {len(train)}, or have other labels.",
    )
    expect(
        epochs[0] != epochs[1],
        "Every epoch brings the images in the same order. Augmentation is gone, and so is the shuffling that "
        "training needs.",
    )


def _seen(data: Any) -> list[tuple[bytes, str]]:
    """The pixels and the label of every image, in the order of one epoch."""
    pairs = ((images, labels) for images, labels in data.as_numpy_iterator())
    return [
        (np.round(image).astype(np.uint8).tobytes(), str(label))
        for images, labels in pairs
        for image, label in zip(images, labels, strict=True)
    ]


def _reference(predictions: pd.DataFrame, count: int) -> list[str]:
    wrong = predictions[predictions["label"].astype(str) != predictions["predicted"].astype(str)]
    return wrong.sort_values("confidence", ascending=False)["path"].head(count).tolist()


@exercise
def build(answer: Any) -> None:
    """Write `surprises(predictions, count)`: the rows that are wrong with the highest confidence, surest first. Then
    point `data` at a folder of your own and look at your three.

    Answer: a function of a prediction table and a count
    Hint: First keep the rows that are wrong, then bring them into order, then take some.
    Hint: A row is wrong where `label` differs from `predicted`; compare them as text.
    Hint: `wrong.sort_values("confidence", ascending=…).head(count)`: which way round is surest first?
    Right: These few images teach more about a model than its accuracy does.
    """
    for seed in range(3):
        predictions = made_predictions(seed=seed)
        found = table(call(answer, predictions.copy(), 3), "path", "label", "predicted", "confidence")
        right = found["label"].astype(str) == found["predicted"].astype(str)
        expect(not right.any(), "Some of its rows are right answers, and those surprise nobody.")
        expect(len(found) == 3, f"Asked for 3 rows, it returned {len(found)}.")
        wanted = _reference(predictions, 3)
        expect(
            set(found["path"]) == set(wanted),
            "These are mistakes, but not the ones the model was surest of.",
        )
        expect(found["path"].tolist() == wanted, "The right rows; the surest mistake should come first.")

"""Judges 00_quickstart: an interval, data without augmentation, sure mistakes, precision and recall, sorted files."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnlab import metrics
from cnnlab.exercises.answers import Off, call, equal_number, expect, kind_of, made_predictions, number, table


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


FOUND, OF_CLASS, INVENTED = 45, 60, 5


def read_scores(answer: Any) -> None:
    """Precision and recall of a class, from three counts."""
    expect(isinstance(answer, (tuple, list)) and len(answer) == 2, "Expected two numbers: `(precision, recall)`.")
    precision, recall = (number(one) for one in answer)
    truth = FOUND / (FOUND + INVENTED), FOUND / OF_CLASS
    swapped = np.allclose((recall, precision), truth, atol=0.005)
    expect(not swapped, "The right numbers the other way round: recall asks how many of the scratches were found.")
    expect(abs(recall - truth[1]) <= 0.005, f"A recall of {recall:g} is off: divide by all images that show a scratch.")
    words = f"A precision of {precision:g} is off: divide by all images that were called a scratch, right or wrong."
    expect(abs(precision - truth[0]) <= 0.005, words)


def sort_into(answer: Any) -> None:
    """A function that copies each image into a subfolder named after its predicted class."""
    with tempfile.TemporaryDirectory() as temporary:
        here, target = Path(temporary, "pictures"), Path(temporary, "sorted")
        made = made_predictions(rows=12, seed=1)
        made["path"] = [str(here / f"camera{place % 3}" / f"{place // 3}.png") for place in range(len(made))]
        for place, path in enumerate(made["path"]):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(bytes([place]))
        call(answer, made.copy(), str(target))
        kept = all(Path(path).is_file() for path in made["path"])
        expect(kept, "Images are missing from where they were: copy them, never move what is yours.")
        sorted_files = [path for path in target.rglob("*") if path.is_file()]
        expect(sorted_files, f"The folder {target.name!r} that was asked for holds no file.")
        found = sorted((path.read_bytes(), path.parent.name) for path in sorted_files)
        words = f"{len(made)} images went in, {len(found)} came out. Two cameras may use one file name, such as 0.png."
        expect(len({content for content, _ in found}) == len(made), words)
        expect(
            len(found) == len(made), f"{len(made)} images went in, {len(found)} came out: each belongs into one folder."
        )
        wanted, labels = (
            [(bytes([place]), str(name)) for place, name in enumerate(made[one])] for one in ("predicted", "label")
        )
        expect(found != labels, "They are sorted by `label`, which new images do not have: sort by `predicted`.")
        expect(found == wanted, "An image is not in the subfolder that is named after its predicted class.")

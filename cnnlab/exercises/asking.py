"""What an exercise is, and how an answer of any kind is read and compared."""

import collections.abc
import inspect
import math
import numbers
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

KINDS = ("predict", "change", "build")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook; its number follows from its place.

    Attributes:
        question: Markdown, as the notebook shows it.
        answer: What to hand in, in a few words: "a whole number".
        hints: Three, each nearer to the solution than the one before.
        right: A warm sentence for a right answer.
        judge: Takes the answer; raises `Off` with what is wrong, and may return one more sentence for a right one.
    """

    question: str
    answer: str
    hints: tuple[str, str, str]
    right: str
    judge: Callable[[Any], str | None]


def exercise(judge: Callable[[Any], str | None]) -> Exercise:
    """Makes an exercise of a function that judges answers and whose docstring holds all words.

    The docstring begins with the question; `Answer:`, three times `Hint:` and `Right:` begin lines of their own.
    """
    question, _, rest = inspect.cleandoc(judge.__doc__ or "").partition("\n\nAnswer: ")
    answer, *hints, right = (" ".join(part.split()) for part in re.split(r"\n(?:Hint|Right): ", rest))
    first, second, third = hints
    return Exercise(" ".join(question.split()), answer, (first, second, third), right, judge)


class Off(Exception):  # noqa: N818  (it is an answer that is off, not a failure)
    """What is wrong with an answer, as a sentence for the person who gave it."""


def expect(holds: Any, words: str) -> None:
    """Goes on where the condition holds; else that is what is off."""
    if not bool(holds):
        raise Off(words)


def number(answer: Any) -> float:
    """The answer as a number; numpy's and one in a text count, too, and a per cent is a hundredth.

    >>> number("0.5"), number("50 %")
    (0.5, 0.5)
    """
    if isinstance(answer, str):
        digits = answer.strip().removesuffix("%")
        try:
            answer = float(digits) / (100 if "%" in answer else 1)
        except ValueError:
            raise Off(f"Expected a number. Received the text {answer!r}.") from None
    if isinstance(answer, np.ndarray) and answer.size == 1:
        answer = answer.item()
    if isinstance(answer, (bool, np.bool_)) or not isinstance(answer, numbers.Real):
        raise Off(f"Expected a number. Received {kind_of(answer)}.")
    expect(math.isfinite(float(answer)), f"Expected a finite number. Received {float(answer)}.")
    return float(answer)


def equal_number(
    answer: Any, truth: float, *, within: float = 1e-6, mistakes: Mapping[float, str] | None = None, words: str = ""
) -> None:
    """Refuses a number that is not `truth`; where it is a mistake that people make, says which one.

    Args:
        answer: What was handed in, or what a function of theirs returned.
        truth: The right number, computed.
        within: How far off still counts as right.
        mistakes: What to say of typical wrong numbers.
        words: What to say of any other number, after "It gives 0.5"; too large or too small where empty.
    """
    value = number(answer)
    if abs(value - truth) <= within:
        return
    for wrong, why in (mistakes or {}).items():
        if abs(value - wrong) <= min(within, max(0.05 * abs(wrong), 1e-6)):
            raise Off(why)
    if 0 < truth < 1 and abs(value / 100 - truth) <= within:
        raise Off(f"{value:g} would be {value:g} times as much as all there is. As a share it is {value / 100:g}.")
    raise Off(f"It gives {value:.4g}{words}" if words else f"{value:g} is too {'large' if value > truth else 'small'}.")


def choice(answer: Any, options: Sequence[str]) -> str:
    """The answer as one of some words, whatever its case."""
    if not isinstance(answer, str):
        raise Off(f"Expected one of {', '.join(map(repr, options))}. Received {kind_of(answer)}.")
    found = [option for option in options if option.lower() == answer.strip().lower()]
    expect(found, f"Expected one of {', '.join(map(repr, options))}. Received {answer!r}.")
    return found[0]


def choices(answer: Any, options: Sequence[str]) -> set[str]:
    """The answer as some of the options: a list, a tuple, a set, or one text with commas."""
    if isinstance(answer, str):
        answer = [part for part in answer.split(",") if part.strip()]
    if not isinstance(answer, (collections.abc.Iterable)):
        raise Off(f"Expected a list of words out of {', '.join(map(repr, options))}. Received {kind_of(answer)}.")
    return {choice(part, options) for part in answer}


def table(answer: Any, *columns: str) -> pd.DataFrame:
    """The answer as a table that has these columns."""
    if not isinstance(answer, pd.DataFrame):
        raise Off(f"Expected a table (pandas DataFrame). Received {kind_of(answer)}.")
    missing = [name for name in columns if name not in answer.columns]
    expect(not missing, f"The table lacks the column {', '.join(map(repr, missing))}.")
    return answer


def as_on_disk(answer: pd.DataFrame, *columns: str) -> None:
    """Refuses rows whose label, or one of some columns, left their image; some corrected labels are fine."""
    from cnnlab import tables

    paths = [Path(path) for path in answer["path"]]
    expect(all(path.is_file() for path in paths), "Its paths lead to no files: hand in the table of your images.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = tables.from_folder(os.path.commonpath([path.parent.parent for path in paths]))
    except (OSError, ValueError):  # images that are not kept in a folder for each class
        return
    stored = stored.set_index("path").reindex([str(path) for path in paths])
    for name in ("label", *(name for name in columns if name in stored)):
        known = stored[name].notna().to_numpy()
        same = (answer[name].astype(str).to_numpy() == stored[name].astype(str).to_numpy())[known]
        least = 0.6 if name == "label" else 1.0
        expect(
            not len(same) or same.mean() >= least,
            f"In {1 - same.mean():.0%} of the rows `{name}` is not that of the image: splitting moves whole rows.",
        )


def call(function: Any, *arguments: Any, **options: Any) -> Any:
    """What the person's function returns; its own error becomes what is off."""
    if not callable(function):
        raise Off(
            f"Expected a function: hand in its name without parentheses, so that it can be tried. "
            f"Received {kind_of(function)}."
        )
    try:
        return function(*arguments, **options)
    except Exception as error:
        raise Off(f"Your function raised {type(error).__name__}: {error}") from error


def array(value: Any, *, shape: tuple[int, ...] | None = None, what: str = "Your function's result") -> np.ndarray:
    """A value as an array of numbers, of this shape."""
    try:
        result = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise Off(f"{what} should be an array of numbers. Received {kind_of(value)}.") from None
    if shape is not None and result.shape != shape:
        raise Off(f"{what} should have the shape {shape}. Received {result.shape}.")
    return result


def model(answer: Any) -> Any:
    """The answer as a Keras model."""
    import cnnlab._quiet  # noqa: F401, I001
    import keras

    if not isinstance(answer, keras.Model):
        raise Off(f"Expected a `keras.Model`. Received {kind_of(answer)}.")
    return answer


def layers_in_order(network: Any) -> list[Any]:
    """The layers of a network from input to output, those of networks inside it in their place."""
    parts = ([layer] if not hasattr(layer, "layers") else layers_in_order(layer) for layer in network.layers)
    return [layer for part in parts for layer in part]


def kind_of(value: Any) -> str:
    """What something is, in words.

    >>> kind_of(None), kind_of("yes"), kind_of(len)
    ('nothing (None)', "the text 'yes'", 'a function')
    """
    if value is None:
        return "nothing (None)"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if callable(value) and hasattr(value, "__name__"):
        return "a function"
    return f"a {type(value).__name__}"


def made_predictions(*, rows: int = 60, classes: Sequence[str] = ("crack", "good", "pit"), seed: int) -> pd.DataFrame:
    """A prediction table out of nothing, for trying people's functions on: right in about two of three rows."""
    rng, names = np.random.default_rng(seed), pd.Index(classes)
    truth = rng.choice(len(classes), rows, p=np.arange(len(classes), 0, -1) / sum(range(len(classes) + 1)))
    chance = rng.dirichlet(np.full(len(classes), 0.7), rows)
    chance[np.arange(rows), truth] += rng.random(rows)
    chance /= chance.sum(axis=1, keepdims=True)
    predicted = chance.argmax(axis=1)
    return pd.DataFrame(
        {
            "path": [f"{number:03d}.png" for number in range(rows)],
            "label": pd.Categorical.from_codes(truth, names),
            "predicted": pd.Categorical.from_codes(predicted, names),
            "confidence": chance.max(axis=1),
            **{f"p_{name}": chance[:, place] for place, name in enumerate(classes)},
        }
    )

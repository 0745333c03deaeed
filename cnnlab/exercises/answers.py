"""How an answer of any kind is read and compared; what is wrong with it is raised as `Off`."""

import collections.abc
import math
import numbers
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cnnlab._answers import with_probabilities


class Off(Exception):  # noqa: N818  (it is an answer that is off, not a failure)
    """What is wrong with an answer, as a sentence for the person who gave it."""


def expect(holds: Any, words: str) -> None:
    """Goes on where the condition holds; else that is what is off."""
    if not bool(holds):
        raise Off(words)


def expect_type(answer: Any, kind: Any, words: str) -> None:
    """Refuses an answer of another type: "Expected a table. Received a list."."""
    expect(isinstance(answer, kind), f"Expected {words}. Received {kind_of(answer)}.")


def kind_of(value: Any) -> str:
    """What something is, in words.

    >>> kind_of(None), kind_of("yes"), kind_of(len), kind_of(2)
    ('nothing (None)', "the text 'yes'", 'a function', 'an int')
    """
    if value is None:
        return "nothing (None)"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    name = type(value).__name__
    article = "an" if name[0].lower() in "aeio" else "a"  # an int, a uint8
    return "a function" if callable(value) and hasattr(value, "__name__") else f"{article} {name}"


def number(answer: Any) -> float:
    """The answer as a number; numpy's and one in a text count, too, and a per cent is a hundredth.

    >>> number("0.5"), number("50 %")
    (0.5, 0.5)
    """
    if isinstance(answer, str):
        try:
            answer = float(answer.strip().removesuffix("%")) / (100 if "%" in answer else 1)
        except ValueError:
            raise Off(f"Expected a number. Received the text {answer!r}.") from None
    if isinstance(answer, np.ndarray) and answer.size == 1:
        answer = answer.item()
    if isinstance(answer, (bool, np.bool_)) or not isinstance(answer, numbers.Real):
        raise Off(f"Expected a number. Received {kind_of(answer)}.")
    expect(math.isfinite(answer), f"Expected a finite number. Received {float(answer)}.")
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
    """The answer as one of some words, whatever its case, in parentheses or not."""
    words = f"one of {', '.join(map(repr, options))}"
    expect_type(answer, str, words)
    found = [option for option in options if option.lower() == answer.strip(" ()").lower()]
    expect(found, f"Expected {words}. Received {answer!r}.")
    return found[0]


def choices(answer: Any, options: Sequence[str]) -> set[str]:
    """The answer as some of the options: a list, a tuple, a set, or one text with commas."""
    if isinstance(answer, str):
        answer = [part for part in answer.split(",") if part.strip()]
    expect_type(answer, collections.abc.Iterable, f"a list of words out of {', '.join(map(repr, options))}")
    return {choice(part, options) for part in answer}


def table(answer: Any, *columns: str) -> pd.DataFrame:
    """The answer as a table that has these columns."""
    expect_type(answer, pd.DataFrame, "a table (pandas DataFrame)")
    missing = [name for name in columns if name not in answer.columns]
    expect(not missing, f"The table lacks the column {', '.join(map(repr, missing))}.")
    return answer


def file(answer: Any, what: str) -> Path:
    """The answer as the path of a file that exists."""
    expect_type(answer, (str, os.PathLike), f"the path of {what}")
    expect(Path(answer).is_file(), f"File not found: {str(answer)!r}.")
    return Path(answer)


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
        moved = (answer[name].astype(str).to_numpy() != stored[name].astype(str).to_numpy())[known]
        share, most = (moved.mean() if len(moved) else 0), (0.4 if name == "label" else 0)
        expect(
            share <= most,
            f"In {share:.0%} of the rows `{name}` is not that of the image: splitting moves whole rows.",
        )


def call(function: Any, *arguments: Any, **options: Any) -> Any:
    """What the person's function returns; its own error becomes what is off."""
    words = "a function: hand in its name without parentheses, so that it can be tried"
    expect_type(function, collections.abc.Callable, words)
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
    expect(shape in (None, result.shape), f"{what} should have the shape {shape}. Received {result.shape}.")
    return result


def layers_in_order(network: Any) -> list[Any]:
    """The layers of a Keras model from input to output, those of networks inside it in their place."""
    import cnnlab._quiet  # noqa: F401, I001
    import keras

    expect_type(network, keras.Model, "a `keras.Model`")
    parts = (layers_in_order(layer) if isinstance(layer, keras.Model) else [layer] for layer in network.layers)
    return [layer for part in parts for layer in part]


def made_predictions(*, rows: int = 60, classes: Sequence[str] = ("crack", "good", "pit"), seed: int) -> pd.DataFrame:
    """A prediction table out of nothing, for trying people's functions on: right in about two of three rows."""
    rng, names = np.random.default_rng(seed), pd.Index(classes)
    truth = rng.choice(len(classes), rows, p=np.arange(len(classes), 0, -1) / sum(range(len(classes) + 1)))
    chance = rng.dirichlet(np.full(len(classes), 0.7), rows)
    chance[np.arange(rows), truth] += rng.random(rows)
    chance /= chance.sum(axis=1, keepdims=True)
    paths = [f"{number:03d}.png" for number in range(rows)]
    table = pd.DataFrame({"path": paths, "label": pd.Categorical.from_codes(truth, names)})
    return with_probabilities(table, chance)

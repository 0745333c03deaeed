"""Finds the exercise, judges the answer, says so, and records it."""

import difflib
import importlib
import os
import pkgutil
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import cnnlab.exercises
from cnnlab.exercises import record
from cnnlab.exercises.asking import KINDS, Exercise, Off

WIDTH = 110  # characters in a line of a reply


class Reply(NamedTuple):
    """What was said about an answer."""

    right: bool
    words: str


def check(exercise: str, answer: Any, *, file: str | os.PathLike[str] | None = None, keep: bool = True) -> None:
    """Prints whether an answer is right; if not, what is off and the next of three hints.

    What is right is computed anew from the question, so any right way counts. With `...` in place of an answer it only
    says what it waits for.

    Args:
        exercise: Notebook and number: "05.2".
        answer: A number, a word, a table, a model, a policy, a function: whatever the exercise asks for.
        file: Where the answer is recorded; beside the notebooks, in `runs/exercises.json`, where None.
        keep: Whether to record it at all.

    Raises:
        ValueError: If there is no such exercise.

    Example:
        >>> check("02.1", 16, keep=False)
        Not yet. 16 ...
        Hint 1 of 3: ...
    """
    name = known(exercise)
    if answer is Ellipsis:
        print(f"{name} waits for your answer: {find(name).answer}, in place of the dots.")  # noqa: T201
        return
    place = Path(file) if file else record.default_file()
    wrong = record.read(place).get(name, {}).get("wrong", 0) if keep else 0
    reply = judge(name, answer, wrong=wrong)
    print(reply.words)  # noqa: T201
    if keep:
        try:
            record.write(place, name, right=reply.right)
        except OSError as error:
            print(f"(Your progress could not be kept in {place}: {error.strerror}.)")  # noqa: T201


def judge(exercise: str, answer: Any, *, wrong: int = 0) -> Reply:
    """Judges an answer without printing or recording it.

    Args:
        exercise: Notebook and number: "05.2".
        answer: Whatever the exercise asks for.
        wrong: How many wrong answers were given before, which decides the hint.

    Raises:
        ValueError: If there is no such exercise.
    """
    name = known(exercise)
    question = find(name)
    try:
        more = question.judge(answer)
    except Off as off:
        return Reply(False, _wrong(name, question, str(off), wrong))
    except Exception as error:  # answers can be anything; that one cannot be read is for its author to know
        words = f"The answer could not be read ({type(error).__name__}: {error}). Expected {question.answer}."
        return Reply(False, _wrong(name, question, words, wrong))
    return Reply(True, _wrapped(f"Right! {question.right} {more or ''}".strip()))


def markdown(chapter: str) -> str:
    """The three exercises of a notebook as its cell shows them.

    >>> markdown("02").splitlines()[2][:15]
    '1. **Predict.**'
    """
    lines = ["## Exercises", ""]
    for place, (kind, question) in enumerate(zip(KINDS, load(chapter), strict=True), 1):
        lines.append(f"{place}. **{kind.capitalize()}.** {question.question}")
    return "\n".join(lines)


def chapters() -> list[str]:
    """The numbers of the notebooks that have exercises, in order: "00" and so on."""
    names = (module.name for module in pkgutil.iter_modules(cnnlab.exercises.__path__))
    return sorted(name[2:] for name in names if re.fullmatch(r"nb\d\d", name))


def load(chapter: str) -> tuple[Exercise, ...]:
    """The exercises of one notebook; others are not loaded for it."""
    exercises: tuple[Exercise, ...] = importlib.import_module(f"cnnlab.exercises.nb{chapter}").EXERCISES
    return exercises


def find(name: str) -> Exercise:
    """The exercise of this name, such as "05.2"."""
    chapter, place = name.split(".")
    return load(chapter)[int(place) - 1]


def known(exercise: Any) -> str:
    """The name of an exercise in full: "5.2" is "05.2".

    Raises:
        ValueError: If there is none; names the nearest ones.
    """
    text = str(exercise).strip()
    found = re.fullmatch(r"(\d{1,2})\.(\d)", text)
    name = f"{int(found[1]):02d}.{found[2]}" if found else text
    names = [f"{chapter}.{place}" for chapter in chapters() for place in (1, 2, 3)]
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
    raise ValueError(
        f"There is no exercise {exercise!r}. Names are notebook and number; the nearest are {', '.join(near)}."
    )


def _wrong(name: str, question: Exercise, off: str, wrong: int) -> str:
    hint = question.hints[min(wrong, 2)]
    lines = [_wrapped(f"Not yet. {off}"), _wrapped(f"Hint {min(wrong, 2) + 1} of 3: {hint}")]
    if wrong >= 3:
        lines.append(f"One way to do it is in solutions/{name[:2]}_solutions.ipynb; it is best read after a night.")
    return "\n".join(lines)


def _wrapped(words: str) -> str:
    return "\n".join(textwrap.fill(line, WIDTH, break_long_words=False) for line in words.splitlines())

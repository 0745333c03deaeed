"""Judges an answer, prints what comes of it, and records it."""

import os
import textwrap
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cnnlab.exercises import record
from cnnlab.exercises.answers import Off
from cnnlab.exercises.catalogue import KINDS, chapters, find, full_name, names

WIDTH = 110  # characters in a line of a reply


class Reply(NamedTuple):
    """What was said about an answer."""

    right: bool
    words: str


def check(exercise: str, answer: Any, *, file: str | os.PathLike[str] | None = None, keep: bool = True) -> None:
    """Prints whether an answer is right; if not, what is off and the next of three hints.

    What is judged is the answer, not the way to it. With `...` instead of an answer it only says what it waits for.

    Args:
        exercise: Notebook and number: "05.2".
        answer: A number, a word, a table, a model, a policy, a function: whatever the exercise asks for.
        file: Where the answer is recorded; next to the notebooks, in `runs/exercises.json`, where None.
        keep: Whether to record it at all.

    Raises:
        ValueError: If there is no such exercise.

    Example:
        >>> check("02.1", 16, keep=False)
        Not yet. 16 ...
        Hint 1 of 3: ...
    """
    name = full_name(exercise)
    if answer is Ellipsis:
        print(f"{name} waits for your answer: {find(name).answer}, instead of the dots.")  # noqa: T201
        return
    place = Path(file) if file else record.default_file()
    before = record.read(place)[0].get(name) if keep else None
    reply = judge(name, answer, wrong=before["wrong"] if before else 0)
    print(reply.words)  # noqa: T201
    if keep:
        try:
            trouble = record.write(place, name, right=reply.right)
        except OSError as error:
            trouble = f"Your progress could not be kept in {place}: {error.strerror or error}."
        if trouble:
            print(f"({trouble})")  # noqa: T201


def judge(exercise: str, answer: Any, *, wrong: int = 0) -> Reply:
    """Judges an answer without printing or recording it.

    Args:
        exercise: Notebook and number: "05.2".
        answer: Whatever the exercise asks for.
        wrong: How many wrong answers were given before, which decides the hint.

    Raises:
        ValueError: If there is no such exercise.
    """
    name = full_name(exercise)
    question = find(name)
    try:
        more = question.judge(answer)
        return Reply(True, _wrapped(f"Right! {question.right} {more or ''}".strip()))
    except Off as error:
        words = str(error)
    except Exception as error:  # answers can be anything; that one cannot be read is for its author to know
        words = f"The answer could not be read ({type(error).__name__}: {error}). Expected {question.answer}."
    place = min(wrong, 2)
    lines = [_wrapped(f"Not yet. {words}"), _wrapped(f"Hint {place + 1} of 3: {question.hints[place]}")]
    if wrong >= 3:
        lines.append(f"One way to do it is in solutions/{name[:2]}_solutions.ipynb; it is best read after a night.")
    return Reply(False, "\n".join(lines))


def progress(file: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Shows which exercises are solved, which were tried and which wait.

    Args:
        file: Where answers are recorded; next to the notebooks, in `runs/exercises.json`, where None.

    Returns:
        One row per notebook, and a last one for all; the columns predict, change and build hold "solved", "2 tries" or
        nothing for its first three exercises, and solved counts all.

    Warns:
        UserWarning: If the file, or a part of it, cannot be read.

    Example:
        >>> int(progress("/nowhere/exercises.json").loc["00", "solved"])
        0
    """
    answers, trouble = record.read(Path(file) if file else record.default_file())
    if trouble:
        warnings.warn(trouble, stacklevel=2)
    rows = {
        chapter: {kind: _state(answers.get(f"{chapter}.{place}")) for place, kind in enumerate(KINDS, 1)}
        for chapter in chapters()
    }
    result = pd.DataFrame.from_dict(rows, orient="index")
    result["solved"] = [
        sum(_state(answers.get(name)) == "solved" for name in names(chapter)) for chapter in result.index
    ]
    total = {kind: f"{(result[kind] == 'solved').sum()} of {len(result)}" for kind in KINDS}
    result.loc["all"] = pd.Series(total | {"solved": result["solved"].sum()})
    return result.rename_axis("notebook")


def _state(answer: dict[str, Any] | None) -> str:
    if not answer or answer["solved"]:
        return "solved" if answer else ""
    return f"{answer['wrong']} {'try' if answer['wrong'] == 1 else 'tries'}"


def _wrapped(words: str) -> str:
    return "\n".join(textwrap.fill(line, WIDTH, break_long_words=False) for line in words.splitlines())

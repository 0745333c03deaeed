"""Which exercises there are: their words from exercises.toml, and the functions that judge the answers."""

import difflib
import functools
import importlib
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnlab.exercises.answers import equal_number

KINDS = ("predict", "change", "build")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook.

    Attributes:
        question: Markdown, as the notebook shows it.
        answer: What to hand in, in a few words: "a whole number".
        hints: Three, each nearer to the solution than the one before.
        right: A warm sentence for a right answer.
        kind: What to do: predict, change or build.
        judge: Takes the answer; raises `Off` with what is wrong, and may return one more sentence for a right one.
    """

    question: str
    answer: str
    hints: tuple[str, str, str]
    right: str
    kind: str
    judge: Callable[[Any], str | None]


@functools.cache
def _words() -> dict[str, dict[str, Any]]:
    return tomllib.loads((Path(__file__).parent / "exercises.toml").read_text(encoding="utf-8"))


def markdown(chapter: str) -> str:
    """The exercises of a notebook as its cell shows them.

    >>> markdown("02").splitlines()[2][:15]
    '1. **Predict.**'
    """
    lines = [f"{place}. **{one.kind.capitalize()}.** {one.question}" for place, one in enumerate(load(chapter), 1)]
    return "\n".join(["## Exercises", "", *lines])


def chapters() -> list[str]:
    """The numbers of the notebooks that have exercises, in order: "00" and so on."""
    return sorted({name[:2] for name in _words()})


def names(chapter: str) -> list[str]:
    """The exercises of one notebook by name, in order: one of each kind, and perhaps more."""
    return sorted(name for name in _words() if name[:2] == chapter)


def load(chapter: str) -> tuple[Exercise, ...]:
    """The exercises of one notebook."""
    return tuple(find(name) for name in names(chapter))


def find(name: str) -> Exercise:
    """The exercise of this name, such as "05.2"; the judges of other notebooks are not loaded for it."""
    chapter, place = name.split(".")
    words = {"kind": KINDS[(int(place) - 1) % len(KINDS)]} | _words()[name]
    judged_by = words.pop("judge", words["kind"])
    judge: Callable[[Any], str | None]
    if "truth" in words:
        number = {key: words.pop(key) for key in ("truth", "within", "mistakes") if key in words}
        judge = functools.partial(equal_number, **number | {"mistakes": dict(number["mistakes"])})
    else:
        judge = getattr(importlib.import_module(f"cnnlab.exercises.nb{chapter}"), judged_by)
    words |= {"question": " ".join(words["question"].split()), "hints": tuple(words["hints"])}
    return Exercise(**words, judge=judge)


def full_name(exercise: Any) -> str:
    """The name of an exercise in full: "5.2" is "05.2".

    Raises:
        ValueError: If there is none; names the nearest ones.
    """
    name = str(exercise).strip()
    if re.fullmatch(r"\d\.\d", name):
        name = f"0{name}"
    if name in _words():
        return name
    near = names(name[:2])[:3] or difflib.get_close_matches(name, _words(), n=3, cutoff=0.4) or list(_words())[:3]
    raise ValueError(
        f"There is no exercise {exercise!r}. Names are notebook and number; the nearest are {', '.join(near)}."
    )

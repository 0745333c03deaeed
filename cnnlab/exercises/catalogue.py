"""Which exercises there are, and how one is found by its name."""

import difflib
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

from cnnlab.exercises.asking import KINDS, Exercise


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
    names = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(name[2:] for name in names if re.fullmatch(r"nb\d\d", name))


def load(chapter: str) -> tuple[Exercise, ...]:
    """The exercises of one notebook; others are not loaded for it."""
    module = importlib.import_module(f"cnnlab.exercises.nb{chapter}")
    return tuple(getattr(module, kind) for kind in KINDS)


def find(name: str) -> Exercise:
    """The exercise of this name, such as "05.2"."""
    chapter, place = name.split(".")
    return load(chapter)[int(place) - 1]


def full_name(exercise: Any) -> str:
    """The name of an exercise in full: "5.2" is "05.2".

    Raises:
        ValueError: If there is none; names the nearest ones.
    """
    text = str(exercise).strip()
    parts = re.fullmatch(r"(\d{1,2})\.(\d)", text)
    name = f"{int(parts[1]):02d}.{parts[2]}" if parts else text
    names = [f"{chapter}.{place}" for chapter in chapters() for place in range(1, len(KINDS) + 1)]
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:3]
    raise ValueError(
        f"There is no exercise {exercise!r}. Names are notebook and number; the nearest are {', '.join(near)}."
    )

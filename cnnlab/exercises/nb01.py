"""Judges 01_setup: a fault or a harmless line, a process that hangs, a report to send, a list of packages to keep."""

import importlib.metadata
import re
from typing import Any

import pandas as pd

from cnnlab import doctor
from cnnlab.exercises.answers import Off, choice, expect, file, table

LINES = {
    "a": "oneDNN custom operations are on. You may see slightly different numerical results",
    "b": "Cannot dlopen some GPU libraries. Please make sure the missing libraries mentioned above are installed",
    "c": "Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN",
}


def predict(answer: Any) -> None:
    """The line that the doctor does not call harmless."""
    chosen = choice(answer, list(LINES))
    meaning = doctor.meaning_of(LINES[chosen], has_card=True)
    if meaning is not None and meaning.harmless:
        raise Off(f"Line {chosen} is harmless: {meaning.meaning}.")


def change(answer: Any) -> str:
    """A report in which TensorFlow was started, and stopped after its time was up."""
    report = table(answer, *doctor.report(fast=True).columns)
    stopped = report[report["finding"].str.contains("Stopped after")]
    started = len(stopped) or "tensorflow" in set(report["area"])
    expect(started, "TensorFlow was not started: this is the fast report.")
    expect(len(stopped), "TensorFlow had time enough in this report: it was not stopped.")
    return f"It says {stopped['finding'].iloc[0]!r} and goes on with the other findings."


def build(answer: Any) -> None:
    """A CSV file with the columns and the areas of the report, without row numbers."""
    path = file(answer, "a CSV file")
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    expect(";" not in first or "," in first, "Semicolons separate its columns, where CSV has commas: leave out `sep`.")
    try:
        found = pd.read_csv(path, keep_default_na=False)
    except ValueError as error:
        raise Off(f"pandas cannot read it as CSV: {error}") from None
    nameless = found.columns.astype(str).str.startswith("Unnamed").any()
    expect(not nameless, "It has a nameless first column: the numbers of the rows, which nobody needs.")
    now = doctor.report(fast=True)
    missing = [name for name in now.columns if name not in found.columns]
    expect(not missing, f"The file lacks {', '.join(missing)}: whoever helps needs all five columns.")
    absent = sorted(set(now["area"]) - set(found["area"]))
    expect(not absent, f"The file says nothing about {', '.join(absent)}.")


def requirements(answer: Any) -> None:
    """A requirements.txt that pins tensorflow, keras and numpy to the installed versions."""
    text = file(answer, "a requirements.txt").read_text(encoding="utf-8", errors="replace")
    for name in ("tensorflow", "keras", "numpy"):
        line = re.search(rf"^{name}(?![\w-])[^#\n]*", text, re.MULTILINE | re.IGNORECASE)
        if line is None:
            raise Off(f"It has no line that begins with {name}.")
        pinned, installed = re.search(r"==\s*([^\s,;*]+)\s*(;|$)", line[0]), importlib.metadata.version(name)
        if pinned is None:
            raise Off(
                f"{line[0].strip()!r} leaves the version open, so next year pip may choose another. Pin it with ==."
            )
        expect(pinned[1] == installed, f"It asks for {name} {pinned[1]}, but {installed} is installed here.")

"""Exercises of 01_setup: a fault or a harmless line, a process that hangs, a report to send."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from cnnlab import doctor
from cnnlab.exercises.asking import Off, choice, exercise, expect, kind_of, table

LINES = {
    "a": "oneDNN custom operations are on. You may see slightly different numerical results",
    "b": "Cannot dlopen some GPU libraries. Please make sure the missing libraries mentioned above are installed",
    "c": "Unable to register cuDNN factory: Attempting to register factory for plugin cuDNN",
}


@exercise
def predict(answer: Any) -> None:
    """On a machine with an NVIDIA card TensorFlow prints three lines at start: (a) “oneDNN custom operations are on.
    You may see slightly different numerical results”, (b) “Cannot dlopen some GPU libraries. Please make sure the
    missing libraries mentioned above are installed”, (c) “Unable to register cuDNN factory: Attempting to register
    factory for plugin cuDNN”. Which one is a fault? Guess before you look.

    Answer: one of the letters 'a', 'b', 'c'
    Hint: Ask of each line: does something that should work not work?
    Hint: “Different numerical results” is about last digits; “already registered” means that one of two serves.
    Hint: Look for the line after which the card would stay idle.
    Right: That line means that the card is not used; the doctor names the library and the command that fixes it.
    """
    chosen = choice(answer, list(LINES))
    meaning = doctor.meaning_of(LINES[chosen], has_card=True)
    if meaning is not None and meaning.harmless:
        raise Off(f"Line {chosen} is harmless: {meaning.meaning}.")


@exercise
def change(answer: Any) -> str:
    """Run the full report again with `timeout=1` and hand it in. What does it say, and why is that not a crash?

    Answer: the table that `doctor.report` returns
    Hint: `timeout` is an argument of `doctor.report`; the fast report does not start TensorFlow at all.
    Hint: Importing TensorFlow takes some seconds; allow it one only.
    Hint: `doctor.report(timeout=1)`, without `fast`.
    Right: TensorFlow runs in a process of its own, so one that hangs is a finding like any other.
    """
    report = table(answer, *doctor.report(fast=True).columns)
    stopped = report[report["finding"].str.contains("Stopped after")]
    started = len(stopped) or "tensorflow" in set(report["area"])
    expect(started, "TensorFlow was not started: this is the fast report.")
    expect(len(stopped), "TensorFlow had time enough in this report: it was not stopped.")
    return f"It says {stopped['finding'].iloc[0]!r} and goes on with the other findings."


@exercise
def build(answer: Any) -> None:
    """Save the report of your machine to a CSV file that you could attach to a question in a forum, and hand in its
    path.

    Answer: the path of a CSV file
    Hint: A report is a pandas table, and tables can write themselves.
    Hint: The method is `to_csv`; the numbers of the rows need not be in the file.
    Hint: `report.to_csv(path, index=…)`: which value leaves the row numbers out?
    Right: Whoever reads that can help you without asking ten questions first.
    """
    if not isinstance(answer, (str, os.PathLike)):
        raise Off(f"Expected the path of a CSV file. Received {kind_of(answer)}.")
    expect(Path(answer).is_file(), f"There is no file at {str(answer)!r}.")
    try:
        found = pd.read_csv(answer, keep_default_na=False)
    except ValueError as error:
        raise Off(f"pandas cannot read it as CSV: {error}") from None
    expect(
        not any(str(name).startswith("Unnamed") for name in found.columns),
        "It has a nameless first column: the numbers of the rows, which nobody needs.",
    )
    now = doctor.report(fast=True)
    missing = [name for name in now.columns if name not in found.columns]
    expect(not missing, f"The file lacks {', '.join(missing)}: whoever helps needs all five columns.")
    absent = sorted(set(now["area"]) - set(found["area"]))
    expect(not absent, f"The file says nothing about {', '.join(absent)}.")

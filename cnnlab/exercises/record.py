"""What was answered so far, in a small JSON file beside the runs."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd

from cnnlab._common import atomic_path
from cnnlab.exercises.asking import KINDS

FILE = "exercises.json"


def progress(file: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Shows which exercises are solved, which were tried and which wait.

    Args:
        file: Where answers are recorded; beside the notebooks, in `runs/exercises.json`, where None.

    Returns:
        One row per notebook, and a last one for all; the columns predict, change and build hold "solved", "2 tries" or
        nothing, and solved counts.

    Example:
        >>> int(progress("/nowhere/exercises.json").loc["00", "solved"])
        0
    """
    from cnnlab.exercises.checking import chapters

    answers = read(Path(file) if file else default_file())
    rows = {
        chapter: {kind: _state(answers.get(f"{chapter}.{place}")) for place, kind in enumerate(KINDS, 1)}
        for chapter in chapters()
    }
    result = pd.DataFrame.from_dict(rows, orient="index")
    result["solved"] = (result == "solved").sum(axis=1)
    total = {kind: f"{(result[kind] == 'solved').sum()} of {len(result)}" for kind in KINDS}
    return pd.concat([result, pd.DataFrame(total | {"solved": result["solved"].sum()}, index=["all"])]).rename_axis(
        "notebook"
    )


def _state(answer: dict[str, Any] | None) -> str:
    if answer is None:
        return ""
    tries = int(answer["wrong"])
    return "solved" if answer["solved"] else f"{tries} {'try' if tries == 1 else 'tries'}"


def default_file() -> Path:
    """`runs/exercises.json` beside the folder of notebooks one works in; else in the working folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if folder.name == "notebooks":
            return folder.parent / "runs" / FILE
    return here / "runs" / FILE


def read(file: Path) -> dict[str, dict[str, Any]]:
    """What was answered: exercise → wrong (how many wrong answers), solved, when. Damaged entries are left out."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    content = content if isinstance(content, dict) else {}
    return {name: answer for name, answer in content.items() if _whole(answer)}


def _whole(answer: Any) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get("wrong"), int) and isinstance(answer.get("solved"), bool)


def write(file: Path, name: str, *, right: bool) -> None:
    """Adds one answer; a file that cannot be read is put aside first, never lost.

    Raises:
        OSError: If the file cannot be written.
    """
    _put_damaged_aside(file)
    answers = read(file)
    before = answers.get(name, {"wrong": 0, "solved": False})
    answers[name] = {
        "wrong": before["wrong"] + (not right and not before["solved"]),
        "solved": before["solved"] or right,
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    with atomic_path(file) as temporary:
        temporary.write_text(json.dumps(answers, indent=1, sort_keys=True), encoding="utf-8")


def _put_damaged_aside(file: Path) -> None:
    try:
        damaged = not isinstance(json.loads(file.read_text(encoding="utf-8")), dict)
    except FileNotFoundError:
        return
    except ValueError:
        damaged = True
    if damaged:
        file.replace(file.with_name(f"{file.stem}.damaged-{time.time_ns()}{file.suffix}"))

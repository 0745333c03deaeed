"""The record of answers: a small JSON file next to the runs, which several notebooks may write at once."""

import json
import time
from pathlib import Path
from typing import Any

from cnnlab._common import atomic_path, locked, read_json

FILE = "exercises.json"
LARGEST = 1_000_000  # bytes; a record of every exercise has a few thousand


ENTRY = {"wrong": int, "solved": bool, "when": str}  # what is kept of one exercise


def default_file() -> Path:
    """`runs/exercises.json` next to the folder of notebooks you work in; otherwise in the working folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if folder.name == "notebooks":
            return folder.parent / "runs" / FILE
    return here / "runs" / FILE


def read(file: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """What was answered, by exercise, and a sentence on what in the file is not an answer ("" where all is well)."""
    try:
        content = read_json(file, limit=LARGEST)
        if not isinstance(content, dict):
            raise ValueError("It holds no JSON object.")
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, f"The record {file} cannot be read: {error}"
    answers = {name: entry for name, entry in content.items() if _is_answer(entry)}
    if len(answers) == len(content):
        return answers, ""
    damaged = next(name for name in content if name not in answers)
    return answers, f"The record {file} holds {len(content) - len(answers)} damaged entries, such as {damaged[:20]!r}."


def write(file: Path, name: str, *, right: bool) -> str:
    """Adds one answer; a file that is damaged is kept next to it under another name.

    Returns:
        A sentence on what was damaged and where it is now, or "".

    Raises:
        OSError: If the file cannot be written.
    """
    with locked(file):
        answers, trouble = read(file)
        if trouble:
            aside = file.with_name(f"{file.stem}.damaged-{time.time_ns()}{file.suffix}")
            file.rename(aside)
            trouble += f" It was kept as {aside.name}."
        before = answers.get(name, {"wrong": 0, "solved": False, "when": ""})
        answers[name] = {
            "wrong": before["wrong"] + (not right and not before["solved"]),
            "solved": before["solved"] or right,
            "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(answers, indent=1, sort_keys=True), encoding="utf-8")
    return trouble


def _is_answer(entry: Any) -> bool:
    whole = isinstance(entry, dict) and all(type(entry.get(key)) is kind for key, kind in ENTRY.items())
    return whole and 0 <= entry["wrong"] < 1_000_000

"""Runs the benchmarks that end within half an hour, and sets today's figures beside those in README.md.

Usage: CNNLAB_REAL_DATA=folder make bench, or python benchmarks/all.py [name …]

A row of a printed table is compared with the row of README.md that has the same first cell (without brackets at its
end) in a table with the same heading. Times depend on the machine and on what else it does; ratios and accuracies
should stay.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
COMMANDS = {
    "digits": ["digits.py", "--seeds", "1"],
    "augmentation": ["augmentation.py", "--data", f"{os.environ.get('CNNLAB_REAL_DATA', '')}/trash"],
    "audit": ["audit.py", "speed"],
    "training": ["training.py"],
    "serving": ["serving.py"],
    "search": ["search.py", "--repeats", "1", "--speed"],
}
MARGIN = 0.05  # by which two runs on one machine may differ


def rows_of(text: str) -> dict[tuple[str, str], list[str]]:
    """The rows of all Markdown tables by heading and first cell; the other cells with them."""
    found: dict[tuple[str, str], list[str]] = {}
    heading = ""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("|"):  # what training prints between two rows does not end the table
            heading = heading if line.strip() else ""
            continue
        cells = [cell.strip() for cell in line.strip("| \n").split("|")]
        if set(line) <= set("|-: "):
            continue
        if number + 1 < len(lines) and lines[number + 1].startswith("|-"):
            heading = " | ".join(cells)
        else:
            found[heading, re.sub(r" \([^)]*\)$", "", cells[0])] = cells[1:]
    return found


def compared(today: dict[tuple[str, str], list[str]], stored: dict[tuple[str, str], list[str]]) -> list[str]:
    """A row of Markdown for each number that stands in both."""
    result = []
    for (heading, name), cells in today.items():
        columns = heading.split(" | ")[1:]
        for column, cell, before in zip(columns, cells, stored.get((heading, name), []), strict=False):
            now, then = (re.search(r"-?\d[\d,]*\.?\d*(?:e-?\d+)?", text) for text in (cell, before))
            if now and then:
                new, old = (float(match[0].replace(",", "")) for match in (now, then))
                change = (new - old) / abs(old) if old else 0.0
                mark = " **" if abs(change) > MARGIN else ""
                result.append(f"| {name} | {column} | {before} | {cell} | {change:+.0%}{mark} |")
    return result


def main() -> None:
    """Runs what is asked for, all where nothing is."""
    names = sys.argv[1:] or list(COMMANDS)
    if unknown := [name for name in names if name not in COMMANDS]:
        sys.exit(f"Expected some of {', '.join(COMMANDS)}. Received: {unknown[0]}.")
    stored = rows_of((HERE / "README.md").read_text(encoding="utf-8"))
    for name in names:
        script, *options = COMMANDS[name]
        began = time.perf_counter()
        done = subprocess.run([sys.executable, HERE / script, *options], capture_output=True, text=True, check=False)
        print(f"\n## {name}: {' '.join(map(str, COMMANDS[name]))}, {time.perf_counter() - began:.0f} s\n")
        if done.returncode:
            print(f"It stopped: {done.stderr.strip().splitlines()[-1:]}")
            continue
        rows = compared(rows_of(done.stdout), stored)
        print("| what | figure | stored | today | change |\n|---|---|---|---|---|", *rows, sep="\n", flush=True)
        if not rows:
            print("\nNo row of it stands in README.md.")


if __name__ == "__main__":
    main()

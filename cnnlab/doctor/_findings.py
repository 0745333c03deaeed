"""Findings, whose words are in `findings.ini`, what log lines mean (`logs.csv`), and the text for a terminal."""

from __future__ import annotations

import configparser
import csv
import functools
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cnnlab.doctor._machine import SCRIPTS, Machine

STATUSES = ("ok", "note", "warning", "problem")
COLUMNS = ("area", "status", "finding", "why", "fix")


@dataclass(frozen=True)
class Finding:
    """What was seen in one area of the machine.

    Attributes:
        area: The part looked at: python, packages, gpu, …
        status: `ok`; `note` (works, good to know); `warning` (works, but slower or at risk); `problem` (something fails
            or stays unused until it is fixed).
        finding: What was seen, with its numbers.
        why: Why it matters.
        fix: The commands that fix it, one a line, or what to do where no command does.
    """

    area: str
    status: str
    finding: str
    why: str = ""
    fix: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"`status` must be one of {', '.join(STATUSES)}. Received: {self.status!r}.")
        if self.status in ("warning", "problem") and not (self.why and self.fix):
            raise ValueError(f"A {self.status} expects `why` and `fix`. Received none with: {self.finding!r}.")


def ok(area: str, finding: str, why: str = "") -> Finding:
    """Says that all is well."""
    return Finding(area, "ok", finding, why)


def found(machine: Machine, name: str, status: str = "", /, **values: object) -> Finding:
    """The finding `name`, which begins with its area, in the words of `findings.ini`."""
    row = _words()[name]
    text = {part: fill_in(machine, row.get(part, "").strip(), **values) for part in COLUMNS[2:]}
    return Finding(name.partition(".")[0], status or row["status"], **text)


@functools.lru_cache(None)
def _words() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",))
    parser.read(SCRIPTS / "findings.ini", encoding="utf-8")
    return parser


# What may stand between braces besides the values of a finding and the shared texts.
COMMANDS: dict[str, Callable[[Machine, str], str]] = {
    "pip": lambda machine, words: machine.pip(words),
    "set": lambda machine, words: machine.set_variable(*words.split()),
    "unset": lambda machine, name: machine.set_variable(name, None),
    "cuda": lambda machine, library: machine.install_cuda(library),
    "everything": lambda machine, _: machine.install_everything(),
    "new_environment": lambda machine, _: machine.new_environment(),
    "this_python": lambda machine, _: machine.python_command,
}


def fill_in(machine: Machine, text: str, /, **values: object) -> str:
    """Fills values, shared texts and the commands of this machine into a text."""

    def fill(match: re.Match[str]) -> str:
        name, _, words = match.group(1).partition(" ")
        if name in values:
            return str(values[name])
        if name in COMMANDS:
            return COMMANDS[name](machine, words)
        return fill_in(machine, _words()["texts"][name].strip())

    return re.sub(r"\{([^{}]+)\}", fill, text)


class Meaning(NamedTuple):
    """What the lines that match a pattern mean."""

    kind: str  # "log", "log without a card", "log with a card"; "import", "crash" or "nvidia-smi"
    pattern: str
    meaning: str
    fix: str = ""  # for `fill_in`

    @property
    def harmless(self) -> bool:
        """Whether nothing is to be done."""
        return not self.fix


@functools.lru_cache(None)
def _meanings() -> list[Meaning]:
    with (SCRIPTS / "logs.csv").open(encoding="utf-8", newline="") as file:
        return [Meaning(*(part.replace("\\n", "\n") for part in row)) for row in csv.reader(file)]


def look_up(text: str, *kinds: str) -> Meaning | None:
    """The first meaning of these kinds whose pattern is in the text; None where none is."""
    return next((each for each in _meanings() if each.kind in kinds and re.search(each.pattern, text)), None)


def meaning_of(line: str, *, has_card: bool) -> Meaning | None:
    """What one log line means; None where it is not known.

    >>> meaning_of("I0000 oneDNN custom operations are on.", has_card=False).meaning
    'faster CPU code; last digits may differ'
    """
    return look_up(line, "log", "log with a card" if has_card else "log without a card")


def sort_key(finding: Finding) -> int:
    """Worst first; the order of looking stays within a status."""
    return -STATUSES.index(finding.status)


def summary(findings: Iterable[Finding]) -> str:
    """`1 problem, 2 warnings, 9 ok`."""
    statuses = [finding.status for finding in findings]
    counts = [(name, statuses.count(name)) for name in reversed(STATUSES)]
    return ", ".join(f"{count} {name}{'s' * (count > 1 and name != 'ok')}" for name, count in counts if count)


def as_text(findings: Sequence[Finding], *, width: int = 100) -> str:
    """The findings for a terminal, the worst last; prose wraps, commands stay whole so that they can be copied."""
    area = max((len(finding.area) for finding in findings), default=0)
    lines: list[str] = []
    for finding in sorted(findings, key=sort_key, reverse=True):
        parts = [(finding.status, finding.area, finding.finding)]
        if finding.status != "ok":
            lines.append("")
            parts += [("", "why", finding.why), ("", "fix", finding.fix)]
        for status, head, text in parts:
            first = f"{status:<7}  {head:<{area}}  "
            for line in text.splitlines():
                # Sentences end with a full stop or a colon; commands do not, but for `pip install -e .`.
                prose = head != "fix" or (line.endswith((".", ":")) and not line.endswith(" ."))
                rest = " " * len(first)
                wrapper = textwrap.TextWrapper(
                    max(width, len(first) + 30), first, rest, break_long_words=False, break_on_hyphens=False
                )
                lines += wrapper.wrap(line) if prose else [first + line]
                first = rest
    return "\n".join(lines).strip("\n")

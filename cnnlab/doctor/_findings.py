"""One finding, and how a list of them reads in a terminal."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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


def _with_status(status: str, area: str, finding: str, why: str = "", fix: str = "") -> Finding:
    return Finding(area, status, finding, why, fix)


ok, note, warning, problem = (functools.partial(_with_status, status) for status in STATUSES)


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

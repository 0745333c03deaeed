"""What TensorFlow's log lines and import errors mean (`logs.csv`): which are harmless, and what fixes the others."""

from __future__ import annotations

import csv
import functools
import re
from typing import NamedTuple

from cnnlab.doctor._graphics import INSTALL_DRIVER, install_cuda
from cnnlab.doctor._machine import SCRIPTS, Machine

REINSTALL = "{pip install --force-reinstall --no-cache-dir tensorflow keras}"
CLOSE_OTHERS = "nvidia-smi\nThen shut down the other notebook: Kernel, Shut Down All Kernels."
# Harmless without a usable card; with one, the sign that TensorFlow does not reach it.
NO_DRIVER = r"Could not find cuda drivers|failed call to cuInit|CUDA_ERROR_NO_DEVICE|cuda_diagnostics\.cc"


class Meaning(NamedTuple):
    """What the lines that match a pattern mean."""

    kind: str  # "harmless", "serious", or "import": an error that ends an import, the most telling first
    pattern: str
    meaning: str
    fix: str = ""  # may hold {everything}, {gpu}, {jax}, {pip …} and {set NAME VALUE}: see `fill_in`

    @property
    def harmless(self) -> bool:
        """Whether nothing is to be done."""
        return self.kind == "harmless"


@functools.lru_cache(None)
def known(*kinds: str) -> list[Meaning]:
    """The meanings of these kinds, in order."""
    with (SCRIPTS / "logs.csv").open(encoding="utf-8", newline="") as file:
        rows = [Meaning(*row) for row in csv.reader(file)]
    return [row._replace(fix=row.fix.replace("\\n", "\n")) for kind in kinds for row in rows if row.kind == kind]


def fill_in(machine: Machine, fix: str) -> str:
    """Fills the commands of this machine into a fix."""
    fix = fix.replace("{reinstall}", REINSTALL).replace("{driver}", INSTALL_DRIVER).replace("{close}", CLOSE_OTHERS)
    fix = fix.replace("{everything}", machine.install_everything())
    fix = fix.replace("{gpu}", install_cuda(machine)).replace("{jax}", install_cuda(machine, "jax"))
    fix = re.sub(r"\{set (\S+) (\S+)\}", lambda match: machine.set_variable(match.group(1), match.group(2)), fix)
    return re.sub(r"\{pip ([^}]*)\}", lambda match: machine.pip(match.group(1)), fix)


def meaning_of(line: str, *, has_card: bool) -> Meaning | None:
    """What one log line means; None where it is not known.

    >>> meaning_of("I0000 oneDNN custom operations are on.", has_card=False).meaning
    'faster CPU code; last digits may differ'
    """
    unreached = Meaning("serious", NO_DRIVER, "TensorFlow does not reach the NVIDIA driver of your card", "nvidia-smi")
    without = Meaning("harmless", NO_DRIVER, "no NVIDIA card, so the processor is used")
    meanings = [*known("serious", "harmless"), unreached if has_card else without]
    return next((meaning for meaning in meanings if re.search(meaning.pattern, line)), None)


def import_error(text: str) -> Meaning | None:
    """The cause of a failed import, from its traceback."""
    return next((meaning for meaning in known("import") if re.search(meaning.pattern, text)), None)

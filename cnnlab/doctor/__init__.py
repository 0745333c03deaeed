"""What is this machine, what is broken, which command fixes it.

    >>> from cnnlab import doctor
    >>> table = doctor.report(fast=True)
    >>> list(table.columns)
    ['area', 'status', 'finding', 'why', 'fix']

In a terminal: `python -m cnnlab doctor`, `--fast` for the part that needs no TensorFlow (below two seconds),
`--fix-kernel` to register this environment with Jupyter. TensorFlow itself is started in a process of its own, so that
one that crashes is reported like any other finding.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cnnlab.doctor import _environment, _framework, _gpu, _packages, _system
from cnnlab.doctor._findings import Finding, as_text, meaning_of, summary
from cnnlab.doctor._machine import Machine, Outcome, Package, here

if TYPE_CHECKING:
    from cnnlab.doctor._table import Report

__all__ = ["Finding", "Machine", "Outcome", "Package", "examine", "fix_kernel", "here", "main", "meaning_of", "report"]


def report(*, fast: bool = False, timeout: float = 300, machine: Machine | None = None) -> Report:
    """Examines the machine and says, worst first, what was found, why it matters and what fixes it.

    The full report ends with a proof: on each device a real convolution and its gradient are compared with numpy, and a
    tiny CNN is trained and compared with the same training on the processor. It takes about as long as importing
    TensorFlow twice (10 to 30 seconds).

    Args:
        fast: Leave out everything that needs TensorFlow: below two seconds.
        timeout: Seconds after which TensorFlow's process is stopped and reported as hanging.
        machine: Another machine than this one, as tests describe it.

    Returns:
        One row per finding: area, status (an ordered Categorical: ok < note < warning < problem), finding, why, fix. A
        DataFrame that a notebook shows with its texts whole.

            >>> table = report(fast=True)
            >>> bool((table["fix"][table["status"] == "problem"] != "").all())
            True
    """
    from cnnlab._common import progress
    from cnnlab.doctor._table import as_table

    parts = _parts(machine or here(), fast=fast, timeout=timeout)
    steps = progress(parts, label="doctor", total=3 if fast else 5, unit="part")
    return as_table([finding for part in steps for finding in part])


def examine(machine: Machine, *, fast: bool = False, timeout: float = 300) -> list[Finding]:
    """The findings of `report` as a list, in the order of looking; needs no pandas."""
    return [finding for part in _parts(machine, fast=fast, timeout=timeout) for finding in part]


def _parts(machine: Machine, *, fast: bool, timeout: float) -> Iterator[list[Finding]]:
    """Part by part, as they are done; what takes long starts first, each in a process of its own."""
    missing = _framework.check_missing(machine)
    with ThreadPoolExecutor(3) as pool:
        look = pool.submit(_gpu.look, machine, fast=fast)
        hopeless = any(each.status == "problem" for each in missing)
        proof = None if fast or hopeless else pool.submit(_framework.start, machine, timeout=timeout)
        conflicts = None if fast else pool.submit(_packages.check_conflicts, machine)
        yield _system.check(machine) + _environment.check(machine)
        yield _packages.check(machine)
        graphics = look.result()
        yield graphics.findings + missing
        if conflicts:
            yield conflicts.result()
        if proof:
            yield _framework.check(machine, graphics, proof.result(), timeout=timeout)


def fix_kernel(machine: Machine | None = None) -> Finding:
    """Registers this environment with Jupyter as the kernel “Python (cnnlab)” and says how that went."""
    return _environment.fix_kernel(machine or here())


def main(arguments: list[str] | None = None) -> int:
    """The command `python -m cnnlab doctor`: prints the report.

    Args:
        arguments: The words after `doctor`; those of this process if left out.

    Returns:
        The exit status: 1 if anything is a problem, otherwise 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m cnnlab doctor", description="What is this machine, what is broken, which command fixes it."
    )
    parser.add_argument("--fast", action="store_true", help="without starting TensorFlow: below two seconds")
    parser.add_argument("--fix-kernel", action="store_true", help="register this environment as a Jupyter kernel")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="for TensorFlow to answer (300)")
    options = parser.parse_args(arguments)
    start, machine = time.perf_counter(), here()
    if options.fix_kernel:
        findings, last = [fix_kernel(machine)], ""
    else:
        if not options.fast and sys.stderr.isatty():
            sys.stderr.write("Starting TensorFlow in a process of its own (10 to 30 seconds) …\n")
        findings = examine(machine, fast=options.fast, timeout=options.timeout)
        rest = "; TensorFlow was not started: leave out --fast for the proof" if options.fast else ""
        last = f"\n\n{summary(findings)} in {time.perf_counter() - start:.1f} s{rest}."
        if any(finding.fix for finding in findings) and machine.exists(machine.join(machine.project, "pyproject.toml")):
            last += f"\nType the commands in {machine.project}"
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    _write(as_text(findings, width=width) + last)
    return int(any(finding.status == "problem" for finding in findings))


def _write(text: str) -> None:
    """Prints, replacing signs that the terminal's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding) + "\n")

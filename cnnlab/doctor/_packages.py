"""Installed packages against what the project declares. Reads metadata, imports nothing."""

from __future__ import annotations

import re

from cnnlab.doctor._findings import Finding, ok, problem, warning
from cnnlab.doctor._machine import Machine

# Distributions that bring a module under another distribution's name.
RIVALS = {
    "tensorflow": ("tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tensorflow-rocm", "tf-nightly"),
    "keras": ("keras-nightly",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
}
SHOWN = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn")


def check(machine: Machine) -> list[Finding]:
    """All findings about the packages themselves; `check_conflicts` has those about how they fit together."""
    package = machine.package("cnnlab")
    if package is None:
        words = "cnnlab itself is not installed in this environment, perhaps like the packages that it needs."
        why = "`import cnnlab` works in the project's folder only, and not in your own notebooks."
        fix = f"{machine.install_everything()}\n{machine.pip('install --no-deps -e .')}"
        return [warning("packages", words, why, fix), *_rivals(machine)]
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in package.requires if ";" not in text]
    missing = [name for name in names if not provider(machine, name)]
    if missing:
        words = f"{len(missing)} of {len(names)} packages are missing: {', '.join(missing)}."
        why = "The notebooks stop with “No module named …”."
        return [problem("packages", words, why, machine.install_everything()), *_rivals(machine)]
    shown = ", ".join(f"{name} {version}" for name in SHOWN if (version := machine.version(name)))
    return [ok("packages", f"{len(names)} declared packages are there: {shown}"), *_rivals(machine)]


def check_conflicts(machine: Machine) -> list[Finding]:
    """What `pip check` says: packages that need another version of one another. Starts a process."""
    if machine.package("pip"):
        command = [machine.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    elif machine.which("uv"):
        command = ["uv", "pip", "check", "--python", machine.executable]
    else:
        return []
    outcome = machine.run(command, timeout=60)
    said = (outcome.output + outcome.errors).splitlines()
    lines = [line for line in said if re.search("requires|has requirement", line)]
    if outcome.status in (0, None) or not lines:
        return []
    more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
    why = "One of the two stops at import or, worse, later."
    if any(re.search(r"requires?(ment)? `?numpy\b", line) for line in lines):
        why = "Compiled for another numpy, a package stops with “numpy.dtype size changed” or “_ARRAY_API not found”."
    words = f"Packages that do not fit together: {'; '.join(lines[:5])}{more}"
    return [problem("packages", words, why, machine.install_everything())]


def provider(machine: Machine, name: str) -> str | None:
    """The installed distribution that brings `name`: itself, or a rival such as tensorflow-cpu."""
    return next((each for each in (name, *RIVALS.get(name, ())) if machine.version(each)), None)


def _rivals(machine: Machine) -> list[Finding]:
    """Two distributions that write the same module."""
    found = []
    for name, others in RIVALS.items():
        present = [each for each in (name, *others) if machine.version(each)]
        if len(present) > 1:
            words = f"{' and '.join(present)} are both installed and write the same files."
            why = "Which is imported depends on what was installed last; removing one breaks the other."
            fix = f"{machine.pip(f'uninstall -y {chr(32).join(present)}')}\n{machine.install_everything()}"
            found.append(warning("packages", words, why, fix))
    return found

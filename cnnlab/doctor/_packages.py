"""Installed packages against what the project declares. Reads metadata, imports nothing."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from cnnlab.doctor._findings import Finding, ok, problem, warning
from cnnlab.doctor._machine import Machine

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Distributions that bring a module under another distribution's name.
RIVALS = {
    "tensorflow": ("tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tensorflow-rocm", "tf-nightly"),
    "keras": ("keras-nightly",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
}
SHOWN = ("tensorflow", "keras", "numpy", "pandas", "scikit-learn")


def check(machine: Machine) -> list[Finding]:
    """All findings about the packages themselves; `check_conflicts` has those about how they fit together."""
    names = declared(machine)
    if not names:
        why = "Neither pyproject.toml beside the package nor its installed metadata names them."
        fix = "Clone the project again, and run this inside its folder."
        return [warning("packages", "Which packages the project needs could not be read.", why, fix)]
    missing = [text for text in names if not provider(machine, _name(text))]
    wrong = [f"{_name(text)} {outside}" for text in names if (outside := _outside(machine, text))]
    found = []
    if missing:
        words = f"{len(missing)} of {len(names)} packages are missing: {', '.join(missing)}."
        why = "The notebooks stop with “No module named …”."
        found.append(problem("packages", words, why, machine.install_everything()))
    if wrong:
        words = f"Outside the declared versions: {'; '.join(wrong)}."
        why = "With another version, calls that the notebooks make may be missing or mean something else."
        found.append(problem("packages", words, why, machine.install_everything()))
    if not found:
        shown = ", ".join(f"{name} {version}" for name in SHOWN if (version := machine.version(name)))
        found.append(ok("packages", f"{len(names)} declared packages are there: {shown}"))
    return [*found, *_rivals(machine), *_project(machine)]


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


def declared(machine: Machine) -> list[str]:
    """The project's direct requirements: from pyproject.toml beside the package, or from the installed metadata."""
    text = machine.read(machine.join(machine.project, "pyproject.toml")) or ""
    if re.search(r'^name\s*=\s*"cnnlab"', text, re.MULTILINE):
        block = re.search(r"^dependencies\s*=\s*\[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
        return re.findall(r'^\s*"([^"]+)"', block.group(1), re.MULTILINE) if block else []
    package = machine.package("cnnlab")
    return [text for text in (package.requires if package else ()) if "extra ==" not in text]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _applying(machine: Machine, text: str) -> Requirement | None:
    """The requirement, where it is meant for this machine and can be read at all."""
    with contextlib.suppress(ImportError):
        from packaging.requirements import Requirement

        need, full = Requirement(text), ".".join(map(str, machine.python))
        here = {"extra": "", "python_version": full.rpartition(".")[0], "python_full_version": full}
        return need if need.marker is None or need.marker.evaluate(here) else None
    return None


def _outside(machine: Machine, text: str) -> str:
    """The installed version and what is needed, where it does not fit; otherwise empty."""
    need, name = _applying(machine, text), provider(machine, _name(text))
    version = machine.version(name) if name else None
    if not need or not version or need.specifier.contains(version, prereleases=True):
        return ""
    return f"{version} (needs {need.specifier})"


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


def _project(machine: Machine) -> list[Finding]:
    if machine.package("cnnlab"):
        return []
    why = "`import cnnlab` works in the project's folder only, and not in your own notebooks."
    fix = machine.pip("install --no-deps -e .")
    return [warning("packages", "cnnlab itself is not installed in this environment.", why, fix)]

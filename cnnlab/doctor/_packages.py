"""Installed packages against what the project declares. Reads metadata, imports nothing."""

from __future__ import annotations

import contextlib
import re
from typing import Any

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
    needs = _needs(machine)
    if not needs:
        why = "Neither pyproject.toml next to the package nor its installed metadata names them."
        fix = "Clone the project again, and run this inside its folder."
        return [warning("packages", "Which packages the project needs could not be read.", why, fix)]
    there = {name: machine.version(by) for name, _ in needs if (by := provider(machine, name))}
    missing = [name for name, _ in needs if name not in there]
    wrong = [
        f"{name} {there[name]} (needs {versions})"
        for name, versions in needs
        if name in there and versions is not None and not versions.contains(there[name], prereleases=True)
    ]
    found = []
    if missing:
        words = f"{len(missing)} of {len(needs)} packages are missing: {', '.join(missing)}."
        why = "The notebooks stop with “No module named …”."
        found.append(problem("packages", words, why, machine.install_everything()))
    if wrong:
        words = f"Outside the declared versions: {'; '.join(wrong)}."
        why = "With another version, calls that the notebooks make may be missing or mean something else."
        found.append(problem("packages", words, why, machine.install_everything()))
    if not found:
        shown = ", ".join(f"{name} {version}" for name in SHOWN if (version := machine.version(name)))
        found.append(ok("packages", f"{len(needs)} declared packages are there: {shown}"))
    if machine.package("cnnlab") is None:
        why = "`import cnnlab` works in the project's folder only, and not in your own notebooks."
        fix = f"{machine.install_everything()}\n{machine.pip('install --no-deps -e .')}"
        found.append(warning("packages", "cnnlab itself is not installed in this environment.", why, fix))
    return [*found, *_rivals(machine)]


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


def _needs(machine: Machine) -> list[tuple[str, Any]]:
    """Name and versions of what this machine needs; versions are None where `packaging` is not there to compare them.

    A checkout's pyproject.toml comes first: after `git pull` the metadata of an editable install are behind it.
    """
    package = machine.package("cnnlab")
    declared = [text for text in (package.requires if package else ()) if "extra ==" not in text]
    with contextlib.suppress(ImportError, ValueError):  # Python 3.10 has no tomllib
        import tomllib

        project = tomllib.loads(machine.read(machine.join(machine.project, "pyproject.toml")) or "").get("project", {})
        declared = project["dependencies"] if project.get("name") == "cnnlab" else declared
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [(re.split(r"[^\w.-]", text, maxsplit=1)[0], None) for text in declared if ";" not in text]
    full = ".".join(map(str, machine.python))
    here = {"extra": "", "python_version": full.rpartition(".")[0], "python_full_version": full}
    needs = map(Requirement, declared)
    return [(need.name, need.specifier) for need in needs if need.marker is None or need.marker.evaluate(here)]


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

"""Installed packages against what the project declares. Reads metadata, imports nothing."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from cnnlab.doctor._findings import Finding, found, ok
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
        return [found(machine, "packages.undeclared")]
    there = {name: machine.version(by) for name, _ in needs if (by := provider(machine, name))}
    missing = [name for name, _ in needs if name not in there]
    wrong = [
        f"{name} {there[name]} (needs {versions})"
        for name, versions in needs
        if name in there and versions is not None and not versions.contains(there[name], prereleases=True)
    ]
    findings = []
    if missing:
        counts = {"count": len(missing), "all": len(needs), "names": ", ".join(missing)}
        findings.append(found(machine, "packages.missing", **counts))
    if wrong:
        findings.append(found(machine, "packages.versions", listed="; ".join(wrong)))
    if not findings:
        shown = ", ".join(f"{name} {version}" for name in SHOWN if (version := machine.version(name)))
        findings.append(ok("packages", f"{len(needs)} declared packages are there: {shown}"))
    if machine.package("cnnlab") is None:
        findings.append(found(machine, "packages.cnnlab"))
    for name, others in RIVALS.items():
        present = [each for each in (name, *others) if machine.version(each)]
        if len(present) > 1:
            uninstall = machine.pip(f"uninstall -y {' '.join(present)}")
            findings.append(found(machine, "packages.rivals", names=" and ".join(present), uninstall=uninstall))
    return findings


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
    numpy = any(re.search(r"requires?(ment)? `?numpy\b", line) for line in lines)
    more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
    name = "packages.conflict_with_numpy" if numpy else "packages.conflict"
    return [found(machine, name, listed=f"{'; '.join(lines[:5])}{more}")]


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

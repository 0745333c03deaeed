"""The environment that Python runs in: whose packages, which settings, which Jupyter kernel."""

from __future__ import annotations

import json
import sys

from cnnlab.doctor._findings import Finding, found, ok
from cnnlab.doctor._machine import Machine

KERNEL = "cnnlab"
KERNEL_TITLE = "Python (cnnlab)"
HARMLESS_NAMES = {"test", "this", "antigravity", "turtledemo", "idlelib"}  # in the standard library, imported by nobody
THIRD_PARTY = {"tensorflow", "keras", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "PIL", "cv2", "tqdm"}
USUAL = {
    "image_data_format": "channels_last",
    "floatx": "float32",
}  # in keras.json; others change every model from afar


def check(machine: Machine) -> list[Finding]:
    """All findings about the environment."""
    settings = check_settings(machine) + check_variables(machine)
    return [check_environment(machine), *settings, *check_shadows(machine), *check_kernel(machine)]


def check_environment(machine: Machine) -> Finding:
    """Does this Python belong to the project alone?"""
    if own := machine.other_environment:
        name = "environment.other_in_notebook" if machine.in_notebook else "environment.other"
        return found(machine, name, prefix=machine.prefix, own=own)
    if machine.prefix != machine.base_prefix:
        return ok("environment", f"a virtual environment, {machine.shown(machine.prefix)}")
    conda = machine.environment.get("CONDA_DEFAULT_ENV", "")
    if conda and conda != "base":
        return ok("environment", f"the conda environment {conda}")
    what = "the base environment of conda" if conda else "a Python without a virtual environment"
    return found(machine, "environment.shared", what=what)


def check_settings(machine: Machine) -> list[Finding]:
    """Keras's backend and its configuration file."""
    path, stored = keras_file(machine), _stored(machine)
    file = {"path": path, "rename": machine.rename(path, "keras.json.old")}
    if stored is None:
        return [found(machine, "settings.not_json", **file)]
    findings = [
        found(machine, f"settings.{name}", value=repr(stored[name]), **file)
        for name, usual in USUAL.items()
        if stored.get(name, usual) != usual
    ]
    name, source = backend(machine)
    if name in ("jax", "torch") and machine.module_folder(name):
        findings.append(found(machine, "settings.backend", name=name, source=source))
    elif name != "tensorflow":
        trouble = "is not installed" if name in ("jax", "torch") else "is not one that serves training here"
        findings.append(found(machine, "settings.no_backend", name=repr(name), source=source, trouble=trouble))
    return findings


def backend(machine: Machine) -> tuple[str, str]:
    """The backend that Keras will use, and what says so."""
    if asked := machine.environment.get("KERAS_BACKEND"):
        return asked, "KERAS_BACKEND"
    return str((_stored(machine) or {}).get("backend", "tensorflow")), keras_file(machine)


def keras_file(machine: Machine) -> str:
    """Where Keras keeps its settings."""
    folder = machine.environment.get("KERAS_HOME") or machine.join(machine.home, ".keras")
    return machine.join(folder, "keras.json")


def _stored(machine: Machine) -> dict[str, object] | None:
    try:
        stored = json.loads(machine.read(keras_file(machine)) or "{}")
    except (ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) else None


def check_variables(machine: Machine) -> list[Finding]:
    """Environment variables that swap one library for another."""
    findings = []
    if machine.environment.get("TF_USE_LEGACY_KERAS", "0").lower() not in ("", "0", "false"):
        findings.append(found(machine, "settings.legacy_keras"))
    paths = machine.environment.get("PYTHONPATH", "").split(";" if machine.windows else ":")
    others = ", ".join(path for path in paths if path and not machine.same(path, machine.project))
    return findings + ([found(machine, "settings.python_path", paths=others)] if others else [])


def check_shadows(machine: Machine) -> list[Finding]:
    """Files in the working folder that Python would import instead of a library."""
    known = set(getattr(sys, "stdlib_module_names", ())) - HARMLESS_NAMES | THIRD_PARTY
    shadows = [name for name in machine.names(machine.folder) if name.endswith(".py") and name[:-3] in known]
    if not shadows:
        return []
    status = "problem" if {name[:-3] for name in shadows} & THIRD_PARTY else ""
    fix = "\n".join(machine.rename(machine.join(machine.folder, name), f"my_{name}") for name in shadows)
    values = {"names": ", ".join(shadows), "module": shadows[0][:-3], "folder": machine.folder, "fix": fix}
    return [found(machine, "environment.shadow", status, **values)]


def check_kernel(machine: Machine) -> list[Finding]:
    """Do the kernels that a notebook may start lead to this Python?"""
    if machine.other_environment or not machine.python_served:
        return []  # a kernel for this Python is not what anybody wants; the finding about it says so
    findings = []
    for name in ("python3", KERNEL):
        python, path = find_kernel(machine, name) or ("python", "")
        if python in ("python", "python3", "python.exe") or _same_python(machine, python):
            continue
        values = {"name": repr(name), "path": path, "python": python}
        if machine.exists(python):
            findings.append(found(machine, "kernel.elsewhere", **values))
        else:
            findings.append(found(machine, "kernel.dead", "problem" if name == KERNEL else "", **values))
    if findings:
        return findings
    if find_kernel(machine, KERNEL):
        return [ok("kernel", f"the Jupyter kernel “{KERNEL_TITLE}” starts this environment")]
    if machine.in_notebook:
        return [ok("kernel", "this notebook's kernel runs in this environment")]
    return [found(machine, "kernel.none", title=KERNEL_TITLE)]


def find_kernel(machine: Machine, name: str) -> tuple[str, str] | None:
    """The Python that a kernel starts and the file that says so."""
    for folder in machine.kernel_folders:
        path = machine.join(folder, name, "kernel.json")
        text = machine.read(path)
        if text is not None:
            try:
                return str(json.loads(text)["argv"][0]), path
            except (ValueError, KeyError, IndexError, TypeError, RecursionError):
                return "", path  # broken: as bad as a Python that does not exist
    return None


def _same_python(machine: Machine, python: str) -> bool:
    """Whether two interpreters lie in one folder; links are not followed, since a venv's Python links to its base."""
    return machine.same(machine.parent(python), machine.parent(machine.executable))


def fix_kernel(machine: Machine) -> Finding:
    """Registers this environment as the Jupyter kernel “Python (cnnlab)”, for this person or else inside it."""
    before = find_kernel(machine, KERNEL)
    last = ""
    for place in ("--user", "--sys-prefix"):
        options = ["install", place, "--name", KERNEL, "--display-name", KERNEL_TITLE]
        outcome = machine.run([machine.executable, "-m", "ipykernel", *options], timeout=60)
        if outcome.status == 0:
            words = f"The Jupyter kernel “{KERNEL_TITLE}” now starts {machine.executable}."
            if before and not _same_python(machine, before[0]):
                words += f" It replaces the one that started {before[0]}."
            return ok("kernel", f"{words} Choose it in a notebook: Kernel, Change Kernel.")
        last = (outcome.errors.strip().splitlines() or ["it did not answer"])[-1]
        if "No module named" in last:
            break
    fix = machine.pip("install ipykernel") if "No module named" in last else machine.install_everything()
    return found(machine, "kernel.not_registered", error=last, fix=fix)

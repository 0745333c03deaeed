"""The environment that Python runs in: whose packages, which settings, which Jupyter kernel."""

from __future__ import annotations

import json
import sys

from cnnlab.doctor._findings import Finding, note, ok, problem, warning
from cnnlab.doctor._machine import Machine

KERNEL = "cnnlab"
KERNEL_TITLE = "Python (cnnlab)"
HARMLESS_NAMES = {"test", "this", "antigravity", "turtledemo", "idlelib"}  # in the standard library, imported by nobody
THIRD_PARTY = {"tensorflow", "keras", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "PIL", "cv2", "tqdm"}


def check(machine: Machine) -> list[Finding]:
    """All findings about the environment."""
    settings = check_settings(machine) + check_variables(machine)
    return [check_environment(machine), *settings, *check_shadows(machine), *check_kernel(machine)]


def check_environment(machine: Machine) -> Finding:
    """Does this Python belong to the project alone?"""
    if machine.other_environment:
        fix = f"{machine.other_environment} -m cnnlab doctor"
        if machine.in_notebook:
            fix += f" --fix-kernel\nThen choose Kernel, Change Kernel, {KERNEL_TITLE}."
        words = f"This is the Python in {machine.prefix}, although the project has an environment of its own, .venv."
        why = "What pip installs into the one is missing in the other: the usual cause of “No module named …”."
        return warning("environment", words, why, fix)
    if machine.prefix != machine.base_prefix:
        return ok("environment", f"a virtual environment, {machine.shown(machine.prefix)}")
    conda = machine.environment.get("CONDA_DEFAULT_ENV", "")
    if conda and conda != "base":
        return ok("environment", f"the conda environment {conda}")
    words = f"This is {'the base environment of conda' if conda else 'a Python without a virtual environment'}."
    why = "Projects that share it change each other's packages. In a container of its own that is fine."
    return note("environment", words, why, machine.new_environment())


def check_settings(machine: Machine) -> list[Finding]:
    """Keras's backend and its configuration file, which change every model from afar."""
    path = keras_file(machine)
    rename = f"{'Rename-Item' if machine.windows else 'mv'} {machine.quote(path)} {machine.quote(path + '.old')}"
    stored = _stored(machine)
    if stored is None:
        return [problem("settings", f"{path} is not valid JSON.", "Keras does not start.", rename)]
    found = [
        problem("settings", f"{path} sets {name} to {stored[name]!r}.", why, rename)
        for name, usual, why in (
            ("image_data_format", "channels_last", "Images here are height × width × channels."),
            ("floatx", "float32", "Every model then computes in another precision than the notebooks expect."),
        )
        if stored.get(name, usual) != usual
    ]
    name, source = backend(machine)
    if name in ("jax", "torch") and machine.module_folder(name):
        found.append(note("settings", f"Keras computes with {name} ({source}); data still flows through tf.data."))
    elif name != "tensorflow":
        trouble = "is not installed" if name in ("jax", "torch") else "is not one that serves training here"
        words = f"{source} asks for the Keras backend {name!r}, which {trouble}."
        fix = machine.set_variable("KERAS_BACKEND", "tensorflow")
        found.append(problem("settings", words, "Keras does not start.", fix))
    return found


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
    found = []
    if machine.environment.get("TF_USE_LEGACY_KERAS", "0").lower() not in ("", "0", "false"):
        why = "`tf.keras` then means Keras 2, whose models do not mix with the Keras 3 used here."
        fix = machine.set_variable("TF_USE_LEGACY_KERAS", None)
        found.append(problem("settings", "TF_USE_LEGACY_KERAS is set.", why, fix))
    paths = machine.environment.get("PYTHONPATH", "").split(";" if machine.windows else ":")
    others = ", ".join(path for path in paths if path and not machine.same(path, machine.project))
    if others:
        words = f"PYTHONPATH puts {others} before the environment's own packages."
        why = "A package there hides the version that was installed and tested."
        found.append(warning("settings", words, why, machine.set_variable("PYTHONPATH", None)))
    return found


def check_shadows(machine: Machine) -> list[Finding]:
    """Files in the working folder that Python would import instead of a library."""
    known = set(getattr(sys, "stdlib_module_names", ())) - HARMLESS_NAMES | THIRD_PARTY
    shadows = [name for name in machine.names(machine.folder) if name.endswith(".py") and name[:-3] in known]
    if not shadows:
        return []
    place = "" if machine.windows else machine.folder + "/"  # `ren` takes a bare name
    pairs = [(machine.join(machine.folder, name), f"{place}my_{name}") for name in shadows]
    status = "problem" if {name[:-3] for name in shadows} & THIRD_PARTY else "warning"
    words = f"The working folder {machine.folder} holds {', '.join(shadows)}."
    why = f"`import {shadows[0][:-3]}` finds this file instead of the library: “partially initialized module” follows."
    verb = "ren" if machine.windows else "mv"
    fix = "\n".join(f"{verb} {machine.quote(old)} {machine.quote(new)}" for old, new in pairs)
    return [Finding("environment", status, words, why, fix)]


def check_kernel(machine: Machine) -> list[Finding]:
    """Do the kernels that a notebook may start lead to this Python?"""
    if machine.other_environment or not machine.python_served:
        return []  # a kernel for this Python is not what anybody wants; the finding about it says so
    fix = f"{machine.python_command} -m cnnlab doctor --fix-kernel"
    found = []
    for name in ("python3", KERNEL):
        python, path = find_kernel(machine, name) or ("python", "")
        if python in ("python", "python3", "python.exe") or _same_python(machine, python):
            continue
        dead = not machine.exists(python)
        words = "which does not exist any more" if dead else "which is not this environment"
        why = "does not start" if dead else "sees other packages than were installed and checked here"
        status = "problem" if dead and name == KERNEL else "warning"
        words = f"The Jupyter kernel {name!r} ({path}) starts {python}, {words}."
        found.append(Finding("kernel", status, words, f"A notebook with that kernel {why}.", fix))
    if found:
        return found
    if find_kernel(machine, KERNEL):
        return [ok("kernel", f"the Jupyter kernel “{KERNEL_TITLE}” starts this environment")]
    if machine.in_notebook:
        return [ok("kernel", "this notebook's kernel runs in this environment")]
    why = "JupyterLab started from this environment needs none; another Jupyter, or an editor, offers it only with one."
    return [note("kernel", f"No Jupyter kernel of the name “{KERNEL_TITLE}” is registered.", why, fix)]


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
    why = "The command `ipykernel install` did not succeed."
    return problem("kernel", f"The Jupyter kernel could not be registered: {last}", why, fix)

"""The environment that Python runs in: whose packages, which settings, which Jupyter kernel."""

from __future__ import annotations

import json
import sys

from cnnlab.doctor._findings import Finding
from cnnlab.doctor._machine import Machine

KERNEL = "cnnlab"
KERNEL_TITLE = "Python (cnnlab)"
HARMLESS_NAMES = {"test", "this", "antigravity", "turtledemo", "idlelib"}  # in the standard library, imported by nobody
THIRD_PARTY = {"tensorflow", "keras", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "PIL", "cv2", "tqdm"}


def check(machine: Machine) -> list[Finding]:
    """All findings about the environment."""
    found = [check_environment(machine), *check_settings(machine), *check_variables(machine)]
    return found + check_shadows(machine) + check_kernel(machine)


def check_environment(machine: Machine) -> Finding:
    """Does this Python belong to the project alone?"""
    if machine.other_environment:
        fix = f"{machine.other_environment} -m cnnlab doctor"
        if machine.in_notebook:
            fix += " --fix-kernel\nThen choose Kernel, Change Kernel, Python (cnnlab)."
        return Finding(
            "environment",
            "warning",
            f"{'This notebook runs' if machine.in_notebook else 'This is'} the Python in {machine.prefix}, although "
            "the project has an environment of its own, .venv.",
            "What pip installs into the one is missing in the other: the usual cause of “No module named …” after an "
            "installation that went well.",
            fix,
        )
    if machine.prefix != machine.base_prefix:
        return Finding("environment", "ok", f"a virtual environment, {machine.shown(machine.prefix)}")
    conda = machine.environment.get("CONDA_DEFAULT_ENV", "")
    if conda and conda != "base":
        return Finding("environment", "ok", f"the conda environment {conda}")
    kind = "conda's base environment" if conda else "a Python without a virtual environment"
    return Finding(
        "environment",
        "note",
        f"This is {kind}.",
        "Packages of different projects share it and change each other's versions. In a container of its own that is "
        "fine.",
        machine.new_environment(),
    )


def check_settings(machine: Machine) -> list[Finding]:
    """Keras's backend and its configuration file, which change every model from afar."""
    path = keras_file(machine)
    rename = f"{'Rename-Item' if machine.windows else 'mv'} {machine.quote(path)} {machine.quote(path + '.old')}"
    try:
        stored = json.loads(machine.read(path) or "{}")
        if not isinstance(stored, dict):
            raise ValueError
    except ValueError:
        return [Finding("settings", "problem", f"{path} is not valid JSON.", "Keras does not start.", rename)]
    found = []
    if stored.get("image_data_format", "channels_last") != "channels_last":
        found.append(
            Finding(
                "settings",
                "problem",
                f"{path} sets image_data_format to {stored['image_data_format']!r}.",
                "Images here are height × width × channels; convolutions stop on the CPU with “only supports the NHWC "
                "tensor format”.",
                rename,
            )
        )
    if stored.get("floatx", "float32") != "float32":
        found.append(
            Finding(
                "settings",
                "warning",
                f"{path} sets floatx to {stored['floatx']!r}.",
                "Every model then computes in another precision than the notebooks expect.",
                rename,
            )
        )
    return found + _check_backend(machine)


def backend(machine: Machine) -> tuple[str, str]:
    """The backend that Keras will use, and what says so."""
    asked = machine.environment.get("KERAS_BACKEND")
    if asked:
        return asked, "KERAS_BACKEND"
    path = keras_file(machine)
    try:
        return str(json.loads(machine.read(path) or "{}").get("backend", "tensorflow")), path
    except (ValueError, AttributeError):
        return "tensorflow", path


def keras_file(machine: Machine) -> str:
    """Where Keras keeps its settings."""
    folder = machine.environment.get("KERAS_HOME") or machine.join(machine.home, ".keras")
    return machine.join(folder, "keras.json")


def _check_backend(machine: Machine) -> list[Finding]:
    name, source = backend(machine)
    if name == "tensorflow":
        return []
    if name in ("jax", "torch") and machine.module_folder(name):
        return [
            Finding("settings", "note", f"Keras computes with {name} ({source}); data still flows through tf.data.")
        ]
    trouble = "is not installed" if name in ("jax", "torch") else "is not one that serves training here"
    return [
        Finding(
            "settings",
            "problem",
            f"{source} asks for the Keras backend {name!r}, which {trouble}.",
            "Keras does not start.",
            machine.set_variable("KERAS_BACKEND", "tensorflow"),
        )
    ]


def check_variables(machine: Machine) -> list[Finding]:
    """Environment variables that swap one library for another."""
    found = []
    if machine.environment.get("TF_USE_LEGACY_KERAS", "0").lower() not in ("", "0", "false"):
        found.append(
            Finding(
                "settings",
                "problem",
                "TF_USE_LEGACY_KERAS is set.",
                "`tf.keras` then means Keras 2, whose models do not mix with the Keras 3 used here.",
                machine.set_variable("TF_USE_LEGACY_KERAS", None),
            )
        )
    paths = machine.environment.get("PYTHONPATH", "").split(";" if machine.windows else ":")
    others = [path for path in paths if path and not machine.same(path, machine.project)]
    if others:
        found.append(
            Finding(
                "settings",
                "warning",
                f"PYTHONPATH puts {', '.join(others)} before the environment's own packages.",
                "A package there hides the version that was installed and tested.",
                machine.set_variable("PYTHONPATH", None),
            )
        )
    return found


def check_shadows(machine: Machine) -> list[Finding]:
    """Files in the working folder that Python would import in place of a library."""
    known = set(getattr(sys, "stdlib_module_names", ())) - HARMLESS_NAMES | THIRD_PARTY
    shadows = [name for name in machine.names(machine.folder) if name.endswith(".py") and name[:-3] in known]
    if not shadows:
        return []
    verb = "ren" if machine.windows else "mv"
    return [
        Finding(
            "environment",
            "problem" if {name[:-3] for name in shadows} & THIRD_PARTY else "warning",
            f"The working folder {machine.folder} holds {', '.join(shadows)}.",
            f"`import {shadows[0][:-3]}` finds this file in place of the library of that name; errors such as "
            "“partially initialized module” and “has no attribute” follow.",
            "\n".join(
                f"{verb} {machine.quote(machine.join(machine.folder, name))} "
                + machine.quote(("" if machine.windows else machine.folder + "/") + "my_" + name)
                for name in shadows
            ),
        )
    ]


# -- Jupyter kernels -----------------------------------------------------------------------------------------------


def check_kernel(machine: Machine) -> list[Finding]:
    """Do the kernels that a notebook may start lead to this Python?"""
    if machine.other_environment or not machine.python_served:
        return []  # a kernel for this Python is not what anybody wants; the finding about it says so
    fix = f"{machine.python_command} -m cnnlab doctor --fix-kernel"
    found = []
    for name in ("python3", KERNEL):
        spec = find_kernel(machine, name)
        if spec is None:
            continue
        python, path = spec
        if python in ("python", "python3", "python.exe") or _same_python(machine, python):
            continue
        dead = not machine.exists(python)
        found.append(
            Finding(
                "kernel",
                "problem" if dead and name == KERNEL else "warning",
                f"The Jupyter kernel {name!r} ({path}) starts {python}, "
                + ("which does not exist any more." if dead else "which is not this environment."),
                "A notebook with that kernel "
                + ("does not start." if dead else "sees other packages than were installed and checked here."),
                fix,
            )
        )
    if found:
        return found
    if find_kernel(machine, KERNEL):
        return [Finding("kernel", "ok", f"the Jupyter kernel “{KERNEL_TITLE}” starts this environment")]
    if machine.in_notebook:
        return [Finding("kernel", "ok", "this notebook's kernel runs in this environment")]
    return [
        Finding(
            "kernel",
            "note",
            f"No Jupyter kernel of the name “{KERNEL_TITLE}” is registered.",
            "JupyterLab started from this environment needs none; another Jupyter, or an editor, offers this "
            "environment only with it.",
            fix,
        )
    ]


def find_kernel(machine: Machine, name: str) -> tuple[str, str] | None:
    """The Python that a kernel starts and the file that says so, by Jupyter's own order of folders."""
    for folder in kernel_folders(machine):
        path = machine.join(folder, name, "kernel.json")
        text = machine.read(path)
        if text is None:
            continue
        try:
            return str(json.loads(text)["argv"][0]), path
        except (ValueError, KeyError, IndexError, TypeError):
            return "", path  # broken: as bad as a Python that does not exist
    return None


def kernel_folders(machine: Machine) -> list[str]:
    """Where Jupyter looks for kernels, first match first."""
    told = machine.environment.get("JUPYTER_PATH", "").split(";" if machine.windows else ":")
    data = machine.environment.get("JUPYTER_DATA_DIR", "")
    if not data and machine.windows:
        data = machine.join(machine.environment.get("APPDATA", machine.home), "jupyter")
    elif not data and machine.system == "Darwin":
        data = machine.join(machine.home, "Library", "Jupyter")
    elif not data:
        share = machine.environment.get("XDG_DATA_HOME") or machine.join(machine.home, ".local", "share")
        data = machine.join(share, "jupyter")
    own = machine.join(machine.prefix, "share", "jupyter")
    near = (
        [own, data] if machine.prefix != machine.base_prefix or "CONDA_PREFIX" in machine.environment else [data, own]
    )
    system = [] if machine.windows else ["/usr/local/share/jupyter", "/usr/share/jupyter"]
    return [machine.join(folder, "kernels") for folder in [*filter(None, told), *near, *system]]


def _same_python(machine: Machine, python: str) -> bool:
    """Whether two interpreters lie in one folder; links are not followed, since a venv's Python links to its base."""
    return machine.same(machine.parent(python), machine.parent(machine.executable))


def fix_kernel(machine: Machine) -> Finding:
    """Registers this environment as the Jupyter kernel “Python (cnnlab)”, for this person or else inside it."""
    before = find_kernel(machine, KERNEL)
    outcome = None
    for place in ("--user", "--sys-prefix"):
        words = ["-m", "ipykernel", "install", place, "--name", KERNEL, "--display-name", KERNEL_TITLE]
        outcome = machine.run([machine.executable, *words], timeout=60)
        if outcome.status == 0:
            replaced = (
                f" It replaces the one that started {before[0]}."
                if before and not _same_python(machine, before[0])
                else ""
            )
            return Finding(
                "kernel",
                "ok",
                f"The Jupyter kernel “{KERNEL_TITLE}” now starts {machine.executable}.{replaced} "
                "Choose it in a notebook: Kernel, Change Kernel.",
            )
        if "No module named" in outcome.errors:
            break
    last = (outcome.errors.strip().splitlines() or ["it did not answer"])[-1] if outcome else ""
    return Finding(
        "kernel",
        "problem",
        f"The Jupyter kernel could not be registered: {last}",
        "The command `ipykernel install` did not succeed.",
        machine.pip("install ipykernel") if "No module named" in last else machine.install_everything(),
    )

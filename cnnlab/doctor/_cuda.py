"""The CUDA libraries that TensorFlow loads, each by its name, and the cards that it has code for.

TensorFlow says “Cannot dlopen some GPU libraries” and goes on without the card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cnnlab.doctor._graphics import INSTALL_DRIVER, Graphics, cuda_major, install_gpu
from cnnlab.doctor._machine import Library, Machine

# What TensorFlow loads by name, in its own order, and the package that brings it, for each major version of CUDA.
LIBRARIES = {
    12: {
        "libcudart.so.12": "nvidia-cuda-runtime-cu12",
        "libcublas.so.12": "nvidia-cublas-cu12",
        "libcublasLt.so.12": "nvidia-cublas-cu12",
        "libcufft.so.11": "nvidia-cufft-cu12",
        "libcusolver.so.11": "nvidia-cusolver-cu12",
        "libcusparse.so.12": "nvidia-cusparse-cu12",
        "libcudnn.so.9": "nvidia-cudnn-cu12",
    },
}


def check_capability(machine: Machine, graphics: Graphics, build: Mapping[str, Any]) -> None:
    """Has this TensorFlow code for each of the cards?"""
    served = [
        re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", text) for text in build.get("cuda_compute_capabilities", ())
    ]
    kinds = [(match.group(1), (int(match.group(2)), int(match.group(3)))) for match in served if match]
    if not kinds:
        return
    oldest, newest = min(level for _, level in kinds), max(level for _, level in kinds)
    least, most = "{}.{}".format(*oldest), "{}.{}".format(*newest)
    for card in graphics.cards:
        if card.capability is None:
            continue
        level = "{}.{}".format(*card.capability)
        if card.capability < oldest:
            graphics.add(
                "problem",
                f"{card.name} has compute capability {level}; this TensorFlow serves {least} and newer.",
                "TensorFlow ignores the card and uses the processor.",
                machine.set_variable("CUDA_VISIBLE_DEVICES", "-1")
                + "\nThis hides the card and its warnings; every notebook runs on the processor.",
            )
        elif card.capability[0] > newest[0]:
            graphics.add(
                "problem",
                f"{card.name} has compute capability {level}; this TensorFlow has code up to {most}.",
                "Cards of that generation (RTX 50xx and Blackwell) fail at the first operation with "
                "“CUDA_ERROR_INVALID_PTX” or “CUDA_ERROR_INVALID_HANDLE”. Keras on JAX serves them; or train on the "
                "processor by hiding the card.",
                machine.pip('install --upgrade "jax[cuda12]"')
                + f"\n{machine.set_variable('KERAS_BACKEND', 'jax')}"
                + f"\nOr train on the processor:\n{machine.set_variable('CUDA_VISIBLE_DEVICES', '-1')}",
            )
        elif not any(kind == "sm" and own[0] == card.capability[0] and own <= card.capability for kind, own in kinds):
            graphics.add(
                "note",
                f"{card.name} (compute capability {level}) gets its code compiled by the driver at the first start.",
                "The very first training step may take minutes; the driver keeps the result in ~/.nv/ComputeCache.",
            )


def check_libraries(machine: Machine, graphics: Graphics, build: Mapping[str, Any], *, timeout: float) -> None:
    """Loads what TensorFlow would load, from where it would."""
    names = LIBRARIES.get(cuda_major(build) or 0, {})
    folders = _library_folders(machine)
    found = machine.libraries(["libcuda.so.1", *names], folders, timeout)
    if (driver := found.get("libcuda.so.1")) and driver.error:
        _say_no_libcuda(machine, graphics, driver)
    broken = {name: found[name] for name in names if name in found and found[name].error}
    minima = _minima(machine)
    wrong = {}
    for name, distribution in names.items():
        library, least = found.get(name), minima.get(distribution)
        if library and not library.error and library.version and least and _pair(library.version) < least:
            wrong[name] = (library, least)
    graphics.missing = list(broken)
    if broken:
        _say_broken(machine, graphics, broken, names)
    for name, (library, least) in wrong.items():
        _say_wrong(machine, graphics, name, library, least)
    untold = [name for name in names if name not in found]
    if untold and not broken:
        graphics.add(
            "note",
            f"Not looked at for want of time: {', '.join(untold)}.",
            "",
            f"{machine.python_command} -m cnnlab doctor",
        )
    if not broken and not wrong and not untold and names:
        versions = ", ".join(f"{name.split('.')[0][3:]} {found[name].version}" for name in names if found[name].version)
        graphics.add("ok", f"all {len(names)} CUDA libraries load: {versions}")


def _library_folders(machine: Machine) -> list[str]:
    """LD_LIBRARY_PATH comes first because TensorFlow's own list (a RUNPATH) is searched after it."""
    told = [path for path in machine.environment.get("LD_LIBRARY_PATH", "").split(":") if path]
    tensorflow = machine.module_folder("tensorflow")
    wheels = machine.join(machine.parent(tensorflow), "nvidia") if tensorflow else ""
    own = [machine.join(wheels, name, "lib") for name in machine.names(wheels)] if wheels else []
    return [*told, *own, machine.join(machine.prefix, "lib")]


def _minima(machine: Machine) -> dict[str, tuple[int, ...]]:
    """The least version of each NVIDIA package that this TensorFlow asks for in its extra `and-cuda`."""
    packages = machine.distributions("tensorflow")
    minima = {}
    for text in packages[0].requires if packages else ():
        match = re.match(r"(nvidia-[a-z0-9-]+).*?>=\s*([\d.]+)", text)
        if match:
            minima[match.group(1)] = _pair(match.group(2))
    return minima


def _pair(version: str) -> tuple[int, ...]:
    """Major and minor: the third number of a package is a build number, that of a library is not."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _say_no_libcuda(machine: Machine, graphics: Graphics, library: Library) -> None:
    if machine.wsl:
        fix = machine.set_variable("LD_LIBRARY_PATH", "/usr/lib/wsl/lib")
    elif machine.exists("/.dockerenv"):
        fix = "docker run --gpus all --env NVIDIA_DRIVER_CAPABILITIES=compute,utility …"
    else:
        fix = INSTALL_DRIVER
    graphics.add(
        "problem",
        f"libcuda.so.1, the driver's own library, does not load: {library.error}",
        "nvidia-smi works without it, TensorFlow does not: it falls back to the processor.",
        fix,
    )


def _say_broken(machine: Machine, graphics: Graphics, broken: dict[str, Library], names: Mapping[str, str]) -> None:
    texts = []
    for name, library in broken.items():
        other = re.match(r"(lib[\w+.-]+?\.so[\d.]*): cannot open shared object file", library.error)
        if other and other.group(1) == name:
            texts.append(f"{name} is missing")
        elif other:
            texts.append(f"{name} needs {other.group(1)}, which is missing")
        else:
            texts.append(
                f"{name} {library.error}" if library.error.startswith(("did", "ended")) else f"{name}: {library.error}"
            )
    installed = sorted({names[name] for name in broken if machine.version(names[name])})
    fix = install_gpu(machine)
    if installed and len(installed) == len({names[name] for name in broken}):
        exact = " ".join(f"{name}=={machine.version(name)}" for name in installed)
        fix = machine.pip(f"install --force-reinstall --no-deps {exact}")
    graphics.add(
        "problem",
        f"TensorFlow will not find its CUDA libraries: {'; '.join(texts)}.",
        "If one is missing, TensorFlow says “Cannot dlopen some GPU libraries”, without naming it, and trains on the "
        "processor.",
        fix,
    )


def _say_wrong(machine: Machine, graphics: Graphics, name: str, library: Library, least: tuple[int, ...]) -> None:
    needed = ".".join(map(str, least))
    told = machine.environment.get("LD_LIBRARY_PATH", "")
    from_path = told and any(library.path.startswith(path) for path in told.split(":") if path)
    severe = name.startswith("libcudnn")
    graphics.add(
        "problem" if severe else "warning",
        f"{name} is version {library.version}, from {library.path or 'the system'}; TensorFlow was built for {needed} "
        "or newer.",
        "cuDNN refuses the first convolution: “Loaded runtime CuDNN library … but source was compiled with …”."
        if severe
        else "Older CUDA libraries mostly work; single operations may be missing.",
        machine.set_variable("LD_LIBRARY_PATH", None) if from_path else install_gpu(machine),
    )

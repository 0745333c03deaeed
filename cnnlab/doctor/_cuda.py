"""The CUDA libraries that TensorFlow loads, each by its name, and the cards that it has code for.

TensorFlow says “Cannot dlopen some GPU libraries” and goes on without the card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cnnlab.doctor._graphics import INSTALL_DRIVER, Graphics, cuda_major, install_gpu, install_jax
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
    found = (re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", text) for text in build.get("cuda_compute_capabilities", ()))
    kinds = [(match.group(1), (int(match.group(2)), int(match.group(3)))) for match in found if match]
    if not kinds:
        return
    oldest, newest = min(level for _, level in kinds), max(level for _, level in kinds)
    hide = machine.set_variable("CUDA_VISIBLE_DEVICES", "-1")
    for card in graphics.cards:
        own = card.capability
        if own is None:
            continue
        words = f"{card.name} has compute capability {own[0]}.{own[1]}; this TensorFlow"
        if own < oldest:
            why = "TensorFlow ignores the card and uses the processor. Hiding the card ends its warnings."
            graphics.add("problem", f"{words} serves {oldest[0]}.{oldest[1]} and newer.", why, hide)
        elif own[0] > newest[0]:
            graphics.add(
                "problem",
                f"{words} has code up to {newest[0]}.{newest[1]}.",
                "Cards of that generation (RTX 50xx and Blackwell) fail at the first operation with "
                "“CUDA_ERROR_INVALID_PTX” or “CUDA_ERROR_INVALID_HANDLE”. Keras on JAX serves them.",
                f"{install_jax(machine)}\n{machine.set_variable('KERAS_BACKEND', 'jax')}\n"
                f"Or train on the processor:\n{hide}",
            )
        elif not any(kind == "sm" and level[0] == own[0] and level <= own for kind, level in kinds):
            words = f"The code for {card.name} is compiled by the driver at the first start."
            graphics.add("note", words, "The very first training step may take minutes; the driver keeps the result.")


def check_libraries(machine: Machine, graphics: Graphics, build: Mapping[str, Any], *, timeout: float) -> None:
    """Loads what TensorFlow would load, from where it would."""
    names = LIBRARIES.get(cuda_major(build) or 0, {})
    loaded = machine.libraries(["libcuda.so.1", *names], _library_folders(machine), timeout)
    driver = loaded.get("libcuda.so.1")
    if driver and driver.error:
        _say_no_libcuda(machine, graphics, driver)
    broken = {name: loaded[name] for name in names if name in loaded and loaded[name].error}
    graphics.missing = list(broken)
    cudnn = loaded.get("libcudnn.so.9", Library())
    least = _least_cudnn(machine)
    if broken:
        _say_broken(machine, graphics, broken, names)
    elif cudnn.version and _pair(cudnn.version) < least:
        from_path = cudnn.path.startswith(tuple(_told(machine))) if _told(machine) else False
        graphics.add(
            "problem",
            f"libcudnn.so.9 is version {cudnn.version}, from {cudnn.path or 'the system'}; TensorFlow was built for "
            f"{'.'.join(map(str, least))} or newer.",
            "cuDNN refuses the first convolution: “Loaded runtime CuDNN library … but source was compiled with …”.",
            machine.set_variable("LD_LIBRARY_PATH", None) if from_path else install_gpu(machine),
        )
    elif untried := [name for name in names if name not in loaded]:
        fix = f"{machine.python_command} -m cnnlab doctor"
        graphics.add("note", f"Not looked at for want of time: {', '.join(untried)}.", "", fix)
    elif names:
        graphics.add("ok", f"all {len(names)} CUDA libraries load, cuDNN {cudnn.version}")


def _told(machine: Machine) -> list[str]:
    return [path for path in machine.environment.get("LD_LIBRARY_PATH", "").split(":") if path]


def _library_folders(machine: Machine) -> list[str]:
    """LD_LIBRARY_PATH comes first because TensorFlow's own list (a RUNPATH) is searched after it."""
    tensorflow = machine.module_folder("tensorflow")
    wheels = machine.join(machine.parent(tensorflow), "nvidia") if tensorflow else ""
    own = [machine.join(wheels, name, "lib") for name in machine.names(wheels)] if wheels else []
    return [*_told(machine), *own, machine.join(machine.prefix, "lib")]


def _least_cudnn(machine: Machine) -> tuple[int, ...]:
    """The least version of cuDNN that this TensorFlow asks for in its extra `and-cuda`."""
    package = machine.package("tensorflow")
    needs = package.requires if package else ()
    found = (re.match(r"nvidia-cudnn-cu\d+.*?>=\s*([\d.]+)", text) for text in needs)
    return next((_pair(match.group(1)) for match in found if match), ())


def _pair(version: str) -> tuple[int, ...]:
    """Major and minor: the third number of a package is a build number, that of a library is not."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _say_no_libcuda(machine: Machine, graphics: Graphics, library: Library) -> None:
    fix = INSTALL_DRIVER
    if machine.wsl:
        fix = machine.set_variable("LD_LIBRARY_PATH", "/usr/lib/wsl/lib")
    elif machine.exists("/.dockerenv"):
        fix = "docker run --gpus all --env NVIDIA_DRIVER_CAPABILITIES=compute,utility …"
    words = f"libcuda.so.1, the driver's own library, does not load: {library.error}"
    graphics.add("problem", words, "nvidia-smi works without it, TensorFlow does not: it uses the processor.", fix)


def _say_broken(machine: Machine, graphics: Graphics, broken: dict[str, Library], names: Mapping[str, str]) -> None:
    texts = []
    for name, library in broken.items():
        other = re.match(r"(lib[\w+.-]+?\.so[\d.]*): cannot open shared object file", library.error)
        if other is None:
            texts.append(f"{name}: {library.error}")
        elif other.group(1) == name:
            texts.append(f"{name} is missing")
        else:
            texts.append(f"{name} needs {other.group(1)}, which is missing")
    packages = sorted({names[name] for name in broken})
    fix = install_gpu(machine)
    if all(machine.version(package) for package in packages):  # there, and damaged
        exact = " ".join(f"{package}=={machine.version(package)}" for package in packages)
        fix = machine.pip(f"install --force-reinstall --no-deps {exact}")
    graphics.add(
        "problem",
        f"TensorFlow will not find its CUDA libraries: {'; '.join(texts)}.",
        "It says “Cannot dlopen some GPU libraries”, without naming them, and trains on the processor.",
        fix,
    )

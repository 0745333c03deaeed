"""What is known of the graphics cards, and of the TensorFlow and NVIDIA's packages that should use them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cnnlab.doctor._findings import Finding
from cnnlab.doctor._machine import Machine

INSTALL_DRIVER = "On Ubuntu (for other systems see nvidia.com/drivers):\nsudo ubuntu-drivers install && sudo reboot"
SLOW = "Training uses the processor, often ten times slower."


@dataclass(frozen=True)
class Card:
    """One graphics card as the driver lists it."""

    index: int
    name: str
    driver: str
    capability: tuple[int, int] | None
    total: int  # MiB
    used: int  # MiB
    uuid: str


@dataclass
class Graphics:
    """What is known of the graphics cards after the look: the cards, what is hidden or missing, and the findings."""

    cards: list[Card] = field(default_factory=list)
    hidden: list[Card] = field(default_factory=list)  # by CUDA_VISIBLE_DEVICES
    missing: list[str] = field(default_factory=list)  # of NVIDIA's packages, in words
    findings: list[Finding] = field(default_factory=list)

    def add(self, status: str, finding: str, why: str = "", fix: str = "") -> None:
        """Appends one finding."""
        self.findings.append(Finding("gpu", status, finding, why, fix))


def read_build(machine: Machine) -> Mapping[str, Any] | None:
    """For which CUDA, cuDNN and cards TensorFlow was built: from its file, since importing it takes seconds."""
    folder = machine.module_folder("tensorflow")
    text = machine.read(machine.join(folder, "python", "platform", "build_info.py")) if folder else None
    match = re.search(r"OrderedDict\((\[.*\])\)", text or "", re.DOTALL)
    try:
        return dict(ast.literal_eval(match.group(1))) if match else None
    except (ValueError, SyntaxError):
        return None


def cuda_major(build: Mapping[str, Any] | None) -> int | None:
    """12 for a build with CUDA 12.5.1."""
    match = re.match(r"\d+", str((build or {}).get("cuda_version", "")))
    return int(match.group()) if match else None


def install_cuda(machine: Machine, library: str = "tensorflow") -> str:
    """The command that brings what TensorFlow or JAX needs for NVIDIA cards, in the version that is there."""
    extra, version = {"tensorflow": "and-cuda", "jax": "cuda12"}[library], machine.version(library)
    return machine.pip(f'install "{library}[{extra}]{"==" + version if version else ""}"')


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
                f"{install_cuda(machine, 'jax')}\n{machine.set_variable('KERAS_BACKEND', 'jax')}\n"
                f"Or train on the processor:\n{hide}",
            )
        elif not any(kind == "sm" and level[0] == own[0] and level <= own for kind, level in kinds):
            words = f"The code for {card.name} is compiled by the driver at the first start."
            graphics.add("note", words, "The very first training step may take minutes; the driver keeps the result.")


def check_packages(machine: Machine, graphics: Graphics) -> None:
    """Are NVIDIA's packages there, in versions that TensorFlow's extra `and-cuda` asks for?"""
    package = machine.package("tensorflow")
    needs = (re.match(r"(nvidia-[\w-]+).*?>=\s*([\d.]+)", text) for text in (package.requires if package else ()))
    for match in filter(None, needs):
        name, least = match.groups()
        version = machine.version(name)
        if version is None:
            graphics.missing.append(f"{name} is missing")
        elif _numbers(version) < _numbers(least):
            graphics.missing.append(f"{name} {version} is older than {least}")
    if graphics.missing:
        graphics.add(
            "warning",
            f"Of NVIDIA's packages, {'; '.join(graphics.missing)}.",
            "TensorFlow loads CUDA and cuDNN from them; else it says “Cannot dlopen some GPU libraries” and trains "
            "on the processor, unless the system has a CUDA that fits.",
            install_cuda(machine),
        )
    path = machine.environment.get("LD_LIBRARY_PATH", "")
    if re.search("cuda|cudnn|nvidia", path) and not machine.wsl:
        graphics.add(
            "warning",
            f"LD_LIBRARY_PATH={path} comes before the libraries that TensorFlow brings.",
            "An older cuDNN there ends training: “Loaded runtime CuDNN library … but source was compiled with …”.",
            machine.set_variable("LD_LIBRARY_PATH", None),
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())

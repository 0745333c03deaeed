"""What is known of the graphics cards and of the TensorFlow that should use them."""

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


def install_gpu(machine: Machine) -> str:
    """The command that brings TensorFlow's CUDA libraries."""
    version = machine.version("tensorflow")
    return machine.pip(f'install "tensorflow[and-cuda]{"==" + version if version else ""}"')


def install_jax(machine: Machine) -> str:
    """The command that brings JAX for NVIDIA cards, in the version that is there."""
    version = machine.version("jax")
    return machine.pip(f'install "jax[cuda12]{"==" + version if version else ""}"')

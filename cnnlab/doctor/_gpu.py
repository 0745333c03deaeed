"""The graphics card: driver, visibility, memory, and the TensorFlow and NVIDIA's packages that should use it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cnnlab.doctor._environment import backend
from cnnlab.doctor._findings import Finding, fill_in, found, look_up, ok
from cnnlab.doctor._machine import Machine
from cnnlab.doctor._packages import provider

# The oldest driver that serves each major version of CUDA. Source: NVIDIA, CUDA Compatibility, table 1.
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
QUERY = ("index", "name", "driver_version", "compute_cap", "memory.total", "memory.used", "uuid")


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


def look(machine: Machine, *, fast: bool) -> Graphics:
    """Everything about graphics cards that can be known without TensorFlow."""
    graphics = Graphics()
    graphics.findings = list(_look(machine, graphics, fast))
    return graphics


def _look(machine: Machine, graphics: Graphics, fast: bool) -> Iterator[Finding]:
    if machine.system == "Darwin":
        words = "macOS: TensorFlow trains on the processor; there is no official support for Apple's GPU"
        metal = machine.version("tensorflow-metal")
        yield found(machine, "gpu.metal", version=metal) if metal else ok("gpu", words)
        return
    yield from _find_cards(machine, graphics, timeout=0.8 if fast else 20.0)
    if not graphics.cards:
        return
    if machine.windows:
        yield found(machine, "gpu.native_windows", names=", ".join(card.name for card in graphics.cards))
        return
    build = read_build(machine)
    yield _check_driver(machine, graphics, build)
    plugin = _jax_plugin(machine)
    if library_of(machine) == "JAX" and plugin:  # without it JAX computes on the processor
        words = f"Keras computes with JAX, which has {plugin} {machine.version(plugin)}; the proof tries it"
        yield ok("gpu", words)
    elif library_of(machine) == "JAX":
        yield found(machine, "gpu.jax_for_processors", version=machine.version("jax") or "")
    elif build is not None and not build.get("is_cuda_build"):
        name = provider(machine, "tensorflow") or "tensorflow"
        uninstall = "" if name == "tensorflow" else machine.pip(f"uninstall -y {name}") + "\n"
        yield found(machine, "gpu.without_cuda", name=name, uninstall=uninstall)
    elif build is not None:
        yield from _check_capability(machine, graphics, build)
        yield from _check_packages(machine, graphics)
    yield from _check_visible(machine, graphics)
    yield from _check_memory(machine, graphics)


def _find_cards(machine: Machine, graphics: Graphics, *, timeout: float) -> Iterator[Finding]:
    tool = machine.which("nvidia-smi")
    if tool is None and machine.wsl and machine.exists("/usr/lib/wsl/lib/nvidia-smi"):
        tool = "/usr/lib/wsl/lib/nvidia-smi"
    if tool is None:
        yield _without_driver(machine)
        return
    outcome = machine.run([tool, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"], timeout=timeout)
    graphics.cards = [card for card in map(_parse_card, outcome.output.splitlines()) if card]
    if outcome.trouble == "timeout" and not graphics.cards:
        yield found(machine, "gpu.asleep" if timeout < 5 else "gpu.hangs", seconds=f"{timeout:g}")
    elif outcome.status != 0 or not graphics.cards:
        words = (outcome.errors + outcome.output).strip()
        trouble = look_up(words, "nvidia-smi")
        if trouble:  # the last of them fits whatever was said
            first, fix = (words.splitlines() or ["no output"])[0], fill_in(machine, trouble.fix)
            yield found(machine, "gpu.driver_fails", words=first, why=trouble.meaning, fix=fix)


def _parse_card(line: str) -> Card | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != len(QUERY) or not parts[0].isdigit():
        return None
    index, name, driver, level, total, used, uuid = parts
    capability = re.fullmatch(r"(\d+)\.(\d+)", level)
    pair = (int(capability.group(1)), int(capability.group(2))) if capability else None
    memory, in_use = (int(text) if text.isdigit() else 0 for text in (total, used))  # “[N/A]” where it is shared
    return Card(int(index), name, driver, pair, memory, in_use, uuid)


def _without_driver(machine: Machine) -> Finding:
    pci = "/sys/bus/pci/devices"
    present = any(
        (machine.read(f"{pci}/{name}/vendor") or "").strip() == "0x10de"
        and (machine.read(f"{pci}/{name}/class") or "").startswith("0x03")
        for name in machine.names(pci)
    )
    if machine.wsl == 2 and machine.exists("/dev/dxg"):
        return found(machine, "gpu.no_driver_in_wsl")
    if not present:
        return ok("gpu", "no NVIDIA card: training uses the processor, which every notebook is made for")
    contained = machine.exists("/.dockerenv") or machine.exists("/run/.containerenv")
    return found(machine, "gpu.not_in_container" if contained else "gpu.no_driver")


def read_build(machine: Machine) -> Mapping[str, Any] | None:
    """For which CUDA, cuDNN and cards TensorFlow was built: from its file, since importing it takes seconds."""
    folder = machine.module_folder("tensorflow")
    text = machine.read(machine.join(folder, "python", "platform", "build_info.py")) if folder else None
    match = re.search(r"OrderedDict\((\[.*\])\)", text or "", re.DOTALL)
    try:
        return dict(ast.literal_eval(match.group(1))) if match else None
    except (ValueError, SyntaxError):
        return None


def _check_driver(machine: Machine, graphics: Graphics, build: Mapping[str, Any] | None) -> Finding:
    driver = graphics.cards[0].driver
    listed = ", ".join(
        f"{card.index}: {card.name}"
        + (f", compute capability {_dotted(card.capability)}" if card.capability else "")
        + (f", {card.total / 1024:.0f} GiB" if card.total else "")
        for card in graphics.cards
    )
    version, built = str((build or {}).get("cuda_version", "")), ""
    if library_of(machine) == "JAX":
        version = (_jax_plugin(machine) or "").removeprefix("jax-cuda").removesuffix("-plugin")
        built = f"; JAX computes with CUDA {version}" if version else ""
    elif version:
        built = f"; TensorFlow is built for CUDA {version}"
    cuda, own = int(re.split(r"\D", version)[0] or 12), int(re.split(r"\D", driver)[0] or -1)  # 12 of 12.5.1
    oldest = OLDEST_DRIVERS.get(cuda, 0)
    if own >= oldest:
        return ok("gpu", f"{listed}; driver {driver}{built}")
    values = {"cards": listed, "driver_version": driver, "built": built, "cuda_version": cuda, "oldest": oldest}
    return found(machine, "gpu.old_driver_in_windows" if machine.wsl else "gpu.old_driver", **values)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _jax_plugin(machine: Machine) -> str | None:
    return next((name for name in ("jax-cuda13-plugin", "jax-cuda12-plugin") if machine.version(name)), None)


def library_of(machine: Machine) -> str:
    """What Keras computes with, as a person calls it."""
    return "JAX" if backend(machine)[0] == "jax" else "TensorFlow"


def _check_capability(machine: Machine, graphics: Graphics, build: Mapping[str, Any]) -> Iterator[Finding]:
    """Has this TensorFlow code for each of the cards?"""
    matches = (
        re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", name) for name in build.get("cuda_compute_capabilities", ())
    )
    kinds = [(match.group(1), (int(match.group(2)), int(match.group(3)))) for match in matches if match]
    levels = sorted(level for _, level in kinds)
    for card in graphics.cards if kinds else ():
        own = card.capability
        if own is None:
            continue
        values = {"card": card.name, "own": _dotted(own), "oldest": _dotted(levels[0]), "newest": _dotted(levels[-1])}
        if own < levels[0]:
            yield found(machine, "gpu.too_old", **values)
        elif own[0] > levels[-1][0]:
            yield found(machine, "gpu.too_new", **values)
        elif not any(kind == "sm" and level[0] == own[0] and level <= own for kind, level in kinds):
            yield found(machine, "gpu.compiles_first", **values)


def _check_packages(machine: Machine, graphics: Graphics) -> Iterator[Finding]:
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
        yield found(machine, "gpu.packages", missing="; ".join(graphics.missing))
    path = machine.environment.get("LD_LIBRARY_PATH", "")
    if re.search("cuda|cudnn|nvidia", path) and not machine.wsl:
        yield found(machine, "gpu.library_path", path=path)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _check_visible(machine: Machine, graphics: Graphics) -> Iterator[Finding]:
    """Which cards CUDA_VISIBLE_DEVICES hides. CUDA reads it up to the first entry that names no card."""
    listed = machine.environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None or "MIG-" in listed:  # slices of a card are not in this list
        return
    visible = set()
    for entry in (part.strip() for part in listed.split(",")):
        match = [c for c in graphics.cards if entry == str(c.index) or (len(entry) > 4 and c.uuid.startswith(entry))]
        if len(match) != 1:
            break
        visible.add(match[0].index)
    graphics.hidden = [card for card in graphics.cards if card.index not in visible]
    if graphics.hidden:
        yield found(
            machine,
            "gpu.hidden",
            listed=repr(listed),
            hidden=len(graphics.hidden),
            all=len(graphics.cards),
            names=", ".join(f"{card.index} ({card.name})" for card in graphics.hidden),
            library=library_of(machine),
            none_left="" if visible else ": here none, so that it trains on the processor",
        )


def _check_memory(machine: Machine, graphics: Graphics) -> Iterator[Finding]:
    library, share, setting, name = "TensorFlow", "nearly all", "TF_FORCE_GPU_ALLOW_GROWTH", "gpu.memory_growth"
    if library_of(machine) == "JAX":
        library, share, setting = "JAX", "three quarters of the", "XLA_PYTHON_CLIENT_PREALLOCATE"
        name = "gpu.preallocation"
    mine = {"tensorflow", "jax"} & machine.loaded
    holder = f"this notebook, which has started {library}, or by another process" if mine else "another process"
    full = [card for card in graphics.cards if card.total and card.used > card.total / 2]
    for card in full:
        values = {"used": f"{card.used / 1024:.1f}", "total": f"{card.total / 1024:.1f}", "card": card.name}
        yield found(machine, "gpu.memory_taken", holder=holder, library=library, share=share, **values)
    if setting not in machine.environment and not full:
        yield found(machine, name)

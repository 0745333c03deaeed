"""The graphics card: driver, visibility, memory. What else TensorFlow needs is in `_graphics`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cnnlab.doctor._environment import backend
from cnnlab.doctor._graphics import (
    INSTALL_DRIVER,
    SLOW,
    Card,
    Graphics,
    check_capability,
    check_packages,
    cuda_major,
    install_cuda,
    read_build,
)
from cnnlab.doctor._machine import Machine
from cnnlab.doctor._packages import provider

# The oldest driver that serves each major version of CUDA. Source: NVIDIA, CUDA Compatibility, table 1.
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}

IN_WINDOWS = "Install the current driver in Windows, from nvidia.com/drivers, then: wsl --shutdown."
QUERY = ("index", "name", "driver_version", "compute_cap", "memory.total", "memory.used", "uuid")

# What nvidia-smi says when it fails, why, and what helps.
DRIVER_TROUBLES = {
    "version mismatch": ("The driver was updated while the old one was running.", "sudo reboot"),
    "couldn't communicate": ("Its kernel module is not loaded: a kernel update, or Secure Boot.", INSTALL_DRIVER),
    "No devices were found": ("The card is switched off, or reserved by another system.", "sudo dmesg | grep -i nvrm"),
    "Insufficient Permissions": ("You have no right to the card's files.", "sudo usermod -aG video,render $USER"),
    "Unknown Error": ("This container has lost its card.", "docker restart <container>"),
    "": ("Without an answer from the driver no program can use the card.", "nvidia-smi"),
}


def look(machine: Machine, *, fast: bool) -> Graphics:
    """Everything about graphics cards that can be known without TensorFlow."""
    graphics = Graphics()
    if machine.system == "Darwin":
        metal = machine.version("tensorflow-metal")
        if metal:
            why = "From TensorFlow 2.18 on, importing stops with “Symbol not found … libmetal_plugin.dylib”."
            fix = machine.pip("uninstall -y tensorflow-metal")
            graphics.add("problem", f"tensorflow-metal {metal} is installed.", why, fix)
        else:
            words = "macOS: TensorFlow trains on the processor; there is no official support for Apple's GPU"
            graphics.add("ok", words)
        return graphics
    _find_cards(machine, graphics, timeout=0.8 if fast else 20.0)
    if not graphics.cards:
        return graphics
    if machine.windows:
        names = ", ".join(card.name for card in graphics.cards)
        why = f"Since TensorFlow 2.11 only WSL2 (Ubuntu in Windows) reaches the card. {SLOW}"
        fix = "wsl --install\nRestart, open Ubuntu, clone the project there and follow the README with the extra `gpu`."
        graphics.add("warning", f"{names}: TensorFlow does not use it on native Windows.", why, fix)
        return graphics
    build = read_build(machine)
    _check_driver(machine, graphics, build)
    plugin, library = _jax_plugin(machine), _library(machine)
    if library == "JAX" and plugin:  # without it JAX computes on the processor
        graphics.add("ok", f"Keras computes with JAX, which has {plugin} {machine.version(plugin)}; the proof tries it")
    elif library == "JAX":
        words = f"The installed JAX {machine.version('jax') or ''} is the one for processors and cannot use the card."
        graphics.add("problem", words, SLOW, install_cuda(machine, "jax"))
    elif build is not None and not build.get("is_cuda_build"):
        name = provider(machine, "tensorflow") or "tensorflow"
        first = "" if name == "tensorflow" else machine.pip(f"uninstall -y {name}") + "\n"
        words = f"The installed {name} is built without CUDA and cannot use the card."
        graphics.add("problem", words, SLOW, first + install_cuda(machine))
    elif build is not None:
        check_capability(machine, graphics, build)
        check_packages(machine, graphics)
    _check_visible(machine, graphics)
    _check_memory(machine, graphics)
    return graphics


def _find_cards(machine: Machine, graphics: Graphics, *, timeout: float) -> None:
    tool = machine.which("nvidia-smi")
    if tool is None and machine.wsl and machine.exists("/usr/lib/wsl/lib/nvidia-smi"):
        tool = "/usr/lib/wsl/lib/nvidia-smi"
    if tool is None:
        _say_no_driver(machine, graphics)
        return
    outcome = machine.run([tool, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"], timeout=timeout)
    graphics.cards = [card for card in map(_parse_card, outcome.output.splitlines()) if card]
    if graphics.cards and outcome.status == 0:
        return
    if outcome.trouble == "timeout":
        status, fix = (
            ("note", f"{machine.python_command} -m cnnlab doctor") if timeout < 5 else ("problem", "sudo reboot")
        )
        why = "A sleeping card takes some seconds to wake; a hung driver never answers."
        graphics.add(status, f"nvidia-smi did not answer within {timeout:g} s.", why, fix)
        return
    words = (outcome.errors + outcome.output).strip()
    why, fix = next(trouble for sign, trouble in DRIVER_TROUBLES.items() if sign in words)
    graphics.add("problem", f"nvidia-smi fails: {(words.splitlines() or ['no output'])[0]}", why, fix)


def _parse_card(line: str) -> Card | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != len(QUERY) or not parts[0].isdigit():
        return None
    index, name, driver, level, total, used, uuid = parts
    capability = re.fullmatch(r"(\d+)\.(\d+)", level)
    pair = (int(capability.group(1)), int(capability.group(2))) if capability else None
    return Card(int(index), name, driver, pair, _number(total), _number(used), uuid)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0  # “[N/A]” on cards that share the computer's memory


def _say_no_driver(machine: Machine, graphics: Graphics) -> None:
    pci = "/sys/bus/pci/devices"
    present = any(
        (machine.read(f"{pci}/{name}/vendor") or "").strip() == "0x10de"
        and (machine.read(f"{pci}/{name}/class") or "").startswith("0x03")
        for name in machine.names(pci)
    )
    if machine.wsl == 2 and machine.exists("/dev/dxg"):
        words = "No NVIDIA driver answers in WSL2; training uses the processor."
        why = "If the computer has an NVIDIA card: its driver belongs into Windows, never into the Linux of WSL2."
        graphics.add("note", words, why, IN_WINDOWS)
    elif present and (machine.exists("/.dockerenv") or machine.exists("/run/.containerenv")):
        words = "The computer has an NVIDIA card, but this container was started without it."
        graphics.add("warning", words, SLOW, "docker run --gpus all …")
    elif present:
        words = "The computer has an NVIDIA card, but no NVIDIA driver (nvidia-smi is missing)."
        graphics.add("warning", words, SLOW, INSTALL_DRIVER)
    else:
        graphics.add("ok", "no NVIDIA card: training uses the processor, which every notebook is made for")


def _check_driver(machine: Machine, graphics: Graphics, build: Mapping[str, Any] | None) -> None:
    driver = graphics.cards[0].driver
    digits = re.match(r"\d+", driver)
    jax = backend(machine)[0] == "jax"
    plugin = _jax_plugin(machine) if jax else None
    named = re.search(r"\d+", plugin or "")  # jax-cuda12-plugin
    cuda = int(named.group()) if named else cuda_major(build) or 12
    oldest = OLDEST_DRIVERS.get(cuda, 0)
    listed = ", ".join(
        f"{card.index}: {card.name}"
        + (f", compute capability {card.capability[0]}.{card.capability[1]}" if card.capability else "")
        + (f", {card.total / 1024:.0f} GiB" if card.total else "")
        for card in graphics.cards
    )
    built = f"; TensorFlow is built for CUDA {build['cuda_version']}" if build and "cuda_version" in build else ""
    built = (f"; JAX computes with CUDA {cuda}" if plugin else "") if jax else built
    if digits and int(digits.group()) >= oldest:
        graphics.add("ok", f"{listed}; driver {driver}{built}")
        return
    graphics.add(
        "problem",
        f"{listed}; driver {driver} is too old{built}.",
        f"CUDA {cuda} needs driver {oldest} or newer: “CUDA driver version is insufficient”. {SLOW}",
        IN_WINDOWS if machine.wsl else INSTALL_DRIVER,
    )


def _jax_plugin(machine: Machine) -> str | None:
    return next((name for name in ("jax-cuda13-plugin", "jax-cuda12-plugin") if machine.version(name)), None)


def _check_visible(machine: Machine, graphics: Graphics) -> None:
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
        names = ", ".join(f"{card.index} ({card.name})" for card in graphics.hidden)
        unlike = len({card.name for card in graphics.cards}) > 1 and "CUDA_DEVICE_ORDER" not in machine.environment
        graphics.add(
            "warning",
            f"CUDA_VISIBLE_DEVICES={listed!r} hides {len(graphics.hidden)} of {len(graphics.cards)} cards: {names}.",
            f"{_library(machine)} sees only the others"
            + ("." if visible else ": here none, so that it trains on the processor.")
            + " The variable may come from a shell profile, a scheduler or an earlier notebook cell."
            + (" CUDA counts the fastest card as 0 unless CUDA_DEVICE_ORDER=PCI_BUS_ID is set." if unlike else ""),
            machine.set_variable("CUDA_VISIBLE_DEVICES", None),
        )


def _check_memory(machine: Machine, graphics: Graphics) -> None:
    mine = {"tensorflow", "jax"} & machine.loaded
    library, variable, value = _library(machine), "TF_FORCE_GPU_ALLOW_GROWTH", "true"
    share, setting = "nearly all", "memory growth is off"
    if library == "JAX":
        variable, value, share = "XLA_PYTHON_CLIENT_PREALLOCATE", "false", "three quarters of the"
        setting = "it is taken in advance"
    holder = f"this notebook, which has started {library}, or by another process" if mine else "another process"
    full = [card for card in graphics.cards if card.total and card.used > card.total / 2]
    for card in full:
        graphics.add(
            "warning",
            f"{card.used / 1024:.1f} of {card.total / 1024:.1f} GiB of {card.name} are in use by {holder}.",
            f"{library} takes {share} memory of a card until its process ends: usually another notebook. Training "
            "then stops with “OOM when allocating tensor” or “CUDNN_STATUS_INTERNAL_ERROR”.",
            "nvidia-smi\nThen shut down the other notebook: Kernel, Shut Down All Kernels.",
        )
    if variable not in machine.environment and not full:
        words = f"{library} takes {share} memory of a card at its first use ({setting})."
        why = f"A second notebook then finds too little. It must be set before {library} starts."
        graphics.add("note", words, why, machine.set_variable(variable, value))


def _library(machine: Machine) -> str:
    return "JAX" if backend(machine)[0] == "jax" else "TensorFlow"

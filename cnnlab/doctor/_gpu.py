"""The graphics card: driver, visibility, memory. What TensorFlow needs beside it is in `_cuda`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cnnlab.doctor import _cuda
from cnnlab.doctor._environment import backend
from cnnlab.doctor._graphics import INSTALL_DRIVER, Card, Graphics, cuda_major, install_gpu, read_build
from cnnlab.doctor._machine import Machine
from cnnlab.doctor._packages import provider

# The oldest driver that serves each major version of CUDA. Source: NVIDIA, CUDA Compatibility, table 1.
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}

QUERY = ("index", "name", "driver_version", "compute_cap", "memory.total", "memory.used", "uuid")


def look(machine: Machine, *, fast: bool) -> Graphics:
    """Everything about graphics cards that can be known without TensorFlow."""
    graphics = Graphics()
    if machine.system == "Darwin":
        _look_mac(machine, graphics)
        return graphics
    _find_cards(machine, graphics, timeout=0.8 if fast else 20.0)
    if not graphics.cards:
        return graphics
    build = read_build(machine)
    if machine.windows:
        _look_windows(machine, graphics)
        return graphics
    _check_driver(machine, graphics, build)
    if backend(machine)[0] == "jax":
        graphics.add("ok", "Keras computes with JAX, which brings its own CUDA libraries; the proof tries them")
    elif build is not None and not build.get("is_cuda_build"):
        _say_cpu_build(machine, graphics)
    elif build is not None:
        _cuda.check_capability(machine, graphics, build)
        _cuda.check_libraries(machine, graphics, build, timeout=0.6 if fast else 60.0)
    _check_visible(machine, graphics)
    _check_memory(machine, graphics)
    return graphics


# -- the cards -------------------------------------------------------------------------------------------------------


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
        graphics.cards = _read_cards(machine)
        graphics.add(
            "note" if timeout < 5 else "problem",
            f"nvidia-smi did not answer within {timeout:g} s.",
            "A sleeping card takes some seconds to wake; a hung driver never answers.",
            f"{machine.python_command} -m cnnlab doctor" if timeout < 5 else "sudo reboot",
        )
        return
    _say_driver_trouble(machine, graphics, (outcome.errors + outcome.output).strip())


def _read_cards(machine: Machine) -> list[Card]:
    """What the driver writes into /proc: names and its version, at once and without waking a card."""
    folder = "/proc/driver/nvidia"
    version = re.search(r"(?:Module|x86_64|aarch64)\s+(\d+\.[\d.]+)", machine.read(f"{folder}/version") or "")
    cards = []
    for index, name in enumerate(machine.names(f"{folder}/gpus")):
        model = re.search(r"^Model:\s*(.+)$", machine.read(f"{folder}/gpus/{name}/information") or "", re.MULTILINE)
        if model and version:
            cards.append(Card(index, model.group(1).strip(), version.group(1), None, 0, 0, ""))
    return cards


def _parse_card(line: str) -> Card | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) != len(QUERY) or not parts[0].isdigit():
        return None
    capability = re.fullmatch(r"(\d+)\.(\d+)", parts[3])
    return Card(
        index=int(parts[0]),
        name=parts[1],
        driver=parts[2],
        capability=(int(capability.group(1)), int(capability.group(2))) if capability else None,
        total=_number(parts[4]),
        used=_number(parts[5]),
        uuid=parts[6],
    )


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0  # “[N/A]” on cards that share the computer's memory


def _say_no_driver(machine: Machine, graphics: Graphics) -> None:
    pci = "/sys/bus/pci/devices"
    present = machine.system == "Linux" and any(
        (machine.read(f"{pci}/{name}/vendor") or "").strip() == "0x10de"
        and (machine.read(f"{pci}/{name}/class") or "").startswith("0x03")
        for name in machine.names(pci)
    )
    if machine.wsl == 2 and machine.exists("/dev/dxg"):
        graphics.add(
            "note",
            "No NVIDIA driver answers in WSL2; training uses the processor.",
            "If the computer has an NVIDIA card: its driver belongs into Windows, never into the Linux of WSL2.",
            "Install the current driver from nvidia.com/drivers in Windows, then: wsl --shutdown.",
        )
    elif present and (machine.exists("/.dockerenv") or machine.exists("/run/.containerenv")):
        graphics.add(
            "warning",
            "The computer has an NVIDIA card, but this container was started without it.",
            "Training uses the processor, often ten times slower.",
            "docker run --gpus all …",
        )
    elif present:
        graphics.add(
            "warning",
            "The computer has an NVIDIA card, but no NVIDIA driver (nvidia-smi is missing).",
            "Training uses the processor, often ten times slower.",
            INSTALL_DRIVER,
        )
    else:
        graphics.add("ok", "no NVIDIA card: training uses the processor, which every notebook is made for")


def _say_driver_trouble(machine: Machine, graphics: Graphics, words: str) -> None:
    first = (words.splitlines() or ["no output"])[0]
    if "version mismatch" in words:
        why = "The driver was updated while the old one was running; until a restart no program can use the card."
        fix = "sudo reboot"
    elif "couldn't communicate" in words:
        why = "The driver's kernel module is not loaded: after a kernel update, or held back by Secure Boot."
        fix = INSTALL_DRIVER
    elif "No devices were found" in words:
        why = "The driver runs and sees no card: it is switched off, reserved by another system, or has lost power."
        fix = "sudo dmesg | grep -i nvrm"
    elif "Insufficient Permissions" in words or "Unknown Error" in words:
        why = "This container or user has lost its right to the card's device files."
        fix = "docker restart <container>" if machine.exists("/.dockerenv") else "sudo usermod -aG video,render $USER"
    else:
        why = "Without an answer from the driver no program can use the card."
        fix = "nvidia-smi"
    graphics.add("problem", f"nvidia-smi fails: {first}", why, fix)


def _look_mac(machine: Machine, graphics: Graphics) -> None:
    metal = machine.version("tensorflow-metal")
    if metal:
        graphics.add(
            "problem",
            f"tensorflow-metal {metal} is installed.",
            "It was built for older releases: from TensorFlow 2.18 on, importing stops with “Symbol not found … "
            "libmetal_plugin.dylib”.",
            machine.pip("uninstall -y tensorflow-metal"),
        )
    else:
        graphics.add("ok", "macOS: TensorFlow trains on the processor; there is no official support for Apple's GPU")


def _look_windows(machine: Machine, graphics: Graphics) -> None:
    names = ", ".join(card.name for card in graphics.cards)
    graphics.add(
        "warning",
        f"{names}: TensorFlow does not use it on native Windows.",
        "TensorFlow 2.10 was the last with GPU support there; inside WSL2 (Ubuntu in Windows) the card works. Training "
        "uses the processor until then.",
        "wsl --install\nRestart, open Ubuntu, clone the project there and follow the README with the extra `gpu`.",
    )


# -- the checks ------------------------------------------------------------------------------------------------------


def _check_driver(machine: Machine, graphics: Graphics, build: Mapping[str, Any] | None) -> None:
    driver = graphics.cards[0].driver
    digits = re.match(r"\d+", driver)
    major = int(digits.group()) if digits else 0
    cuda = cuda_major(build)
    oldest = OLDEST_DRIVERS.get(cuda or 12, 0)
    listed = ", ".join(
        f"{card.index}: {card.name}"
        + (f", compute capability {card.capability[0]}.{card.capability[1]}" if card.capability else "")
        + (f", {card.total / 1024:.0f} GiB" if card.total else "")
        for card in graphics.cards
    )
    built = (
        f"; TensorFlow is built for CUDA {build['cuda_version']}, cuDNN {build.get('cudnn_version')}"
        if build and cuda
        else ""
    )
    if major >= oldest:
        graphics.add("ok", f"{listed}; driver {driver}{built}")
        return
    where = "in Windows, from nvidia.com/drivers, then: wsl --shutdown." if machine.wsl else ""
    graphics.add(
        "problem",
        f"{listed}; driver {driver} is too old{built}.",
        f"CUDA {cuda or 12} needs driver {oldest} or newer; TensorFlow ends with “CUDA driver version is insufficient” "
        "or falls back to the processor.",
        f"Install the current driver {where}" if where else INSTALL_DRIVER,
    )


def _say_cpu_build(machine: Machine, graphics: Graphics) -> None:
    name = provider(machine, "tensorflow") or "tensorflow"
    fix = install_gpu(machine)
    if name != "tensorflow":
        fix = machine.pip(f"uninstall -y {name}") + "\n" + fix
    graphics.add(
        "problem",
        f"The installed {name} is built without CUDA and cannot use the card.",
        "Training uses the processor, often ten times slower.",
        fix,
    )


def _check_visible(machine: Machine, graphics: Graphics) -> None:
    """Which cards CUDA_VISIBLE_DEVICES hides. CUDA reads it up to the first entry that names no card."""
    told = machine.environment.get("CUDA_VISIBLE_DEVICES")
    if told is None:
        return
    visible = set()
    for entry in (part.strip() for part in told.split(",")):
        match = [c for c in graphics.cards if entry == str(c.index) or (len(entry) > 4 and c.uuid.startswith(entry))]
        if len(match) != 1:
            break
        visible.add(match[0].index)
    if any(entry.strip().startswith("MIG-") for entry in told.split(",")):
        return  # slices of a card; their names are not in this list
    graphics.hidden = [card for card in graphics.cards if card.index not in visible]
    if graphics.hidden:
        names = ", ".join(f"{card.index} ({card.name})" for card in graphics.hidden)
        unlike = len({card.name for card in graphics.cards}) > 1 and "CUDA_DEVICE_ORDER" not in machine.environment
        graphics.add(
            "warning",
            f"CUDA_VISIBLE_DEVICES={told!r} hides {len(graphics.hidden)} of {len(graphics.cards)} cards: {names}.",
            "TensorFlow sees only the others"
            + ("." if visible else ": here none, so that it trains on the processor.")
            + " The variable may come from a shell profile, a scheduler or an earlier notebook cell."
            + (" CUDA counts the fastest card as 0 unless CUDA_DEVICE_ORDER=PCI_BUS_ID is set." if unlike else ""),
            machine.set_variable("CUDA_VISIBLE_DEVICES", None),
        )


def _check_memory(machine: Machine, graphics: Graphics) -> None:
    mine = {"tensorflow", "jax"} & machine.loaded
    holder = "this notebook, which has started TensorFlow, or by another process" if mine else "another process"
    full = [card for card in graphics.cards if card.total and card.used > card.total / 2]
    for card in full:
        graphics.add(
            "warning",
            f"{card.used / 1024:.1f} of {card.total / 1024:.1f} GiB of {card.name} are in use by {holder}.",
            "TensorFlow takes nearly the whole memory of each card when it starts and keeps it until its process ends: "
            "usually another notebook. Training then stops with “OOM when allocating tensor” or "
            "“CUDNN_STATUS_INTERNAL_ERROR”.",
            "nvidia-smi\nThen shut down the other notebook: Kernel, Shut Down All Kernels.",
        )
    if graphics.cards and "TF_FORCE_GPU_ALLOW_GROWTH" not in machine.environment and not full:
        graphics.add(
            "note",
            "TensorFlow takes nearly all memory of a card at its first use (memory growth is off).",
            "A second notebook then finds none. With growth on, each takes what it needs. It must be set before "
            "TensorFlow starts.",
            machine.set_variable("TF_FORCE_GPU_ALLOW_GROWTH", "true"),
        )

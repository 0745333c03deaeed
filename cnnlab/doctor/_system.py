"""Python, operating system, processor, memory and disk."""

from __future__ import annotations

import re

from cnnlab.doctor._findings import Finding, found, ok
from cnnlab.doctor._machine import PYTHONS, Machine

GIB = 1024**3


def check(machine: Machine) -> list[Finding]:
    """All findings about what lies below the packages."""
    return [look(machine) for look in (check_python, check_system, check_processor, check_memory, check_disk)]


def check_python(machine: Machine) -> Finding:
    """Is there a TensorFlow for this Python?"""
    version, served = ".".join(map(str, machine.python)), f"Python 3.{PYTHONS[0][1]} to 3.{PYTHONS[1][1] - 1}"
    if not machine.python_served:
        what = "too old" if machine.python[:2] < PYTHONS[0] else "too new"
        return found(machine, "python.unfit", version=version, what=what, served=served)
    if machine.kind:
        served = "the ordinary 64-bit CPython"
        return found(machine, "python.unfit", version=version, what=machine.kind, served=served)
    return ok("python", f"Python {version}, 64-bit", f"TensorFlow has packages for {served}.")


def check_system(machine: Machine) -> Finding:
    """Does TensorFlow have packages for this operating system and processor?"""
    name = f"{machine.system} {machine.release}, {machine.architecture}"
    if machine.windows and machine.architecture.upper() == "ARM64":
        return found(machine, "system.windows_on_arm", name=name)
    if machine.system == "Darwin" and machine.architecture != "arm64":
        return found(machine, "system.intel_mac", name=name)
    if machine.system != "Linux":
        return ok("system", name)
    library, _, version = machine.c_library.partition(" ")
    if library != "glibc" or tuple(map(int, re.findall(r"\d+", version)[:2])) < (2, 27):
        age = "old" if version else "other"
        return found(machine, f"system.{age}_c_library", name=name, library=machine.c_library)
    if machine.wsl == 1:
        return found(machine, "system.wsl1", name=name)
    if machine.wsl and machine.project.startswith("/mnt/"):
        quoted = machine.quote(machine.project)
        return found(machine, "system.windows_side", name=name, project=machine.project, quoted=quoted)
    return ok("system", f"{name}{', in WSL2' if machine.wsl else ''}, {machine.c_library}")


def check_processor(machine: Machine) -> Finding:
    """Cores, and the instructions without which TensorFlow stops at once."""
    cores = f"{machine.processors} processor core{'s' if machine.processors != 1 else ''}"
    quota = (machine.read("/sys/fs/cgroup/cpu.max") or "").split()
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]):
        cores += f", of which this container may use {int(quota[0]) / int(quota[1]):.3g}"
    instructions = machine.instructions()
    if machine.architecture.lower() not in ("x86_64", "amd64") or instructions is None:
        return ok("cpu", cores)
    return ok("cpu", f"{cores}, with AVX") if "avx" in instructions else found(machine, "cpu.no_avx", cores=cores)


def check_memory(machine: Machine) -> Finding:
    """Enough for the quickstart, which takes up to 3 GiB?"""
    memory = machine.memory()
    if memory is None:
        return found(machine, "memory.unknown")
    total, available = memory
    limit = (machine.read("/sys/fs/cgroup/memory.max") or "").strip()
    bounded = limit.isdigit() and int(limit) < total
    if bounded:
        total = int(limit)
        taken = (machine.read("/sys/fs/cgroup/memory.current") or "").strip()
        available = min(available, total - (int(taken) if taken.isdigit() else 0))
    text = f"{available / GIB:.1f} of {total / GIB:.1f} GiB memory free{' in this container' if bounded else ''}"
    if available >= 3 * GIB:
        return ok("memory", text)
    kind = "taken" if total >= 4 * GIB else "of_wsl" if machine.wsl else "of_container" if bounded else "little"
    return found(machine, f"memory.{kind}", "problem" if available < GIB else "", text=text)


def check_disk(machine: Machine) -> Finding:
    """Room for images, runs and downloads."""
    keras = machine.environment.get("KERAS_HOME") or machine.join(machine.home, ".keras")
    places = {"the project": machine.project, "downloaded weights": keras, "temporary files": machine.temporary}
    free = {name: machine.disk(path) for name, path in places.items()}
    low = {name: space for name, space in free.items() if space is not None and space < 5 * GIB}
    if not low:
        return ok("disk", f"{(free['the project'] or 0) / GIB:.0f} GiB free for the project")
    listed = ", ".join(f"{space / GIB:.1f} GiB for {name} ({places[name]})" for name, space in low.items())
    look = "cleanmgr" if machine.windows else f"du -sh {machine.quote(machine.join(machine.project, 'runs'))}/*"
    return found(machine, "disk.full", "problem" if min(low.values()) < GIB else "", listed=listed, look=look)

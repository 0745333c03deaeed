"""Python, operating system, processor, memory and disk."""

from __future__ import annotations

import re

from cnnlab.doctor._findings import Finding, note, ok, problem, warning
from cnnlab.doctor._machine import PYTHONS, Machine

GIB = 1024**3
NO_MATCH = "pip answers “No matching distribution found”."
CONTAINER = "docker run --rm -it python:3.12-slim bash"


def check(machine: Machine) -> list[Finding]:
    """All findings about what lies below the packages."""
    return [look(machine) for look in (check_python, check_system, check_processor, check_memory, check_disk)]


def check_python(machine: Machine) -> Finding:
    """Is there a TensorFlow for this Python?"""
    version = ".".join(map(str, machine.python))
    served = f"Python 3.{PYTHONS[0][1]} to 3.{PYTHONS[1][1] - 1}"
    if not machine.python_served:
        word = "old" if machine.python[:2] < PYTHONS[0] else "new"
        why = f"TensorFlow has packages for {served} only; {NO_MATCH}"
        return problem("python", f"Python {version} is too {word}.", why, machine.new_environment())
    if machine.kind:
        why = f"TensorFlow has packages for the ordinary 64-bit CPython only; {NO_MATCH}"
        return problem("python", f"Python {version} is {machine.kind}.", why, machine.new_environment())
    return ok("python", f"Python {version}, 64-bit", f"TensorFlow has packages for {served}.")


def check_system(machine: Machine) -> Finding:
    """Does TensorFlow have packages for this operating system and processor?"""
    name = f"{machine.system} {machine.release}, {machine.architecture}"
    if machine.windows and machine.architecture.upper() == "ARM64":
        fix = "wsl --install\nThen clone the project inside Ubuntu and go on there."
        return problem("system", f"{name}: Windows on Arm.", "TensorFlow has no package for it.", fix)
    if machine.system == "Darwin" and machine.architecture != "arm64":
        why = "TensorFlow 2.16 was the last with packages for Intel Macs."
        fix = f"On Apple silicon install a Python for arm64 (uv python install 3.12); else:\n{CONTAINER}"
        return problem("system", f"{name}: a Python for Intel processors.", why, fix)
    if machine.system != "Linux":
        return ok("system", name)
    library, _, version = machine.c_library.partition(" ")
    if library != "glibc" or tuple(map(int, re.findall(r"\d+", version)[:2])) < (2, 27):
        words = f"{machine.c_library} is older than 2.27." if version else "the C library is not glibc (Alpine: musl)."
        why = f"TensorFlow's packages need glibc 2.27 or newer; {NO_MATCH}"
        return problem("system", f"{name}: {words}", why, CONTAINER)
    if machine.wsl == 1:
        why = "Version 1 is slow with files and has no way to the graphics card."
        words = f"{name}: the Windows Subsystem for Linux, version 1."
        return warning("system", words, why, "wsl --set-version Ubuntu 2")
    if machine.wsl and machine.project.startswith("/mnt/"):
        words = f"{name} in WSL2; the project lies on the Windows side ({machine.project})."
        why = "Reading many small images across is many times slower than inside Linux."
        return warning("system", words, why, f"cp -r {machine.quote(machine.project)} ~/")
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
    if "avx" in instructions:
        return ok("cpu", f"{cores}, with AVX")
    why = "TensorFlow ends at import with “Illegal instruction”. A virtual machine may hide the AVX of its host."
    fix = "In a virtual machine set the processor type to “host” (QEMU: -cpu host).\nElse: "
    return problem("cpu", f"{cores}, without AVX instructions.", why, f"{fix}conda install -c conda-forge tensorflow")


def check_memory(machine: Machine) -> Finding:
    """Enough for the quickstart, which takes up to 3 GiB?"""
    memory = machine.memory()
    why = (
        "Training here takes 1 to 3 GiB. Without memory, the system ends the kernel: “The kernel appears to have died”."
    )
    if memory is None:
        return note("memory", "How much memory there is could not be read.", why)
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
    fix = "Use smaller images and batches: image_size=(64, 64), batch_size=16."
    if total >= 4 * GIB:
        fix = "Close other notebooks and programs: Kernel, Shut Down All Kernels."
    elif machine.wsl:
        fix = "In .wslconfig in your Windows home folder, write `[wsl2]` and `memory=8GB` on two lines.\nwsl --shutdown"
    elif bounded:
        fix = "Start the container with more memory: docker run --memory 8g …"
    return Finding("memory", "problem" if available < GIB else "warning", text + ".", why, fix)


def check_disk(machine: Machine) -> Finding:
    """Room for images, runs and downloads."""
    keras = machine.environment.get("KERAS_HOME") or machine.join(machine.home, ".keras")
    places = {"the project": machine.project, "downloaded weights": keras, "temporary files": machine.temporary}
    free = {name: machine.disk(path) for name, path in places.items()}
    low = {name: space for name, space in free.items() if space is not None and space < 5 * GIB}
    if low:
        listed = ", ".join(f"{space / GIB:.1f} GiB for {name} ({places[name]})" for name, space in low.items())
        look = "cleanmgr" if machine.windows else f"du -sh {machine.quote(machine.join(machine.project, 'runs'))}/*"
        status = "problem" if min(low.values()) < GIB else "warning"
        why = "Checkpoints, exports and downloads take some GiB; the libraries for a graphics card alone take 5."
        words = f"The disk is almost full: {listed} free."
        return Finding("disk", status, words, why, f"{machine.pip('cache purge')}\n{look}")
    return ok("disk", f"{(free['the project'] or 0) / GIB:.0f} GiB free for the project")

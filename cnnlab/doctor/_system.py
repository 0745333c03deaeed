"""Python, operating system, processor, memory and disk."""

from __future__ import annotations

from cnnlab.doctor._findings import Finding
from cnnlab.doctor._machine import PYTHONS, Machine

GIB = 1024**3


def check(machine: Machine) -> list[Finding]:
    """All findings about what lies below the packages."""
    found = [check_python(machine), check_system(machine), check_processor(machine), check_memory(machine)]
    return found + check_disk(machine)


def check_python(machine: Machine) -> Finding:
    """Is there a TensorFlow for this Python?"""
    version = ".".join(map(str, machine.python))
    first, beyond = PYTHONS
    served = f"Python {first[0]}.{first[1]} to {beyond[0]}.{beyond[1] - 1}"
    if not machine.python_served:
        word = "old" if machine.python[:2] < first else "new"
        extra = " (for 3.14 there is only a pre-release)" if machine.python[:2] == (3, 14) else ""
        return Finding(
            "python",
            "problem",
            f"Python {version} is too {word}.",
            f"TensorFlow has packages for {served} only{extra}; pip answers “No matching distribution found”.",
            machine.new_environment(),
        )
    if machine.bits != 64:
        return Finding(
            "python",
            "problem",
            f"Python {version} is a {machine.bits}-bit program.",
            "TensorFlow has packages for 64-bit Python only; pip answers “No matching distribution found”.",
            "Install the 64-bit Python 3.12 from python.org.\n" + machine.new_environment(),
        )
    if machine.implementation != "CPython" or machine.free_threaded:
        kind = "a free-threaded build" if machine.free_threaded else machine.implementation
        return Finding(
            "python",
            "problem",
            f"Python {version} is {kind}.",
            "TensorFlow has packages for the ordinary CPython only.",
            machine.new_environment(),
        )
    return Finding("python", "ok", f"Python {version}, 64-bit", f"TensorFlow has packages for {served}.")


def check_system(machine: Machine) -> Finding:
    """Does TensorFlow have packages for this operating system and processor?"""
    name = f"{machine.system} {machine.release}, {machine.architecture}"
    if machine.system == "Linux":
        return _check_linux(machine, name)
    if machine.system == "Darwin":
        return _check_mac(machine, name)
    if machine.windows and machine.architecture.upper() == "ARM64":
        return Finding(
            "system",
            "problem",
            f"{name}: Windows on Arm.",
            "TensorFlow has no package for it.",
            "wsl --install\nThen clone the project inside Ubuntu and go on there.",
        )
    return Finding("system", "ok", name)


def _check_linux(machine: Machine, name: str) -> Finding:
    if not machine.c_library.startswith("glibc"):
        return Finding(
            "system",
            "problem",
            f"{name}: the C library is not glibc (Alpine Linux uses musl).",
            "TensorFlow's packages need glibc; pip answers “No matching distribution found”.",
            "docker run --rm -it python:3.12-slim bash",
        )
    version = tuple(int(part) for part in machine.c_library.split()[-1].split(".")[:2])
    if version < (2, 27):
        return Finding(
            "system",
            "problem",
            f"{name}: {machine.c_library} is older than 2.27.",
            "TensorFlow's packages are built for glibc 2.27 and newer; importing ends with “GLIBC_… not found”.",
            "docker run --rm -it python:3.12-slim bash",
        )
    if machine.wsl == 1:
        return Finding(
            "system",
            "warning",
            f"{name}: the Windows Subsystem for Linux, version 1.",
            "Version 1 is slow with files and has no way to the graphics card.",
            "wsl --set-version Ubuntu 2",
        )
    if machine.wsl and machine.project.startswith("/mnt/"):
        return Finding(
            "system",
            "warning",
            f"{name} in WSL2; the project lies on the Windows side ({machine.project}).",
            "Reading many small images through that border is many times slower than inside Linux.",
            f"cp -r {machine.quote(machine.project)} ~/",
        )
    return Finding("system", "ok", name + (", in WSL2" if machine.wsl else "") + f", {machine.c_library}")


def _check_mac(machine: Machine, name: str) -> Finding:
    if machine.architecture == "arm64":
        return Finding("system", "ok", f"{name} (Apple silicon)")
    translated = machine.run(["sysctl", "-n", "sysctl.proc_translated"], timeout=2)
    if translated.output.strip() == "1":
        return Finding(
            "system",
            "problem",
            f"{name}: a Python for Intel processors, translated by Rosetta on Apple silicon.",
            "TensorFlow has no package for Intel Macs any more, and an old one stops with “illegal instruction”.",
            "Install the universal Python 3.12 from python.org, or `uv python install 3.12`, natively for arm64.\n"
            + machine.new_environment(),
        )
    return Finding(
        "system",
        "problem",
        f"{name}: an Intel Mac.",
        "TensorFlow 2.16 was the last with packages for Intel Macs.",
        'docker run --rm -it -p 8888:8888 -v "$PWD":/work -w /work python:3.12-slim bash',
    )


def check_processor(machine: Machine) -> Finding:
    """Cores, and the instructions without which TensorFlow stops at once."""
    cores = f"{machine.processors} processor core{'s' if machine.processors != 1 else ''}"
    quota = (machine.read("/sys/fs/cgroup/cpu.max") or "").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores += f", of which this container may use {int(quota[0]) / int(quota[1]):.3g}"
    if machine.architecture.lower() not in ("x86_64", "amd64"):
        return Finding("cpu", "ok", cores)
    instructions = machine.instructions()
    if instructions is None:
        return Finding("cpu", "note", f"{cores}; whether AVX is present could not be read.", "TensorFlow needs AVX.")
    if "avx" not in instructions:
        return Finding(
            "cpu",
            "problem",
            f"{cores}, without the AVX instructions.",
            "TensorFlow's packages use AVX and end the process at import with “Illegal instruction”. In a virtual "
            "machine the host may have AVX and hide it.",
            "In a virtual machine set the processor type to “host” (QEMU: -cpu host) and start it again.\n"
            "On a processor older than 2011: conda install -c conda-forge tensorflow",
        )
    return Finding("cpu", "ok", f"{cores}, with AVX{' and AVX2' if 'avx2' in instructions else ''}")


def check_memory(machine: Machine) -> Finding:
    """Enough for the quickstart, which takes up to 3 GiB?"""
    memory = machine.memory()
    if memory is None:
        return Finding(
            "memory", "note", "How much memory there is could not be read.", "Training here takes 1 to 3 GiB."
        )
    total, available = memory
    limit = (machine.read("/sys/fs/cgroup/memory.max") or "").strip()
    bounded = limit.isdigit() and int(limit) < total
    if bounded:
        used = (machine.read("/sys/fs/cgroup/memory.current") or "0").strip()
        total = int(limit)
        available = min(available, total - int(used if used.isdigit() else 0))
    text = f"{available / GIB:.1f} of {total / GIB:.1f} GiB memory free{' in this container' if bounded else ''}"
    if available >= 3 * GIB:
        return Finding("memory", "ok", text)
    if total >= 4 * GIB:
        fix = "Close other notebooks and programs: Kernel, Shut Down All Kernels."
    elif machine.wsl:
        fix = (
            "Write `[wsl2]` and `memory=8GB` on two lines into .wslconfig in your Windows home folder.\nwsl --shutdown"
        )
    elif bounded:
        fix = "Start the container with more memory: docker run --memory 8g …"
    else:
        fix = "Use smaller images and batches: image_size=(64, 64), batch_size=16."
    return Finding(
        "memory",
        "problem" if available < GIB else "warning",
        text + ".",
        "Training here takes 1 to 3 GiB. When memory ends, the system ends the kernel without a word: “The kernel "
        "appears to have died”.",
        fix,
    )


def check_disk(machine: Machine) -> list[Finding]:
    """Room for images, runs and downloads, and for what passes through /dev/shm."""
    found = []
    keras = machine.environment.get("KERAS_HOME") or machine.join(machine.home, ".keras")
    places = {"the project": machine.project, "downloaded weights": keras, "temporary files": machine.temporary}
    free = {name: machine.disk(path) for name, path in places.items()}
    low = {name: space for name, space in free.items() if space is not None and space < 5 * GIB}
    if low:
        worst = min(low.values())
        listed = ", ".join(f"{space / GIB:.1f} GiB for {name} ({places[name]})" for name, space in low.items())
        look = "cleanmgr" if machine.windows else f"du -sh {machine.quote(machine.join(machine.project, 'runs'))}/*"
        fix = f"{machine.pip('cache purge')}\n{look}"
        found.append(
            Finding(
                "disk",
                "problem" if worst < GIB else "warning",
                f"The disk is almost full: {listed} free.",
                "Checkpoints, exports and downloads take some GiB; the libraries for a graphics card alone take 5.",
                fix,
            )
        )
    elif free["the project"] is not None:
        found.append(Finding("disk", "ok", f"{free['the project'] / GIB:.0f} GiB free for the project"))
    shared = machine.disk("/dev/shm") if machine.system == "Linux" and machine.names("/dev") else None
    if shared is not None and shared < GIB // 4:
        found.append(
            Finding(
                "disk",
                "note",
                f"/dev/shm, memory shared between processes, has {shared / 1024**2:.0f} MiB free.",
                "Enough for one graphics card or none; training on several at once passes gradients through it and "
                "stops with “No space left on device”. Docker gives 64 MiB unless told otherwise.",
                "docker run --shm-size=1g …",
            )
        )
    return found

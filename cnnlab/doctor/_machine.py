"""The computer as doctor sees it: facts, and functions that look further; a test describes any other by its fields.

This room runs on Python 3.9 with no package installed: a machine on which little works is the one that is asked about.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import ntpath
import os
import platform
import posixpath
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

PYTHONS = ((3, 11), (3, 14))  # from the first to below the second: those for which TensorFlow 2.21 has packages
AT_START = ("LD_LIBRARY_PATH", "PYTHONPATH")  # read when a process starts; a notebook's is running already
SCRIPTS = Path(__file__).parent


class Outcome(NamedTuple):
    """How a command ended."""

    status: int | None  # None where it never started or was stopped
    output: str = ""
    errors: str = ""
    trouble: str = ""  # "" | "missing" | "timeout"


class Package(NamedTuple):
    """One installed distribution."""

    version: str
    requires: tuple[str, ...] = ()


def kind_of_python() -> str:
    """What keeps this Python from being the ordinary 64-bit CPython, or ""."""
    if platform.python_implementation() != "CPython":
        return platform.python_implementation()
    if sys.maxsize < 2**32:
        return "32-bit"
    return "free-threaded" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""


def find_kernel_folders() -> tuple[str, ...]:
    """Where Jupyter looks for kernels, first match first."""
    with contextlib.suppress(ImportError):
        from jupyter_core.paths import jupyter_path

        return tuple(jupyter_path("kernels"))
    return ()


def run(command: Sequence[str], *, timeout: float, environment: Mapping[str, str] | None = None) -> Outcome:
    """Runs a command to its end or for `timeout` seconds; never raises."""
    try:
        done = subprocess.run(
            list(command), capture_output=True, timeout=timeout, env=environment, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired as late:
        return Outcome(None, _text(late.stdout), _text(late.stderr), "timeout")
    except OSError as error:
        return Outcome(None, errors=str(error), trouble="missing")
    return Outcome(done.returncode, _text(done.stdout), _text(done.stderr))


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", errors="replace").replace("\r\n", "\n")


@functools.lru_cache(None)
def find_package(name: str) -> Package | None:
    """An installed distribution, by its metadata."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, KeyError):  # KeyError: half removed
        found = importlib.metadata.distribution(name)
        return Package(str(found.version), tuple(found.requires or ())) if found.version else None
    return None


def find_module_folder(name: str) -> str | None:
    """The folder that `import name` would read, without importing it."""
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(name)
        return next(iter(spec.submodule_search_locations or [spec.origin or ""])) if spec else None
    return None


def read_text(path: str) -> str | None:
    """A file's text; None where it cannot be read."""
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
    return None


def list_folder(path: str) -> list[str]:
    """The names in a folder, sorted; none where it cannot be read."""
    with contextlib.suppress(OSError):
        return sorted(entry.name for entry in Path(path).iterdir())
    return []


def free_space(path: str) -> int | None:
    """Free bytes where `path` lies or, as long as it does not exist, will lie."""
    with contextlib.suppress(OSError, StopIteration):
        return shutil.disk_usage(next(each for each in (Path(path), *Path(path).parents) if each.exists())).free
    return None


def read_memory() -> tuple[int, int] | None:
    """Total and available memory in bytes."""
    with contextlib.suppress(ImportError):
        import psutil

        return psutil.virtual_memory().total, psutil.virtual_memory().available
    return None


def read_instructions() -> frozenset[str] | None:
    """Instruction sets of an x86 processor, as far as the system tells them."""
    if sys.platform == "win32":
        import ctypes

        present = ctypes.windll.kernel32.IsProcessorFeaturePresent(39)  # PF_AVX_INSTRUCTIONS_AVAILABLE
        return frozenset(["avx"] if present else [])
    flags = re.search(r"^flags\s*:(.*)$", read_text("/proc/cpuinfo") or "", re.MULTILINE)
    return frozenset(flags.group(1).split()) if flags else None


def count_processors() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Machine:
    """One computer and one Python on it: this one, unless fields are given that describe another."""

    system: str = field(default_factory=platform.system)  # Linux, Windows, Darwin
    architecture: str = field(default_factory=platform.machine)  # x86_64, AMD64, arm64, aarch64
    release: str = field(default_factory=platform.release)  # of the operating system's kernel
    c_library: str = field(default_factory=lambda: " ".join(platform.libc_ver()).strip())  # "glibc 2.36" or ""
    python: tuple[int, int, int] = sys.version_info[:3]
    kind: str = field(default_factory=kind_of_python)  # "" for the ordinary one, else "PyPy", "32-bit", "free-threaded"
    executable: str = sys.executable
    prefix: str = sys.prefix
    base_prefix: str = sys.base_prefix
    project: str = str(SCRIPTS.parent.parent)  # the folder that holds the package
    folder: str = field(default_factory=os.getcwd)  # the working folder
    home: str = field(default_factory=lambda: str(Path.home()))
    temporary: str = field(default_factory=tempfile.gettempdir)
    kernel_folders: tuple[str, ...] = field(default_factory=find_kernel_folders)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    in_notebook: bool = field(default_factory=lambda: "ipykernel" in sys.modules)
    loaded: frozenset[str] = field(default_factory=lambda: frozenset(sys.modules))
    processors: int = field(default_factory=count_processors)
    run: Callable[..., Outcome] = run  # run(command, timeout=…, environment=…)
    package: Callable[[str], Package | None] = find_package
    module_folder: Callable[[str], str | None] = find_module_folder
    read: Callable[[str], str | None] = read_text
    names: Callable[[str], list[str]] = list_folder
    which: Callable[[str], str | None] = shutil.which
    disk: Callable[[str], int | None] = free_space
    memory: Callable[[], tuple[int, int] | None] = read_memory
    instructions: Callable[[], frozenset[str] | None] = read_instructions

    @property
    def windows(self) -> bool:
        """Whether paths and commands are those of Windows."""
        return self.system == "Windows"

    @property
    def wsl(self) -> int:
        """1 or 2 inside the Windows Subsystem for Linux, otherwise 0."""
        release = self.release.lower()
        return 0 if "microsoft" not in release else 2 if "standard" in release else 1

    @property
    def python_served(self) -> bool:
        """Whether TensorFlow has packages for this version of Python."""
        return PYTHONS[0] <= self.python[:2] < PYTHONS[1]

    @property
    def other_environment(self) -> str:
        """The Python of the project's own .venv as one types it, where this is another one; otherwise empty."""
        own = self.join(self.project, ".venv")
        if not self.names(own) or self.same(self.prefix, own):
            return ""
        return self.shown(self.join(own, *(("Scripts", "python.exe") if self.windows else ("bin", "python"))))

    @property
    def _paths(self) -> Any:
        """The path functions of this machine, which may not be the one that runs the test."""
        return ntpath if self.windows else posixpath

    def join(self, *parts: str) -> str:
        """Joins a path."""
        return str(self._paths.join(*parts))

    def parent(self, path: str) -> str:
        """The folder that holds `path`."""
        return str(self._paths.dirname(path))

    def same(self, one: str, other: str) -> bool:
        """Whether two paths name one place; links are followed where they can be."""
        one, other = (self._paths.normcase(self._paths.normpath(path)) for path in (one, other))
        return one == other or os.path.realpath(one) == os.path.realpath(other)

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of that name."""
        return self._paths.basename(path) in self.names(self.parent(path))

    def version(self, name: str) -> str | None:
        """The installed version of a distribution, None where it is missing."""
        package = self.package(name)
        return package.version if package else None

    # -- commands that a person can paste ------------------------------------------------------------------------

    def quote(self, word: str) -> str:
        """One word of a command line."""
        if self.windows:
            return f'"{word}"' if " " in word else word
        return shlex.quote(word)

    def shown(self, path: str) -> str:
        """A path as one types it in the project's folder."""
        inside = self._paths.normcase(path).startswith(self._paths.normcase(self.join(self.project, "")))
        return self.quote(self._paths.relpath(path, self.project) if inside else path)

    @property
    def python_command(self) -> str:
        """This Python as one types it in the project's folder."""
        return self.shown(self.executable)

    def pip(self, arguments: str) -> str:
        """A pip command for this Python; uv's where the environment has no pip of its own."""
        if self.package("pip"):
            return f"{self.python_command} -m pip {arguments}"
        if self.which("uv"):
            verb, _, rest = arguments.partition(" ")
            return f"uv pip {verb} --python {self.python_command} {rest}"
        return f"{self.python_command} -m ensurepip --upgrade\n{self.python_command} -m pip {arguments}"

    def new_environment(self) -> str:
        """Commands that lead to an environment with a Python for which there is a TensorFlow."""
        if self.other_environment:
            return f"{self.other_environment} -m cnnlab doctor"
        python = r".venv\Scripts\python.exe" if self.windows else ".venv/bin/python"
        if self.which("uv"):
            return f"uv venv --python 3.12 .venv\nuv pip install --python {python} -r requirements.txt"
        launcher = "py -3.12" if self.windows else "python3.12"
        return f"{launcher} -m venv .venv\n{python} -m pip install -r requirements.txt"

    def install_everything(self) -> str:
        """The command that brings all packages to the tested versions, in the environment that is meant for them."""
        if self.other_environment or not self.python_served:
            return self.new_environment()
        listed = self.read(self.join(self.project, "requirements.txt"))
        return self.pip("install -r requirements.txt" if listed else "install --upgrade cnnlab")

    def install_cuda(self, library: str) -> str:
        """The command that brings what TensorFlow or JAX needs for NVIDIA cards, in the version that is there."""
        extra, version = {"tensorflow": "and-cuda", "jax": "cuda12"}[library], self.version(library)
        return self.pip(f'install "{library}[{extra}]{"==" + version if version else ""}"')

    def rename(self, path: str, name: str) -> str:
        """The command that gives a file another name in its folder."""
        verb, new = ("ren", name) if self.windows else ("mv", self.join(self.parent(path), name))
        return f"{verb} {self.quote(path)} {self.quote(new)}"

    def set_variable(self, name: str, value: str | None) -> str:
        """Sets or (None) clears an environment variable: in a notebook's first cell, otherwise in the terminal."""
        if self.in_notebook and name not in AT_START:
            cell = f"import os; os.environ.pop({name!r}, None)" if value is None else f"%env {name}={value}"
            return f"After Kernel, Restart, in the first cell:\n{cell}"
        if self.windows:
            command = f"Remove-Item Env:{name}" if value is None else f'$env:{name} = "{value}"'
        else:
            command = f"unset {name}" if value is None else f"export {name}={self.quote(value)}"
        return f"In the terminal, before Jupyter starts:\n{command}" if self.in_notebook else command


def here() -> Machine:
    """This computer."""
    return Machine()

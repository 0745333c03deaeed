"""The computer as doctor sees it: facts, and functions that look further.

Everything that the checks know comes from one `Machine`, so that a test describes any computer (Windows, a graphics
card, a full disk) by replacing fields. Written to run on Python 3.9 with no package installed: a machine on which
little works is the very one that is asked about.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import ntpath
import os
import platform
import posixpath
import shlex
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    location: str = ""
    requires: tuple[str, ...] = ()


class Library(NamedTuple):
    """What came of loading one shared library."""

    path: str = ""
    version: str = ""
    error: str = ""  # the loader's words; "" where it loaded


@dataclass(frozen=True)
class Machine:
    """One computer and one Python on it. Replace any field to describe another."""

    system: str  # Linux, Windows, Darwin
    architecture: str  # x86_64, AMD64, arm64, aarch64
    release: str  # of the operating system's kernel
    c_library: str  # "glibc 2.36"; "" where it is another one
    python: tuple[int, int, int]
    implementation: str  # CPython
    bits: int
    free_threaded: bool
    executable: str
    prefix: str
    base_prefix: str
    project: str  # the folder that holds the package
    folder: str  # the working folder
    home: str
    temporary: str
    environment: Mapping[str, str]
    in_notebook: bool
    loaded: frozenset[str]  # modules that this process has imported already
    processors: int
    run: Callable[..., Outcome]  # run(command, timeout=…, environment=…)
    libraries: Callable[[Sequence[str], Sequence[str], float], dict[str, Library]]
    distributions: Callable[[str], list[Package]]
    module_folder: Callable[[str], str | None]
    read: Callable[[str], str | None]
    names: Callable[[str], list[str]]
    which: Callable[[str], str | None]
    disk: Callable[[str], int | None]  # free bytes
    memory: Callable[[], tuple[int, int] | None]  # total, available bytes
    instructions: Callable[[], frozenset[str] | None]  # of the processor, lower case; None where unknown

    @property
    def windows(self) -> bool:
        """Whether paths and commands are those of Windows."""
        return self.system == "Windows"

    @property
    def wsl(self) -> int:
        """1 or 2 inside the Windows Subsystem for Linux, otherwise 0."""
        release = self.release.lower()
        if self.system != "Linux" or "microsoft" not in release:
            return 0
        return 2 if "wsl2" in release or "standard" in release else 1

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
        return self._paths.join(*parts)

    def parent(self, path: str) -> str:
        """The folder that holds `path`."""
        return self._paths.dirname(path)

    def same(self, one: str, other: str) -> bool:
        """Whether two paths name one place; links are followed where they can be."""
        one, other = (self._paths.normcase(self._paths.normpath(path)) for path in (one, other))
        return one == other or os.path.realpath(one) == os.path.realpath(other)

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of that name."""
        return self._paths.basename(path) in self.names(self.parent(path))

    def version(self, name: str) -> str | None:
        """The installed version of a distribution, None where it is missing."""
        packages = self.distributions(name)
        return packages[0].version if packages else None

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
        if self.distributions("pip"):
            return f"{self.python_command} -m pip {arguments}"
        if self.which("uv"):
            verb, _, rest = arguments.partition(" ")
            return f"uv pip {verb} --python {self.python_command} {rest}"
        return f"{self.python_command} -m ensurepip --upgrade\n{self.python_command} -m pip {arguments}"

    def new_environment(self) -> str:
        """Commands that lead to an environment with a Python for which there is a TensorFlow."""
        if self.other_environment:
            return f"{self.other_environment} -m cnnlab doctor"
        if self.which("uv"):
            python = r".venv\Scripts\python.exe" if self.windows else ".venv/bin/python"
            return f"uv venv --python 3.12 .venv\nuv pip install --python {python} -r requirements.txt"
        if self.which("conda"):
            return "conda env create --file environment.yml"
        if self.windows:
            return "py -3.12 -m venv .venv\n" + r".venv\Scripts\python.exe -m pip install -r requirements.txt"
        return "python3.12 -m venv .venv\n.venv/bin/python -m pip install -r requirements.txt"

    def install_everything(self) -> str:
        """The command that brings all packages to the tested versions, in the environment that is meant for them."""
        if self.other_environment or not self.python_served:
            return self.new_environment()
        if self.read(self.join(self.project, "requirements.txt")):
            return self.pip("install -r requirements.txt")
        if self.read(self.join(self.project, "pyproject.toml")):
            return self.pip("install -e .")
        return self.pip("install --upgrade cnnlab")

    def set_variable(self, name: str, value: str | None) -> str:
        """Sets or (None) clears an environment variable: in a notebook's first cell, otherwise in the terminal."""
        if self.in_notebook and name not in AT_START:
            cell = f"import os; os.environ.pop({name!r}, None)" if value is None else f"%env {name}={value}"
            return f"After Kernel, Restart, in the first cell:\n{cell}"
        if self.in_notebook:
            return f"In the terminal, before Jupyter starts:\n{self._in_terminal(name, value)}"
        return self._in_terminal(name, value)

    def _in_terminal(self, name: str, value: str | None) -> str:
        if self.windows:
            return f"Remove-Item Env:{name}" if value is None else f'$env:{name} = "{value}"'
        return f"unset {name}" if value is None else f"export {name}={self.quote(value)}"


def here() -> Machine:
    """This computer."""
    folder = str(Path.cwd())
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        release=platform.release(),
        c_library=" ".join(platform.libc_ver()).strip() if sys.platform == "linux" else "",
        python=sys.version_info[:3],
        implementation=platform.python_implementation(),
        bits=struct.calcsize("P") * 8,
        free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        executable=sys.executable,
        prefix=sys.prefix,
        base_prefix=sys.base_prefix,
        project=str(SCRIPTS.parent.parent),
        folder=folder,
        home=str(Path.home()),
        temporary=tempfile.gettempdir(),
        environment=dict(os.environ),
        in_notebook="ipykernel" in sys.modules,
        loaded=frozenset(sys.modules),
        processors=_processors(),
        run=run,
        libraries=load_libraries,
        distributions=functools.lru_cache(None)(find_distributions),
        module_folder=find_module_folder,
        read=read_text,
        names=list_folder,
        which=shutil.which,
        disk=free_space,
        memory=read_memory,
        instructions=read_instructions,
    )


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


def load_libraries(names: Sequence[str], folders: Sequence[str], timeout: float) -> dict[str, Library]:
    """Loads shared libraries in a process of their own, looking in `folders` before the system's places.

    In this process they would stay loaded and TensorFlow would find them afterwards: the look would change what it
    looks at. A library that does not answer in time, or ends the process, is said to have done so.
    """
    request = json.dumps({"libraries": list(names), "folders": list(folders)})
    outcome = run([sys.executable, "-I", str(SCRIPTS / "_libraries.py"), request], timeout=timeout)
    found = {}
    for line in outcome.output.splitlines():
        if line.startswith("{"):
            answer = json.loads(line)
            name = answer.pop("name")
            found[name] = Library(**answer)
    missing = [name for name in names if name not in found]
    if missing:  # the first of them is the one that hung or crashed; the rest were never tried
        words = "did not load in time" if outcome.trouble == "timeout" else "ended the process that loaded it"
        found[missing[0]] = Library(error=words)
    return found


def find_distributions(name: str) -> list[Package]:
    """Every installed copy of a distribution, the one that Python imports first."""
    packages = []
    for found in importlib.metadata.distributions(name=name):
        metadata = found.metadata  # parsed anew at each access
        version = metadata["Version"]  # None in a half-removed distribution
        if version:
            requires = tuple(metadata.get_all("Requires-Dist") or ())
            packages.append(Package(str(version), str(found.locate_file("")), requires))
    return packages


def find_module_folder(name: str) -> str | None:
    """The folder (or file) that `import name` would read, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return str(next(iter(spec.submodule_search_locations)))
    return spec.origin


def read_text(path: str) -> str | None:
    """A file's text; None where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def list_folder(path: str) -> list[str]:
    """The names in a folder, sorted; none where it cannot be read."""
    try:
        return sorted(entry.name for entry in Path(path).iterdir())
    except OSError:
        return []


def free_space(path: str) -> int | None:
    """Free bytes where `path` lies or, as long as it does not exist, will lie."""
    place = Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def read_memory() -> tuple[int, int] | None:
    """Total and available memory in bytes."""
    try:
        import psutil
    except ImportError:
        try:
            page = os.sysconf("SC_PAGE_SIZE")
            return page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return None
    memory = psutil.virtual_memory()
    return memory.total, memory.available


def read_instructions() -> frozenset[str] | None:
    """The instruction sets of an x86 processor, as far as the system tells them."""
    if sys.platform == "linux":
        for line in (read_text("/proc/cpuinfo") or "").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].lower().split())
    if sys.platform == "darwin":
        told = run(["sysctl", "-n", "machdep.cpu.features", "machdep.cpu.leaf7_features"], timeout=2).output.lower()
        return frozenset(told.replace("avx1.0", "avx").split()) or None
    if sys.platform == "win32":
        import ctypes

        numbers = {"avx": 39, "avx2": 40}  # PF_AVX_INSTRUCTIONS_AVAILABLE, PF_AVX2_INSTRUCTIONS_AVAILABLE
        present = ctypes.windll.kernel32.IsProcessorFeaturePresent
        return frozenset(name for name, number in numbers.items() if present(number))
    return None


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux knows affinity
        return os.cpu_count() or 1

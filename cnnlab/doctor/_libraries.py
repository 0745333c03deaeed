"""Loads the shared libraries of CUDA one by one and prints what came of each: a process of its own.

Called with one argument, JSON: {"libraries": ["libcudnn.so.9", …], "folders": ["/…", …]}.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path


def number(library: ctypes.CDLL, function: str) -> int:
    """Calls `function(int*)`."""
    value = ctypes.c_int()
    getattr(library, function)(ctypes.byref(value))
    return value.value


def properties(library: ctypes.CDLL, function: str) -> str:
    """Calls `function(libraryPropertyType, int*)` for the major, minor and patch number."""
    parts = []
    for kind in range(3):
        value = ctypes.c_int()
        getattr(library, function)(kind, ctypes.byref(value))
        parts.append(str(value.value))
    return ".".join(parts)


def thousands(value: int) -> str:
    """12050 is 12.5."""
    return f"{value // 1000}.{value % 1000 // 10}"


def cudnn(library: ctypes.CDLL) -> str:
    """90300 is 9.3.0; up to version 8 it was 8907 for 8.9.7."""
    library.cudnnGetVersion.restype = ctypes.c_size_t
    value = library.cudnnGetVersion()
    unit = 10000 if value >= 10000 else 1000
    return f"{value // unit}.{value % unit // 100}.{value % 100}"


VERSIONS = {
    "libcuda": lambda library: thousands(number(library, "cuDriverGetVersion")),
    "libcudart": lambda library: thousands(number(library, "cudaRuntimeGetVersion")),
    "libcublas": lambda library: properties(library, "cublasGetProperty"),
    "libcufft": lambda library: properties(library, "cufftGetProperty"),
    "libcusolver": lambda library: properties(library, "cusolverGetProperty"),
    "libcusparse": lambda library: properties(library, "cusparseGetProperty"),
    "libcudnn": cudnn,
}


def load(name: str, folders: list[str]) -> dict[str, str]:
    """Loads one library from the first folder that has it, otherwise from where the system looks."""
    candidates = [str(Path(folder) / name) for folder in folders if (Path(folder) / name).exists()]
    try:
        library = ctypes.CDLL(candidates[0] if candidates else name)
    except OSError as error:
        return {"name": name, "path": candidates[0] if candidates else "", "error": str(error)}
    try:
        version = VERSIONS[name.split(".")[0]](library)
    except (KeyError, AttributeError):  # no such function: present, but of unknown version
        version = ""
    return {"name": name, "path": candidates[0] if candidates else mapped(name), "version": version}


def mapped(name: str) -> str:
    """Where the system found a library that is loaded now."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return next((line.split(maxsplit=5)[5].strip() for line in maps.splitlines() if name in line), "")


def main() -> None:
    """Prints one line of JSON for each library, at once, so that a crash names its library."""
    request = json.loads(sys.argv[1])
    for name in request["libraries"]:
        sys.stdout.write(json.dumps(load(name, request["folders"])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""Loads the shared libraries of CUDA one by one and prints what came of each: a process of its own.

Called with one argument, JSON: {"libraries": ["libcudnn.so.9", …], "folders": ["/…", …]}.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path


def load(name: str, folders: list[str]) -> dict[str, str]:
    """Loads one library from the first folder that has it, otherwise from where the system looks."""
    path = next((str(Path(folder) / name) for folder in folders if (Path(folder) / name).exists()), "")
    try:
        library = ctypes.CDLL(path or name)
    except OSError as error:
        return {"name": name, "path": path, "error": str(error)}
    return {"name": name, "path": path, "version": cudnn_version(library) if "cudnn" in name else ""}


def cudnn_version(library: ctypes.CDLL) -> str:
    """90300 is 9.3.0; up to version 8 it was 8907 for 8.9.7."""
    try:
        library.cudnnGetVersion.restype = ctypes.c_size_t
        value = library.cudnnGetVersion()
    except AttributeError:
        return ""
    unit = 10000 if value >= 10000 else 1000
    return f"{value // unit}.{value % unit // 100}.{value % 100}"


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    for each in request["libraries"]:  # at once, so that a crash names its library
        sys.stdout.write(json.dumps(load(each, request["folders"])) + "\n")
        sys.stdout.flush()

"""Views inside a notebook over the rooms below, each is loaded when it is first used."""

import importlib
from typing import Any

_HOME = {  # name: the module that holds it
    "capture": "capturing",
    "confusion": "results",
    "convolution": "kernel",
    "embedding": "results",
    "label": "labelling",
    "monitor": "monitoring",
    "policy_sliders": "policy",
    "relabel": "relabelling",
    "threshold": "results",
    "try_model": "trying",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"cnnlab.widgets.{_HOME[name]}"), name)
    raise AttributeError(f"module 'cnnlab.widgets' has no attribute {name!r}. It has {', '.join(_HOME)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])

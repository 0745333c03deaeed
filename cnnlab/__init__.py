"""cnnlab: train convolutional networks with Keras on your own images, and know what the numbers mean.

Every room is a module, loaded when it is first used, so that `import cnnlab` is instant and `cnnlab.doctor`
works on a machine where TensorFlow does not:

    >>> from cnnlab import metrics, tables
"""

import importlib
from types import ModuleType

__version__ = "0.2.0"

__all__ = [
    "audit",
    "augment",
    "doctor",
    "exercises",
    "experiments",
    "explain",
    "fairness",
    "images",
    "metrics",
    "models",
    "pipelines",
    "plots",
    "samples",
    "serving",
    "tables",
    "training",
    "widgets",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"cnnlab.{name}")
    raise AttributeError(f"module 'cnnlab' has no attribute {name!r}. Its modules: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

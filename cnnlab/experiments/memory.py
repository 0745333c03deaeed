"""Gives back what TensorFlow keeps of every network that was ever trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

PREFIX = "CustomGradient-"  # tf.custom_gradient registers under this and a number


@contextmanager
def graphs_released() -> Iterator[None]:
    """Lets go of the graphs of networks trained inside, which would stay in memory until the process ends.

    Keras's optimizers sum gradients by a function that TensorFlow enters into a register of its own, and nothing takes
    it out again; the entry holds the whole graph of the training step, 5 to 20 MB for a small network. By then the
    gradient is part of the traced step, so that nobody looks the entry up any more: a network trained inside can be
    used and trained on.

    Source:
        keras-tuner#395 reports that memory grows with each trial.
    """
    register = _register()
    before = set(register)
    try:
        yield
    finally:
        for name in set(register) - before:
            if name.startswith(PREFIX):
                register.pop(name, None)


def _register() -> dict[str, Any]:
    """TensorFlow's register of gradients; empty where there is none, and then nothing is released."""
    if keras.backend.backend() != "tensorflow":
        return {}
    from tensorflow.python.framework import ops

    return getattr(getattr(ops, "gradient_registry", None), "_registry", {})

"""A fresh start for every network: what Keras and TensorFlow keep of earlier ones is let go of, settings stay."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

PREFIX = "CustomGradient-"  # tf.custom_gradient registers under this and a number


def fresh_session(seed: int) -> None:
    """`keras.utils.clear_session` and a seed, with the settings of the session that Keras would reset as well.

    Source:
        keras/src/backend/common/global_state.py: dtype policy, distribution and logging lie beside the names of layers.
    """
    policy, distribution = keras.config.dtype_policy(), keras.distribution.distribution()
    interactive = keras.config.is_interactive_logging_enabled()
    filtered = keras.config.is_traceback_filtering_enabled()
    flash = keras.config.is_flash_attention_enabled()
    keras.utils.clear_session()
    keras.config.set_dtype_policy(policy)
    keras.distribution.set_distribution(distribution)
    (keras.config.enable_interactive_logging if interactive else keras.config.disable_interactive_logging)()
    (keras.config.enable_traceback_filtering if filtered else keras.config.disable_traceback_filtering)()
    if flash is not None:
        (keras.config.enable_flash_attention if flash else keras.config.disable_flash_attention)()
    keras.utils.set_random_seed(seed)


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

"""Imports Keras and its backend without the log lines that TensorFlow's C++ code writes before reading any setting.

Floor-1 modules import this first. What was held back is shown after all when the import fails.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def native_stderr_held() -> Iterator[None]:
    """Holds back what C++ code writes to file descriptor 2; lets it out if the block raises."""
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except OSError:  # no descriptor 2, as under some services: nothing to hold
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


# `fit` warns whenever a tf.data.Dataset meets its own default of shuffle=True; nobody can act on that.
warnings.filterwarnings("ignore", message="`shuffle=True` was passed, but will be ignored since the data `x`")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

with native_stderr_held():
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.list_physical_devices()  # the first look at the devices logs once, too
        tf.get_logger().setLevel("ERROR")

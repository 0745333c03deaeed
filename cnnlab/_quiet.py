"""Imports Keras and its backend without the log lines that TensorFlow's C++ code writes before reading any setting.

Floor-1 modules import this first. What was held back is shown after all when the import fails. Garbage is collected
once, after the import, and no later collection looks at the half million objects that it leaves for good: one took a
quarter of a second, and `keras.utils.clear_session` asks for one with every network that is built.
"""

import gc
import os
import platform
import warnings

from cnnlab._stderr import native_stderr_held

# `fit` warns whenever a tf.data.Dataset meets its own default of shuffle=True; nobody can act on that.
warnings.filterwarnings("ignore", message="`shuffle=True` was passed, but will be ignored since the data `x`")

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if platform.machine() in ("x86_64", "AMD64"):
    # By itself TensorFlow uses oneDNN with AVX512-VNNI only, but others train 1.3 to 1.8 times as fast with it as well.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

collects = gc.isenabled()
gc.disable()
try:
    with native_stderr_held():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_physical_devices()  # the first look at the devices logs once, too
            tf.get_logger().setLevel("ERROR")
    gc.collect()
    gc.freeze()
finally:
    if collects:
        gc.enable()

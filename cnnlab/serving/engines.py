"""One callable per file format: float32 images (n, height, width, channels) in, probabilities (n, classes) out."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnnlab._quiet import native_stderr_held

Engine = Callable[[np.ndarray], np.ndarray]
FILE_OF = {"keras": "model.keras", "litert": "model.tflite"}


def open_engine(format: str, folder: Path) -> Engine:
    """The engine for an exported file.

    Raises:
        FileNotFoundError: If the export has no file of this format.
        ValueError: If the file is damaged.
    """
    path = folder / FILE_OF[format]
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected {path.name} in the export {str(folder)!r}; it is gone. Export the model again."
        )
    try:
        return ENGINES[format](path)
    except (ValueError, OSError, RuntimeError, KeyError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{str(path)!r} could not be loaded: {reason}. Export the model again.") from error


def _keras_engine(path: Path) -> Engine:
    from cnnlab import _quiet  # noqa: F401  isort: skip
    import keras

    return keras_engine(keras.models.load_model(path, compile=False))


def keras_engine(model: object) -> Engine:
    """Runs a Keras model in one compiled call, quicker for few images than `model.predict`."""
    import tensorflow as tf

    function = tf.function(lambda images: model(images, training=False), reduce_retracing=True)  # type: ignore[operator]
    return lambda images: function(tf.constant(images, tf.float32)).numpy()


def _litert_engine(path: Path) -> Engine:
    from ai_edge_litert.interpreter import Interpreter

    with native_stderr_held():  # "Created TensorFlow Lite XNNPACK delegate for CPU."
        interpreter = Interpreter(str(path), num_threads=2)
        interpreter.allocate_tensors()
    lock = threading.Lock()  # an interpreter keeps its tensors between calls
    image, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    size = 1

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal size
        with lock:
            if len(images) != size:
                interpreter.resize_tensor_input(image["index"], (len(images), *image["shape"][1:]))
                with native_stderr_held():
                    interpreter.allocate_tensors()
                size = len(images)
            interpreter.set_tensor(image["index"], np.ascontiguousarray(images, np.float32))
            interpreter.invoke()
            return np.array(interpreter.get_tensor(output["index"]))

    return run


ENGINES: dict[str, Callable[[Path], Engine]] = {"keras": _keras_engine, "litert": _litert_engine}

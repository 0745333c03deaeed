"""One callable per file format: float32 images (n, height, width, channels) of 0-255 to probabilities and features."""

import hashlib
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cnnlab._common import available_cores
from cnnlab._stderr import native_stderr_held

Answer = tuple[np.ndarray, np.ndarray]  # probabilities (n, classes) and features (n, any), both float32
Engine = Callable[[np.ndarray], Answer]

FILE_OF = {
    "keras": "model.keras",
    "savedmodel": "savedmodel",
    "litert": "model.tflite",
    "litert_float16": "model_float16.tflite",
    "litert_int8": "model_int8.tflite",
    "onnx": "model.onnx",
}
MOST_THREADS = 4  # more do not help with one image
OUTPUTS = ("probabilities", "features")


def open_engine(format: str, path: Path, *, digest: str | None = None, threads: int | None = None) -> Engine:
    """The engine for an exported file.

    Args:
        format: A key of `FILE_OF`.
        path: The file, or the folder of a SavedModel.
        digest: SHA-256 that the export noted. A file that differs is not opened: the runtimes are native code, and a
            damaged file may end the process instead of raising.
        threads: Processor cores to use; all of this process, at most 4, where None.

    Raises:
        FileNotFoundError: If the file is gone.
        ModuleNotFoundError: If the runtime of this format is not installed.
        ValueError: If the file is damaged, or holds what is refused.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"Expected {path.name} in the export {str(path.parent)!r}; it is gone. Export the model again."
        )
    if digest is not None and digest_of(path) != digest:
        raise ValueError(
            f"{str(path)!r} is not the file that was exported: it is damaged, or it was replaced. Export the model "
            "again."
        )
    require_runtime(format)
    try:
        return ENGINES[format](path, threads or min(available_cores(), MOST_THREADS))
    except Exception as error:  # each runtime raises kinds of its own
        raise ValueError(f"{str(path)!r} could not be loaded: {_reason(error)}") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files and their names."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = [f"{part.relative_to(path).as_posix()} {digest_of(part)}" for part in path.rglob("*") if part.is_file()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def megabytes(path: Path) -> float:
    """Size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [part for part in path.rglob("*") if part.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def require_runtime(format: str, *, writing: bool = False) -> None:
    """Names the package that a format needs and this environment lacks.

    Raises:
        ModuleNotFoundError: If one is missing.
    """
    needed = ["onnxruntime", *(["tf2onnx"] if writing else [])] if format == "onnx" else []
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"The format {format!r} needs {' and '.join(missing)}. Install with: pip install {' '.join(missing)}"
        )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "Lambda" in text or "safe_mode" in text:
        return (
            "it contains Python code of whoever made it (a Lambda layer), which would run on this machine. Such files "
            "are refused. Ask for the model without Lambda layers."
        )
    return f"{text[:200]}. Export the model again."


def features_of(model: Any) -> Any:
    """The tensor that the last dense layer reads: what the network has seen, before it decides."""
    import keras

    for layer in reversed(model.layers):
        if isinstance(layer, keras.layers.Dense):
            seen = layer.input
            break
    else:
        seen = model.output
    seen = seen if len(seen.shape) == 2 else keras.layers.Flatten()(seen)
    return seen if seen.dtype == "float32" else keras.ops.cast(seen, "float32")


def two_outputs(model: Any) -> Any:
    """The same network with a second output, its features; the names are those in every exported graph."""
    import keras

    model = in_float32(model)
    return keras.Model(model.input, {"probabilities": model.output, "features": features_of(model)})


def in_float32(model: Any) -> Any:
    """The model itself, or, of one trained in mixed precision, a copy that computes in float32, as CPUs want it."""
    import keras

    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers() if layer.weights):
        return model

    def plain(layer: Any) -> Any:
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=plain, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def keras_engine(model: Any) -> Engine:
    """Runs a Keras model in one compiled call, quicker for few images than `model.predict`."""
    import tensorflow as tf

    both = two_outputs(model)
    function = tf.function(lambda images: both(images, training=False), reduce_retracing=True)

    def run(images: np.ndarray) -> Answer:
        answer = function(tf.constant(images, tf.float32))
        return answer["probabilities"].numpy(), answer["features"].numpy()

    return run


def _open_keras(path: Path, threads: int) -> Engine:
    from cnnlab import _quiet  # noqa: F401  isort: skip
    import keras

    return keras_engine(keras.models.load_model(path, compile=False, safe_mode=True))


def _open_savedmodel(path: Path, threads: int) -> Engine:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # kept alive by `run`, whose function would lose its weights

    def run(images: np.ndarray) -> Answer:
        answer = loaded.serve(tf.constant(images, tf.float32))
        return answer["probabilities"].numpy(), answer["features"].numpy()

    return run


def _open_litert(path: Path, threads: int) -> Engine:
    from ai_edge_litert.interpreter import Interpreter

    with native_stderr_held():  # "Created TensorFlow Lite XNNPACK delegate for CPU."
        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
    details = interpreter.get_signature_runner().get_output_details()
    probabilities, features = (details[name]["index"] for name in OUTPUTS)
    image = interpreter.get_input_details()[0]["index"]
    lock = threading.Lock()  # an interpreter keeps its tensors between calls

    def one(pixels: np.ndarray) -> Answer:
        with lock:
            interpreter.set_tensor(image, pixels)
            interpreter.invoke()
            return interpreter.get_tensor(probabilities), interpreter.get_tensor(features)

    def run(images: np.ndarray) -> Answer:
        # One by one: as fast as batches on a CPU, no second set of buffers, and other threads get their turn between.
        images = np.ascontiguousarray(images, np.float32)
        answers = [one(images[index : index + 1]) for index in range(len(images))]
        if len(answers) == 1:
            return answers[0]
        return np.concatenate([answer[0] for answer in answers]), np.concatenate([answer[1] for answer in answers])

    return run


def _open_onnx(path: Path, threads: int) -> Engine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: np.ndarray) -> Answer:
        probabilities, features = session.run(list(OUTPUTS), {name: np.ascontiguousarray(images, np.float32)})
        return probabilities, features

    return run


ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "keras": _open_keras,
    "savedmodel": _open_savedmodel,
    "litert": _open_litert,
    "litert_float16": _open_litert,
    "litert_int8": _open_litert,
    "onnx": _open_onnx,
}

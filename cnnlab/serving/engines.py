"""One callable per file format: float32 images (n, height, width, channels) of 0-255 to probabilities and features."""

import hashlib
import threading
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cnnlab._common import available_cores, is_whole
from cnnlab._stderr import native_stderr_held

Answer = tuple[np.ndarray, np.ndarray]  # probabilities (n, classes) and features (n, any), both float32
Engine = Callable[[np.ndarray], Answer]

MOST_THREADS = 4  # more do not help with one image
OUTPUTS = ("probabilities", "features")
MADE_HERE: set[str] = set()  # SHA-256 of the SavedModels that this process has exported: nobody else's programs
UNPACKED = 4  # times its own size that a Keras file may grow to when it is unpacked; Keras itself does not pack


def open_engine(
    format: str, path: Path, *, digest: str | None = None, threads: int | None = None, trust: bool = False
) -> Engine:
    """The engine for an exported file; a ValueError where it is damaged, or a program that nobody trusts.

    A file whose SHA-256 is not `digest` is not opened: the runtimes are native code, and a damaged file may end the
    process instead of raising. A program that this process has exported needs no `trust`.
    """
    if format == "savedmodel" and not trust and not (path.is_dir() and digest_of(path) in MADE_HERE):
        raise ValueError(
            f"{str(path)!r} is a SavedModel, a program that can read and write files of this machine as soon as it is "
            "opened. If you trust whoever made it: Predictor(folder, format='savedmodel', trust=True). Otherwise ask "
            "for LiteRT or ONNX, which can do nothing but compute."
        )
    if threads is not None and (format in ("keras", "savedmodel") or not is_whole(threads)):
        raise ValueError(
            "`threads` expects a number of processor cores from 1, for LiteRT or ONNX; TensorFlow takes one number for "
            f"the whole process, from the environment (TF_NUM_INTRAOP_THREADS). Received: {threads!r} for {format!r}."
        )
    require_runtime(format)
    if digest is not None and digest_of(path) != digest:
        raise ValueError(
            f"{str(path)!r} is not the file that was exported: it is damaged, or it was replaced. Export the model "
            "again."
        )
    return loaded(path, lambda: ENGINES[format](path, threads or min(available_cores(), MOST_THREADS)))


def loaded(path: Path, load: Callable[[], Any]) -> Any:
    """What `load` makes of a file, or a ValueError of one sentence: each runtime raises kinds of its own."""
    try:
        return load()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "Lambda" in reason or "safe_mode" in reason:
            reason = (
                "it contains Python code of whoever made it (a Lambda layer), which would run on this machine. Such "
                "files are refused. Ask for the model without Lambda layers."
            )
        else:
            reason = f"{reason[:200]}. Export the model again."
        raise ValueError(f"{str(path)!r} could not be loaded: {reason}") from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files and their names."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = [f"{part.relative_to(path).as_posix()} {digest_of(part)}" for part in path.rglob("*") if part.is_file()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def require_runtime(format: str, *, writing: bool = False) -> None:
    """Names the package that a format needs and this environment lacks, as a ModuleNotFoundError."""
    needed = ["onnxruntime", *(["tf2onnx"] if writing else [])] if format == "onnx" else []
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"The format {format!r} needs {' and '.join(missing)}. Install with: pip install {' '.join(missing)}"
        )


def require_stored(path: Path, *, times: int = 1) -> None:
    """Refuses an archive that would unpack to more than `times` its own size, before it fills the memory."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > times * max(path.stat().st_size, 2**20):
        raise ValueError(f"it has {path.stat().st_size:,} bytes and would unpack to {unpacked:,}")


def load_keras(path: Path) -> Any:
    """A network from its file, without any Python code that may be inside."""
    from cnnlab import _quiet  # noqa: F401  isort: skip
    import keras

    require_stored(path, times=UNPACKED)
    return keras.models.load_model(path, compile=False, safe_mode=True)


def _open_keras(path: Path, threads: int) -> Engine:
    from cnnlab.serving.network import keras_engine

    return keras_engine(load_keras(path))


def _open_savedmodel(path: Path, threads: int) -> Engine:
    import tensorflow as tf

    from cnnlab.serving.network import tensorflow_engine

    program = tf.saved_model.load(str(path))
    return tensorflow_engine(lambda images: program.serve(images))  # `serve` alone would lose its weights


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
    return lambda images: tuple(session.run(list(OUTPUTS), {name: np.ascontiguousarray(images, np.float32)}))


ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "keras": _open_keras,
    "savedmodel": _open_savedmodel,
    "litert": _open_litert,
    "litert_float16": _open_litert,
    "litert_int8": _open_litert,
    "onnx": _open_onnx,
}

"""Writes a Keras model in each file format of an export: uncompiled, its features as a second output."""

import io
import itertools
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import models
from cnnlab._stderr import native_stderr_held
from cnnlab.images import Preparation
from cnnlab.serving.network import two_outputs

Writer = Callable[[keras.Model, Path, np.ndarray], None]


def write(format: str, model: keras.Model, path: Path, representative: np.ndarray) -> None:
    """Writes one file; from `representative` images "litert_int8" learns the range of every number in the network."""
    try:
        with native_stderr_held(), warnings.catch_warnings(action="ignore"):  # converters speak of their own future
            WRITERS[format](model, path, representative)
    except OSError:
        raise
    except Exception as error:  # converters raise kinds of their own
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        raise ValueError(
            f"The model could not be written as {format!r}: {reason}. Leave this format out, or replace the layers "
            "that it names."
        ) from error


def for_use(model: keras.Model, preparation: Preparation) -> keras.Model:
    """The network alone, which plain Keras loads: no optimizer, no loss; its names and preparation stay inside."""
    names = models.class_names(model)
    if getattr(model, "inputs", None) is None:  # Python code of somebody's own: one layer of a network of layers
        inputs = keras.Input((*preparation.image_size, preparation.channels))
        model = keras.Model(inputs, model(inputs, training=False), name=model.name)
    elif type(model) is not keras.Sequential:
        model = keras.Model(model.input, model.output, name=model.name)
    size = preparation.image_size if None in model.input_shape[1:3] else None
    return models.with_classes(model, names, resize=preparation.resize, levels=preparation.levels, image_size=size)


def _write_keras(model: keras.Model, path: Path, representative: np.ndarray) -> None:
    for layer in model.layers:
        kind = type(layer)
        if not kind.__module__.startswith("keras.") and keras.saving.get_registered_name(kind) == kind.__name__:
            raise ValueError(f"plain Keras could not load it again without the Python code of {kind.__name__}")
    model.save(path)


def _write_savedmodel(model: keras.Model, path: Path, representative: np.ndarray) -> None:
    two_outputs(model).export(path, format="tf_saved_model", verbose=False)


def _write_litert(model: keras.Model, path: Path, representative: np.ndarray, **options: Any) -> None:
    # a file of fixed size, also where the network takes any
    two_outputs(model, representative.shape[1:3]).export(path, format="litert", verbose=False, **options)


def _write_float16(model: keras.Model, path: Path, representative: np.ndarray) -> None:
    import tensorflow as tf

    optimizations, types = [tf.lite.Optimize.DEFAULT], {"supported_types": [tf.float16]}
    _write_litert(model, path, representative, optimizations=optimizations, target_spec=types)


def _write_int8(model: keras.Model, path: Path, representative: np.ndarray) -> None:
    """Whole numbers but for the first third of the operations and the last ones, which stay float32.

    The first compute on large maps with few weights: in whole numbers they cost time, answers and next to no space.

    Source: TensorFlow Lite's guide "Inspecting quantization errors with quantization debugger".
    """
    import tensorflow as tf

    def images() -> Iterator[list[np.ndarray]]:  # mirrored as well: twice the variety, and the check keeps its images
        return ([image[None]] for image in (*representative, *representative[:, :, ::-1]))

    operations, lite = tf.lite.OpsSet, tf.lite.experimental
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        two_outputs(model, representative.shape[1:3]).export(folder, format="tf_saved_model", verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = images
        converter.target_spec.supported_ops = [operations.TFLITE_BUILTINS_INT8, operations.TFLITE_BUILTINS]
        last = lite.QuantizationDebugOptions(denylisted_ops=["MEAN", "FULLY_CONNECTED", "SOFTMAX"])
        debugger = lite.QuantizationDebugger(
            converter=converter, debug_dataset=lambda: itertools.islice(images(), 1), debug_options=last
        )
    debugger.run()
    table = io.StringIO()
    debugger.layer_statistics_dump(table)
    names = pd.read_csv(io.StringIO(table.getvalue()))["tensor_name"].tolist()
    last.denylisted_nodes = names[: math.ceil(len(names) / 3)]
    path.write_bytes(debugger.get_nondebug_quantized_model())


def _write_onnx(model: keras.Model, path: Path, representative: np.ndarray) -> None:
    both = two_outputs(model, representative.shape[1:3])
    both(representative[:1])  # Keras refuses a model that was never called
    both.export(path, format="onnx", verbose=False)


WRITERS: dict[str, Writer] = {
    "keras": _write_keras,
    "savedmodel": _write_savedmodel,
    "litert": _write_litert,
    "litert_float16": _write_float16,
    "litert_int8": _write_int8,
    "onnx": _write_onnx,
}

"""Writes a Keras model in each file format of an export: uncompiled, its features as a second output."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

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
    import tensorflow as tf

    operations = tf.lite.OpsSet
    _write_litert(
        model,
        path,
        representative,
        optimizations=[tf.lite.Optimize.DEFAULT],
        # mirrored as well: twice the variety without taking images from those that it is checked on
        representative_dataset=lambda: ([image[None]] for image in (*representative, *representative[:, :, ::-1])),
        # images and answers stay float32, so that every format is used alike
        target_spec={"supported_ops": [operations.TFLITE_BUILTINS_INT8, operations.TFLITE_BUILTINS]},
    )


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

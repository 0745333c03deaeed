"""As many steps as were asked for, also where several of them are one execution.

Keras rounds `steps_per_epoch`, `validation_steps` and `steps` up to whole executions, and goes through data that end
within an epoch only once more. A model whose `steps_per_execution` was chosen by `training.compile` must not do less,
or more, than the person wrote.
"""

import functools
import inspect
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

from cnnlab.training.state import source_of

COUNTS = ("steps_per_epoch", "validation_steps", "steps")


def count_exactly(model: keras.Model) -> None:
    """Makes `fit`, `evaluate` and `predict` of this model do the steps that are asked for; nothing where none are."""
    for name in ("fit", "evaluate", "predict"):
        setattr(model, name, _exact(model, name))


def _exact(model: keras.Model, name: str) -> Any:
    plain = getattr(type(model), name)
    signature = inspect.signature(plain)

    @functools.wraps(plain)
    def method(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(model, *args, **kwargs)
        given = bound.arguments
        counts = [given[key] for key in COUNTS if isinstance(given.get(key), int) and given[key] > 0]
        if given.get("steps_per_epoch") and "x" in given:
            endless = _endless(given["x"])
            given["x"] = given["x"] if endless is None else endless
            counts += [1] if endless is None else []  # what may end within an execution is taken step by step
        before = model.steps_per_execution
        # As many steps at a time as all counts are multiples of.
        _execute(model, max(steps for steps in range(1, before + 1) if all(count % steps == 0 for count in counts)))
        try:
            return plain(*bound.args, **bound.kwargs)
        finally:
            _execute(model, before)

    method.__signature__ = inspect.signature(plain.__get__(model))  # type: ignore[attr-defined]
    return method


def _execute(model: keras.Model, steps: int) -> None:
    if model.steps_per_execution != steps:
        model.steps_per_execution = steps
        model.train_function = model.test_function = model.predict_function = None


def _endless(data: Any) -> Any:
    """The dataset, begun again whenever it ends; None for what is not a TensorFlow dataset."""
    if not hasattr(data, "element_spec") or not hasattr(data, "cardinality") or not hasattr(data, "repeat"):
        return None
    import tensorflow as tf

    if int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
        return data
    repeated = data.repeat()
    if source_of(data) is not None:
        repeated._cnnlab_source, repeated._cnnlab_begun_again = source_of(data), True
    return repeated

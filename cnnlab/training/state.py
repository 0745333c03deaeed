"""What a training step changes, taken out of a model and put back bit by bit: weights, optimizer, random state."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab import pipelines

Arrays = list[np.ndarray]


def values_of(variables: Sequence[Any]) -> Arrays:
    """A copy of each variable as a numpy array."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Puts values into variables of the same shapes."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def global_generator() -> Any:
    """The generator that Keras draws from where no layer has one of its own, or None while it was never needed."""
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

    return global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)


def random_state() -> dict[str, Any]:
    """The state of Python's, numpy's and Keras's global generators, as plain values; layers have their own."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  (libraries draw from the global state)
    generator = global_generator()
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "keras": None if generator is None else values_of([generator.state])[0].tolist(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    if state["keras"] is not None:
        from keras.src.random.seed_generator import global_seed_generator

        generator = global_seed_generator()
        generator.state.assign(np.array(state["keras"], generator.state.dtype))


@contextmanager
def untouched(model: keras.Model, data: Any = None) -> Iterator[None]:
    """Whatever the block does to the model's variables, to random state and to the data's count of epochs is undone."""
    variables, state = model.variables, random_state()
    before = values_of(variables)
    generator = global_generator()
    feed = getattr(data, "_cnnlab_feed", None)
    epoch = feed.next_epoch if feed is not None else 0
    try:
        yield
    finally:
        assign(variables, before)
        set_random_state(state)
        if generator is None:
            _forget_global_generator()
        if feed is not None:
            pipelines.set_epoch(data, epoch)


def _forget_global_generator() -> None:
    """A generator that was made meanwhile would have taken its seed from Python's state, which is put back."""
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)


def probe_of(model: keras.Model, images: Any) -> keras.Model:
    """A model of the same layers and weights that can be compiled and trained without touching `model`'s compilation.

    Args:
        model: Compiled or not.
        images: A batch, for models that do not know the shape of their input.
    """
    if getattr(model, "inputs", None):
        inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs  # a list of one makes Keras warn, on JAX
        return keras.Model(inputs, model.outputs, name="probe")
    inputs = keras.Input(images.shape[1:], dtype=keras.backend.standardize_dtype(images.dtype))
    return keras.Model(inputs, model(inputs), name="probe")


def optimizer_like(model: keras.Model) -> keras.optimizers.Optimizer:
    """An optimizer set up as the model's own, without its memory; AdamW for a model that is not compiled."""
    own: Any = getattr(model, "optimizer", None)
    while getattr(own, "inner_optimizer", None) is not None:  # scaling the loss is not the question here
        own = own.inner_optimizer
    if own is None or hasattr(own, "optimizers"):
        return keras.optimizers.AdamW()
    config = own.get_config()
    if not isinstance(config.get("learning_rate"), float):
        config["learning_rate"] = 1e-3  # a schedule would change the rate by itself
    return type(own).from_config(config)


def loss_for(model: keras.Model, labels: Any) -> Any:
    """The loss the model is compiled with, or the cross-entropy that fits the labels."""
    if getattr(model, "compiled", False):
        return model.loss
    return "categorical_crossentropy" if len(labels.shape) == 2 else "sparse_categorical_crossentropy"

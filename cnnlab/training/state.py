"""What a training step changes, taken out of a model and put back bit for bit: weights, optimizer, random state."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab import pipelines
from cnnlab._upstream import forget_global_generator, global_generator, make_global_generator
from cnnlab.models.naming import is_built
from cnnlab.training.batches import repeated, source_of

Arrays = list[np.ndarray]


def values_of(variables: Sequence[Any]) -> Arrays:
    """A copy of each variable as a numpy array."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Puts values into variables of the same shapes."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


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
        generator = make_global_generator()
        generator.state.assign(np.array(state["keras"], generator.state.dtype))


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Whatever the block draws at random is undone."""
    state, generator = random_state(), global_generator()
    try:
        yield
    finally:
        set_random_state(state)
        if generator is None:
            forget_global_generator()


@contextmanager
def untouched(model: keras.Model, data: Any = None) -> Iterator[None]:
    """Whatever the block does to the model's variables, to random state and to the data's count of epochs is undone.

    A network that is built only when it sees images is built here, as the first step of training would do it.
    """
    source = source_of(data)
    epoch = source.next_epoch if source is not None else 0
    try:
        if not is_built(model):
            model(next(repeated(data))[0][:1])
        variables = [*model.variables, *model.metrics_variables]
        before = values_of(variables)
        try:
            with random_state_kept():
                yield
        finally:
            assign(variables, before)
    finally:
        if source is not None:
            pipelines.set_epoch(data, epoch)

"""What every builder of a network here does: check its arguments, take raw pixels, end in one probability per class."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
from keras import layers

from cnnlab._common import is_number
from cnnlab.images import Preparation
from cnnlab.models.metadata import Metadata, tagged


@contextmanager
def channels_last() -> Iterator[None]:
    """Builds with channels last whatever `keras.config` says, since that is how images come; layers remember it."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def checked_classes(classes: Sequence[str], *, caller: str) -> tuple[str, ...]:
    """The class names as text; refuses a count, one class, or a name that occurs twice."""
    if isinstance(classes, str | int) or not hasattr(classes, "__iter__"):
        raise TypeError(
            f"`{caller}` expects `classes` to be the names of the classes, such as "
            f"`table['label'].cat.categories`. Received: {classes!r}."
        )
    names = tuple(map(str, classes))
    if len(names) < 2 or len(set(names)) < len(names):
        received = f"{len(names)} names, {', '.join(map(repr, names[:10]))}{', …' * (len(names) > 10)}"
        raise ValueError(
            f"`{caller}` expects at least two classes of different names, such as `table['label'].cat.categories`. "
            f"Received {received}."
        )
    return names


def checked_dropout(dropout: float, *, caller: str) -> float:
    """A share of features, from 0 to below 1."""
    if is_number(dropout) and dropout < 1:
        return float(dropout)
    raise ValueError(f"`{caller}` expects `dropout` from 0 to below 1. Received: {dropout!r}.")


def image_input(prepared: Preparation) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input of a network, and what its first layer gets: raw pixels 0-255, of the channels that it takes."""
    inputs = keras.Input((*prepared.image_size, prepared.channels), name="image")
    if prepared.channels == 3:
        return inputs, inputs
    # Of one channel the mean is that channel. Keras also lets colour batches in here, as `pipelines.load` makes them
    # without `like=`; they become grey instead of ending in a message about axes.
    return inputs, keras.ops.mean(inputs, axis=-1, keepdims=True)


def classifier(
    inputs: Any, features: keras.KerasTensor, metadata: Metadata, *, dropout: float, name: str
) -> keras.Model:
    """A model from its inputs to one probability per class, by dropout and a Dense layer on the features."""
    x = layers.Dropout(dropout, name="dropout")(features)
    outputs = layers.Dense(len(metadata.classes), activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, tagged(outputs, metadata), name=name)

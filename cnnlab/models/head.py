"""The two ends that every network here shares: raw pixels in, one probability per class out."""

from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
from keras import layers

from cnnlab.images import Preparation
from cnnlab.models.metadata import Metadata, tagged


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

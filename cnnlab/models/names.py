"""Class names that travel inside a model and survive saving, loading and cloning with plain Keras.

Keras has no place for them, and a layer of our own would make every saved model unreadable without cnnlab. A
`Dropout` of rate 0 passes its input through and never draws, so the `seed` in its configuration is free to carry the
names: built-in layers only, any Keras 3 loads it, safe mode stays on.
"""

from collections.abc import Sequence

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

NAME_TAG = "class_names"


def with_class_names(probabilities: keras.KerasTensor, classes: Sequence[str]) -> keras.KerasTensor:
    """Tags the output of a model that is being built with the names of its classes."""
    return keras.layers.Dropout(0.0, seed=[str(name) for name in classes], name=NAME_TAG)(probabilities)


def class_names(model: keras.Model) -> list[str]:
    """Names of the classes that a model of this package tells apart, in the order of its outputs.

    Args:
        model: Built by `models.small_cnn` or `models.pretrained`, or loaded from a file of such a model.

    Raises:
        ValueError: If the model carries no names.

    Example:
        >>> from cnnlab import models
        >>> models.class_names(models.small_cnn(image_size=(8, 8), classes=["cat", "dog"]))
        ['cat', 'dog']
    """
    for layer in getattr(model, "layers", []):
        if layer.name == NAME_TAG and isinstance(layer, keras.layers.Dropout):
            return list(layer.seed)
    raise ValueError(
        f"Expected a model that carries its class names, as those of `cnnlab.models` do. {model.name!r} carries none. "
        "Build it with `models.small_cnn(…, classes=…)` or `models.pretrained(…)`."
    )


def checked_classes(classes: Sequence[str], *, caller: str) -> list[str]:
    """The class names as a list of text; refuses a count, one class, or a name that occurs twice.

    Raises:
        TypeError: If `classes` is no sequence of names.
        ValueError: If there are fewer than two, or two are equal.
    """
    if isinstance(classes, str | int) or not hasattr(classes, "__iter__"):
        raise TypeError(
            f"`{caller}` expects `classes` to be the names of the classes, such as "
            f"`table['label'].cat.categories`. Received: {classes!r}."
        )
    names = [str(name) for name in classes]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"`{caller}` expects at least two classes of different names. Received: {names}.")
    return names


def checked_image_size(image_size: Sequence[int], *, caller: str) -> tuple[int, int]:
    """The size as two whole numbers (height, width), both 1 or more.

    Raises:
        ValueError: Otherwise.
    """
    try:
        height, width = (int(side) for side in image_size)
        if (height, width) == tuple(image_size) and height > 0 and width > 0:
            return height, width
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"`{caller}` expects `image_size` as (height, width) in pixels, for example (96, 96). Received: {image_size!r}."
    )


def checked_channels(channels: int, *, caller: str) -> int:
    """The number of colour channels: 1 or 3.

    Raises:
        ValueError: Otherwise.
    """
    if channels not in (1, 3):
        raise ValueError(f"`{caller}` expects `channels` to be 3 (colour) or 1 (grey). Received: {channels!r}.")
    return int(channels)


def checked_share(value: float, *, argument: str, caller: str, one: bool = False) -> float:
    """A share of 0 to below 1; or of 0 to 1, where `one`.

    Raises:
        ValueError: Otherwise.
    """
    if isinstance(value, int | float) and 0 <= value <= 1 and (one or value < 1):
        return float(value)
    raise ValueError(f"`{caller}` expects `{argument}` from 0 to {'1' if one else 'below 1'}. Received: {value!r}.")

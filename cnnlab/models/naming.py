"""Networks of one's own: class names for them, what they must be like, and their outputs as probabilities."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._upstream import call_that_made, operation_of
from cnnlab.images import Preparation
from cnnlab.images.sizing import Resize
from cnnlab.models.building import checked_classes
from cnnlab.models.metadata import (
    ATTRIBUTE,
    TAG,
    Metadata,
    class_names,
    find_metadata,
    input_shape,
    is_tag,
    preparation,
    tagged,
)

PASSING = (keras.layers.Dropout, keras.layers.Identity, keras.layers.Flatten, keras.layers.Reshape)


def with_classes(
    model: keras.Model,
    classes: Sequence[str],
    *,
    resize: Resize | None = None,
    levels: tuple[float, float] | None = None,
    image_size: tuple[int, int] | None = None,
) -> keras.Model:
    """Gives a Keras network of one's own its class names, and says how images are prepared for it.

    From then on everything here takes it. A Sequential or functional network is returned with one more layer, which
    carries this inside every saved file and changes nothing else; it shares layers and weights with `model` and has
    to be compiled again. A network in Python code of its own (a subclass of `keras.Model`) is returned itself, so that
    its own training step still runs; after loading it from a file, name it again.

    Args:
        model: Takes one batch of images of shape (batch, height, width, 3 or 1), with raw pixels 0-255, and returns one
            probability per class (softmax), or of two classes that of the second one (one sigmoid).
        classes: Names of the classes in the order of the outputs, such as `table["label"].cat.categories`.
        resize: How `pipelines.load` brings images to the network's size: `"fit"`, `"pad"` or `"stretch"`.
            Where None, what the network says already, else `"fit"`.
        levels: For images of more than 8 bits: the levels that become black and white. Where None, what the network
            says already.
        image_size: Height and width in pixels, where the network leaves them open.

    Returns:
        A network with names.

    Raises:
        TypeError: If `model` is not a Keras model, or `classes` is a count instead of names.
        ValueError: If the network is not such a one, or has not one output per class.

    Example:
        >>> import keras
        >>> plain = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(),
        ...                           keras.layers.Dense(2, activation="softmax")])
        >>> model = with_classes(plain, ["cat", "dog"])
        >>> model.layers[-1].output is model.output, preparation(model).image_size
        (True, (8, 8))
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`models.with_classes` expects a keras.Model. Received: {type(model).__name__}.")
    said = find_metadata(model, inside=True) or Metadata(classes=())  # a network that is named anew keeps the rest
    asked = Preparation(image_size or (1, 1), resize=resize or said.resize, levels=levels or said.levels)
    names = checked_classes(classes, caller="models.with_classes")
    size = said.image_size if image_size is None else asked.image_size
    if isinstance(model, keras.Sequential) and not model.built and size is not None:
        model.build((None, *size, 3))
    metadata = Metadata(names, asked.resize, asked.levels, *_open_shape(model, size), rates=said.rates)
    count = output_count(model, preparation(model, metadata))
    _require_probabilities(model, count, names, caller="models.with_classes")
    if not _is_plain(model):
        setattr(model, ATTRIBUTE, metadata)
        return model
    outputs = model.outputs[0]
    while is_tag(operation_of(outputs)):  # named before
        outputs = operation_of(outputs).input
    inside = keras.Model(model.inputs[0], outputs).layers  # where a network that it learns from may have a tag, too
    tag = f"{TAG}_{len(inside)}" if any(map(is_tag, inside)) else TAG
    return keras.Model(model.inputs[0], tagged(outputs, metadata, tag), name=model.name)


def is_built(model: keras.Model) -> bool:
    """Whether all variables are there; networks without a given input make them when they see the first images."""
    return model.built and all(layer.built for layer in model.layers)


def _is_plain(model: keras.Model) -> bool:
    """Whether Keras's own classes alone say what the model does: one more layer changes nothing then."""
    return type(model).__module__.split(".")[0] == "keras" and getattr(model, "inputs", None) is not None


def _open_shape(model: keras.Model, size: tuple[int, int] | None) -> tuple[tuple[int, int] | None, int | None]:
    """Size and channels to be remembered: where the network's input says them, they are not."""
    height, width, channels = input_shape(model)
    if height is None or width is None:
        return size, channels or 3
    if size not in (None, (height, width)):
        raise ValueError(
            f"{model.name!r} takes images of {height}×{width} pixels. Received: image_size={size}. Leave it out, or "
            "build the network for that size."
        )
    return ((height, width), channels) if not _is_plain(model) else (None, None)


def require_supported(
    model: keras.Model, *, classes: Sequence[str] | None = None, caller: str = "models.require_supported"
) -> Preparation:
    """Refuses a network that cannot be trained, scored and exported here, before any time is spent on it.

    Args:
        model: Any Keras network.
        classes: The classes it is to tell apart; by default those it carries, if it carries any.
        caller: The public function that asks, for the message.

    Returns:
        How images are prepared for it.

    Raises:
        ValueError: If it does not take one batch of images, or does not return probabilities of these classes.
    """
    metadata = find_metadata(model)
    if classes is None and metadata is not None:
        classes = metadata.classes
    prepared = preparation(model)
    _require_probabilities(model, output_count(model, prepared), classes, caller=caller)
    return prepared


def _require_probabilities(model: keras.Model, count: int, classes: Sequence[str] | None, *, caller: str) -> None:
    if classes is not None and not (count == len(classes) or (count, len(classes)) == (1, 2)):
        raise ValueError(
            f"`{caller}` expects one output per class, or one sigmoid for two. {model.name!r} has {count} outputs for "
            f"{len(classes)} classes: {list(classes)[:20]}."
        )
    activation = last_activation(model)
    wanted = "sigmoid" if count == 1 else "softmax"
    if activation not in (None, wanted):
        several = " Several labels for one image are not supported." if activation == "sigmoid" else ""
        raise ValueError(
            f"`{caller}` expects probabilities: a last layer of {count} with activation={wanted!r}. That of "
            f"{model.name!r} has {activation!r}.{several} Change it, or add `keras.layers.Activation({wanted!r})` and "
            "train with a loss that takes probabilities (without from_logits=True)."
        )


def output_count(model: keras.Model, prepared: Preparation) -> int:
    """How many numbers a model returns for one image; refuses anything but one row of numbers for each."""
    outputs = getattr(model, "outputs", None)
    if outputs is None:  # a network in Python code tells by being called
        outputs = model(np.zeros((1, *prepared.image_size, prepared.channels), np.float32), training=False)
    shapes = [tuple(output.shape) for output in keras.tree.flatten(outputs)]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] is None:
        raise ValueError(
            "Expected a network with one output of shape (batch, classes). "
            f"{model.name!r} returns {', '.join(map(str, shapes))}."
        )
    return int(shapes[0][1])


def before_head(model: keras.Model, *, caller: str) -> Any | None:
    """What the last layer with weights reads, where that is a Dense one that everything goes through; else None.

    Refuses a network that cannot be cut into a body and a head.
    """
    sides = [getattr(model, name, None) or [] for name in ("inputs", "outputs")]
    if [len(side) for side in sides] != [1, 1]:
        received = " and ".join(f"{len(side)} {name}" for side, name in zip(sides, ("inputs", "outputs"), strict=True))
        raise ValueError(
            f"`{caller}` expects a network of one input and one output that Keras can follow from layer to layer, such "
            f"as a functional one. Received {getattr(model, 'name', model)!r} ({type(model).__name__}), with "
            f"{received if any(sides) else 'its layers in Python code'}. Build it with `keras.Model(input, output)`."
        )
    call = call_that_made(sides[1][0])
    while not getattr(call.operation, "weights", []) and len(call.input_tensors) == 1:
        call = call_that_made(call.input_tensors[0])
    return call.input_tensors[0] if isinstance(call.operation, keras.layers.Dense) else None


def last_activation(model: keras.Model) -> str | None:
    """Name of the activation that the outputs come from; None where it cannot be told, or gives numbers of 0-1."""
    if getattr(model, "outputs", None) is None:
        return None
    layer = operation_of(model.outputs[0])
    while isinstance(layer, PASSING) or (isinstance(layer, keras.layers.Activation) and _activation(layer) == "linear"):
        layer = operation_of(layer.input)
    return last_activation(layer) if isinstance(layer, keras.Model) else _activation(layer)


def _activation(layer: Any) -> str | None:
    """Name of a layer's activation, if it is one of Keras's that cannot be taken for softmax or sigmoid."""
    if not isinstance(layer, keras.layers.Dense | keras.layers.Conv2D | keras.layers.Activation):
        return None
    activation = layer.activation
    ours = str(getattr(activation, "__module__", "")).startswith("keras.")
    return activation.__name__ if ours and activation.__name__ not in ("hard_sigmoid", "sparsemax") else None


def ensure_classes(model: keras.Model, classes: Iterable[str] | None, *, caller: str) -> list[str]:
    """The names a model carries; a model without any takes those of the table, in its order, and says so once.

    Raises:
        ValueError: If the model is none for so many classes, or carries others than these.
    """
    names = None if classes is None else tuple(str(name) for name in classes)
    if names is None or find_metadata(model) is not None:
        carried = class_names(model)
        if names not in (None, tuple(carried)):
            raise ValueError(
                f"`{caller}` expects a table with the model's classes, in the model's order: {carried}. Received "
                f"{[*names]}. Use `table['label'].cat.set_categories([...])`, or train a model for these classes."
            )
        return carried
    require_supported(model, classes=names, caller=caller)
    said = replace(find_metadata(model, inside=True) or Metadata(()), classes=names)
    warnings.warn(
        f"{model.name!r} carries no class names: its outputs are taken for the table's classes, in this order: "
        f"{', '.join(names[:20])}, and images are prepared with resize={said.resize!r}. "
        "`models.with_classes(model, names)` says it for good, or says otherwise; a network of Python code has to "
        "be told again after loading.",
        stacklevel=3,
    )
    setattr(model, ATTRIBUTE, said)
    return list(names)


def class_probabilities(model: keras.Model, outputs: Any) -> np.ndarray:
    """What a model answered as one probability per class; of one sigmoid, p, that is 1 - p and p.

    Args:
        model: The network, for the message.
        outputs: Of shape (images, classes), or (images, 1).

    Returns:
        float32, of shape (images, classes).

    Raises:
        ValueError: If these are not probabilities.

    Example:
        >>> import keras
        >>> one = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(),
        ...                         keras.layers.Dense(1, activation="sigmoid")])
        >>> class_probabilities(one, [[0.25]]).tolist()
        [[0.75, 0.25]]
    """
    values = given = np.asarray(outputs, dtype=np.float32)
    if values.ndim == 2 and values.shape[1] == 1:
        values = np.concatenate([1 - values, values], axis=1)
    known = values[~np.isnan(values).any(axis=1)] if values.ndim == 2 else values
    within = values.ndim == 2 and bool(((known >= -1e-4) & (known <= 1 + 1e-4)).all())
    if not within or not np.allclose(known.sum(axis=1), 1, atol=0.02):
        raise ValueError(
            f"Expected one probability per class, 0-1, that sum to 1. {getattr(model, 'name', 'The network')!r} "
            f"returned, for example, {given[:1].round(4).tolist()}. End it with a softmax layer, or one sigmoid "
            "for two classes."
        )
    return values

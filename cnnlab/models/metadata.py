"""What a model says of itself: the names of its classes, and how images are prepared for it.

Both travel inside the model and survive saving, loading and cloning with plain Keras, on every backend. Keras has no
place for them, and a layer of our own would make every saved model unreadable without cnnlab. A `Dropout` of rate 0
passes its input through and never samples, so the `seed` in its configuration is free to carry plain values: built-in
layers only, any Keras 3 loads it, safe mode stays on. `tests/test_models.py` fails should Keras ever change this.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeGuard

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

from cnnlab.images import Preparation
from cnnlab.images.limits import MAX_PIXELS
from cnnlab.images.sizing import Resize

TAG = "class_names"  # of the layer that carries the metadata
ATTRIBUTE = "_cnnlab_metadata"  # of a network in Python code of its own, which cannot carry a layer more


@dataclass(frozen=True)
class Metadata:
    """What a model says of itself; size and channels only where its input leaves them open."""

    classes: tuple[str, ...]
    resize: Resize = "fit"
    levels: tuple[float, float] | None = None
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    rates: dict[str, float] = field(
        default_factory=dict
    )  # by layer: of the dropout inside, which freezing switches off


def tagged(probabilities: keras.KerasTensor, metadata: Metadata, name: str = TAG) -> keras.KerasTensor:
    """The output of a model that is being built, with the metadata attached."""
    # float32, or mixed precision would cast the probabilities back to 16 bits, where small ones vanish
    return keras.layers.Dropout(0.0, seed=_plain(metadata), dtype="float32", name=name)(probabilities)


def is_tag(layer: Any) -> TypeGuard[keras.layers.Dropout]:
    """Whether a layer carries metadata; a second one in a network has a number after its name."""
    return isinstance(layer, keras.layers.Dropout) and layer.name.startswith(TAG)


def _plain(metadata: Metadata) -> dict[str, Any]:
    given = {name: value for name, value in asdict(metadata).items() if value is not None}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def find_metadata(model: Any, *, inside: bool = False) -> Metadata | None:
    """What the model carries, or None; raises ValueError where a file's metadata are damaged.

    With `inside`, also what a network carries that it learns from: its classes are others, its images are not.
    """
    carried = getattr(model, ATTRIBUTE, None)
    if carried is not None:
        return carried
    tag = _tag_of(model, inside=inside)
    if tag is None:
        return None
    return _checked(tag.seed if isinstance(tag.seed, dict) else {"classes": tag.seed}, model)  # a list in version 0.1


def set_preparation(model: keras.Model, prepared: Preparation, classes: Sequence[str]) -> None:
    """Makes a model say that images are prepared otherwise than it said so far, in every file that it is saved to.

    A model without names gets `classes`; one that cannot carry them in a layer says it in this process only.
    """
    metadata = replace(find_metadata(model) or Metadata(tuple(classes)), resize=prepared.resize, levels=prepared.levels)
    if None in input_shape(model)[:2]:
        metadata = replace(metadata, image_size=prepared.image_size, channels=prepared.channels)
    tag = _tag_of(model)
    if tag is None or getattr(model, ATTRIBUTE, None) is not None:
        setattr(model, ATTRIBUTE, metadata)
    if tag is not None:
        tag.seed = _plain(metadata)


def _tag_of(model: Any, *, inside: bool = False) -> keras.layers.Dropout | None:
    """The layer that carries the metadata, also of a network that ends in another; what learns after it has others."""
    parts = getattr(model, "layers", None) or []
    for layer in reversed(parts):
        if is_tag(layer):
            return layer
        if layer.weights and not inside:
            break
    return _tag_of(parts[-1], inside=inside) if parts and isinstance(parts[-1], keras.Model) else None


def _checked(values: dict[str, Any], model: keras.Model) -> Metadata:
    try:
        names, size, channels = values["classes"], values.get("image_size"), values.get("channels")
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"the class names are {names!r:.200}")
        rates = values.get("rates", {})
        if not isinstance(rates, dict) or not all(
            isinstance(rate, int | float) and 0 <= rate < 256 for rate in rates.values()
        ):
            raise ValueError(f"the dropout rates are {rates!r:.200}")
        valid = Preparation(
            (1, 1) if size is None else size,
            3 if channels is None else channels,
            values.get("resize", "fit"),
            values.get("levels"),
        )
        size = None if size is None else valid.image_size
        return Metadata(tuple(names), valid.resize, valid.levels, size, channels, dict(rates))
    except (KeyError, ValueError) as error:
        raise ValueError(f"The model {model.name!r} carries damaged metadata: {error}") from None


def class_names(model: keras.Model) -> list[str]:
    """Names of the classes that a model tells apart, in the order of its outputs.

    Args:
        model: Built by `cnnlab.models`, named by `models.with_classes`, or loaded from a file of such a model.

    Raises:
        ValueError: If the model carries no names.

    Example:
        >>> from cnnlab import models
        >>> models.class_names(models.small_cnn(image_size=(8, 8), classes=["cat", "dog"]))
        ['cat', 'dog']
    """
    metadata = find_metadata(model)
    if metadata is None:
        raise ValueError(
            f"Expected a model that carries its class names. {getattr(model, 'name', model)!r} carries none. Name them "
            "with `model = models.with_classes(model, table['label'].cat.categories)`, in the order of its outputs."
        )
    return list(metadata.classes)


def require_same_order(model: keras.Model, names: Sequence[str], *, name: str) -> None:
    """Refuses labels of classes `names` that are other numbers than the outputs of the network that is to see them."""
    carried = find_metadata(model)
    if carried is not None and list(carried.classes) != list(names) and set(carried.classes) & set(names):
        raise ValueError(
            f"`{name}` is a network for the classes {', '.join(carried.classes[:20])}. The table has "
            f"{', '.join(names[:20])}, so a label would be the number of another class. Use "
            f"`table.assign(label=table['label'].cat.set_categories(models.class_names(model)))`."
        )


def preparation(model: keras.Model, metadata: Metadata | None = None) -> Preparation:
    """How images are prepared for a model: size, channels, resize mode, levels; `pipelines.load(like=model)` does it.

    Args:
        model: Any network for images.
        metadata: What it says of itself, where that is known already.

    Raises:
        ValueError: If the model does not take one batch of images, or leaves their size open and was not told it.

    Example:
        >>> from cnnlab import models
        >>> models.preparation(models.small_cnn(image_size=(8, 8), classes=["cat", "dog"], resize="pad"))
        Preparation(image_size=(8, 8), channels=3, resize='pad', levels=None)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"Expected a keras.Model. Received: {type(model).__name__}.")
    metadata = metadata or find_metadata(model, inside=True) or Metadata(classes=())
    height, width, channels = input_shape(model)
    if height is None or width is None:
        if metadata.image_size is None:
            raise ValueError(
                f"{model.name!r} takes images of any size. Say which: `model = models.with_classes(model, classes, "
                "image_size=(height, width))`."
            )
        height, width = metadata.image_size
    if height * width > MAX_PIXELS:
        raise ValueError(f"{model.name!r} asks for images of {height:,}×{width:,} pixels, more than can be prepared.")
    channels = channels or metadata.channels or 3
    return Preparation((height, width), channels, metadata.resize, metadata.levels)


def input_shape(model: keras.Model) -> tuple[int | None, int | None, int | None]:
    """Height, width and channels of the images that a model takes; None where it leaves one open.

    Raises:
        ValueError: If it takes something else than one batch of images with channels last.
    """
    inputs = getattr(model, "inputs", None)
    if inputs is not None and len(inputs) != 1:
        raise ValueError(f"Expected a network with one input, a batch of images. {model.name!r} has {len(inputs)}.")
    shape: Any = inputs[0].shape if inputs else _shape_of_calls(model)
    if len(shape) != 4 or shape[-1] not in (1, 3, None):
        first = " Here channels seem to come first." if len(shape) == 4 and shape[1] in (1, 3) else ""
        raise ValueError(
            "Expected a network for images of shape (batch, height, width, channels) with 3 channels (colour) or 1 "
            f"(grey). {model.name!r} takes {tuple(shape)}.{first} Build it with keras.Input((height, width, 3)) and "
            "`keras.config.set_image_data_format('channels_last')`."
        )
    return shape[1], shape[2], shape[3]


def _shape_of_calls(model: keras.Model) -> tuple[int | None, ...]:
    """What a network in Python code was built for; all open where it was not called yet."""
    shape = (model.get_build_config() or {}).get("input_shape")
    if isinstance(shape, list | tuple) and all(side is None or isinstance(side, int) for side in shape):
        return tuple(shape)
    return None, None, None, None

"""Networks that have learned before: take one over and give it a new head."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
from keras import layers

from cnnlab._upstream import calls_of, operation_of
from cnnlab.images import Preparation
from cnnlab.images.sizing import Resize
from cnnlab.models import efficientnet_lite
from cnnlab.models.building import channels_last, checked_classes, checked_dropout, classifier, image_input
from cnnlab.models.catalogue import NETWORKS, PREPROCESSING, constructor, require_known
from cnnlab.models.freezing import freeze, random_rates
from cnnlab.models.metadata import Metadata, find_metadata
from cnnlab.models.naming import before_head
from cnnlab.models.weights import load_file, load_imagenet

OURS = {"include_top", "weights", "input_tensor", "input_shape", "pooling", "classes", "classifier_activation", "name"}


@channels_last()
def pretrained(
    name: str,
    *,
    image_size: tuple[int, int],
    classes: Sequence[str],
    weights: str | Path | None = "imagenet",
    channels: int = 3,
    dropout: float = 0.2,
    pyramid: bool | None = None,
    resize: Resize = "fit",
    levels: tuple[float, float] | None = None,
    **options: Any,
) -> keras.Model:
    """A network that has learned ImageNet, with a new head for your classes: hundreds of images do, not millions.

    The preprocessing that its weights expect sits inside: feed it raw pixels 0-255. Everything below the head is frozen
    and stays in inference mode (batch normalisation and dropout, too) until `models.unfreeze` frees some of it. With
    `weights=None` nothing is frozen, since there is nothing worth keeping.

    Args:
        name: "EfficientNetLite0", whose weights come with pip, or any name of `keras.applications`; `models.table()`
            lists them.
        image_size: Height and width in pixels; 32 or more (75 for the Inceptions, 71 for Xception).
        classes: Names of the classes, such as `table["label"].cat.categories`.
        weights: "imagenet", the path of a file with weights of this network, or None to start from scratch.
        channels: 3 for colour, 1 for grey images, which are shown to the network as grey in three colours.
        dropout: Share of features dropped before the last layer while training, 0 to below 1.
        pyramid: Whether the head also gets the network's finer maps, those of twice the resolution of its last ones,
            averaged over each quarter of the image: shape and place as well as meaning. For EfficientNetLite0 1,280 +
            4 × 672 numbers, from which it learns more. Where None, for EfficientNet-Lite, with which that was measured.
        resize: How `pipelines.load(like=model)` brings images to this size: `"fit"`, `"pad"` or `"stretch"`.
        levels: For images of more than 8 bits: the levels that become black and white, such as (0, 4095).
        **options: What the network's own function takes, such as `alpha=0.25` for a narrower MobileNet.

    Returns:
        An uncompiled `keras.Model`: (batch, height, width, channels) of 0-255 in, (batch, classes) of 0-1 out.

    Raises:
        TypeError: If `classes` is a count instead of names, or the network has no such option.
        ValueError: If there is no such network, an argument is out of range, or a weights file is another network's.
        FileNotFoundError: If the weights are neither here nor to be fetched; says which file to put where.

    Source:
        S. Lazebnik, C. Schmid, J. Ponce, "Beyond bags of features: spatial pyramid matching" (2006).

    Example:
        >>> model = pretrained("EfficientNetLite0", image_size=(64, 64), classes=["cat", "dog"])
        >>> model.input_shape, model.output_shape
        ((None, 64, 64, 3), (None, 2))
    """
    require_known(name)
    names = checked_classes(classes, caller="models.pretrained")
    prepared = Preparation(image_size, channels, resize, levels)
    dropout = checked_dropout(dropout, caller="models.pretrained")
    _check_fits(name, prepared.image_size, options)
    backbone = constructor(name)(include_top=False, weights=None, input_shape=(*prepared.image_size, 3), **options)
    if weights == "imagenet":
        load_imagenet(backbone, name, image_size=prepared.image_size, options=options)
    elif weights is not None:
        load_file(backbone, weights, name=name, options=options)
    rates = random_rates(backbone)
    if name in efficientnet_lite.VARIANTS if pyramid is None else pyramid:
        backbone = _with_finer_maps(backbone)
    if weights is not None:
        freeze(backbone)

    inputs, x = image_input(prepared)
    x = _pooled(backbone(_preprocessed(x, NETWORKS[name].preprocessing)))
    metadata = Metadata(names, prepared.resize, prepared.levels, rates=rates)
    return classifier(inputs, x, metadata, dropout=dropout, name=name.lower())


@channels_last()
def reuse(model: keras.Model, *, classes: Sequence[str], dropout: float = 0.2) -> keras.Model:
    """A new network for other classes that starts from what `model` has learned, its last layer replaced.

    A copy is taken over: training the new network leaves `model` as it is. Everything below the new head is frozen and
    stays in inference mode until `models.unfreeze` frees some of it.

    Args:
        model: A trained classifier whose last layer with weights is a `Dense` one, such as those of `cnnlab.models`.
        classes: Names of the new classes.
        dropout: Share of features dropped before the last layer while training, 0 to below 1.

    Returns:
        An uncompiled `keras.Model` with the input of `model` and one probability per new class.

    Raises:
        TypeError: If `classes` is a count instead of names.
        ValueError: If `model` has no `Dense` layer to replace, several inputs or outputs, or its layers in Python code.

    Example:
        >>> from cnnlab import models
        >>> digits = models.small_cnn(image_size=(8, 8), classes=["0", "1", "2"], channels=1)
        >>> models.class_names(models.reuse(digits, classes=["3", "4"]))
        ['3', '4']
    """
    names = checked_classes(classes, caller="models.reuse")
    dropout = checked_dropout(dropout, caller="models.reuse")
    features = before_head(model, caller="models.reuse")
    if features is None:
        last = next((layer.name for layer in reversed(model.layers) if layer.weights), None)
        raise ValueError(
            "`models.reuse` expects a classifier whose last layer with weights is a Dense layer, to replace it. "
            f"Received {model.name!r}, whose last one is {last!r}, or one that not everything goes through."
        )
    while isinstance(operation_of(features), layers.Dropout):
        features = operation_of(features).input
    learned = keras.Model(model.inputs[0], features, name=f"{model.name}_body")
    body = keras.models.clone_model(learned)
    body.set_weights(learned.get_weights())
    metadata = find_metadata(model) or Metadata(())
    rates = metadata.rates | random_rates(body)  # of a network that was frozen before, as well
    metadata = replace(metadata, classes=names, rates=rates)
    freeze(body)
    inputs = keras.Input(model.inputs[0].shape[1:], name="image")
    x = layers.Flatten(name="flatten")(body(inputs)) if len(features.shape) > 2 else body(inputs)
    return classifier(inputs, x, metadata, dropout=dropout, name=f"{model.name}_reused")


def _preprocessed(images: keras.KerasTensor, mode: str) -> keras.KerasTensor:
    """Raw pixels 0-255, grey or colour, as the network's own `preprocess_input` would make them."""
    pixels = PREPROCESSING[mode]
    x = images
    if x.shape[-1] == 1:
        x = layers.Concatenate(name="grey_to_colour")([x, x, x])
    if pixels.blue_first:
        x = keras.ops.flip(x, axis=-1)
    if pixels.scale != 1.0 or pixels.offset != 0.0:
        # in full precision: half of it cannot tell neighbouring pixel values apart
        x = layers.Rescaling(pixels.scale, offset=pixels.offset, dtype="float32", name="rescaling")(x)
    return x


def _with_finer_maps(backbone: keras.Model) -> keras.Model:
    """The network, its last maps of a higher resolution as a second output; itself where it has no others."""
    calls = [call for call in calls_of(backbone) if not isinstance(call.operation, layers.ZeroPadding2D)]
    maps = [call.output_tensors[0] for call in calls if len(call.output_tensors[0].shape) == 4]
    finer = next((found for found in reversed(maps) if found.shape[1] > backbone.output.shape[1]), None)
    return backbone if finer is None else keras.Model(backbone.input, [backbone.output, finer], name=backbone.name)


def _pooled(maps: Any) -> keras.KerasTensor:
    """The means of a network's maps, and of the quarters of its finer ones."""
    whole = layers.GlobalAveragePooling2D(name="global_pool")
    if not isinstance(maps, list):
        return whole(maps)
    return layers.Concatenate(name="pyramid")([whole(maps[0]), _quarters(maps[1])])


def _quarters(maps: keras.KerasTensor) -> keras.KerasTensor:
    """The mean of each quarter of the image; of odd sides the middle belongs to both halves."""
    high, wide = maps.shape[1:3]
    # operations, no layers: these are no maps that `explain.grad_cam` should look at
    means = keras.ops.average_pool(
        maps, (high - high // 2, wide - wide // 2), (high // 2, max(1, wide // 2)), data_format="channels_last"
    )
    return keras.ops.reshape(means, (-1, 4 * maps.shape[-1]))


def _check_fits(name: str, image_size: tuple[int, int], options: dict[str, Any]) -> None:
    smallest = NETWORKS[name].smallest_side
    if min(image_size) < smallest:
        raise ValueError(
            f"`models.pretrained` expects an `image_size` of at least {smallest}×{smallest} pixels for {name}. "
            f"Received: {image_size[0]}×{image_size[1]}. Ask for larger ones: `pipelines.load` enlarges the images."
        )
    possible = sorted(set(inspect.signature(constructor(name)).parameters) - OURS)
    for option, value in options.items():
        if option not in possible:
            raise TypeError(
                f"`models.pretrained` expects only options that {name} has: {', '.join(possible) or 'none'}. "
                f"Received: {option}={value!r}."
            )

"""Networks to train from scratch."""

from collections.abc import Sequence

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
from keras import layers

from cnnlab._common import is_whole
from cnnlab.images import Preparation
from cnnlab.images.sizing import Resize
from cnnlab.models.building import channels_last, checked_classes, checked_dropout, classifier, image_input
from cnnlab.models.metadata import Metadata


@channels_last()
def small_cnn(
    *,
    image_size: tuple[int, int],
    classes: Sequence[str],
    channels: int = 3,
    filters: Sequence[int] = (24, 32, 48, 64),
    batch_norm: bool = True,
    dropout: float = 0.2,
    resize: Resize = "fit",
    levels: tuple[float, float] | None = None,
) -> keras.Model:
    """A small convolutional network that trains in a minute on a laptop, and is the place to learn how they work.

    Blocks of convolution 3×3, batch normalisation, ReLU and pooling; then the strongest response of each feature
    anywhere in the image (global max pooling), dropout, and one probability per class. Rescaling sits inside: feed it
    raw pixels 0-255.

    Args:
        image_size: Height and width in pixels.
        classes: Names of the classes, such as `table["label"].cat.categories`.
        channels: 3 for colour, 1 for grey.
        filters: How many features each block looks for; each block halves height and width while they are 8 or more.
        batch_norm: Whether each convolution is followed by batch normalisation.
        dropout: Share of features dropped before the last layer while training, 0 to below 1.
        resize: How `pipelines.load(like=model)` brings images to this size: `"fit"`, `"pad"` or `"stretch"`.
        levels: For images of more than 8 bits: the levels that become black and white, such as (0, 4095).

    Returns:
        An uncompiled `keras.Model`: (batch, height, width, channels) of 0-255 in, (batch, classes) of 0-1 out.

    Raises:
        TypeError: If `classes` is a count instead of names.
        ValueError: If an argument is out of range.

    Example:
        >>> model = small_cnn(image_size=(28, 28), classes=["cat", "dog"])
        >>> model.output_shape, model.count_params() < 100_000
        ((None, 2), True)
    """
    names = checked_classes(classes, caller="models.small_cnn")
    dropout = checked_dropout(dropout, caller="models.small_cnn")
    prepared = Preparation(image_size, channels, resize, levels)
    _check_filters(filters)
    inputs, x = image_input(prepared)
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(x)
    for number, count in enumerate(filters, start=1):
        x = layers.Conv2D(count, 3, padding="same", use_bias=not batch_norm, name=f"conv_{number}")(x)
        if batch_norm:
            # Keras averages over 100 steps by default, longer than the first epochs of a small data set are.
            x = layers.BatchNormalization(momentum=0.9, name=f"batch_norm_{number}")(x)
        x = layers.Activation("relu", name=f"relu_{number}")(x)
        if min(x.shape[1:3]) >= 8:
            x = layers.MaxPooling2D(2, name=f"pool_{number}")(x)
    x = layers.GlobalMaxPooling2D(name="global_pool")(x)
    return classifier(inputs, x, Metadata(names, prepared.resize, prepared.levels), dropout=dropout, name="small_cnn")


@channels_last()
def residual_cnn(
    *,
    image_size: tuple[int, int],
    classes: Sequence[str],
    channels: int = 3,
    filters: Sequence[int] = (32, 64, 128),
    blocks: int = 2,
    batch_norm: bool = True,
    dropout: float = 0.2,
    resize: Resize = "fit",
    levels: tuple[float, float] | None = None,
) -> keras.Model:
    """A stronger network to train from scratch: deeper than `small_cnn`, with shortcuts that keep depth trainable.

    A first convolution, then one stage for each number of `filters`, each at half the height and width of the one
    before; a stage is a row of residual blocks: normalise, ReLU, convolve, twice, and add what came in. Each block
    starts as if it were not there, so that the network trains with batch normalisation or without. Rescaling sits
    inside: feed it raw pixels 0-255.

    Args:
        image_size: Height and width in pixels.
        classes: Names of the classes, such as `table["label"].cat.categories`.
        channels: 3 for colour, 1 for grey.
        filters: How many features each stage looks for.
        blocks: Residual blocks in each stage.
        batch_norm: Whether batch normalisation precedes each convolution of the blocks.
        dropout: Share of features dropped before the last layer while training, 0 to below 1.
        resize: How `pipelines.load(like=model)` brings images to this size: `"fit"`, `"pad"` or `"stretch"`.
        levels: For images of more than 8 bits: the levels that become black and white, such as (0, 4095).

    Returns:
        An uncompiled `keras.Model`: (batch, height, width, channels) of 0-255 in, (batch, classes) of 0-1 out.

    Raises:
        TypeError: If `classes` is a count instead of names.
        ValueError: If an argument is out of range.

    Source:
        He et al., Identity Mappings in Deep Residual Networks, 2016; Zagoruyko and Komodakis, Wide Residual Networks,
        2016 (the defaults are their WRN-16-2); Zhang et al., Fixup Initialization, 2019, for starting from nothing.

    Example:
        >>> model = residual_cnn(image_size=(28, 28), channels=1, classes=["cat", "dog"])
        >>> model.output_shape, model.count_params() < 800_000
        ((None, 2), True)
    """
    caller = "models.residual_cnn"
    names = checked_classes(classes, caller=caller)
    dropout = checked_dropout(dropout, caller=caller)
    prepared = Preparation(image_size, channels, resize, levels)
    _check_filters(filters)
    if not is_whole(blocks):
        raise ValueError(f"`{caller}` expects `blocks` of 1 or more in each stage. Received: {blocks!r}.")
    inputs, x = image_input(prepared)
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(x)
    x = _convolution(filters[0], name="stem")(x)
    for stage, count in enumerate(filters, start=1):
        for block in range(1, blocks + 1):
            halve = stage > 1 and block == 1 and min(x.shape[1:3]) >= 4
            x = _residual_block(x, count, halve=halve, batch_norm=batch_norm, name=f"stage_{stage}_block_{block}")
    x = _activated(x, batch_norm, name="last")
    x = layers.GlobalAveragePooling2D(name="global_pool")(x)
    return classifier(
        inputs, x, Metadata(names, prepared.resize, prepared.levels), dropout=dropout, name="residual_cnn"
    )


def _residual_block(
    x: keras.KerasTensor, filters: int, *, halve: bool, batch_norm: bool, name: str
) -> keras.KerasTensor:
    shortcut, fresh = x, _activated(x, batch_norm, name=f"{name}_in")
    if halve or x.shape[-1] != filters:
        shortcut = fresh
        if halve:
            shortcut = layers.AveragePooling2D(2, padding="same", name=f"{name}_shortcut_pool")(shortcut)
        shortcut = layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_shortcut")(
            shortcut
        )
    x = _convolution(filters, name=f"{name}_conv_1", strides=2 if halve else 1)(fresh)
    x = _activated(x, batch_norm, name=f"{name}_middle")
    # Zeros: the block adds nothing at first, and deep stacks start as well-behaved as shallow ones.
    x = _convolution(filters, name=f"{name}_conv_2", kernel_initializer="zeros")(x)
    return layers.Add(name=f"{name}_add")([shortcut, x])


def _activated(x: keras.KerasTensor, batch_norm: bool, *, name: str) -> keras.KerasTensor:
    if batch_norm:
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_batch_norm")(x)
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _convolution(filters: int, *, name: str, strides: int = 1, kernel_initializer: str = "he_normal") -> layers.Layer:
    return layers.Conv2D(filters, 3, strides=strides, padding="same", kernel_initializer=kernel_initializer, name=name)


def _check_filters(filters: Sequence[int]) -> None:
    if not filters or any(count < 1 for count in filters):
        raise ValueError(f"`filters` expects one positive number per block. Received: {filters!r}.")

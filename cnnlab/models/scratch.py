"""Networks to train from scratch."""

from collections.abc import Sequence

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
from keras import layers

from cnnlab.models.names import checked_classes, checked_image_size, with_class_names


def small_cnn(
    *,
    image_size: tuple[int, int],
    classes: Sequence[str],
    channels: int = 3,
    filters: Sequence[int] = (24, 32, 48, 64),
    batch_norm: bool = True,
    dropout: float = 0.2,
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
    classes = checked_classes(classes, caller="models.small_cnn")
    height, width = checked_image_size(image_size, caller="models.small_cnn")
    if not filters or any(count < 1 for count in filters):
        raise ValueError(f"`filters` expects one positive number per block. Received: {filters!r}.")
    inputs = keras.Input((height, width, channels), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(inputs)
    for number, count in enumerate(filters, start=1):
        x = layers.Conv2D(count, 3, padding="same", use_bias=not batch_norm, name=f"conv_{number}")(x)
        if batch_norm:
            # Keras averages over 100 steps by default, longer than the first epochs of a small data set are.
            x = layers.BatchNormalization(momentum=0.9, name=f"batch_norm_{number}")(x)
        x = layers.Activation("relu", name=f"relu_{number}")(x)
        if min(x.shape[1:3]) >= 8:
            x = layers.MaxPooling2D(2, name=f"pool_{number}")(x)
    x = layers.GlobalMaxPooling2D(name="global_pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    outputs = layers.Dense(len(classes), activation="softmax", dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, with_class_names(outputs, classes), name="small_cnn")

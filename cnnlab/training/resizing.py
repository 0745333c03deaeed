"""Progressive resizing: learn on small images, which is quick, and go on with larger ones."""

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

from cnnlab.images.preparing import require_image_size


def resized(model: keras.Model, image_size: tuple[int, int]) -> keras.Model:
    """The same network with the same weights for images of another size, to be trained further.

    Convolutions do not ask how large an image is, and global pooling makes one number of each feature whatever its
    size; so what was learned on small images, in a quarter of the time at half the side, is a start for larger ones.
    The model given is left as it is.

    Args:
        model: Takes images; has no layer whose weights depend on their size (such as Flatten before Dense).
        image_size: Height and width in pixels.

    Returns:
        An uncompiled `keras.Model`.

    Raises:
        ValueError: If the network only works at its own size, or `image_size` is none.

    Source:
        Howard and Gugger 2020, "Deep Learning for Coders", chapter 7; Touvron et al. 2019, "Fixing the train-test
        resolution discrepancy".

    Example:
        >>> from cnnlab import models, training
        >>> small = models.small_cnn(image_size=(32, 32), classes=["cat", "dog"])
        >>> training.resized(small, (64, 64)).input_shape
        (None, 64, 64, 3)
    """
    height, width = require_image_size(image_size)
    inputs = keras.Input((height, width, model.input_shape[-1]), name=model.inputs[0].name)
    try:
        larger = keras.models.clone_model(model, input_tensors=inputs)
        larger.set_weights(model.get_weights())
    except ValueError as error:
        raise ValueError(
            f"`training.resized` expects a network that takes images of any size, such as those of `cnnlab.models`. "
            f"{model.name!r} does not take {height}×{width} pixels: {error}"
        ) from error
    return larger

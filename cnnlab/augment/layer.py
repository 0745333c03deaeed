"""A policy as a Keras layer, for augmenting on the device that trains."""

import math
from typing import Any

from cnnlab import _quiet  # noqa: F401  (first, as it silences what the next line imports)

import keras  # isort: skip
import numpy as np
from keras import ops

from cnnlab.augment import effects, pixels, sampling
from cnnlab.augment.sampling import SampledParameters
from cnnlab.augment.settings import Settings


@keras.saving.register_keras_serializable(package="cnnlab")
class PolicyLayer(keras.layers.Layer):
    """Does to a batch what the policy says, while training; hands it through otherwise.

    Written in `keras.ops`: runs with every backend, on the device of the model or inside `dataset.map`. For the same
    sampled parameters its pixels are those of the pipeline, up to rounding. Images come at their final size, so what
    geometry uncovers is filled as the policy says, where the pipeline may still see the photograph's own margin.

    Call it with images of shape (batch, height, width, 3), 0-255; it returns float32 of the same shape and range.

    Args:
        policy: What may happen.
        seed: Any whole number; what is sampled for the n-th batch depends on it and n.
        **kwargs: As for every Keras layer.
    """

    def __init__(self, policy: Settings, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**({"dtype": "float32"} | kwargs))
        self.policy = policy
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # TensorFlow's resampling has no XLA kernel; Keras then leaves the model uncompiled, as for its own layers.
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def call(self, images: Any, training: bool = False) -> Any:
        """Samples and applies, in training only."""
        if not training or not self.policy.operations:
            return images
        shape = (ops.shape(images)[0], len(sampling.COLUMNS))
        uniform = keras.random.uniform(shape, seed=self.seed_generator)
        return self.apply(images, sampling.parameters(self.policy, uniform, ops))

    def apply(self, images: Any, sampled: SampledParameters) -> Any:
        """Does what `policy.sample` returned to images of shape (images, height, width, 3)."""
        images = ops.cast(images, "float32")
        sampled = {name: ops.cast(values, "float32") for name, values in sampled.items()}
        height, width = images.shape[1:3]
        matrices = effects.matrices(sampled, (height, width), ops)
        if matrices is not None:
            images = _resample(images, matrices, self.policy.fill)
        kernels = effects.blur_kernels(sampled, self.policy.blur, ops)
        if kernels is not None:
            images = _blur(_blur(images, kernels, axis=1), kernels, axis=2)
        images = self._colour(images, sampled)
        erasures = effects.erasures(sampled, (height, width), ops)
        return images if erasures is None else _erase(images, erasures)

    def _colour(self, images: Any, sampled: SampledParameters) -> Any:
        found = effects.colours(sampled, ops)
        if found is not None:
            matrix, gain, offset = found
            if matrix is not None:
                # A sum, as accelerators round what a matrix product multiplies.
                parts = [images[..., c, None] * matrix[:, None, None, :, c] for c in range(3)]
                images = parts[0] + parts[1] + parts[2]
            images = images * gain[:, None, None, None] + offset[:, None, None, None]
            if matrix is not None or "noise" not in sampled:
                images = ops.clip(images, 0.0, 255.0)
        if "noise" in sampled:
            images = ops.clip(images + self._noise(sampled, images.shape[1:]), 0.0, 255.0)
        return images

    def _noise(self, sampled: SampledParameters, shape: tuple[int, ...]) -> Any:
        length = math.prod(shape)
        starts = ops.cast(sampled["noise_at"], "int32")
        places = starts[:, None] + ops.arange(length, dtype="int32")[None, :]
        pattern = ops.take(ops.convert_to_tensor(pixels.noise_bank(length)), places)
        pattern = (ops.cast(pattern, "float32") - pixels.BANK_ZERO) / pixels.BANK_STEP
        return ops.reshape(pattern, (-1, *shape)) * sampled["noise"][:, None, None, None]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape stays."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What a saved model needs to make the layer again."""
        return super().get_config() | {"policy": self.policy.settings, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PolicyLayer":
        """Makes the layer that `get_config` described."""
        return cls(Settings(**config.pop("policy")), **config)


def _resample(images: Any, matrices: Any, fill: str) -> Any:
    """Each pixel of the result from the four around its place in the image, which the affine map says."""
    if keras.backend.backend() == "tensorflow":  # its own kernel is faster than taking pixels one by one
        matrices = ops.pad(matrices, [[0, 0], [0, 2]])
        return ops.image.affine_transform(images, matrices, fill_mode=fill, data_format="channels_last")
    height, width, channels = images.shape[1:]
    y, x = ops.arange(height, dtype="float32")[:, None], ops.arange(width, dtype="float32")[None, :]
    a, b, c, d, e, f = (matrices[:, column, None, None] for column in range(6))
    from_x, from_y = a * x + b * y + c, d * x + e * y + f
    left, top = ops.floor(from_x), ops.floor(from_y)
    pixels = ops.reshape(images, (-1, channels))
    first = ops.arange(ops.shape(images)[0], dtype="int32")[:, None, None] * (height * width)
    total = 0.0
    for row, share_y in ((top, 1 - (from_y - top)), (top + 1, from_y - top)):
        for column, share_x in ((left, 1 - (from_x - left)), (left + 1, from_x - left)):
            share = share_y * share_x
            if fill == "constant":
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                share = ops.where(inside, share, 0.0)
            place = first + _within(row, height, fill) * width + _within(column, width, fill)
            total = total + ops.take(pixels, place, axis=0) * share[..., None]
    return total


def _within(place: Any, length: int, fill: str) -> Any:
    """Whole places beyond an edge as the ones inside that they show."""
    if fill == "reflect":
        place = ops.mod(place, 2.0 * length)
        place = ops.minimum(place, 2 * length - 1 - place)
    return ops.cast(ops.clip(place, 0, length - 1), "int32")


def _blur(images: Any, kernels: Any, *, axis: int) -> Any:
    """Weighted sum of shifted copies: every image has a kernel of its own, which no convolution offers."""
    size = kernels.shape[-1]
    padding = [[0, 0]] * 4
    padding[axis] = [size // 2, size // 2]
    length = images.shape[axis]
    padded = ops.pad(images, padding, mode="reflect")
    take = [slice(None)] * 4
    total = 0.0
    for shift in range(size):
        take[axis] = slice(shift, shift + length)
        total = total + padded[tuple(take)] * kernels[:, shift, None, None, None]
    return total


def _erase(images: Any, erasures: Any) -> Any:
    left, top, right, bottom = (erasures[:, side, None, None, None] for side in range(4))
    y = ops.cast(np.arange(images.shape[1])[None, :, None, None], "float32")
    x = ops.cast(np.arange(images.shape[2])[None, None, :, None], "float32")
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    return ops.where(inside, float(pixels.ERASED), images)

"""`Policy`: one immutable description of what may happen to an image; and policies to start from."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlab._common import is_number
from cnnlab.augment import pixels, sampling, words
from cnnlab.augment.sampling import SampledParameters
from cnnlab.augment.settings import Settings

if TYPE_CHECKING:
    from cnnlab.augment.layer import PolicyLayer


class Policy(Settings):
    """What may happen to a training image; every image gets its own values, every epoch new ones.

    All values are limits: `rotate=10` turns each image by an angle between -10 and 10 degrees. Zero, the default,
    switches an operation off. Geometry happens first, then blur, colour, noise, erasing, mixing. The policy only
    describes; `pipelines.load(table, ..., augment=policy)` carries it out in a `tf.data.Dataset`, `policy.layer()`
    on the device, `plots.augmentations(table, policy)` shows it.

    Args:
        flip: `"horizontal"` mirrors left and right, `"vertical"` top and bottom, `"both"` each of them; with
            probability one half each.
        rotate: Degrees, 0 to 180, either way.
        zoom: 0.1 shows the picture at 0.9 to 1.1 times its size.
        shift: Fraction of width and height, either way.
        shear: Degrees, 0 to 60, either way.
        crop: Largest share of the area that may be cut away; the rest, of an aspect between 3:4 and 4:3, is
            stretched to the full size (the "random resized crop").
        brightness: Fraction of the range 0-255 that is added or taken away.
        contrast: 0.2 multiplies the distance from middle grey by 0.8 to 1.2.
        saturation: 0.2 multiplies the distance from the pixel's own grey by 0.8 to 1.2.
        hue: Fraction of the colour circle, 0 to 0.5, either way.
        grayscale: Probability that the colours are removed.
        blur: Largest standard deviation of a Gaussian blur, in pixels of the result.
        noise: Largest standard deviation of Gaussian noise, in grey levels.
        erase: Largest share of the area that one grey rectangle hides.
        mixup: Alpha of the Beta distribution that blends two images and their labels; labels become one-hot.
        cutmix: Alpha of the Beta distribution of the area that is replaced by another image; labels become one-hot.
        fill: What appears where the picture ends: `"reflect"`, `"nearest"` or `"constant"` (black).
        pick: At most this many of the operations, sampled for every image, are applied; None applies all.

    Raises:
        ValueError: If a value is outside its range, or a name is unknown.
        TypeError: If a value is of the wrong type.

        >>> Policy(flip="horizontal", rotate=10) | Policy(noise=4)
        Policy(flip='horizontal', rotate=10, noise=4)
    """

    def sample(
        self, rows: int | np.ndarray, *, seed: int, epoch: int = 0, repeats: np.ndarray | int = 0
    ) -> SampledParameters:
        """Samples the parameters of many images: one array of shape (images,) per parameter.

        Those of an image depend on (`seed`, `epoch`, its row) alone: not on the other images, nor the other operations
        of the policy, nor on threads or processes.

        Args:
            rows: How many images, or an integer array with the rows of the images in their table.
            seed: Any whole number.
            epoch: Number of the epoch, from 0.
            repeats: How often each row came before in the epoch, where rows of rare classes come several times.

        >>> Policy(rotate=10).sample(3, seed=0)["rotate"].round(2)
        array([...])
        """
        rows = np.arange(rows) if isinstance(rows, int | np.integer) else np.asarray(rows)
        uniform = sampling.uniforms(seed, epoch, rows, repeats)
        return sampling.parameters(self, uniform, np) | sampling.mixing_shares(self, uniform)

    def describe(self, sampled: SampledParameters) -> list[str]:
        """What was sampled for each image, in words.

        >>> policy = Policy(rotate=10)
        >>> policy.describe(policy.sample(2, seed=0))
        ['rotate ...°', 'rotate ...°']
        """
        return words.describe(self.operations, sampled)

    def apply(self, images: np.ndarray, sampled: SampledParameters) -> np.ndarray:
        """Transforms images at the size they have; mixing, which needs labels, excepted.

        Args:
            images: uint8, 0-255, of shape (images, height, width, 3).
            sampled: What `sample` returned for as many images.

        Returns:
            uint8, of the same shape.
        """
        return pixels.apply(self, images, sampled)

    def mix(self, images: np.ndarray, labels: np.ndarray, sampled: SampledParameters) -> tuple[np.ndarray, np.ndarray]:
        """Blends each image with the one before it in the batch, as sampled for `mixup` and `cutmix`.

        Args:
            images: uint8, 0-255, of shape (images, height, width, 3).
            labels: One-hot, of shape (images, classes).
            sampled: What `sample` returned for as many images.

        Returns:
            Images, and labels whose parts are the shares of the classes, of the same shapes.
        """
        return pixels.mix(images, labels, sampled) if self.mixes else (images, labels)

    def layer(self, *, seed: int | None = None) -> "PolicyLayer":
        """The policy as a Keras layer that augments on the device, in training only.

        On a GPU put it first in the model; on a CPU the pipeline is several times faster.

        Args:
            seed: Any whole number.

        Raises:
            ValueError: If the policy mixes images, since a layer does not see their labels.
        """
        if self.mixes:
            raise ValueError(
                "A layer cannot do `mixup` or `cutmix`, because it does not see the labels. Use the policy in "
                f"pipelines.load(..., augment=policy), or leave them out. Received: {self!r}."
            )
        from cnnlab.augment.layer import PolicyLayer

        return PolicyLayer(self, seed=None if seed is None else int(seed))

    def transform(self, sampled: SampledParameters, image_size: tuple[int, int]) -> pixels.Transform:
        """What `pipelines` calls per image: a function (index, image, out, base) that writes the result to `out`."""
        return pixels.Transform(self, sampled, image_size)

    def draw(self, rows: int | np.ndarray, **options: Any) -> SampledParameters:
        """The former name of `sample`, for one version more."""
        warnings.warn("`policy.draw` is now `policy.sample`.", DeprecationWarning, stacklevel=2)
        return self.sample(rows, **options)


# Photographs of things without an up and down of their own, nor a left and right: check with `augment.check`.
light = Policy(flip="horizontal", shift=0.05, zoom=0.05, brightness=0.05)
medium = Policy(
    flip="horizontal", rotate=10, zoom=0.1, shift=0.1, brightness=0.1, contrast=0.1, saturation=0.1, noise=4
)
strong = Policy(
    flip="horizontal", rotate=20, zoom=0.2, shift=0.1, shear=10, brightness=0.2, contrast=0.3, saturation=0.3, hue=0.03,
    blur=1.0, noise=10, erase=0.2,
)  # fmt: skip


def rand(magnitude: float = 5, *, count: int = 2) -> Policy:
    """A policy in the manner of RandAugment: each image gets a few operations, sampled from many of one strength.

    One number to tune instead of a dozen. Differs from the paper in that strengths are sampled up to the limit, and
    posterising, solarising and equalising are left out.

    Args:
        magnitude: 0 (nothing) to 10 (as far as labels usually survive).
        count: How many operations an image gets.

    Raises:
        ValueError: If `magnitude` is outside 0 to 10, or `count` below 1.

    Source: Cubuk, Zoph, Shlens and Le, "RandAugment: practical automated data augmentation with a reduced search
    space", 2020.

        >>> rand(5).pick
        2
    """
    if not is_number(magnitude, most=10):
        raise ValueError(f"`magnitude` must be a number from 0 to 10. Received: magnitude={magnitude!r}.")
    full = {
        "rotate": 30, "shear": 17, "shift": 0.3, "zoom": 0.3, "brightness": 0.4, "contrast": 0.8, "saturation": 0.8,
        "hue": 0.1, "blur": 2.0, "noise": 20, "erase": 0.3,
    }  # fmt: skip
    scaled = {name: round(limit * magnitude / 10, 4) for name, limit in full.items()}
    return Policy(flip="horizontal" if magnitude else None, pick=count, **scaled)  # type: ignore[arg-type]

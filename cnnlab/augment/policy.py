"""`Policy`: one immutable description of what may happen to an image."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cnnlab.augment import draws, mixing, pixels, words

if TYPE_CHECKING:
    from cnnlab.augment.layer import PolicyLayer

Fill = Literal["reflect", "nearest", "constant"]

# name: (largest value, unit, what a sensible value looks like); zero means off for all of them.
RANGES: dict[str, tuple[float, str, str]] = {
    "rotate": (180.0, "degrees", "rotate=10"),
    "zoom": (0.9, "a fraction of the image's size", "zoom=0.1"),
    "shift": (0.9, "a fraction of the image's size", "shift=0.1"),
    "shear": (60.0, "degrees", "shear=5"),
    "crop": (0.95, "the largest share of the area that is cut away", "crop=0.3"),
    "brightness": (1.0, "a fraction of the full range of grey levels", "brightness=0.2"),
    "contrast": (1.0, "a fraction", "contrast=0.2"),
    "saturation": (1.0, "a fraction", "saturation=0.2"),
    "hue": (0.5, "a fraction of the colour circle", "hue=0.05"),
    "grayscale": (1.0, "a probability", "grayscale=0.1"),
    "blur": (8.0, "the largest standard deviation in pixels", "blur=1.0"),
    "noise": (128.0, "the largest standard deviation in grey levels (0-255)", "noise=4"),
    "erase": (0.9, "the largest share of the area", "erase=0.2"),
    "mixup": (10.0, "the alpha of a Beta distribution", "mixup=0.2"),
    "cutmix": (10.0, "the alpha of a Beta distribution", "cutmix=1.0"),
}
FLIPS = (None, "horizontal", "vertical", "both")
FILLS = ("reflect", "nearest", "constant")
GEOMETRY = ("rotate", "zoom", "shift", "shear", "crop")
MIXERS = ("mixup", "cutmix")


@dataclass(frozen=True, repr=False)
class Policy:
    """What may happen to a training image; every image draws its own values, every epoch new ones.

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
        pick: At most this many of the operations, drawn anew for every image, are applied; None applies all.

    Raises:
        ValueError: If a value is outside its range, or a name is unknown.
        TypeError: If a value is of the wrong type.

        >>> Policy(flip="horizontal", rotate=10) | Policy(noise=4)
        Policy(flip='horizontal', rotate=10, noise=4)
    """

    flip: Literal["horizontal", "vertical", "both"] | None = None
    rotate: float = 0
    zoom: float = 0
    shift: float = 0
    shear: float = 0
    crop: float = 0
    brightness: float = 0
    contrast: float = 0
    saturation: float = 0
    hue: float = 0
    grayscale: float = 0
    blur: float = 0
    noise: float = 0
    erase: float = 0
    mixup: float = 0
    cutmix: float = 0
    fill: Fill = "reflect"
    pick: int | None = None

    def __post_init__(self) -> None:
        _require_choice("flip", self.flip, FLIPS)
        _require_choice("fill", self.fill, FILLS)
        for name in RANGES:
            _require_number(name, getattr(self, name))
        if self.pick is not None and (isinstance(self.pick, bool) or not isinstance(self.pick, int) or self.pick < 1):
            raise ValueError(
                f"`pick` must be a whole number of operations from 1, or None for all. Received: {self.pick!r}."
            )

    def __repr__(self) -> str:
        return f"Policy({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from doing nothing, as plain values: `Policy(**policy.settings)` is the policy again."""
        values = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {field.name: value for field, value in values if value != field.default}

    def __or__(self, other: "Policy") -> "Policy":
        """Both policies in one; where both set the same operation, the right one counts."""
        if not isinstance(other, Policy):
            return NotImplemented
        return dataclasses.replace(self, **other.settings)

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations that are switched on, in the order of the arguments.

        >>> Policy(noise=4, flip="horizontal").operations
        ('flip', 'noise')
        """
        return tuple(name for name in ("flip", *RANGES) if getattr(self, name))

    @property
    def mixes(self) -> bool:
        """Whether images are blended with others, so that labels become one-hot."""
        return any(getattr(self, name) for name in MIXERS)

    @property
    def moves(self) -> bool:
        """Whether pixels change place, mirroring apart, so that images are resampled once, straight to their size."""
        return any(getattr(self, name) for name in GEOMETRY)

    @property
    def magnification(self) -> float:
        """The strongest enlargement that may happen: pixels beyond target size × this are never needed."""
        crop = 1 / math.sqrt((1 - self.crop) * draws.CROP_ASPECT[0]) if self.crop else 1.0
        return (1 + self.zoom) * crop

    def only(self, operation: str) -> "Policy":
        """The policy with one operation left.

        >>> Policy(flip="horizontal", rotate=10, fill="nearest").only("rotate")
        Policy(rotate=10, fill='nearest')
        """
        if operation not in self.operations:
            raise ValueError(
                f"`operation` must be one that the policy uses: {', '.join(self.operations) or 'it uses none'}. "
                f"Received: {operation!r}."
            )
        return Policy(**{operation: getattr(self, operation), "fill": self.fill})

    def draw(self, rows: int | np.ndarray, *, seed: int, epoch: int = 0, repeats: np.ndarray | int = 0) -> draws.Draws:
        """Draws the parameters of many images: one array of shape (images,) per parameter.

        The draws of an image depend on (`seed`, `epoch`, its row) alone: not on the other images, nor the other
        operations of the policy, nor on threads or processes.

        Args:
            rows: How many images, or an integer array with the rows of the images in their table.
            seed: Any whole number.
            epoch: Number of the epoch, from 0.
            repeats: How often each row came before in the epoch, where rows of rare classes come several times.

        >>> Policy(rotate=10).draw(3, seed=0)["rotate"].round(2)
        array([...])
        """
        rows = np.arange(rows) if isinstance(rows, int) else np.asarray(rows)
        uniform = draws.uniforms(seed, epoch, rows, repeats)
        return draws.parameters(self, uniform, np) | mixing.shares(self, uniform)

    def describe(self, drawn: draws.Draws) -> list[str]:
        """What was drawn for each image, in words.

        >>> policy = Policy(rotate=10)
        >>> policy.describe(policy.draw(2, seed=0))
        ['rotate ...°', 'rotate ...°']
        """
        return words.describe(self.operations, drawn)

    def apply(self, images: np.ndarray, drawn: draws.Draws) -> np.ndarray:
        """Does to images what was drawn, at the size they have; mixing, which needs labels, excepted.

        Args:
            images: uint8, 0-255, of shape (images, height, width, 3).
            drawn: What `draw` returned for as many images.

        Returns:
            uint8, of the same shape.
        """
        return pixels.apply(self, images, drawn)

    def mix(self, images: np.ndarray, labels: np.ndarray, drawn: draws.Draws) -> tuple[np.ndarray, np.ndarray]:
        """Blends each image with the one before it in the batch, as drawn by `mixup` and `cutmix`.

        Args:
            images: uint8, 0-255, of shape (images, height, width, 3).
            labels: One-hot, of shape (images, classes).
            drawn: What `draw` returned for as many images.

        Returns:
            Images, and labels whose parts are the shares of the classes, of the same shapes.
        """
        return mixing.mix(self, images, labels, drawn) if self.mixes else (images, labels)

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

        return PolicyLayer(self, seed=seed)

    def brush(self, drawn: draws.Draws, image_size: tuple[int, int]) -> Callable[..., np.ndarray]:
        """What `pipelines` calls per image: a function (index, image, base matrix, out) that paints into `out`."""
        return pixels.Brush(self, drawn, image_size)


def _require_choice(name: str, value: object, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}.")


def _require_number(name: str, value: object) -> None:
    largest, unit, example = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(
            f"`{name}` must be a number from 0 to {largest:g} ({unit}). Received: {name}={value!r}. "
            f"Use for example {example}."
        )
    if not 0 <= value <= largest:  # also false for nan
        raise ValueError(
            f"`{name}` must be between 0 (off) and {largest:g}: it is {unit}. "
            f"Received: {name}={value!r}. Use for example {example}."
        )

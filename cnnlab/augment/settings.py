"""What a policy may be set to: names, ranges, defaults, and what follows from them."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from cnnlab._common import is_whole

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
CROP_ASPECT = (3 / 4, 4 / 3)  # the narrowest and the widest crop


@dataclass(frozen=True, repr=False, eq=False)
class Settings:
    """The numbers of a `Policy`, which says what each of them means; checked, and never changed."""

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
        if self.pick is not None and not is_whole(self.pick):
            raise ValueError(
                f"`pick` must be a whole number of operations from 1, or None for all. Received: {self.pick!r}."
            )
        for name in (*RANGES, "pick"):  # as Python's own, so that the same settings are the same policy
            if isinstance(value := getattr(self, name), np.generic):
                object.__setattr__(self, name, value.item())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from doing nothing, as plain values: `Policy(**policy.settings)` is the policy again."""
        values = ((field, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {field.name: value for field, value in values if value != field.default}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and self.settings == other.settings

    def __hash__(self) -> int:
        return hash(tuple(self.settings.items()))

    def __or__(self, other: Self) -> Self:
        """Both in one; where both set the same operation, the right one counts.

        To switch one off, use `dataclasses.replace(policy, flip=None)`: what is off on the right changes nothing.
        """
        if not isinstance(other, Settings):
            return NotImplemented
        return dataclasses.replace(self, **other.settings)

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations that are switched on, in the order of the arguments.

        >>> Settings(noise=4, flip="horizontal").operations
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
        crop = 1 / math.sqrt((1 - self.crop) * CROP_ASPECT[0]) if self.crop else 1.0
        return (1 + self.zoom) * crop

    def only(self, operation: str) -> Self:
        """The policy with one operation left.

        >>> Settings(flip="horizontal", rotate=10, fill="nearest").only("rotate")
        Settings(rotate=10, fill='nearest')
        """
        if operation not in self.operations:
            raise ValueError(
                f"`operation` must be one that the policy uses: {', '.join(self.operations) or 'it uses none'}. "
                f"Received: {operation!r}."
            )
        return type(self)(**{operation: getattr(self, operation), "fill": self.fill})


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

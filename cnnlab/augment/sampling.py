"""Samples what happens to each image, apart from doing it: plain arrays, reproducible in any order.

Functions that take `xp` work with numpy and with `keras.ops` alike, so that pipeline and layer share them.
"""

import math
from types import ModuleType
from typing import Any

import numpy as np

from cnnlab.augment.settings import CROP_ASPECT, Settings

SampledParameters = dict[str, Any]  # parameter: array of shape (images,)

# One column of uniform numbers per random choice. Each operation owns its columns, so that switching one on
# leaves the numbers of all others as they were. Append only: a new order would change everybody's images.
COLUMNS = (
    "flip_x", "flip_y", "rotate", "zoom", "shift_x", "shift_y", "shear", "crop_area", "crop_aspect", "crop_x",
    "crop_y", "brightness", "contrast", "saturation", "hue", "grayscale", "blur", "noise", "noise_at", "noise_sign",
    "erase_area", "erase_aspect", "erase_x", "erase_y", "mix", "mix_kind", "mix_x", "mix_y", "pick_flip",
    "pick_rotate", "pick_zoom", "pick_shift", "pick_shear", "pick_crop", "pick_brightness", "pick_contrast",
    "pick_saturation", "pick_hue", "pick_grayscale", "pick_blur", "pick_noise", "pick_erase",
)  # fmt: skip
COLUMN = {name: index for index, name in enumerate(COLUMNS)}
ERASE_ASPECT = (1 / 3, 3.0)
NOISE_PLACES = 1 << 20  # at so many places the bank of noise may be cut

# Parameters sampled around a middle: the operation whose value is the reach, its unit, and the middle (no effect).
AROUND: dict[str, tuple[str, int, float]] = {
    "rotate": ("rotate", 1, 0.0),
    "zoom": ("zoom", 1, 1.0),
    "shift_x": ("shift", 1, 0.0),
    "shift_y": ("shift", 1, 0.0),
    "shear": ("shear", 1, 0.0),
    "brightness": ("brightness", 255, 0.0),
    "contrast": ("contrast", 1, 1.0),
    "saturation": ("saturation", 1, 1.0),
    "hue": ("hue", 1, 0.0),
}


def uniforms(seed: int, epoch: int, rows: np.ndarray, repeats: np.ndarray | int = 0) -> np.ndarray:
    """Uniform numbers in [0, 1), shape (images, len(COLUMNS)), that depend on (seed, epoch, row, repeat) alone.

    Every number is a hash of its coordinates: a generator per image would cost more than augmenting it.

    Source: the output function of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014).
    """
    state = _mix(np.uint64(seed % 2**64))
    state = _mix(state ^ np.uint64(epoch % 2**64))
    states = _mix(state ^ np.asarray(rows).astype(np.uint64))
    states = _mix(states ^ np.asarray(repeats).astype(np.uint64))
    with np.errstate(over="ignore"):
        steps = np.arange(1, len(COLUMNS) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = _mix(states[:, None] + steps)
    return (bits >> np.uint64(11)) * 2.0**-53


def _mix(value: Any) -> Any:
    with np.errstate(over="ignore"):
        value = value + np.uint64(0x9E3779B97F4A7C15)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def parameters(policy: Settings, uniform: Any, xp: ModuleType) -> SampledParameters:
    """Turns uniform numbers, shape (images, len(COLUMNS)), into parameters; operations that are off have no entry.

    Arrays of shape (images,): `flip_x`, `flip_y` (0 or 1), `rotate`, `shear` (degrees), `zoom` (factor), `shift_x`,
    `shift_y` (fractions of the size), `crop_width`, `crop_height`, `crop_x`, `crop_y` (fractions: size and centre of
    what is kept), `brightness` (grey levels), `contrast`, `saturation` (factors), `hue` (turns), `grayscale` (0 or 1),
    `blur` (sigma in pixels), `noise` (grey levels; negative turns the pattern's sign), `noise_at` (where the bank of
    noise is cut), `erase_width`, `erase_height`, `erase_x`, `erase_y` (fractions: size and left upper corner).
    """

    def u(name: str) -> Any:
        return uniform[:, COLUMN[name]]

    keep = _picked(policy, uniform, xp)
    sampled: SampledParameters = {}

    def put(operation: str, name: str, value: Any, neutral: float = 0.0) -> None:
        sampled[name] = value if keep is None else xp.where(keep[operation], value, neutral)

    for axis, way in (("flip_x", "horizontal"), ("flip_y", "vertical")):
        if policy.flip in (way, "both"):
            put("flip", axis, xp.where(u(axis) < 0.5, 1.0, 0.0))
    for name, (operation, unit, middle) in AROUND.items():
        if limit := getattr(policy, operation):
            put(operation, name, middle + (2 * u(name) - 1) * (limit * unit), middle)
    if policy.crop:
        width, height = _rectangle(1 - policy.crop * u("crop_area"), u("crop_aspect"), CROP_ASPECT, xp)
        put("crop", "crop_width", width, 1.0)
        put("crop", "crop_height", height, 1.0)
        put("crop", "crop_x", width / 2 + u("crop_x") * (1 - width), 0.5)
        put("crop", "crop_y", height / 2 + u("crop_y") * (1 - height), 0.5)
    if policy.grayscale:
        put("grayscale", "grayscale", xp.where(u("grayscale") < policy.grayscale, 1.0, 0.0))
    if policy.blur:
        put("blur", "blur", u("blur") * policy.blur)
    if policy.noise:
        put("noise", "noise", xp.where(u("noise_sign") < 0.5, -1.0, 1.0) * u("noise") * policy.noise)
        sampled["noise_at"] = xp.floor(u("noise_at") * NOISE_PLACES)
    if policy.erase:
        width, height = _rectangle(policy.erase * u("erase_area"), u("erase_aspect"), ERASE_ASPECT, xp)
        put("erase", "erase_width", width)
        put("erase", "erase_height", height)
        sampled["erase_x"] = u("erase_x") * (1 - width)
        sampled["erase_y"] = u("erase_y") * (1 - height)
    return sampled


def _picked(policy: Settings, uniform: Any, xp: ModuleType) -> dict[str, Any] | None:
    """Which operations each image keeps when the policy picks a few of them: the ones with the smallest numbers."""
    names = [name for name in policy.operations if f"pick_{name}" in COLUMN]
    if policy.pick is None or policy.pick >= len(names):
        return None
    lots = xp.stack([uniform[:, COLUMN[f"pick_{name}"]] for name in names], axis=-1)
    limit = xp.sort(lots, axis=-1)[:, policy.pick - 1]
    return {name: uniform[:, COLUMN[f"pick_{name}"]] <= limit for name in names}


def _rectangle(area: Any, uniform: Any, aspects: tuple[float, float], xp: ModuleType) -> tuple[Any, Any]:
    """Width and height, as fractions, of a rectangle with that share of the area; neither passes 1."""
    low, high = math.log(aspects[0]), math.log(aspects[1])
    root = xp.exp((low + uniform * (high - low)) / 2)
    width = xp.minimum(xp.sqrt(area) * root, 1.0)
    return width, xp.minimum(xp.sqrt(area) / root, 1.0)


def mixing_shares(policy: Settings, uniform: np.ndarray) -> SampledParameters:
    """Samples how much of the other image each one gets: 0 for the mixer that is not its turn."""
    if not policy.mixes:
        return {}
    from scipy.special import betaincinv

    share, kind, x, y = (uniform[:, COLUMN[name]] for name in ("mix", "mix_kind", "mix_x", "mix_y"))
    cut = kind < (0.5 if policy.mixup and policy.cutmix else 1.0 if policy.cutmix else 0.0)
    sampled = {}
    if policy.mixup:
        sampled["mix_up"] = np.where(cut, 0.0, betaincinv(policy.mixup, policy.mixup, share))
    if policy.cutmix:
        alpha = policy.cutmix
        sampled |= {"mix_cut": np.where(cut, betaincinv(alpha, alpha, share), 0.0), "mix_x": x, "mix_y": y}
    return sampled

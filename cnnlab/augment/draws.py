"""Draws what happens to each image, apart from doing it: plain arrays, reproducible in any order.

Functions that take `xp` work with numpy and with `keras.ops` alike, so that pipeline and layer share them.
"""

import math
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cnnlab.augment.policy import Policy

Draws = dict[str, Any]  # parameter: array of shape (images,)

# One column of uniform numbers per random choice. Each operation owns its columns, so that switching one on
# leaves the draws of all others as they were. Append only: a new order would change everybody's images.
COLUMNS = (
    "flip_x", "flip_y", "rotate", "zoom", "shift_x", "shift_y", "shear", "crop_area", "crop_aspect", "crop_x",
    "crop_y", "brightness", "contrast", "saturation", "hue", "grayscale", "blur", "noise", "noise_at", "noise_sign",
    "erase_area", "erase_aspect", "erase_x", "erase_y", "mix", "mix_kind", "mix_x", "mix_y", "pick_flip",
    "pick_rotate", "pick_zoom", "pick_shift", "pick_shear", "pick_crop", "pick_brightness", "pick_contrast",
    "pick_saturation", "pick_hue", "pick_grayscale", "pick_blur", "pick_noise", "pick_erase",
)  # fmt: skip
COLUMN = {name: index for index, name in enumerate(COLUMNS)}
CROP_ASPECT = (3 / 4, 4 / 3)
ERASE_ASPECT = (1 / 3, 3.0)
GREY = 127.5
NOISE_PLACES = 1 << 20  # at so many places the bank of noise may be cut
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG uses
FLIPS = {"flip_x", "flip_y"}
GEOMETRY = FLIPS | {"rotate", "zoom", "shift_x", "shift_y", "shear", "crop_width"}
COLOUR = {"brightness", "contrast", "saturation", "hue", "grayscale"}


def uniforms(seed: int, epoch: int, rows: np.ndarray, repeats: np.ndarray | int = 0) -> np.ndarray:
    """Uniform numbers in [0, 1) that depend on (seed, epoch, row, repeat) alone.

    A counter-based generator: every number is a hash of its coordinates, so it takes no state along, and one call
    serves a batch where a generator per image would cost more than augmenting it.

    Args:
        seed: Any whole number.
        epoch: Number of the epoch, from 0.
        rows: Row of each image in its table, shape (images,).
        repeats: How often the row came before in this epoch, for oversampled rows.

    Returns:
        float64, of shape (images, len(COLUMNS)).

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


def parameters(policy: "Policy", uniform: Any, xp: ModuleType) -> Draws:
    """Turns uniform numbers into parameters; operations that are off have no entry.

    Args:
        policy: Says which operations, and how strong.
        uniform: Shape (images, len(COLUMNS)), in [0, 1).
        xp: numpy or keras.ops, whichever the uniform numbers belong to.

    Returns:
        Arrays of shape (images,): `flip_x`, `flip_y` (0 or 1), `rotate`, `shear` (degrees), `zoom` (factor),
        `shift_x`, `shift_y` (fractions of the size), `crop_width`, `crop_height`, `crop_x`, `crop_y` (fractions: size
        and centre of what is kept), `brightness` (grey levels), `contrast`, `saturation` (factors), `hue` (turns),
        `grayscale` (0 or 1), `blur` (sigma in pixels), `noise` (grey levels; negative turns the pattern's sign),
        `noise_at` (where the bank of noise is cut), `erase_width`, `erase_height`, `erase_x`, `erase_y` (fractions:
        size and left upper corner).
    """

    def u(name: str) -> Any:
        return uniform[:, COLUMN[name]]

    def around(name: str, limit: float) -> Any:
        return (2 * u(name) - 1) * limit

    keep = _picked(policy, uniform, xp)
    drawn: Draws = {}

    def put(operation: str, name: str, value: Any, neutral: float) -> None:
        drawn[name] = value if keep is None else xp.where(keep[operation], value, neutral)

    if policy.flip in ("horizontal", "both"):
        put("flip", "flip_x", xp.where(u("flip_x") < 0.5, 1.0, 0.0), 0.0)
    if policy.flip in ("vertical", "both"):
        put("flip", "flip_y", xp.where(u("flip_y") < 0.5, 1.0, 0.0), 0.0)
    if policy.rotate:
        put("rotate", "rotate", around("rotate", policy.rotate), 0.0)
    if policy.zoom:
        put("zoom", "zoom", 1 + around("zoom", policy.zoom), 1.0)
    if policy.shift:
        put("shift", "shift_x", around("shift_x", policy.shift), 0.0)
        put("shift", "shift_y", around("shift_y", policy.shift), 0.0)
    if policy.shear:
        put("shear", "shear", around("shear", policy.shear), 0.0)
    if policy.crop:
        width, height = _rectangle(1 - policy.crop * u("crop_area"), u("crop_aspect"), CROP_ASPECT, xp)
        put("crop", "crop_width", width, 1.0)
        put("crop", "crop_height", height, 1.0)
        put("crop", "crop_x", width / 2 + u("crop_x") * (1 - width), 0.5)
        put("crop", "crop_y", height / 2 + u("crop_y") * (1 - height), 0.5)
    if policy.brightness:
        put("brightness", "brightness", around("brightness", policy.brightness * 255), 0.0)
    if policy.contrast:
        put("contrast", "contrast", 1 + around("contrast", policy.contrast), 1.0)
    if policy.saturation:
        put("saturation", "saturation", 1 + around("saturation", policy.saturation), 1.0)
    if policy.hue:
        put("hue", "hue", around("hue", policy.hue), 0.0)
    if policy.grayscale:
        put("grayscale", "grayscale", xp.where(u("grayscale") < policy.grayscale, 1.0, 0.0), 0.0)
    if policy.blur:
        put("blur", "blur", u("blur") * policy.blur, 0.0)
    if policy.noise:
        put("noise", "noise", xp.where(u("noise_sign") < 0.5, -1.0, 1.0) * u("noise") * policy.noise, 0.0)
        drawn["noise_at"] = xp.floor(u("noise_at") * NOISE_PLACES)
    if policy.erase:
        width, height = _rectangle(policy.erase * u("erase_area"), u("erase_aspect"), ERASE_ASPECT, xp)
        put("erase", "erase_width", width, 0.0)
        put("erase", "erase_height", height, 0.0)
        drawn["erase_x"] = u("erase_x") * (1 - width)
        drawn["erase_y"] = u("erase_y") * (1 - height)
    return drawn


def _picked(policy: "Policy", uniform: Any, xp: ModuleType) -> dict[str, Any] | None:
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


def matrices(drawn: Draws, image_size: tuple[int, int], xp: ModuleType) -> Any | None:
    """Affine maps from pixels of the result to pixels of the image at the same size; None without geometry.

    Seen as a person would do it, the picture is cropped, mirrored, turned counter-clockwise, sheared and zoomed about
    the centre, then shifted right and down.

    Returns:
        Shape (images, 6): a, b, c, d, e, f with x_from = a x + b y + c and y_from = d x + e y + f, where whole numbers
        are the centres of pixels.
    """
    active = GEOMETRY & drawn.keys()
    if not active:
        return None
    height, width = image_size
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    zero = drawn[min(active)] * 0.0
    one = zero + 1.0
    angle = drawn.get("rotate", zero) * (math.pi / 180)
    cos, sin = xp.cos(angle), xp.sin(angle)
    tan = xp.tan(drawn.get("shear", zero) * (math.pi / 180))
    shrink = one / drawn.get("zoom", one)
    # Inverse of the steps, last one first: shift, zoom and shear, turn, mirror, crop.
    scale_x = (1 - 2 * drawn.get("flip_x", zero)) * drawn.get("crop_width", one) * shrink
    scale_y = (1 - 2 * drawn.get("flip_y", zero)) * drawn.get("crop_height", one) * shrink
    a, b = scale_x * cos, scale_x * (cos * tan - sin)
    d, e = scale_y * sin, scale_y * (sin * tan + cos)
    from_x = center_x + drawn.get("shift_x", zero) * width
    from_y = center_y + drawn.get("shift_y", zero) * height
    to_x = drawn.get("crop_x", one * 0.5) * width - 0.5
    to_y = drawn.get("crop_y", one * 0.5) * height - 0.5
    return xp.stack([a, b, to_x - a * from_x - b * from_y, d, e, to_y - d * from_x - e * from_y], axis=-1)


def colours(drawn: Draws, xp: ModuleType) -> tuple[Any | None, Any, Any] | None:
    """The affine map of the channels: `pixel @ matrix.T * gain + offset`; None without colour operations.

    The matrix is apart because most policies need no mixing of channels; its rows sum to 1, so it leaves greys alone.

    Returns:
        matrix of shape (images, 3, 3) or None, gain of shape (images,), offset of shape (images,).
    """
    active = COLOUR & drawn.keys()
    if not active:
        return None
    zero = drawn[min(active)] * 0.0
    gain = drawn.get("contrast", zero + 1.0)
    offset = gain * (drawn.get("brightness", zero) - GREY) + GREY
    if not {"saturation", "hue", "grayscale"} & active:
        return None, gain, offset
    eye, ones = np.eye(3), np.ones((3, 3)) / 3
    luma = np.tile(np.asarray(LUMA), (3, 1))
    axis = np.asarray([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)

    def times(factor: Any, constant: np.ndarray) -> Any:
        return (
            factor[:, None, None] * xp.convert_to_tensor(constant, dtype="float32")
            if xp is not np
            else (factor[:, None, None] * constant)
        )

    saturation = drawn.get("saturation", zero + 1.0)
    matrix = times(saturation, eye) + times(1 - saturation, luma)
    if "hue" in active:  # a turn about the grey axis
        cos, sin = xp.cos(drawn["hue"] * 2 * math.pi), xp.sin(drawn["hue"] * 2 * math.pi)
        matrix = xp.matmul(times(cos, eye) + times(1 - cos, ones) + times(sin, axis), matrix)
    if "grayscale" in active:
        grey = drawn["grayscale"]
        matrix = xp.matmul(times(1 - grey, eye) + times(grey, luma), matrix)
    return matrix, gain, offset


def blur_kernels(drawn: Draws, largest: float, xp: ModuleType) -> Any | None:
    """Weights of the Gaussian blurs, shape (images, 2 × radius + 1); the radius is the policy's, three sigma."""
    if "blur" not in drawn:
        return None
    radius = max(1, math.ceil(3 * largest))
    distance = np.arange(-radius, radius + 1, dtype="float32")
    sigma = xp.maximum(drawn["blur"], 0.05)  # below, the weights are those of no blur at all
    weights = xp.exp(-0.5 * (distance[None, :] / sigma[:, None]) ** 2)
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def erasures(drawn: Draws, image_size: tuple[int, int], xp: ModuleType) -> Any | None:
    """Left, top, right, bottom of the erased rectangles, shape (images, 4), in whole pixels; the last two exclusive."""
    if "erase_x" not in drawn:
        return None
    height, width = image_size
    left, top = drawn["erase_x"], drawn["erase_y"]
    corners = [
        left * width,
        top * height,
        (left + drawn["erase_width"]) * width,
        (top + drawn["erase_height"]) * height,
    ]
    return xp.floor(xp.stack(corners, axis=-1) + 0.5)

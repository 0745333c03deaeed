"""Colours of any kind to sRGB: profiles, palettes, inks, transparency on white, and the levels of deep images."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from cnnlab.images.levels import OVERSHOOT, Levels
from cnnlab.images.sizing import reduce_by

SRGB = ImageCms.createProfile("sRGB")
CLOSE = 2  # grey levels: a profile that changes no colour by more is left alone
WHITE = 255
BAND = 256  # rows that are converted at a time


def to_rgb(image: Image.Image, factor: int = 1) -> np.ndarray:
    """The pixels of a loaded 8-bit Pillow image as sRGB, on white where transparent: uint8 (height, width, 3).

    Averages blocks of factor × factor pixels. Works in bands, as large images leave little memory free.
    """
    if min(image.size) < factor:
        factor = 1
    step = max(BAND // factor, 1) * factor
    if image.height <= step:
        return reduce_by(_band_to_rgb(image), factor)
    result = np.empty((image.height // factor, image.width // factor, 3), np.uint8)
    for top in range(0, len(result) * factor, step):
        band = image.crop((0, top, image.width, min(top + step, len(result) * factor)))
        result[top // factor : (top + step) // factor] = reduce_by(_band_to_rgb(band), factor)
    return result


def _band_to_rgb(image: Image.Image) -> np.ndarray:
    profile, alpha = image.info.get("icc_profile") or b"", None
    if has_alpha(image):
        whole = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
        alpha, image = np.asarray(whole.getchannel("A")), whole.convert("RGB")
    elif image.mode == "P":
        image = image.convert("RGB")
    transform = _transform(profile, image.mode)
    if transform is not None:
        image = ImageCms.applyTransform(image, transform)  # type: ignore[assignment]
    values = np.asarray(image.convert("RGB"))
    if alpha is None:
        return values
    share = alpha[..., None].astype(np.uint16)
    return ((values * share + WHITE * (255 - share) + 127) // 255).astype(np.uint8)


def has_alpha(image: Image.Image) -> bool:
    """Whether parts of a Pillow image may be transparent."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def has_profile(image: Image.Image) -> bool:
    """Whether the colours of a Pillow image are other than sRGB."""
    return _transform(image.info.get("icc_profile") or b"", "RGB") is not None


def to_srgb(values: np.ndarray, profile: bytes) -> np.ndarray:
    """RGB pixels with a colour profile, as sRGB."""
    transform = _transform(profile, "RGB")
    return values if transform is None else np.asarray(ImageCms.applyTransform(Image.fromarray(values), transform))


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> Any:
    """The way from a profile to sRGB; None where there is none, it is sRGB to begin with, or cannot be used."""
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        found = ImageCms.buildTransform(source, SRGB, mode, "RGB")
        if mode == "RGB":
            steps = np.linspace(0, 255, 9).round().astype(np.uint8)
            grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
            after = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), found))
            if np.abs(after.astype(int) - grid).max() <= CLOSE:
                return None
    except Exception:  # a profile that is damaged, or meant for another kind of pixels, changes nothing
        return None
    return found


def usual_levels(values: np.ndarray) -> Levels:
    """What deep values mean where nobody says: whole numbers 0-65535, floats 0-1 or 0-255, whichever holds them."""
    if values.dtype.kind != "f":
        return 0.0, 65535.0
    return 0.0, 1.0 if reach(values)[1] <= 1 + OVERSHOOT else 255.0


def reach(values: np.ndarray) -> Levels:
    """The smallest and the largest number, as far as 0."""
    finite = np.isfinite(values)
    return float(np.min(values, initial=0, where=finite)), float(np.max(values, initial=0, where=finite))


def toned(values: np.ndarray, levels: Levels | None, usual: Levels | None = None) -> np.ndarray:
    """Deep values (height, width, channels) as 0-255: uint8 by the levels given, else float32 with nothing lost."""
    low, high = levels or usual or usual_levels(values)
    if levels is not None and values.dtype == np.uint16:
        return as_bytes((np.arange(65536) - low) * (255.0 / (high - low)))[values]
    result = np.empty(values.shape, np.float32 if levels is None else np.uint8)
    for top in range(0, len(values), BAND):
        band = np.nan_to_num(values[top : top + BAND].astype(np.float64), nan=low, posinf=high, neginf=low)
        band = (band - low) * (255.0 / (high - low))
        result[top : top + BAND] = band if levels is None else as_bytes(band)
    return result


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Pixels 0-255 as uint8."""
    return image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)


def luma(image: np.ndarray) -> np.ndarray:
    """RGB as brightness, (…, height, width, 1), of one image or several (ITU-R 601, as in Pillow's mode "L")."""
    rows = image.reshape(-1, *image.shape[-2:])
    return np.asarray(Image.fromarray(rows).convert("L")).reshape(*image.shape[:-1], 1)


def repeated(grey: np.ndarray) -> np.ndarray:
    """One channel, (height, width, 1), as three; three stay."""
    return np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey

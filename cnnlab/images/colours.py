"""Colours of any kind to sRGB: profiles, palettes, inks, transparency on white, and the levels of deep images."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from cnnlab.images.levels import Levels

SRGB = ImageCms.createProfile("sRGB")
CLOSE = 2  # grey levels: a profile that changes no colour by more is left alone
WHITE = 255


def to_rgb(image: Image.Image) -> np.ndarray:
    """The pixels of a loaded 8-bit Pillow image as sRGB, transparent parts on white: uint8 (height, width, 3)."""
    profile = image.info.get("icc_profile") or b""
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert("RGB")
    elif image.mode == "P":
        image = image.convert("RGB")
    transform = _transform(profile, image.mode) if profile else None
    if transform is not None:
        image = ImageCms.applyTransform(image, transform)  # type: ignore[assignment]
    values = np.asarray(image.convert("RGB"))
    return values if alpha is None else _on_white(values, alpha)


def _on_white(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blends with white, row by row in blocks, so that no second large picture is needed."""
    result = np.empty_like(values)
    for start in range(0, len(values), 256):
        part = slice(start, start + 256)
        share = alpha[part, :, None].astype(np.uint32)
        result[part] = (values[part] * share + WHITE * (255 - share) + 127) // 255
    return result


def to_srgb(values: np.ndarray, profile: bytes) -> np.ndarray:
    """RGB pixels with a colour profile, as sRGB."""
    transform = _transform(profile, "RGB") if profile else None
    if transform is None:
        return values
    return np.asarray(ImageCms.applyTransform(Image.fromarray(values), transform))


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> Any:
    """The way from a profile to sRGB; None where it is sRGB to begin with, or cannot be used."""
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


def toned(values: np.ndarray, levels: Levels | None) -> np.ndarray:
    """Deep values (height, width, channels) as 0-255: uint8 by the levels given, else float32 with nothing lost."""
    if levels is None and values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        largest = float(finite.max()) if finite.size else 0.0
        values = np.nan_to_num(values, posinf=largest, neginf=0.0)
        return (values * 255.0 if largest <= 1 else values).astype(np.float32)
    if levels is None:
        return values.astype(np.float32) * np.float32(1 / 257)
    low, high = levels
    if values.dtype == np.uint16:
        return _scaled(np.arange(65536), low, high)[values]
    result = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), 256):  # in blocks, so that no large picture of 64-bit numbers is needed
        result[start : start + 256] = _scaled(values[start : start + 256], low, high)
    return result


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Pixels 0-255 as uint8."""
    return image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)


def luma(image: np.ndarray) -> np.ndarray:
    """RGB as brightness, (height, width, 1) (ITU-R 601, the numbers that Pillow's mode "L" has)."""
    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


def repeated(grey: np.ndarray) -> np.ndarray:
    """One channel, (height, width, 1), as three; three stay."""
    return np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey

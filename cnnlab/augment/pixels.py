"""Transforms and blends pixels as sampled, with OpenCV: one resample, one colour step, noise cut from a bank."""

from functools import cache
from typing import Any

import cv2
import numpy as np

from cnnlab.augment import effects
from cnnlab.augment.sampling import NOISE_PLACES, SampledParameters
from cnnlab.augment.settings import Settings
from cnnlab.images import sizing

BORDERS = {"reflect": cv2.BORDER_REFLECT, "nearest": cv2.BORDER_REPLICATE, "constant": cv2.BORDER_CONSTANT}
WARP = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
ERASED = 127  # grey level of an erased rectangle
# The bank holds standard normal numbers in steps of 1/31, up to four standard deviations, as 128 + 31 z.
BANK_STEP, BANK_ZERO = 31.0, 128.0


@cache
def noise_bank(length: int) -> np.ndarray:
    """Normal numbers as bytes, long enough to cut `length` of them at any of NOISE_PLACES places."""
    normal = np.random.default_rng(20_140_601).standard_normal(NOISE_PLACES + length, dtype=np.float32)
    return np.clip(np.rint(BANK_ZERO + BANK_STEP * normal), 0, 255).astype(np.uint8)


class Transform:
    """Transforms one image after the other as sampled; for one thread."""

    def __init__(self, policy: Settings, sampled: SampledParameters, image_size: tuple[int, int]) -> None:
        self.height, self.width = image_size
        self.border = BORDERS[policy.fill]
        # Mirroring alone needs no resampling, at a fifth of the time.
        only_flips = not (effects.GEOMETRY - effects.FLIPS) & sampled.keys()
        self.matrices: Any = None if only_flips else effects.matrices(sampled, image_size, np)
        self.maps: tuple[np.ndarray | None, list[tuple[np.ndarray, float]]] | None = None
        self.flips = _flip_codes(sampled) if only_flips else []
        self.kernels = effects.blur_kernels(sampled, policy.blur, np)
        self.erasures = effects.erasures(sampled, image_size, np)
        self.mixtures = self.gains = self.noise = None
        colours = effects.colours(sampled, np)
        if colours is not None:
            matrix, gain, offset = colours
            if matrix is None:
                self.gains = list(zip(gain.tolist(), offset.tolist(), strict=True))
            else:
                offsets = np.repeat(offset[:, None, None], 3, axis=1)
                self.mixtures = np.concatenate([matrix * gain[:, None, None], offsets], axis=2)
        if "noise" in sampled:
            starts = sampled["noise_at"].astype(np.int64).tolist()
            self.noise = list(zip((sampled["noise"] / BANK_STEP).tolist(), starts, strict=True))
            self.bank = noise_bank(self.height * self.width * 3)

    def __call__(
        self, index: int, image: np.ndarray, out: np.ndarray, *, base: np.ndarray | None = None, black: bool = False
    ) -> np.ndarray:
        """Writes image `index` of those sampled, transformed, into `out`, which is contiguous.

        An image of another size comes with its resize in `base`: the affine map, of shape (2, 3), from pixels of the
        result to its own. With `black`, what lies outside is black whatever the policy says, as around a padded image.
        """
        if self.matrices is None:
            code = self.flips[index] if self.flips else None
            if code is None:
                np.copyto(out, image)
            else:
                cv2.flip(image, code, dst=out)
        else:
            matrix, step = self._maps(base)[index]
            if step >= 2:
                image, matrix = shrink(image, matrix, step)
            border = cv2.BORDER_CONSTANT if black else self.border
            cv2.warpAffine(image, matrix, (self.width, self.height), dst=out, flags=WARP, borderMode=border)
        if self.kernels is not None:
            kernel = self.kernels[index]
            cv2.sepFilter2D(out, -1, kernel, kernel, dst=out, borderType=cv2.BORDER_REFLECT_101)
        self._colour(index, out)
        if self.erasures is not None:
            left, top, right, bottom = self.erasures[index].astype(int)
            out[top:bottom, left:right] = ERASED
        return out

    def _maps(self, base: np.ndarray | None) -> list[tuple[np.ndarray, float]]:
        """For every image sampled: the map from pixels of the result to those of an image, and its smaller step."""
        if self.maps is None or self.maps[0] is not base:  # images of a folder mostly have one size
            maps = self.matrices.reshape(-1, 2, 3)
            if base is not None:
                maps = base[:, :2] @ maps
                maps[:, :, 2] += base[:, 2]
            steps = np.linalg.norm(maps[:, :, :2], axis=1).min(axis=1)  # along x and y, as `images.sizing.reduction`
            self.maps = base, list(zip(maps, steps.tolist(), strict=True))
        return self.maps[1]

    def _colour(self, index: int, out: np.ndarray) -> None:
        gain, offset = 1.0, 0.0
        if self.mixtures is not None:
            cv2.transform(out, self.mixtures[index], dst=out)
        elif self.gains is not None:
            gain, offset = self.gains[index]
        if self.noise is not None:
            strength, start = self.noise[index]
            pattern = self.bank[start : start + out.size].reshape(out.shape)
            cv2.addWeighted(out, gain, pattern, strength, offset - BANK_ZERO * strength, dst=out)
        elif (gain, offset) != (1.0, 0.0):
            cv2.addWeighted(out, gain, out, 0.0, offset, dst=out)


def _flip_codes(sampled: SampledParameters) -> list[int | None]:
    """OpenCV's code for each image: 1 left and right, 0 top and bottom, -1 both; empty without flips."""
    zero = next((sampled[name] * 0 for name in effects.FLIPS & sampled.keys()), np.zeros(0))
    pairs = zip(sampled.get("flip_x", zero), sampled.get("flip_y", zero), strict=True)
    return [{(0, 0): None, (1, 0): 1, (0, 1): 0, (1, 1): -1}[int(x), int(y)] for x, y in pairs]


def shrink(image: np.ndarray, matrix: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Averages blocks of 2, 4, 8 … pixels where the map steps over that many, so that thin lines do not flicker."""
    factor = sizing.power_of_two(min(step, *image.shape[:2]))
    if factor == 1:
        return image, matrix
    matrix = matrix / factor
    matrix[:, 2] += 0.5 / factor - 0.5  # whole numbers are the centres of pixels, at either scale
    return sizing.reduce_by(image, factor), matrix


def apply(policy: Settings, images: np.ndarray, sampled: SampledParameters) -> np.ndarray:
    """Transforms a batch of images at the size they have."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(
            "`apply` expects uint8 images, 0-255, of shape (images, height, width, 3). "
            f"Received: {images.dtype} of shape {images.shape}."
        )
    out = np.empty_like(images, order="C")
    transform = Transform(policy, sampled, images.shape[1:3])
    for index, image in enumerate(images):
        transform(index, image, out[index])
    return out


def mix(images: np.ndarray, labels: np.ndarray, sampled: SampledParameters) -> tuple[np.ndarray, np.ndarray]:
    """Mixes each image with the one before it in the batch, which is another one by chance, as batches are shuffled.

    Args:
        images: uint8, of shape (images, height, width, 3).
        labels: One-hot, float32, of shape (images, classes).
        sampled: What `policy.sample` returned, with `mix_up` and `mix_cut`: share of the other image.

    Returns:
        Images and labels of the same shapes.

    Source: Zhang et al., "mixup: beyond empirical risk minimization", 2018; Yun et al., "CutMix", 2019.
    """
    height, width = images.shape[1:3]
    others, mixed = np.roll(images, 1, axis=0), images.copy()
    share = np.zeros(len(images))
    if "mix_up" in sampled:
        share = sampled["mix_up"].copy()
        for index in np.flatnonzero(share):
            weight = np.float32(share[index])
            blend = images[index] * (1 - weight) + others[index] * weight
            mixed[index] = np.rint(blend)
    if "mix_cut" in sampled:
        side = np.sqrt(sampled["mix_cut"])
        box_height, box_width = np.rint(side * height).astype(int), np.rint(side * width).astype(int)
        top = np.rint(sampled["mix_y"] * (height - box_height)).astype(int)
        left = np.rint(sampled["mix_x"] * (width - box_width)).astype(int)
        for index in np.flatnonzero(box_height * box_width):
            box = np.s_[top[index] : top[index] + box_height[index], left[index] : left[index] + box_width[index]]
            mixed[index][box] = others[index][box]
            share[index] = box_height[index] * box_width[index] / (height * width)  # what whole pixels made of it
    weights = share[:, None].astype(np.float32)
    return mixed, labels * (1 - weights) + np.roll(labels, 1, axis=0) * weights

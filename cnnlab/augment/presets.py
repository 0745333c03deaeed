"""Policies to start from."""

from cnnlab.augment.policy import Policy

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
    if isinstance(magnitude, bool) or not isinstance(magnitude, (int, float)) or not 0 <= magnitude <= 10:
        raise ValueError(f"`magnitude` must be a number from 0 to 10. Received: magnitude={magnitude!r}.")
    full = {
        "rotate": 30, "shear": 17, "shift": 0.3, "zoom": 0.3, "brightness": 0.4, "contrast": 0.8, "saturation": 0.8,
        "hue": 0.1, "blur": 2.0, "noise": 20, "erase": 0.3,
    }  # fmt: skip
    scaled = {name: round(limit * magnitude / 10, 4) for name, limit in full.items()}
    return Policy(flip="horizontal" if magnitude else None, pick=count, **scaled)  # type: ignore[arg-type]

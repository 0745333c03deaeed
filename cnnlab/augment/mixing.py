"""Blends images of a batch with one another, and their labels by the same share."""

from typing import TYPE_CHECKING

import numpy as np

from cnnlab.augment import draws

if TYPE_CHECKING:
    from cnnlab.augment.policy import Policy


def mix(policy: "Policy", images: np.ndarray, labels: np.ndarray, drawn: draws.Draws) -> tuple[np.ndarray, np.ndarray]:
    """Mixes each image with the one before it in the batch, which is another one by chance, as batches are shuffled.

    Args:
        policy: Says how; with both `mixup` and `cutmix`, each image gets one of them.
        images: uint8, of shape (images, height, width, 3).
        labels: One-hot, float32, of shape (images, classes).
        drawn: What `policy.draw` returned, with `mix_up` and `mix_cut`: share of the other image.

    Returns:
        Images and labels of the same shapes.

    Source: Zhang et al., "mixup: beyond empirical risk minimization", 2018; Yun et al., "CutMix", 2019.
    """
    height, width = images.shape[1:3]
    others, mixed = np.roll(images, 1, axis=0), images.copy()
    share = np.zeros(len(images))
    if "mix_up" in drawn:
        share = drawn["mix_up"].copy()
        for index in np.flatnonzero(share):
            weight = np.float32(share[index])
            blend = images[index] * (1 - weight) + others[index] * weight
            mixed[index] = np.rint(blend)
    if "mix_cut" in drawn:
        side = np.sqrt(drawn["mix_cut"])
        box_height, box_width = np.rint(side * height).astype(int), np.rint(side * width).astype(int)
        top = np.rint(drawn["mix_y"] * (height - box_height)).astype(int)
        left = np.rint(drawn["mix_x"] * (width - box_width)).astype(int)
        for index in np.flatnonzero(box_height * box_width):
            box = np.s_[top[index] : top[index] + box_height[index], left[index] : left[index] + box_width[index]]
            mixed[index][box] = others[index][box]
            share[index] = box_height[index] * box_width[index] / (height * width)  # what whole pixels made of it
    weights = share[:, None].astype(np.float32)
    return mixed, labels * (1 - weights) + np.roll(labels, 1, axis=0) * weights


def shares(policy: "Policy", uniform: np.ndarray) -> draws.Draws:
    """Draws how much of the other image each one gets: 0 for the mixer that is not its turn."""
    if not policy.mixes:
        return {}
    from scipy.special import betaincinv

    def column(name: str) -> np.ndarray:
        return uniform[:, draws.COLUMN[name]]

    both = policy.mixup and policy.cutmix
    cut = column("mix_kind") < (0.5 if both else 1.0 if policy.cutmix else 0.0)
    drawn = {}
    if policy.mixup:
        drawn["mix_up"] = np.where(cut, 0.0, betaincinv(policy.mixup, policy.mixup, column("mix")))
    if policy.cutmix:
        drawn["mix_cut"] = np.where(cut, betaincinv(policy.cutmix, policy.cutmix, column("mix")), 0.0)
        drawn["mix_x"], drawn["mix_y"] = column("mix_x"), column("mix_y")
    return drawn

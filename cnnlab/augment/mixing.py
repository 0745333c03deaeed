"""Blends images of a batch with one another, and their labels by the same share."""

import numpy as np

from cnnlab.augment.sampling import SampledParameters


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

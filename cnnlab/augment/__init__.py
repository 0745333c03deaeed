"""What may happen to an image before a network sees it: described once, done in tf.data or on the device."""

from cnnlab.augment.check import check
from cnnlab.augment.policy import Policy, light, medium, rand, strong

__all__ = ["Policy", "check", "light", "medium", "rand", "strong"]

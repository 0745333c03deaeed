"""Table in, `Axes` out: every figure of the course. Draws on the Axes given and returns it; computes nothing."""

from cnnlab.plots.augmentations import augmentations
from cnnlab.plots.curves import history
from cnnlab.plots.images import class_counts, images, uncertain, worst
from cnnlab.plots.scores import confusion, per_class

__all__ = ["augmentations", "class_counts", "confusion", "history", "images", "per_class", "uncertain", "worst"]

"""Table in, `Axes` out: every figure of the course. Draws on the Axes given and returns it; computes nothing."""

from cnnlab.plots.curves import history, learning_rates, schedule
from cnnlab.plots.experiments import grid, learning_curve, remedies
from cnnlab.plots.explain import convolution, feature_maps, filters, heatmap, receptive_field
from cnnlab.plots.images import augmentations, class_counts, embedding, images, uncertain, worst
from cnnlab.plots.scores import confusion, events, groups, per_class
from cnnlab.plots.tradeoffs import precision_recall, reliability, roc, thresholds

__all__ = [
    "augmentations",
    "class_counts",
    "confusion",
    "convolution",
    "embedding",
    "events",
    "feature_maps",
    "filters",
    "grid",
    "groups",
    "heatmap",
    "history",
    "images",
    "learning_curve",
    "learning_rates",
    "per_class",
    "precision_recall",
    "receptive_field",
    "reliability",
    "remedies",
    "roc",
    "schedule",
    "thresholds",
    "uncertain",
    "worst",
]

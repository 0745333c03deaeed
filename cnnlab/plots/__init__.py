"""Table in, `Axes` out: every figure of the course. Draws on the Axes given and returns it; computes nothing."""

from cnnlab.plots.augmentations import augmentations
from cnnlab.plots.calibration import reliability
from cnnlab.plots.convolution import convolution
from cnnlab.plots.curves import history, learning_rates, schedule
from cnnlab.plots.embedding import embedding
from cnnlab.plots.events import events
from cnnlab.plots.explain import feature_maps, filters, heatmap, receptive_field
from cnnlab.plots.grid import grid
from cnnlab.plots.groups import groups
from cnnlab.plots.images import class_counts, images, uncertain, worst
from cnnlab.plots.learning import learning_curve
from cnnlab.plots.remedies import remedies
from cnnlab.plots.scores import confusion, per_class
from cnnlab.plots.tradeoffs import precision_recall, roc, thresholds

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

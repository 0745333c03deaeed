"""Prediction table in, scores out: with intervals, per class, against baselines, compared, calibrated, thresholded."""

from cnnlab.metrics.calibrated import calibrate, reliability, temperature
from cnnlab.metrics.comparison import compare
from cnnlab.metrics.events import events, match_events
from cnnlab.metrics.score import baselines, confusion, per_class, scores
from cnnlab.metrics.tradeoffs import apply_threshold, choose_threshold, precision_recall, roc, thresholds

__all__ = [
    "apply_threshold",
    "baselines",
    "calibrate",
    "choose_threshold",
    "compare",
    "confusion",
    "events",
    "match_events",
    "per_class",
    "precision_recall",
    "reliability",
    "roc",
    "scores",
    "temperature",
    "thresholds",
]

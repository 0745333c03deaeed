"""Everything that loops over images, folds or settings, and returns tables."""

from cnnlab.experiments.frozen_features import features
from cnnlab.experiments.imbalance_bench import Imbalance, imbalance
from cnnlab.experiments.imbalance_remedies import REMEDIES, Remedy
from cnnlab.experiments.imbalance_synthetic import synthesize
from cnnlab.experiments.labelling import Labeller
from cnnlab.experiments.predicting import predict, predict_augmented
from cnnlab.experiments.probing import linear_probe
from cnnlab.experiments.search_result import Confirmation, Search
from cnnlab.experiments.searching import grid_search
from cnnlab.experiments.validation import Validation, cross_validate, learning_curve

__all__ = [
    "REMEDIES",
    "Confirmation",
    "Imbalance",
    "Labeller",
    "Remedy",
    "Search",
    "Validation",
    "cross_validate",
    "features",
    "grid_search",
    "imbalance",
    "learning_curve",
    "linear_probe",
    "predict",
    "predict_augmented",
    "synthesize",
]

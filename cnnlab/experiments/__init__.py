"""Everything that loops over images, folds or settings, and returns tables."""

from cnnlab.experiments.augmented import predict_augmented
from cnnlab.experiments.confirming import Confirmation
from cnnlab.experiments.embedding import features
from cnnlab.experiments.imbalance_bench import Imbalance, imbalance
from cnnlab.experiments.imbalance_remedies import REMEDIES, Remedy
from cnnlab.experiments.imbalance_synthetic import synthesize
from cnnlab.experiments.learning_curve import learning_curve
from cnnlab.experiments.predicting import predict
from cnnlab.experiments.searching import Search, grid_search
from cnnlab.experiments.validating import Validation, cross_validate

__all__ = [
    "REMEDIES",
    "Confirmation",
    "Imbalance",
    "Remedy",
    "Search",
    "Validation",
    "cross_validate",
    "features",
    "grid_search",
    "imbalance",
    "learning_curve",
    "predict",
    "predict_augmented",
    "synthesize",
]

"""Everything that loops over images, folds or settings, and returns tables."""

from cnnlab.experiments.imbalance_bench import Imbalance, imbalance
from cnnlab.experiments.imbalance_remedies import REMEDIES, Remedy
from cnnlab.experiments.imbalance_synthetic import synthesize
from cnnlab.experiments.predicting import predict
from cnnlab.experiments.validating import Validation, cross_validate

__all__ = ["REMEDIES", "Imbalance", "Remedy", "Validation", "cross_validate", "imbalance", "predict", "synthesize"]

"""Everything that loops over images, folds or settings, and returns tables."""

from cnnlab.experiments.predicting import predict
from cnnlab.experiments.validating import Validation, cross_validate

__all__ = ["Validation", "cross_validate", "predict"]

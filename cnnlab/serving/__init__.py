"""From a trained model to files that answer: kept only if they agree with it."""

from cnnlab.serving.exporting import export
from cnnlab.serving.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor", "export"]

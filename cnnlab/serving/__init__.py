"""From a trained model to files that answer: kept only if they agree with it."""

from cnnlab.serving.cards import card
from cnnlab.serving.exporting import export
from cnnlab.serving.predictor import Prediction, Predictor
from cnnlab.serving.streaming import Frame, Stream, stream

__all__ = ["Frame", "Prediction", "Predictor", "Stream", "card", "export", "stream"]

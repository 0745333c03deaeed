"""From a trained model to files that answer: kept only if they agree with it.

Answering with LiteRT or ONNX needs neither TensorFlow nor Keras, so what needs them is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cnnlab.serving.predictor import Prediction, Predictor
from cnnlab.serving.streaming import Frame, Stream, stream
from cnnlab.serving.validating import validate

if TYPE_CHECKING:
    from cnnlab.serving.cards import card
    from cnnlab.serving.exporting import export

__all__ = ["Frame", "Prediction", "Predictor", "Stream", "card", "export", "stream", "validate"]
LATER = {"card": "cards", "export": "exporting"}


def __getattr__(name: str) -> Any:
    if name in LATER:
        return getattr(importlib.import_module(f"cnnlab.serving.{LATER[name]}"), name)
    raise AttributeError(f"module 'cnnlab.serving' has no attribute {name!r}. It has: {', '.join(__all__)}.")

"""Training that fills in plain Keras's own arguments, can be watched, stopped and resumed, and keeps a record."""

from cnnlab.models.losses import SmoothedCrossentropy
from cnnlab.training.callbacks import callbacks, resume
from cnnlab.training.compiling import compile, precision
from cnnlab.training.distributed import distributed
from cnnlab.training.fine_tuning import fine_tune
from cnnlab.training.resizing import resized
from cnnlab.training.schedules import one_cycle, plateau, step_down, warmup_cosine
from cnnlab.training.trying import LearningRates, find_learning_rate, preflight

__all__ = [
    "LearningRates",
    "SmoothedCrossentropy",
    "callbacks",
    "compile",
    "distributed",
    "find_learning_rate",
    "fine_tune",
    "one_cycle",
    "plateau",
    "precision",
    "preflight",
    "resized",
    "resume",
    "step_down",
    "warmup_cosine",
]

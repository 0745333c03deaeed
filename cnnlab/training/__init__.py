"""Training that fills in plain Keras's own arguments, keeps a record, and stops with the best weights."""

from cnnlab.training.callbacks import callbacks, resume
from cnnlab.training.compiling import compile
from cnnlab.training.finding import LearningRates, find_learning_rate
from cnnlab.training.schedules import one_cycle

__all__ = ["LearningRates", "callbacks", "compile", "find_learning_rate", "one_cycle", "resume"]

"""Training that fills in plain Keras's own arguments, keeps a record, and stops with the best weights."""

from cnnlab.training.callbacks import callbacks
from cnnlab.training.compiling import compile
from cnnlab.training.schedules import one_cycle

__all__ = ["callbacks", "compile", "one_cycle"]

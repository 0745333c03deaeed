"""Uncompiled `keras.Model`s that own their preprocessing: raw pixels 0-255 in, one probability per class out."""

from cnnlab.models.names import class_names
from cnnlab.models.scratch import small_cnn

__all__ = ["class_names", "small_cnn"]

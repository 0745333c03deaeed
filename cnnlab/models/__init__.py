"""Uncompiled Keras models that own their preprocessing: raw pixels 0-255 in, one probability per class out."""

from cnnlab.models.catalogue import table
from cnnlab.models.freezing import backbone, learning, trainable_layers, unfreeze
from cnnlab.models.losses import LogitAdjusted, saved_plainly
from cnnlab.models.metadata import class_names, preparation
from cnnlab.models.naming import class_probabilities, ensure_classes, require_supported, with_classes
from cnnlab.models.scratch import residual_cnn, small_cnn
from cnnlab.models.transfer import pretrained, reuse

__all__ = [
    "LogitAdjusted",
    "backbone",
    "class_names",
    "class_probabilities",
    "ensure_classes",
    "learning",
    "preparation",
    "pretrained",
    "require_supported",
    "residual_cnn",
    "reuse",
    "saved_plainly",
    "small_cnn",
    "table",
    "trainable_layers",
    "unfreeze",
    "with_classes",
]

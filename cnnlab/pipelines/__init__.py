"""Table to `tf.data.Dataset`: read, resized, augmented and batched at the speed of the machine."""

from cnnlab import _quiet  # noqa: F401
from cnnlab.pipelines.control import broken, delivered, rest, set_epoch
from cnnlab.pipelines.deprecated import prepare, read_image, resize
from cnnlab.pipelines.loading import load, prepared_otherwise
from cnnlab.pipelines.measuring import measure

__all__ = [
    "broken",
    "delivered",
    "load",
    "measure",
    "prepare",
    "prepared_otherwise",
    "read_image",
    "resize",
    "rest",
    "set_epoch",
]

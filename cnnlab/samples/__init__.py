"""Image folders to learn on: real digits, rendered worlds, and anything in TensorFlow Datasets."""

from cnnlab.samples.digits import digits
from cnnlab.samples.folder import truth
from cnnlab.samples.inspection import inspection
from cnnlab.samples.lesions import lesions
from cnnlab.samples.surveillance import surveillance
from cnnlab.samples.tfds import from_tfds

__all__ = ["digits", "from_tfds", "inspection", "lesions", "surveillance", "truth"]

"""A file, bytes or an array to pixels: the one decoder, the one size limit, and one preparation for each network."""

from cnnlab.images.files import ENDINGS, UnreadableImageError, needs_extra, read_file
from cnnlab.images.preparing import Preparation, prepare, read
from cnnlab.images.sizing import resize

__all__ = [
    "ENDINGS",
    "Preparation",
    "UnreadableImageError",
    "needs_extra",
    "prepare",
    "read",
    "read_file",
    "resize",
]

"""Folder or CSV to table: one row per image, with splits and folds that keep copies on one side."""

from cnnlab.tables.collect import from_csv, from_folder
from cnnlab.tables.divide import class_weights, folds, split
from cnnlab.tables.store import fingerprint, read, save

__all__ = ["class_weights", "fingerprint", "folds", "from_csv", "from_folder", "read", "save", "split"]

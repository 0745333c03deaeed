"""Folder or CSV to table: one row per image, with splits and folds that keep copies on one side."""

from cnnlab.tables.collect import from_folder
from cnnlab.tables.divide import class_weights, folds, split
from cnnlab.tables.linking import linked_groups
from cnnlab.tables.lists import from_csv
from cnnlab.tables.store import fingerprint, read, save

__all__ = ["class_weights", "fingerprint", "folds", "from_csv", "from_folder", "linked_groups", "read", "save", "split"]

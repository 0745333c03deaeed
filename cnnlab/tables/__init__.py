"""Folder or CSV to table: one row per image, with splits and folds that keep copies on one side."""

from cnnlab.tables.csv_files import from_csv
from cnnlab.tables.folders import from_folder
from cnnlab.tables.linking import linked_groups
from cnnlab.tables.saving import fingerprint, read, save
from cnnlab.tables.splitting import class_weights, folds, split

__all__ = ["class_weights", "fingerprint", "folds", "from_csv", "from_folder", "linked_groups", "read", "save", "split"]

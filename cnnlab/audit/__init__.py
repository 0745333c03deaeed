"""Broken, odd, duplicate and mislabelled images; decisions about them that are logged and can be undone."""

from cnnlab.audit.decisions import apply, decide, decisions, latest, undo
from cnnlab.audit.feature_space import outliers, similar
from cnnlab.audit.images import leaks, scan, usable
from cnnlab.audit.labels import label_issues, label_noise
from cnnlab.audit.shortcuts import shortcuts
from cnnlab.images.levels import levels_of as levels

__all__ = [
    "apply",
    "decide",
    "decisions",
    "label_issues",
    "label_noise",
    "latest",
    "leaks",
    "levels",
    "outliers",
    "scan",
    "shortcuts",
    "similar",
    "undo",
    "usable",
]

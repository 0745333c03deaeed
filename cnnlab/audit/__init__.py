"""Broken, odd, duplicate and mislabelled images; decisions about them that are logged and can be undone."""

from cnnlab.audit.images import leaks, scan

__all__ = ["leaks", "scan"]

"""What doctests and tests share."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _figures_closed():
    """Matplotlib warns, and warnings are errors, when more than twenty figures stay open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")

"""What a running `fit` works with, and how callbacks keep what they write cheap and whole."""

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Fit(NamedTuple):
    """A `fit` that runs.

    Attributes:
        callbacks: All that take part, Keras's own History included.
        data: The training data it was called with.
    """

    callbacks: list[keras.callbacks.Callback]
    data: Any


def fit_around(callback: keras.callbacks.Callback) -> Fit:
    """The `fit` in which `callback` is being called.

    Keras tells a callback neither its companions nor the data, without which a run cannot be continued exactly. Both
    are looked up where they are: in the frames that called.
    """
    callbacks, data = [callback], None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList) and callback in owner.callbacks:
            callbacks = owner.callbacks
        elif frame.f_code.co_name == "fit" and isinstance(owner, keras.Model):
            data = frame.f_locals.get("x")
            break
        frame = frame.f_back
    return Fit(callbacks, data)


class Budget:
    """Lets something be done only as often as it takes a small share of the time.

    Args:
        share: Of the time, 0 to 1.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.cost = 0.0
        self.last = time.perf_counter()

    def allows(self) -> bool:
        """Whether enough time went by since the last one."""
        return (time.perf_counter() - self.last) * self.share >= self.cost

    @contextmanager
    def spent(self) -> Iterator[None]:
        """Measures what the block costs."""
        began = time.perf_counter()
        yield
        self.last = time.perf_counter()
        # A slow first time, when files are cold, is soon forgotten; a disk that has become slow is noticed at once.
        self.cost = max(self.last - began, self.cost / 2)


class DiskFullError(OSError):
    """The disk took no more; prints as a plain sentence."""

    def __str__(self) -> str:
        return str(self.args[-1])


@contextmanager
def disk_watched(folder: Path, rescue: str) -> Iterator[None]:
    """Turns "no space left", in whatever way a library says it, into a sentence that says what is safe and what to do.

    Args:
        folder: Where the block writes.
        rescue: What is still there, as a sentence.

    Raises:
        DiskFullError: If the disk, or the share of it that this user may fill, is full.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        text = str(error)
        full = getattr(error, "errno", None) in NO_SPACE or any(os.strerror(code) in text for code in NO_SPACE)
        if not full:
            raise
        raise DiskFullError(
            errno.ENOSPC,
            f"The disk that holds {str(folder)!r} is full, so training stopped. {rescue} Free some space there, then "
            f"go on with `callbacks=training.resume({str(folder)!r})`.",
        ) from error

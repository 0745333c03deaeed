"""Which number of an epoch tells whether it was better than the ones before."""

import logging
import re
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._upstream import fit_around, metric_mode

logger = logging.getLogger("cnnlab")


def numbers(logs: dict[str, Any] | None) -> dict[str, float]:
    """What an epoch reported as plain numbers; a metric that is an array becomes `name_0`, `name_1`.

    >>> numbers({"loss": np.float32(0.5), "f1_score": np.array([0.25, 1.0])})
    {'loss': 0.5, 'f1_score_0': 0.25, 'f1_score_1': 1.0}
    """
    flat: dict[str, float] = {}
    for key, value in (logs or {}).items():
        values = np.asarray(keras.ops.convert_to_numpy(value) if hasattr(value, "shape") else value, dtype=float)
        several = {f"{key}_{index}": float(each) for index, each in enumerate(values.reshape(-1))}
        flat |= {key: float(values)} if values.ndim == 0 else several
    return flat


class Watched:
    """A number that training reports after an epoch, and its direction: "min", "max", or "auto", which asks Keras.

    Without validation data the training's own number stands in for `val_…`. `argument` is what the person gave it as.
    """

    def __init__(self, monitor: str, mode: str = "auto", *, argument: str = "monitor") -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f'`mode` expects "auto", "min" or "max". Received: {mode!r}.')
        if not isinstance(monitor, str) or not monitor:
            raise ValueError(f"`{argument}` expects the name of a number that training reports. Received: {monitor!r}.")
        self.given = self.name = monitor
        self.asked, self.argument = mode, argument
        self.mode: str | None = None
        self.model: Any = None
        self.every = 1

    def begin(self, callback: keras.callbacks.Callback, *, consequence: str = "") -> None:
        """Finds out how often the `fit` around `callback` validates; warns of the `consequence` where it does not."""
        self.name, self.model, self.mode = self.given, callback.model, None if self.asked == "auto" else self.asked
        arguments = fit_around(callback).arguments
        every = arguments.get("validation_freq", 1)
        self.every = every if isinstance(every, int) else 0
        if arguments and arguments["validation_data"] is None and self.name.startswith("val_"):
            self.name = self.name.removeprefix("val_")
            if consequence:
                logger.warning("There are no validation data, so %s.", consequence.format(self.name))

    def value(self, logs: dict[str, Any] | None) -> float | None:
        """The number; None after an epoch without validation."""
        flat = numbers(logs)
        if self.name in flat:
            return flat[self.name]
        if self.name.startswith("val_") and not any(key.startswith("val_") for key in flat) and self.every != 1:
            return None
        several = f"{self.name}_0" in flat
        raise ValueError(
            f"`{self.argument}` expects a number that training reports: {', '.join(flat)}. Received: {self.given!r}"
            + (", which is several: name one of them, or have Keras average them." if several else ".")
        )

    def better(self, value: float | None, best: float | None) -> bool:
        """Whether a value improves on the best so far; NaN never does."""
        if value is None or value != value:
            return False
        return best is None or (value < best if self.direction() == "min" else value > best)

    def direction(self) -> str:
        """Whether less ("min") or more ("max") of it is better."""
        if self.mode is None:
            known = metric_mode(self.model, self.name) or metric_mode(self.model, re.sub(r"_\d+$", "", self.name))
            self.mode = known or ("min" if self.name.endswith("loss") else None)
        if self.mode is None:
            raise ValueError(
                f"`{self.argument}` expects a number whose direction Keras knows, or `mode` with it. Received: "
                f'{self.name!r}: say mode="max" if more of it is better, mode="min" if less.'
            )
        return self.mode

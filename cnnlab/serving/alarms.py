"""What is made of a frame's answer: the class that it is called, and whether enough frames are suspicious."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from cnnlab.serving.inputs import likeliest

EVENTS = 1_000  # events that are remembered


class Waiting(NamedTuple):
    """A frame that came and has not been looked at."""

    number: int
    came: float
    image: Any


class Decision:
    """The class that a frame is called, from the probabilities of the last frames."""

    def __init__(self, smoothing: int, predictor: Any) -> None:
        self._threshold, self._smoothing = getattr(predictor, "threshold", {}), smoothing
        self._recent: deque[np.ndarray] = deque(maxlen=smoothing)

    def __call__(self, prediction: Any) -> tuple[str, dict[str, float]]:
        """The class, and the mean probability of each."""
        names = list(prediction.probabilities)
        self._recent.append(np.fromiter(prediction.probabilities.values(), float))
        mean = np.mean(self._recent, axis=0) if len(self._recent) > 1 else self._recent[0]
        values = dict(zip(names, mean.tolist(), strict=True))
        if self._smoothing == 1:  # whatever rule the predictor has
            return prediction.label, values
        return names[likeliest(mean[None], names, self._threshold)[0]], values


class EventDetector:
    """Decides what is suspicious, and when enough of the last frames are."""

    def __init__(self, suspicious: Iterable[str] | Callable[[Any], bool], event: tuple[int, int]) -> None:
        self._labels = () if callable(suspicious) else frozenset(suspicious)
        self._rule = suspicious if callable(suspicious) else None
        self._enough, length = event
        self._recent: deque[bool] = deque(maxlen=length)
        self.alarm = False
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self.count = 0

    def update(self, prediction: Any, label: str, waiting: Waiting, seconds: float) -> tuple[bool, bool]:
        """Whether the frame is suspicious, and whether an event begins with it."""
        unknown = bool(getattr(prediction, "unknown", None))
        found = unknown or (bool(self._rule(prediction)) if self._rule else label in self._labels)
        self._recent.append(found)
        before, self.alarm = self.alarm, sum(self._recent) >= self._enough
        begins = self.alarm and not before
        if begins:
            self.count += 1
            what = "unknown" if unknown else label
            self.events.append({"frame": waiting.number, "seconds": seconds, "label": what, "lasted": 0.0})
        elif self.alarm:
            self.events[-1]["lasted"] = seconds - self.events[-1]["seconds"]
        return found, begins

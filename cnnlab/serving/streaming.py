"""One answer after the other for frames that keep coming, in flat memory, whatever the source does."""

import math
import os
import queue as queues
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cnnlab._common import did_you_mean
from cnnlab.serving.alarms import Decision, EventDetector, Waiting
from cnnlab.serving.sources import open_source

RECENT = 10_000  # frames that latencies are told of
WAITING = 2  # frames that may wait for the model
CLOSING = 5.0  # seconds that a camera may take to give its last frame


class Frame(NamedTuple):
    """The answer for one frame.

    Attributes:
        number: Which frame of the source it is, from 0; dropped and unreadable ones count.
        seconds: When it came, since the start.
        label: The class it is called, after smoothing.
        confidence: Its probability, 0-1.
        probabilities: Of every class, after smoothing.
        unknown: Whether it is unlike the training images; None before `Predictor.fit_novelty`.
        suspicious: Whether this frame is.
        alarm: Whether enough of the last frames are.
        event: Whether the alarm begins here.
        milliseconds: From when the frame came to this answer.
        image: The frame itself, as the source gave it.
    """

    number: int
    seconds: float
    label: str
    confidence: float
    probabilities: dict[str, float]
    unknown: bool | None
    suspicious: bool
    alarm: bool
    event: bool
    milliseconds: float
    image: Any


def stream(
    source: Any,
    predictor: Callable[[Any], Any],
    *,
    suspicious: Iterable[str] | Callable[[Any], bool] = (),
    event: tuple[int, int] = (3, 5),
    smoothing: int = 1,
    queue: int | None = None,
    patience: float | None = 10.0,
) -> "Stream":
    """Labels frames as they come: iterate over what this returns, or use it in a `with` block.

    Frames that cannot be read are counted and passed over. A source that breaks ends the loop with a warning, never
    with an exception; `Stream.summary` says what happened. Memory stays flat however long it runs.

    Args:
        source: A folder that grows, a video file, the number of a camera, an address (`"rtsp://…"`), a table, or
            anything that gives one path, bytes or array (height, width, 3; RGB) after the other. A camera is open from
            here on; it is closed where the loop ends, by `Stream.close`, or at the end of a `with` block.
        predictor: A `serving.Predictor`, or a function of one image that returns what it returns.
        suspicious: Labels that are; or a function of the `Prediction` of one frame that says so. Frames that the
            predictor calls unknown always are.
        event: (k, n): an event begins when k of the last n frames are suspicious, and ends when fewer are.
        smoothing: How many frames' probabilities are averaged; 1 takes each for itself, as parts on a belt ask for.
        queue: How many frames may wait while the model is busy; when one more comes the oldest is dropped, and
            counted. 0 drops none: the source waits. Where None, 2 for cameras and addresses, which go on whether
            anybody looks or not, and 0 for all else; give 2 for an iterator over a camera of your own. A video with a
            queue plays at its own speed.
        patience: Seconds without a new frame after which the loop ends; None waits for ever.

    Raises:
        TypeError: If `source` gives no frames.
        FileNotFoundError: If there is no such file or folder.
        ValueError: If a camera or video cannot be opened, or an argument is impossible.

    Example:
        >>> frames = stream(0, predictor, suspicious=["crack"])  # doctest: +SKIP
        >>> for frame in frames:  # doctest: +SKIP
        ...     if frame.event:
        ...         print(frame.number, frame.label)
        >>> frames.summary()  # doctest: +SKIP
    """
    if isinstance(suspicious, Iterable) and not isinstance(suspicious, str):
        suspicious = tuple(suspicious)  # an iterator can be read once
    _check_arguments(suspicious, event, smoothing, queue, patience, predictor)
    detector = EventDetector(suspicious, event)
    return Stream(source, predictor, detector, Decision(smoothing, predictor), queue, patience)


class Stream:
    """What `stream` returns: iterate over it once; ask `summary` and `events` at any time.

    Attributes:
        frames: How many the source gave.
        answered: How many were labelled.
        dropped: How many were dropped because the model was slower than the source.
        unreadable: How many could not be read.
        ended: Why the loop ended; "" while it has not.
        problem: What was wrong with the last unreadable frame.
    """

    def __init__(
        self,
        source: Any,
        predictor: Callable[[Any], Any],
        detector: EventDetector,
        decide: Decision,
        queue: int | None,
        patience: float | None,
    ) -> None:
        self.frames = self.answered = self.dropped = self.unreadable = 0
        self.ended = self.problem = ""
        self._predictor, self._detector, self._decide, self._patience = predictor, detector, decide, patience
        self._stop = threading.Event()
        self._source = open_source(source, self._stop, paced=bool(queue))
        self._drops = self._source.live if queue is None else queue > 0
        # Frames that wait for the model; a text says why no more will come. A source that waits has one more in hand.
        self._waiting: queues.Queue[Waiting | str] = queues.Queue((queue or WAITING) if self._drops else 1)
        self._reader = threading.Thread(target=self._read, name="cnnlab-stream", daemon=True)
        self._latency: deque[float] = deque(maxlen=RECENT)
        self._working: deque[float] = deque(maxlen=RECENT)
        self._began = self._spent = 0.0

    def __iter__(self) -> Iterator[Frame]:
        if self._began or self._stop.is_set():
            raise RuntimeError("A stream runs once, and not after it was closed. Call `serving.stream` again.")
        self._began = time.perf_counter()
        self._reader.start()
        try:
            while (waiting := self._next()) is not None:
                frame = self._answer(waiting)
                self._spent = time.perf_counter() - self._began
                if frame is not None:
                    yield frame
        finally:
            self.ended = self.ended or "the loop was left"
            self._end()
        self._warn()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the source; a loop that runs, here or in another thread, ends."""
        self.ended = self.ended or "the stream was closed"
        self._end()
        if self._reader.ident is None:  # never started
            self._source.close()
        elif self._reader is not threading.current_thread():
            self._reader.join(CLOSING)

    def _end(self) -> None:
        """Stops the source, and wakes whoever waits for a frame."""
        self._stop.set()
        with suppress(queues.Full):
            self._waiting.put_nowait("")

    def summary(self) -> pd.DataFrame:
        """One row: source, frames, answered, dropped, unreadable, events, per_second, p50_ms, p95_ms and p99_ms.

        Percentiles are of the last 10,000 frames, from coming to answer; model_p50_ms is the model's part.
        """
        p50, p95, p99 = np.percentile(self._latency, [50, 95, 99]) if self._latency else (np.nan,) * 3
        counts = {name: getattr(self, name) for name in ("frames", "answered", "dropped", "unreadable")}
        row: dict[str, Any] = {"source": self._source.name} | counts
        row |= {"events": self._detector.count, "per_second": self.answered / self._spent if self._spent else np.nan}
        row |= {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
        row |= {"model_p50_ms": np.median(self._working) if self._working else np.nan, "ended": self.ended}
        return pd.DataFrame([row])

    def events(self) -> pd.DataFrame:
        """One row per event, the last 1,000 of them: frame, seconds (since the start), label, lasted (seconds)."""
        return pd.DataFrame(list(self._detector.events), columns=["frame", "seconds", "label", "lasted"])

    def _read(self) -> None:
        """Runs in a thread of its own, so that a source that hangs holds nobody up."""
        over = "the source ended"
        try:
            for image in self._source.frames:
                waiting = Waiting(self.frames, time.perf_counter(), image)
                self.frames += 1
                self._put(waiting, drop=self._drops)
                if self._stop.is_set():
                    break
        except Exception as error:  # somebody else's code; `_warn` tells
            over = f"the source broke: {error}"
        finally:
            self._source.close()
        self._put(over)

    def _put(self, item: Waiting | str, *, drop: bool = False) -> None:
        """Lets a frame wait; where no more may, the oldest is dropped, or the source waits."""
        while not self._stop.is_set():
            with suppress(queues.Full):
                self._waiting.put(item, block=not drop, timeout=0.1)
                return
            if drop:
                with suppress(queues.Empty):
                    self.dropped += isinstance(self._waiting.get_nowait(), Waiting)
                self._stop.wait(0.001)  # a source faster than that would leave the model no time at all
        self._end()

    def _next(self) -> Waiting | None:
        """The oldest frame that waits; None where the loop is over."""
        try:
            waiting = self._waiting.get(timeout=self._patience)
        except queues.Empty:
            waiting = f"no frame for {self._patience:g} seconds"
        if isinstance(waiting, Waiting) and not self._stop.is_set():
            return waiting
        self.ended = self.ended or str(waiting)
        return None

    def _answer(self, waiting: Waiting) -> Frame | None:
        began = time.perf_counter()
        try:
            prediction = self._predictor(waiting.image)
            label, probabilities = self._decide(prediction)
        except Exception as error:  # whatever garbage makes a decoder raise
            self.unreadable += 1
            self.problem = f"{type(error).__name__}: {error}"
            return None
        self.answered += 1
        seconds = waiting.came - self._began
        suspicious, begins = self._detector.update(prediction, label, waiting, seconds)
        done = time.perf_counter()
        self._working.append(1000 * (done - began))
        self._latency.append(1000 * (done - waiting.came))
        return Frame(
            number=waiting.number,
            seconds=seconds,
            label=label,
            confidence=probabilities[label],
            probabilities=probabilities,
            unknown=getattr(prediction, "unknown", None),
            suspicious=suspicious,
            alarm=self._detector.alarm,
            event=begins,
            milliseconds=self._latency[-1],
            image=waiting.image,
        )

    def _warn(self) -> None:
        """Says once, at the end, what a person would want to know."""
        words = []
        if self.unreadable:
            words.append(f"{self.unreadable} of {self.frames} frames could not be read; the last: {self.problem}")
        if self.ended.startswith("the source broke"):
            words.append(f"After {self.frames} frames {self.ended}")
        if words:
            warnings.warn(". ".join(words), UserWarning, stacklevel=3)


def _check_arguments(
    suspicious: Any, event: tuple[int, int], smoothing: int, queue: int | None, patience: float | None, predictor: Any
) -> None:
    if not callable(predictor) or hasattr(predictor, "predict_on_batch"):
        raise TypeError(
            f"`predictor` expects a serving.Predictor. Received: {type(predictor).__name__}. A Keras model becomes one "
            "with `serving.export(model, folder, check=val)` and `serving.Predictor(folder)`."
        )
    if isinstance(suspicious, str | os.PathLike) or not (callable(suspicious) or isinstance(suspicious, Iterable)):
        raise TypeError(f"`suspicious` expects a list of labels, or a function. Received: {suspicious!r}.")
    classes = getattr(predictor, "classes", None)
    strange = [] if callable(suspicious) or classes is None else [name for name in suspicious if name not in classes]
    if strange:
        hint = did_you_mean(strange[0], classes or [], count=2)
        raise ValueError(f"`suspicious` expects classes of the predictor: {classes}. Received: {strange[0]!r}.{hint}")
    if len(event) != 2 or not 1 <= event[0] <= event[1]:
        raise ValueError(f"`event` expects (k, n) with 1 ≤ k ≤ n, such as (3, 5). Received: {event}.")
    if smoothing < 1 or (queue is not None and queue < 0):
        raise ValueError(
            f"`smoothing` expects 1 or more frames, `queue` 0 or more. Received: smoothing={smoothing}, queue={queue}."
        )
    if patience is not None and not (patience > 0 and math.isfinite(patience)):
        raise ValueError(f"`patience` expects seconds above 0, or None to wait for ever. Received: {patience}.")

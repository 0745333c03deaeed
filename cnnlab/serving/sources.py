"""Where frames come from: a folder that grows, a video file, a camera, an address, or anything that can be iterated."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from cnnlab._common import is_whole
from cnnlab._stderr import native_stderr_held
from cnnlab.images import ENDINGS

POLL = 0.1  # seconds between two looks into a folder
SETTLED = 1.0  # seconds after which a file is taken to be written to its end
READS = 10  # tries before a video file counts as over, or an iterator as broken
RETRY = 0.5  # seconds between two tries to reach a camera
State = tuple[int, int]  # of a file: when it was changed last, in nanoseconds, and its size


class Source(NamedTuple):
    """Frames, one after the other: paths, bytes or arrays."""

    frames: Iterator[Any]
    live: bool  # goes on while nobody looks, like a camera; files and iterators wait
    name: str
    close: Callable[[], None] = lambda: None  # only where nobody reads from it any more


def open_source(source: Any, stop: threading.Event, *, paced: bool) -> Source:
    """Opens whatever a person calls a source; a video file is played at its own speed where it is `paced`."""
    if is_whole(source, least=0):
        return _camera(int(source), stop, f"camera {source}")
    if isinstance(source, str) and "://" in source:
        return _camera(source, stop, re.sub(r"//[^/@]*@", "//", source))  # a password is nobody's business
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if path.is_dir():
            return Source(_folder(path, stop), False, str(path))
        if path.is_file():
            return _video(path, stop, paced)
        raise FileNotFoundError(f"`stream` expects a folder or a video file. There is none at {str(source)!r}.")
    if isinstance(source, pd.DataFrame):
        source = source["path"].tolist()
    if isinstance(source, bytes | bytearray | bool) or not isinstance(source, Iterable):
        raise TypeError(
            "`stream` expects a folder, a video file, the number of a camera, an address (rtsp://…), a table, or "
            f"anything that gives one frame after the other. Received: {type(source).__name__}."
        )
    if getattr(source, "ndim", 1) in (2, 3):  # its rows are no frames
        raise ValueError(
            "`stream` expects several frames, such as an array (n, height, width, 3). Received an array of the shape "
            f"{np.asarray(source).shape}, as of one image: call `predictor(image)`, or `stream([image], predictor)`."
        )
    return Source(_iterated(source, stop), False, type(source).__name__)


def _iterated(source: Iterable[Any], stop: threading.Event) -> Iterator[Any]:
    """What an iterable gives; an iterator that raises is asked again, which a generator answers with its end."""
    iterator, failures = iter(source), list[Exception]()
    while not stop.is_set() and len(failures) < READS:
        try:
            frame = next(iterator)
        except StopIteration:
            break
        except Exception as error:  # somebody else's code
            failures.append(error)
            stop.wait(0.01)
        else:
            failures.clear()
            yield frame
    if failures:
        raise RuntimeError(f"{type(failures[-1]).__name__}: {failures[-1]}") from failures[-1]


def _folder(folder: Path, stop: threading.Event) -> Iterator[Path]:
    """Images in a folder, oldest first, and then whatever is added or written anew; ends when told to."""
    given: dict[str, State] = {}
    before: dict[str, State] = {}
    while not stop.is_set():
        began = time.perf_counter()
        there = _states(folder)
        settled = (time.time() - SETTLED) * 1e9
        for name, state in sorted(there.items(), key=lambda item: (item[1], item[0])):
            if given.get(name) != state and (before.get(name) == state or state[0] < settled):
                given[name] = state
                yield folder / name
        given = {name: state for name, state in given.items() if name in there}
        before = there
        stop.wait(max(POLL, 5 * (time.perf_counter() - began)))


def _states(folder: Path) -> dict[str, State]:
    """The images in a folder; none while it cannot be reached, as a network drive may be for a while."""
    found: dict[str, State] = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith(".") and entry.is_file():
                found[entry.name] = entry.stat().st_mtime_ns, entry.stat().st_size
    return found


def _capture(name: str | int) -> cv2.VideoCapture:
    with native_stderr_held():  # OpenCV lists every way in which it failed
        return cv2.VideoCapture(name)


def _video(path: Path, stop: threading.Event, paced: bool) -> Source:
    capture = _capture(str(path))
    if not capture.isOpened():
        raise ValueError(f"OpenCV cannot read {str(path)!r} as a video. Convert it, for example to MP4 (H.264).")
    pause = 1 / (capture.get(cv2.CAP_PROP_FPS) or 25) if paced else 0.0
    return Source(_frames([capture], stop, pause=pause), False, str(path), capture.release)


def _camera(address: str | int, stop: threading.Event, name: str) -> Source:
    opened = [_capture(address)]  # the one in use, for whoever closes it
    if not opened[0].isOpened():
        raise ValueError(f"{name} could not be opened. Is it connected, and does no other program use it?")
    return Source(_frames(opened, stop, address), True, name, lambda: opened[0].release())


def _frames(
    opened: list[cv2.VideoCapture], stop: threading.Event, camera: str | int | None = None, *, pause: float = 0.0
) -> Iterator[np.ndarray]:
    """RGB frames; a camera that stops is opened again, and the end of a video is where many in a row are broken."""
    failures, due = 0, time.perf_counter()
    while not stop.is_set() and failures < READS:
        good, frame = opened[0].read()
        if good:
            failures, due = 0, due + pause
            stop.wait(max(0.0, due - time.perf_counter()))
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        elif camera is None:
            failures += 1
        else:
            opened[0].release()
            stop.wait(RETRY)
            opened[0] = _capture(camera)

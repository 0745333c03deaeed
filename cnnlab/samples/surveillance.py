"""Drawings of what a fixed camera sees of a passage: people walk, and now and then something happens."""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cnnlab._common import progress
from cnnlab.samples.folder import TRUTH, encoded, plain_numbers, recipe
from cnnlab.samples.metal import Rng

VERSION = 1  # raise it when the pictures change, so that old folders are told from new ones
HEIGHT, WIDTH = 64, 96
STEP = 2  # seconds from one frame to the next
EVENTS = {"bag": (50, 90), "climbing": (24, 44), "lying": (40, 80)}  # shortest and longest, in seconds
QUIET = (30, 90)  # seconds between two events
FENCE, GROUND = 22, 58  # rows: the foot of the fence, and the nearest place to stand
COATS = np.array([[52, 60, 92], [120, 48, 44], [58, 86, 62], [150, 138, 110], [40, 40, 44], [168, 168, 172]], float)
LEGS, SKIN = (46, 46, 58), (196, 150, 124)
README = """# Drawn surveillance video

These frames are **drawings**, rendered by `cnnlab.samples.surveillance` to learn on. No person was filmed.

One fixed camera, a frame every 2 seconds. `metadata.csv` gives each frame's `day`, `time`, `seconds` (of video, from
first frame), `light` and `weather`. `samples.truth(folder)` gives the events: what happened, from when to when.
"""


def surveillance(folder: str | os.PathLike[str], *, days: int = 6, minutes: int = 30, seed: int = 0) -> Path:
    """Renders the frames of a fixed camera over a passage: `normal`, `bag`, `climbing` and `lying`, in order.

    People walk by, carry bags and stoop; that is normal. Someone lies down, leaves a bag behind or climbs the fence:
    that is an event. Half of each day's video is filmed by day, half at night; some days it rains. One frame every 2
    seconds, 64 × 96 pixels. `metadata.csv` gives day, time, seconds (of video, since the first frame), light and
    weather; sort by `seconds` to see the frames in order. `samples.truth(folder)` is the table of events: event, day,
    label, begin and end, in the same seconds.

    Args:
        folder: Where to; made if it does not exist. Complete folders are returned at once, interrupted ones continued.
        days: How many days are filmed, 1 or more. Train on some, test on others.
        minutes: Of video on each day, 4 or more.
        seed: The same seed and arguments give the same frames.

    Returns:
        The folder, ready for `tables.from_folder`.

    Raises:
        TypeError: If `seed` is not a whole number from 0.
        ValueError: If an argument is out of range.
        FileExistsError: If the folder holds anything else.

    Example:
        >>> from cnnlab import samples
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     video = samples.surveillance(folder + "/passage", days=1, minutes=4, seed=0)
        ...     samples.truth(video).columns.tolist()
        ['event', 'day', 'label', 'begin', 'end']
    """
    lowest = {"days": 1, "minutes": 4}
    days, minutes, seed = plain_numbers("samples.surveillance", lowest, seed, days=days, minutes=minutes)
    made_by = {"name": "surveillance", "version": VERSION, "days": days, "minutes": minutes, "seed": seed}
    with recipe(folder, made_by) as write:
        if write is not None:
            passage, lamp = _passage(np.random.default_rng([seed, 1]))
            frames, truth = _plan(days, minutes, seed)
            for row in progress(frames, label="surveillance"):
                rng = np.random.default_rng([seed, 3, row["number"]])
                write(row["file_name"], encoded(_frame(passage, lamp, row, rng), "JPEG", quality=row["quality"]))
            columns = ["file_name", "day", "time", "seconds", "light", "weather"]
            write("metadata.csv", pd.DataFrame(frames)[columns].to_csv(index=False, lineterminator="\n").encode())
            happened = pd.DataFrame(truth, columns=["event", "day", "label", "begin", "end"])
            write(TRUTH, happened.to_csv(index=False, lineterminator="\n").encode())
            write("README.md", README.encode())
    return Path(folder).expanduser()


def _plan(days: int, minutes: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every frame with what is on it, and the events."""
    frames: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for day in range(1, days + 1):
        rng = np.random.default_rng([seed, 2, day])
        weather = "rain" if rng.random() < 0.35 else "dry"
        quality = int(rng.integers(55, 85))
        for light, clock in (("day", "14:00"), ("night", "22:30")):
            start = datetime.fromisoformat(f"2026-03-{1:02d}T{clock}") + timedelta(days=day - 1)
            first, count = len(frames), minutes * 60 // STEP // 2
            sun = rng.uniform(0.85, 1.1) if light == "day" else rng.uniform(0.38, 0.46)
            people, events = _people(count, rng)
            for place in range(count):
                label = next((event["label"] for event in events if event["begin"] <= place < event["end"]), "normal")
                number = first + place
                frames.append(
                    {"file_name": f"{label}/frame_{number:06d}.jpg", "number": number, "day": day}
                    | {"time": (start + timedelta(seconds=place * STEP)).isoformat(), "seconds": number * STEP}
                    | {"light": light, "weather": weather, "quality": quality, "sun": sun, "people": people[place]}
                )
            for event in events:
                begin, end = ((first + event[name]) * STEP for name in ("begin", "end"))
                row = {"event": len(truth) + 1, "day": day, "label": event["label"], "begin": begin, "end": end}
                truth.append(row)
    return frames, truth


def _people(count: int, rng: Rng) -> tuple[list[list[dict[str, Any]]], list[dict[str, Any]]]:
    """What stands, walks and lies on each of `count` frames, and the events among them, in frames."""
    seen: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    events: list[dict[str, Any]] = []

    def put(place: int, **thing: Any) -> None:
        if 0 <= place < count:
            seen[place].append(thing)

    def walk(start: int, *, at: float | None = None, stay: int = 0, stooped: bool = False, bag: bool = False) -> None:
        """Someone crosses, or comes to `at`, stays for a while, and goes on."""
        pace, side = rng.uniform(7, 13), rng.choice([-1, 1])
        person = {"y": rng.uniform(FENCE + 12, GROUND), "coat": int(rng.integers(len(COATS))), "bag": bag}
        path = np.arange(-6, WIDTH + 6, pace)[::side]
        stop = len(path) if at is None else int(np.argmin(abs(path - at)))
        path = np.concatenate([path[:stop], np.full(stay, at), path[stop:]])
        for index, x in enumerate(path):
            held = stooped and stop <= index < stop + stay
            put(start + index, kind="stooping" if held else "walking", x=x, stride=index, **person)

    place = int(rng.integers(*QUIET)) // STEP
    while True:
        label = str(rng.choice(list(EVENTS)))
        length = int(rng.integers(*EVENTS[label])) // STEP
        if place + length + QUIET[0] // STEP > count:
            break
        x, coat, heading = rng.uniform(12, WIDTH - 12), int(rng.integers(len(COATS))), rng.uniform(-1, 1)
        y = FENCE if label == "climbing" else rng.uniform(FENCE + 12, GROUND)
        events.append({"label": label, "begin": place, "end": place + length})
        for index in range(length):
            put(place + index, kind=label, x=x, y=y, coat=coat, stride=index, heading=heading)
        place += length + int(rng.integers(*QUIET)) // STEP
    for start in np.flatnonzero(rng.random(count) < 0.09):  # passers-by, also while something happens
        pause = rng.random() < 0.15
        walk(
            int(start),
            at=rng.uniform(15, WIDTH - 15) if pause else None,
            stay=int(rng.integers(2, 6)) if pause else 0,
            stooped=bool(rng.random() < 0.5),
            bag=bool(rng.random() < 0.35),
        )
    return seen, events


def _passage(rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """The empty scene (wall, fence, paving, a bin that is always there), and the light of the lamp at night."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    bricks = 8 * (((x + 4 * (y // 4 % 2)) % 8 == 0) | (y % 4 == 0))
    scene = np.where((y < FENCE)[:, :, None], np.array([138, 112, 98]) - bricks[:, :, None], [126.0, 126, 122])
    slabs = (y > FENCE) & (((y - FENCE) % 10 == 0) | ((x + (y - FENCE) // 2) % 18 == 0))
    scene = scene - 12 * slabs[:, :, None] + 3 * rng.normal(0, 1, (HEIGHT, WIDTH, 1))
    scene[(y >= 8) & (y <= FENCE) & ((x % 6 == 0) | (y == 9) | (y == 20))] = [74, 78, 76]
    scene[FENCE + 2 : FENCE + 12, 80:87] = [56, 74, 60]
    lamp = 0.5 * np.exp(-((x - 34) ** 2 / 1400 + (y - 34) ** 2 / 900))
    return np.clip(np.rint(scene), 0, 255).astype(np.uint8), lamp


def _frame(passage: np.ndarray, lamp: np.ndarray, row: dict[str, Any], rng: Rng) -> np.ndarray:
    """One frame: uint8, shape (64, 96, 3), RGB."""
    night, scene, shade = row["light"] == "night", passage.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
    for thing in sorted(row["people"], key=lambda thing: thing["y"]):
        _draw(scene, shade, thing)
    light = row["sun"] * rng.uniform(0.96, 1.04) + lamp if night else row["sun"] * (1 - shade / 640)
    image = scene * light[:, :, None]
    if row["weather"] == "rain":
        drops = np.zeros((HEIGHT, WIDTH), np.uint8)
        for _ in range(20):
            at = rng.uniform(0, [WIDTH, HEIGHT])
            _line(drops, at, at + np.array([1, rng.uniform(3, 8)]), 1, 255)
        image = image + drops[:, :, None] / 9
    image = image + rng.normal(0, 6 if night else 4, (HEIGHT, WIDTH, 1))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _draw(scene: np.ndarray, shade: np.ndarray, thing: dict[str, Any]) -> None:
    """Draws one person or bag onto `scene`, and its shadow into `shade`; `x`, `y` is where it touches the ground."""
    coat, kind, x, y = COATS[thing["coat"]], thing["kind"], thing["x"], thing["y"]
    scale = 0.7 + 0.4 * (y - FENCE) / (GROUND - FENCE)
    step = 2.2 * np.cos(np.pi * thing["stride"] / 2)  # legs apart, together, apart …

    def place(across: float, up: float) -> np.ndarray:
        return np.array([x + across * scale, y - up * scale])

    def oval(across: float, up: float, wide: float, high: float, color: Any) -> None:
        middle, axes = np.rint(place(across, up) * 16).astype(int), np.rint(np.array([wide, high]) * scale * 16)
        cv2.ellipse(scene, middle.tolist(), axes.astype(int).tolist(), 0, 0, 360, color, -1, cv2.LINE_AA, shift=4)

    def limb(a: tuple[float, float], b: tuple[float, float], color: Any, wide: int = 1) -> None:
        _line(scene, place(*a), place(*b), wide, color)

    if kind == "bag":
        _line(shade, place(-2, 0), place(7, 1), 2, 255)
        oval(0, 2, 3.2, 2.2, (coat * 0.6).tolist())
        limb((-1.5, 4), (1.5, 4), (30, 28, 28))
    elif kind == "lying":
        turn = 1 if thing["heading"] > 0 else -1
        _line(shade, place(-8, -1), place(9, -1), 3, 255)
        limb((-turn * 2, 1.5), (-turn * 9, 1 + step / 3), LEGS, 2)
        oval(turn, 2, 5, 2.2, coat.tolist())
        oval(turn * 7.5, 2, 1.8, 1.8, SKIN)
    elif kind == "climbing":
        lift = min(thing["stride"], 8) * 0.8 + step / 3
        limb((-1.5, 4 + lift), (-3, lift + step), LEGS, 2)
        limb((1.5, 4 + lift), (3.5, 2 + lift - step), LEGS, 2)
        oval(0, 8 + lift, 2.6, 4.5, coat.tolist())
        limb((-2, 11 + lift), (-4, 16 + lift), coat.tolist())
        limb((2, 11 + lift), (4, 15.5 + lift), coat.tolist())
        oval(0, 14 + lift, 1.8, 1.9, SKIN)
    else:
        low = 5 if kind == "stooping" else 0
        _line(shade, place(0, 0), place(11, 3), 3, 255)
        limb((-0.5, 7 - low), (-step, 0), LEGS, 2)
        limb((0.5, 7 - low), (step, 0), LEGS, 2)
        oval(low / 3, 10 - low, 2.6 + low / 6, 4.6 - low / 5, coat.tolist())
        oval(low, 16 - 1.5 * low, 1.8, 1.9, SKIN)
        if thing["bag"]:
            oval(4.2, 5, 2.6, 1.9, (coat * 0.5).tolist())


def _line(canvas: np.ndarray, a: np.ndarray, b: np.ndarray, wide: int, color: Any) -> None:
    first, second = (np.rint(point * 16).astype(int).tolist() for point in (a, b))
    cv2.line(canvas, first, second, color, wide, cv2.LINE_AA, shift=4)

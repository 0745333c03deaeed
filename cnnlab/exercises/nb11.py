"""Exercises of 11_real_time: frames that are dropped, slow frames, a vote over frames."""

import functools
from collections import Counter
from typing import Any

import numpy as np

from cnnlab.exercises.asking import call, equal_number, exercise, expect, number

RATE, TAKES = 30, 0.05


@functools.cache
def _dropped() -> float:
    """The share of frames that nobody looks at where the newest one is always taken, played through for a minute."""
    frames = np.arange(60 * RATE) / RATE
    free, used = 0.0, 0
    for place, came in enumerate(frames):
        newer = frames[place + 1] if place + 1 < len(frames) else np.inf
        if max(free, came) < newer:  # still the newest when the model is free
            used += 1
            free = max(free, came) + TAKES
    return 1 - used / len(frames)


@exercise(
    question=f"A camera sends {RATE} frames a second, and the model takes {1000 * TAKES:.0f} ms for one. The "
    "newest frame is always taken, older ones are dropped. Which share is dropped? Calculate first.",
    answer="a number from 0 to 1",
    hints=(
        "How many frames a second can the model look at, at most?",
        "Of the 30 that come in a second it looks at 20.",
        "One minus twenty thirtieths.",
    ),
    right="Dropping is right: the alternative is a queue that grows, and answers about the past.",
)
def predict(answer: Any) -> str:
    mistakes = {
        2 / 3: "That is the share of the frames that are looked at.",
        0.5: "It takes longer than one frame, but not as long as two.",
        0.0: "A frame comes every 33 ms, and the model needs 50: not all of them can be looked at.",
        10.0: "So many a second; the question is which share of all.",
    }
    equal_number(answer, _dropped(), within=0.02, mistakes=mistakes)
    return f"Played through for a minute: {_dropped():.3f}."


@exercise(
    question="The summary says how long a frame takes in the middle. Change it to the time below which 95 of 100 "
    "frames stay: `slow(milliseconds)`.",
    answer="a function of an array of times",
    hints=(
        "A plant cares about the frames that come too late, not about the middle one.",
        "Sort the times: which place has 95 of 100 before it?",
        "numpy has a function for percentiles.",
    ),
    right="Promise that number, not the mean.",
)
def change(answer: Any) -> None:
    for seed in range(3):
        times = np.random.default_rng(seed).lognormal(2, 0.6, 400)
        found, truth = number(call(answer, times.copy())), float(np.percentile(times, 95))
        around = np.percentile(times, [94, 96])
        right = around[0] <= found <= around[1]
        expect(right or abs(found - np.median(times)) > 1e-9, "That is the median: half of the frames take longer.")
        expect(right or abs(found - times.mean()) > 1e-9, "That is the mean, which hides the slow ones.")
        expect(right or abs(found - times.max()) > 1e-9, "That is the very slowest; one accident decides it.")
        expect(right or abs(found - np.percentile(times, 5)) > 1e-9, "Those are the fastest ones: the other end.")
        expect(right, f"It gives {found:.2f} ms where numpy has {truth:.2f} ms.")


def _votes(labels: list[str], last: int) -> list[str]:
    result = []
    for place in range(len(labels)):
        counts = Counter(labels[max(0, place - last + 1) : place + 1])
        top = max(counts.values())
        result.append([name for name in labels[: place + 1][::-1] if counts.get(name) == top][0])  # noqa: RUF015
    return result


@exercise(
    question="Single frames flicker. Write `vote(labels, last)`: for each frame the most frequent label among it "
    "and the frames before it, `last` of them in all (at a tie the newest).",
    answer="a function of a list of labels and a number",
    hints=(
        "For each frame cut out a short list that ends with it.",
        "At the start the list is shorter: `labels[max(0, place - last + 1):place + 1]`.",
        "Count with `collections.Counter`; among the most frequent ones take that which came last.",
    ),
    right="Calmer, and only a few frames late.",
)
def build(answer: Any) -> None:
    rng = np.random.default_rng(0)
    for last in (3, 5, 1):
        labels = [str(name) for name in rng.choice(["good", "crack"], 40, p=[0.7, 0.3])]
        found = call(answer, list(labels), last)
        expect(found is not None and not isinstance(found, str), "Your function should return a list of names.")
        found = [str(name) for name in found]
        expect(
            len(found) == len(labels),
            f"For {len(labels)} frames it returned {len(found)} names; the first frames have a shorter past.",
        )
        truth = _votes(labels, last)
        wrong = [place for place, (a, b) in enumerate(zip(found, truth, strict=True)) if a != b]
        future = [Counter(labels[place : place + last]).most_common(1)[0][0] for place in range(len(labels))]
        expect(not wrong or found != future, "It looks at frames that have not come yet.")
        expect(
            not wrong,
            f"With last={last}, frame {wrong[0] if wrong else 0} should be {truth[wrong[0] if wrong else 0]!r}. "
            "A vote counts that frame and the ones before it.",
        )

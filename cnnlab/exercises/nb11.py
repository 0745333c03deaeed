"""Judges 11_real_time: frames that are dropped, slow frames, a vote over frames, alarms as events."""

from collections import Counter
from typing import Any

import numpy as np

from cnnlab.exercises.answers import call, equal_number, expect


def change(answer: Any) -> None:
    """A function that gives the time below which 95 of 100 frames stay."""
    for seed in range(3):
        times = np.random.default_rng(seed).lognormal(2, 0.6, 400)
        truth, low, high = np.percentile(times, [95, 94, 96])
        mistakes = {
            float(np.median(times)): "That is the median: half of the frames take longer.",
            float(times.mean()): "That is the mean, which hides the slow ones.",
            float(times.max()): "That is the very slowest; one accident decides it.",
            float(np.percentile(times, 5)): "Those are the fastest ones: the other end.",
        }
        within, words = max(truth - low, high - truth), f" ms where numpy has {truth:.2f} ms."
        equal_number(call(answer, times.copy()), truth, within=within, mistakes=mistakes, words=words)


def build(answer: Any) -> None:
    """A function that gives for each frame the most frequent of the last labels, at a tie the newest."""
    rng = np.random.default_rng(0)
    for last in (3, 5, 1):
        labels = [str(name) for name in rng.choice(["good", "crack"], 40, p=[0.7, 0.3])]
        found = call(answer, list(labels), last)
        expect(found is not None and not isinstance(found, str), "Your function should return a list of names.")
        found = [str(name) for name in found]
        words = f"For {len(labels)} frames it returned {len(found)} names; the first frames have a shorter past."
        expect(len(found) == len(labels), words)
        # of equal counts, `most_common` gives the one that it met first: from the newest back
        past = (labels[max(0, place - last + 1) : place + 1][::-1] for place in range(len(labels)))
        truth = [Counter(part).most_common(1)[0][0] for part in past]
        future = [Counter(labels[place : place + last]).most_common(1)[0][0] for place in range(len(labels))]
        expect(found == truth or found != future, "It looks at frames that have not come yet.")
        for place, (name, right) in enumerate(zip(found, truth, strict=True)):
            words = (
                f"With last={last}, frame {place} should be {right!r}. A vote counts that frame and the ones before it."
            )
            expect(name == right, words)


def score_alarms(answer: Any) -> None:
    """A function that counts the events that have an alarm, and the alarms that have no event."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        begin = np.cumsum(rng.integers(30, 80, 12))
        events = [(int(second), int(second + rng.integers(5, 25))) for second in begin]
        alarms = [*rng.integers(0, events[-1][1], 14).tolist(), events[0][0], events[0][1], events[1][1]]
        inside = [[low <= second <= high for low, high in events] for second in alarms]
        truth = int(np.any(inside, axis=0).sum()), int((~np.any(inside, axis=1)).sum())
        result = call(answer, list(alarms), list(events))
        expect(isinstance(result, tuple | list) and len(result) == 2, "Your function should return two numbers.")
        hits = int(np.any(inside, axis=1).sum())
        mistakes = {
            float(hits): "Those are the alarms that lie in an event; an event counts once, however many alarms it has."
        }
        equal_number(result[0], truth[0], mistakes=mistakes, words=f" events found where {truth[0]} have an alarm.")
        equal_number(result[1], truth[1], words=f" false alarms where {truth[1]} lie in no event.")

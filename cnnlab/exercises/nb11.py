"""Judges 11_real_time: frames that are dropped, slow frames, a vote over frames."""

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

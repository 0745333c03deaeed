"""Exercises of 11_real_time: frames that are dropped, slow frames, a vote over frames."""

from collections import Counter
from typing import Any

import numpy as np

from cnnlab.exercises.asking import call, equal_number, exercise, expect

DROPPED = 1 - 20 / 30  # the model looks at 20 of the 30 frames of a second


@exercise
def predict(answer: Any) -> None:
    """A camera sends 30 frames a second, and the model takes 50 ms for one. The newest frame is always taken, older
    ones are dropped. Which share is dropped? Calculate first.

    Answer: a number from 0 to 1
    Hint: How many frames a second can the model look at, at most?
    Hint: Of the 30 that come in a second it looks at 20.
    Hint: One minus twenty thirtieths.
    Right: Dropping is right: the alternative is a queue that grows, and answers about the past.
    """
    mistakes = {
        2 / 3: "That is the share of the frames that are looked at.",
        0.5: "It takes longer than one frame, but not as long as two.",
        0.0: "A frame comes every 33 ms, and the model needs 50: not all of them can be looked at.",
        10.0: "So many a second; the question is which share of all.",
    }
    equal_number(answer, DROPPED, within=0.02, mistakes=mistakes)


@exercise
def change(answer: Any) -> None:
    """The summary says how long a frame takes in the middle. Change it to the time below which 95 of 100 frames stay:
    `slow(milliseconds)`.

    Answer: a function of an array of times
    Hint: A plant cares about the frames that come too late, not about the middle one.
    Hint: Sort the times: which place has 95 of 100 before it?
    Hint: numpy has a function for percentiles.
    Right: Promise that number, not the mean.
    """
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


def _votes(labels: list[str], last: int) -> list[str]:
    result = []
    for place in range(len(labels)):
        counts = Counter(labels[max(0, place - last + 1) : place + 1])
        top = max(counts.values())
        result.append([name for name in labels[: place + 1][::-1] if counts.get(name) == top][0])  # noqa: RUF015
    return result


@exercise
def build(answer: Any) -> None:
    """Single frames flicker. Write `vote(labels, last)`: for each frame the most frequent label among it and the frames
    before it, `last` of them in all (at a tie the newest).

    Answer: a function of a list of labels and a number
    Hint: For each frame cut out a short list that ends with it.
    Hint: At the start the list is shorter: `labels[max(0, place - last + 1):place + 1]`.
    Hint: Count with `collections.Counter`; among the most frequent ones take that which came last.
    Right: Calmer, and only a few frames late.
    """
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

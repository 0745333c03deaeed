"""Judges 04_augmentation: what changes a label, the units of a policy, a policy for street signs, a choice."""

import functools
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cnnlab import augment
from cnnlab.exercises.answers import call, choices, expect, expect_type

ASKED = augment.Policy(flip="both", rotate=180, shift=0.05, brightness=0.1, hue=0.3, grayscale=0.5)
TOMATOES = np.array([(200, 40, 30), (215, 150, 40), (70, 140, 50)], np.uint8)  # ripe, half ripe, unripe


@functools.cache
def _harmful() -> frozenset[str]:
    """The operations of `ASKED` after which some tomatoes look more like those of another class."""
    images = np.tile(TOMATOES[:, None, None], (50, 16, 16, 1))
    found = []
    for operation in ASKED.operations:
        single = ASKED.only(operation)
        seen = single.apply(images, single.sample(len(images), seed=0)).mean(axis=(1, 2))
        nearest = np.linalg.norm(seen[:, None] - TOMATOES.astype(float), axis=2).argmin(axis=1)
        if (nearest != np.tile([0, 1, 2], 50)).any():
            found.append(operation)
    return frozenset(found)


def predict(answer: Any) -> None:
    """The operations that put a tomato into another class."""
    chosen = choices(answer, ASKED.operations)
    harmless = sorted(chosen - _harmful())
    expect(not harmless, f"{', '.join(harmless)}: a tomato so changed still goes into the same box.")
    missed = len(_harmful() - chosen)
    begin = "Right so far, but" if chosen else "Not every one of them is harmless:"
    expect(not missed, f"{begin} {missed} more of them would put a tomato into another box.")


def _policy(answer: Any) -> augment.Policy:
    expect_type(answer, augment.Policy, "an `augment.Policy`")
    return answer


def change(answer: Any) -> None:
    """The policy `medium` of the notebook, with brightness 0.2 and noise 6."""
    policy, before = _policy(answer), {"rotate": 10, "zoom": 0.1, "shift": 0.1, "shear": 5}
    lost = [name for name, value in before.items() if getattr(policy, name) != value]
    expect(not lost, f"The rest should stay as it was, but {', '.join(lost)} changed.")
    words = f"Brightness changes by up to {policy.brightness:.1%} of the range, not by a fifth."
    expect(abs(policy.brightness - 0.2) < 1e-9, words)
    expect(policy.noise, "There is no noise.")
    expect(abs(policy.noise - 6) < 1e-9, f"The noise is at most {policy.noise:.3g} grey levels of 255, not 6.")
    others = set(policy.operations) - {*before, "brightness", "noise"}
    expect(not others, f"Nobody asked for {', '.join(sorted(others))}.")


def _sign() -> np.ndarray:
    """A white arrow to the left on a blue sign, 48 × 48."""
    image = np.full((48, 48, 3), (20, 60, 160), np.uint8)
    image[21:27, 14:38] = 240
    for step in range(10):
        image[24 - step : 24 + step, 8 + step] = 240
    return image


def _fit(images: np.ndarray) -> np.ndarray:
    """How well each image fits the arrow, wherever it is, when it points left, down, right and up."""
    arrow = _sign()[13:35, 6:40, 0]
    templates = [np.rot90(arrow, turns).copy() for turns in range(4)]
    wide = [cv2.copyMakeBorder(image[..., 0], 8, 8, 8, 8, cv2.BORDER_REPLICATE) for image in images]
    return np.array([[cv2.matchTemplate(one, like, cv2.TM_CCOEFF_NORMED).max() for like in templates] for one in wide])


def build(answer: Any) -> None:
    """A policy after which a sign stays readable, of its colour and direction, and varies in light and place."""
    policy = _policy(answer)
    expect(policy.operations, "It does nothing at all.")
    expect(not policy.mixes, "It blends signs with one another, so that no single sign is left to point at.")
    expect(policy.flip not in ("vertical", "both"), "Half of its signs stand on their head.")
    changed = policy.apply(np.repeat(_sign()[None], 300, axis=0), policy.sample(300, seed=0))
    fit, (red, _, blue) = _fit(changed), np.moveaxis(changed.mean(axis=(1, 2)), -1, 0)
    for wrong, words in (
        (
            fit.argmax(axis=1) != 0,
            "After it, {:.0%} of the signs “turn left” point another way, or nowhere: an accident.",
        ),
        (red > blue + 5, "After it, {:.0%} of the blue signs are of another colour, and so mean something else."),
        (
            (fit[:, 0] < 0.6) | (np.ptp(changed[..., 0], axis=(1, 2)) < 60),
            "Far too much: after it, nobody could read {:.0%} of the signs.",
        ),
    ):
        expect(wrong.mean() <= 0.02, words.format(wrong.mean()))
    # the least of an operation that anybody would notice
    light = policy.brightness >= 0.04 or policy.contrast >= 0.08
    expect(light, "Signs stand in sun and in shade, and this policy shows them in one light only.")
    least = {"rotate": 2, "zoom": 0.03, "shift": 0.02, "shear": 2, "crop": 0.05}
    moves = any(getattr(policy, name) >= amount for name, amount in least.items())
    expect(moves, "Signs are seen from near and far, and a little askew; this policy never moves them.")


# Accuracies on training, validation and test images over three seeds: each policy wins by another rule.
RUNS = {
    "": ((0.95, 0.95, 0.95), (0.89, 0.91, 0.90), (0.90, 0.90, 0.90)),
    "by its accuracy on the test images, which must have no say": ((0.94,) * 3, (0.85, 0.86, 0.84), (0.97, 0.97, 0.97)),
    "by its accuracy on the images it learned from": ((1.0,) * 3, (0.83, 0.82, 0.84), (0.82,) * 3),
    "by its luckiest seed": ((0.96,) * 3, (0.97, 0.80, 0.79), (0.86,) * 3),
    "by its unluckiest seed": ((0.95,) * 3, (0.895, 0.895, 0.895), (0.89,) * 3),
    "by its smallest gap": ((0.70,) * 3, (0.75, 0.75, 0.75), (0.75,) * 3),
}


def choose(answer: Any) -> None:
    """A function that gives the policy with the highest mean validation accuracy."""
    for seed in range(3):
        names = np.random.default_rng(seed).permutation(["none", "light", "medium", "strong", "turn", "blur"])
        rows = []
        for name, accuracies in zip(names, RUNS.values(), strict=True):
            for place, (train, val, test) in enumerate(zip(*accuracies, strict=True)):
                rows.append({"policy": name, "seed": place, "train": train, "val": val, "test": test})
        found = call(answer, pd.DataFrame(rows).sample(frac=1, random_state=seed, ignore_index=True))
        expect_type(found, str, "the name of a policy")
        expect(found in names, f"Expected one of {', '.join(sorted(names))}. Received {found!r}.")
        rule = dict(zip(names, RUNS, strict=True))[found]
        expect(not rule, f"It chose a policy {rule}. Take the mean over all seeds on the validation images.")

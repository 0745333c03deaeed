"""Exercises of 04_augmentation: what changes a label, the units of a policy, a policy for street signs."""

import functools
from typing import Any

import cv2
import numpy as np

from cnnlab import augment
from cnnlab.exercises.asking import Off, choices, exercise, expect, kind_of

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


@exercise
def predict(answer: Any) -> None:
    """Tomatoes are sorted into ripe (red), half ripe (yellow) and unripe (green). Which of these change what such a
    picture means: `flip` (both), `rotate` (180), `shift` (0.05), `brightness` (0.1), `hue` (0.3), `grayscale` (0.5)?
    Hand in a list of names.

    Answer: a list of names
    Hint: Imagine each picture after it: would you still put the tomato into the same box?
    Hint: A tomato has no up and down. What is it that tells the three classes apart?
    Hint: Light and a small shift happen to every photograph; a tomato of another colour belongs into another box.
    Right: What is right for a 6 is wrong for a tomato: always ask what the label means.
    """
    chosen = choices(answer, ASKED.operations)
    harmless = sorted(chosen - _harmful())
    expect(not harmless, f"{', '.join(harmless)}: a tomato so changed still goes into the same box.")
    missed = len(_harmful() - chosen)
    expect(not missed, f"Right so far, but {missed} more of them changes into which box it goes.")


@exercise
def change(answer: Any) -> None:
    """Change `medium` so that it also makes images up to a fifth of the range brighter or darker, and adds noise of up
    to 6 grey levels. Everything else stays. Hand in the policy.

    Answer: an `augment.Policy`
    Hint: `brightness` is a fraction of the range; `noise` is in grey levels from 0 to 255.
    Hint: `a | b` joins two policies; where both set the same operation, the right one counts.
    Hint: `medium | augment.Policy(brightness=…, noise=…)`, in the units of the first hint.
    Right: Units are the commonest mistake with augmentation; you have got them right.
    """
    policy = _policy(answer)
    before = {"rotate": 10, "zoom": 0.1, "shift": 0.1, "shear": 5}
    lost = [name for name, value in before.items() if getattr(policy, name) != value]
    expect(not lost, f"The rest should stay as it was, but {', '.join(lost)} changed.")
    expect(
        abs(policy.brightness - 0.2) < 1e-9,
        f"Brightness changes by up to {policy.brightness:.1%} of the range, not by a fifth.",
    )
    expect(policy.noise, "There is no noise.")
    expect(abs(policy.noise - 6) < 1e-9, f"The noise is at most {policy.noise:.3g} grey levels of 255, not 6.")
    others = set(policy.operations) - {*before, "brightness", "noise"}
    expect(not others, f"Nobody asked for {', '.join(sorted(others))}.")


def _policy(answer: Any) -> augment.Policy:
    if not isinstance(answer, augment.Policy):
        raise Off(f"Expected an `augment.Policy`. Received {kind_of(answer)}.")
    return answer


def _sign() -> np.ndarray:
    """A white arrow to the left on a blue sign, 48 × 48."""
    image = np.full((48, 48, 3), (20, 60, 160), np.uint8)
    image[21:27, 14:38] = 240
    for step in range(10):
        image[24 - step : 24 + step, 8 + step] = 240
    return image


def _likeness(images: np.ndarray) -> np.ndarray:
    """How alike each image is to the arrow, wherever it is, when it points left, down, right and up."""
    arrow = _sign()[13:35, 6:40, 0]
    templates = [np.rot90(arrow, turns).copy() for turns in range(4)]
    wide = [cv2.copyMakeBorder(image[..., 0], 8, 8, 8, 8, cv2.BORDER_REPLICATE) for image in images]
    return np.array([[cv2.matchTemplate(one, like, cv2.TM_CCOEFF_NORMED).max() for like in templates] for one in wide])


# The least of an operation that anybody would notice.
LIGHT = {"brightness": 0.04, "contrast": 0.08}
MOVES = {"rotate": 2, "zoom": 0.03, "shift": 0.02, "shear": 2, "crop": 0.05}


@exercise
def build(answer: Any) -> None:
    """Write a policy for photographs of street signs, and defend each of its numbers. The check shows it an arrow to
    the left, three hundred times.

    Answer: an `augment.Policy`
    Hint: What happens to a sign on the road: weather, distance, a bent post?
    Hint: What never happens to it? An arrow to the left has a mirror image that means something else.
    Hint: Small `rotate`, `zoom` and `shift`, some `brightness` and `contrast`, and no `flip`.
    Right: The arrow still points left, in any weather.
    """
    policy = _policy(answer)
    expect(policy.operations, "It does nothing at all.")
    expect(not policy.mixes, "It blends signs with one another, so that no single sign is left to point at.")
    expect(policy.flip not in ("vertical", "both"), "Half of its signs stand on their head.")
    images = np.repeat(_sign()[None], 300, axis=0)
    changed = policy.apply(images, policy.sample(300, seed=0))
    alike = _likeness(changed)
    turned = float((alike.argmax(axis=1) != 0).mean())
    expect(
        turned <= 0.02,
        f"After it, {turned:.0%} of the signs “turn left” point another way, or nowhere: an accident.",
    )
    red = float((changed[..., 0].mean(axis=(1, 2)) > changed[..., 2].mean(axis=(1, 2)) + 5).mean())
    expect(red <= 0.02, f"After it, {red:.0%} of the blue signs are of another colour, and so mean something else.")
    lost = float(((alike[:, 0] < 0.6) | (np.ptp(changed[..., 0], axis=(1, 2)) < 60)).mean())
    expect(lost <= 0.02, f"Far too much: after it, nobody could read {lost:.0%} of the signs.")
    for kinds, words in (
        (LIGHT, "Signs stand in sun and in shade, and this policy shows them in one light only."),
        (MOVES, "Signs are seen from near and far, and a little askew; this policy never moves them."),
    ):
        expect(any(getattr(policy, name) >= least for name, least in kinds.items()), words)

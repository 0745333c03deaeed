"""Exercises of 04_augmentation: what changes a label, the units of a policy, a policy for street signs."""

import functools
import tempfile
import warnings
from typing import Any

import cv2
import numpy as np

from cnnlab import augment, samples, tables
from cnnlab.exercises.asking import Exercise, Off, choices, expect, kind_of

ASKED = augment.Policy(flip="horizontal", rotate=180, shift=0.05, brightness=0.2)


@functools.cache
def _harmful() -> frozenset[str]:
    """The operations of `ASKED` that cost accuracy on the digits."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdicts = augment.check(ASKED, tables.from_folder(samples.digits(folder + "/digits")))
    return frozenset(verdicts.loc[verdicts["verdict"] == "likely changes labels", "operation"])


def _harm(answer: Any) -> None:
    chosen = choices(answer, ASKED.operations)
    harmless = sorted(chosen - _harmful())
    expect(not harmless, f"{', '.join(harmless)}: no harm seen; a digit so changed is still the same digit.")
    missed = len(_harmful() - chosen)
    expect(not missed, f"Right so far, but {missed} more of them changes what a digit is.")


def _policy(answer: Any) -> augment.Policy:
    if not isinstance(answer, augment.Policy):
        raise Off(f"Expected an `augment.Policy`. Received {kind_of(answer)}.")
    return answer


def _units(answer: Any) -> None:
    policy = _policy(answer)
    before = {"rotate": 10, "zoom": 0.1, "shift": 0.1, "shear": 5}
    lost = [name for name, value in before.items() if getattr(policy, name) != value]
    expect(not lost, f"The rest should stay as it was, but {', '.join(lost)} changed.")
    drawn = policy.draw(2000, seed=0)
    brightness = float(np.abs(drawn["brightness"]).max()) if "brightness" in drawn else 0.0
    noise = float(np.abs(drawn["noise"]).max()) if "noise" in drawn else 0.0
    expect(brightness, "Brightness does not change.")
    expect(
        abs(policy.brightness - 0.2) < 1e-9,
        f"Brightness changes by up to {policy.brightness:.1%} of the range, not by a fifth.",
    )
    expect(noise, "There is no noise.")
    expect(
        abs(policy.noise - 6) < 1e-9,
        f"The noise is at most {policy.noise:.3g} grey levels of 255, not 6.",
    )
    others = set(policy.operations) - {*before, "brightness", "noise"}
    expect(not others, f"Nobody asked for {', '.join(sorted(others))}.")


def _arrow() -> np.ndarray:
    """A white arrow to the left on a blue sign, 48 × 48."""
    image = np.full((48, 48, 3), (20, 60, 160), np.uint8)
    image[21:27, 14:38] = 240
    for step in range(10):
        image[24 - step : 24 + step, 8 + step] = 240
    return image


def _pointed(images: np.ndarray) -> np.ndarray:
    """Which way the arrows point, wherever they are: 0 left, 1 down, 2 right, 3 up."""
    arrow = _arrow()[13:35, 6:40, 0]
    templates = [np.rot90(arrow, turns).copy() for turns in range(4)]
    wide = [cv2.copyMakeBorder(image[..., 0], 8, 8, 8, 8, cv2.BORDER_REPLICATE) for image in images]
    likeness = [[cv2.matchTemplate(one, like, cv2.TM_CCOEFF_NORMED).max() for like in templates] for one in wide]
    return np.asarray(likeness).argmax(axis=1)


def _street_signs(answer: Any) -> None:
    policy = _policy(answer)
    expect(policy.operations, "It does nothing at all.")
    expect(not policy.mixes, "It blends signs with one another, so that no single sign is left to point at.")
    images = np.repeat(_arrow()[None], 300, axis=0)
    changed = policy.apply(images, policy.draw(300, seed=0))
    turned = 1 - float((_pointed(changed) == 0).mean())
    expect(
        turned <= 0.02,
        f"After it, {turned:.0%} of the signs “turn left” point another way, or nowhere: an accident.",
    )
    light = {"brightness", "contrast"} & set(policy.operations)
    expect(light, "Signs stand in sun and in shade, and this policy shows them in one light only.")
    moved = {"rotate", "zoom", "shift", "shear", "crop"} & set(policy.operations)
    expect(moved, "Signs are seen from near and far, and a little askew; this policy never moves them.")


EXERCISES = (
    Exercise(
        question="Which of these change what a handwritten digit is: `flip` (horizontal), `rotate` (180), `shift` "
        "(0.05), `brightness` (0.2)? Hand in a list of names; the check asks `augment.check`.",
        answer="a list of names",
        hints=(
            "Imagine each digit after it: would you still write down the same number?",
            "Think of 6 and 9, and of 2 and 5.",
            "Light and a small shift happen to every photograph; mirrors and handstands do not happen to digits.",
        ),
        right="What is right for a scratch is wrong for a 6: always ask what the label means.",
        judge=_harm,
    ),
    Exercise(
        question="Change `medium` so that it also makes images up to a fifth of the range brighter or darker, and adds "
        "noise of up to 6 grey levels. Everything else stays. Hand in the policy.",
        answer="an `augment.Policy`",
        hints=(
            "`brightness` is a fraction of the range; `noise` is in grey levels from 0 to 255.",
            "`a | b` joins two policies; where both set the same operation, the right one counts.",
            "`medium | augment.Policy(brightness=…, noise=…)`, in the units of the first hint.",
        ),
        right="Units are the commonest mistake with augmentation; you have got them right.",
        judge=_units,
    ),
    Exercise(
        question="Write a policy for photographs of street signs, and defend each of its numbers. The check shows "
        "it an arrow to the left, three hundred times.",
        answer="an `augment.Policy`",
        hints=(
            "What happens to a sign on the road: weather, distance, a bent post?",
            "What never happens to it? An arrow to the left has a mirror image that means something else.",
            "Small `rotate`, `zoom` and `shift`, some `brightness` and `contrast`, and no `flip`.",
        ),
        right="The arrow still points left, in any weather.",
        judge=_street_signs,
    ),
)

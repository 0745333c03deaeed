"""Drawings of moles on the skin of patients: a rare malignant class, six skin tones, several pictures a patient."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from cnnlab._common import progress
from cnnlab.samples.folder import encoded, plain_numbers, plain_share, recipe
from cnnlab.samples.metal import Rng, lines

VERSION = 1  # raise it when the pictures change, so that old folders are told from new ones
TONES = ("I", "II", "III", "IV", "V", "VI")
LIGHT_SHARES, DARK_SHARES = (0.3, 0.3, 0.24, 0.16), (0.55, 0.45)  # of tones I to IV, and of V and VI
SKIN = np.array([[236, 205, 188], [226, 187, 163], [206, 160, 130], [172, 122, 92], [122, 82, 60], [84, 56, 44]], float)
CONTRAST = (1.0, 0.97, 0.9, 0.8, 0.5, 0.4)  # of a mole against skin of each tone
TINT = {"clinic": (1.0, 1.0, 1.0), "phone": (1.04, 1.0, 0.94), "van": (0.96, 1.0, 1.05)}  # red, green, blue
ABSORBS = {  # how much of red, green and blue light a pigment takes
    "brown": (0.40, 0.55, 0.62),
    "black": (0.72, 0.76, 0.76),
    "blue": (0.58, 0.50, 0.36),
    "red": (0.12, 0.50, 0.48),
    "white": (-0.06, -0.10, -0.12),
}
README = """# Drawn skin lesions

These pictures are **drawings**, rendered by `cnnlab.samples.lesions` to learn on. No patient exists, no doctor has seen
them, and nothing that is trained on them is a medical device or says anything about a real mole.

They follow the ABCD rule of dermoscopy: asymmetry, border, colour, diameter. `metadata.csv` names for each picture the
`patient` (2 to 6 pictures of one mole), the skin `tone` (I to VI, after Fitzpatrick) and the `device`.
"""


def lesions(
    folder: str | os.PathLike[str],
    *,
    patients: int = 300,
    size: int = 64,
    imbalance: float = 8.0,
    dark: float = 0.12,
    seed: int = 0,
) -> Path:
    """Renders drawings of moles, `benign` and (rarely) `malignant`, as a dermatoscope would show them.

    These are drawings to learn on, not medical data: nothing trained on them says anything about a real mole. They
    follow the ABCD rule (asymmetry, border, colour, diameter). A patient is photographed 2 to 6 times, so a split that
    ignores `patient` puts pictures of one mole on both sides. On tones V and VI a mole stands out less.
    `metadata.csv` in the folder gives patient, tone and device; `tables.from_folder` reads it.

    Args:
        folder: Where to; made if it does not exist. Complete folders are returned at once, interrupted ones continued.
        patients: How many, 2 or more; four pictures each on average.
        size: Height and width in pixels, 32 or more.
        imbalance: Patients with a benign mole for one with a malignant one.
        dark: Share of patients with tone V or VI, from 0 to 1, in each class.
        seed: The same seed and arguments give the same images.

    Returns:
        The folder, ready for `tables.from_folder`.

    Raises:
        TypeError: If `seed` is not a whole number from 0.
        ValueError: If an argument is out of range.
        FileExistsError: If the folder holds anything else.

    Source:
        The ABCD rule: Stolz et al. (1994). Tones: Fitzpatrick (1988).

    Example:
        >>> from cnnlab import samples, tables
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.lesions(folder + "/moles", patients=9, size=32, seed=0))
        ...     table.groupby("label", observed=True)["patient"].nunique().to_dict()
        {'benign': 8, 'malignant': 1}
    """
    lowest = {"patients": 2, "size": 32, "imbalance": 1.0}
    given = {"patients": patients, "size": size, "imbalance": imbalance}
    patients, size, imbalance, seed = plain_numbers("samples.lesions", lowest, seed, **given)
    dark = plain_share("dark", dark, of="patients")
    made_by = {"name": "lesions", "version": VERSION, "patients": patients, "size": size}
    made_by |= {"imbalance": imbalance, "dark": dark, "seed": seed}
    with recipe(folder, made_by) as write:
        if write is not None:
            pictures = _plan(patients, imbalance, dark, seed)
            for row in progress(pictures, label="lesions"):
                number = row["patient"]
                if row["visit"] == 0:
                    skin = _skin(row, size, np.random.default_rng([seed, 2, number]))
                rng = np.random.default_rng([seed, 3, number, row["visit"]])
                write(row["file_name"], encoded(_photograph(skin, row["device"], size, rng), "JPEG", quality=92))
            table = pd.DataFrame(pictures).drop(columns=["visit", "label"])
            table["patient"] = [f"P{number:04d}" for number in table["patient"]]
            write("metadata.csv", table.to_csv(index=False, lineterminator="\n").encode())
            write("README.md", README.encode())
    return Path(folder).expanduser()


def _plan(patients: int, imbalance: float, dark: float, seed: int) -> list[dict[str, Any]]:
    """One row per picture. Shares hold exactly, up to rounding, so that a small folder has its malignant moles, too."""
    rng = np.random.default_rng([seed, 1])
    malignant = max(1, round(patients / (1 + imbalance)))
    rows: list[dict[str, Any]] = []
    order = rng.permutation(patients)  # the number of a patient does not tell the class
    for label, count, first in (("malignant", malignant, 0), ("benign", patients - malignant, malignant)):
        is_dark = rng.permutation(np.arange(count) < round(dark * count))
        for patient, dark_one in zip(order[first : first + count], is_dark, strict=True):
            tone = rng.choice(TONES[4:], p=DARK_SHARES) if dark_one else rng.choice(TONES[:4], p=LIGHT_SHARES)
            person = {"patient": int(patient), "tone": str(tone), "device": str(rng.choice(list(TINT)))}
            rows += [{"label": label, **person, "visit": visit} for visit in range(rng.integers(2, 7))]
    for number, index in enumerate(rng.permutation(len(rows))):
        rows[index]["file_name"] = f"{rows[index]['label']}/lesion_{number:05d}.jpg"
    return sorted(rows, key=lambda row: (row["patient"], row["visit"]))


def _skin(row: dict[str, Any], size: int, rng: Rng) -> np.ndarray:
    """What all pictures of a patient share: skin, mole and hair, on half as much room again as a picture shows."""
    tone, room = TONES.index(row["tone"]), 3 * size // 2
    y, x = (np.mgrid[0:room, 0:room] + 0.5 - room / 2) / size
    image = SKIN[tone] * rng.uniform(0.92, 1.08) * rng.uniform(0.97, 1.03, 3)
    image = image * (1 + 0.05 * _texture(x, y, rng, (9, 22))[:, :, None])
    image = image * (1 - _pigment(x, y, row["label"] == "malignant", rng) * CONTRAST[tone])
    for _ in range(rng.poisson(4)):
        heading = rng.uniform(0, 2 * np.pi) + rng.uniform(-1, 1) * np.linspace(0, 1, 12)
        steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * size * rng.uniform(0.02, 0.08)
        image = image * (1 - 0.55 * lines(room, [rng.uniform(0, room, 2) + np.cumsum(steps, axis=0)], 1)[:, :, None])
    return image


def _photograph(skin: np.ndarray, device: str, size: int, rng: Rng) -> np.ndarray:
    """One picture: the camera is turned, moved and lit a little differently on each visit."""
    middle = skin.shape[0] / 2
    held = cv2.getRotationMatrix2D((middle, middle), np.degrees(rng.normal(0, 0.35)), rng.uniform(0.92, 1.08))
    held[:, 2] += size / 2 - middle + rng.normal(0, 0.05 * size, 2)
    image = cv2.warpAffine(skin, held, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    vignette = 1 - rng.uniform(0.2, 0.7) * (x**2 + y**2)
    image = image * (vignette * rng.uniform(0.88, 1.12))[:, :, None] * TINT[device]
    image = cv2.GaussianBlur(image, (0, 0), size / 96 * rng.uniform(0.3, 0.7))
    return np.clip(np.rint(image + rng.normal(0, 4, (size, size, 1))), 0, 255).astype(np.uint8)


def _pigment(x: np.ndarray, y: np.ndarray, malignant: bool, rng: Rng) -> np.ndarray:
    """What the mole takes of red, green and blue, 0-1, shape (size, size, 3).

    Each of A, B, C and D is a strength from 0 to 1. A malignant mole has most of them, a benign one may have one.
    """
    if malignant:
        traits = rng.uniform(0.7, 1.0, 4)
        traits[rng.integers(4)] *= rng.uniform(0, 0.5)
    else:
        traits = rng.uniform(0.0, 0.25, 4)
        if rng.random() < 0.35:
            traits[rng.integers(4)] = rng.uniform(0.35, 0.8)
    asymmetry, border, colour, diameter = traits
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    outline = 1 + rng.uniform(0.03, 0.12) * np.cos(2 * angle + rng.uniform(0, 2 * np.pi))
    for waves in (1, 3):
        outline += 0.2 * asymmetry * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    for waves in rng.integers(5, 13, 4):
        outline += 0.08 * border * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    edge = rng.uniform(0.02, 0.035) * (1 - 0.6 * border)
    inside = 1 / (
        1 + np.exp(np.clip((radius - rng.uniform(0.15, 0.24) * (1 + 0.15 * diameter) * outline) / edge, -30, 30))
    )
    depth = rng.uniform(0.55, 1.05) * (1 + 0.12 * _texture(x, y, rng, (5, 16)))
    pigment = np.full((*x.shape, 3), ABSORBS["brown"])
    for name in (rng.choice(["black", "blue"]), rng.choice(["red", "white"])):  # dark and light: the mean says little
        at, wide = rng.uniform(-0.13, 0.13, 2), rng.uniform(0.05, 0.09)
        spot = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * wide**2))[:, :, None]
        pigment += min(1.0, 1.3 * colour) * spot * (np.array(ABSORBS[name]) - pigment)
    return inside[:, :, None] * depth[:, :, None] * pigment


def _texture(x: np.ndarray, y: np.ndarray, rng: Rng, waves: tuple[float, float]) -> np.ndarray:
    """Mottling of standard deviation near 1 that stays with the skin, however the camera is held: a sum of waves."""
    total = np.zeros_like(x)
    for _ in range(6):
        turn, length, phase = rng.uniform(0, np.pi), rng.uniform(*waves), rng.uniform(0, 2 * np.pi)
        total += np.cos(2 * np.pi * length * (x * np.cos(turn) + y * np.sin(turn)) + phase)
    return total / np.sqrt(3)

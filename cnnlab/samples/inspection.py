"""A factory camera over brushed metal: parts with known defects, and planted problems whose truth is known."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cnnlab._common import progress
from cnnlab.samples import metal
from cnnlab.samples.folder import TRUTH, encoded, plain_numbers, plain_share, recipe

CAMERAS = ("north", "south", "west")
SHIFTS = ("day", "night")
PLANTS = ("wrong_labels", "broken", "copies", "near_copies", "hard_camera")


def inspection(
    folder: str | os.PathLike[str],
    *,
    per_class: int = 250,
    size: int = 96,
    imbalance: float = 1.0,
    plant: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Path:
    """Renders photographs of brushed metal parts: good ones and five kinds of defect, as JPEG files.

    Position, direction, size, light and grain differ from image to image, and harmless look-alikes (dust, polishing
    lines, reflections) are everywhere, so that a linear model on pixels fails where a convolutional network does not.
    `metadata.csv` in the folder tells camera and shift of each image; `tables.from_folder` reads it.

    Args:
        folder: Where to; made if it does not exist. Complete folders are returned at once, interrupted ones continued.
        per_class: Images of the class "good", and of each defect where `imbalance` is 1.
        size: Height and width in pixels, 32 or more.
        imbalance: How many good parts there are for one of each defect; 50 means 1:50.
        plant: Problems to hide, each a share of all images from 0 to 0.5: "wrong_labels" (filed under a wrong class),
            "broken" (cut off or not an image), "copies" (same bytes, other name), "near_copies" (resized,
            recompressed, mirrored, brightened). "hard_camera" from 0 to 1 instead takes that much of the contrast
            of the defects under the camera "west". `samples.truth(folder)` tells what was planted.
        seed: The same seed and arguments give the same images.

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
        ...     parts = samples.inspection(folder + "/parts", per_class=2, size=32, seed=0)
        ...     sorted(path.name for path in parts.iterdir() if path.is_dir())
        ['crack', 'good', 'inclusion', 'pit', 'scratch', 'stain']
    """
    lowest = {"per_class": 1, "size": 32, "imbalance": 1.0}
    given = {"per_class": per_class, "size": size, "imbalance": imbalance}
    per_class, size, imbalance, seed = plain_numbers("samples.inspection", lowest, seed, **given)
    plant = dict(plant or {})
    for name, share in plant.items():
        if name not in PLANTS:
            raise ValueError(f"`plant` knows {', '.join(PLANTS)}. Received: {name!r}.")
        highest = 1.0 if name == "hard_camera" else 0.5
        plant[name] = plain_share(f"plant[{name!r}]", share, of="images", highest=highest)
    made_by = {"name": "inspection", "version": metal.VERSION, "per_class": per_class, "size": size}
    made_by |= {"imbalance": imbalance, "plant": plant, "seed": seed}
    folder = Path(folder).expanduser()
    with recipe(folder, made_by) as write:
        if write is not None:
            parts = _plan(per_class, imbalance, plant, seed)
            for part in progress(parts, label="inspection"):
                write(part["path"], _photograph(part, size, plant.get("hard_camera", 0.0), seed))
            table = pd.DataFrame(parts)
            metadata = table[["path", "camera", "shift"]].rename(columns={"path": "file_name"})
            write("metadata.csv", metadata.to_csv(index=False, lineterminator="\n").encode())
            truth = table[["path", "true_label", "planted", "picture"]]
            write(TRUTH, truth.to_csv(index=False, lineterminator="\n").encode())
    return folder


def _plan(per_class: int, imbalance: float, plant: dict[str, float], seed: int) -> list[dict]:
    """Decides what every file shows before any is rendered, so that an interrupted run continues identically."""
    rng = np.random.default_rng([seed, 1])
    rare = max(1, round(per_class / imbalance))
    labels = [name for name in metal.CLASSES for _ in range(per_class if name == "good" else rare)]
    parts = [
        {"true_label": label, "label": label, "picture": picture, "planted": "", "form": ""}
        | {"camera": str(rng.choice(CAMERAS)), "shift": str(rng.choice(SHIFTS))}
        for picture, label in enumerate(labels)
    ]
    # Shares are of all images, copies included, so that a share of 0.05 plants 5 in 100 files.
    originals = len(parts)
    total = originals / max(1 - plant.get("copies", 0.0) - plant.get("near_copies", 0.0), 0.5)
    free = list(rng.permutation(originals))
    for name, planted in (("broken", "broken"), ("wrong_labels", "wrong label")):
        for _ in range(round(plant.get(name, 0.0) * total)):
            part = parts[free.pop()]
            part["planted"] = planted
            if planted == "wrong label":
                part["label"] = str(rng.choice([label for label in metal.CLASSES if label != part["label"]]))
    for name, planted in (("copies", "copy"), ("near_copies", "near copy")):
        for _ in range(round(plant.get(name, 0.0) * total)):
            original = parts[free.pop() if free else int(rng.integers(originals))]
            form = str(rng.choice(metal.NEAR_COPY_FORMS)) if planted == "near copy" else ""
            parts.append({**original, "planted": planted, "form": form})
    # Names are shuffled so that neither the order nor the number of a file tells what it shows.
    for number, index in enumerate(rng.permutation(len(parts))):
        parts[index]["path"] = f"{parts[index]['label']}/part_{number:05d}.jpg"
    return sorted(parts, key=lambda part: part["path"])


def _photograph(part: dict, size: int, hard_camera: float, seed: int) -> bytes:
    """The file of one part."""
    rng = np.random.default_rng([seed, 2, part["picture"]])
    hard = hard_camera if part["camera"] == "west" else 0.0
    image = metal.part(part["true_label"], size, part["camera"], part["shift"], hard, rng)
    if part["planted"] == "near copy":
        image = metal.near_copy(image, part["form"])
    data = encoded(image, "JPEG", quality=30 if part["form"] == "recompressed" else 92)
    if part["planted"] == "broken":
        return data[: len(data) // 3] if part["picture"] % 2 else b"this is not an image\n"
    return data

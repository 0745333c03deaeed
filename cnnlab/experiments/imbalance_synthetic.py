"""New images of rare classes, made of the ones there are."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image

from cnnlab import augment
from cnnlab._common import atomic_path, progress, require_columns
from cnnlab.images import Preparation, prepare
from cnnlab.images.preparing import require_image_size
from cnnlab.images.sizing import Resize

METHODS = {"mixup": augment.Policy(mixup=1.0), "cutmix": augment.Policy(cutmix=1.0)}
PAIRS = 64  # that are mixed at a time


def synthesize(
    table: pd.DataFrame,
    folder: str | os.PathLike[str],
    *,
    image_size: tuple[int, int],
    method: Literal["mixup", "cutmix"] = "mixup",
    share: float = 1.0,
    resize: Resize = "fit",
    seed: int,
) -> pd.DataFrame:
    """Makes images of the rarer classes by mixing two of the same class, so that the label stays certain.

    Give it training rows only: an image mixed from a validation image would tell the network about it. A class with a
    single image gets copies of it. Mixing suits textures and objects that fill the image; look at what comes out.

    Args:
        table: The training rows, with path and label.
        folder: Where the images go, as PNG files, one subfolder per class number.
        image_size: Height and width of the new images.
        method: `"mixup"` lays one over the other, `"cutmix"` sets a rectangle of one into the other.
        share: Each class gets as many new images as it takes to reach this share of the largest class, 0 to 1.
        resize: How images are brought to size, as in `pipelines.load`.
        seed: The same seed gives the same images.

    Returns:
        One row per new image: path, label, made_from (both paths). Add them with `pd.concat([train, new])`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Zhang et al. (2018), mixup; Yun et al. (2019), CutMix; within a class as in Chawla et al. (2002), SMOTE.

    Example:
        >>> import tempfile
        >>> from cnnlab import experiments, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=4, imbalance=2, size=32))
        ...     new = experiments.synthesize(table, folder + "/new", image_size=(32, 32), seed=0)
        >>> new["label"].value_counts(sort=False).to_dict()
        {'crack': 2, 'good': 0, 'inclusion': 2, 'pit': 2, 'scratch': 2, 'stain': 2}
    """
    require_columns(table, "path", "label", caller="experiments.synthesize")
    size = require_image_size(image_size)
    if method not in METHODS or isinstance(share, bool) or not 0 <= share <= 1:
        raise ValueError(
            f"`experiments.synthesize` expects a method of {', '.join(map(repr, METHODS))} and a share from 0 to 1. "
            f"Received: method={method!r}, share={share!r}."
        )
    categories = table["label"].cat.categories
    codes = table["label"].cat.codes.to_numpy()
    counts = np.bincount(codes[codes >= 0], minlength=len(categories))
    wanted = np.maximum(np.ceil(share * counts.max() - 1e-9).astype(int) - counts, 0) * (counts > 0)
    rows = []
    for code in progress(np.flatnonzero(wanted), label=method, unit="class"):
        paths = table["path"].to_numpy()[codes == code]
        made = _mixed(paths, int(wanted[code]), METHODS[method], size, resize, seed=[seed, int(code)])
        for number, (image, sources) in enumerate(made):
            path = Path(folder) / str(code) / f"{method}_{number:05d}.png"
            with atomic_path(path) as temporary:
                Image.fromarray(image).save(temporary, "PNG")
            rows.append((str(path), int(code), " + ".join(sources)))
    new = pd.DataFrame(rows, columns=["path", "label", "made_from"]).astype({"path": str, "label": int})
    return new.assign(label=pd.Categorical.from_codes(new["label"], categories=categories))


def _mixed(
    paths: np.ndarray, count: int, policy: augment.Policy, size: tuple[int, int], resize: Resize, *, seed: Sequence[int]
) -> Iterator[tuple[np.ndarray, tuple[str, str]]]:
    """New images, each with the two paths that it was mixed from; a broken file has no part in any."""
    generator = np.random.default_rng(list(seed))
    preparation = Preparation(size, resize=resize)
    pictures: dict[str, np.ndarray] = {}
    for path in paths:
        try:
            pictures[path] = prepare(path, preparation)
        except (OSError, ValueError):
            continue
    if not pictures:
        return
    names = list(pictures)
    first = generator.integers(len(names), size=count)
    # another one where there is another one
    second = (first + generator.integers(1, max(len(names), 2), size=count)) % len(names)
    drawn = policy.sample(2 * count, seed=int(generator.integers(2**31)))
    for start in range(0, count, PAIRS):
        stop = min(start + PAIRS, count)
        # the policy mixes each image with the one before it, so that partner and image take turns
        order = np.stack([second[start:stop], first[start:stop]], axis=1).ravel()
        batch = np.stack([pictures[names[place]] for place in order])
        part = {name: values[2 * start : 2 * stop] for name, values in drawn.items()}
        mixed, _ = policy.mix(batch, np.zeros((len(batch), 1), np.float32), part)
        for place in range(stop - start):
            yield mixed[2 * place + 1], (names[first[start + place]], names[second[start + place]])

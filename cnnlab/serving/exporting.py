"""Export with a parity gate: a file is kept only if it gives the answers of the model it came from."""

import json
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import models, pipelines
from cnnlab._common import atomic_path, require_columns
from cnnlab._quiet import native_stderr_held
from cnnlab.pipelines.reading import Resize, UnreadableImageError
from cnnlab.serving.engines import ENGINES, FILE_OF, Engine, keras_engine
from cnnlab.serving.predictor import ABOUT, VERSION, as_model_input


def export(
    model: keras.Model,
    folder: str | os.PathLike[str],
    *,
    formats: Sequence[str] = ("keras", "litert"),
    check: pd.DataFrame,
    agreement: float = 0.99,
    resize: Resize = "fit",
) -> pd.DataFrame:
    """Writes a model in formats for use, each kept only if it labels real images as the model itself does.

    Args:
        model: Built by `cnnlab.models`, trained.
        folder: Where to; `serving.Predictor(folder)` loads it. A file of an earlier export is replaced as a whole.
        formats: "keras" (plain Keras 3) and "litert" (small and fast, for servers, phones and browsers).
        check: Rows of a table to compare on, such as the validation rows; up to 500 of them are read.
        agreement: Share of images, 0 to 1, that must get the same label; a file below it is not kept.
        resize: How `pipelines.load` brought the images to size in training; the predictor will do the same.

    Returns:
        One row per format: file, megabytes, agreement 0-1, largest_difference of any probability, p50_ms and p95_ms for
        one image, kept.

    Raises:
        ValueError: If a format is unknown, the table fits another model, or a file agrees too rarely.

    Example:
        >>> export(model, "runs/first/export", check=val)  # doctest: +SKIP
    """
    names = models.class_names(model)
    unknown = [name for name in formats if name not in FILE_OF]
    if unknown or not formats:
        raise ValueError(f"`formats` expects some of {', '.join(FILE_OF)}. Received: {list(formats)}.")
    require_columns(check, "path", "label", caller="serving.export")
    images = _images(model, check.head(500), resize)
    truth = keras_engine(model)(images)
    folder = Path(folder)
    rows = []
    for name in formats:
        with atomic_path(folder / FILE_OF[name]) as temporary:
            WRITERS[name](model, temporary)
            engine = ENGINES[name](temporary)
            row = {"format": name, "file": FILE_OF[name], "megabytes": temporary.stat().st_size / 1e6}
            parity = _compare(engine, images, truth)
            if parity["agreement"] < agreement:
                raise ValueError(
                    f"The {name} export gives the model's label for {parity['agreement']:.1%} of {len(images)} images; "
                    f"`agreement` asks for {agreement:.1%}. It was not kept."
                )
            rows.append(row | parity | _latency(engine, images))
    about = {
        "version": VERSION,
        "classes": names,
        "image_size": list(model.input_shape[1:3]),
        "channels": model.input_shape[3],
        "resize": resize,
        "formats": list(formats),
        "checked_on": len(images),
        "keras": keras.__version__,
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    with atomic_path(folder / ABOUT) as temporary:
        temporary.write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
    return pd.DataFrame(rows)


def _images(model: keras.Model, table: pd.DataFrame, resize: Resize) -> np.ndarray:
    """Real images as the model gets them; broken files are left out."""
    size, channels = tuple(model.input_shape[1:3]), model.input_shape[3]
    images = []
    for path in table["path"]:
        try:
            images.append(as_model_input(pipelines.prepare(path, size, resize), channels))
        except (UnreadableImageError, OSError):
            continue
    if not images:
        raise ValueError(
            f"`check` expects rows with readable images to compare on. None of {len(table)} could be read."
        )
    return np.stack(images)


def _compare(engine: Engine, images: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    answers = np.concatenate([engine(images[start : start + 32]) for start in range(0, len(images), 32)])
    return {
        "agreement": float((answers.argmax(axis=1) == truth.argmax(axis=1)).mean()),
        "largest_difference": float(np.abs(answers - truth).max()),
    }


def _latency(engine: Engine, images: np.ndarray, *, calls: int = 50) -> dict[str, float]:
    """Milliseconds for one image, after a warm-up."""
    engine(images[:1])
    seconds = []
    for index in range(calls):
        image = images[index % len(images)][None]
        began = time.perf_counter()
        engine(image)
        seconds.append(time.perf_counter() - began)
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return {"p50_ms": float(p50), "p95_ms": float(p95)}


def _write_keras(model: keras.Model, path: Path) -> None:
    model.save(path)


def _write_litert(model: keras.Model, path: Path) -> None:
    with native_stderr_held(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter speaks of its own future
        model.export(path, format="litert", verbose=False)


WRITERS = {"keras": _write_keras, "litert": _write_litert}

"""Export with a parity gate: a file is kept only if it gives the answers of the model it came from."""

import json
import os
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import metrics, models, pipelines
from cnnlab._common import atomic_path, put_aside, require_columns
from cnnlab.pipelines.reading import RESIZES, Resize, UnreadableImageError
from cnnlab.serving import cards, writers
from cnnlab.serving.engines import FILE_OF, Engine, digest_of, keras_engine, megabytes, open_engine, require_runtime
from cnnlab.serving.predictor import ABOUT, VERSION, as_model_input

MOST_CHECKED = 500  # images
FEWEST_TO_CALIBRATE = 30  # images: with fewer, a single mistake would decide the temperature
LEAST_AGREEMENT = {"litert_int8": 0.98}
AGREEMENT = 0.99


class Checked(NamedTuple):
    """The images that every file is checked on.

    Attributes:
        rows: Their rows of the table.
        images: uint8 RGB, shape (n, height, width, 3).
        channels: How many of them the model takes.
        truth: The model's own probabilities, shape (n, classes).
    """

    rows: pd.DataFrame
    images: np.ndarray
    channels: int
    truth: np.ndarray

    def answers(self, engine: Engine, places: np.ndarray) -> np.ndarray:
        """Probabilities of some of the images."""
        return answers(engine, self.images[places], self.channels)


def export(
    model: keras.Model,
    folder: str | os.PathLike[str],
    *,
    formats: Sequence[str] = ("keras", "litert"),
    check: pd.DataFrame,
    agreement: float | None = None,
    resize: Resize = "fit",
) -> pd.DataFrame:
    """Writes a model in formats for use, each kept only if it labels real images as the model itself does.

    Beside the files lie `export.json`, which `serving.Predictor` reads, and `README.md`, a model card; `serving.card`
    writes a fuller one. The rows in `check` also teach how sure the model may be (`metrics.temperature`).

    Args:
        model: Built by `cnnlab.models`, trained.
        folder: Where to. Files of an earlier export are replaced; those that are no longer written move to `earlier/`.
        formats: Any of "keras" (plain Keras 3), "savedmodel" (TensorFlow Serving), "litert" (small and fast: servers,
            phones, browsers), "litert_float16" (half the size), "litert_int8" (a quarter; its ranges are learned from
            up to 100 of the images, and it is checked on the others) and "onnx" (needs `pip install cnnlab[onnx]`).
        check: Rows of a table that the model has not learned from, such as the validation rows; 500 of them, evenly
            spaced, are read.
        agreement: Share of images, 0 to 1, that must get the model's own label. Where None 0.99, for litert_int8 0.98.
        resize: How `pipelines.load` brought the images to size in training; the predictor will do the same.

    Returns:
        One row per format: format, file, megabytes, images (compared on), agreement (0-1), largest_difference (of any
        probability), accuracy, accuracy_change (file minus model), p50_ms and p95_ms (one image), kept.

    Raises:
        ModuleNotFoundError: If a format needs a package that is not installed.
        ValueError: If an argument is impossible, the table is of other classes, or no file agrees often enough.

    Warns:
        UserWarning: If some of the files agree too rarely; they are not kept.

    Example:
        >>> export(model, "runs/first/export", formats=("keras", "litert", "litert_int8"), check=val)  # doctest: +SKIP
    """
    names = models.class_names(model)
    _check_arguments(names, formats, check, agreement, resize)
    checked = _checked(model, check, resize)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    working = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        for name in formats:
            row = _write_and_compare(name, model, working, checked)
            rows.append(row | {"kept": row["agreement"] >= _bound(name, agreement)})
        _require_agreement(rows, agreement)
        kept = {row["format"]: _facts(row, working) for row in rows if row["kept"]}
        _put_in_place(folder, working, list(kept))
    finally:
        shutil.rmtree(working, ignore_errors=True)
    predictions = prediction_table(checked.rows, checked.truth, names)
    about = _about(model, names, resize, predictions) | {"formats": kept}
    with atomic_path(folder / ABOUT) as temporary:
        temporary.write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
    cards.write(folder, about, cards.Evidence(predictions))
    return pd.DataFrame(rows)


def _bound(name: str, agreement: float | None) -> float:
    return LEAST_AGREEMENT.get(name, AGREEMENT) if agreement is None else agreement


def _check_arguments(
    names: list[str], formats: Sequence[str], check: pd.DataFrame, agreement: float | None, resize: str
) -> None:
    unknown = isinstance(formats, str) or not formats or [name for name in formats if name not in FILE_OF]
    if unknown or len(set(formats)) < len(formats):
        received = formats if isinstance(formats, str) else list(formats)
        raise ValueError(f"`formats` expects some of {', '.join(FILE_OF)}, each once. Received: {received!r}.")
    if agreement is not None and not 0 <= agreement <= 1:
        raise ValueError(f"`agreement` expects a share from 0 to 1, such as 0.99. Received: {agreement}.")
    if resize not in RESIZES:
        raise ValueError(f"`resize` expects one of {', '.join(RESIZES)}. Received: {resize!r}.")
    for name in formats:
        require_runtime(name, writing=True)
    require_columns(check, "path", "label", caller="serving.export")
    categories = [str(name) for name in check["label"].cat.categories]
    if categories != names:
        raise ValueError(
            f"`check` expects a table with the model's classes, in the model's order: {names}. Received {categories}. "
            "Use `table['label'].cat.set_categories([...])`."
        )


def _checked(model: keras.Model, table: pd.DataFrame, resize: Resize) -> Checked:
    """Real images as the model gets them; broken files are left out."""
    size, channels = tuple(model.input_shape[1:3]), model.input_shape[3]
    places = np.unique(np.linspace(0, len(table) - 1, min(len(table), MOST_CHECKED)).round().astype(int))
    images, good = [], []
    for place in places:
        try:
            images.append(pipelines.prepare(table["path"].iloc[place], size, resize))
        except (UnreadableImageError, OSError):
            continue
        good.append(place)
    if not images:
        raise ValueError(
            f"`check` expects rows with readable images to compare on. None of {len(table)} could be read."
        )
    pixels = np.stack(images)
    return Checked(table.iloc[good], pixels, channels, answers(keras_engine(model), pixels, channels))


def answers(engine: Engine, images: np.ndarray, channels: int) -> np.ndarray:
    """Probabilities (n, classes) of uint8 RGB images (n, height, width, 3)."""
    starts = range(0, len(images), 32)
    return np.concatenate([engine(as_model_input(images[start : start + 32], channels))[0] for start in starts])


def _write_and_compare(name: str, model: keras.Model, working: Path, checked: Checked) -> dict[str, Any]:
    """Writes one file into the working folder, and says how well it agrees."""
    everything = np.arange(len(checked.images))
    learned = everything[:: max(3, len(everything) // 100)][:100]
    places = everything
    if name == "litert_int8" and len(everything) > len(learned):
        places = np.setdiff1d(everything, learned)
    path = working / FILE_OF[name]
    writers.write(name, model, path, as_model_input(checked.images[learned], checked.channels))
    engine = open_engine(name, path)
    found, truth = checked.answers(engine, places), checked.truth[places]
    agreed = float((found.argmax(axis=1) == truth.argmax(axis=1)).mean()) if np.isfinite(found).all() else 0.0
    label = checked.rows["label"].cat.codes.to_numpy()[places]
    known = label >= 0
    right = [(part.argmax(axis=1) == label)[known].mean() if known.any() else np.nan for part in (found, truth)]
    return {
        "format": name,
        "file": FILE_OF[name],
        "megabytes": megabytes(path),
        "images": len(places),
        "agreement": agreed,
        "largest_difference": float(np.abs(found - truth).max()),
        "accuracy": float(right[0]),
        "accuracy_change": float(right[0] - right[1]),
        **_latency(engine, as_model_input(checked.images[:50], checked.channels)),
    }


def _latency(engine: Engine, images: np.ndarray, *, calls: int = 50) -> dict[str, float]:
    """Milliseconds for one image, after a warm-up."""
    for _ in range(3):
        engine(images[:1])
    seconds = []
    for index in range(calls):
        image = images[index % len(images)][None]
        began = time.perf_counter()
        engine(image)
        seconds.append(time.perf_counter() - began)
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return {"p50_ms": float(p50), "p95_ms": float(p95)}


def _require_agreement(rows: list[dict[str, Any]], agreement: float | None) -> None:
    """Says which files are refused, and why.

    Raises:
        ValueError: If none is left.
    """
    words = [
        f"The {row['format']} export gives the model's label for {row['agreement']:.1%} of {row['images']} images; "
        f"{_bound(row['format'], agreement):.1%} are asked for. It was not kept."
        for row in rows
        if not row["kept"]
    ]
    if len(words) == len(rows):
        raise ValueError(" ".join(words))
    if words:
        warnings.warn(" ".join(words), UserWarning, stacklevel=3)


def _facts(row: dict[str, Any], working: Path) -> dict[str, Any]:
    """What the description says of a file."""
    names = ("megabytes", "images", "agreement", "largest_difference", "p50_ms", "p95_ms")
    return {"sha256": digest_of(working / row["file"]), **{name: row[name] for name in names}}


def _put_in_place(folder: Path, working: Path, kept: list[str]) -> None:
    """Moves the new files to their names. The description follows last: until then, old and new do not match."""
    files = [FILE_OF[name] for name in kept]
    put_aside(folder, [name for name in FILE_OF.values() if name not in files or (folder / name).is_dir()])
    for name in files:
        (working / name).replace(folder / name)


def prediction_table(rows: pd.DataFrame, probabilities: np.ndarray, names: list[str]) -> pd.DataFrame:
    """Rows with predicted, confidence and p_<class>, as `metrics` takes them."""
    best = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        "predicted": pd.Categorical.from_codes(best, categories=rows["label"].cat.categories),
        "confidence": probabilities.max(axis=1).astype(float),
    }
    columns |= {f"p_{name}": probabilities[:, place].astype(float) for place, name in enumerate(names)}
    return rows.drop(columns=list(columns), errors="ignore").assign(**columns)


def _about(model: keras.Model, names: list[str], resize: str, predictions: pd.DataFrame) -> dict[str, Any]:
    import tensorflow as tf

    from cnnlab import __version__

    return {
        "version": VERSION,
        "classes": names,
        "image_size": list(model.input_shape[1:3]),
        "channels": model.input_shape[3],
        "resize": resize,
        "temperature": _temperature(predictions),
        "checked_on": len(predictions),
        "network": model.name,
        "weights": model.count_params(),
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "made_with": {
            "cnnlab": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }


def _temperature(predictions: pd.DataFrame) -> float:
    known = predictions[predictions["label"].notna()]
    wrong = known["label"].astype(str).to_numpy() != known["predicted"].astype(str).to_numpy()
    if len(known) < FEWEST_TO_CALIBRATE or not wrong.any():
        return 1.0
    return float(metrics.temperature(known))

"""Export with a parity gate: a file is kept only if it gives the answers of the model it came from."""

import contextlib
import os
import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import __version__, images, metrics, models, pipelines
from cnnlab._answers import scaled_by_temperature, with_probabilities
from cnnlab._common import evenly_spaced, require_columns
from cnnlab.images import Preparation
from cnnlab.serving import cards, placing, writers
from cnnlab.serving.description import ABOUT, CARD, FACTS, FILE_OF, Description
from cnnlab.serving.engines import MADE_HERE, Engine, digest_of, open_engine, require_runtime
from cnnlab.serving.inputs import checked_threshold, likeliest, require_temperature
from cnnlab.serving.network import keras_engine

MOST_CHECKED = 500  # images
FEWEST_TO_CALIBRATE = 30  # images: with fewer, a single mistake would decide the temperature
LEAST_AGREEMENT = {"litert_int8": 0.98}
AGREEMENT = 0.99


class Checked(NamedTuple):
    """The images that every file is checked on: rows of the table, float32 pixels, and the model's probabilities."""

    rows: pd.DataFrame
    pixels: np.ndarray
    truth: np.ndarray


def export(
    model: keras.Model,
    folder: str | os.PathLike[str],
    *,
    formats: Sequence[str] = ("keras", "litert"),
    check: pd.DataFrame,
    agreement: float | None = None,
    resize: images.sizing.Resize | None = None,
    temperature: float | None = None,
    threshold: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Writes a model in formats for use, each kept only if it labels real images as the model itself does.

    Next to the files are `export.json`, which `serving.Predictor` reads, and `README.md`, a model card; `serving.card`
    writes a fuller one. The rows in `check` also teach how sure the model may be (`metrics.temperature`).

    Args:
        model: Carries its class names and says how images are prepared for it, as those of `cnnlab.models` do; one of
            your own learns it by `models.with_classes`.
        folder: Where to. Files of an earlier export are replaced; what else is in the way moves to `earlier/`. Words
            that `serving.card` was given stay.
        formats: Any of "keras" (plain Keras 3, without optimizer and loss), "litert" (small and fast: servers, phones,
            browsers), "litert_float16" (half the size), "litert_int8" (a quarter, and faster on phones and processors
            with VNNI; its ranges are learned from up to 100 of the images, and it is checked on the others), "onnx"
            (needs `pip install cnnlab[onnx]`) and "savedmodel" (TensorFlow Serving; a program, which others open only
            if they trust you).
        check: Rows of a table that the model has not learned from, such as the validation rows; 500 of them, evenly
            spaced, are read.
        agreement: Share of images, 0 to 1, that must get the model's own label. Where None 0.99, for litert_int8 0.98.
        resize: How images are brought to size, where the model does not say it itself.
        temperature: What the logits are divided by; learned from `check` where None.
        threshold: The class that matters, and from which probability it is called. Either a purpose, for which
            `metrics.choose_threshold` chooses on `check` among the calibrated probabilities: `{"crack": {"recall":
            0.95}}`. Or a number that you chose on `experiments.predict(model, val)`: `{"crack": 0.3}`; the export then
            answers with the same probabilities, those of the model itself, unless you say `temperature`.

    Returns:
        One row per format: format, file, megabytes, images (compared on), agreement (0-1), largest_difference (of any
        probability), accuracy, accuracy_change (file minus model), p50_ms and p95_ms (one image), kept.

    Raises:
        ModuleNotFoundError: If a format needs a package that is not installed.
        ValueError: If an argument is impossible, the table is of other classes, or no file agrees often enough.

    Warns:
        UserWarning: If some of the files agree too rarely; they are not kept. If the training images were prepared
            otherwise than the model says.

    Example:
        >>> export(model, "runs/first/export", formats=("keras", "litert", "litert_int8"), check=val)  # doctest: +SKIP
    """
    names = _checked_classes(model, formats, check, agreement)
    check = check.assign(label=check["label"].cat.rename_categories(str))  # numbers, too, are names from here on
    preparation = models.preparation(model)
    said = pipelines.prepared_otherwise(names, preparation) if resize is None else ""
    if said:
        warnings.warn(said, UserWarning, stacklevel=2)
    preparation = preparation if resize is None else replace(preparation, resize=resize)
    network = writers.for_use(model, preparation)
    checked = _checked(network, check, preparation)
    predictions = with_probabilities(checked.rows, checked.truth, names)
    temperature, chosen = _decision(predictions, temperature, threshold)
    folder = Path(folder).expanduser()
    with placing.working_folder(folder) as working:
        rows = [_write_and_compare(name, network, working, checked) for name in formats]
        _choose_kept(rows, agreement)
        facts = _described(model, preparation, predictions, [row for row in rows if row["kept"]], working)
        _install(folder, working, replace(facts, temperature=temperature, threshold=chosen), predictions)
    return pd.DataFrame(rows)


def _install(folder: Path, working: Path, facts: Description, predictions: pd.DataFrame) -> None:
    """Puts files, card and description in their places; words that `serving.card` was given stay."""
    names = [f"p_{name}" for name in facts.classes]
    answered = scaled_by_temperature(predictions[names].to_numpy(), facts.temperature)
    called = likeliest(answered, facts.classes, facts.threshold)
    with placing.turn(folder) as earlier:
        facts = replace(facts, about=earlier.about if earlier else {})
        cards.write(working, facts, with_probabilities(predictions, answered, called=called))
        files = [*(FILE_OF[name] for name in facts.formats), CARD, ABOUT]
        placing.put_in_place(folder, working, files, [*FILE_OF.values(), CARD, ABOUT], earlier)


def _described(
    model: keras.Model, preparation: Preparation, predictions: pd.DataFrame, kept: list[dict[str, Any]], working: Path
) -> Description:
    """What is known of an export whose files lie in the working folder; it does not scale yet."""
    return Description(
        classes=[str(name) for name in predictions["label"].cat.categories],
        preparation=preparation,
        temperature=1.0,
        checked_on=len(predictions),
        network=model.name,
        weights=model.count_params(),
        made=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        made_with={"cnnlab": __version__, "python": platform.python_version()}
        | {name: version(name) for name in ("keras", "tensorflow")},
        formats={
            row["format"]: {"sha256": digest_of(working / row["file"]), **{name: row[name] for name in FACTS}}
            for row in kept
        },
    )


def _checked_classes(
    model: keras.Model, formats: Sequence[str], check: pd.DataFrame, agreement: float | None
) -> list[str]:
    """The model's classes; refuses what cannot be exported before any time is spent."""
    unknown = isinstance(formats, str) or not formats or [name for name in formats if name not in FILE_OF]
    if unknown or len(set(formats)) < len(formats):
        received = formats if isinstance(formats, str) else list(formats)
        raise ValueError(f"`formats` expects some of {', '.join(FILE_OF)}, each once. Received: {received!r}.")
    if agreement is not None and not 0 <= agreement <= 1:
        raise ValueError(f"`agreement` expects a share from 0 to 1, such as 0.99. Received: {agreement}.")
    for name in formats:
        require_runtime(name, writing=True)
    require_columns(check, "path", "label", caller="serving.export")
    return models.ensure_classes(model, check["label"].cat.categories, caller="serving.export")


def _checked(network: keras.Model, table: pd.DataFrame, preparation: Preparation) -> Checked:
    """Real images as the model gets them; broken files are left out."""
    pixels = {}
    for row in evenly_spaced(len(table), MOST_CHECKED):
        with contextlib.suppress(ValueError, TypeError, OSError):
            pixels[row] = images.prepare(table["path"].iloc[row], preparation).astype(np.float32)
    if not pixels:
        raise ValueError(
            f"`check` expects rows with readable images to compare on. None of {len(table)} could be read."
        )
    stacked = np.stack([*pixels.values()])
    truth = models.class_probabilities(network, _answers(keras_engine(network), stacked))
    return Checked(table.iloc[[*pixels]], stacked, truth)


def _answers(engine: Engine, pixels: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of prepared images."""
    return np.concatenate([engine(pixels[start : start + 32])[0] for start in range(0, len(pixels), 32)])


def _decision(
    predictions: pd.DataFrame, temperature: float | None, threshold: Mapping[str, Any] | None
) -> tuple[float, dict[str, float]]:
    """The temperature, and the threshold among the probabilities that it leads to."""
    purpose = next(iter(threshold.values()), None) if isinstance(threshold, Mapping) else None
    if temperature is None:
        known = predictions[predictions["label"].notna()]
        wrong = known["label"].astype(str) != known["predicted"].astype(str)
        scales = threshold is None or isinstance(purpose, Mapping)
        learns = scales and len(known) >= FEWEST_TO_CALIBRATE and wrong.any()
        temperature = float(metrics.temperature(known)) if learns else 1.0
    require_temperature(temperature)
    if threshold is not None and isinstance(purpose, Mapping) and len(threshold) == 1:
        (name,) = map(str, threshold)
        threshold = {name: metrics.choose_threshold(metrics.calibrate(predictions, on=temperature), name, **purpose)}
    classes = list(predictions["label"].cat.categories)
    return float(temperature), {} if threshold is None else checked_threshold(threshold, classes)


def _write_and_compare(name: str, network: keras.Model, working: Path, checked: Checked) -> dict[str, Any]:
    """Writes one file into the working folder, and says how well it agrees."""
    rows = np.arange(len(checked.pixels))
    learned = rows[:: max(3, len(rows) // 100)][:100]
    if name == "litert_int8" and len(rows) > len(learned):
        rows = np.setdiff1d(rows, learned)
    path = working / FILE_OF[name]
    writers.write(name, network, path, checked.pixels[learned])
    if name == "savedmodel":
        MADE_HERE.add(digest_of(path))
    engine = open_engine(name, path)
    answers, truth = _answers(engine, checked.pixels[rows]), checked.truth[rows]
    label = checked.rows["label"].cat.codes.to_numpy()[rows]
    accuracy, before = (
        float((part.argmax(axis=1) == label)[label >= 0].mean()) if (label >= 0).any() else np.nan
        for part in (answers, truth)
    )
    same = answers.argmax(axis=1) == truth.argmax(axis=1)
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return {
        "format": name,
        "file": FILE_OF[name],
        "megabytes": sum(file.stat().st_size for file in files if file.is_file()) / 1e6,
        "images": len(rows),
        "agreement": float(same.mean()) if np.isfinite(answers).all() else -1.0,
        "largest_difference": float(np.abs(answers - truth).max()),
        "accuracy": accuracy,
        "accuracy_change": accuracy - before,
        **_latency(engine, checked.pixels[:50]),
    }


def _latency(engine: Engine, pixels: np.ndarray) -> dict[str, float]:
    """Milliseconds for one image, after a warm-up."""
    seconds = []
    for index in range(-3, 50):
        began = time.perf_counter()
        engine(pixels[index % len(pixels)][None])
        seconds.append(time.perf_counter() - began)
    p50, p95 = np.percentile(np.array(seconds[3:]) * 1000, [50, 95])
    return {"p50_ms": float(p50), "p95_ms": float(p95)}


def _choose_kept(rows: list[dict[str, Any]], agreement: float | None) -> None:
    """Notes which files are kept, and says which are not and why; a ValueError where none is."""
    refused = []
    for row in rows:
        least = LEAST_AGREEMENT.get(row["format"], AGREEMENT) if agreement is None else agreement
        row["kept"] = row["agreement"] >= least
        if not row["kept"]:
            refused.append(
                f"The {row['format']} export gives the model's label for {max(row['agreement'], 0):.1%} of "
                f"{row['images']} images; {least:.1%} are asked for. It was not kept."
            )
    if len(refused) == len(rows):
        raise ValueError(" ".join(refused))
    if refused:
        warnings.warn(" ".join(refused), UserWarning, stacklevel=3)

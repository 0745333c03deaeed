"""An exported model that takes what people have: a path, bytes, an array, a column of paths, a table."""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from cnnlab import images
from cnnlab._answers import scaled_by_temperature, with_probabilities
from cnnlab._common import available_cores, evenly_spaced, progress, require_columns
from cnnlab.serving.description import FILE_OF, file_of_export, read_description
from cnnlab.serving.engines import Answer, digest_of, load_keras, loaded, open_engine
from cnnlab.serving.inputs import as_list, checked_threshold, likeliest, require_temperature, warn_of_unreadable
from cnnlab.serving.novelty import Novelty

if TYPE_CHECKING:
    import keras

FASTEST_FIRST = ("litert", "litert_float16", "litert_int8", "onnx", "keras")  # not SavedModel, which is a program
BATCH = 32  # images at a time
REMEMBERED = 2_000  # training images; more make each answer slower
ABANDONED: list[Any] = []  # engines of the parent process: their threads are not here, so nobody may wait for them


class Prediction(NamedTuple):
    """What a model says of one image.

    Attributes:
        label: The class it is called: the most probable one, or the one whose threshold is reached; "" where the image
            cannot be read.
        confidence: Its probability, 0-1; not a number where the image cannot be read.
        probabilities: Of every class.
        distance: How unlike the training images it is, 1 at the limit; None before `Predictor.fit_novelty`.
        unknown: Whether it is beyond that limit, so that the label means little; None before `fit_novelty`.
        problem: Why the image cannot be read; "" where it can.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    distance: float | None = None
    unknown: bool | None = None
    problem: str = ""


class Answers(NamedTuple):
    """Calibrated probabilities (n, classes), distances (n,), where known, and what is wrong with each image."""

    probabilities: np.ndarray
    distances: np.ndarray
    problems: list[str]


class Predictor:
    """Labels images with an exported model, as fast as this machine can: LiteRT where it was exported.

    Preprocessing is the training's own, and confidence is calibrated as the export learned it. One predictor may be
    shared by several threads, and handed to other processes. LiteRT and ONNX files can do nothing but compute, and
    Keras files with Python code in them are refused; a SavedModel is a program, opened only when named and trusted.

    Args:
        folder: What `serving.export` wrote.
        format: One of those exported; the fastest of them where None, which is "litert".
        temperature: What the logits are divided by; the export's own where None, 1 for the model's raw probabilities.
        threshold: A class and the probability from which it is called, such as `{"crack": 0.3}`, compared with the
            probabilities that are answered; the export's own where None, `{}` for the most probable class.
        threads: Processor cores for one image, of LiteRT and ONNX; all of this process, at most 4, where None.
        trust: Whether "savedmodel" may be opened: True only if you trust whoever made it. What this process exported
            itself needs no trust.

    Attributes:
        classes: Names of the classes.
        preparation: How images are prepared (`images.Preparation`); `image_size`, `channels` and `resize` are its own.
        format: The format in use.
        temperature: What the logits are divided by.
        threshold: The class that is called by a threshold, and the threshold; empty where there is none.

    Raises:
        FileNotFoundError: If the folder is not an export, or its model is gone.
        ModuleNotFoundError: If the runtime of the format is not installed.
        ValueError: If it was written by another version, or its model is damaged, not the one exported, or a program.

    Example:
        >>> predictor = Predictor("runs/first/export")  # doctest: +SKIP
        >>> predictor("photo.jpg").label  # doctest: +SKIP
        'scratch'
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        format: str | None = None,
        temperature: float | None = None,
        threshold: Mapping[str, float] | None = None,
        threads: int | None = None,
        trust: bool = False,
    ) -> None:
        self.folder = Path(folder).expanduser()
        self._at, self._threads, self._trust = self.folder.absolute(), threads, trust and format is not None
        self._facts = facts = read_description(self.folder)
        self.classes: list[str] = facts.classes
        self.preparation: images.Preparation = facts.preparation
        self.image_size, self.resize = facts.preparation.image_size, facts.preparation.resize
        self.channels: int = 1 if facts.grey_by_mean else facts.preparation.channels
        self.temperature = float(facts.temperature if temperature is None else temperature)
        require_temperature(self.temperature)
        self.threshold = checked_threshold(threshold, self.classes) if threshold is not None else facts.threshold
        if threshold is None and self.threshold and self.temperature != facts.temperature:
            raise ValueError(
                f"This export calls {next(iter(self.threshold))!r} by a threshold that was chosen with the temperature "
                f"{facts.temperature:.4g}. Received: temperature={temperature}. Say `threshold` anew, too; `{{}}` for "
                "none."
            )
        if format is not None and format not in facts.formats:
            raise ValueError(
                f"`format` expects one of those exported: {', '.join(facts.formats)}. Received: {format!r}."
            )
        self.format = format or next(name for name in (*FASTEST_FIRST, *facts.formats) if name in facts.formats)
        self._open()

    def _open(self) -> None:
        """Opens the model and shows it a black image: the first takes longer, and a file of another network fails."""
        digest = self._facts.formats[self.format]["sha256"]
        path = file_of_export(self._at, FILE_OF[self.format])
        self._engine = open_engine(self.format, path, digest=digest, threads=self._threads, trust=self._trust)
        self._process = os.getpid()
        try:
            answer, features = self._engine(np.zeros((1, *self.image_size, self.channels), np.float32))
        except Exception as error:  # each runtime raises kinds of its own
            raise ValueError(
                f"{str(path)!r} does not take images of {self.image_size} pixels with {self.channels} channels, which "
                "export.json promises. Export the model again."
            ) from error
        if answer.shape != (1, len(self.classes)) or features.ndim != 2:
            raise ValueError(
                f"{str(path)!r} gives answers of the shape {answer.shape} for one image; export.json names "
                f"{len(self.classes)} classes. Export the model again."
            )
        self._novelty = Novelty.read(self._at, self.format, digest, features.shape[1])

    def __repr__(self) -> str:
        return f"Predictor({str(self.folder)!r}, format={self.format!r}, {len(self.classes)} classes)"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the export itself: what the runtimes hold cannot be sent."""
        asked = {name: getattr(self, name) for name in ("format", "temperature", "threshold")}
        return partial(Predictor, self._at, **asked, threads=self._threads, trust=self._trust), ()

    def _run(self, pixels: np.ndarray) -> Answer:
        if self._process != os.getpid():  # forked: the runtime's threads stayed with the parent
            if self.format in ("keras", "savedmodel"):
                raise RuntimeError(
                    f"TensorFlow does not survive a fork, and this predictor is of the format {self.format!r}. Start "
                    "processes with multiprocessing.get_context('spawn'), or use LiteRT or ONNX."
                )
            ABANDONED.append(self._engine)
            self._open()
        return self._engine(pixels)

    def __call__(self, image: Any) -> Any:
        """Labels one image, or several at once.

        Args:
            image: A path, encoded bytes, a Pillow image, or an array (height, width, 3) of 0-255. Several: a list, a
                column of a table, or an iterator of these, or one array (n, height, width, 3).

        Returns:
            A `Prediction`; a list of them for several images. Of several, those that cannot be read say so in
            `problem`.

        Raises:
            TypeError: If it is something else.
            ValueError: If the image cannot be read, or its pixels are not 0-255.

        Warns:
            UserWarning: If some of several images cannot be read.
        """
        several = as_list(image)
        if several is None:
            return self._predictions(self._answered(self.prepare(image)[None], [""]))[0]
        answers = self._answers(_batches(several))
        warn_of_unreadable(answers.problems, stacklevel=3)
        return self._predictions(answers)

    def table(self, table: pd.DataFrame) -> pd.DataFrame:
        """Labels every image of a table, with or without labels of its own; `metrics` and `plots` take the result.

        Args:
            table: With the column path.

        Returns:
            A copy with predicted (Categorical of the model's classes), confidence, `p_<class>` for every class,
            unknown (after `fit_novelty`) and problem: why an image cannot be read, whose row stays without answers.

        Warns:
            UserWarning: If images cannot be read.
        """
        require_columns(table, "path", caller="Predictor.table")
        answers = self._answers(progress(_batches(table["path"].tolist()), label="predict", unit="batch"))
        warn_of_unreadable(answers.problems, stacklevel=3)
        named = "label" in table and isinstance(table["label"].dtype, pd.CategoricalDtype)
        if named and {str(name) for name in table["label"].cat.categories} <= set(self.classes):  # numbers, too
            table = table.assign(label=table["label"].cat.rename_categories(str).cat.set_categories(self.classes))
        called = likeliest(np.nan_to_num(answers.probabilities), self.classes, self.threshold)
        result = with_probabilities(table, answers.probabilities, self.classes, called=called)
        if self._novelty is not None:
            result["unknown"] = pd.array(answers.distances > 1, dtype="boolean")
            result.loc[np.isnan(answers.distances), "unknown"] = pd.NA
        before = result["problem"].fillna("").tolist() if "problem" in result else [""] * len(result)
        result["problem"] = [now or old for now, old in zip(answers.problems, before, strict=True)]
        return result

    def prepare(self, image: Any) -> np.ndarray:
        """One image as the model expects it: float32 (height, width, channels) of 0-255."""
        pixels = images.prepare(image, self.preparation).astype(np.float32)
        return pixels.mean(axis=-1, keepdims=True) if self._facts.grey_by_mean else pixels

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, classes) of prepared images (n, height, width, channels)."""
        return scaled_by_temperature(self._run(images)[0], self.temperature)

    def features(self, images: np.ndarray) -> np.ndarray:
        """What the network has seen before it decides, (n, any), of prepared images (n, height, width, channels)."""
        return self._run(images)[1]

    def network(self) -> "keras.Model | None":
        """The Keras network of the export, for `explain`; None where "keras" was not exported, or is not that file."""
        exported, path = self._facts.formats.get("keras"), self._at / FILE_OF["keras"]
        if not exported or not path.is_file() or digest_of(file_of_export(self._at, path.name)) != exported["sha256"]:
            return None
        return loaded(path, lambda: load_keras(path))

    def fit_novelty(self, train: pd.DataFrame, val: pd.DataFrame, *, false_alarms: float = 0.01) -> pd.DataFrame:
        """Learns what usual images look like, so that every `Prediction` also says whether its image is `unknown`.

        A network gives a label to anything, a cat among metal parts included. Here the distance from what it has seen
        of the training images tells; the limit is set so that of new images of the usual kind only `false_alarms` are
        called unknown. What is learned lies in the export's folder and is found there by the next `Predictor`.

        Args:
            train: The rows that the model was trained on; 2,000 of them, evenly spaced, are looked at.
            val: Rows that it was not trained on, to set the limit; at least 1 / `false_alarms` of them.
            false_alarms: Share of usual images that may be called unknown, above 0 and below 1.

        Returns:
            One row: limit, false_alarms (to expect), low, high (95 % interval that so many images leave open), images.

        Raises:
            ValueError: If there are too few images, or `false_alarms` is not a share.

        Source: Distance of normalised features to the k-th nearest training image (Sun et al. 2022, Out-of-distribution
            detection with deep nearest neighbors), the limit by split conformal prediction (Bates et al. 2023, Testing
            for outliers with conformal p-values).

        Example:
            >>> predictor.fit_novelty(train, val, false_alarms=0.01)  # doctest: +SKIP
            >>> predictor("cat.jpg").unknown  # doctest: +SKIP
            True
        """
        if not 0 < false_alarms < 1:
            raise ValueError(f"`false_alarms` expects a share above 0 and below 1. Received: {false_alarms}.")
        for name, table in (("train", train), ("val", val)):
            require_columns(table, "path", caller=f"Predictor.fit_novelty({name})")
        novelty = Novelty.fit(self._table_features(train.iloc[evenly_spaced(len(train), REMEMBERED)]))
        report = novelty.set_limit(novelty.distance(self._table_features(val)), false_alarms)
        novelty.write(self._at, self.format, self._facts.formats[self.format]["sha256"])
        self._novelty = novelty
        return report

    def learn_unknown(self, train: pd.DataFrame, val: pd.DataFrame, *, false_alarms: float = 0.01) -> pd.DataFrame:
        """The name of `fit_novelty` in version 0.1.0."""
        warnings.warn("`learn_unknown` is now `fit_novelty`.", DeprecationWarning, stacklevel=2)
        return self.fit_novelty(train, val, false_alarms=false_alarms)

    def _table_features(self, table: pd.DataFrame) -> np.ndarray:
        """Features (n, any) of the readable images of a table."""
        batches = progress(_batches(table["path"].tolist()), label="features", unit="batch")
        parts, problems = [np.zeros((0, 1), np.float32)], list[str]()
        for pixels, wrong in self._prepared(batches):
            problems += wrong
            if len(pixels):
                parts.append(self.features(pixels))
        warn_of_unreadable(problems, stacklevel=4)
        return np.concatenate(parts[1:] or parts)

    def _prepared(self, batches: Iterable[Sequence[Any]]) -> Iterator[tuple[np.ndarray, list[str]]]:
        """The readable images of each batch, stacked, and what is wrong with each; the next is read meanwhile."""

        def attempt(image: Any) -> np.ndarray | Exception:
            try:
                return self.prepare(image)
            except Exception as error:  # one broken image must not cost the others their answers
                return error

        def stacked(results: list[np.ndarray | Exception]) -> tuple[np.ndarray, list[str]]:
            problems = [str(one) or type(one).__name__ if isinstance(one, Exception) else "" for one in results]
            pixels = [one for one in results if isinstance(one, np.ndarray)]
            return np.stack(pixels) if pixels else np.empty(0), problems

        with ThreadPoolExecutor(available_cores()) as pool:
            current = None
            for batch in batches:
                following = pool.map(attempt, batch)
                if current is not None:
                    yield stacked(list(current))
                current = following
            if current is not None:
                yield stacked(list(current))

    def _answers(self, several: Iterable[Sequence[Any]]) -> Answers:
        """One answer for each image of all batches."""
        parts = [Answers(np.empty((0, len(self.classes))), np.empty(0), [])]
        parts += [self._answered(*prepared) for prepared in self._prepared(several)]
        probabilities, distances = (np.concatenate(arrays) for arrays in list(zip(*parts, strict=True))[:2])
        return Answers(probabilities, distances, [problem for part in parts for problem in part.problems])

    def _answered(self, pixels: np.ndarray, problems: list[str]) -> Answers:
        """One answer for each image of a batch; those with a problem are not among the pixels."""
        readable = np.array([not problem for problem in problems], bool)
        probabilities, distances = np.full((len(problems), len(self.classes)), np.nan), np.full(len(problems), np.nan)
        if len(pixels):
            raw, features = self._run(pixels)
            probabilities[readable] = scaled_by_temperature(raw, self.temperature)
            if self._novelty is not None:
                distances[readable] = self._novelty.distance(features)
        return Answers(probabilities, distances, problems)

    def _predictions(self, answers: Answers) -> list[Prediction]:
        best = likeliest(np.nan_to_num(answers.probabilities), self.classes, self.threshold)
        result = []
        for code, row, distance, problem in zip(best, *answers, strict=True):
            label, values = "" if problem else self.classes[code], dict(zip(self.classes, row.tolist(), strict=True))
            far = None if np.isnan(distance) else float(distance)
            result.append(Prediction(label, float(row[code]), values, far, None if far is None else far > 1, problem))
        return result


def _batches(several: Sequence[Any]) -> list[Sequence[Any]]:
    return [several[start : start + BATCH] for start in range(0, len(several), BATCH)]

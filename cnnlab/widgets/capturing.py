"""`capture`: the browser's camera collects frames of each class, and a linear probe answers as soon as it has some."""

import io
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import anywidget
import keras
import numpy as np
import pandas as pd
import traitlets
from PIL import Image
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cnnlab import experiments, images, models
from cnnlab._common import atomic_path, evenly_spaced
from cnnlab.models.building import checked_classes
from cnnlab.models.catalogue import NETWORKS, require_known

FEWEST = 20  # frames to learn from
MOST = 800  # frames that the live probe learns from, in less than a second; `model` learns from all


def capture(
    folder: str | os.PathLike[str],
    classes: Sequence[str],
    *,
    network: str = "EfficientNetLite0",
    image_size: tuple[int, int] | None = None,
) -> "Capture":
    """Records images of each class with the browser's camera, and shows at once what a network learns from them.

    Hold a class's button (mouse, finger, space, or the number key of the class): frames are written to
    `folder/class/recording/number.jpg`. They go from the browser to the notebook's kernel and nowhere else. From 20
    frames of two classes on, logistic regression on the features of a frozen network learns whenever a button is let
    go, and the live picture shows its answer. A folder that holds recordings already goes on.

    Frames of one recording are nearly the same image. Make several recordings of each class, with other light, places
    and angles, and keep each on one side of a split: `table()` names it in the column group, which `tables.split`,
    `folds` and `experiments.linear_probe` follow by themselves.

    Args:
        folder: Where the frames go; made where there is none.
        classes: Names of two classes or more, which become folders.
        network: A name of `models.table()`, with its ImageNet weights.
        image_size: Height and width in pixels that the network looks at; those that it was trained on where None.

    Returns:
        The view: leave it on a cell's last line. `table()` is the table of what was recorded, and `model()` the
        network with what the probe has learned as a plain Keras model. No frame is kept in the notebook itself.

    Raises:
        TypeError: If `classes` is a count instead of names.
        FileNotFoundError: If the network's weights are neither here nor to be fetched.
        ValueError: If there are fewer than two classes, a name cannot be a folder's, or the folder holds classes that
            are not among them, or there is no such network.

    Source:
        The idea of Google's Teachable Machine; G. Alain, Y. Bengio, "Understanding intermediate layers using linear
        classifier probes" (2016).

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from cnnlab import widgets
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     camera = widgets.capture(folder, ["hand", "no hand"], image_size=(64, 64))
        ...     camera.begin("hand")
        ...     answer = camera.frame(np.zeros((48, 64, 3), np.uint8))
        ...     camera.table()["label"].tolist(), answer
        (['hand'], {})
    """
    folder, names = Path(folder).expanduser(), list(checked_classes(classes, caller="widgets.capture"))
    unfit = [name for name in names if not name.strip() or set(name) & set('/\\:*?"<>|\0') or name.startswith(".")]
    if len({name.lower() for name in names}) < len(names) or unfit:
        raise ValueError(
            "`widgets.capture` expects classes whose names can be names of folders, on any system. Received: "
            f"{unfit or names!r}."
        )
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"`widgets.capture` expects a folder. {str(folder)!r} is a file.")
    inside = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.exists() else []
    others = sorted(name for name in inside if name not in names and not name.startswith("."))
    if others:
        raise ValueError(
            f"{str(folder)!r} holds folders that are not among `classes`: {', '.join(others)}. Add them to `classes`, "
            "or choose another folder."
        )
    require_known(network)
    side = NETWORKS[network].image_size
    return Capture(folder, names, network, image_size or (side, side))


class Capture(anywidget.AnyWidget):
    """What `widgets.capture` returns."""

    _esm = Path(__file__).with_name("capture.js")
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    place = traitlets.Unicode().tag(sync=True)
    counts: traitlets.List[Any] = traitlets.List().tag(sync=True)  # frames and recordings of each class
    words = traitlets.Unicode().tag(sync=True)
    learned = traitlets.Bool().tag(sync=True)

    def __init__(self, folder: Path, names: list[str], network: str, image_size: tuple[int, int]) -> None:
        self.folder, self.network, self.image_size = folder, network, image_size
        super().__init__(classes=names, place=str(folder.resolve()))
        self._whole = models.pretrained(network, image_size=image_size, classes=names, pyramid=False)
        self._prepared = models.preparation(self._whole)
        self._features = keras.Model(self._whole.inputs[0], self._head().input)
        self._features.compile(jit_compile=False)
        table = self.table()
        seen = experiments.features(self._whole, table) if len(table) else np.zeros((0, 0))
        known = np.isfinite(seen).all(axis=1)
        self._seen, self._paths = list(seen[known]), [Path(path) for path in np.asarray(table["path"])[known]]
        self._codes: list[int] = table["label"].cat.codes.to_numpy()[known].tolist()
        self._probe: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._target: tuple[int, Path] | None = None  # the class that is being recorded, and its folder
        self._frames = 0
        self._count()
        self._learn()
        self.on_msg(self._receive)

    def begin(self, label: str) -> None:
        """Begins a recording: frames from now on are written to a new folder of this class.

        Raises:
            ValueError: If there is no such class.
        """
        if label not in self.classes:
            raise ValueError(f"`begin` expects one of {', '.join(self.classes)}. Received: {label!r}.")
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() // 1_000_000 % 1000:03d}"
        self._target, self._frames = (self.classes.index(label), self.folder / label / name), 0

    def frame(self, image: Any) -> dict[str, float]:
        """Writes an image down if a recording runs, and answers it: a probability for each class that was learned.

        Args:
            image: The bytes of a JPEG file, as the browser sends them, or anything else that `images.read` takes.

        Returns:
            Probabilities, 0-1; empty before there are 20 frames of two classes.

        Raises:
            ValueError: If the image cannot be read; nothing is written then.
        """
        data = image if isinstance(image, bytes) else _as_jpeg(image)
        pixels = images.prepare(data, self._prepared, name="the frame")
        seen = np.asarray(self._features.predict_on_batch(pixels[None].astype(np.float32)))[0]
        if self._target is not None:
            code, folder = self._target
            self._frames += 1
            path = folder / f"{self._frames:04d}.jpg"
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
            self._paths.append(path)
            self._seen.append(seen)
            self._codes.append(code)
        if self._probe is None:
            return {}
        known, weights, bias = self._probe
        chances = softmax(seen @ weights + bias)
        return {self.classes[code]: float(chance) for code, chance in zip(known, chances, strict=True)}

    def end(self) -> None:
        """Ends the recording; from 20 frames of two classes on, the probe learns from all."""
        self._target = None
        self._count()
        self._learn()

    def table(self) -> pd.DataFrame:
        """What the folder holds: path, label, and group, the recording that an image belongs to."""
        rows = []
        for name in self.classes:
            for path in sorted((self.folder / name).rglob("*")):
                if path.suffix.lower() in images.ENDINGS and not path.name.startswith("."):
                    home = path if path.parent == self.folder / name else path.parent  # one of the user's own
                    rows.append((str(path), name, home.relative_to(self.folder).as_posix()))
        table = pd.DataFrame(rows, columns=["path", "label", "group"], dtype="str")
        return table.assign(label=pd.Categorical(table["label"], categories=list(self.classes)))

    def model(self) -> keras.Model:
        """The network with what the probe learns from all frames as its last layer: a plain Keras model with names.

        Raises:
            ValueError: If there are fewer than 20 frames, or a class has none.
        """
        rows = self._there()
        codes = np.array(self._codes, int)[rows]
        empty = [name for code, name in enumerate(self.classes) if code not in codes]
        if empty or len(codes) < FEWEST:
            raise ValueError(
                f"A model needs {FEWEST} frames or more, some of each class. Received {len(codes)}, of "
                f"{', '.join(empty) or 'all classes'} {'none' if empty else 'some'}. Hold a button to record."
            )
        _, weights, bias = _fitted(np.stack([self._seen[row] for row in rows]), codes)
        self._head().set_weights([weights, bias])
        model = keras.models.clone_model(self._whole)
        model.set_weights(self._whole.get_weights())
        return model

    def _head(self) -> keras.layers.Dense:
        return next(layer for layer in reversed(self._whole.layers) if isinstance(layer, keras.layers.Dense))

    def _count(self) -> None:
        groups = self.table().groupby("label", observed=False)["group"]
        self.counts = [list(map(int, pair)) for pair in zip(groups.size(), groups.nunique(), strict=True)]

    def _there(self) -> np.ndarray:
        """The frames that are still in the folder, from which people take out what went wrong."""
        return np.array([row for row, path in enumerate(self._paths) if path.exists()], int)

    def _learn(self) -> None:
        rows = self._there()
        rows = rows[evenly_spaced(len(rows), MOST)]
        codes = np.array(self._codes, int)[rows]
        if len(codes) < FEWEST or len(np.unique(codes)) < 2:
            self.words = f"Record {FEWEST} frames of two classes or more; then the network learns from them."
            return
        began = time.perf_counter()
        self._probe = _fitted(np.stack([self._seen[row] for row in rows]), codes)
        self.learned = True
        self.words = f"Learned from {len(codes):,} frames in {1000 * (time.perf_counter() - began):.0f} ms."
        if any(frames and recordings < 3 for frames, recordings in self.counts):
            self.words += " Frames of one recording are alike: make three or more of each class, in other places."

    def _receive(self, _: Any, content: dict[str, Any], buffers: Sequence[memoryview]) -> None:
        """What the browser sends: the number of a class that begins, a frame, or the end of a recording."""
        began = time.perf_counter()
        try:
            if "begin" in content:
                self.begin(self.classes[content["begin"]])
            elif "end" in content:
                self.end()
            else:
                answer = self.frame(bytes(buffers[0]))
                spent = 1000 * (time.perf_counter() - began)
                self.send({"answer": answer, "frames": self._frames, "milliseconds": spent})
        except (ValueError, OSError) as error:  # a full disk, a folder that is gone
            self._target = None
            self.send({"problem": str(error)})


def _as_jpeg(image: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(images.read(image)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _fitted(seen: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The classes met, and weights and bias of a softmax over raw features, by logistic regression on scaled ones."""
    scaler = StandardScaler().fit(seen)
    probe = LogisticRegression(C=10 / seen.shape[1], max_iter=2000).fit(scaler.transform(seen), codes)
    weights, bias = probe.coef_, probe.intercept_
    if len(weights) == 1:  # of two classes scikit-learn keeps the second
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    weights = weights / scaler.scale_
    return probe.classes_, weights.T.astype(np.float32), (bias - weights @ scaler.mean_).astype(np.float32)

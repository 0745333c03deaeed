"""A panel for asking a model about one image at a time: what is it, how sure, and where did it look?"""

import contextlib
import html
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cnnlab import explain, models, serving
from cnnlab._common import evenly_spaced
from cnnlab.images import ENDINGS
from cnnlab.images import prepare as prepared
from cnnlab.plots.style import BLUE, GREY, finish, readable, shown
from cnnlab.widgets.exploring import Pictured, as_png

TOP = 6  # classes shown
OFFERED = 500  # images to pick from
STATIC = 3  # images in the picture that stands in where widgets do not run
SIDE = 240  # pixels that tiny images are enlarged to


def try_model(model: Any, images: Any = None) -> "TryModel":
    """Shows what a model says of an image that you upload or pick: label, probabilities, and where it looked.

    Args:
        model: A `serving.Predictor`, or a Keras model that carries its class names (`models.with_classes`).
        images: To pick from: a table, a folder, or a list of paths. Upload alone where None.

    Returns:
        The panel: leave it on a cell's last line. Where widgets do not run (a web page, a report), a picture of the
        answers for the first images stands in its place. `panel.ask(image)` answers from code.

    Raises:
        TypeError: If `model` is neither.
        ValueError: If the folder or list holds no image, or a Keras model carries no class names.

    Example:
        >>> from cnnlab import models, widgets
        >>> model = models.small_cnn(image_size=(16, 16), classes=["cat", "dog"], filters=(4,))
        >>> panel = widgets.try_model(model)
        >>> panel.ask(np.full((16, 16, 3), 128, np.uint8)).label in ("cat", "dog")
        True
    """
    if isinstance(model, serving.Predictor):
        network = None
        with contextlib.suppress(Exception):  # of a stranger's file, anything; answers are worth showing alone, too
            network = model.network()
        return TryModel(model, model.prepare, network, _paths(images))
    if not hasattr(model, "predict_on_batch") or not hasattr(model, "layers"):
        raise TypeError(
            f"`widgets.try_model` expects a serving.Predictor or a Keras model. Received: {type(model).__name__}."
        )
    names, preparation = models.class_names(model), models.preparation(model)

    def prepare(image: Any) -> np.ndarray:
        return prepared(image, preparation).astype(np.float32)

    def predict(image: Any) -> serving.Prediction:
        row = models.class_probabilities(model, model(prepare(image)[None], training=False))[0]
        best = int(row.argmax())
        return serving.Prediction(names[best], float(row[best]), dict(zip(names, row.tolist(), strict=True)))

    return TryModel(predict, prepare, model, _paths(images))


class TryModel(Pictured, ipywidgets.VBox):
    """The panel that `widgets.try_model` returns."""

    def __init__(
        self,
        predict: Callable[[Any], serving.Prediction],
        prepare: Callable[[Any], np.ndarray],
        network: Any,
        paths: Sequence[str],
    ) -> None:
        self._predict, self._prepare, self._network, self.paths = predict, prepare, network, list(paths)
        upload = ipywidgets.FileUpload(accept="image/*", multiple=False, description="upload an image")
        options = [(f"{Path(path).parent.name}/{Path(path).name}", path) for path in self.paths]
        pick = ipywidgets.Dropdown(options=[("or pick one …", ""), *options])
        self._words = ipywidgets.HTML()
        self._picture = ipywidgets.Image(format="png")
        upload.observe(lambda change: change["new"] and self.ask(bytes(change["new"][0]["content"])), "value")
        pick.observe(lambda change: change["new"] and self.ask(change["new"]), "value")
        super().__init__([ipywidgets.HBox([upload, pick] if paths else [upload]), self._words, self._picture])
        if self.paths:
            self.ask(self.paths[0])

    def ask(self, image: Any) -> serving.Prediction | None:
        """Shows the answer for an image (path, bytes or array), and returns it; None where it cannot be read."""
        try:
            prediction = self._predict(image)
            picture = self._drawn([(image, prediction)])
        except (ValueError, TypeError, OSError) as error:  # what people upload may be anything
            self._words.value = f"<b>No answer.</b> {html.escape(str(error))}"
            self._picture.value = b""
            return None
        strange = " It is <b>unlike the training images</b>: the label means little." if prediction.unknown else ""
        self._words.value = f"<b>{html.escape(prediction.label)}</b>, {prediction.confidence:.1%} certain.{strange}"
        self._picture.value = picture
        return prediction

    def _drawn(self, answers: Sequence[tuple[Any, serving.Prediction]]) -> bytes:
        """PNG: per image a row of the picture, where the model looked, and the likeliest classes."""
        figure = Figure(figsize=(7.5, 2.3 * len(answers)), layout="constrained")
        cells = figure.subplots(len(answers), 3, squeeze=False, width_ratios=[1, 1, 1.5])
        for (image, prediction), (left, middle, right) in zip(answers, cells, strict=True):
            pixels = self._prepare(image)
            heat = self._heat(pixels, prediction.label)
            for ax, title in ((left, "as the model sees it"), (middle, f"speaks for {shown(prediction.label, 16)}")):
                tiny = min(pixels.shape[:2]) < SIDE
                picture = pixels.astype(np.uint8).repeat(3 if pixels.shape[2] == 1 else 1, axis=2)
                ax.imshow(picture, interpolation="nearest" if tiny else None)
                ax.set_title(title, fontsize=9)
                ax.axis("off")
                readable(ax)
            if heat is None:
                middle.set_visible(False)
            else:
                middle.imshow(heat, cmap="inferno", alpha=0.7 * heat, vmin=0, vmax=1)
            _bars(right, prediction)
        return as_png(figure, dpi=90)

    def _heat(self, pixels: np.ndarray, label: str) -> np.ndarray | None:
        """Where the network looked; None where it has no maps to look at."""
        try:
            return None if self._network is None else explain.grad_cam(self._network, pixels, target=label)
        except (ValueError, TypeError):  # a network without convolutions, or in Python code of its own
            return None

    def static(self) -> bytes:
        """The answers for the first, a middle and the last image, as PNG; nothing where there are none."""
        answers = []
        for place in evenly_spaced(len(self.paths), STATIC):
            with contextlib.suppress(ValueError, OSError):
                answers.append((self.paths[place], self._predict(self.paths[place])))
        return self._drawn(answers) if answers else b""


def _bars(ax: Any, prediction: serving.Prediction) -> None:
    best = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:TOP]
    colors = [GREY if prediction.unknown else BLUE] + [GREY] * (len(best) - 1)
    bars = ax.barh(range(len(best)), [value for _, value in best], color=colors, height=0.7)
    ax.bar_label(bars, [f" {value:.1%}" for _, value in best], fontsize=8)
    ax.set_yticks(range(len(best)), [shown(name, 18) for name, _ in best], fontsize=8)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.2), xticks=[0, 0.5, 1])
    ax.tick_params(labelsize=8)
    ax.set_xlabel("probability" + (" (unlike the training images)" if prediction.unknown else ""), fontsize=8)
    finish(ax)


def _paths(images: Any) -> list[str]:
    """At most `OFFERED` paths of images, evenly spaced."""
    if images is None:
        return []
    if isinstance(images, str | os.PathLike):
        found = sorted(str(path) for path in Path(images).rglob("*") if path.suffix.lower() in ENDINGS)
    else:
        found = [str(path) for path in (images["path"] if isinstance(images, pd.DataFrame) else images)]
    if not found:
        raise ValueError(f"`images` expects a table, a folder or a list with at least one image. Received: {images!r}.")
    return [found[place] for place in evenly_spaced(len(found), OFFERED)]

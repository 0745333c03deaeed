"""A panel for asking a model about one image at a time: what is it, how sure, and where did it look?"""

import base64
import html
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cnnlab import explain, models, serving
from cnnlab._common import is_quiet
from cnnlab.images import ENDINGS, prepare
from cnnlab.plots.style import BLUE, GREY, readable, shown

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
        return TryModel(Asked(model, model.prepare, _network_of(model)), _paths(images))
    if hasattr(model, "predict_on_batch") and hasattr(model, "layers"):
        return TryModel(_asked(model), _paths(images))
    raise TypeError(
        f"`widgets.try_model` expects a serving.Predictor or a Keras model. Received: {type(model).__name__}."
    )


class Asked(NamedTuple):
    """What is asked about an image.

    Attributes:
        predict: One image of any kind to its prediction.
        prepare: One image of any kind to what the network takes, of 0-255.
        network: What Grad-CAM looks into; None where there is no Keras network.
    """

    predict: Callable[[Any], serving.Prediction]
    prepare: Callable[[Any], np.ndarray]
    network: Any

    def heat(self, pixels: np.ndarray, label: str) -> np.ndarray | None:
        """Where the network looked; None where it has no maps to look at."""
        try:
            return None if self.network is None else explain.grad_cam(self.network, pixels, target=label)
        except (ValueError, TypeError):  # a network without convolutions, or in Python code of its own
            return None


class TryModel(ipywidgets.VBox):
    """The panel that `widgets.try_model` returns."""

    def __init__(self, asked: Asked, paths: Sequence[str]) -> None:
        self._asked, self.paths = asked, list(paths)
        self._upload = ipywidgets.FileUpload(accept="image/*", multiple=False, description="upload an image")
        options = [(f"{Path(path).parent.name}/{Path(path).name}", path) for path in self.paths]
        self._pick = ipywidgets.Dropdown(options=[("or pick one …", ""), *options])
        self._words = ipywidgets.HTML()
        self._picture = ipywidgets.Image(format="png")
        self._upload.observe(self._on_upload, "value")
        self._pick.observe(self._on_pick, "value")
        choice = [self._upload, self._pick] if self.paths else [self._upload]
        super().__init__([ipywidgets.HBox(choice), self._words, self._picture])
        if self.paths:
            self.ask(self.paths[0])

    def ask(self, image: Any) -> serving.Prediction | None:
        """Shows the answer for an image (path, bytes or array), and returns it; None where it cannot be read."""
        try:
            prediction = self._asked.predict(image)
            picture = self._drawn([(image, prediction)])
        except (ValueError, TypeError, OSError) as error:  # what people upload may be anything
            self._words.value = f"<b>No answer.</b> {html.escape(str(error))}"
            self._picture.value = b""
            return None
        strange = " It is <b>unlike the training images</b>: the label means little." if prediction.unknown else ""
        self._words.value = f"<b>{html.escape(prediction.label)}</b>, {prediction.confidence:.1%} certain.{strange}"
        self._picture.value = picture
        return prediction

    def _on_upload(self, change: dict[str, Any]) -> None:
        if change["new"]:
            self.ask(bytes(change["new"][0]["content"]))

    def _on_pick(self, change: dict[str, Any]) -> None:
        if change["new"]:
            self.ask(change["new"])

    def _drawn(self, answers: Sequence[tuple[Any, serving.Prediction]]) -> bytes:
        """PNG: per image a row of the picture, where the model looked, and the likeliest classes."""
        figure = Figure(figsize=(7.5, 2.3 * len(answers)), dpi=90, layout="constrained")
        cells = figure.subplots(len(answers), 3, squeeze=False, width_ratios=[1, 1, 1.5])
        for (image, prediction), (left, middle, right) in zip(answers, cells, strict=True):
            pixels = self._asked.prepare(image)
            heat = self._asked.heat(pixels, prediction.label)
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
        file = io.BytesIO()
        figure.savefig(file, format="png")
        return file.getvalue()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**options)
        static = self._static()
        if static:
            bundle["image/png"] = base64.b64encode(static).decode()
            if is_quiet():  # nobody is there to upload anything: the picture alone
                del bundle["application/vnd.jupyter.widget-view+json"]
        return bundle

    def _static(self) -> bytes:
        answers = []
        places = np.linspace(0, len(self.paths) - 1, STATIC).round().astype(int) if self.paths else np.zeros(0, int)
        for place in np.unique(places):
            try:
                answers.append((self.paths[place], self._asked.predict(self.paths[place])))
            except (ValueError, OSError):
                continue
        return self._drawn(answers) if answers else b""


def _bars(ax: Any, prediction: serving.Prediction) -> None:
    best = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:TOP]
    colors = [GREY if prediction.unknown else BLUE] + [GREY] * (len(best) - 1)
    ax.barh(range(len(best)), [value for _, value in best], color=colors, height=0.7)
    for place, (_, value) in enumerate(best):
        ax.text(value, place, f" {value:.1%}", va="center", fontsize=8)
    ax.set_yticks(range(len(best)), [shown(name, 18) for name, _ in best], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.2)
    ax.set_xticks([0, 0.5, 1])
    ax.tick_params(labelsize=8)
    ax.set_xlabel("probability" + (" (unlike the training images)" if prediction.unknown else ""), fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    readable(ax)


def _paths(images: Any) -> list[str]:
    """At most `OFFERED` paths of images, evenly spaced.

    Raises:
        ValueError: If there is none.
    """
    if images is None:
        return []
    if isinstance(images, pd.DataFrame):
        found = [str(path) for path in images["path"]]
    elif isinstance(images, str | os.PathLike):
        found = sorted(str(path) for path in Path(images).rglob("*") if path.suffix.lower() in ENDINGS)
    else:
        found = [str(path) for path in images]
    if not found:
        raise ValueError(f"`images` expects a table, a folder or a list with at least one image. Received: {images!r}.")
    places = np.unique(np.linspace(0, len(found) - 1, min(len(found), OFFERED)).round().astype(int))
    return [found[place] for place in places]


def _asked(model: Any) -> Asked:
    """A Keras model that is asked directly."""
    names, preparation = models.class_names(model), models.preparation(model)

    def pixels_of(image: Any) -> np.ndarray:
        return prepare(image, preparation).astype(np.float32)

    def predict(image: Any) -> serving.Prediction:
        row = models.class_probabilities(model, model(pixels_of(image)[None], training=False))[0]
        best = int(row.argmax())
        return serving.Prediction(names[best], float(row[best]), dict(zip(names, row.tolist(), strict=True)))

    return Asked(predict, pixels_of, model)


def _network_of(predictor: serving.Predictor) -> Any:
    """The Keras network of an export, or None: answers are worth showing without heat maps, too."""
    try:
        return predictor.network()
    except Exception:  # of a stranger's file, anything
        return None

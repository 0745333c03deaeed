"""Results to look into: the images behind a cell of the confusion matrix, a map of images, a slider for a threshold."""

from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from cnnlab import metrics, plots
from cnnlab._common import require_columns, require_features
from cnnlab.images.levels import levels_of
from cnnlab.plots.images import places_of
from cnnlab.plots.style import color_of
from cnnlab.widgets.exploring import Explorer, Pictured, as_png
from cnnlab.widgets.thumbnails import thumbnails

SHOWN = 48  # images at a time


def confusion(predictions: pd.DataFrame) -> "Confusion":
    """A confusion matrix whose cells show their images when you click at them, the surest or the least sure first.

    Args:
        predictions: With path, label and predicted, as `experiments.predict` gives; with confidence, images are in
            its order.

    Returns:
        The view: leave it on a cell's last line. `selected` is the table of the images of the cell clicked last. Where
        widgets do not run, the picture of `plots.confusion` stands in its place.

    Raises:
        ValueError: If no row has both label and prediction.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import widgets
        >>> label = pd.Categorical(["cat", "cat", "dog"])
        >>> view = widgets.confusion(pd.DataFrame({"path": list("abc"), "label": label, "predicted": label[[0, 2, 2]]}))
        >>> view.select("cat", "dog")["path"].tolist()
        ['b']
    """
    require_columns(predictions, "path", "label", "predicted", caller="widgets.confusion")
    return Confusion(predictions)


def embedding(table: pd.DataFrame, features: np.ndarray, *, seed: int = 0) -> "Embedding":
    """A map of images, alike ones together: hover over a dot to see its image, draw around dots to select them.

    Args:
        table: With the column path, and possibly label.
        features: As for `plots.embedding`: numbers for each image, or the places themselves, shape (rows, 2).
        seed: Decides the map.

    Returns:
        The view: leave it on a cell's last line. `selected` is the table of the images last drawn around. Where widgets
        do not run, the picture of `plots.embedding` stands in its place.

    Raises:
        ValueError: If the features are not one row of numbers for each image, or of fewer than four images.

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from cnnlab import widgets
        >>> view = widgets.embedding(pd.DataFrame({"path": list("abcd")}), np.eye(4)[:, :2])
        >>> len(view.selected)
        0
    """
    require_columns(table, "path", caller="widgets.embedding")
    require_columns(table, *(["label"] if "label" in table else []), caller="widgets.embedding")
    values = require_features(table, features, least=2, caller="widgets.embedding")
    known = np.isfinite(values).all(axis=1)
    if not known.any():
        raise ValueError("`widgets.embedding` expects features of images that can be read. Received none but NaN.")
    return Embedding(table[known], places_of(values[known], seed))


class Results(Pictured, anywidget.AnyWidget):
    """What both views share: rows of a table that the browser asks for, as small pictures."""

    _esm = Path(__file__).with_name("results.js")
    facts = traitlets.Dict().tag(sync=True)

    def __init__(self, table: pd.DataFrame, **facts: Any) -> None:
        self._table, self._rows = table, np.zeros(0, int)
        super().__init__(facts=facts)
        self.on_msg(self._receive)

    @property
    def selected(self) -> pd.DataFrame:
        """The rows of the table that are shown, in their order."""
        return self._table.iloc[self._rows]

    def _rows_of(self, asked: Any) -> np.ndarray:
        raise NotImplementedError

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        """The browser asks for one row under the pointer, another selection, or more of the one there is."""
        if "hover" in content:
            self._show(np.array([content["hover"]]), "hover", hover=content["hover"])
            return
        start = content.get("start", 0)
        if "select" in content:
            self._rows = self._rows_of(content["select"])
        self._show(self._rows[start : start + SHOWN], "pictures", start=start, count=len(self._rows))

    def _show(self, rows: np.ndarray, kind: str, **more: Any) -> None:
        part = self._table.iloc[rows]
        found = thumbnails(part["path"], 160, levels=levels_of(self._table))
        captions = [self._caption(row) for _, row in part.iterrows()]
        titles = [
            f"{row.path} {picture.problem}".strip() for row, picture in zip(part.itertuples(), found, strict=True)
        ]
        self.send({"kind": kind, "captions": captions, "titles": titles, **more}, [one.data for one in found])

    def _caption(self, row: pd.Series) -> str:
        raise NotImplementedError


class Confusion(Results):
    """What `widgets.confusion` returns."""

    def __init__(self, predictions: pd.DataFrame) -> None:
        self._counts = metrics.confusion(predictions)
        self._names = [str(name) for name in self._counts.index]
        super().__init__(predictions, view="confusion", names=self._names, cells=self._counts.to_numpy().tolist())

    def select(self, label: str, predicted: str, *, least_sure_first: bool = False) -> pd.DataFrame:
        """The images of one cell, in order of confidence, as a click at it selects them.

        Raises:
            ValueError: If there is no such class.
        """
        for name in (label, predicted):
            if str(name) not in self._names:
                raise ValueError(f"`select` expects classes: {', '.join(self._names)}. Received: {name!r}.")
        cell = [self._names.index(str(label)), self._names.index(str(predicted)), least_sure_first]
        self._rows = self._rows_of(cell)
        return self.selected

    def _rows_of(self, asked: Any) -> np.ndarray:
        label, predicted, ascending = asked
        table = self._table
        cell = (table["label"] == self._counts.index[label]) & (table["predicted"] == self._counts.columns[predicted])
        rows = np.flatnonzero(cell)
        if "confidence" in table:
            sure = table["confidence"].to_numpy()[rows]
            rows = rows[np.argsort(sure if ascending else -sure, kind="stable")]
        return rows

    def _caption(self, row: pd.Series) -> str:
        return f"{row['confidence']:.1%}" if "confidence" in row else Path(row["path"]).name

    def static(self) -> bytes:
        """The matrix, as PNG."""
        figure = Figure((7, 6), layout="constrained")
        plots.confusion(self._counts, figure.subplots())
        return as_png(figure, dpi=80)


class Embedding(Results):
    """What `widgets.embedding` returns."""

    def __init__(self, table: pd.DataFrame, places: np.ndarray) -> None:
        self._places = places
        low, wide = places.min(axis=0), np.maximum(np.ptp(places, axis=0), 1e-12)
        dots = ((places - low) / wide).round(4).T.tolist()
        labels = table["label"] if "label" in table else pd.Series(pd.Categorical([None] * len(table), ["any"]))
        names = [str(name) for name in labels.cat.categories] if "label" in table else []
        colors = [color_of(number) for number in range(len(names))]
        codes = labels.cat.codes.tolist()
        super().__init__(table, view="embedding", x=dots[0], y=dots[1], codes=codes, names=names, colors=colors)

    def _rows_of(self, asked: Any) -> np.ndarray:
        return np.asarray(asked, int)

    def _caption(self, row: pd.Series) -> str:
        return str(row["label"]) if "label" in row else Path(row["path"]).name

    def static(self) -> bytes:
        """The map, as PNG."""
        figure = Figure((9, 7), layout="constrained")
        plots.embedding(self._table, self._places, ax=figure.subplots())
        return as_png(figure, dpi=80)


def threshold(
    predictions: pd.DataFrame, positive: str, *, miss_cost: float = 1.0, false_alarm_cost: float = 1.0
) -> "Threshold":
    """Moves the threshold of one class and shows what becomes of precision, recall and the confusion matrix.

    Choose on validation images; then `metrics.apply_threshold(test_predictions, positive, view.value)`.

    Args:
        predictions: With label and p_<class>.
        positive: The class that matters.
        miss_cost: What overlooking one costs, in any unit.
        false_alarm_cost: What one false alarm costs, in the same unit.

    Returns:
        The view: leave it on a cell's last line. Its `value` is the threshold. Where widgets do not run, the picture
        of the threshold with the least cost stands in its place.

    Raises:
        ValueError: If `positive` is not a class, or has no images, or there are no probabilities.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import widgets
        >>> label = pd.Categorical(["ok", "ok", "crack", "crack"])
        >>> table = pd.DataFrame({"label": label, "predicted": label,
        ...                       "p_ok": [0.9, 0.6, 0.7, 0.2], "p_crack": [0.1, 0.4, 0.3, 0.8]})
        >>> view = widgets.threshold(table, "crack", miss_cost=10)
        >>> view.value
        0.3
    """
    require_columns(predictions, "label", caller="widgets.threshold")
    levels = metrics.thresholds(predictions, positive, miss_cost=miss_cost, false_alarm_cost=false_alarm_cost)
    return Threshold(predictions, positive, levels)


class Threshold(Explorer):
    """What `threshold` returns."""

    def __init__(self, predictions: pd.DataFrame, positive: str, levels: pd.DataFrame) -> None:
        self.predictions, self.positive, self.levels = predictions, positive, levels
        best = min(float(levels["threshold"].iloc[levels["cost"].argmin()]), 1.0)
        look = {"readout_format": ".3f", "description": "threshold", "layout": {"width": "40em"}}
        self.slider = ipywidgets.FloatSlider(best, min=0, max=1, step=0.001, continuous_update=False, **look)
        super().__init__([self.slider])

    @property
    def value(self) -> float:
        """Where the slider stands."""
        return float(self.slider.value)

    def words(self) -> str:
        """What this threshold does, in numbers."""
        at = self.levels[self.levels["threshold"] >= self.value].iloc[-1]
        of_class = int(self.levels["misses"].iloc[0])
        return (
            f"{int(at['flagged'])} of {len(self.predictions)} images flagged · {int(at['misses'])} of {of_class} "
            f"missed · {int(at['false_alarms'])} false alarms · cost {at['cost']:,.6g}"
        )

    def figure(self) -> Figure:
        """Shares and cost over the threshold, and the confusion matrix at it."""
        figure = Figure((10, 3.9), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
        plots.thresholds(self.levels, left, show=("precision", "recall", "cost"), chosen=self.value)
        plots.confusion(metrics.apply_threshold(self.predictions, self.positive, self.value), right)
        return figure

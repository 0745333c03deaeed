"""A slider for the threshold of one class, over what it does."""

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from cnnlab import metrics, plots
from cnnlab._common import require_columns
from cnnlab.widgets.exploring import Explorer


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

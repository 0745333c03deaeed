"""What remedies for rare classes do, against doing nothing."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cnnlab._common import require_columns
from cnnlab.metrics.comparison import LOSSES
from cnnlab.plots.style import BLUE, GREEN, GREY, RED, finish, shown, with_interval

COLORS = {"baseline": BLUE, "better": GREEN, "worse": RED, "noise": GREY}
NEEDED = ("remedy", "metric", "value", "low", "high", "difference", "difference_low", "difference_high", "verdict")


def remedies(
    scores: pd.DataFrame,
    axes: Sequence[Axes] | None = None,
    *,
    metrics: Sequence[str] = ("macro_f1", "minority_recall", "calibration_error"),
) -> np.ndarray:
    """Shows by how much each remedy moves each score away from "none", and whether that is more than noise.

    A dot is the difference on the same images, its line the 95 % interval. Green is better than doing nothing, red
    is worse, grey is no more than noise; the score of "none" itself stands above.

    Args:
        scores: `experiments.imbalance(…).scores`.
        axes: Where to draw, one for each metric; new Axes where None.
        metrics: Which scores.

    Returns:
        The Axes, one for each metric.

    Raises:
        ValueError: If a metric is not in the table, or only "none" is.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import plots
        >>> row = {"metric": "macro_f1", "value": 0.4, "low": 0.3, "high": 0.5, "verdict": "baseline", "remedy": "none"}
        >>> moved = {"difference": 0.2, "difference_low": 0.1, "difference_high": 0.3}
        >>> scores = pd.DataFrame([row, row | moved | {"value": 0.6, "verdict": "better", "remedy": "oversample"}])
        >>> axes = plots.remedies(scores, metrics=["macro_f1"])
        >>> [text.get_text() for text in axes[0].get_yticklabels()]
        ['oversample']
    """
    require_columns(scores, *NEEDED, caller="plots.remedies")
    missing = [name for name in metrics if name not in set(scores["metric"])]
    tried = [name for name in scores["remedy"].unique() if name != "none"]
    if missing or not tried or not len(metrics):
        raise ValueError(
            "`plots.remedies` expects the scores of `experiments.imbalance` with none and at least one remedy, and "
            f"metrics of {', '.join(scores['metric'].unique())}. Received: metrics={list(metrics)}, remedies={tried}."
        )
    if axes is None:
        figure = plt.figure(figsize=(1.4 + 2.6 * len(metrics), 1.3 + 0.3 * len(tried)), layout="constrained")
        axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for ax, metric in zip(axes, metrics, strict=True):
        _differences(scores[scores["metric"] == metric].set_index("remedy"), tried, metric, ax)
    axes[0].set_yticks(range(len(tried)), [shown(name) for name in tried])
    axes[0].set_ylim(len(tried) - 0.5, -0.5)
    return np.asarray(axes)


def _differences(part: pd.DataFrame, tried: list[str], metric: str, ax: Axes) -> None:
    moved = part.loc[tried, ["difference", "difference_low", "difference_high"]].to_numpy(dtype=float)
    colors = [COLORS.get(str(verdict), GREY) for verdict in part.loc[tried, "verdict"]]
    for place, (rate, color) in enumerate(zip(moved, colors, strict=True)):
        with_interval(ax, place, rate, color)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.xaxis.grid(True, color="0.92")
    ax.set_axisbelow(True)
    value, low, high = part.loc["none", ["value", "low", "high"]].to_numpy(dtype=float)
    number = f", n = {int(part['images'].iloc[0]):,} images" if "images" in part else ""
    words = metric.replace("_", " ").replace("f1", "F1")
    ax.set_title(f"{words}{number}\nnone: {value:.2f} ({low:.2f} to {high:.2f})", fontsize=9)
    side = "left" if metric in LOSSES else "right"
    finish(ax, f"difference from none\n({side} is better)")

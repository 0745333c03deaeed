"""Figures of training: how loss and accuracy moved."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cnnlab.plots.style import BLUE, GREY, ORANGE


def history(
    history: Any, *, metrics: Sequence[str] = ("loss", "accuracy"), axes: Sequence[Axes] | None = None
) -> np.ndarray:
    """Shows how training went, epoch by epoch: training and validation curves, and the best epoch.

    Args:
        history: What `model.fit` returns, or a DataFrame such as `history.csv` of a run folder.
        metrics: Which curves, one Axes each.
        axes: Where to draw; new Axes where None.

    Returns:
        The Axes, one for each metric.

    Raises:
        ValueError: If a metric is not in the history.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import plots
        >>> axes = plots.history(pd.DataFrame({"loss": [2, 1], "val_loss": [2.5, 2]}), metrics=["loss"])
        >>> axes[0].get_xlabel()
        'epoch'
    """
    table = pd.DataFrame(getattr(history, "history", history))
    for metric in metrics:
        if metric not in table:
            raise ValueError(
                f"`metrics` expects columns of the history: {', '.join(map(str, table))}. Received: {metric!r}."
            )
    if axes is None:
        figure = plt.figure(figsize=(4 * len(metrics), 2.8), layout="constrained")
        axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    for ax, metric in zip(axes, metrics, strict=True):
        _curve(table, metric, ax)
    return np.asarray(axes)


def _curve(table: pd.DataFrame, metric: str, ax: Axes) -> None:
    epochs = np.arange(1, len(table) + 1)
    ax.plot(epochs, table[metric], color=BLUE, label="training", marker=".")
    validation = f"val_{metric}"
    if validation in table and table[validation].notna().any():
        row = int(table[validation].argmin() if "loss" in metric else table[validation].argmax())
        best = f"validation (best {table[validation].iloc[row]:.3f}, epoch {row + 1})"
        ax.plot(epochs, table[validation], color=ORANGE, label=best, marker=".")
        ax.axvline(row + 1, color=GREY, linewidth=0.8, linestyle=":")
    ax.set_xlabel("epoch")
    ax.set_ylabel(metric)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)

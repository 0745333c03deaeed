"""Figures of training: how loss and accuracy moved."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cnnlab.plots.style import BLUE, GREY, ORANGE, color_of, finish, new_axes, shown

LOWER_IS_BETTER = ("loss", "error", "mae", "mse", "mape", "msle", "brier", "false", "crossentropy")


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
    curves = getattr(history, "history", history)
    short = [name for name in curves if len(curves[name]) < len(curves["loss"])] if "loss" in curves else []
    if short:
        raise ValueError(
            f"Expected a value of each metric for each epoch. Received {len(curves['loss'])} epochs and "
            f"{len(curves[short[0]])} of {short[0]!r}, as after `validation_freq=`. The history.csv in a run folder of "
            "`training.callbacks` says which epochs they are: pass `pd.read_csv(…)` of it."
        )
    table = pd.DataFrame(curves)
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
        lower = any(word in metric for word in LOWER_IS_BETTER)
        row = int(table[validation].argmin() if lower else table[validation].argmax())
        best = f"validation (best {table[validation].iloc[row]:.3f}, epoch {row + 1})"
        ax.plot(epochs, table[validation], color=ORANGE, label=best, marker=".")
        ax.axvline(row + 1, color=GREY, linewidth=0.8, linestyle=":")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(ax, "epoch", metric, loc="best")


def learning_rates(found: Any, *, ax: Axes | None = None) -> Axes:
    """Shows a learning-rate range test: the loss over the learning rate, and the rate that was suggested.

    Args:
        found: What `training.find_learning_rate` returns, or its table.
        ax: Where to draw; new Axes where None.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import plots
        >>> table = pd.DataFrame({"learning_rate": [1e-4, 1e-3, 1e-2], "loss": [2.0, 1.0, 9.0]})
        >>> table = table.assign(smoothed=[2.0, 1.5, 9.0], suggested=[False, True, False])
        >>> plots.learning_rates(table).get_xscale()
        'log'
    """
    table = getattr(found, "table", found)
    ax = new_axes(ax, (5, 2.8))
    ax.plot(table["learning_rate"], table["loss"], ".", color=GREY, markersize=4, label="one batch")
    ax.plot(table["learning_rate"], table["smoothed"], color=BLUE, label="smoothed")
    chosen = table[table["suggested"]].iloc[0]
    label = f"suggested: {chosen['learning_rate']:.2g}"
    ax.plot(chosen["learning_rate"], chosen["smoothed"], "o", color=ORANGE, markersize=8, label=label)
    ax.set_xscale("log")
    ax.set_ylim(0, 1.3 * float(table["smoothed"].iloc[: max(len(table) // 2, 1)].max()))
    return finish(ax, "learning rate", "loss before the step", loc="best")


def schedule(
    schedules: Callable[[int], Any] | Mapping[str, Callable[[int], Any]], *, steps: int, ax: Axes | None = None
) -> Axes:
    """Shows how the learning rate changes over the training.

    Args:
        schedules: A Keras schedule, or several under names.
        steps: Training steps in all.
        ax: Where to draw; new Axes where None.

    Example:
        >>> from cnnlab import plots
        >>> plots.schedule(lambda step: 0.1 * 0.99**step, steps=100).get_xlabel()
        'step'
    """
    named = schedules if isinstance(schedules, Mapping) else {"": schedules}
    ax = new_axes(ax, (5, 2.8))
    places = np.unique(np.linspace(0, steps, 400, dtype=int))
    for number, (name, rate) in enumerate(named.items()):
        ax.plot(places, [float(rate(int(step))) for step in places], color=color_of(number), label=shown(name))
    ax.set_ylim(0, None)
    return finish(ax, "step", "learning rate", **({"loc": "best"} if any(named) else {}))

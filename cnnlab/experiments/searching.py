"""Search over settings: each point of a grid is scored by k folds, on KerasTuner, and nothing is lost when it stops."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab.experiments.runner import checked_rows, experiment_facts
from cnnlab.experiments.search_result import Search
from cnnlab.experiments.training_run import Recipe
from cnnlab.models.fingerprint import describe
from cnnlab.tables.linking import Group

# How 0.1.0 was, and KerasTuner is, told to search with a chief and workers.
CHIEF = ("distributed", "KERASTUNER_ORACLE_IP")


def grid_search(
    build: Callable[..., keras.Model] | Any,
    grid: Any,
    table: pd.DataFrame,
    *,
    folds: int = 3,
    image_size: tuple[int, int],
    epochs: int,
    seed: int,
    folder: str | os.PathLike[str],
    method: str = "grid",
    objective: Any = "val_accuracy",
    trials: int | None = None,
    group: Group = None,
    patience: int | None = None,
    callbacks: Any = None,
    class_weight: Any = None,
    **loading: Any,
) -> Search:
    """Tries the points of a grid, each by k-fold cross-validation on the same folds, with KerasTuner.

    The same call goes on with the fold in which an interrupted one stopped, and ends with the same results. What was
    computed with another network, other settings or other images is refused. A point that cannot be trained is noted
    with the reason, and the others are kept; the next call tries it again, unless "bayesian" or "hyperband" proposed
    later points knowing that. Where the backbone is frozen and pixels are not augmented, all heads are trained side by
    side on features that are computed once. Several processes that make the same call with the same folder, on
    one machine or on many that see it, share the folds of each point.

    Args:
        build: `build(hp)` returns a new, compiled model; `hp["learning_rate"]` reads a value of the grid. Or a
            `kt.HyperModel` of your own, with or without its own `fit`.
        grid: Name → values to try, which may be anything, such as policies or None. Or `kt.HyperParameters`;
            or None where `build` names its own with `hp.Choice(…)`. The names batch_size, augment, balance, resize,
            epochs and patience are taken by themselves and need not be read by `build`.
        table: With the columns path and label; a column `split` is not looked at.
        folds: How many, 2 or more.
        image_size: Height and width in pixels.
        epochs: At most so many.
        seed: Decides folds, initial weights, order and augmentation; equal at every point.
        folder: Where everything is kept, KerasTuner's own files included.
        method: "grid" tries every point; "random" and "bayesian" try `trials` of them; "hyperband" trains many for few
            epochs and the best for more.
        objective: By what the best point is chosen: val_accuracy, val_balanced_accuracy, val_loss, or any metric of
            the compiled model after `val_`; for a metric of your own, `kt.Objective(name, "max")`.
        trials: How many points, for "random" and "bayesian".
        group: As in `cross_validate`, like what follows.
        patience: Epochs without improvement before a fold stops.
        callbacks: Keras callbacks, or a function that makes them.
        class_weight: By class number or name; or "balanced".
        **loading: Passed on to `pipelines.load`.

    Returns:
        A `Search`: results, best_model, confirm, tuner …

    Raises:
        ValueError: If the grid has no points, a class is smaller than the number of folds, a name has no effect, or
            KerasTuner is told to search with a chief and workers.
        TypeError: If `seed` is not a whole number from 0.
        FileExistsError: If the folder holds an experiment with other settings, or another `build` was searched with.
        RuntimeError: If no point could be trained; if some could not, that is a warning.

    Example:
        >>> search = grid_search(build, {"learning_rate": [1e-3, 1e-2]}, table, folds=3, image_size=(64, 64),
        ...                      epochs=10, seed=0, folder="../runs/search")  # doctest: +SKIP
        >>> search.ranking().head(3)  # doctest: +SKIP
    """
    rows = checked_rows(table, caller="experiments.grid_search", subject="The search", seed=seed, epochs=epochs)
    recipe = Recipe(epochs, patience, None, callbacks, class_weight, None, {"image_size": tuple(image_size)} | loading)
    how = {"method": method, "trials": trials, "objective": objective}
    return _search(build, grid, rows, recipe, how, folds=folds, seed=seed, group=group, folder=folder)


def _search(build: Any, grid: Any, rows: pd.DataFrame, recipe: Recipe, how: dict[str, Any], **options: Any) -> Search:
    from cnnlab.experiments.search_space import Space
    from cnnlab.experiments.tuning import SCORES, CheckedHyperModel, FoldTuner, make_oracle

    if named := [name for name in CHIEF if name in recipe.loading or name in os.environ]:
        raise ValueError(
            f"`experiments.grid_search` searches without a chief. Received: {named[0]}. Take it out, and start the "
            "same call with the same folder in several processes: they share the folds of each point."
        )
    space = Space(grid, beside={*recipe.loading} - {"image_size"})
    oracle = make_oracle(**how, space=space, seed=options["seed"], epochs=recipe.epochs)
    name, direction = oracle.objective.name, oracle.objective.direction
    recipe = replace(recipe, objective=None if name in SCORES else name)
    hypermodel = CheckedHyperModel(build, space)
    settings = experiment_facts(rows, recipe, **options, **how | {"objective": (name, direction)})
    settings |= {"grid": space.describe(), "fit": describe(hypermodel.own_fit)}
    tuner = FoldTuner(oracle, hypermodel, rows, recipe, settings=settings, **options)
    tuner.search()
    search = Search(tuner)
    search.warn_of_problems()
    return search

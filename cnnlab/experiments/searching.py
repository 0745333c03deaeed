"""Search over settings: each point of a grid is scored by k folds, on KerasTuner, and nothing is lost when it stops."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab._common import require_seed
from cnnlab.experiments.fingerprint import describe
from cnnlab.experiments.runner import experiment_facts, plain_table, require_counts, say_what_is_tested
from cnnlab.experiments.search import Search
from cnnlab.experiments.store import owned
from cnnlab.experiments.training_run import Recipe
from cnnlab.tables.linking import Group


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
    distributed: str | None = None,
    **loading: Any,
) -> Search:
    """Tries the points of a grid, each by k-fold cross-validation on the same folds, and keeps everything in a folder.

    The same call goes on where an interrupted one stopped, in the middle of a point if need be: no point is lost or
    trained twice, and the results are those of an uninterrupted search. What was computed with another network, other
    settings or other images is refused. A point that cannot be trained is noted with the reason; the others are kept.
    Where the model's backbone is frozen and pixels are not augmented, features are computed once and all heads are
    trained side by side, in the time of one pass over the images.

    Args:
        build: `build(hp)` returns a new, compiled model; `hp["learning_rate"]` reads a value of the grid. Or a
            `kt.HyperModel` of your own, with or without its own `fit`.
        grid: Name → values to try. Values may be anything, such as policies or None. Or `kt.HyperParameters`;
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
        objective: By what the best point is chosen, a score of the held-out rows: val_accuracy, val_balanced_accuracy,
            val_loss, or any metric of the compiled model after `val_`. Keras knows which direction is better; for a
            metric of your own give `kt.Objective(name, "max")`.
        trials: How many points, for "random" and "bayesian".
        group: As in `cross_validate`.
        patience: As in `cross_validate`.
        callbacks: As in `cross_validate`.
        class_weight: As in `cross_validate`.
        distributed: "address:port" of the chief where several processes search together; see `experiments.workers`.
        **loading: Passed on to `pipelines.load`.

    Returns:
        A `Search`: results, best_model, confirm, tuner …

    Raises:
        ValueError: If the grid has no points, a class is smaller than the number of folds, or a name has no effect.
        TypeError: If `seed` is not a whole number from 0.
        FileExistsError: If the folder holds an experiment with other settings, or another `build` was searched with.
        TimeoutError: If another process works in the folder.
        RuntimeError: If no point could be trained; if some could not, that is a warning.

    Source:
        KerasTuner (O'Malley et al. 2019), with oracles of our own whose state is complete.

    Example:
        >>> search = grid_search(build, {"learning_rate": [1e-3, 1e-2]}, table, folds=3, image_size=(64, 64),
        ...                      epochs=10, seed=0, folder="../runs/search")  # doctest: +SKIP
        >>> search.ranking().head(3)  # doctest: +SKIP
    """
    from cnnlab.experiments.oracles import SCORES, make_oracle
    from cnnlab.experiments.search_space import Space
    from cnnlab.experiments.tuning import CheckedHyperModel, FoldTuner

    rows = plain_table(table, caller="experiments.grid_search")
    require_counts(epochs=epochs)
    require_seed(seed, caller="experiments.grid_search")
    say_what_is_tested(table, "The search")
    space = Space(grid, beside=loading)
    oracle = make_oracle(method, objective=objective, space=space, seed=seed, trials=trials, epochs=epochs)
    name, direction = oracle.objective.name, oracle.objective.direction
    loading = {"image_size": tuple(image_size)} | loading
    recipe = Recipe(epochs, patience, None, callbacks, class_weight, None if name in SCORES else name, loading)
    hypermodel = CheckedHyperModel(build, space)
    settings = experiment_facts(
        rows,
        recipe,
        group=group,
        folder=folder,
        folds=folds,
        seed=seed,
        method=method,
        trials=trials,
        objective=(name, direction),
    )
    settings |= {"grid": space.describe(), "fit": describe(hypermodel.own_fit)}
    options: dict[str, Any] = {"folds": folds, "seed": seed, "group": group, "folder": folder, "settings": settings}
    return _search(functools.partial(FoldTuner, oracle, hypermodel, rows, recipe, **options), Path(folder), distributed)


def _search(make_tuner: Callable[[], Any], folder: Path, distributed: str | None) -> Search:
    """Runs the part that this process has in a search."""
    from cnnlab.experiments.workers import role

    with role(distributed, folder) as part, owned(folder if part.alone or part.is_chief else None):
        tuner = make_tuner()
        if part.alone or part.is_chief:
            tuner.claim_kept()
        if part.alone and hasattr(tuner.oracle, "points"):
            points = tuner.oracle.points()
            _require_effect(tuner, points)
            tuner.train_together(points)
        part.watch(tuner.oracle)
        tuner.search()
    search = Search(tuner)
    search.warn_of_problems()
    return search


def _require_effect(tuner: Any, points: list[dict[str, Any]]) -> None:
    """Refuses a name in the grid that `build` does not read at any of some points: most likely it is misspelt."""
    from cnnlab.experiments.search_space import FITTING, LOADING

    known, model = (*LOADING, *FITTING), tuner.hypermodel
    names = {name for name in model.space.values if name not in known}
    if model.own_fit is not None:  # which may read them, too
        return
    for values in points[:: max(1, len(points) // 8)]:
        if names <= model.read:
            return
        hp = tuner.oracle.get_space()
        hp.values = dict(values)
        try:
            model.build(hp)
        except Exception:  # the search comes to this point and says what is wrong
            return
    if missing := sorted(names - model.read):
        raise ValueError(
            f"The grid has {missing[0]!r}, which `build` never reads, so that it has no effect. Read it with "
            f"hp[{missing[0]!r}], or take it out. Taken by themselves are {', '.join(known)}."
        )

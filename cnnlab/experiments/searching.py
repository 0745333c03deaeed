"""Search over settings: each point of a grid is scored by k folds, on KerasTuner, and nothing is lost when it stops."""

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab import tables
from cnnlab.experiments.confirming import Confirmation, confirm
from cnnlab.experiments.fingerprint import describe
from cnnlab.experiments.runner import experiment_facts, plain_table, require_counts
from cnnlab.experiments.store import Store, owned
from cnnlab.experiments.training_run import Recipe, Rows, validation_rows
from cnnlab.tables.linking import Group, say_once

BEST = "best.npz"  # weights of the network that was trained on all rows
WHOLE = 999  # added to the seed where a model is trained on all rows
LONGEST = 2000  # characters of a problem that are read
SCORES = {"accuracy": "val_accuracy", "balanced_accuracy": "val_balanced_accuracy", "epochs": "epochs_trained"}


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
) -> "Search":
    """Tries the points of a grid, each by k-fold cross-validation on the same folds, and keeps everything in a folder.

    The same call goes on where an interrupted one stopped, in the middle of a point if need be: no point is lost or
    trained twice, and the results are those of an uninterrupted search. What was computed with another network, other
    settings or other images is refused. A point that cannot be trained is noted with the reason; the others are kept.
    Where the model's backbone is frozen and pixels are not augmented, features are
    computed once and all heads are trained side by side, in the time of one pass over the images.

    Args:
        build: `build(hp)` returns a new, compiled model; `hp["learning_rate"]` reads a value of the grid. Or a
            `kt.HyperModel` of your own, with or without its own `fit`.
        grid: Name → values to try. Values may be anything, such as `augment.Policy`s or None. Or `kt.HyperParameters`;
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
            val_loss, or val_ and any metric of the compiled model. Keras knows which direction is better; for a metric
            of your own give `kt.Objective(name, "max")`.
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
        ValueError: If the grid has no points, a class is smaller than the number of folds, or a name in the grid has
            no effect.
        FileExistsError: If the folder holds an experiment with other settings, or another `build` was searched with.
        TimeoutError: If another process works in the folder.
        RuntimeError: If no point could be trained.

    Warns:
        UserWarning: If some points could not be trained.

    Source:
        KerasTuner (O'Malley et al. 2019), with oracles of our own whose state is complete.

    Example:
        >>> search = grid_search(build, {"learning_rate": [1e-3, 1e-2]}, table, folds=3, image_size=(64, 64),
        ...                      epochs=10, seed=0, folder="../runs/search")  # doctest: +SKIP
        >>> search.ranking().head(3)  # doctest: +SKIP
    """
    from cnnlab.experiments.oracles import SCORES as FROM_PREDICTIONS
    from cnnlab.experiments.oracles import make_oracle
    from cnnlab.experiments.points import FITTING, LOADING, Space
    from cnnlab.experiments.tuning import CheckedHyperModel, FoldTuner
    from cnnlab.experiments.workers import role

    rows = plain_table(table, caller="experiments.grid_search")
    require_counts(epochs=epochs)
    tested = int((table["split"] == "test").sum()) if "split" in table else 0
    if tested:
        say_once(
            f"The search learns from {tested} rows of the test split, which then cannot test its winner. Leave them "
            "out: `table[table['split'] != 'test']`."
        )
    clash = [name for name in loading if name in FITTING or (isinstance(grid, dict) and name in grid)]
    if clash:
        raise ValueError(f"{clash[0]!r} is in the grid and given beside it. Leave one of the two out.")
    space = Space(grid)
    oracle = make_oracle(
        method, objective=objective, hyperparameters=space.hyperparameters, fixed=space.fixed, seed=seed, trials=trials,
        epochs=epochs,
    )  # fmt: skip
    hypermodel = CheckedHyperModel(build, space)
    measured = None if oracle.objective.name in FROM_PREDICTIONS else oracle.objective.name
    recipe = Recipe(
        epochs, patience, callbacks=callbacks, class_weight=class_weight, objective=measured,
        loading={"image_size": tuple(image_size)} | loading,
    )  # fmt: skip
    settings = experiment_facts(
        rows, recipe, group=group, folds=folds, seed=seed, method=method, trials=trials,
        objective=(oracle.objective.name, oracle.objective.direction),
    ) | {"grid": space.describe(), "fit": describe(hypermodel.own_fit)}  # fmt: skip
    assigned = tables.folds(rows, count=folds, group=group, seed=seed)
    with role(distributed, Path(folder)) as part, owned(folder if part.alone or part.is_chief else None):
        store = Store(folder, settings)
        tuner = FoldTuner(oracle, hypermodel, table=assigned, store=store, recipe=recipe, seed=seed, group=group)
        if part.alone or part.is_chief:
            tuner.claim_kept()
        if method == "grid" and part.alone:
            points = oracle.points()
            if space.fixed:
                _require_effect(tuner, points, known=(*LOADING, *FITTING))
            tuner.train_together(points)
        part.watch(oracle)
        tuner.search()
    search = Search(tuner)
    search._warn_of_problems()
    return search


def _require_effect(tuner: Any, points: list[dict[str, Any]], *, known: tuple[str, ...]) -> None:
    """Refuses a name in the grid that `build` does not read at any of some points: most likely it is misspelt."""
    if tuner.hypermodel.own_fit is not None:
        return  # which may read them, too
    names = {name for name in tuner.hypermodel.space.values if name not in known}
    step = max(1, len(points) // 8)
    for values in points[::step]:
        if names <= tuner.hypermodel.read:
            return
        hp = tuner.oracle.get_space()
        hp.values = dict(values)
        try:
            tuner.hypermodel.build(hp)
        except Exception:  # the search comes to this point and says what is wrong
            return
    missing = sorted(names - tuner.hypermodel.read)
    if missing:
        raise ValueError(
            f"The grid has {missing[0]!r}, which `build` never reads, so that it has no effect. Read it with "
            f"hp[{missing[0]!r}], or take it out. Taken by themselves are {', '.join(known)}."
        )


class Search:
    """What a search gives.

    Attributes:
        tuner: KerasTuner's own; `tuner.get_best_hyperparameters()` and all else works.
        folder: Where everything is kept.
        results: One row per trial and fold: trial, the values of the point, fold, val_accuracy, val_balanced_accuracy,
            images, epochs_trained, seconds, problem ("" or why there is no score).
    """

    def __init__(self, tuner: Any) -> None:
        self.tuner = tuner
        self.folder = Path(tuner.project_dir)
        self._space = tuner.hypermodel.space
        self.objective = tuner.oracle.objective

    def __repr__(self) -> str:
        best = self.ranking().iloc[0]
        values = ", ".join(f"{name}={best[name]}" for name in self.parameters)
        return (
            f"<Search of {self.results['trial'].nunique()} trials × {self.tuner.folds} folds; "
            f"best: {values} with {best['mean']:.3f} ± {best['sd']:.3f}>"
        )

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row per trial and fold."""
        rows = []
        for number, (name, values) in enumerate(self._points.items()):
            kept = self._kept(name, "scores")
            if kept is None:
                scores = pd.DataFrame({"fold": range(self.tuner.folds)}).assign(problem=self._why(name))
            else:
                scores = kept.rename(columns=lambda column: SCORES.get(column, column))
                scores = scores.rename(columns={self.objective.name.removeprefix("val_"): self.objective.name})
                if self.objective.name not in scores:
                    scores["problem"] = self._why(name)
            rows.append(scores.assign(trial=number, **self._space.shown(values)))
        table = pd.concat(rows, ignore_index=True)
        first = ["trial", *self.parameters, "fold", self.objective.name, "val_accuracy", "val_balanced_accuracy"]
        last = ["images", "epochs_trained", "seconds", "problem"]
        return table.reindex(columns=list(dict.fromkeys([*first, *last]))).astype({"problem": "str"})

    @cached_property
    def parameters(self) -> list[str]:
        """Names of what was searched."""
        return list(dict.fromkeys(name for values in self._points.values() for name in self._space.shown(values)))

    @property
    def histories(self) -> pd.DataFrame:
        """One row per trial, fold and epoch."""
        return self._all("history")

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per trial and image, predicted by a network that did not see it; of one trial, a prediction table."""
        return self._all("predictions")

    def ranking(self) -> pd.DataFrame:
        """One row per trial, the best first: its values, mean and standard deviation of the objective over folds."""
        groups = self.results.groupby("trial", sort=True)
        scores = groups[self.objective.name].agg(mean=lambda values: values.mean(skipna=False), sd="std")
        table = groups[self.parameters].first().join(scores).join(groups["seconds"].sum())
        return table.sort_values("mean", ascending=self.objective.direction == "min", kind="stable").reset_index()

    @property
    def best(self) -> dict[str, Any]:
        """The values of the best point, as `build` gets them."""
        return self._space.behind(self._values(int(self.ranking()["trial"].iloc[0])))

    def best_model(self, *, refit: bool = True) -> keras.Model:
        """A network with the settings of the best point.

        Args:
            refit: Whether it is trained anew on all rows, once; it is kept. False gives the one of the best fold, which
                is there already and has not seen the images of that fold.

        Returns:
            A trained, compiled model. It says how its images were prepared (`models.preparation`), a `resize` of the
            grid included.
        """
        from cnnlab.experiments.tuning import WEIGHTS, save_weights

        trial = int(self.ranking()["trial"].iloc[0])
        name, hp = self._name(trial), self._hyperparameters(trial)
        kept = self.folder / name / (BEST if refit else WEIGHTS)
        if not refit or kept.is_file():
            return self.tuner.restored(name, hp, kept)
        rows = self.tuner.table.drop(columns="fold")
        example = self.tuner.runs(name, hp)[0]
        options = {"group": self.tuner.group, "patience": example.recipe.patience}
        train, val = validation_rows(rows, seed=self.tuner.seed + WHOLE, **options)
        run = replace(example, name=BEST, rows=Rows(train, val, rows.iloc[:0]), seed=self.tuner.seed + WHOLE)
        model = self.tuner.runner.train(run).model
        save_weights(model, kept)
        return model

    def confirm(self, *, seeds: int = 5) -> Confirmation:
        """Is the winner better than the runner-up, or was it lucky?

        The best of many points was also the luckiest: its score is too high, and another one may be as good. Both are
        cross-validated again with seeds, and folds, that the search has not seen.

        Args:
            seeds: How often, 2 or more.

        Returns:
            scores, comparison and verdict; see `Confirmation`.

        Raises:
            ValueError: If there are fewer than two points with a score, or fewer than two seeds.
        """
        ranking = self.ranking().dropna(subset=["mean"])
        if len(ranking) < 2 or seeds < 2:
            raise ValueError(
                f"`confirm` expects two points with a score and 2 seeds or more. Received: {len(ranking)} points, "
                f"seeds={seeds}."
            )
        settings = {}
        for trial in ranking["trial"].head(2):
            hp = self._hyperparameters(int(trial))
            settings[int(trial)] = self.tuner.runs(self._name(int(trial)), hp)[0]
        return confirm(
            settings,
            self.tuner.table.drop(columns="fold"),
            folds=self.tuner.folds,
            seeds=seeds,
            seed=self.tuner.seed + 10_000,
            group=self.tuner.group,
            folder=self.folder / "confirm",
            searched=self.results.groupby("trial")["val_accuracy"].mean(),
        )

    @cached_property
    def _points(self) -> dict[str, dict[str, Any]]:
        """Values by name of the trial, read from the folder: workers have no oracle of their own."""
        from cnnlab.experiments.oracles import read_oracle

        state = read_oracle(self.folder / "oracle.json")
        return {f"trial_{name}": trial["hyperparameters"]["values"] for name, trial in sorted(state["trials"].items())}

    def _name(self, trial: int) -> str:
        return list(self._points)[trial]

    def _values(self, trial: int) -> dict[str, Any]:
        return list(self._points.values())[trial]

    def _hyperparameters(self, trial: int) -> Any:
        oracle = self.tuner.oracle
        hp = getattr(oracle, "_oracle", oracle).get_space()  # a worker's would ask the chief, who is gone
        hp.values = dict(self._values(trial))
        return hp

    def _kept(self, name: str, key: str) -> pd.DataFrame | None:
        """One table of a trial over its folds; None where it was not finished."""
        store = self.tuner.store
        parts = [store.get(f"{name}/fold_{fold}", only=key) for fold in range(self.tuner.folds)]
        whole = [part[key].assign(fold=fold) for fold, part in enumerate(parts) if part is not None]
        return pd.concat(whole, ignore_index=True) if len(whole) == self.tuner.folds else None

    def _all(self, key: str) -> pd.DataFrame:
        parts = {number: self._kept(name, key) for number, name in enumerate(self._points)}
        whole = [part.assign(trial=number) for number, part in parts.items() if part is not None]
        table = pd.concat(whole, ignore_index=True)
        return table[["trial", *[column for column in table if column != "trial"]]]

    def _why(self, name: str) -> str:
        note = self.folder / name / "problem.txt"
        if not note.is_file():
            return "It was not finished."
        with note.open(encoding="utf-8", errors="replace") as file:
            return file.read(LONGEST)

    def _warn_of_problems(self) -> None:
        """Warns of points without a score; there must be one that has.

        Raises:
            RuntimeError: If none has.
        """
        broken = self.results[self.results["problem"] != ""].drop_duplicates("trial")
        if broken.empty:
            return
        first = broken.iloc[0]
        values = ", ".join(f"{name}={first[name]}" for name in self.parameters)
        why = f"The first, trial {first['trial']} ({values}): {first['problem']}"
        count = self.results["trial"].nunique()
        if len(broken) == count:
            raise RuntimeError(f"None of the {count} points could be trained. {why}")
        warnings.warn(f"{len(broken)} of {count} points have no score; the others are kept. {why}", stacklevel=3)

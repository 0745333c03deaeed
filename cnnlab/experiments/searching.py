"""Search over settings: each point of a grid is scored by k folds, on KerasTuner, and nothing is lost when it stops."""

import json
import os
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import pandas as pd

from cnnlab import tables
from cnnlab._common import require_columns
from cnnlab.experiments.confirming import Confirmation, confirm
from cnnlab.experiments.fitting import Fold, inner, run_fold
from cnnlab.experiments.store import Store

BEST = "best.weights.h5"
WHOLE = 999  # added to the seed where a model is trained on all rows
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
    trials: int | None = None,
    group: str | None = None,
    patience: int | None = None,
    distributed: str | None = None,
    **loading: Any,
) -> "Search":
    """Tries the points of a grid, each by k-fold cross-validation on the same folds, and keeps everything in a folder.

    The same call goes on where an interrupted one stopped, in the middle of a point if need be: no point is lost or
    trained twice, and the results are those of an uninterrupted search. A point that cannot be trained is noted with
    the reason; the others are kept. Where the model's backbone is frozen and pixels are not augmented, features are
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
        trials: How many points, for "random" and "bayesian".
        group: A column whose equal values stay in one fold.
        patience: As in `cross_validate`.
        distributed: "address:port" of the chief where several processes search together; see `experiments.workers`.
        **loading: Passed on to `pipelines.load`.

    Returns:
        A `Search`: results, best_model, confirm, tuner …

    Raises:
        ValueError: If the grid has no points, a class is smaller than the number of folds, or a name in the grid has
            no effect.
        FileExistsError: If the folder holds an experiment with other settings.
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
    from cnnlab.experiments.oracles import make_oracle
    from cnnlab.experiments.points import FITTING, LOADING, Space
    from cnnlab.experiments.tuning import FoldTuner, Opened, Work
    from cnnlab.experiments.workers import role

    require_columns(table, "path", "label", caller="experiments.grid_search")
    if epochs < 1:
        raise ValueError(f"`epochs` expects 1 or more. Received: epochs={epochs}.")
    clash = [name for name in loading if name in FITTING or (isinstance(grid, dict) and name in grid)]
    if clash:
        raise ValueError(f"{clash[0]!r} is in the grid and given beside it. Leave one of the two out.")
    space = Space(grid)
    oracle = make_oracle(
        method, hyperparameters=space.hyperparameters, fixed=space.fixed, seed=seed, trials=trials, epochs=epochs
    )
    plain = table.drop(columns=["split", "fold"], errors="ignore").reset_index(drop=True)
    dealt = tables.folds(plain, count=folds, group=group, seed=seed)
    recipe = {"image_size": tuple(image_size), "epochs": epochs, "patience": patience, "seed": seed} | loading
    facts = ["path", "label", *([group] if group else [])]
    settings = {"table": plain[facts], "folds": folds, "group": group, "method": method, "trials": trials}
    store = Store(folder, recipe | settings | {"grid": space.describe()})
    work = Work(dealt, store=store, recipe=recipe, seed=seed, group=group)
    with role(distributed, Path(folder)) as part:
        tuner = FoldTuner(oracle, Opened(build, space), work=work, folder=Path(folder).resolve())
        if method == "grid" and part.alone:
            points = oracle.points()
            if space.fixed:
                _require_effect(tuner, points, known=(*LOADING, *FITTING))
            tuner.train_together(points)
        part.watch(oracle)
        tuner.search()
    search = Search(tuner)
    search._tell()
    return search


def _require_effect(tuner: Any, points: list[dict[str, Any]], *, known: tuple[str, ...]) -> None:
    """Refuses a name in the grid that `build` does not read at any of some points: most likely it is misspelt."""
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
        self._work, self._space = tuner.work, tuner.hypermodel.space

    def __repr__(self) -> str:
        best = self.ranking().iloc[0]
        values = ", ".join(f"{name}={best[name]}" for name in self.parameters)
        return (
            f"<Search of {self.results['trial'].nunique()} trials × {self._work.count} folds; "
            f"best: {values} with {best['mean']:.3f} ± {best['sd']:.3f}>"
        )

    @cached_property
    def results(self) -> pd.DataFrame:
        """One row per trial and fold."""
        rows = []
        for number, (name, values) in enumerate(self._points.items()):
            found = self._work.store.get(name, only="scores")
            if found is None:
                scores = pd.DataFrame({"fold": range(self._work.count)}).assign(problem=self._why(name))
            else:
                scores = found["scores"].rename(columns=SCORES)
            rows.append(scores.assign(trial=number, **self._space.shown(values)))
        table = pd.concat(rows, ignore_index=True)
        last = [*SCORES.values(), "images", "seconds", "problem"]
        table = table.reindex(
            columns=["trial", *self.parameters, "fold", "val_accuracy", "val_balanced_accuracy", *last[2:]]
        )
        return table.astype({"problem": "str"})

    @cached_property
    def parameters(self) -> list[str]:
        """Names of what was searched."""
        return list(dict.fromkeys(name for values in self._points.values() for name in self._space.shown(values)))

    @property
    def histories(self) -> pd.DataFrame:
        """One row per trial, fold and epoch."""
        return self._kept("history")

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per trial and image, predicted by a network that did not see it; of one trial, a prediction table."""
        return self._kept("predictions")

    def ranking(self) -> pd.DataFrame:
        """One row per trial, the best first: its values, mean and standard deviation of the accuracy over the folds."""
        groups = self.results.groupby("trial", sort=True)
        scores = groups["val_accuracy"].agg(mean=lambda values: values.mean(skipna=False), sd="std")
        table = groups[self.parameters].first().join(scores).join(groups["seconds"].sum())
        return table.sort_values("mean", ascending=False, kind="stable").reset_index()

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
            A trained, compiled model.
        """
        from cnnlab.experiments.points import recipe_at
        from cnnlab.experiments.tuning import load_weights, save_weights

        trial = int(self.ranking()["trial"].iloc[0])
        hp = self._hyperparameters(trial)
        if not refit:
            return self.tuner.load_model(_Trial(self._name(trial).removeprefix("trial_"), hp))
        kept = self.folder / self._name(trial) / BEST
        if kept.is_file():
            return load_weights(self.tuner.hypermodel.build(hp), kept)
        recipe = recipe_at(self._work.recipe, self._space.behind(hp.values))
        rows = self._work.dealt.drop(columns="fold")
        seed = self._work.seed + WHOLE
        train, watched = inner(rows, seed=seed, group=self._work.group, patience=recipe["patience"])
        fitted = run_fold(
            lambda: self.tuner.hypermodel.build(hp),
            Fold(train, watched, rows.iloc[:0]),
            seed=seed,
            recipe=recipe,
            fit=self.tuner.fit_at(hp),
            embeddings=self._work.embeddings,
        )
        save_weights(fitted.model, kept)
        return fitted.model

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
        from cnnlab.experiments.points import recipe_at

        settings = {}
        for trial in ranking["trial"].head(2):
            hp = self._hyperparameters(int(trial))
            recipe = recipe_at(self._work.recipe, self._space.behind(hp.values))
            settings[int(trial)] = (lambda hp=hp: self.tuner.hypermodel.build(hp), recipe, self.tuner.fit_at(hp))
        return confirm(
            settings,
            self._work.dealt.drop(columns="fold"),
            folds=self._work.count,
            seeds=seeds,
            seed=self._work.seed + 10_000,
            group=self._work.group,
            folder=self.folder / "confirm",
            searched=ranking.set_index("trial")["mean"],
        )

    @cached_property
    def _points(self) -> dict[str, dict[str, Any]]:
        """Values by name of the trial, read from the folder: workers have no oracle of their own."""
        state = json.loads((self.folder / "oracle.json").read_text(encoding="utf-8"))
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

    def _kept(self, key: str) -> pd.DataFrame:
        parts = [(number, self._work.store.get(name, only=key)) for number, name in enumerate(self._points)]
        found = [part[key].assign(trial=number) for number, part in parts if part is not None]
        table = pd.concat(found, ignore_index=True)
        return table[["trial", *[column for column in table if column != "trial"]]]

    def _why(self, name: str) -> str:
        note = self.folder / name / "problem.txt"
        return note.read_text(encoding="utf-8") if note.is_file() else "It was not finished."

    def _tell(self) -> None:
        """Warns of points without a score; there must be one that has.

        Raises:
            RuntimeError: If none has.
        """
        broken = self.results[self.results["problem"] != ""].drop_duplicates("trial")
        if broken.empty:
            return
        first = broken.iloc[0]
        values = ", ".join(f"{name}={first[name]}" for name in self.parameters)
        told = f"The first, trial {first['trial']} ({values}): {first['problem']}"
        count = self.results["trial"].nunique()
        if len(broken) == count:
            raise RuntimeError(f"None of the {count} points could be trained. {told}")
        warnings.warn(f"{len(broken)} of {count} points have no score; the others are kept. {told}", stacklevel=3)


class _Trial:
    """As much of a trial as `Tuner.load_model` looks at."""

    def __init__(self, trial_id: str, hyperparameters: Any) -> None:
        self.trial_id, self.hyperparameters = trial_id, hyperparameters

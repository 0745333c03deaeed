"""The points of a search: what a person writes as a grid, as KerasTuner's HyperParameters, and back."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras_tuner as kt
import numpy as np

from cnnlab.experiments.training_run import Recipe
from cnnlab.models.fingerprint import describe

LOADING = ("batch_size", "augment", "balance", "resize")  # taken from a point by themselves …
FITTING = ("epochs", "patience")  # … as are these
KERAS_TUNERS = "tuner/"  # how the names begin that Hyperband adds


class Space:
    """What is searched: a grid, `kt.HyperParameters`, or None where `build` names its own.

    KerasTuner's values are numbers, words and truth values of one type each. Any other value of a grid, such
    as an `augment.Policy`, None or a tuple, goes by its name, and `build` gets the value itself.
    """

    def __init__(self, grid: Any, *, beside: Iterable[str] = ()) -> None:
        clash = [name for name in beside if name in FITTING or (isinstance(grid, Mapping) and name in grid)]
        if clash:
            raise ValueError(f"{clash[0]!r} is in the grid and given as an argument too. Leave one of the two out.")
        self.values: dict[str, dict[Any, Any]] = {}
        self.fixed = isinstance(grid, Mapping)
        self.hyperparameters: kt.HyperParameters | None = None
        if isinstance(grid, kt.HyperParameters):
            self.hyperparameters = grid
        elif isinstance(grid, Mapping):
            if not grid:
                raise ValueError(
                    "`grid` has no points: it is empty. Name something to try: {'learning_rate': [1e-3, 1e-2]}."
                )
            self.hyperparameters = kt.HyperParameters()
            for name, values in grid.items():
                if isinstance(values, str) or not hasattr(values, "__iter__"):
                    raise TypeError(f"`grid` expects a list of values for {name!r}. Received: {values!r}.")
                self.values[name] = coded(name, list(values))
                self.hyperparameters.Choice(name, list(self.values[name]))
        elif grid is not None:
            raise TypeError(
                "`grid` expects a dict of name → list of values, such as {'learning_rate': [1e-3, 1e-2]}, or "
                f"kt.HyperParameters, or None where `build` names its own. Received: {type(grid).__name__}."
            )

    def behind(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A point as `build` gets it."""
        return {name: self.values.get(name, {}).get(value, value) for name, value in values.items()}

    def shown(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A point as a table shows it: numbers, words and truth values; anything else by its name."""
        real = self.behind(values)
        return {
            name: real[name] if isinstance(real[name], bool) else value
            for name, value in values.items()
            if not name.startswith(KERAS_TUNERS)
        }

    def points(self) -> list[dict[str, Any]]:
        """All points of a grid, in the order of KerasTuner's GridSearchOracle."""
        return [dict(zip(self.values, point, strict=True)) for point in itertools.product(*self.values.values())]

    def require_effect(self, read: set[str]) -> None:
        """Refuses a name in the grid that is not among those that `build` has read: most likely it is misspelt."""
        known = (*LOADING, *FITTING)
        if missing := sorted(set(self.values) - {*known, *read}):
            raise ValueError(
                f"The grid has {missing[0]!r}, which `build` never reads, so that it has no effect. Read it with "
                f"hp[{missing[0]!r}], or take it out. Taken by themselves are {', '.join(known)}."
            )

    @contextmanager
    def opened(self, hp: kt.HyperParameters, read: set[str] | None = None) -> Iterator[kt.HyperParameters]:
        """Lets `hp` give the values of the grid inside the block, and notes in `read` which ones were asked for."""
        before = hp.values
        inside = Noticing(self.behind(before), set() if read is None else read)
        hp.values = inside
        try:
            yield hp
        finally:
            hp.values = dict(before) | {name: value for name, value in inside.items() if name not in before}

    def describe(self) -> str:
        """The space as text that is equal when the space is."""
        if self.hyperparameters is None:
            return "build"
        values = {name: list(values.items()) for name, values in self.values.items()}
        return describe(values or self.hyperparameters.get_config())


class Noticing(dict):  # type: ignore[type-arg]
    """A dict that notes which of its values were asked for."""

    def __init__(self, values: dict[str, Any], read: set[str]) -> None:
        super().__init__(values)
        self.read = read

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return super().__getitem__(name)


def coded(name: str, values: list[Any]) -> dict[Any, Any]:
    """What KerasTuner can hold for each value → the value.

    >>> coded("filters", [(8, 16), None])
    {'(8, 16)': (8, 16), 'None': None}
    >>> coded("weight_decay", [0, 1e-4])
    {0.0: 0.0, 0.0001: 0.0001}
    """
    if not values:
        raise ValueError(f"`grid` has no points: the list of values for {name!r} is empty.")
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds = {type(value) for value in values}
    if kinds == {int, float}:
        values = [float(value) for value in values]
    plain = kinds in ({str}, {int}, {float}, {int, float})
    names = values if plain else [getattr(value, "__name__", None) or str(value) for value in values]
    if len(set(names)) < len(names) or any(value != value for value in names):
        raise ValueError(
            f"`grid` expects each value for {name!r} once, and told apart by its name. Received: {values!r}."
        )
    return dict(zip(names, values, strict=True))


def recipe_at(recipe: Recipe, point: Mapping[str, Any]) -> Recipe:
    """The recipe with what a point says: batch size, augmentation, epochs and so on."""
    loading = {name: point[name] for name in LOADING if name in point}
    fitting = {name: point[name] for name in FITTING if name in point}
    if "tuner/epochs" in point:
        fitting["epochs"] = point["tuner/epochs"]
    return replace(recipe, loading=recipe.loading | loading, **fitting)

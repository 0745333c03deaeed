"""Remedies for rare classes, compared on the same folds: which help, and which differences are noise."""

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import metrics, tables
from cnnlab._common import progress
from cnnlab.experiments.imbalance_remedies import REMEDIES, Remedy, RemedyRun, RemedyRunner
from cnnlab.experiments.runner import checked_rows, experiment_facts, fold_runs, joined
from cnnlab.experiments.store import Store, owned
from cnnlab.experiments.training_run import Recipe, TrainingRun
from cnnlab.tables.linking import Group, group_columns

DEFAULT = ("none", "class_weights", "oversample", "undersample", "focal", "logit_adjustment", "smote", "threshold")
LINKED = "rows that stay together"
SCORES = ("macro_f1", "minority_recall", "calibration_error", "accuracy")
WORDS = {"a is better": "worse", "b is better": "better", "noise": "noise"}  # b is the remedy


class Imbalance(NamedTuple):
    """What `experiments.imbalance` gives.

    Attributes:
        scores: One row per remedy and score; see `imbalance`.
        predictions: One row per remedy, repeat and image, predicted by a network that did not see it.
        runs: One row per remedy, repeat and fold: training images, steps, seconds.
        verdict: What follows for macro-F1, in a sentence.
    """

    scores: pd.DataFrame
    predictions: pd.DataFrame
    runs: pd.DataFrame
    verdict: str


def imbalance(
    build: Callable[..., keras.Model],
    table: pd.DataFrame,
    *,
    remedies: Sequence[str] | Mapping[str, Remedy] = DEFAULT,
    minority: Sequence[str] | None = None,
    folds: int = 3,
    image_size: tuple[int, int],
    epochs: int,
    seed: int,
    repeats: int = 1,
    group: Group = None,
    folder: str | os.PathLike[str] | None = None,
    bootstrap: int = 1000,
    **loading: Any,
) -> Imbalance:
    """Trains on the same folds under each remedy, from the same initial weights, and says which ones helped.

    Each image is predicted once by a network that has not seen it, under every remedy, so that two remedies are
    compared image by image. All get as many training steps as none does on the plain table. What differs from "none" by
    less than chance would make of it is called noise; since several remedies are tried, the limit is Holm's. Chance
    here means the images; that another start gives another network shows only with `repeats`.

    Args:
        build: Returns a new, compiled model.
        table: With the columns path and label; a column `split` is not looked at, but rows of its test part are said.
        remedies: Names of `experiments.REMEDIES`, or a name → `experiments.Remedy` of your own. "none" is always there.
        minority: The classes that matter; where None, those with less than half the images of the largest.
        folds: How many, 2 or more.
        image_size: Height and width in pixels.
        epochs: Of the plain table.
        seed: Decides folds, initial weights, order and augmentation.
        repeats: How often the folds are assigned anew.
        group: A column whose equal values stay in one fold, and are drawn as a whole for the intervals; or several, as
            in `tables.linked_groups`.
        folder: Where finished folds are kept, so that an interrupted call goes on; in memory only where None.
        bootstrap: Resamples for the intervals.
        **loading: Passed on to `pipelines.load`: batch_size, augment, resize, cache.

    Returns:
        scores with the columns remedy, metric (macro_f1; minority_recall, the share of the minority's images that are
        found; calibration_error; accuracy), images, value, low, high (95 % interval), difference (from none),
        difference_low, difference_high, p_value (Holm's, over the remedies) and verdict (baseline, better, worse,
        noise); with it predictions, runs and a sentence.

    Raises:
        ValueError: If a remedy is unknown, no class is rare, or a class is smaller than the number of folds.
        TypeError: If `build` does not return a compiled model, or `seed` is not a whole number from 0.
        FileExistsError: If the folder holds an experiment with other settings.

    Source:
        Holm (1979), A simple sequentially rejective multiple test procedure; the intervals are those of `metrics`.

    Example:
        >>> bench = imbalance(build, table, image_size=(64, 64), epochs=10, seed=0)  # doctest: +SKIP
        >>> print(bench.verdict)  # doctest: +SKIP
        >>> plots.remedies(bench.scores)  # doctest: +SKIP
    """
    words = {"caller": "experiments.imbalance", "subject": "The comparison of remedies"}
    plain = checked_rows(table, seed=seed, epochs=epochs, repeats=repeats, **words)
    plain["label"] = plain["label"].cat.remove_unused_categories()
    tried, rare = _remedies(remedies), _minority(plain, minority)
    rows = plain.assign(**{LINKED: tables.linked_groups(plain, group)}) if group_columns(plain, group) else plain
    recipe = Recipe(epochs, loading={"image_size": tuple(image_size)} | loading)
    runs = fold_runs(build, rows, recipe, folds=folds, repeats=repeats, seed=seed, group=group)
    settings = experiment_facts(plain, recipe, group=group, folder=folder, folds=folds, seed=seed, build=build)
    trained, predictions = _trained_under(tried, runs, rows, folder, settings, group)
    unit = LINKED if LINKED in rows else None
    scores = compare_remedies(predictions, minority=rare, group=unit, bootstrap=bootstrap, seed=seed)
    return Imbalance(scores, predictions.drop(columns=LINKED, errors="ignore"), trained, verdict(scores))


def _trained_under(
    remedies: Mapping[str, Remedy], runs: dict[tuple[int, int], TrainingRun], table: pd.DataFrame,
    folder: str | os.PathLike[str] | None, settings: dict[str, str], group: Group,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """What `Imbalance` holds as runs and predictions: the same runs under each remedy."""
    parts = []
    with owned(folder):
        for name, remedy in progress(remedies.items(), label="remedies", unit="remedy"):
            store = Store(None if folder is None else Path(folder) / name, settings | remedy.facts())
            planned = [RemedyRun(**vars(run), remedy=remedy, group=group) for run in runs.values()]
            found = joined(runs, list(RemedyRunner(table, store).results(planned)))
            parts.append({key: part.assign(remedy=name) for key, part in found.items()})
    trained, predictions = (pd.concat([part[key] for part in parts], ignore_index=True) for key in parts[0])
    return trained[["remedy", "repeat", "fold", "images", "steps", "seconds"]], predictions


def _remedies(remedies: Sequence[str] | Mapping[str, Remedy]) -> dict[str, Remedy]:
    """What to try, "none" in front."""
    if isinstance(remedies, str):
        remedies = [remedies]
    unknown = [name for name in remedies if not isinstance(remedies, Mapping) and name not in REMEDIES]
    if unknown:
        raise ValueError(f"`remedies` expects names of {', '.join(REMEDIES)}. Received: {unknown[0]!r}.")
    named = dict(remedies) if isinstance(remedies, Mapping) else {name: REMEDIES[name] for name in remedies}
    for name, remedy in named.items():
        if not isinstance(remedy, Remedy):
            raise TypeError(
                f"`remedies` expects an `experiments.Remedy` under each name. Received under {name!r}: {remedy!r}."
            )
    strange = [name for name in named if not name or Path(name).name != name or name.startswith(".") or "\\" in name]
    if strange:
        raise ValueError(f"`remedies` expects names that can name a folder. Received: {strange[0]!r}.")
    return {"none": REMEDIES["none"]} | named


def _minority(table: pd.DataFrame, minority: Sequence[str] | None) -> list[str]:
    counts = table["label"].value_counts(sort=False)
    if minority is None:
        rare = counts.index[counts < counts.max() / 2]
        if not len(rare):
            raise ValueError(
                "`experiments.imbalance` expects a class with less than half the images of the largest. Received "
                f"{counts.min()} to {counts.max()} images a class. Name the classes that matter: minority=[…]."
            )
        return list(rare)
    minority = [minority] if pd.api.types.is_scalar(minority) else list(minority)  # type: ignore[list-item]
    strange = [name for name in minority if name not in counts.index]
    if strange or not minority:
        raise ValueError(
            f"`minority` expects classes of the table: {', '.join(map(str, counts.index[:10]))}. Received: {minority}."
        )
    return minority


def compare_remedies(
    predictions: pd.DataFrame, *, minority: Sequence[str], group: str | None, bootstrap: int, seed: int
) -> pd.DataFrame:
    """The scores of `imbalance` from its predictions, in which all remedies have the same rows in the same order."""
    kept = {name: part.reset_index(drop=True) for name, part in predictions.groupby("remedy", sort=False)}
    unread = np.any([part["predicted"].isna() for part in kept.values()], axis=0)
    # An image that is predicted several times is still one witness. Without `path`, rows are compared in their order.
    unit = "image" if group is None and predictions["repeat"].nunique() > 1 else group
    options: dict[str, Any] = {"group": unit, "bootstrap": bootstrap, "seed": seed}
    moves = {"difference": "difference", "low": "difference_low", "high": "difference_high", "p_value": "p_value"}
    rows = []
    for name, metric in itertools.product(kept, SCORES):
        recall = metric == "minority_recall"
        asked = ~unread & (kept[name]["label"].isin(list(minority)).to_numpy() if recall else True)
        score = "accuracy" if recall else metric
        base, mine = (kept[one][asked].rename(columns={"path": "image"}) for one in ("none", name))
        found = metrics.scores(mine, **options).set_index("metric").loc[score, ["value", "low", "high"]]
        row = {"remedy": name, "metric": metric, "images": int(asked.sum())} | found.to_dict()
        if name != "none":
            moved = metrics.compare(base, mine, **options).set_index("metric").loc[score]
            row |= moved[list(moves)].rename(moves).to_dict() | {"verdict": WORDS[str(moved["verdict"])]}
        rows.append(row)
    scores = pd.DataFrame(rows)
    scores = scores.reindex(columns=["remedy", "metric", "images", "value", "low", "high", *moves.values(), "verdict"])
    for _, part in scores[scores["remedy"] != "none"].groupby("metric"):
        scores.loc[part.index, "p_value"] = holm(part["p_value"].to_numpy())
    scores["verdict"] = scores["verdict"].where(scores["p_value"] < 0.05, "noise")
    scores.loc[scores["remedy"] == "none", "verdict"] = "baseline"
    return scores


def holm(p_values: np.ndarray) -> np.ndarray:
    """P values of several questions asked at once; unknown ones stay unknown and do not count.

    Example:
        >>> import numpy as np
        >>> from cnnlab.experiments.imbalance_bench import holm
        >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")  # unknown ones come last
    times = np.sum(~np.isnan(p_values)) - np.arange(len(order))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * times), 1.0)
    return adjusted


def verdict(scores: pd.DataFrame) -> str:
    """What the differences in macro-F1 mean, in a sentence."""
    part = scores[(scores["metric"] == "macro_f1") & (scores["verdict"] != "baseline")]
    if not len(part):
        return "Only `none` was tried."
    said = []
    for word, text in (("better", "Better than none"), ("worse", "Worse than none"), ("noise", "No more than noise")):
        found = part[part["verdict"] == word].sort_values("difference", ascending=word == "worse")
        if len(found):
            names = [
                f"{row.remedy} ({row.difference:+.3f}, {row.difference_low:+.3f} to {row.difference_high:+.3f})"
                for row in found.itertuples()
            ]
            said.append(f"{text} in macro_f1: {', '.join(names)}.")
    return " ".join(said)

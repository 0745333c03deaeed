"""Remedies for rare classes, compared on the same folds: which help, and which differences are noise."""

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
from cnnlab.experiments.runner import build_facts, experiment_facts, plain_table, require_counts
from cnnlab.experiments.store import Store, owned
from cnnlab.experiments.training_run import Recipe, rows_of_fold
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
        table: With the columns path and label; a column `split` is not looked at.
        remedies: Names of `experiments.REMEDIES`, or a name → `experiments.Remedy` of your own. "none" is always there.
        minority: The classes that matter; where None, those with less than half the images of the largest.
        folds: How many, 2 or more.
        image_size: Height and width in pixels.
        epochs: Of the plain table.
        seed: Decides folds, initial weights, order and augmentation.
        repeats: How often all folds are dealt anew.
        group: A column whose equal values stay in one fold, and are drawn as a whole for the intervals; or several, as
            in `tables.linked_groups`.
        folder: Where finished folds are kept, so that an interrupted call goes on; in memory only where None.
        bootstrap: Resamples for the intervals.
        **loading: Passed on to `pipelines.load`: batch_size, augment, resize, cache.

    Returns:
        scores with the columns remedy, metric (macro_f1; minority_recall, the share of the minority's images that are
        found; calibration_error; accuracy), images, value, low, high (95 % interval), difference (from none),
        difference_low, difference_high, p_value (Holm's, over the remedies) and verdict (baseline, better, worse,
        noise); beside it predictions, runs and a sentence.

    Raises:
        ValueError: If a remedy is unknown, no class is rare, or a class is smaller than the number of folds.
        TypeError: If `build` does not return a compiled model.
        FileExistsError: If the folder holds an experiment with other settings.

    Source:
        Holm (1979), A simple sequentially rejective multiple test procedure; the intervals are those of `metrics`.

    Example:
        >>> bench = imbalance(build, table, image_size=(64, 64), epochs=10, seed=0)  # doctest: +SKIP
        >>> print(bench.verdict)  # doctest: +SKIP
        >>> plots.remedies(bench.scores)  # doctest: +SKIP
    """
    plain = plain_table(table, caller="experiments.imbalance")
    require_counts(epochs=epochs, repeats=repeats)
    tried = _remedies(remedies)
    plain = plain.assign(label=plain["label"].cat.remove_unused_categories())
    rare = _minority(plain, minority)
    rows = plain.assign(**{LINKED: tables.linked_groups(plain, group)}) if group_columns(plain, group) else plain
    assigned = [tables.folds(rows, count=folds, group=group, seed=seed + repeat) for repeat in range(repeats)]
    recipe = Recipe(epochs, loading={"image_size": tuple(image_size)} | loading)
    settings = experiment_facts(plain, recipe, group=group, folds=folds, seed=seed)
    if folder is not None:
        settings |= build_facts(build, seed)
    runs, predictions = [], []
    with owned(folder):
        for name, remedy in progress(tried.items(), label="remedies", unit="remedy"):
            store = Store(None if folder is None else Path(folder) / name, settings | remedy.facts())
            planned = {}
            for repeat, table_with_folds in enumerate(assigned):
                for fold in range(folds):
                    place = seed + 1000 * repeat + fold
                    parts = rows_of_fold(table_with_folds, fold, seed=place, group=group, patience=None)
                    run_name = f"repeat_{repeat}_fold_{fold}"
                    planned[repeat, fold] = RemedyRun(run_name, build, parts, place, recipe, remedy, group)
            results = RemedyRunner(rows, store).results(list(planned.values()))
            for (repeat, fold), found in zip(planned, results, strict=True):
                front: dict[str, Any] = {"remedy": name, "repeat": repeat, "fold": fold}
                runs.append(found["runs"].assign(**front)[[*front, "images", "steps", "seconds"]])
                predictions.append(found["predictions"].assign(**front))
    together = _in_order(pd.concat(predictions, ignore_index=True), plain, list(tried))
    unit = LINKED if LINKED in rows else None
    scores = compare_remedies(together, minority=rare, group=unit, bootstrap=bootstrap, seed=seed)
    return Imbalance(
        scores, together.drop(columns=LINKED, errors="ignore"), pd.concat(runs, ignore_index=True), verdict(scores)
    )


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
    minority = [minority] if isinstance(minority, str) else list(minority)
    strange = [name for name in minority if name not in counts.index]
    if strange or not minority:
        raise ValueError(
            f"`minority` expects classes of the table: {', '.join(map(str, counts.index[:10]))}. Received: {minority}."
        )
    return minority


def _in_order(predictions: pd.DataFrame, table: pd.DataFrame, remedies: list[str]) -> pd.DataFrame:
    """Predictions sorted by remedy, repeat and row of the table."""
    place = predictions["path"].map({path: row for row, path in enumerate(table["path"])})
    order = np.lexsort([place, predictions["repeat"], predictions["remedy"].map(remedies.index)])
    return predictions.iloc[order].reset_index(drop=True)


def compare_remedies(
    predictions: pd.DataFrame, *, minority: Sequence[str], group: str | None, bootstrap: int, seed: int
) -> pd.DataFrame:
    """The scores of `imbalance` from its predictions, in which all remedies have the same rows in the same order."""
    kept = {name: part.reset_index(drop=True) for name, part in predictions.groupby("remedy", sort=False)}
    unread = np.any([part["predicted"].isna() for part in kept.values()], axis=0)
    kept = {name: part[~unread] for name, part in kept.items()}
    unit = group
    if unit is None and predictions["repeat"].nunique() > 1:
        unit = "path"  # an image that is predicted several times is still one witness
    options: dict[str, Any] = {"group": unit, "bootstrap": bootstrap, "seed": seed}
    rows = []
    for name, part in kept.items():
        for metric in SCORES:
            chosen, score = _question(metric, part["label"], minority)
            mine, base = part[chosen], kept["none"][chosen]
            found = metrics.scores(mine, **options).set_index("metric").loc[score, ["value", "low", "high"]]
            row: dict[str, Any] = {"remedy": name, "metric": metric, "images": int(chosen.sum())}
            row |= {str(key): value for key, value in found.items()}
            if name != "none":
                # without paths rows are compared in their order, which repeats need
                pair = [base.rename(columns={"path": "image"}), mine.rename(columns={"path": "image"})]
                paired = options | {"group": "image" if unit == "path" else unit}
                moved = metrics.compare(*pair, **paired).set_index("metric").loc[score]
                row |= {
                    "difference": moved["difference"],
                    "difference_low": moved["low"],
                    "difference_high": moved["high"],
                    "p_value": moved["p_value"],
                    "verdict": WORDS[str(moved["verdict"])],
                }
            rows.append(row)
    scores = pd.DataFrame(rows)
    columns = ["difference", "difference_low", "difference_high", "p_value", "verdict"]
    scores = scores.reindex(columns=["remedy", "metric", "images", "value", "low", "high", *columns])
    for _, part in scores[scores["remedy"] != "none"].groupby("metric"):
        scores.loc[part.index, "p_value"] = holm(part["p_value"].to_numpy())
    scores["verdict"] = scores["verdict"].where(scores["p_value"] < 0.05, "noise")
    scores.loc[scores["remedy"] == "none", "verdict"] = "baseline"
    return scores


def _question(metric: str, label: pd.Series, minority: Sequence[str]) -> tuple[np.ndarray, str]:
    """Which rows a score is of, and what `metrics` calls it."""
    if metric == "minority_recall":
        return label.isin(list(minority)).to_numpy(), "accuracy"
    return np.full(len(label), True), metric


def holm(p_values: np.ndarray) -> np.ndarray:
    """P values of several questions asked at once; unknown ones stay unknown and do not count.

    Example:
        >>> import numpy as np
        >>> from cnnlab.experiments.imbalance_bench import holm
        >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    raised = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(raised), 1.0) if len(order) else raised
    return adjusted


def verdict(scores: pd.DataFrame, metric: str = "macro_f1") -> str:
    """What the differences mean, in a sentence."""
    part = scores[(scores["metric"] == metric) & (scores["verdict"] != "baseline")]
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
            said.append(f"{text} in {metric}: {', '.join(names)}.")
    return " ".join(said)

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import keras
import keras_tuner as kt
import numpy as np
import pandas as pd
import psutil
import pytest

from cnnlab import augment, experiments, models, pipelines, tables
from cnnlab.experiments.runner import Runner
from cnnlab.experiments.search_result import PLACES, Confirmation, _compare
from cnnlab.experiments.store import Store

# KerasTuner asks threads for their names in the old way.
pytestmark = [
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(google|keras_tuner|tensorboard)"),
]
SIZE = (8, 8)
GRID = {"learning_rate": [1e-3, 1e-2], "batch_size": [8, 16]}


@pytest.fixture(scope="module")
def few(digits):
    return (
        digits[digits["label"].isin(["0", "1", "7"])]
        .groupby("label", observed=True)
        .head(12)
        .pipe(lambda t: t.assign(label=t["label"].cat.remove_unused_categories()))
        .reset_index(drop=True)
    )


def build(hp, *, run_eagerly=True):
    """A network whose few steps cost less one by one than a graph for them, which each fold would trace anew."""
    model = models.small_cnn(image_size=SIZE, classes=["0", "1", "7"], filters=(4,))
    model.compile(
        keras.optimizers.AdamW(hp["learning_rate"]), loss="sparse_categorical_crossentropy", metrics=["accuracy"],
        run_eagerly=run_eagerly, jit_compile=False,
    )  # fmt: skip
    return model


def build_graph(hp):
    return build(hp, run_eagerly=False)


def search(table, folder, grid=None, builder=build, **options):
    options = {"folds": 2, "image_size": SIZE, "epochs": 1, "seed": 0} | options
    return experiments.grid_search(builder, GRID if grid is None else grid, table, folder=folder, **options)


def scores_of(accuracy, epochs=1):
    row = {"accuracy": accuracy, "balanced_accuracy": accuracy, "images": 1, "epochs": epochs, "seconds": 0.0}
    return pd.DataFrame([row | {"problem": ""}])


def same(one, other):
    pd.testing.assert_frame_equal(one.drop(columns="seconds"), other.drop(columns="seconds"))


@pytest.fixture(scope="module")
def whole(few, tmp_path_factory):
    return search(few, tmp_path_factory.mktemp("search") / "whole")


def test_results_are_tidy_and_complete(whole):
    assert whole.results.columns.tolist()[:6] == [
        "trial", "learning_rate", "batch_size", "fold", "val_accuracy", "val_balanced_accuracy",
    ]  # fmt: skip
    points = whole.results.drop_duplicates("trial")[["learning_rate", "batch_size"]]
    assert list(points.itertuples(index=False, name=None)) == [(1e-3, 8), (1e-3, 16), (1e-2, 8), (1e-2, 16)]
    assert whole.results["fold"].tolist() == [0, 1] * 4
    assert (whole.results["problem"] == "").all()
    assert len(whole.histories) == 8
    assert len(whole.predictions) == 4 * 36


def test_a_trial_equals_cross_validation(few, whole):
    hp = kt.HyperParameters()
    hp.values = {"learning_rate": 1e-2}
    expected = experiments.cross_validate(
        lambda: build(hp), few, folds=2, image_size=SIZE, epochs=1, seed=0, batch_size=16
    )
    found = whole.results[whole.results["trial"] == 3]
    np.testing.assert_allclose(found["val_accuracy"], expected.scores["accuracy"])
    histories = whole.histories[whole.histories["trial"] == 3]
    np.testing.assert_allclose(histories["loss"], expected.histories["loss"], rtol=1e-5)


def test_the_ranking_is_the_mean_over_folds(whole):
    means = whole.results.groupby("trial")["val_accuracy"].mean()
    assert whole.ranking()["mean"].tolist() == sorted(means, reverse=True)
    assert means[whole.ranking()["trial"].iloc[0]] == means.max()


def test_an_interrupted_search_goes_on_with_the_fold_it_was_in(few, whole, tmp_path, monkeypatch):
    real, calls = Runner.train, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) in (2, 5):
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(Runner, "train", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(few, tmp_path / "s")
    again = search(few, tmp_path / "s")
    assert len(calls) == 8 + 2
    same(again.results, whole.results)
    search(few, tmp_path / "s")
    assert len(calls) == 10


@pytest.mark.filterwarnings("ignore:The optimal value found:sklearn.exceptions.ConvergenceWarning")  # of few points
def test_results_of_another_proposal_are_refused(few, tmp_path, monkeypatch):
    """What Bayesian optimisation proposes follows from the scores so far, which here are others the second time."""
    first = [0.1]

    def results(self, runs):
        for run in runs:
            if not self.store.has(run.name):
                self.store.put(run.name, {"scores": scores_of(first[0] if run.name.startswith("trial_0/") else 0.5)})
            yield self.store.get(run.name)

    monkeypatch.setattr(Runner, "results", results)
    space = kt.HyperParameters()
    space.Float("learning_rate", 1e-4, 1e-1, sampling="log")
    search(few, tmp_path / "s", space, method="bayesian", trials=7)
    shutil.rmtree(tmp_path / "s" / "trial_0")
    first[0] = 0.99
    with pytest.raises(FileExistsError, match="point"):
        search(few, tmp_path / "s", space, method="bayesian", trials=7)


def test_another_search_is_not_mixed_in(few, whole):
    with pytest.raises(FileExistsError, match=r"\(grid differ\)"):
        search(few, whole.folder, {"learning_rate": [1e-3]})
    with pytest.raises(FileExistsError, match=r"\(epochs differ\)"):
        search(few, whole.folder, epochs=2)


def test_of_two_searches_that_start_at_once_one_is_refused(tmp_path):
    def claim(settings):
        together.wait()
        try:
            Store(folder, {"epochs": settings})
        except FileExistsError:
            return 0
        return 1

    with ThreadPoolExecutor(2) as pool:
        for number in range(60):
            folder, together = tmp_path / str(number), threading.Barrier(2)
            assert sum(pool.map(claim, "12")) == 1


def test_any_value_can_be_in_a_grid(few, tmp_path):
    seen = []

    def builder(hp):
        seen.append((hp["filters"], hp["batch_norm"]))
        model = models.small_cnn(
            image_size=SIZE, classes=["0", "1", "7"], filters=hp["filters"], batch_norm=hp["batch_norm"]
        )
        model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
        return model

    grid = {"filters": [(4,), (4, 8)], "batch_norm": [True, False]}
    found = search(few, tmp_path / "s", grid, builder)
    assert {(filters, norm) for filters, norm in seen} == {((4,), True), ((4,), False), ((4, 8), True), ((4, 8), False)}
    assert found.results["filters"].unique().tolist() == ["(4,)", "(4, 8)"]
    assert found.results["batch_norm"].unique().tolist() == [True, False]
    assert found.best["filters"] in [(4,), (4, 8)]


def test_batch_size_and_augmentation_reach_the_pipeline(few, tmp_path, monkeypatch):
    from cnnlab import pipelines

    real, seen = pipelines.load, []

    def load(table, **options):
        if options.get("training"):
            seen.append((options["batch_size"], options["augment"]))
        return real(table, **options)

    monkeypatch.setattr(pipelines, "load", load)
    policy = augment.Policy(noise=4)
    grid = {"batch_size": [8, 12], "augment": [None, policy]}
    found = search(few, tmp_path / "s", grid, lambda hp: build({"learning_rate": 0.01}))
    assert seen == [(size, change) for size in (8, 12) for change in (None, policy) for _ in range(2)]
    assert found.results["augment"].unique().tolist() == ["None", "Policy(noise=4)"]
    assert found.best["augment"] in [None, policy]


def test_a_persons_own_hypermodel_and_hyperparameters_work(few, tmp_path):
    class Mine(kt.HyperModel):
        def build(self, hp):
            units = hp.Choice("units", [4])
            inputs = keras.Input((*SIZE, 3))
            x = keras.layers.Flatten()(inputs)
            if hp.Boolean("deep"):
                with hp.conditional_scope("deep", [True]):
                    x = keras.layers.Dense(hp.Int("width", 4, 8, step=4), activation="relu")(x)
            x = keras.layers.Dense(units, activation="relu")(x)
            model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
            model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
            return model

        def fit(self, hp, model, *arguments, **options):
            weights = {0: hp.Float("first", 1.0, 2.0, step=1.0), 1: 1.0, 2: 1.0}
            return model.fit(*arguments, class_weight=weights, **options)

    found = experiments.grid_search(
        Mine(), None, few, folds=2, image_size=SIZE, epochs=1, seed=0, folder=tmp_path / "s"
    )
    points = found.results.drop_duplicates("trial")
    assert len(points) == (1 + 2) * 2  # not deep, or deep with two widths; by two weights
    assert not points[["units", "deep", "width", "first"]].duplicated().any()
    assert isinstance(found.tuner, kt.Tuner)
    assert len(found.tuner.get_best_hyperparameters(2)) == 2

    space = kt.HyperParameters()
    space.Float("learning_rate", 1e-3, 1e-2, sampling="log")
    found = experiments.grid_search(
        build, space, few, folds=2, image_size=SIZE, epochs=1, seed=0, folder=tmp_path / "r", method="random", trials=2
    )
    assert found.results["learning_rate"].nunique() == 2
    assert found.results["learning_rate"].between(1e-3, 1e-2).all()


@pytest.mark.parametrize(
    ("method", "trials", "cuts"),
    [
        ("random", 8, (2, 5, 6)),
        ("bayesian", 5, (8,)),  # before the last point, the second that is not random: the draws must go on for it
        pytest.param("hyperband", None, (2, 5, 6), marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:The optimal value found:sklearn.exceptions.ConvergenceWarning")  # of few points
def test_other_methods_resume_the_same(few, tmp_path, monkeypatch, method, trials, cuts):
    from cnnlab.experiments import tuning

    rates, real = {}, tuning.FoldTuner.runs

    def runs_at(self, trial):
        rate = trial.hyperparameters["learning_rate"]
        rates.update({f"trial_{trial.trial_id}/fold_{fold}": rate for fold in range(2)})
        return real(self, trial)

    def results(self, runs):
        for run in runs:
            if not self.store.has(run.name):
                accuracy = 1 - abs(np.log10(rates[run.name]) + 2.2) / 10 + run.recipe.epochs / 100
                self.store.put(run.name, {"scores": scores_of(accuracy, epochs=run.recipe.epochs)})
                calls.append(run.name)
                if len(calls) in stops:
                    raise KeyboardInterrupt
            yield self.store.get(run.name)

    monkeypatch.setattr(tuning.FoldTuner, "runs", runs_at)
    monkeypatch.setattr(Runner, "results", results)
    space = kt.HyperParameters()
    space.Float("learning_rate", 1e-4, 1e-1, sampling="log")
    options = {"folds": 2, "image_size": SIZE, "epochs": 9, "seed": 5, "method": method, "trials": trials}

    def run(name):
        return experiments.grid_search(build, space, few, folder=tmp_path / name, **options)

    calls, stops = [], ()
    expected = run("whole").results
    assert calls == sorted(set(calls))
    count = len(calls)
    calls, stops = [], cuts
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            run("cut")
    same(run("cut").results, expected)
    assert sorted(calls) == sorted(set(calls)) and len(calls) == count


@pytest.mark.parametrize(
    ("grid", "options", "error", "words"),
    [
        ({}, {}, ValueError, "no points"),
        ({"learning_rate": []}, {}, ValueError, "empty"),
        ({"learning_rate": [1e-3, 1e-3]}, {}, ValueError, "once"),
        ({"learning_rate": 1e-3}, {}, TypeError, "list of values"),
        ([1e-3], {}, TypeError, "dict of name"),
        (GRID, {"folds": 1}, ValueError, "2 folds or more"),
        (GRID, {"folds": 13}, ValueError, "has 12"),
        (GRID, {"epochs": 0}, ValueError, "epochs=0"),
        (GRID, {"method": "annealing"}, ValueError, "'bayesian'"),
        (GRID, {"method": "random"}, ValueError, "`trials`"),
        (GRID, {"trials": 3}, ValueError, "`trials`"),
        (GRID, {"batch_size": 32}, ValueError, "'batch_size' is in the grid"),
        (GRID, {"distributed": "10.0.0.5:8000"}, ValueError, "distributed.* the same call with the same folder"),
        (
            {"learning_rat": [1e-3], "learning_rate": [1e-3]},
            {},
            ValueError,
            "'learning_rat', which `build` never reads",
        ),
    ],
)
def test_impossible_searches_are_refused(few, tmp_path, grid, options, error, words):
    with pytest.raises(error, match=words):
        search(few, tmp_path / "s", grid, **options)


def test_a_chief_that_keras_tuner_is_told_of_is_refused(few, tmp_path, monkeypatch):
    for name, value in (("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", "8000"), ("TUNER_ID", "chief")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    with pytest.raises(ValueError, match=r"KERASTUNER_ORACLE_IP.*the same call with the same folder"):
        search(few, tmp_path / "s")


def trouble(hp):
    if hp["kind"] == "raises":
        raise OSError("no weights here")
    if hp["kind"] == "too large":
        raise kt.errors.FailedTrialError("too large for this machine")
    model = models.small_cnn(image_size=SIZE, classes=["0", "1", "7"], filters=(4,))
    rate = 1e30 if hp["kind"] == "diverges" else 1e-2
    if hp["kind"] != "uncompiled":
        model.compile(
            keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True
        )
    return None if hp["kind"] == "nothing" else model


def test_points_that_cannot_be_trained_are_told_and_the_others_kept(few, tmp_path):
    kinds = ["good", "raises", "uncompiled", "nothing", "diverges", "too large"]
    with pytest.warns(
        UserWarning, match=r"5 of 6 points have no score; .* trial 1 \(kind=raises\): OSError: no weights"
    ):
        found = search(few, tmp_path / "s", {"kind": kinds}, trouble, epochs=2)
    told = found.results.sort_values("problem", kind="stable").drop_duplicates("trial", keep="last").set_index("kind")
    assert told.loc["good", "problem"] == "" and told.loc["good", "val_accuracy"] > 0
    expected = {"uncompiled": "compiled", "nothing": "NoneType", "diverges": "not a number from epoch"}
    for kind, words in (expected | {"too large": "too large for"}).items():
        assert words in told.loc[kind, "problem"]
        assert np.isnan(told.loc[kind, "val_accuracy"])
    assert len(found.results) == 12
    assert found.best == {"kind": "good"}
    assert isinstance(found.best_model(refit=False), keras.Model)


def test_a_mended_error_is_tried_again_and_a_diverged_point_is_not(few, tmp_path, monkeypatch):
    grid = {"kind": ["good", "raises", "diverges"]}
    with pytest.warns(UserWarning, match="2 of 3"):
        search(few, tmp_path / "s", grid, trouble, epochs=2)
    calls, real = [], Runner.train
    monkeypatch.setattr(Runner, "train", lambda *a, **o: calls.append(1) or real(*a, **o))

    def builder(hp):
        return trouble({"kind": "good"} if hp["kind"] == "raises" else hp)

    with pytest.warns(UserWarning, match="1 of 3"):
        found = search(few, tmp_path / "s", grid, builder, epochs=2)
    assert len(calls) == 2
    assert (found.results.loc[found.results["kind"] == "raises", "problem"] == "").all()


@pytest.mark.parametrize(
    ("method", "trials", "fails", "again"),
    [("bayesian", 5, "trial_1", False), ("bayesian", 5, "trial_4", True), ("hyperband", None, "trial_0001", False)],
)
@pytest.mark.filterwarnings("ignore:The optimal value found:sklearn.exceptions.ConvergenceWarning")  # of few points
def test_a_failure_from_which_later_points_follow_stays(few, tmp_path, monkeypatch, method, trials, fails, again):
    def results(self, runs):
        for run in runs:
            if broken and run.name.startswith(fails):
                raise OSError("out of memory")
            if not self.store.has(run.name):
                self.store.put(run.name, {"scores": scores_of(0.1 * int(run.name.split("/")[0][-1]))})
            yield self.store.get(run.name)

    monkeypatch.setattr(Runner, "results", results)
    space = kt.HyperParameters()
    space.Float("learning_rate", 1e-4, 1e-1, sampling="log")
    options = {"method": method, "trials": trials, "epochs": 3}
    broken = True
    with pytest.warns(UserWarning, match="1 of"):
        first = search(few, tmp_path / "s", space, **options)
    broken = False
    if again:  # nothing follows from it yet
        assert (search(few, tmp_path / "s", space, **options).results["problem"] == "").all()
        return
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"OSError: out of memory \(in an earlier call, .* another folder\)$"):
            second = search(few, tmp_path / "s", space, **options)
        pd.testing.assert_frame_equal(
            first.results.drop(columns=["problem", "seconds"]), second.results.drop(columns=["problem", "seconds"])
        )


def test_a_damaged_trial_is_no_failure_that_stays(few, tmp_path):
    space = kt.HyperParameters()
    space.Float("learning_rate", 1e-4, 1e-1, sampling="log")
    options = {"method": "bayesian", "trials": 2}
    first = search(few, tmp_path / "s", space, **options)
    fold = tmp_path / "s" / "trial_0" / "fold_0"
    (fold / "scores.csv").write_text("")
    with pytest.warns(UserWarning, match=r"cannot be read.*Move the folder 'fold_0' away"):
        search(few, tmp_path / "s", space, **options)
    fold.rename(tmp_path / "away")
    same(search(few, tmp_path / "s", space, **options).results, first.results)


def test_if_no_point_can_be_trained_that_is_an_error(few, tmp_path):
    with pytest.raises(RuntimeError, match=r"None of the 2 points could be trained.*OSError"):
        search(few, tmp_path / "s", {"kind": ["raises", "uncompiled"]}, trouble)


def test_the_best_model_is_kept_and_its_folds_weights_are_there(few, whole):
    model, again = whole.best_model(), whole.best_model()
    images = np.random.default_rng(0).uniform(0, 255, (4, *SIZE, 3)).astype("float32")
    np.testing.assert_array_equal(model(images), again(images))
    assert models.class_names(model) == ["0", "1", "7"]
    trial = int(whole.ranking()["trial"].iloc[0])
    best_fold = whole.results[whole.results["trial"] == trial]["val_accuracy"].to_numpy().argmax()
    predictions = whole.predictions[whole.predictions["trial"] == trial]
    dealt = tables.folds(few.drop(columns="split"), count=2, seed=0)
    held_out = dealt[dealt["fold"] == best_fold]
    expected = predictions.set_index("path").loc[held_out["path"], ["p_0", "p_1", "p_7"]]
    found = experiments.predict(whole.best_model(refit=False), held_out)[["p_0", "p_1", "p_7"]]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    (native,) = whole.tuner.get_best_models()
    np.testing.assert_allclose(native(images), whole.best_model(refit=False)(images), atol=1e-6)


def test_confirming_uses_fresh_seeds_and_finds_equals_equal(few, tmp_path):
    def builder(hp):
        hp["copy"]
        return build({"learning_rate": 1e-2})

    found = search(few, tmp_path / "s", {"copy": [1, 2]}, builder, epochs=1)
    confirmed = found.confirm(seeds=2)
    assert confirmed.comparison["difference"].item() == 0
    assert confirmed.comparison["verdict"].item() == "noise"
    assert "cannot be told apart" in confirmed.verdict
    assert confirmed.trial == found.ranking()["trial"].iloc[0]
    assert confirmed.scores.groupby("place")["seed"].nunique().tolist() == [2, 2]
    assert 0 not in confirmed.scores["seed"].tolist()
    pd.testing.assert_frame_equal(found.confirm(seeds=2).scores, confirmed.scores)


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        ([(9, 6), (9, 6), (9, 6)], "winner"),
        ([(6, 9), (6, 9), (6, 9)], "runner-up"),
        ([(9, 5), (8, 6), (6, 8)], "noise"),
    ],
)
def test_noise_is_said_where_the_interval_includes_zero_and_nowhere_else(right, verdict):
    """The images alone would call the third difference real: seeds that disagree widen the interval."""
    rows, predictions = [], {}
    for place, name in enumerate(PLACES):
        parts = []
        for repeat, counts in enumerate(right):
            share = np.arange(200) % 10 < counts[place]
            parts.append(pd.DataFrame({"path": [f"{n}.png" for n in range(200)], "repeat": repeat, "right": share}))
            rows.append({"place": name, "trial": place + 3, "seed": repeat, "accuracy": share.mean()})
        made = pd.concat(parts, ignore_index=True)
        label = pd.Categorical(["a"] * len(made), ["a", "b"])
        predictions[name] = made.assign(label=label, predicted=np.where(made["right"], "a", "b"))
    scores = pd.DataFrame(rows)
    comparison = _compare(scores, predictions, None)
    row = comparison.iloc[0]
    assert row["verdict"] == verdict
    assert (row["low"] <= 0 <= row["high"]) == (verdict == "noise") == (max(row["p_images"], row["p_seeds"]) >= 0.05)
    assert Confirmation(scores, comparison, predictions, 0.9).trial == (4 if verdict == "runner-up" else 3)


@pytest.mark.slow
def test_confirming_sees_a_real_difference(few, tmp_path):
    found = search(few, tmp_path / "s", {"learning_rate": [1e-7, 1e-2]}, epochs=30)
    confirmed = found.confirm(seeds=6)
    assert confirmed.comparison["verdict"].item() == "winner"
    assert confirmed.comparison["low"].item() > 0
    with pytest.raises(ValueError, match="seeds=1"):
        found.confirm(seeds=1)


def test_no_graph_of_a_finished_fold_stays_behind(few, tmp_path):
    from tensorflow.python.framework.func_graph import FuncGraph

    def graphs():
        gc.collect()
        return sum(isinstance(thing, FuncGraph) for thing in gc.get_objects())

    counts = []
    for name in "ab":
        found = search(few, tmp_path / name, {"learning_rate": [1e-3]}, build_graph)
        counts.append(graphs())
    assert counts[1] <= counts[0]
    data = pipelines.load(few, image_size=SIZE, training=True, seed=0)
    found.best_model().fit(data, epochs=1, verbose=0)  # what was let go of is not missed


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_stays_where_it_was_after_the_fifth_of_60_trials(few, tmp_path, monkeypatch):
    from cnnlab.experiments import tuning

    used, real = [], tuning.FoldTuner.on_trial_end

    def on_trial_end(self, trial):
        real(self, trial)
        used.append(psutil.Process().memory_info().rss / 1e6)

    monkeypatch.setattr(tuning.FoldTuner, "on_trial_end", on_trial_end)
    grid = {"learning_rate": np.geomspace(1e-4, 1e-1, 30).tolist(), "batch_size": [8, 16]}
    search(few, tmp_path / "s", grid)
    print(f"after the fifth trial {used[4]:.0f} MB, after the sixtieth {used[59]:.0f} MB")
    assert used[59] <= used[4] + 100


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from cnnlab import tables
import test_grid_search as t
from cnnlab.experiments.runner import Runner
from cnnlab.experiments.search_result import PLACES, Confirmation, _compare
real = Runner.train
def noted(*arguments, **options):
    found = real(*arguments, **options)
    open({log!r}, "a").write("fold\\n")
    return found
Runner.train = noted
t.search(tables.read({table!r}), {folder!r}, t.TWELVE)
"""
TWELVE = {"learning_rate": [1e-4, 1e-3, 1e-2, 1e-1], "batch_size": [8, 16, 32]}


def start(few, tmp_path, name="s", **environment):
    """A search in a process of its own."""
    tables.save(few, tmp_path / "few.csv")
    code = SCRIPT.format(
        here=str(Path(__file__).parent), table=str(tmp_path / "few.csv"), folder=str(tmp_path / name),
        log=str(tmp_path / "log.txt"),
    )  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | environment)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_random_moments_it_ends_the_same(few, tmp_path):
    rng = np.random.default_rng(0)
    kills = 0
    while kills < 10:
        process = start(few, tmp_path)
        before = len(list((tmp_path / "s").glob("trial_*/fold_*/complete"))) if (tmp_path / "s").exists() else 0
        while process.poll() is None:  # let it train something, else it would only ever start
            if len(list((tmp_path / "s").glob("trial_*/fold_*/complete"))) > before:
                break
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 2.5))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 5
    assert start(few, tmp_path).wait() == 0
    assert len((tmp_path / "log.txt").read_text().splitlines()) <= 24 + kills  # at most the fold that was cut off
    same(search(few, tmp_path / "s", TWELVE).results, search(few, tmp_path / "whole", TWELVE).results)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_processes_find_what_one_finds(few, tmp_path):
    """And one that is killed in the middle of a fold: another one trains it."""
    processes = [start(few, tmp_path) for _ in range(3)]
    while not list((tmp_path / "s").glob("trial_*/fold_0/complete")):
        time.sleep(0.1)
    os.kill(processes[0].pid, signal.SIGKILL)
    assert [process.wait() for process in processes] == [-signal.SIGKILL, 0, 0]
    assert 24 <= len((tmp_path / "log.txt").read_text().splitlines()) <= 25  # none twice, but for the one cut off
    same(search(few, tmp_path / "s", TWELVE).results, search(few, tmp_path / "whole", TWELVE).results)


def test_who_has_a_fold_is_said_while_it_is_waited_for(few, tmp_path, monkeypatch, caplog):
    first = tmp_path / "s" / "trial_0000" / "fold_0"
    first.parent.mkdir(parents=True)
    other = filelock.FileLock(first.with_name(".fold_0.lock"))
    other.acquire()
    monkeypatch.setattr("cnnlab.experiments.store.PATIENCE", 0.1)
    monkeypatch.setattr("cnnlab.experiments.store.say_once", lambda message: said.append(message) or other.release())
    said = []
    search(few, tmp_path / "s", {"learning_rate": [1e-2]})
    assert len(said) == 1 and "fold_0' is in use by another program" in said[0]


def test_a_fold_that_another_process_trains_is_left_to_it_until_the_others_are_done(few, tmp_path, monkeypatch):
    real, order = Runner.train, []
    first = tmp_path / "s" / "trial_0000" / "fold_0"

    def train(self, run):
        order.append(run.name)
        if len(order) == 1:  # of the second fold: the other process lets go of the first
            other.release()
        return real(self, run)

    first.parent.mkdir(parents=True)
    other = filelock.FileLock(first.with_name(".fold_0.lock"))
    other.acquire()
    monkeypatch.setattr(Runner, "train", train)
    search(few, tmp_path / "s", {"learning_rate": [1e-2]})
    assert order == ["trial_0000/fold_1", "trial_0000/fold_0"]


def test_the_objective_may_be_any_measured_score(few, tmp_path):
    found = search(few, tmp_path / "s", {"learning_rate": [1e-4, 1e-1]}, objective="val_loss", epochs=2)
    readable = found.predictions
    chance = [row[f"p_{row['label']}"] for _, row in readable.iterrows()]
    expected = pd.Series(-np.log(chance)).groupby([readable["trial"], readable["fold"]]).mean()
    np.testing.assert_allclose(found.results["val_loss"], expected, rtol=1e-3)
    assert found.ranking()["mean"].is_monotonic_increasing
    assert found.best["learning_rate"] == (1e-4 if expected[0].mean() < expected[1].mean() else 1e-1)
    with pytest.raises(FileExistsError, match="objective"):
        search(few, tmp_path / "s", {"learning_rate": [1e-4, 1e-1]}, epochs=2)
    for wrong, words in (("loss", "held-out images"), ("val_nonsense", r"kt\.Objective\('val_nonsense', 'max'\)")):
        with pytest.raises(ValueError, match=words):
            search(few, tmp_path / "t", objective=wrong)


@pytest.mark.parametrize(
    ("name", "direction"),
    [("val_loss", "min"), ("val_mae", "min"), ("val_auc_1", "max"), ("val_f1_score", "max"), ("val_recall", "max"),
     ("val_accuracy", "max"), ("val_precision_at_recall", None)],
)  # fmt: skip
def test_directions_are_kerass(name, direction):
    from cnnlab.experiments.tuning import objective_of

    if direction is None:
        with pytest.raises(ValueError, match="Say which is better"):
            objective_of(name)
    else:
        assert objective_of(name).direction == direction


def test_a_name_that_only_an_own_fit_reads_has_an_effect(few, tmp_path):
    weights = []

    class Mine(kt.HyperModel):
        def build(self, hp):
            return build({"learning_rate": 0.01})

        def fit(self, hp, model, *arguments, **options):
            weights.append(hp["weight"])
            return model.fit(*arguments, class_weight={0: hp["weight"], 1: 1.0, 2: 1.0}, **options)

    search(few, tmp_path / "s", {"weight": [1.0, 2.0]}, Mine())
    assert weights == [1.0, 1.0, 2.0, 2.0]


class Own(keras.Model):
    """Makes its weights when it sees the first images."""

    def __init__(self, **options):
        super().__init__(**options)
        self.pool, self.answer = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")

    def call(self, images):
        return self.answer(self.pool(images / 255))


def own_network(hp):
    model = Own()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    return model


@pytest.mark.parametrize("kind", ["named", "own class", "any size"])
def test_the_best_model_says_how_its_images_were_prepared(few, tmp_path, kind):
    def any_size(hp):
        layers = [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()]
        model = keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
        return model

    builder = {"named": build, "own class": own_network, "any size": any_size}[kind]
    grid = {"resize": ["pad"]} | ({"learning_rate": [1e-2]} if kind == "named" else {})
    found = search(few, tmp_path / "search", grid, builder)
    best = found.best_model(refit=False), found.best_model(), found.best_model()
    for model in best:
        assert models.preparation(model).resize == "pad"
        assert models.preparation(model).image_size == SIZE
    np.testing.assert_array_equal(best[1].get_weights()[0], best[2].get_weights()[0])
    if kind == "named":
        best[0].save(tmp_path / "best.keras")
        assert models.preparation(keras.models.load_model(tmp_path / "best.keras")).resize == "pad"


def test_an_objective_that_no_point_measures_is_refused_in_words(few, tmp_path):
    grid = {"learning_rate": [1e-2]}
    with pytest.raises(RuntimeError, match=r"None of the 1 points .* `objective` expects one of val_accuracy, .*auc"):
        search(few, tmp_path / "search", grid, objective=kt.Objective("val_auc", "max"))


def test_rows_of_the_test_split_in_a_search_are_said(digits, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("cnnlab.tables.linking._said", set())
    some = digits.groupby(["label", "split"], observed=True).head(1)
    with pytest.raises(ValueError, match="Expected at least 9 images"):
        search(some, tmp_path, folds=9)
    assert "learns from 10 rows of the test split, which then cannot test its winner" in caplog.text

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from cnnlab import experiments, models, tables, training

SIZE = (8, 8)


@pytest.fixture(scope="module")
def few(digits):
    return digits.groupby("label", observed=True).head(12).reset_index(drop=True)


def build():
    model = models.small_cnn(image_size=SIZE, classes=list("0123456789"), filters=(8, 16))
    return training.compile(model, learning_rate=0.01, steps_per_execution=1)


def run(table, **options):
    return experiments.cross_validate(
        build, table, **{"folds": 3, "image_size": SIZE, "epochs": 2, "seed": 0} | options
    )


def same(one, other):
    pd.testing.assert_frame_equal(one.predictions, other.predictions)
    pd.testing.assert_frame_equal(one.histories, other.histories)
    pd.testing.assert_frame_equal(one.scores.drop(columns="seconds"), other.scores.drop(columns="seconds"))


@pytest.fixture(scope="module")
def whole(few):
    return run(few)


def test_every_image_is_predicted_once_by_a_model_that_did_not_see_it(few, whole):
    assert whole.predictions["path"].tolist() == few["path"].tolist()
    expected = tables.folds(few.drop(columns="split"), count=3, seed=0)["fold"]
    assert whole.predictions["fold"].tolist() == expected.tolist()
    right = whole.predictions["label"].astype(str) == whole.predictions["predicted"].astype(str)
    by_fold = right.groupby(whole.predictions["fold"]).mean()
    np.testing.assert_allclose(whole.scores.sort_values("fold")["accuracy"], by_fold)
    assert len(whole.histories) == 6


def test_a_fold_equals_plain_keras(few, whole):
    from cnnlab import pipelines

    parts = tables.folds(few.drop(columns="split"), count=3, seed=0)
    keras.utils.set_random_seed(1)
    model = build()
    train = parts[parts["fold"] != 1].drop(columns="fold")
    history = model.fit(pipelines.load(train, image_size=SIZE, training=True, seed=1), epochs=2, verbose=0)
    found = whole.histories[whole.histories["fold"] == 1]
    np.testing.assert_allclose(found["loss"], history.history["loss"], rtol=1e-5)


def test_finished_folds_are_not_trained_again(few, whole, tmp_path, monkeypatch):
    from cnnlab.experiments.runner import Runner

    real, calls = Runner.train, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(Runner, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(few, folder=tmp_path / "cv")
    again = run(few, folder=tmp_path / "cv")
    assert len(calls) == 4
    same(again, whole)
    run(few, folder=tmp_path / "cv")
    assert len(calls) == 4


def test_another_experiment_is_not_mixed_in(few, tmp_path):
    run(few, epochs=1, folder=tmp_path / "cv")
    with pytest.raises(FileExistsError, match=r"\(epochs differ\)"):
        run(few, epochs=2, folder=tmp_path / "cv")
    with pytest.raises(FileExistsError, match=r"\(table differ\)"):
        run(few[1:], epochs=1, folder=tmp_path / "cv")


def test_early_stopping_never_sees_the_scored_fold(few, monkeypatch):
    from cnnlab import pipelines

    seen, real = [], pipelines.load
    monkeypatch.setattr(pipelines, "load", lambda table, **o: seen.append(set(table["path"])) or real(table, **o))
    result = run(few, patience=1, epochs=3)
    for fold in range(3):
        held_out = set(result.predictions.loc[result.predictions["fold"] == fold, "path"])
        watched, trained, scored = seen[3 * fold : 3 * fold + 3]
        assert scored == held_out
        assert not watched & held_out
        assert not trained & held_out
        assert not watched & trained


def test_groups_and_repeats(few):
    table = few.assign(writer=np.arange(len(few)) // 2)
    result = run(table, group="writer", repeats=2, epochs=1)
    assert (result.predictions.groupby(["repeat", "writer"])["fold"].nunique() == 1).all()
    assert len(result.predictions) == 2 * len(few)
    assert len(result.scores) == 6


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"folds": 1}, ValueError, "2 folds or more"),
        ({"folds": 13}, ValueError, "has 12"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"group": "writer"}, KeyError, "'writer'"),
    ],
)
def test_impossible_validations_are_refused(few, options, error, words):
    with pytest.raises(error, match=words):
        run(few, **options)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: models.small_cnn(image_size=SIZE, classes=list("0123456789")), "one that is not"),
        (lambda: None, "NoneType"),
        ("model", "Received: str"),
    ],
)
def test_a_wrong_build_is_explained(few, wrong, words):
    with pytest.raises(TypeError, match=words):
        experiments.cross_validate(wrong, few, folds=2, image_size=SIZE, epochs=1, seed=0)


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from cnnlab import tables
import test_cross_validate as t
from cnnlab.experiments.runner import Runner
real = Runner.train
def noted(*arguments, **options):
    open({log!r}, "a").write("fold\\n")
    return real(*arguments, **options)
Runner.train = noted
t.run(tables.read({table!r}), folds=5, epochs=80, folder={folder!r})
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_random_moments_it_ends_the_same(few, tmp_path):
    tables.save(few, tmp_path / "few.csv")
    folder, log = tmp_path / "cv", tmp_path / "log.txt"
    places = {"here": Path(__file__).parent, "table": tmp_path / "few.csv", "folder": folder, "log": log}
    code = SCRIPT.format(**{name: str(path) for name, path in places.items()})
    rng = np.random.default_rng(0)
    log.touch()
    kills = 0
    while kills < 10:
        begun = len(log.read_text().splitlines())
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        while process.poll() is None and len(log.read_text().splitlines()) == begun:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 3))  # a fold takes about four seconds
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 5
    assert subprocess.run([sys.executable, "-c", code], check=True).returncode == 0
    assert len(log.read_text().splitlines()) <= 5 + kills  # at most the fold that was cut off is run again
    print(f"killed {kills} times")
    same(run(few, folds=5, epochs=80, folder=folder), run(few, folds=5, epochs=80))


def test_other_groups_are_another_experiment(few, tmp_path):
    lots = few.assign(lot=range(len(few)))
    run(lots, epochs=1, group="lot", folder=tmp_path / "cv")
    with pytest.raises(FileExistsError, match=r"\(table differ\)"):
        run(lots.assign(lot=lots["lot"] // 2), epochs=1, group="lot", folder=tmp_path / "cv")

"""Learning curve over the number of training images: nested, stratified parts, scored on the same held-out images."""

import keras
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlab import experiments, models, pipelines, plots, tables, training
from cnnlab._answers import with_probabilities
from cnnlab.experiments.runner import Runner, Trained, collect
from cnnlab.experiments.training_run import Outcome
from cnnlab.experiments.validation import _first_rows

SIZE = (8, 8)


def build():
    model = models.small_cnn(image_size=SIZE, classes=list("0123456789"), filters=(8, 16))
    return training.compile(model, learning_rate=0.01, steps_per_execution=1, run_eagerly=True)  # few steps: no graph


def run(table, **options):
    return experiments.learning_curve(
        build, table, **{"sizes": (20, 1.0), "image_size": SIZE, "epochs": 2, "seed": 0, "repeats": 1} | options
    )


@pytest.fixture(scope="module")
def few(digits):
    return digits.groupby("label", observed=True).head(15).reset_index(drop=True)


@pytest.fixture
def seen(monkeypatch):
    """Keeps what each run was given, and answers without training: everything is called the first class."""
    calls = []

    def answer(self, run):
        both = run.rows.test
        learned = pd.concat([run.rows.train, run.rows.val])
        assert self.table.loc[both.index, "path"].tolist() == both["path"].tolist()
        calls.append({"train": learned, "val": run.rows.val, "both": both, "seed": run.seed})
        first = np.eye(len(both["label"].cat.categories))[np.zeros(len(both), int)]
        outcome = Outcome(pd.DataFrame({"epoch": [0], "loss": [1.0]}), with_probabilities(both, first), {})
        return Trained(collect(outcome, 1.0), None)

    monkeypatch.setattr(Runner, "train", answer)
    return calls


def test_a_run_equals_plain_keras(few):
    found = run(few)
    parts = {name: few[few["split"] == name].drop(columns="split").reset_index(drop=True) for name in ("train", "val")}
    keras.utils.set_random_seed(0)
    model = build()
    model.fit(pipelines.load(parts["train"], image_size=SIZE, training=True, seed=0), epochs=2, verbose=0)
    for name, part in (("training", parts["train"]), ("held out", parts["val"])):
        predictions = experiments.predict(model, part)
        row = found[(found["part"] == name) & (found["images"] == len(parts["train"]))].iloc[0]
        true, guess = predictions["label"].astype(str), predictions["predicted"].astype(str)
        assert row["accuracy"] == pytest.approx(reference.accuracy_score(true, guess))
        assert row["scored"] == len(part)
    assert found.columns[:4].tolist() == ["images", "repeat", "part", "scored"]
    assert len(found) == 4
    assert plots.learning_curve(found, metric="macro_f1").get_ylabel() == "macro f1"


def test_parts_are_nested_stratified_and_scored_on_the_same_images(few, seen):
    found = run(few, sizes=(0.25, 50, 1.0), repeats=2)
    assert found["images"].unique().tolist() == [
        round(0.25 * (few["split"] == "train").sum()),
        50,
        len(seen[2]["train"]),
    ]
    held_out = few.loc[few["split"] == "val", "path"].tolist()
    for first in (0, 3):
        one, two, three = (set(call["train"]["path"]) for call in seen[first : first + 3])
        assert one < two < three == set(few.loc[few["split"] == "train", "path"])
    for call in seen:
        assert call["both"]["path"].tolist() == call["train"]["path"].tolist() + held_out
        assert not set(call["train"]["path"]) & set(held_out)
        exact = few.loc[few["split"] == "train", "label"].value_counts(normalize=True) * len(call["train"])
        assert (call["train"]["label"].value_counts() - exact).abs().max() <= 1.5
    assert set(seen[0]["train"]["path"]) != set(seen[3]["train"]["path"])
    assert seen[0]["seed"] != seen[3]["seed"]


def test_the_test_split_is_never_touched(few, seen):
    test = set(few.loc[few["split"] == "test", "path"])
    run(few)
    run(few[few["split"] != "val"])
    assert all(not test & set(call["both"]["path"]) for call in seen)
    undivided = run(few.drop(columns="split"))
    assert undivided["images"].max() == pytest.approx(0.75 * len(few), abs=5)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_beginnings_keep_groups_whole_and_every_class(data):
    """Any table, any groups: beginnings are nested, cut no group, hold each class, and come near the size asked."""
    rows = data.draw(st.integers(4, 20))
    codes = data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    groups = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, None]), min_size=rows, max_size=rows))
    grouped = data.draw(st.booleans())
    table = pd.DataFrame({"label": pd.Categorical.from_codes(codes, list("abc")), "patient": groups})
    table["path"] = [f"{row}.png" for row in range(rows)]
    last = set()
    for count in range(1, rows + 1):
        part = _first_rows(table, "patient" if grouped else None, count=count, seed=3)
        assert last <= set(part.index)
        last = set(part.index)
        assert part.index.is_monotonic_increasing
        if grouped:
            named = table["patient"].dropna()
            assert not set(named[named.index.isin(last)]) & set(named[~named.index.isin(last)])
        else:
            assert len(part) == max(count, table["label"].nunique())
            assert part["label"].nunique() == table["label"].nunique()
    assert len(last) == rows


def test_groups_are_passed_on_and_held_out_whole(digits, seen):
    table = digits.groupby("label", observed=True).head(60).drop(columns="split").sort_values("label")
    table["patient"] = np.arange(len(table)) // 3
    run(table, group="patient", sizes=(0.5, 1.0), patience=1)
    for call in seen:
        learned = set(call["train"]["patient"])
        scored = set(call["both"]["patient"].iloc[len(call["train"]) :])
        assert not learned & scored
        stopping = set(call["val"]["patient"])
        assert not stopping & set(call["train"]["patient"][~call["train"].index.isin(call["val"].index)])
        assert 0 < len(call["val"]) < 0.3 * len(call["train"])


def test_finished_runs_are_kept_and_sizes_can_be_added(few, seen, tmp_path):
    first = run(few, folder=tmp_path / "curve")
    assert len(seen) == 2
    again = run(few, folder=tmp_path / "curve", sizes=(20, 40, 1.0), repeats=2)
    assert len(seen) == 2 + 4
    old = again[(again["repeat"] == 0) & (again["images"] != 40)].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, first)
    with pytest.raises(FileExistsError, match="epochs differ"):
        run(few, folder=tmp_path / "curve", epochs=3)


def test_scores_are_those_of_each_part(few, seen):
    found = run(few).set_index(["images", "part"])
    held_out = few.loc[few["split"] == "val", "label"].astype(str)
    first = found.xs("held out", level="part")
    assert (first["accuracy"] == (held_out == "0").mean()).all()
    np.testing.assert_allclose(first["balanced_accuracy"], 0.1 if (held_out == "0").any() else 0)
    assert found.xs("training", level="part")["scored"].tolist() == [20, (few["split"] == "train").sum()]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sizes": (1.5,)}, r"Received: 1\.5"),
        ({"sizes": (0,)}, "Received: 0"),
        ({"sizes": (True,)}, "Received: True"),
        ({"sizes": (100_000,)}, "Received: 100000"),
        ({"sizes": (0.01,)}, "at least 10 images in each part"),
        ({"sizes": ()}, "at least 10 images in each part"),
        ({"repeats": 0}, "repeats=0"),
        ({"group": "patients"}, "expects a column 'patients'"),
    ],
)
def test_impossible_wishes_are_refused_in_words(few, seen, options, words):
    with pytest.raises((ValueError, KeyError), match=words):
        run(few, **options)
    assert not seen


def test_too_small_a_class_is_told_by_the_division():
    table = pd.DataFrame({"path": list("abcd"), "label": pd.Categorical(["x", "x", "x", "y"])})
    with pytest.warns(UserWarning, match="Not in each of train, val"), pytest.raises(ValueError, match="sizes"):
        experiments.learning_curve(build, table, sizes=(10,), image_size=SIZE, epochs=1, seed=0)
    assert tables.split(table.iloc[:3], val=0.25, test=0.0, seed=0)["split"].eq("val").sum() == 1

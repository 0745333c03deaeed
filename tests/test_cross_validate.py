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

from cnnlab import augment, experiments, models, tables, training
from cnnlab.experiments.training_run import class_weights

SIZE = (8, 8)


@pytest.fixture(scope="module")
def few(digits):
    return digits.groupby("label", observed=True).head(12).reset_index(drop=True)


@pytest.fixture(scope="module")
def twelve(few):
    return few[few["label"].isin(["0", "1"])].groupby("label", observed=True).head(6).reset_index(drop=True)


def build():
    model = models.small_cnn(image_size=SIZE, classes=list("0123456789"), filters=(8, 16))
    return training.compile(model, learning_rate=0.01, steps_per_execution=1, run_eagerly=True)  # few steps: no graph


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


@pytest.mark.parametrize("kept", [False, True])
def test_predictions_keep_the_index_of_the_table(twelve, tmp_path, kept):
    rows = twelve.set_axis([f"image {number}" for number in range(12)]).sample(frac=1, random_state=0)
    options = {"folds": 2, "epochs": 1, "folder": tmp_path if kept else None}
    for _ in range(1 + kept):  # the second time, they come from the folder
        assert run(rows, **options).predictions["path"].equals(rows["path"])
    assert run(rows, **options | {"folder": None, "repeats": 2}).predictions.index.tolist() == list(range(24))


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
        train, val, test = seen[3 * fold : 3 * fold + 3]
        assert test == held_out
        assert not val & held_out
        assert not train & held_out
        assert not val & train
        assert train | val | test == set(few["path"])
        assert 0 < len(val) < 0.25 * len(train)
        history = result.histories[result.histories["fold"] == fold]
        assert history["val_loss"].notna().all()


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


# What a folder's results depend on


def plain(**options):
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(options.get("units", 4), activation="relu", **options.get("layer", {})),
            keras.layers.Dense(10, activation="softmax", bias_initializer=options.get("bias", "zeros")),
        ]
    )
    model.compile(
        options.get("optimizer", "adam"),
        options.get("loss", "sparse_categorical_crossentropy"),
        metrics=options.get("metrics", ["accuracy"]),
        run_eagerly=True,
    )
    return model


class Subclassed(keras.Model):
    factor = 1.0

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(10, activation="softmax")

    def call(self, images):
        return self.dense(keras.ops.reshape(keras.ops.cast(images, "float32"), (-1, 192)) / 255)

    def train_step(self, data):
        steps.append(self.factor)
        return super().train_step(data)


class OtherStep(Subclassed):
    def train_step(self, data):
        return super().train_step(data)


steps = []


def subclassed(kind=Subclassed):
    model = kind()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    return model


def scaled_loss(factor):
    def loss(y, p):
        return factor * keras.losses.sparse_categorical_crossentropy(y, p)

    return loss


def fit_of(weight):
    def fit(model, data, **options):
        return model.fit(data, class_weight={0: weight}, **options)

    return fit


def pretend(monkeypatch):
    from cnnlab._answers import with_probabilities
    from cnnlab.experiments.runner import Runner, Trained, collect
    from cnnlab.experiments.training_run import Outcome

    def train(self, run):
        test = run.rows.test
        predictions = with_probabilities(test, np.eye(len(test["label"].cat.categories))[test["label"].cat.codes])
        return Trained(collect(Outcome(pd.DataFrame({"epoch": [0], "loss": [1.0]}), predictions, {}), 0.0), None)

    monkeypatch.setattr(Runner, "train", train)


@pytest.fixture
def untrained(monkeypatch):
    """Stands in for the trainings, for questions about folders."""
    pretend(monkeypatch)


def call(table, folder, build=plain, **more):
    keywords = {"folds": 2, "image_size": SIZE, "epochs": 1, "seed": 0} | more
    return experiments.cross_validate(build, table, folder=folder, **keywords)


@pytest.fixture(scope="module")
def base(twelve, tmp_path_factory):
    """The folder of a plain call."""
    folder = tmp_path_factory.mktemp("base") / "cv"
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch)
        call(twelve, folder)
    return folder


def fresh(rate):
    return [keras.callbacks.ReduceLROnPlateau(factor=rate)]


CHANGES = [
    ({"build": lambda: plain(units=5)}, "the network's layers"),
    ({"build": lambda: plain(optimizer=keras.optimizers.Adam(0.5))}, "the network's optimizer"),
    ({"build": lambda: plain(optimizer="sgd")}, "the network's optimizer"),
    ({"build": lambda: plain(loss=keras.losses.SparseCategoricalCrossentropy())}, "the network's loss"),
    ({"build": lambda: plain(metrics=["accuracy", "sparse_categorical_accuracy"])}, "the network's metrics"),
    ({"build": lambda: plain(layer={"trainable": False})}, "the network's layers"),
    ({"build": lambda: plain(bias=keras.initializers.Constant(0.5))}, "the network's layers"),
    ({"build": subclassed}, "the network's own code"),
    ({"fit": fit_of(2.0)}, "fit"),
    ({"callbacks": lambda: fresh(0.1)}, "callbacks"),
    ({"class_weight": {0: 2.0}}, "class_weight"),
    ({"patience": 3}, "patience"),
    ({"augment": augment.Policy(noise=4)}, "augment"),
    ({"balance": "oversample"}, "balance"),
    ({"batch_size": 16}, "batch_size"),
    ({"resize": "pad"}, "resize"),
    ({"seed": 1}, "seed"),
    ({"folds": 3}, "folds"),
]


@pytest.mark.parametrize(("options", "named"), CHANGES, ids=[f"{named}-{n}" for n, (_, named) in enumerate(CHANGES)])
def test_what_another_call_would_compute_is_never_given_back(twelve, untrained, base, tmp_path, options, named):
    """In both directions: what is given now and was not then, and what was given then and is not now."""
    call(twelve, tmp_path, **options)
    for folder, more in ((base, options), (tmp_path, {})):
        with pytest.raises(FileExistsError, match=rf"\(.*{named}.* differ\)\. Name another folder"):
            call(twelve, folder, **more)
    call(twelve, tmp_path, **options)


def test_what_is_the_same_is_the_same_however_it_is_said(twelve, untrained, base):
    call(twelve, base, batch_size=32, cache=False)


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        ({"build": lambda: plain(loss=scaled_loss(1.0))}, {"build": lambda: plain(loss=scaled_loss(2.0))}, "own code"),
        ({"build": subclassed}, {"build": lambda: subclassed(OtherStep)}, "own code"),
        ({"fit": fit_of(1.0)}, {"fit": fit_of(2.0)}, "fit"),
        ({"callbacks": fresh(0.1)}, {"callbacks": fresh(0.5)}, "callbacks"),
        ({"callbacks": lambda: fresh(0.1)}, {"callbacks": lambda: fresh(0.5)}, "callbacks"),
    ],
)
def test_own_code_is_told_apart_by_what_it_does(twelve, untrained, tmp_path, one, other, named):
    keywords = {"build": plain, "folds": 2, "image_size": SIZE, "epochs": 1, "seed": 0, "folder": tmp_path / "cv"}
    experiments.cross_validate(table=twelve, **keywords | one)
    experiments.cross_validate(table=twelve, **keywords | one)
    with pytest.raises(FileExistsError, match=named):
        experiments.cross_validate(table=twelve, **keywords | other)


def test_other_given_weights_and_other_files_are_another_experiment(few, untrained, tmp_path):
    weights = [np.zeros((192, 4)), np.zeros((4, 10))]

    def given():
        model = plain(layer={"use_bias": False})
        model.layers[2].kernel.assign(weights[0])
        return model

    copies = few.groupby("label", observed=True).head(2).reset_index(drop=True)
    for row, path in enumerate(copies["path"]):
        (tmp_path / f"{row}.png").write_bytes(Path(path).read_bytes())
    copies["path"] = [str(tmp_path / f"{row}.png") for row in range(len(copies))]
    keywords = {"folds": 2, "image_size": SIZE, "epochs": 1, "seed": 0, "folder": tmp_path / "cv"}
    experiments.cross_validate(given, copies, **keywords)
    weights[0] = np.ones((192, 4))
    with pytest.raises(FileExistsError, match="given weights"):
        experiments.cross_validate(given, copies, **keywords)
    weights[0] = np.zeros((192, 4))
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:-1] + b"?")  # of the same size
    with pytest.raises(FileExistsError, match=r"\(files differ\)"):
        experiments.cross_validate(given, copies, **keywords)


def test_a_counting_build_is_still_the_same_build(few, untrained, tmp_path):
    calls = []

    def counted():
        calls.append(1)
        return plain()

    def fit(model, *arguments, **options):
        calls.append(2)
        return model.fit(*arguments, **options)

    for _ in range(2):
        experiments.cross_validate(
            counted, few, folds=2, image_size=SIZE, epochs=1, seed=0, folder=tmp_path / "cv", fit=fit
        )


def test_results_of_another_version_are_refused(few, untrained, tmp_path):
    keywords = {"folds": 2, "image_size": SIZE, "epochs": 1, "seed": 0, "folder": tmp_path}
    (tmp_path / "experiment.json").write_text('{"epochs": "1", "seed": "0"}')  # as version 0.1 wrote it
    with pytest.raises(FileExistsError, match="another version of cnnlab"):
        experiments.cross_validate(plain, few, **keywords)


# How networks are trained


def test_the_session_is_as_it_was_and_every_fold_has_its_precision(twelve, monkeypatch):
    policies, real = [], keras.utils.clear_session

    def noted():
        policies.append(plain().layers[3].compute_dtype)
        return plain()

    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.disable_traceback_filtering()
    distribution = object()
    monkeypatch.setattr(keras.distribution, "distribution", lambda: distribution)
    given = []
    monkeypatch.setattr(keras.distribution, "set_distribution", given.append)
    try:
        experiments.cross_validate(noted, twelve, folds=3, image_size=SIZE, epochs=1, seed=0)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert not keras.config.is_traceback_filtering_enabled()
    finally:
        keras.config.set_dtype_policy("float32")
        keras.config.enable_traceback_filtering()
    assert policies and set(policies) == {"bfloat16"}
    assert given and set(given) == {distribution}
    assert real is keras.utils.clear_session


def test_own_train_steps_callbacks_and_class_weights_are_what_runs(twelve):
    steps.clear()
    ends = []

    class Counted(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            ends.append(type(self.model))

    found = experiments.cross_validate(
        subclassed, twelve, folds=2, image_size=SIZE, epochs=2, seed=0, callbacks=lambda: [Counted()]
    )
    assert len(steps) >= 2
    assert ends == [Subclassed, Subclassed]
    assert found.predictions["predicted"].notna().all()

    kinds = []
    experiments.cross_validate(
        plain, twelve, folds=2, image_size=SIZE, epochs=1, seed=0, class_weight="balanced",
        fit=lambda model, data, **options: kinds.append(options["class_weight"]) or model.fit(data, **options),
    )  # fmt: skip
    assert [sorted(weights) for weights in kinds] == [list(range(10))] * 2
    with pytest.raises(ValueError, match="`class_weight` expects 'balanced', or class"):
        experiments.cross_validate(plain, twelve, folds=2, image_size=SIZE, epochs=1, seed=0, class_weight={"cat": 2.0})


@pytest.mark.parametrize(
    ("classes", "given", "expected"),
    [
        ([1, 2, 3], {1: 10.0, 2: 2.0}, {0: 10.0, 1: 2.0, 2: 1.0}),
        ([3, 1], {np.int64(1): 10.0, "3": 2.0}, {0: 2.0, 1: 10.0}),
        (["a", "b"], {1: 10.0}, {0: 1.0, 1: 10.0}),
        (["0", "1"], {1: 10.0}, {0: 1.0, 1: 10.0}),
        ([1, 2, 3], {0: 10.0, 1: 2.0}, None),  # 0 is no grade
        (["1", "2", "3"], {1: 10.0}, None),  # the first class by name, the second by number
        (["a", "b"], [10.0, 1.0], None),
        (["a", "b"], {True: 10.0}, None),
    ],
)
def test_a_class_weight_of_a_number_is_that_of_the_class_so_called(classes, given, expected):
    table = pd.DataFrame({"label": pd.Categorical(classes, categories=classes)})
    if expected is not None:
        assert class_weights(given, table) == expected
        return
    with pytest.raises(ValueError, match="`class_weight` expects 'balanced', or class → weight"):
        class_weights(given, table)


def test_class_weights_weigh_the_loss(twelve):
    def first_loss(**options):
        build = lambda: plain(optimizer=keras.optimizers.SGD(0.0))  # noqa: E731
        found = experiments.cross_validate(build, twelve, folds=2, image_size=SIZE, epochs=1, seed=0, **options)
        return found.histories["loss"].to_numpy()

    np.testing.assert_allclose(first_loss(class_weight={"0": 3.0, "1": 3.0}), 3 * first_loss(), rtol=1e-4)


def test_a_network_that_knows_the_test_images_is_refused(twelve):
    model = plain()
    with pytest.raises(ValueError, match="returned layers that an earlier run has trained"):
        experiments.cross_validate(lambda: model, twelve, folds=2, image_size=SIZE, epochs=1, seed=0)


def test_the_networks_size_is_asked_for_in_words(twelve):
    with pytest.raises(ValueError, match=r"`image_size` expects the size .* \(8, 8\)\. Received: \(16, 16\)"):
        experiments.cross_validate(plain, twelve, folds=2, image_size=(16, 16), epochs=1, seed=0)


def test_copies_and_linked_rows_stay_in_one_fold(few, untrained):
    rows = np.arange(len(few))
    table = few.sort_values("label", kind="stable").assign(group=rows // 3, patient=rows // 2)
    keywords = {"folds": 2, "image_size": SIZE, "epochs": 1, "seed": 0}
    for group in (None, "patient", ["group", "patient"]):
        found = experiments.cross_validate(
            plain, table.drop(columns=[] if group else "patient"), group=group, **keywords
        )
        for column in {"group", *(["patient"] if group else [])}:
            assert (found.predictions.groupby(column)["fold"].nunique() == 1).all()
    assert set(found.predictions.columns) >= {"path", "label", "fold", "group", "patient"}


def test_settings_that_an_own_fit_reads_count_and_what_it_fills_does_not():
    from cnnlab.models.fingerprint import describe

    settings, seen, count = {"epochs": 1}, [], 0

    def fit(model, data, **options):
        nonlocal count
        count += 1
        seen.append(len(seen))
        options["epochs"] = settings["epochs"]
        return model.fit(data, **options)

    before = describe(fit)
    seen.append(0)
    count += 1
    assert describe(fit) == before
    settings["epochs"] = 2
    assert describe(fit) != before


def network(outputs, activation="softmax", names=None):
    layers = [keras.Input((*SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(outputs, activation=activation)]
    model = keras.Sequential(layers)
    model = model if names is None else models.with_classes(model, names)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def two_answers():
    images = keras.Input((*SIZE, 3))
    flat = keras.layers.Flatten()(images)
    model = keras.Model(images, [keras.layers.Dense(10, activation="softmax")(flat) for _ in range(2)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("unsuited", "said"),
    [
        (lambda: network(12), "one output per class.* has 12 outputs for 10 classes"),
        (lambda: network(9), "one output per class.* has 9 outputs for 10 classes"),
        (lambda: network(10, None), "expects probabilities.*'linear'"),
        (two_answers, "one output of shape"),
        (lambda: network(10, names=list("1023456789")), r"in their order: \['0', '1', .*one for \['1', '0'"),
        (lambda: network(10, names=list("abcdefghij")), "one for \\['a', 'b'"),
    ],
    ids=["too many", "too few", "logits", "two answers", "other order", "other names"],
)
def test_a_network_that_does_not_suit_the_table_is_refused_before_training(few, monkeypatch, unsuited, said):
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ValueError, match=said):
        experiments.cross_validate(unsuited, few, folds=2, image_size=SIZE, epochs=1, seed=0)


def test_weights_that_broke_in_the_last_step_are_a_problem_not_a_gap(few):
    def broken():
        model = network(10, names=list("0123456789"))
        rule = keras.optimizers.SGD(1e38)
        model.compile(rule, "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
        return model

    found = experiments.cross_validate(
        broken, few, folds=2, image_size=SIZE, epochs=1, seed=0, batch_size=128
    )  # fmt: skip
    assert found.scores["accuracy"].isna().all()
    assert found.scores["problem"].str.contains("A lower learning rate").all()


def test_without_a_folder_no_image_is_read_to_be_compared_later(few, untrained, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("cnnlab.models.fingerprint.read_file", lambda path: read.append(path) or b"")
    options = {"image_size": SIZE, "epochs": 1, "seed": 0}
    run(few)
    experiments.learning_curve(build, few, sizes=(20,), repeats=1, **options)
    assert read == []
    run(few, folder=tmp_path)
    assert len(read) == len(few)
    with pytest.raises(KeyError, match="writer"):
        run(few, group="writer")
    with pytest.raises(KeyError, match="writer"):
        experiments.learning_curve(build, few, sizes=(20,), group="writer", **options)


@pytest.mark.parametrize("seed", [-1, 0.5, True, None, "0"])
@pytest.mark.parametrize("name", ["cross_validate", "learning_curve", "imbalance", "grid_search"])
def test_seeds_are_whole_numbers_from_0_in_every_experiment(few, tmp_path, name, seed):
    grid, folder = ([{"rate": [1]}], {"folder": tmp_path}) if name == "grid_search" else ([], {})
    with pytest.raises(TypeError, match=rf"`experiments\.{name}` expects a whole number from 0 as `seed`"):
        getattr(experiments, name)(build, *grid, few, image_size=SIZE, epochs=1, seed=seed, **folder)

"""Folders of results that were damaged, or made by somebody to do harm: a sentence, and nothing outside is touched."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from cnnlab import experiments, models, tables
from cnnlab._answers import with_probabilities
from cnnlab.experiments import tuning
from cnnlab.experiments.runner import Runner, Trained, collect
from cnnlab.experiments.store import SCORES, Store
from cnnlab.experiments.training_run import Outcome

# KerasTuner asks threads for their names in the old way.
pytestmark = [
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(google|keras_tuner|tensorboard)"),
]
SIZE = (8, 8)


@pytest.fixture(scope="module")
def few(digits):
    rows = digits[digits["label"].isin(["0", "1"])].groupby("label", observed=True).head(4)
    return rows.assign(label=rows["label"].cat.remove_unused_categories()).reset_index(drop=True)


def build(hp=None):
    model = models.small_cnn(image_size=SIZE, classes=["0", "1"], filters=(2,))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    if hp is not None:
        model.optimizer.learning_rate = hp["learning_rate"]
    return model


def untrained(self, run):
    """Stands in for the trainings: what is asked here is what a folder may do, not what a network learns."""
    test, model = run.rows.test, build()
    model.optimizer.build(model.trainable_variables)
    predictions = with_probabilities(test, np.eye(2)[test["label"].cat.codes])
    return Trained(collect(Outcome(pd.DataFrame([{"epoch": 0, "loss": 1.0}]), predictions, {}), 0.0), model)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(Runner, "train", untrained)


def search(table, folder):
    return experiments.grid_search(
        build, {"learning_rate": [1e-3, 1e-2]}, table, folds=2, image_size=SIZE, epochs=1, seed=0, folder=folder
    )


def validate(table, folder):
    return experiments.cross_validate(build, table, folds=2, image_size=SIZE, epochs=1, seed=0, folder=folder)


def learn(table, folder):
    return experiments.learning_curve(
        build, table, sizes=(4,), repeats=1, image_size=SIZE, epochs=1, seed=0, folder=folder
    )


@pytest.fixture(scope="module")
def originals(few, tmp_path_factory):
    """A search, a cross-validation and a learning curve as they should be."""
    place = tmp_path_factory.mktemp("originals")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "train", untrained)
        search(few, place / "search")
        validate(few, place / "cv")
        learn(few, place / "curve")
    return place


@pytest.fixture
def folder(originals, tmp_path):
    """A copy of them, beside files that belong to somebody; these are the same afterwards."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.csv").write_text("path,label\na.png,cat\n")
    (outside / "scores.csv").write_text("accuracy\n0.9\n")
    shutil.copytree(originals, tmp_path / "inside")
    before = contents(tmp_path, besides="inside")
    yield tmp_path / "inside"
    assert contents(tmp_path, besides="inside") == before


def contents(place, *, besides):
    files = [path for path in place.rglob("*") if path.is_file() and besides not in path.relative_to(place).parts]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if not path.name.endswith(".lock")}


def test_the_originals_go_on(few, folder):
    assert len(search(few, folder / "search").results) == 4
    assert len(validate(few, folder / "cv").scores) == 2
    assert len(learn(few, folder / "curve")) == 2


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, '{"trials": {"/../../outside/x": {"trial_id": "/../../outside/x"}}}', "\x00" * 50]
)
def test_what_kerastuner_wrote_is_not_read(few, folder, text):
    expected = search(few, folder / "search").results
    files = [path for name in ("oracle.json", "trial.json", "tuner0.json") for path in folder.rglob(name)]
    for path in {*files, folder / "search" / "tuner0.json"}:
        path.write_text(text)
    pd.testing.assert_frame_equal(search(few, folder / "search").results, expected)


@pytest.mark.parametrize("name", ["search/experiment.json", "cv/experiment.json"])
@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", '"x"', "\x00" * 50, '{"a": ' * 200 + "1" + "}" * 200])
def test_damaged_json_is_a_sentence(few, folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises((ValueError, FileExistsError), match=r"another (one|folder)|version of cnnlab"):
        (search if name.startswith("search") else validate)(few, folder / name.partition("/")[0])


def test_a_huge_file_is_not_read(few, folder):
    with (folder / "search" / "experiment.json").open("wb") as file:
        file.truncate(300 * 2**30)
    with pytest.raises(ValueError, match="at most"):
        search(few, folder / "search")
    with (folder / "cv" / "repeat_0_fold_0" / "scores.csv").open("wb") as file:
        file.truncate(300 * 2**30)
    with pytest.raises(ValueError, match="more than 1,073,741,824 bytes"):
        validate(few, folder / "cv")


@pytest.mark.parametrize("types", ['{"dtype": "datetime64[ns, No/Where]"}', '{"dtype": "timedelta64[s]"}', "[]", "7"])
def test_types_that_are_none_are_a_sentence(few, folder, types):
    note = folder / "cv" / "repeat_0_fold_0" / "scores.csv.json"
    note.write_text('{"columns": {"accuracy": ' + types + "}}")
    with pytest.raises(ValueError, match="computed anew"):
        validate(few, folder / "cv")


@pytest.mark.parametrize("text", ["", "\x00\x01\x02", "accuracy\nmany\n", "a,b\n1\n2,3,4\n"])
def test_damaged_tables_are_a_sentence(few, folder, text):
    for path in (folder / "cv" / "repeat_0_fold_0").glob("scores*"):
        path.write_text(text)
    with pytest.raises(ValueError, match="computed anew"):
        validate(few, folder / "cv")


def none(table):
    return table.head(0)


def double(table):
    return pd.concat([table, table], ignore_index=True)


def other_order(table):
    return table.iloc[::-1].reset_index(drop=True)


def other_classes(table):
    return table.assign(label=table["label"].cat.rename_categories({"1": "2"}))


def other_guesses(table):
    return table.assign(predicted=table["predicted"].astype(str))


def no_guesses(table):
    return table.drop(columns="p_1")


def no_scores(table):
    return table.drop(columns="problem")


def gone(table):
    return None


WRONG = [("predictions", how) for how in (none, double, other_order, other_classes, other_guesses, no_guesses, gone)]
WRONG += [("scores", how) for how in (none, double, no_scores, gone)] + [("history", gone)]


@pytest.mark.parametrize(("name", "how"), WRONG)
@pytest.mark.parametrize("run", ["cv/repeat_0_fold_0", "curve/images_4_repeat_0", "search/trial_0000/fold_1"])
def test_results_of_other_rows_are_a_sentence(few, folder, run, name, how):
    path = folder / run / f"{name}.csv"
    table = how(tables.read(path))
    if table is None:
        path.unlink()
    else:
        tables.save(table, path)
    if run.startswith("search"):  # whose other point is kept
        with pytest.warns(UserWarning, match=r"1 of 2 points have no score.*computed anew"):
            found = search(few, folder / "search")
        assert found.ranking()["mean"].isna().tolist() == [False, True]
    else:
        with pytest.raises(ValueError, match="computed anew"):
            (validate if run.startswith("cv") else learn)(few, folder / run.partition("/")[0])


@pytest.mark.parametrize("name", ["predictions", "histories"])
def test_a_table_that_is_gone_from_a_finished_search_is_named(few, folder, name):
    found = search(few, folder / "search")
    for path in (folder / "search").rglob("history.csv" if name == "histories" else "predictions.csv"):
        path.unlink()
    with pytest.raises(ValueError, match=r"is not there.*computed anew"):
        getattr(found, name)


def test_a_folder_in_the_place_of_the_mark_is_named(few, folder):
    mark = folder / "cv" / "repeat_0_fold_0" / "complete"
    mark.unlink()
    mark.mkdir()
    with pytest.raises(ValueError, match=r"complete' is a folder\. Remove it"):
        validate(few, folder / "cv")


@pytest.mark.parametrize("name", ["repeat_0_fold_0", "repeat_0_fold_0/scores.csv", "experiment.json", "notes"])
def test_links_out_of_the_folder_are_refused(few, folder, name):
    path = folder / "cv" / name
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    path.symlink_to(folder.parent / "outside" / "mine.csv")
    with pytest.raises(ValueError, match="is a link"):
        validate(few, folder / "cv")


def test_pipes_are_refused_and_not_waited_for(few, folder):
    os.mkfifo(folder / "search" / "trial_0000" / "problem.txt")
    with pytest.raises(ValueError, match="no plain file"):
        search(few, folder / "search")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", ".", "..", "", "a\\..\\b", "x" * 300])
def test_names_of_results_stay_inside(tmp_path, name):
    store = Store(tmp_path / "store", {})
    if name:
        for call in (store.has, store.get, lambda name: store.put(name, {})):
            with pytest.raises(ValueError, match="damaged, or was made by somebody"):
                call(name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".hidden", ""])
def test_remedies_name_folders_inside(few, tmp_path, name):
    with pytest.raises(ValueError, match="can name a folder"):
        experiments.imbalance(
            build, few, remedies={name: experiments.Remedy()}, minority=["1"], folds=2, image_size=SIZE, epochs=1,
            seed=0, folder=tmp_path / "bench",
        )  # fmt: skip


def bomb(path, megabytes=256):
    """A few kilobytes that unpack to hundreds of megabytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("arr_0.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (megabytes * 2**18,)}
        )
        for _ in range(megabytes):
            file.write(bytes(2**20))


def no_array(path):
    count = len(build().weights)
    with zipfile.ZipFile(path, "w") as packed:
        for number in range(count):
            packed.writestr(f"arr_{number}.txt", "words")


def other_names(path):
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("arr_0", "words")


def pickled(path):
    np.savez(path.with_suffix(".tmp.npz"), np.array([os.system], dtype=object))
    path.with_suffix(".tmp.npz").rename(path)


def other_network(path):
    model = models.small_cnn(image_size=SIZE, classes=["0", "1"], filters=(3,))
    model.compile("adam", "sparse_categorical_crossentropy")
    tuning.save_weights(model, path)


def npy(header):
    """A file of numpy's with a header that somebody made up."""
    text = header.encode().ljust(118)
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


UNFINISHED = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1L, ")  # a tokenizer stops at the open bracket


def odd_header(path):
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("arr_0.npy", UNFINISHED)


def marked(path, number, **places):
    """Sets a number in the headers of an archive's first part: of its own, and in the list of parts."""
    tuning.save_weights(build(), path)
    data = bytearray(path.read_bytes())
    data[places["own"]] = number
    data[data.index(b"PK\x01\x02") + places["listed"]] = number
    path.write_bytes(data)


def encrypted(path):
    marked(path, 1, own=6, listed=8)


def unknown_compression(path):
    marked(path, 99, own=8, listed=10)


def two_numbers_in_one(path):
    values = [np.zeros(np.shape(weight), [("real", "f4"), ("imaginary", "f4")]) for weight in build().weights]
    with path.open("wb") as file:
        np.savez(file, *values)


@pytest.mark.parametrize(
    "make",
    [
        bomb,
        no_array,
        other_names,
        pickled,
        other_network,
        odd_header,
        encrypted,
        unknown_compression,
        two_numbers_in_one,
        os.mkfifo,
        os.mkdir,
        lambda path: path.write_bytes(b"PK"),
        lambda path: path.write_bytes(b""),
    ],
)
def test_weights_that_are_none_are_a_sentence(tmp_path, make):
    make(tmp_path / "weights.npz")
    with pytest.raises(ValueError, match=r"no weights that can be read|another model"):
        tuning.load_weights(build(), tmp_path / "weights.npz")


def test_weights_come_back(tmp_path):
    model, other = build(), build()
    model.fit(np.zeros((4, *SIZE, 3)), np.array([0, 1, 0, 1]), verbose=0)
    tuning.save_weights(model, tmp_path / "weights.npz")
    tuning.load_weights(other, tmp_path / "weights.npz")
    for one, two in zip(
        [*model.weights, *model.optimizer.variables], [*other.weights, *other.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(one, two)


KINDS = ["bomb", "shape", "nan", "text", "missing", "directory", "code", "zip", "header", "pipe", "names", "encrypted"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_feature_cache_is_computed_anew(few, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path))
    inputs = keras.Input((*SIZE, 3))
    network = keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(5, 3)(inputs)))
    expected = experiments.features(network, few)
    (path,) = (tmp_path / "features").rglob("*.npy")
    rows = np.load(path)
    path.unlink()
    if kind == "bomb":
        huge = {"descr": rows.dtype.descr, "fortran_order": False, "shape": (2**40,)}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, huge)
    elif kind == "directory":
        path.mkdir()
    elif kind == "zip":
        with path.open("wb") as file:
            np.savez(file, rows)
    elif kind == "encrypted":
        encrypted(path)
    elif kind == "header":
        path.write_bytes(UNFINISHED)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "names":  # of no characters that there are
        data = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
        data[:, :4] = 255
        np.save(path, rows)
    elif kind == "text":
        path.write_text("features")
    elif kind == "code":
        np.save(path, np.array([os.system], dtype=object), allow_pickle=True)
    else:
        shape = [("key", "U32"), ("values", np.float32, (3,))]
        rows["values"] = np.nan if kind == "nan" else rows["values"]
        np.save(path, {"shape": np.zeros(len(rows), shape), "nan": rows, "missing": rows[:2]}[kind])
    np.testing.assert_array_equal(experiments.features(network, few), expected)


HOLD = """
import sys, time
from cnnlab.experiments.store import owned
with owned(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_is_told_who_has_the_folder(few, folder):
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(folder / "cv")], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline().strip() == "held"
        with pytest.raises(TimeoutError, match=f"in use by process {first.pid}"):
            validate(few, folder / "cv")
    finally:
        first.kill()
        first.communicate()
    assert len(validate(few, folder / "cv").scores) == 2  # who dies lets go


def test_results_are_whole_or_not_there_when_the_disk_fills(tmp_path, monkeypatch):
    """At each rename, one after the other; predictions and scores that lack the mark are computed anew."""
    table = pd.DataFrame({"path": ["a.png", "b.png"], "label": pd.Categorical(["a", "b"])})
    results = {"predictions": table, "scores": pd.DataFrame([dict.fromkeys(SCORES, 0.5)])}
    real, done = Path.replace, 0
    for number in range(20):
        store, calls = Store(tmp_path / str(number), {}), []

        def replace(self, target, number=number, calls=calls):
            calls.append(target)
            if len(calls) == number + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            try:
                store.put("run", results)
                done = number
            except OSError as error:
                assert error.errno == errno.ENOSPC
                assert not store.has("run") and store.get("run") is None
        if done:
            break
        assert not [path for path in (tmp_path / str(number)).rglob(".*") if not path.name.endswith(".lock")]
        store.put("run", results)
    assert done == 5  # two tables with a file for their types each, and the mark
    pd.testing.assert_frame_equal(store.get("run")["predictions"], table)

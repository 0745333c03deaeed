"""Run folders of strangers, two processes on one, and a disk that fills: words, and nothing outside the folder."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pandas as pd
import pytest
from tqdm.keras import TqdmCallback

from cnnlab import _common, training
from cnnlab.training import best
from cnnlab.training import checkpoint as checkpoints
from cnnlab.training.running import DiskFullError

IMAGES, LABELS = np.random.default_rng(0).random((8, 3)).astype("float32"), np.arange(8) % 2


def network():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=True)
    return model


def train(folder, *, make=training.resume, epochs=3, own=(), model=None, **options):
    callbacks = [*make(folder, **{"tensorboard": False, "patience": 5, "monitor": "loss"} | options), *own]
    return (model or network()).fit(IMAGES, LABELS, epochs=epochs, verbose=0, callbacks=callbacks)


@pytest.fixture
def home(tmp_path):
    """What a person has beside the run; compared before and after."""
    (tmp_path / "thesis.keras").write_text("years of work")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")

    def everything():
        return {
            str(path): path.read_bytes() if path.is_file() else b""
            for path in sorted(tmp_path.rglob("*"))
            if "run" not in path.relative_to(tmp_path).parts and not path.name.endswith(".lock")
        }

    before = everything()
    yield tmp_path
    assert everything() == before


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "run"
    train(folder, make=training.callbacks, epochs=2)
    (folder / "checkpoint" / "previous.ckpt").unlink(missing_ok=True)
    return folder


@pytest.fixture
def run(home, original):
    """A run of two epochs, as it may come from anybody."""
    return shutil.copytree(original, home / "run")


def forge(folder, change=lambda facts: facts, arrays=None, compress=False, facts=None):
    """Rewrites the checkpoint with facts of somebody's choice."""
    path = folder / "checkpoint" / "latest.ckpt"
    found = checkpoints._read_file(path, 2**30)
    arrays = found.arrays | (arrays or {})
    changed = change(found.facts | {"arrays": sorted(arrays)})
    text = json.dumps(changed) if facts is None else facts
    buffer = io.BytesIO()
    save = np.savez_compressed if compress else np.savez
    save(buffer, facts=np.frombuffer(text.encode(), np.uint8), **arrays)
    path.write_bytes(buffer.getvalue())


def remembering(**memory):
    return lambda facts: facts | {"callbacks": facts["callbacks"] | memory}


class Writer(keras.callbacks.Callback):
    """Somebody's own callback that writes a file."""

    def __init__(self, path):
        super().__init__()
        self.path, self.keep, self.log = path, 3, None

    def on_epoch_end(self, epoch, logs=None):
        with open(self.path, "a") as file:  # noqa: PTH123
            file.write(f"{epoch}\n")


def test_no_attribute_that_names_a_file_comes_from_a_checkpoint(run, home):
    elsewhere = str(home / "thesis.keras")
    forge(
        run,
        remembering(
            **{
                "ModelCheckpoint 0": {"filepath": elsewhere, "save_freq": 1, "best": 9.0, "save_best_only": False},
                "TensorBoard 0": {"log_dir": elsewhere, "_train_dir": elsewhere, "write_images": 1},
                "RunRecord 0": {"folder": elsewhere, "rows": {"list": []}},
                "BestModel 0": {"folder": elsewhere, "monitor": "loss"},
                "Writer 0": {"path": 3, "keep": {"list": [1]}, "on_epoch_end": 5, "new": 1},
                "CSVLogger 0": {"filename": elsewhere, "append": True},
                "EpochBar 0": {"bar": {"dict": [["n", 3]]}, "on_epoch_end": 5, "new": 1},
                "TqdmCallback 0": {"verbose": 2, "batches": 7, "on_epoch_end": 5},
            }
        ),
    )
    saver = keras.callbacks.ModelCheckpoint(run / "own.keras", save_best_only=True, monitor="loss", mode="min")
    writer, log = Writer(str(run / "mine.txt")), keras.callbacks.CSVLogger(run / "log.csv")
    theirs = TqdmCallback(verbose=0, disable=True)
    train(run, own=[saver, writer, log, theirs], tensorboard=True)
    assert (theirs.verbose, theirs.batches) == (0, None)
    assert saver.filepath == str(run / "own.keras")
    assert saver.save_best_only
    assert (writer.path, writer.keep, writer.log) == (str(run / "mine.txt"), 3, None)
    assert not hasattr(writer, "new")
    assert (run / "mine.txt").read_text() == "2\n"
    assert len(pd.read_csv(run / "history.csv")) == 1  # what was remembered of the rows was an empty list


@pytest.mark.parametrize(
    "memory",
    [
        {"Writer 0": {"path": "/etc/passwd"}},
        {"Writer 0": {"log": {"dict": [["file", "/etc/passwd"]]}}},
        {"EarlyStopping 0": {"monitor": "loss", "wait": "soon"}},
        {"EarlyStopping 0": {"monitor": "loss", "wait": -1}},
        {"EarlyStopping 0": {"monitor": "loss", "wait": True}},
        {"EarlyStopping 0": {"monitor": "loss", "best": {"list": [1]}}},
        {"EarlyStopping 0": {"monitor": "loss", "best_weights": {"list": [1.0, 2.0]}}},
        {"EarlyStopping 0": {"monitor": "loss", "best_weights": {"list": [{"array": "model_0"}]}}},
        {"BestModel 0": {"monitor": "loss", "waiting": {"list": [{"array": "nowhere"}]}}},
        {"RunRecord 0": {"rows": {"list": [{"dict": [["loss", {"list": []}]]}]}}},
        {"RunRecord 0": {"rows": {"list": [{"dict": [["a\rb", 1.0]]}]}}},
        {"History 0": {"history": {"dict": [["loss", 3]]}}},
        {"History 0": {"epoch": {"list": [-1]}}},
        {"History 0": {"epoch": {"dict": [[1, 2, 3]]}}},
        {"EarlyStopping 0": {"monitor": "loss", "wait": 3.5}},
    ],
    ids=str,
)
def test_what_a_callback_cannot_have_learned_is_refused(run, memory):
    forge(run, remembering(**memory))
    with pytest.raises(ValueError, match=r"memory of callbacks in the checkpoint.*Begin anew"):
        train(run, own=[Writer(str(run / "mine.txt"))])


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: [],
        lambda facts: facts | {"epoch": -1},
        lambda facts: facts | {"epoch": "2"},
        lambda facts: facts | {"epoch": 10**12},
        lambda facts: facts | {"step": 1.5},
        lambda facts: facts | {"over": "yes"},
        lambda facts: facts | {"data": None},
        lambda facts: facts | {"callbacks": {"EarlyStopping 0": 3}},
        lambda facts: {key: value for key, value in facts.items() if key != "random"},
    ],
)
def test_facts_that_are_none_are_refused(run, change):
    forge(run, change)
    with pytest.raises(ValueError, match=r"whole checkpoint.*only damaged ones"):
        train(run)


FEW = {"numpy": ["MT19937", [1] * 623, 624, 0, 0.0]}


@pytest.mark.parametrize("state", [{}, {"python": [3, [1], None]}, {"python": 3, "numpy": 4, "keras": 5}, FEW], ids=len)
def test_random_state_that_is_none_is_refused(run, state):
    forge(run, lambda facts: facts | {"random": facts["random"] | state if state is FEW else state})
    with pytest.raises(ValueError, match=r"state of random generators.*Begin anew"):
        train(run)


def bomb(run):
    forge(run, arrays={"callback_9": np.zeros(2**27, np.uint8)}, compress=True)
    assert (run / "checkpoint" / "latest.ckpt").stat().st_size < 2**20


def giant(run):
    """A header that says 4 TB."""
    forge(run)
    path = run / "checkpoint" / "latest.ckpt"
    content = io.BytesIO()
    said, lie = b"(3, 2), }".ljust(24), b"(9999999, 99999), }".ljust(24)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as old, zipfile.ZipFile(content, "w") as new:
        assert said in old.read("model_0.npy")
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(said, lie))
    path.write_bytes(content.getvalue())


def objects(run):
    forge(run, arrays={"callback_9": np.array([{}], dtype=object)})


def text(run):
    forge(run, arrays={"model_0": np.array([["a"] * 2] * 3)})


def deep(run):
    forge(run, facts="[" * 200_000)


def no_zip(run):
    (run / "checkpoint" / "latest.ckpt").write_bytes(b"PK\3\4 and so on")


def link(run):
    path = run / "checkpoint" / "latest.ckpt"
    path.rename(run / "elsewhere.ckpt")
    path.symlink_to(run / "elsewhere.ckpt")


def pipe(run):
    path = run / "checkpoint" / "latest.ckpt"
    path.unlink()
    os.mkfifo(path)


def sparse(run):
    with (run / "checkpoint" / "latest.ckpt").open("r+b") as file:
        file.truncate(2**38)


@pytest.mark.parametrize("name", ["latest.ckpt", "previous.ckpt"])
def test_a_folder_in_the_place_of_a_checkpoint_is_named_before_training(run, name):
    path = run / "checkpoint" / name
    path.unlink(missing_ok=True)
    path.mkdir()
    with pytest.raises(ValueError, match=rf"Expected a checkpoint.*{name}' is a folder.*Remove it"):
        train(run)


@pytest.mark.parametrize("damage", [bomb, giant, objects, text, deep, no_zip, link, pipe, sparse])
def test_a_hostile_checkpoint_is_a_sentence_and_costs_nothing(run, damage):
    damage(run)
    with pytest.raises(ValueError, match=r"whole checkpoint.*only damaged ones: latest.ckpt"):
        train(run)


@pytest.mark.parametrize("name", ["tensorboard", "checkpoint", "history.csv", "run.json", "best.keras", "earlier"])
@pytest.mark.parametrize("make", [training.resume, training.callbacks])
def test_links_to_somewhere_else_are_refused(home, name, make):
    run = home / "run"
    run.mkdir()
    (run / name).symlink_to(home / "notes")
    with pytest.raises(ValueError, match=f"'{name}', which is a link to somewhere else"):
        train(run, make=make)


@pytest.mark.parametrize("name", ["history.csv", "best.keras", "run.json", "checkpoint", "tensorboard", "earlier"])
@pytest.mark.parametrize("make", [training.resume, training.callbacks])
def test_what_no_run_writes_is_named_before_training(run, name, make):
    path = run / name
    if path.is_dir():
        path.rename(run / "aside")
    path.unlink(missing_ok=True)
    path.mkdir() if path.suffix else path.write_text("mine")
    with pytest.raises(ValueError, match=rf"Expected a f\w+ or nothing at .*{name}', where a run writes.*move it away"):
        train(run, make=make)
    assert path.is_dir() or path.read_text() == "mine"


def test_a_best_model_that_cannot_be_read_is_a_sentence(run):
    class Diverges(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["loss"] = float("nan")

    forge(run, remembering(**{"BestModel 0": {"monitor": "loss", "best": 0.1, "best_epoch": 1}}))
    (run / "best.keras").write_bytes(b"PK")
    callbacks = [Diverges(), *training.resume(run, tensorboard=False, monitor="loss")]
    with pytest.raises(ValueError, match=r"best\.keras', cannot be read: .* Begin anew"):
        network().fit(IMAGES, LABELS, epochs=3, verbose=0, callbacks=callbacks)


@pytest.mark.parametrize(
    "note",
    ["[" * 100_000, "{", "[]", "3", '{"patience": "x", "monitor": 3, "resumed": 5, "mode": [], "seed": "a"}', "\0", ""],
)
def test_a_note_that_says_nothing_is_no_obstacle(run, note):
    (run / "run.json").write_text(note)
    assert len(train(run).epoch) == 3
    record = json.loads((run / "run.json").read_text())
    assert record["started"]
    assert [path.read_text() for path in run.glob("earlier/*/run.json")] == [note]


def test_a_second_process_is_told_who_trains_in_the_folder(home):
    with _common.locked(home / "run"):
        with pytest.raises(
            TimeoutError, match=rf"being trained there.*process {os.getpid()} on.*choose another folder"
        ):
            train(home / "run", make=training.callbacks)
        assert not (home / "run").exists()
    train(home / "run", make=training.callbacks)
    with _common.locked(home / "run", timeout=0):
        pass  # it is free again


def test_a_fit_that_failed_does_not_keep_its_process_out(home):
    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        train(home / "run", own=[Fails()])
    other = "import sys; from cnnlab import _common; _common.locked(sys.argv[1], timeout=0).__enter__()"
    code = subprocess.run([sys.executable, "-c", other, home / "run"], capture_output=True, text=True)
    assert "TimeoutError" in code.stderr  # while the kernel lives, the half-done run is its own
    assert len(train(home / "run").epoch) == 3


def test_a_disk_that_fills_at_any_write_leaves_whole_files(home, monkeypatch):
    """Every file is the one before or the one after, nothing is left over, and the run goes on from there."""
    plain, count, written = _common.atomic_paths, [0], sys.modules["cnnlab.training.callbacks"]

    def train_with_room_for(writes, folder, make=training.callbacks):
        from contextlib import contextmanager

        @contextmanager
        def atomic(path):
            with plain(path) as (temporary,):
                yield temporary
                count[0] += 1
                if count[0] > writes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        count[0] = 0
        with monkeypatch.context() as patched:
            patched.setattr(written, "atomic_path", atomic)
            patched.setattr(best, "atomic_path", atomic)
            patched.setattr(checkpoints, "atomic_path", atomic)
            patched.setattr("cnnlab.training.resuming.CHECKPOINT_SHARE", 1e9)
            patched.setattr(best, "BEST_SHARE", 1e9)
            keras.utils.set_random_seed(0)
            return train(folder, make=make)

    expected = train_with_room_for(99, home / "run" / "whole").history["loss"]
    total = count[0]
    assert total >= 9  # run.json, and of each epoch history, best model and checkpoint
    for writes in range(total):
        folder = home / "run" / str(writes)
        with pytest.raises(DiskFullError, match=r"is full, so training stopped.*training.resume"):
            train_with_room_for(writes, folder)
        names = {path.name for path in folder.rglob("*")}
        assert names <= {"run.json", "history.csv", "best.keras", "checkpoint", "latest.ckpt", "previous.ckpt"}, names
        if "history.csv" in names:
            assert pd.read_csv(folder / "history.csv").notna().all(axis=None)
        if "best.keras" in names:
            assert zipfile.ZipFile(folder / "best.keras").testzip() is None
        if "run.json" in names:
            json.loads((folder / "run.json").read_text())
        if writes in (0, total // 2, total - 1):
            again = train_with_room_for(99, folder, make=training.resume).history["loss"]
            assert again == pytest.approx(expected, rel=1e-6)


def test_no_bit_of_a_checkpoint_can_turn_without_being_seen(tmp_path):
    """Not even in the archive's list of contents, which has no check sum and may then leave parts out."""
    facts = {"epoch": 1, "step": 2, "over": False, "data": {}, "optimizer": {}, "random": {}, "callbacks": {}}
    arrays = {"model_0": np.arange(50, dtype=np.float32), "model_1": np.float32(3), "metric_0": np.zeros(0, np.float32)}
    checkpoints.write(tmp_path, checkpoints.Checkpoint(facts, arrays))
    path = tmp_path / "checkpoint" / "latest.ckpt"
    whole = path.read_bytes()
    seen = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = checkpoints._read_file(path, 2**20)
        except Exception:  # numpy, zipfile and json have kinds of their own
            seen += 1
            continue
        assert found.facts == facts
        assert {name: one.tobytes() for name, one in found.arrays.items()} == {
            name: np.asarray(one).tobytes() for name, one in arrays.items()
        }
    assert seen > len(whole) / 2

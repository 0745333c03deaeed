"""Exports that strangers made or damage hit: a sentence, nothing runs, nothing outside the folder is touched."""

import io
import json
import multiprocessing
import os
import pickle
import shutil
import threading
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlab import models, serving, widgets
from cnnlab.serving import exporting, placing, writers
from cnnlab.serving.engines import digest_of

OLD = Path(__file__).parent / "exports_0_1_0" / "colour"
IMAGE = np.full((8, 8, 3), 120, np.uint8)


@pytest.fixture
def outside(tmp_path):
    """A folder beside the export, which must be the same afterwards."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    (folder / "empty.txt").touch()
    before = state_of(folder)
    yield folder
    assert state_of(folder) == before


def state_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(".lock")
    }


@pytest.fixture
def folder(tmp_path):
    """An export of one's own to do harm to."""
    return Path(shutil.copytree(OLD, tmp_path / "export"))


def rewrite(folder, **changes):
    about = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(about | changes))


def sign(folder, format, file):
    """Says that a file is the one exported, as somebody with bad intent would."""
    about = json.loads((folder / "export.json").read_text())
    facts = next(iter(about["formats"].values())) | {"sha256": digest_of(folder / file)}
    rewrite(folder, formats={format: facts})


@pytest.fixture(scope="module")
def savedmodel(tmp_path_factory):
    """A SavedModel that writes a file as soon as it is asked anything."""
    folder = tmp_path_factory.mktemp("stranger")

    class Stranger(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)])
        def serve(self, images):
            tf.io.write_file(str(folder / "ran"), "ran")
            flat = tf.reshape(images, (-1, 192))[:, :3]
            return {"probabilities": tf.nn.softmax(flat), "features": flat}

    tf.saved_model.save(Stranger(), str(folder / "savedmodel"))
    return folder


@pytest.mark.parametrize("arguments", [{}, {"format": "savedmodel"}, {"trust": True}])
def test_a_strangers_program_runs_only_when_named_and_trusted(folder, savedmodel, arguments):
    shutil.copytree(savedmodel / "savedmodel", folder / "savedmodel")
    sign(folder, "savedmodel", "savedmodel")
    (folder / "familiar_litert.npz").unlink()
    ran = savedmodel / "ran"
    ran.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"a program that can read and write files .*trust=True.*LiteRT or ONNX"):
        serving.Predictor(folder, **arguments)
    assert not ran.exists()
    assert serving.Predictor(folder, format="savedmodel", trust=True)(IMAGE).label in ("blue", "green", "red")
    assert ran.exists()


def test_the_program_of_this_process_opens_until_a_byte_of_it_changes(digits_model, digits, tmp_path):
    check = digits[digits["split"] == "val"].head(40)
    serving.export(digits_model, tmp_path, formats=["savedmodel"], check=check)
    assert serving.Predictor(tmp_path)(check["path"].iloc[0]).label in set(check["label"])
    (tmp_path / "savedmodel" / "assets" / "note.txt").write_text("changed")
    sign(tmp_path, "savedmodel", "savedmodel")
    with pytest.raises(ValueError, match="trust=True"):
        serving.Predictor(tmp_path)


def test_an_export_writes_no_program_unless_asked(digits_model, digits, tmp_path):
    serving.export(digits_model, tmp_path, check=digits[digits["split"] == "val"].head(40))
    assert not (tmp_path / "savedmodel").exists()


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temperature": 1e-320}, "temperature must be bigger"),
        ({"temperature": 1e300}, "temperature must be smaller"),
        ({"temperature": float("nan")}, "not JSON compliant"),
        ({"temperature": float("inf")}, "not JSON compliant"),
        ({"temperature": True}, "temperature must be number"),
        ({"checked_on": "<script>alert(1)</script>"}, "checked_on must be integer"),
        ({"weights": "<script>"}, "weights must be integer"),
        ({"network": {"a": 1}}, "network must be string"),
        ({"network": "x" * 5000}, "network must be shorter"),
        ({"made_with": ["<script>"]}, "made_with must be object"),
        ({"made_with": {"keras": 3}}, "must be string"),
        ({"image_size": [100_000, 100_000]}, "image_size"),
        ({"image_size": [8, -8]}, "image_size"),
        ({"image_size": [8.5, 8]}, "image_size"),
        ({"channels": 2}, "channels"),
        ({"classes": ["a", "a", "b"]}, "unique"),
        ({"classes": []}, "classes"),
        ({"classes": ["x" * 2000, "b", "c"]}, "shorter"),
        ({"levels": [5, 1]}, "levels"),
        ({"levels": "all"}, "levels"),
        ({"threshold": {"violet": 0.5}}, "not a class"),
        ({"threshold": {"red": 7}}, "threshold"),
        ({"threshold": {"red": 0.1, "blue": 0.2}}, "threshold"),
        ({"about": {"purpose": 7}}, "about"),
        ({"about": {"../../x": "y"}}, "about"),
        ({"formats": {"../../../etc/passwd": {"sha256": ""}}}, "formats"),
        ({"formats": {"litert": {"sha256": "0" * 64}}}, "formats"),
        ({"version": "2"}, "no `version`"),
        ({"version": True}, "no `version`"),
        ({"version": 10**400}, "another version"),
    ],
)
def test_a_hostile_description_is_one_sentence(folder, outside, changes, words):
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=words) as caught:
        serving.Predictor(folder)
    assert len(str(caught.value)) < 900
    label = pd.Categorical(["blue"], categories=["blue", "green", "red"])
    with pytest.raises(ValueError, match=words):
        serving.card(folder, pd.DataFrame({"label": label, "predicted": label}))


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "\xff", "1e999", '{"version": 1e999}', "7" * 5000])
def test_a_description_that_is_none_is_one_sentence(folder, text):
    (folder / "export.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="is damaged"):
        serving.Predictor(folder)


def nested(inside):
    return st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), nested, max_leaves=12
)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_value_in_a_description_is_right_or_refused(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "export"
    shutil.copytree(OLD, folder)
    about = json.loads((folder / "export.json").read_text())
    name = data.draw(st.sampled_from([*about, "levels", "threshold", "about", "card"]))
    inside = about["formats"]["litert"] if name == "formats" and data.draw(st.booleans()) else about
    inside[data.draw(st.sampled_from([*inside])) if inside is not about else name] = data.draw(json_values)
    (folder / "export.json").write_text(json.dumps(about))
    try:
        answer = serving.Predictor(folder)(IMAGE)
    except ValueError as error:
        assert len(str(error)) < 900
    else:
        assert 0 <= answer.confidence <= 1


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def bomb():
    """An archive of a few kB that unpacks to 400 MB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f4", "fortran_order": False, "shape": (1_000_000, 100)}
        )
        with archive.open("points.npy", "w") as part:
            part.write(header.getvalue())
            for _ in range(400):
                part.write(bytes(1_000_000))
    return file.getvalue()


GOOD = np.eye(8, 4, dtype=np.float32)


@pytest.mark.parametrize("limit", [np.nan, np.inf, 0.0, -1.0, 1e-400])
def test_a_hostile_limit_is_one_sentence(folder, limit):
    with np.load(folder / "familiar_litert.npz") as kept:
        points, model = kept["points"], kept["model"]
    (folder / "novelty_litert.npz").write_bytes(npz(points=points, limit=limit, model=model))
    with pytest.raises(ValueError, match="its limit is not above 0"):
        serving.Predictor(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 999,
        bomb(),
        npz(points=GOOD),
        npz(points=GOOD[:2], limit=1.0),
        npz(points=np.array([object()]), limit=1.0),
    ],
    ids=["empty", "noise", "bomb", "parts", "few", "objects"],
)
def test_damaged_novelty_is_one_sentence(folder, content):
    digest = json.loads((folder / "export.json").read_text())["formats"]["litert"]["sha256"]
    if content[:2] == b"PK" and len(content) < 100_000 and b"points" in content[:60]:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist() if len(archive.namelist()) > 1}
        if parts:
            file = io.BytesIO()
            np.save(file, digest)
            with zipfile.ZipFile(made := io.BytesIO(), "w") as archive:
                for name, part in (parts | {"model.npy": file.getvalue()}).items():
                    archive.writestr(name, part)
            content = made.getvalue()
    (folder / "novelty_litert.npz").write_bytes(content)
    before = resident()
    with pytest.raises(ValueError, match="is damaged"):
        serving.Predictor(folder)
    assert resident() - before < 100


def resident():
    if not Path("/proc/self/statm").exists():
        return 0.0
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.parametrize("name", ["model.tflite", "export.json", "familiar_litert.npz"])
def test_links_that_lead_outside_are_refused(folder, outside, name):
    (folder / name).rename(outside.parent / "elsewhere")
    (folder / name).symlink_to(outside.parent / "elsewhere")
    with pytest.raises(ValueError, match="is a link that leads out of the export"):
        serving.Predictor(folder)


@pytest.mark.parametrize("name", ["model.tflite", "familiar_litert.npz"])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ValueError, match="not a regular file"):
        serving.Predictor(folder)
    (folder / "export.json").unlink()
    os.mkfifo(folder / "export.json")
    with pytest.raises(FileNotFoundError, match=r"no export\.json"):
        serving.Predictor(folder)


def test_a_huge_sparse_model_is_not_read(folder):
    with (folder / "model.tflite").open("wb") as file:
        file.truncate(200 * 2**30)
    with pytest.raises(ValueError, match="200 GiB"):
        serving.Predictor(folder)


def test_a_keras_file_that_unpacks_to_much_more_is_refused(folder):
    with zipfile.ZipFile(folder / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * 100_000_000)
    sign(folder, "keras", "model.keras")
    with pytest.raises(ValueError, match="would unpack to 100,000,000"):
        serving.Predictor(folder)
    assert widgets.try_model(serving.Predictor(OLD)).ask(IMAGE) is not None


@pytest.mark.parametrize("kind", ["noise", "empty archive", "link", "huge"])
def test_a_damaged_network_is_one_sentence(folder, kind):
    predictor = serving.Predictor(folder, format="litert")
    path = folder / "model.keras"
    if kind == "noise":
        path.write_bytes(b"PK")
    elif kind == "empty archive":
        zipfile.ZipFile(path, "w").close()
    elif kind == "link":
        path.rename(folder.parent / "elsewhere")
        path.symlink_to(folder.parent / "elsewhere")
    else:
        os.truncate(path, 200 << 30)
    if kind in ("noise", "empty archive"):
        predictor._facts.formats["keras"]["sha256"] = digest_of(path)
    with pytest.raises(ValueError, match=r"model\.keras' (could not be loaded|is a link|has 200 GiB)"):
        predictor.network()


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)


def test_a_card_of_hostile_text_is_text(folder):
    import mistune

    evil = "<script>alert(1)</script>[x](javascript:alert(1))|`"
    names = [f"{evil}{number}" for number in range(3)]
    rewrite(folder, classes=names, network=evil, made=evil, made_with={evil: evil}, about={"purpose": evil})
    label = pd.Categorical(names, categories=names)
    text = serving.card(folder, pd.DataFrame({"label": label, "predicted": label})).read_text()
    page = Tags()
    page.feed(mistune.create_markdown(plugins=["table", "url"])(text))
    assert page.found <= {"h1", "h2", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}


def small_model(names):
    return models.small_cnn(image_size=(8, 8), classes=names, filters=(4,))


@pytest.fixture
def check(parts):
    return parts.head(12)


def test_nothing_outside_is_written_through_links(check, tmp_path, outside):
    model = small_model(check["label"].cat.categories)
    folder = tmp_path / "export"
    folder.mkdir()
    for name in ("README.md", "export.json", "model.keras", ".export.json.lock", "novelty_litert.npz"):
        (folder / name).symlink_to(outside / ("empty.txt" if "lock" in name else "mine.txt"))
    try:
        serving.export(model, folder, check=check, agreement=0)
    except OSError:  # the lock may refuse to follow a link
        (folder / ".export.json.lock").unlink()
        serving.export(model, folder, check=check, agreement=0)
    (folder / "novelty_litert.npz").unlink(missing_ok=True)
    serving.Predictor(folder).fit_novelty(check, check, false_alarms=0.2)
    shutil.rmtree(folder / "earlier")
    (folder / "earlier").symlink_to(outside)
    (folder / "README.md").write_text("mine, too")
    with pytest.raises(ValueError, match="leads out of the export"):
        serving.export(model, folder, check=check, agreement=0)
    assert (folder / "README.md").read_text() == "mine, too"


def full(*_, **__):
    raise OSError(28, "No space left on device")


def failing_at(number, function, calls):
    """A function that works until it is called for the `number`-th time, from 0."""

    def called(*arguments, **options):
        calls.append(arguments)
        return full() if len(calls) == number + 1 else function(*arguments, **options)

    return called


def test_a_disk_that_fills_leaves_the_export_as_it_was(check, tmp_path, monkeypatch):
    """One after the other each rename, each folder and each write of a text fails: all is as before."""
    model = small_model(check["label"].cat.categories)
    serving.export(model, tmp_path, check=check, agreement=0)
    (tmp_path / "model.keras").write_bytes(b"a person's own")
    before, answer = state_of(tmp_path), serving.Predictor(tmp_path)(IMAGE)
    checked = exporting._checked(model, check, models.preparation(model))
    row = dict.fromkeys(("megabytes", "images", "largest_difference", "p50_ms", "p95_ms"), 1.0)

    def write(name, network, working, checked):
        """Fast, and other bytes than before."""
        (working / "model.keras").write_bytes(b"new")
        return row | {"format": "keras", "file": "model.keras", "agreement": 1.0}

    monkeypatch.setattr(exporting, "_checked", lambda *_: checked)
    monkeypatch.setattr(exporting, "_write_and_compare", write)
    failures = 0
    for act in (
        lambda: serving.export(model, tmp_path, formats=["keras"], check=check),
        lambda: serving.card(tmp_path, check.assign(predicted=check["label"]), about={"purpose": "new"}),
    ):
        for name in ("rename", "write_text", "mkdir"):
            calls = [0]
            for number in range(20):
                calls = []
                with monkeypatch.context() as patch:
                    patch.setattr(Path, name, failing_at(number, getattr(Path, name), calls))
                    try:
                        act()
                    except OSError as error:
                        assert error.errno == 28
                    else:
                        break  # fewer calls than that
                after = state_of(tmp_path)
                assert {name: after[name] for name in before} == before
                assert all(name.startswith("earlier") for name in after if name not in before)
                assert serving.Predictor(tmp_path)(IMAGE) == answer
                failures += 1
            shutil.rmtree(tmp_path)
            for path, data in before.items():
                if data is not None:
                    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / path).write_bytes(data)
    assert failures > 15


@pytest.mark.parametrize("format", ["keras", "litert"])
def test_a_disk_that_fills_while_a_model_is_written_is_said_plainly(check, tmp_path, monkeypatch, format):
    model = small_model(check["label"].cat.categories)
    monkeypatch.setitem(writers.WRITERS, format, full)
    with pytest.raises(OSError, match="No space left on device"):
        serving.export(model, tmp_path / "export", formats=[format], check=check)
    assert not list((tmp_path / "export").iterdir())


def test_a_disk_that_fills_while_novelty_is_written_keeps_the_old_one(folder, check, monkeypatch):
    before = state_of(folder)
    predictor = serving.Predictor(folder)
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left on device"):
        predictor.fit_novelty(check, check, false_alarms=0.2)
    assert state_of(folder) == before


def test_two_exports_at_once_leave_one_whole_one(check, tmp_path):
    """Whoever comes second waits; files of both are never mixed."""
    models_of = [small_model(check["label"].cat.categories) for _ in range(2)]
    expected = []
    for number, model in enumerate(models_of):
        serving.export(model, tmp_path / str(number), formats=["litert"], check=check, agreement=0)
        expected.append(serving.Predictor(tmp_path / str(number))(IMAGE).probabilities)
    problems = []

    def write(number):
        try:
            files = ["model.tflite", "README.md", "export.json"]
            with placing.working_folder(tmp_path / "both") as working:
                for name in files:
                    shutil.copy(tmp_path / str(number) / name, working / name)
                with placing.turn(tmp_path / "both") as earlier:
                    placing.put_in_place(tmp_path / "both", working, files, files, earlier)
        except Exception as error:
            problems.append(error)

    for _ in range(3):
        threads = [threading.Thread(target=write, args=(number,)) for number in (0, 1, 0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        assert serving.Predictor(tmp_path / "both")(IMAGE).probabilities in expected
        assert not list((tmp_path / "both").glob(".making*"))


def ask(predictor, queue):
    queue.put(predictor(IMAGE).probabilities)


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_predictors_go_to_other_processes(way, monkeypatch):
    if way not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {way}")
    predictor = serving.Predictor(OLD)
    expected = predictor(IMAGE).probabilities
    context = multiprocessing.get_context(way)
    queue = context.Queue()
    process = context.Process(target=ask, args=(predictor, queue))
    process.start()
    assert queue.get(timeout=120) == pytest.approx(expected)
    process.join(60)
    assert process.exitcode == 0


def test_a_predictor_is_pickled_with_its_settings(tmp_path, monkeypatch):
    predictor = serving.Predictor(OLD, temperature=2.0, threshold={"red": 0.3}, threads=1)
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickle.dumps(predictor))
    assert again(IMAGE) == predictor(IMAGE)
    assert (again.temperature, again.threshold, again.format) == (2.0, {"red": 0.3}, "litert")


def test_keras_says_that_it_does_not_survive_a_fork(monkeypatch):
    predictor = serving.Predictor(OLD, format="keras")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(RuntimeError, match=r"does not survive a fork.*spawn.*LiteRT"):
        predictor(IMAGE)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
def test_impossible_threads_are_refused(threads):
    with pytest.raises(ValueError, match="`threads` expects a number"):
        serving.Predictor(OLD, threads=threads)
    with pytest.raises(ValueError, match="TF_NUM_INTRAOP_THREADS"):
        serving.Predictor(OLD, format="keras", threads=2)


def test_keras_gadgets_do_not_run(folder, tmp_path):
    inputs = keras.Input((8, 8, 3))
    ran = tmp_path / "ran"
    code = eval(f"lambda x: (__import__('pathlib').Path({str(ran)!r}).touch(), x)[1]")
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Lambda(code)(inputs)))
    keras.Model(inputs, outputs).save(folder / "model.keras")
    about = json.loads((folder / "export.json").read_text())
    about["formats"]["keras"]["sha256"] = digest_of(folder / "model.keras")
    (folder / "export.json").write_text(json.dumps(about))
    ran.unlink(missing_ok=True)
    assert widgets.try_model(serving.Predictor(folder)).ask(IMAGE) is not None  # answers, without a heat map
    with pytest.raises(ValueError, match="a Lambda layer"):
        serving.Predictor(folder, format="keras")
    assert not ran.exists()

"""`cnnlab predict`, `validate` and `audit`: what they print, write and refuse."""

import contextlib
import csv
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import images, models, samples, serving, tables
from cnnlab.__main__ import main
from cnnlab._common import in_threads


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    table = tables.from_folder(samples.inspection(folder / "parts", per_class=3, size=32, seed=0))
    model = models.small_cnn(image_size=(32, 32), classes=table["label"].cat.categories, filters=(4,))
    serving.export(model, folder / "model", check=table, formats=("litert",))
    return folder


def first(export):
    return tables.from_folder(export / "parts")["path"].iloc[0]


def test_predict_answers_every_image_and_counts_the_broken(export, tmp_path, capsys):
    heap = tmp_path / "heap"
    shutil.copytree(export / "parts", heap)
    shutil.copy(first(export), heap / "=1+1.png")
    (heap / "broken.png").write_bytes(b"no image")
    assert main(["predict", str(export / "model"), str(heap), "--csv", str(tmp_path / "answers.csv")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"20 images in [\d.]+ s, 1 of them unreadable", said)
    assert "broken.png cannot be read: not an image" in said
    answers = tables.read(tmp_path / "answers.csv")
    expected = serving.Predictor(export / "model").table(tables.from_folder(export / "parts", labelled=False))
    found = answers.set_index(answers["path"].str.replace(str(heap), str(export / "parts")))
    pd.testing.assert_frame_equal(
        found.loc[expected["path"], expected.columns[1:]].reset_index(drop=True), expected[expected.columns[1:]]
    )
    assert answers["problem"].ne("").sum() == 1


@pytest.mark.slow
def test_predict_is_nearly_as_fast_as_decoding(export, tmp_path, capsys):
    """The command, CSV included, beside bringing every photograph of 2 megapixels to the network's size."""
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for place in range(20):
        coarse = random.integers(0, 256, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((1600, 1200)).save(tmp_path / "photos" / f"{place}.jpg", quality=90)
        for copy in range(9):
            (tmp_path / "photos" / f"{place}-{copy}.jpg").hardlink_to(tmp_path / "photos" / f"{place}.jpg")
    checked = tables.from_folder(export / "parts")
    model = models.small_cnn(image_size=(64, 64), classes=checked["label"].cat.categories)
    serving.export(model, tmp_path / "model", check=checked, formats=("litert",))
    prepared, ratios = models.preparation(model), []
    for name in ("1.csv", "2.csv", "3.csv"):
        began = time.perf_counter()
        in_threads(lambda path: images.prepare(path, prepared), sorted((tmp_path / "photos").iterdir()))
        alone = time.perf_counter() - began
        began = time.perf_counter()
        assert main(["predict", str(tmp_path / "model"), str(tmp_path / "photos"), "--csv", str(tmp_path / name)]) == 0
        ratios.append(alone / (time.perf_counter() - began))
    assert capsys.readouterr().out.count("200 images in") == 3
    assert max(ratios) > 0.55  # 0.7 and more on a machine that does nothing else


def test_predict_takes_one_image_and_leaves_files_alone(export, tmp_path, capsys):
    image = first(export)
    assert main(["predict", str(export / "model"), image]) == 0
    label = serving.Predictor(export / "model")(image).label
    assert re.search(rf"^{label} with \d", capsys.readouterr().out, re.MULTILINE)
    (tmp_path / "mine.csv").write_text("mine")
    assert main(["predict", str(export / "model"), image, "--csv", str(tmp_path / "mine.csv")]) == 1
    assert "stays as it is" in capsys.readouterr().err
    assert (tmp_path / "mine.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["predict", "nowhere", "."], "nowhere"),
        (["predict", "{export}/model", "nowhere"], "nothing at 'nowhere'"),
        (["validate", "{export}/model", "nowhere"], "nothing at 'nowhere'"),
        (["audit", "nowhere"], "nothing at 'nowhere'"),
    ],
)
def test_what_is_not_there_is_a_sentence(export, tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert main([word.format(export=export) for word in words]) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["predict", "{export}/model", "{export}/parts", "--csv", "answers.txt"], "ends in .csv after --csv"),
        (["predict", "{export}/model", "{export}/parts", "--csv", "file/answers.csv"], "can be written to 'file'"),
        pytest.param(
            ["predict", "{export}/model", "{export}/parts", "--csv", "/proc/1.csv"],
            "can be written to '/proc'",
            marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder where not even root writes"),
        ),
        (["audit", "{export}/parts", "--out", "file"], "can be written to 'file'"),
    ],
)
def test_where_nothing_can_be_written_is_said_before_the_work(export, tmp_path, monkeypatch, capsys, words, sentence):
    def refuse(*_, **__):
        raise AssertionError("worked for nothing")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serving.Predictor, "table", refuse)
    monkeypatch.setattr("cnnlab.audit.scan", refuse)
    Path("file").write_text("mine")
    assert main([word.format(export=export) for word in words]) == 1
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_validate_prints_the_scores_of_the_export(export, capsys):
    assert main(["validate", str(export / "model"), str(export / "parts")]) == 0
    said = capsys.readouterr().out
    scores = serving.validate(export / "model", tables.from_folder(export / "parts")).set_index("metric")
    found = re.search(r"^ *accuracy +([\d.]+) +([\d.]+) +([\d.]+)$", said, re.MULTILINE)
    np.testing.assert_allclose(
        [float(part) for part in found.groups()], scores.loc["accuracy", ["value", "low", "high"]], atol=5e-4
    )


def test_validate_takes_the_test_images_of_a_folder_with_splits(export, tmp_path, capsys):
    for split in ("train", "test"):
        shutil.copytree(export / "parts", tmp_path / split, ignore=shutil.ignore_patterns("metadata.csv"))
    assert main(["validate", str(export / "model"), str(tmp_path)]) == 0
    assert "scored on its 18 test images" in capsys.readouterr().out


def test_audit_leaves_a_table_and_a_page_that_runs_nothing(tmp_path, capsys):
    folder = samples.inspection(tmp_path / "parts", per_class=6, size=48, plant={"broken": 0.05, "copies": 0.1})
    name = "<script>alert(1)</script>.png".replace("/", "\N{FRACTION SLASH}")
    shutil.copy(next((tmp_path / "parts" / "good").glob("*.*")), tmp_path / "parts" / "good" / name)
    assert main(["audit", str(folder), "--out", str(tmp_path / "audit")]) == 0
    said = capsys.readouterr().out
    table = tables.read(tmp_path / "audit" / "audit.csv")
    assert f"{(table['problem'] != '').sum():8,}  Problems" in said
    page = (tmp_path / "audit" / "audit.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/jpeg") >= 4
    assert "http" not in page
    assert main(["audit", str(folder), "--out", str(tmp_path / "audit")]) == 1
    assert "stays as it is" in capsys.readouterr().err


RISKY = [
    "=1+1",
    "+1",
    "-1",
    "@x",
    "'=1",
    "''=1",
    "'x",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "＋1",
    "－1",
    "＠x",
    "plain",
    "",
    "=",
    "'",
]


def test_a_spreadsheet_runs_nothing_and_reading_gives_all_back(tmp_path):
    table = pd.DataFrame(
        {
            "path": RISKY,
            "label": pd.Categorical([f"{text}!" for text in RISKY]),
            "gaps": pd.Series([None, *RISKY[1:]], dtype="str"),
            "number": np.linspace(-1, 1, len(RISKY)),
            "flag": [True] * len(RISKY),
            "day": pd.Timestamp("2026-01-01"),
        }
    )
    before = table.copy()
    tables.save(table, tmp_path / "a.csv", spreadsheet=True)
    pd.testing.assert_frame_equal(table, before)
    pd.testing.assert_frame_equal(tables.read(tmp_path / "a.csv"), table)
    assert pd.read_csv(tmp_path / "a.csv")["number"].tolist() == pytest.approx(table["number"].tolist())
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row[:3]]
    assert [cell for cell in cells if re.match(r"[=+\-@\t\r\n＝＋－＠]", cell)] == []
    with pytest.raises(ValueError, match=r"names no spreadsheet runs"):
        tables.save(table.rename(columns={"gaps": "=gaps"}), tmp_path / "b.csv", spreadsheet=True)
    assert not (tmp_path / "b.csv").exists()


def test_the_demo_answers_as_the_predictor_does(export, tmp_path):
    from cnnlab import _commands

    class Gradio:
        class Error(Exception):
            pass

        Image = Label = SimpleNamespace

        @staticmethod
        def Interface(answer, upload, label, **options):
            assert options["analytics_enabled"] is False
            return lambda path: answer(upload.preprocess(path and SimpleNamespace(path=path)))

    answer = _commands.interface(str(export / "model"), Gradio)
    image = first(export)
    assert answer(image) == serving.Predictor(export / "model")(image).probabilities
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(Gradio.Error, match=r"^broken\.png cannot be read"):
        answer(str(tmp_path / "broken.png"))
    with pytest.raises(Gradio.Error, match="Choose an image"):
        answer(None)


def asked_over_http(address, name, content):
    """The status of an upload that is refused; else whether the page answers or objects, and what it says."""
    sent = httpx.post(f"{address}/gradio_api/upload", files={"files": (name, content)})
    if sent.status_code != 200:
        return sent.status_code, sent.text
    file = {"path": sent.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    event = httpx.post(f"{address}/gradio_api/call/answer", json={"data": [file]}).json()["event_id"]
    said = httpx.get(f"{address}/gradio_api/call/answer/{event}", timeout=60).text
    kind, data = re.search(r"event: (complete|error)\ndata: (.*)", said).groups()
    return kind, json.loads(data)


def test_the_page_of_the_demo_answers_over_loopback(export, tmp_path):
    pytest.importorskip("gradio", reason="install the extra `demo` to run this test")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "cnnlab", "demo", str(export / "model"), "--port", str(port)]
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while server.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(httpx.HTTPError):
                    config = httpx.get(f"{address}/config", timeout=5).json()
                    break
                time.sleep(0.2)
            assert config["analytics_enabled"] is False
            clear = np.zeros((48, 48, 4), np.uint8)  # transparent: white for a network of cnnlab, black for gradio
            Image.fromarray(clear).save(tmp_path / "clear.png")
            for image in (Path(first(export)), tmp_path / "clear.png"):
                kind, (answer,) = asked_over_http(address, image.name, image.read_bytes())
                found = {one["label"]: one["confidence"] for one in answer["confidences"]}
                expected = serving.Predictor(export / "model")(image).probabilities
                assert kind == "complete"
                assert found == pytest.approx({name: expected[name] for name in found})
                assert len(found) == 5
            kind, said = asked_over_http(address, "text.txt", b"hello")
            assert kind == "error"
            assert "text.txt cannot be read: not an image" in str(said)
            assert asked_over_http(address, "big.jpg", bytes(100_000_000))[0] == 413
        finally:
            server.terminate()

import json
import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from cnnlab import experiments, models, serving


@pytest.fixture(scope="module")
def exported(digits_model, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "digits"
    return folder, serving.export(digits_model, folder, check=digits[digits["split"] == "val"])


def test_an_export_says_what_it_is(exported):
    folder, table = exported
    assert table["format"].tolist() == ["keras", "litert"]
    assert (table["agreement"] == 1).all()
    assert (table["largest_difference"] < 1e-4).all()
    assert table["megabytes"].tolist() == pytest.approx([(folder / f).stat().st_size / 1e6 for f in table["file"]])
    assert (table["p95_ms"] >= table["p50_ms"]).all()
    assert (table["p50_ms"] > 0).all()
    assert json.loads((folder / "export.json").read_text())["classes"] == list("0123456789")
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("format", ["keras", "litert", None])
def test_a_predictor_gives_the_models_answers(exported, digits_model, digits, format):
    table = digits[digits["split"] == "test"].head(40)
    expected = experiments.predict(digits_model, table)
    predictor = serving.Predictor(exported[0], format=format)
    answers = predictor(table["path"].tolist())
    assert [answer.label for answer in answers] == expected["predicted"].tolist()
    np.testing.assert_allclose([answer.confidence for answer in answers], expected["confidence"], atol=1e-4)
    assert sum(answers[0].probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_path_bytes_and_arrays_are_one_image(exported, digits):
    predictor = serving.Predictor(exported[0])
    path = digits["path"].iloc[0]
    grey = np.asarray(Image.open(path))
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    answers = [predictor(one) for one in (path, Path(path), Path(path).read_bytes(), grey, rgb, rgb.astype(float))]
    answers += predictor(np.stack([rgb, rgb])) + predictor([path, rgb])
    assert len({answer.label for answer in answers}) == 1
    assert max(answer.confidence for answer in answers) - min(answer.confidence for answer in answers) < 1e-6
    assert predictor([]) == []


def test_threads_share_a_predictor(exported, digits):
    predictor = serving.Predictor(exported[0])
    paths = digits["path"].head(60).tolist()
    expected = [predictor(path) for path in paths]
    found = {}

    def work(start):
        for index in range(start, 60, 4):
            found[index] = predictor(paths[index] if index % 3 else [paths[index], paths[0]])

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, answer in found.items():
        assert (answer if index % 3 else answer[0]).label == expected[index].label


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (12, TypeError, "Received: int"),
        (np.zeros((8, 8, 4)), ValueError, r"\(8, 8, 4\)"),
        (np.zeros((8, 8, 3)) - 1, ValueError, "from -1.0"),
        (np.full((8, 8, 3), 300), ValueError, "to 300"),
        (np.full((8, 8, 3), np.nan), ValueError, "0-255"),
        (np.full((8, 8, 3), 0.5), ValueError, "multiply by 255"),
        (b"no image", ValueError, "no image"),
    ],
)
def test_what_is_no_image_is_refused(exported, image, error, words):
    with pytest.raises(error, match=words):
        serving.Predictor(exported[0])(image)


def test_a_damaged_export_is_explained(exported, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"serving\.export"):
        serving.Predictor(folder)
    about = json.loads((exported[0] / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(about))
    with pytest.raises(FileNotFoundError, match="it is gone"):
        serving.Predictor(folder)
    for name in ("model.tflite", "model.keras"):
        (folder / name).write_bytes((exported[0] / name).read_bytes()[:1000])
    for format in ("litert", "keras"):
        with pytest.raises(ValueError, match="could not be loaded"):
            serving.Predictor(folder, format=format)
    (folder / "export.json").write_text(json.dumps(about | {"version": 99}))
    with pytest.raises(ValueError, match="another version"):
        serving.Predictor(folder)
    (folder / "export.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        serving.Predictor(folder)
    with pytest.raises(ValueError, match="one of those exported"):
        serving.Predictor(exported[0], format="onnx")


def test_a_file_that_disagrees_is_not_kept(digits_model, digits, tmp_path, monkeypatch):
    from cnnlab.serving import exporting

    other = models.small_cnn(image_size=(8, 8), classes=list("0123456789"), filters=(4,))
    monkeypatch.setitem(exporting.WRITERS, "keras", lambda model, path: other.save(path))
    with pytest.raises(ValueError, match="It was not kept"):
        serving.export(digits_model, tmp_path / "export", formats=["keras"], check=digits.head(100))
    assert not list((tmp_path / "export").iterdir())


def test_impossible_exports_are_refused(digits_model, digits, tmp_path):
    with pytest.raises(ValueError, match=r"\['coreml'\]"):
        serving.export(digits_model, tmp_path, formats=["coreml"], check=digits)
    with pytest.raises(ValueError, match="carries none"):
        serving.export(keras.Sequential([keras.Input((2,))]), tmp_path, check=digits)
    gone = digits.head(3).assign(path=["x.png", "y.png", "z.png"])
    with pytest.raises(ValueError, match="None of 3 could be read"):
        serving.export(digits_model, tmp_path, check=gone)


def test_a_grey_model_takes_colour(digits, tmp_path):
    model = models.small_cnn(image_size=(8, 8), classes=list("0123456789"), channels=1, filters=(4,))
    serving.export(model, tmp_path / "grey", formats=["litert"], check=digits.head(20))
    grey = np.asarray(Image.open(digits["path"].iloc[0]))
    expected = model.predict(grey[None, :, :, None].astype("float32"), verbose=0)[0].max()
    assert serving.Predictor(tmp_path / "grey")(digits["path"].iloc[0]).confidence == pytest.approx(expected, abs=1e-5)

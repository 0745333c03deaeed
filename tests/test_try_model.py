"""The panel for one image at a time: it answers as the model does, and says so in words where it cannot."""

import base64
import datetime
import io

import keras
import numpy as np
import pytest
from PIL import Image

from cnnlab import experiments, models, serving, widgets

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def exported(digits_model, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "digits"
    serving.export(digits_model, folder, check=digits[digits["split"] == "val"])
    return folder


def test_it_answers_as_the_model_does(digits_model, digits, exported):
    test = digits[digits["split"] == "test"].head(6)
    expected = experiments.predict(digits_model, test)
    for model in (digits_model, serving.Predictor(exported, temperature=1)):
        panel = widgets.try_model(model, test)
        for path, label, confidence in zip(test["path"], expected["predicted"], expected["confidence"], strict=True):
            answer = panel.ask(path)
            assert answer.label == label
            assert answer.confidence == pytest.approx(confidence, abs=1e-4)
            assert label in panel._words.value
            assert Image.open(io.BytesIO(panel._picture.value)).size[0] > 400


def test_uploading_and_picking_ask(digits_model, digits):
    panel = widgets.try_model(digits_model, digits.head(4))
    upload, pick = panel.children[0].children
    before = panel._picture.value
    pick.value = panel.paths[3]
    assert panel._picture.value != before
    with open(panel.paths[3], "rb") as file:  # noqa: PTH123
        data = file.read()
    words = panel._words.value
    upload.value = (
        {"name": "<b>x", "type": "image/png", "size": len(data), "last_modified": NOW, "content": memoryview(data)},
    )
    assert panel._words.value == words
    upload.value = ({"name": "x", "type": "image/png", "size": 3, "last_modified": NOW, "content": memoryview(b"<b>")},)
    assert "No answer" in panel._words.value
    assert panel._picture.value == b""


def test_a_picture_stands_in_where_widgets_do_not_run(digits_model, digits, exported, monkeypatch):
    bundle = widgets.try_model(digits_model, digits)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" not in bundle
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).format == "PNG"
    monkeypatch.setattr("cnnlab.widgets.exploring.is_quiet", lambda: False)
    assert "application/vnd.jupyter.widget-view+json" in widgets.try_model(digits_model, digits)._repr_mimebundle_()
    assert "image/png" not in widgets.try_model(digits_model)._repr_mimebundle_()


def test_it_does_without_grad_cam(digits, tmp_path):
    check = digits[digits["split"] == "val"].head(20)
    names = digits["label"].cat.categories
    inputs = keras.Input((8, 8, 3))
    scores = keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(inputs))
    plain = models.with_classes(keras.Model(inputs, scores), names)
    assert widgets.try_model(plain).ask(check["path"].iloc[0]) is not None
    serving.export(plain, tmp_path, formats=["litert"], check=check)
    assert widgets.try_model(serving.Predictor(tmp_path), check).ask(np.zeros((9, 9, 3), np.uint8)) is not None


def test_impossible_arguments_are_refused(digits_model, digits, tmp_path):
    with pytest.raises(TypeError, match="Received: str"):
        widgets.try_model("model.keras")
    with pytest.raises(ValueError, match="at least one image"):
        widgets.try_model(digits_model, tmp_path)
    with pytest.raises(ValueError, match="carries none"):
        widgets.try_model(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]))

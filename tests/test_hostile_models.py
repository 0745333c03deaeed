"""Model files of strangers: what they say of themselves is checked before anything is made of it."""

import json
import zipfile

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import experiments, models, pipelines
from cnnlab.models.metadata import TAG


def saying(values, tmp_path, size=8):
    """A model file whose layer for metadata says something, as plain Keras loads it."""
    inputs = keras.Input((size, size, 3))
    scores = keras.layers.Dense(2, activation="softmax")(keras.layers.GlobalAveragePooling2D()(inputs))
    path = tmp_path / "stranger.keras"
    keras.Model(inputs, keras.layers.Dropout(0.0, seed=["a", "b"], name=TAG)(scores)).save(path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    before = b'"seed": ["a", "b"]'
    assert before in files["config.json"]
    files["config.json"] = files["config.json"].replace(before, b'"seed": ' + json.dumps(values).encode())
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return keras.saving.load_model(path, safe_mode=True)


@pytest.mark.parametrize(
    "values",
    [
        7, "ab", [1, 2], {}, {"classes": "ab"}, {"classes": [["a"], ["b"]]}, {"classes": None},
        {"classes": ["a", "b"], "resize": "../../x"}, {"classes": ["a", "b"], "resize": ["fit"]},
        {"classes": ["a", "b"], "levels": [0]}, {"classes": ["a", "b"], "levels": [5, 1]},
        {"classes": ["a", "b"], "levels": [0, float("inf")]}, {"classes": ["a", "b"], "levels": "0-1"},
        {"classes": ["a", "b"], "image_size": [-1, 4]}, {"classes": ["a", "b"], "image_size": "large"},
        {"classes": ["a", "b"], "channels": 7}, {"classes": ["a", "b"], "rates": {"x": "half"}},
        {"classes": ["a", "b"], "rates": {"x": float("nan")}}, {"classes": ["a", "b"], "rates": [1]},
    ],
)  # fmt: skip
def test_damaged_metadata_are_a_sentence(values, tmp_path):
    try:
        model = saying(values, tmp_path)
    except (TypeError, ValueError):
        return  # Keras itself refused the file
    for ask in (models.class_names, models.preparation, models.require_supported):
        with pytest.raises(ValueError, match="carries damaged metadata"):
            ask(model)


def test_unknown_entries_change_nothing(tmp_path):
    model = saying({"classes": ["a", "b"], "path": "/etc/passwd", "resize": "pad"}, tmp_path)
    assert models.class_names(model) == ["a", "b"]
    assert models.preparation(model).resize == "pad"


def test_a_size_that_fills_the_memory_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    table = pd.DataFrame({"path": [str(tmp_path / "0.png")] * 2, "label": pd.Categorical(["a", "b"])})
    model = saying(["a", "b"], tmp_path, size=10**6)
    for use in (lambda: pipelines.load(table, like=model), lambda: experiments.predict(model, table)):
        with pytest.raises(ValueError, match="1,000,000×1,000,000 pixels, more than can be prepared"):
            use()


def test_names_are_text_whatever_they_hold(tmp_path):
    names = ["../../x", "=cmd()", "<script>", "\r\n"]
    model = models.small_cnn(image_size=(8, 8), classes=names, filters=(4,))
    model.save(tmp_path / "model.keras")
    assert models.class_names(keras.saving.load_model(tmp_path / "model.keras")) == names


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("outputs", [2, 5])
def test_names_of_a_network_are_not_those_of_one_that_learns_from_it(nested, outputs, tmp_path):
    first = models.small_cnn(image_size=(8, 8), classes=["a", "b"], filters=(4,), resize="pad")
    new = keras.layers.Dense(outputs, activation="softmax")
    model = keras.Sequential([first, new]) if nested else keras.Model(first.input, new(first.output))
    with pytest.raises(ValueError, match=r"Name them with `model = models\.with_classes"):
        models.class_names(model)
    assert models.preparation(model).resize == ("fit" if nested else "pad")  # which still holds, where it is found
    names = [f"new {number}" for number in range(outputs)]
    with pytest.warns(UserWarning, match=f"resize='{'fit' if nested else 'pad'}'"):
        assert models.ensure_classes(keras.models.clone_model(model), names, caller="it") == names
    for _ in range(2):
        model = models.with_classes(model, names)
        assert models.class_names(model) == names
    model.save(tmp_path / "model.keras")
    assert models.class_names(keras.saving.load_model(tmp_path / "model.keras")) == names
    calmer = keras.Model(first.input, keras.layers.Softmax()(first.output))
    assert models.class_names(calmer) == ["a", "b"]


def test_a_tag_of_another_kind_of_layer_is_not_asked():
    """A layer with our name that is something else says nothing."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten(name=TAG)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    with pytest.raises(ValueError, match=r"Name them with `model = models\.with_classes"):
        models.class_names(model)
    assert np.shape(model(np.zeros((1, 8, 8, 3)))) == (1, 2)

"""What an export answers with: its preparation, its threshold, its temperature, and exports of version 0.1.0."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import experiments, images, metrics, models, pipelines, serving, training

OLD = Path(__file__).parent / "exports_0_1_0"


@pytest.fixture(scope="module")
def exported(digits_model, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "digits"
    serving.export(digits_model, folder, check=digits[digits["split"] == "val"])
    return folder


@pytest.mark.parametrize("kind", ["colour", "grey"])
def test_exports_of_version_0_1_0_answer_as_they_did(kind):
    expected = [serving.Prediction(*one) for one in json.loads((OLD / "answers.json").read_text())[kind]]
    predictor = serving.Predictor(OLD / kind)
    found = predictor(np.load(OLD / "images.npz")["images"])
    assert [one.label for one in found] == [one.label for one in expected]
    assert [one.unknown for one in found] == [one.unknown for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert one.distance == pytest.approx(other.distance, abs=1e-4)
    if kind == "grey":  # the mean of the colours, where exports of today take their brightness
        picture = np.load(OLD / "images.npz")["images"][0]
        mean = images.resize(picture, (8, 8)).mean(axis=-1, keepdims=True)
        np.testing.assert_allclose(predictor.prepare(picture), mean, rtol=1e-6)
        assert predictor.channels == 1


def test_a_card_of_version_0_1_0_is_written_anew(tmp_path):
    folder = Path(shutil.copytree(OLD / "grey", tmp_path / "grey"))
    before = serving.Predictor(folder)(np.load(OLD / "images.npz")["images"])
    card = (folder / "README.md").read_bytes()
    label = pd.Categorical(["blue", "red"], categories=["blue", "green", "red"])
    serving.card(folder, pd.DataFrame({"label": label, "predicted": label}), about={"purpose": "Sorts beads."})
    assert "Sorts beads." in (folder / "README.md").read_text()
    assert [path.read_bytes() for path in folder.glob("earlier/*/README.md")] == [card]
    assert serving.Predictor(folder)(np.load(OLD / "images.npz")["images"]) == before


LOAD = """
import sys; sys.modules["cnnlab"] = None
import keras, numpy as np
for folder in sys.argv[1:]:
    model = keras.models.load_model(folder + "/export/model.keras")
    assert getattr(model, "optimizer", None) is None
    np.save(folder + "/loaded.npy", model(np.full((1, 16, 16, 3), 99.0)))
"""


def test_plain_keras_loads_the_exported_model_without_cnnlab(parts, tmp_path):
    names, models_here = parts["label"].cat.categories, {}
    for kind in ("label_smoothing", "logit_adjusted"):
        folder = tmp_path / kind
        model = models_here[folder] = models.small_cnn(image_size=(16, 16), classes=names, filters=(32, 48))
        if kind == "label_smoothing":
            training.compile(model, learning_rate=0.01, label_smoothing=0.1, steps_per_execution=1, run_eagerly=True)
        else:
            loss = models.LogitAdjusted(parts["label"].value_counts(sort=False).to_numpy())
            model.compile("adam", loss, run_eagerly=True)
        model.fit(pipelines.load(parts, like=model, training=True, seed=0), epochs=1, verbose=0)
        serving.export(model, folder / "export", formats=["keras"], check=parts)
        model.save(folder / "whole.keras")
        exported = folder / "export" / "model.keras"
        assert exported.stat().st_size < 0.7 * (folder / "whole.keras").stat().st_size
        assert models.class_names(keras.models.load_model(exported)) == list(names)
    done = subprocess.run([sys.executable, "-c", LOAD, *models_here], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for folder, model in models_here.items():
        expected = model(np.full((1, 16, 16, 3), 99.0), training=False)
        assert np.abs(np.load(folder / "loaded.npy") - expected).max() < 1e-5


def test_a_persons_own_files_are_kept_and_words_stay(digits_model, digits, tmp_path):
    check = digits[digits["split"] == "val"].head(60)
    (tmp_path / "README.md").write_text("my notes")
    (tmp_path / "model.keras").write_bytes(b"my checkpoint")
    (tmp_path / "novel.txt").write_text("mine")
    serving.export(digits_model, tmp_path, check=check)
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("earlier/*/*")}
    assert kept == {"README.md": b"my notes", "model.keras": b"my checkpoint"}
    serving.card(tmp_path, experiments.predict(digits_model, check), about={"purpose": "Reads | digits"})
    serving.export(digits_model, tmp_path, check=check)  # ours are replaced, and nothing more is put aside
    assert {path.name: path.read_bytes() for path in tmp_path.glob("earlier/*/*")} == kept
    assert r"Reads \| digits" in (tmp_path / "README.md").read_text()
    serving.card(tmp_path, experiments.predict(digits_model, check), about={"licence": "MIT"})
    text = (tmp_path / "README.md").read_text()
    assert r"Reads \| digits" in text
    assert "MIT" in text
    (tmp_path / "README.md").write_text("changed by hand")
    serving.export(digits_model, tmp_path, check=check)
    assert sorted(path.read_bytes() for path in tmp_path.glob("earlier/*/README.md")) == [
        b"changed by hand",
        b"my notes",
    ]
    assert (tmp_path / "novel.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def unsure(parts):
    """A network that has learned little, so that thresholds and temperatures matter."""
    model = models.small_cnn(image_size=(16, 16), classes=parts["label"].cat.categories, filters=(8,))
    training.compile(model, learning_rate=0.01)
    model.fit(pipelines.load(parts[parts["split"] == "train"], like=model, training=True, seed=0), epochs=4, verbose=0)
    return model


@pytest.mark.parametrize("given", [None, {2: 0.3}, {"2": 0.3}, {2: {"recall": 0.9}}, {"2": {"recall": 0.9}}])
def test_classes_that_are_numbers_are_exported_by_their_names(parts, tmp_path, given):
    classes = [10, 2, 3, 4, 5, 6]
    model = models.small_cnn(image_size=(16, 16), classes=classes, filters=(4,))
    check = parts.assign(label=parts["label"].cat.rename_categories(classes)).head(60)
    serving.export(model, tmp_path, formats=["keras"], check=check, threshold=given)
    predictor = serving.Predictor(tmp_path)
    assert predictor.classes == [str(name) for name in classes]
    assert list(predictor.threshold) == ([] if given is None else ["2"])
    assert (predictor.temperature == 1) == (given is not None and 0.3 in given.values())
    assert serving.Predictor(tmp_path, threshold={2: 0.3}).threshold == {"2": 0.3}
    assert serving.validate(tmp_path, check, bootstrap=100)["metric"].iloc[0] == "accuracy"
    serving.card(tmp_path, experiments.predict(model, check), about={"purpose": "Grades parts."})
    with pytest.raises(ValueError, match="`threshold` expects one class"):
        serving.Predictor(tmp_path, threshold={1: 0.3})


@pytest.mark.parametrize("format", [pytest.param("keras", marks=pytest.mark.slow), "litert"])
def test_a_threshold_chosen_on_validation_is_answered_with(unsure, parts, tmp_path, format):
    val, test = (parts[parts["split"] == name] for name in ("val", "test"))
    predictions = experiments.predict(unsure, val)
    least = metrics.choose_threshold(predictions, "scratch", recall=0.9)
    serving.export(unsure, tmp_path, formats=[format], check=val, threshold={"scratch": least})
    predictor = serving.Predictor(tmp_path)
    assert predictor.threshold == {"scratch": least}
    for part in (val, test):
        expected = metrics.apply_threshold(experiments.predict(unsure, part), "scratch", least)
        found = predictor.table(part)
        assert found["predicted"].tolist() == expected["predicted"].tolist()
        np.testing.assert_allclose(found["confidence"], expected["confidence"], atol=1e-5)
        answers = predictor(part["path"])
        assert [one.label for one in answers] == expected["predicted"].tolist()
        assert [one.confidence for one in answers] == pytest.approx(found["confidence"].tolist())
        assert [one.label for one in serving.stream(part, predictor)] == expected["predicted"].tolist()
    plain = serving.Predictor(tmp_path, threshold={})
    assert [one.label for one in plain(val["path"])] == predictions["predicted"].tolist()
    assert "It is called scratch from a probability of" in (tmp_path / "README.md").read_text()


def test_a_purpose_is_met_among_the_probabilities_that_are_answered(unsure, parts, tmp_path):
    val = parts[parts["split"] != "test"]
    serving.export(unsure, tmp_path, formats=["litert"], check=val, threshold={"scratch": {"recall": 0.9}})
    predictor = serving.Predictor(tmp_path)
    assert predictor.temperature != 1
    answered = predictor.table(val)
    calibrated = metrics.calibrate(experiments.predict(unsure, val), on=predictor.temperature)
    least = metrics.choose_threshold(calibrated, "scratch", recall=0.9)
    assert predictor.threshold == pytest.approx({"scratch": least})
    scratches = answered["label"] == "scratch"
    assert (answered.loc[scratches, "predicted"] == "scratch").mean() >= 0.9
    with pytest.raises(ValueError, match=r"chosen with the temperature .* Received: temperature=1"):
        serving.Predictor(tmp_path, temperature=1)
    assert serving.Predictor(tmp_path, temperature=1, threshold={}).threshold == {}


def test_smoothed_frames_are_called_by_the_threshold(unsure, parts, tmp_path):
    val = parts[parts["split"] == "val"]
    serving.export(unsure, tmp_path, formats=["litert"], check=val, threshold={"scratch": 0.2})
    predictor = serving.Predictor(tmp_path)
    raw = predictor.table(val)[[f"p_{name}" for name in predictor.classes]].to_numpy()
    place = predictor.classes.index("scratch")
    serving.export(unsure, tmp_path / "plain", formats=["litert"], check=val)
    for source in (predictor, serving.Predictor(tmp_path / "plain", temperature=1, threshold={"scratch": 0.2})):
        for number, frame in enumerate(serving.stream(val, source, smoothing=3)):
            mean = raw[max(0, number - 2) : number + 1].mean(axis=0)
            others = np.where(np.arange(len(mean)) == place, -1, mean)
            assert frame.label == predictor.classes[place if mean[place] >= 0.2 else others.argmax()]


def test_never_is_a_threshold_too(unsure, parts, tmp_path):
    serving.export(unsure, tmp_path, formats=["litert"], check=parts, threshold={"scratch": float("inf")})
    assert json.loads((tmp_path / "export.json").read_text())["threshold"] == {"scratch": None}
    assert "scratch" not in {one.label for one in serving.Predictor(tmp_path)(parts["path"])}


@pytest.mark.parametrize(
    "threshold",
    [
        0.3,
        {"x": 0.3},
        {"scratch": -1},
        {"scratch": 30},
        {"scratch": float("nan")},
        {"scratch": "high"},
        {"scratch": 0.1, "pit": 0.2},
    ],
)
def test_an_impossible_threshold_is_refused(unsure, parts, tmp_path, threshold):
    with pytest.raises(ValueError, match="expects one class and its probability"):
        serving.export(unsure, tmp_path / "export", formats=["litert"], check=parts, threshold=threshold)
    assert not (tmp_path / "export").exists()


def test_the_preparation_is_the_models(parts, tmp_path):
    model = models.small_cnn(
        image_size=(12, 20), classes=parts["label"].cat.categories, filters=(4,), channels=1, resize="pad"
    )
    serving.export(model, tmp_path, formats=["litert"], check=parts, agreement=0)
    predictor = serving.Predictor(tmp_path)
    assert predictor.preparation == models.preparation(model) == images.Preparation((12, 20), 1, "pad")
    path = parts["path"].iloc[0]
    expected = next(pipelines.load(parts.head(1), like=model).as_numpy_iterator())[0][0]
    for source in (path, Path(path).read_bytes(), Image.open(path)):
        np.testing.assert_array_equal(predictor.prepare(source), expected)


def test_a_pillow_image_is_its_own_file(exported, tmp_path):
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[4:6, 4:6] = (200, 200, 200, 255)
    Image.fromarray(rgba).save(tmp_path / "logo.png")
    Image.fromarray(np.full((16, 16), 9000, np.uint16)).save(tmp_path / "deep.png")
    Image.new("RGB", (16, 16), (200, 60, 20)).convert("CMYK").save(tmp_path / "ink.jpg")
    predictor = serving.Predictor(exported)
    for name in ("logo.png", "deep.png", "ink.jpg"):
        with Image.open(tmp_path / name) as picture:
            np.testing.assert_array_equal(predictor.prepare(tmp_path / name), predictor.prepare(picture), err_msg=name)


def own_network(kind):
    """A network of one's own: a sequence, one sigmoid, any size, or Python code."""
    inputs = keras.Input((None, None, 3) if kind == "open" else (12, 12, 3))
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(3, 3), keras.layers.GlobalAveragePooling2D()]
    last = keras.layers.Dense(1, activation="sigmoid") if kind == "sigmoid" else keras.layers.Dense(2, "softmax")
    if kind == "sequential":
        return keras.Sequential([inputs, *layers, last])
    if kind == "code":

        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.inside = [*layers, last]

            def call(self, x):
                for layer in self.inside:
                    x = layer(x)
                return x

        model = Own()
        model(np.zeros((1, 12, 12, 3), np.float32))
        return model
    x = inputs
    for layer in [*layers, last]:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("kind", ["sequential", "sigmoid", "open", "code"])
def test_networks_of_ones_own_are_exported(parts, tmp_path, kind):
    table = parts.assign(label=(parts["label"] == "good").map({True: "yes", False: "no"}).astype("category"))
    model = models.with_classes(
        own_network(kind), ["no", "yes"], **({"image_size": (12, 12)} if kind == "open" else {})
    )
    formats = ["litert"] if kind == "code" else ["keras", "litert"]
    found = serving.export(model, tmp_path, formats=formats, check=table)
    assert (found["agreement"] == 1).all()
    expected = experiments.predict(model, table.head(6))
    for format in formats:
        answers = serving.Predictor(tmp_path, format=format, temperature=1)(table["path"].head(6))
        np.testing.assert_allclose([one.probabilities["yes"] for one in answers], expected["p_yes"], atol=1e-4)
    if kind == "code":
        with pytest.raises(ValueError, match="without the Python code of Own"):
            serving.export(model, tmp_path, check=table)


def test_a_network_without_probabilities_is_refused(parts, tmp_path):
    names = list(parts["label"].cat.categories)
    inputs = keras.Input((12, 12, 3))
    scores = keras.layers.Lambda(lambda x: x * 1.0)(keras.layers.Dense(len(names))(keras.layers.Flatten()(inputs)))
    model = models.with_classes(keras.Model(inputs, scores), names)
    with pytest.raises(ValueError, match="one probability per class"):
        serving.export(model, tmp_path, check=parts)
    assert not list(tmp_path.iterdir())


def test_validate_scores_what_is_answered(exported, digits_model, digits):
    test = digits[digits["split"] == "test"]
    calibrated = metrics.calibrate(experiments.predict(digits_model, test), on=serving.Predictor(exported).temperature)
    expected = metrics.scores(calibrated, bootstrap=200, seed=3)
    for export in (exported, serving.Predictor(exported)):
        found = serving.validate(export, test, bootstrap=200, seed=3)
        pd.testing.assert_frame_equal(found, expected, atol=1e-4)
    strange = test.assign(label=test["label"].cat.rename_categories({"0": "zero"}))
    with pytest.raises(ValueError, match=r"expects the export's classes.*Received also: zero"):
        serving.validate(exported, strange)
    with pytest.raises(KeyError, match=r"serving\.validate"):
        serving.validate(exported, test.drop(columns="label"))


def test_labels_that_are_numbers_are_scored_too(exported, digits):
    test = digits[digits["split"] == "test"]
    numbers = test.assign(label=test["label"].cat.rename_categories(int))
    pd.testing.assert_frame_equal(
        serving.validate(exported, numbers, bootstrap=0), serving.validate(exported, test, bootstrap=0)
    )


def test_training_images_prepared_otherwise_are_named(parts, tmp_path):
    names = [f"other {name}" for name in parts["label"].cat.categories]
    table = parts.assign(label=parts["label"].cat.rename_categories(names))
    model = models.small_cnn(image_size=(10, 10), classes=names, filters=(4,))
    pipelines.load(table, image_size=(10, 10), resize="pad", training=True, seed=0)
    with pytest.warns(UserWarning, match="prepared otherwise"):
        serving.export(model, tmp_path, formats=["litert"], check=table, agreement=0)
    serving.export(model, tmp_path, formats=["litert"], check=table, agreement=0, resize="pad")
    assert serving.Predictor(tmp_path).resize == "pad"

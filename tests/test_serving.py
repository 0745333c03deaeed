import io
import json
import re
import shutil
import threading
import warnings
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.linear_model import LogisticRegression

from cnnlab import experiments, metrics, models, pipelines, serving, tables
from cnnlab.serving.description import FILE_OF
from cnnlab.serving.engines import ENGINES, digest_of
from cnnlab.serving.predictor import FASTEST_FIRST
from cnnlab.serving.writers import WRITERS

FORMATS = ("keras", "savedmodel", "litert", "litert_float16", "litert_int8")  # that need no package of their own


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
    assert not [path for path in folder.iterdir() if path.name.startswith(".making")]


@pytest.mark.parametrize("format", ["keras", "litert", None])
def test_a_predictor_gives_the_models_answers(exported, digits_model, digits, format):
    table = digits[digits["split"] == "test"].head(40)
    raw = experiments.predict(digits_model, table)
    honest = metrics.calibrate(raw, on=experiments.predict(digits_model, digits[digits["split"] == "val"]))
    for temperature, expected in ((None, honest), (1, raw)):
        predictor = serving.Predictor(exported[0], format=format, temperature=temperature)
        answers = predictor(table["path"].tolist())
        assert [answer.label for answer in answers] == expected["predicted"].tolist()
        np.testing.assert_allclose([answer.confidence for answer in answers], expected["confidence"], atol=1e-4)
        assert sum(answers[0].probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert predictor.temperature == 1


def test_the_temperature_is_learned_on_the_rows_checked(exported, digits_model, digits):
    val = experiments.predict(digits_model, digits[digits["split"] == "val"])
    assert serving.Predictor(exported[0]).temperature == pytest.approx(metrics.temperature(val), rel=1e-3)


def test_path_bytes_and_arrays_are_one_image(exported, digits):
    predictor = serving.Predictor(exported[0])
    path = digits["path"].iloc[0]
    grey = np.asarray(Image.open(path))
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    answers = [predictor(one) for one in (path, Path(path), Path(path).read_bytes(), grey, rgb, rgb.astype(float))]
    answers += [
        predictor(one)
        for one in (Image.open(path), Image.fromarray(rgb), tf.constant(rgb), bytearray(Path(path).read_bytes()))
    ]
    with Path(path).open("rb") as file:
        answers += [predictor(file), predictor(io.BytesIO(Path(path).read_bytes()))]
    answers += predictor(np.stack([rgb, rgb])) + predictor([path, rgb])
    assert len({answer.label for answer in answers}) == 1
    assert max(answer.confidence for answer in answers) - min(answer.confidence for answer in answers) < 1e-6
    assert predictor([]) == []


def test_several_images_come_as_people_have_them(exported, digits):
    predictor = serving.Predictor(exported[0])
    paths = digits["path"].head(5)
    pixels = np.stack([np.repeat(np.asarray(Image.open(path))[:, :, None], 3, axis=2) for path in paths])
    expected = [predictor(path) for path in paths]
    several = [
        paths.tolist(),
        tuple(paths),
        paths,
        paths.to_numpy(),
        np.array(paths.tolist()),
        pd.Index(paths),
        paths.map(Path),
        iter(paths),
        (Path(path) for path in paths),
        map(Image.open, paths),
        pixels,
        tf.constant(pixels),
        tf.constant(pixels, tf.float32),
        list(pixels),
        paths.to_dict().values(),
    ]
    for one in several:
        found = predictor(one)
        assert [answer.label for answer in found] == [answer.label for answer in expected], type(one)
        assert [a.confidence for a in found] == pytest.approx([a.confidence for a in expected], abs=1e-6)
    for one in (digits, {"a": paths[0]}, set(paths)):
        with pytest.raises(TypeError, match=r"predictor\.table"):
            predictor(one)
    assert predictor(np.zeros((0, 8, 8, 3), np.uint8)) == []


def test_a_list_with_broken_files_gives_the_other_answers(exported, digits, tmp_path):
    predictor = serving.Predictor(exported[0])
    paths = digits["path"].head(40).tolist()
    expected = predictor(paths)
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(50))
    mixed = [*paths[:7], str(tmp_path / "cut.jpg"), *paths[7:35], "gone.png", None, np.zeros(4), *paths[35:]]
    with pytest.warns(UserWarning, match=r"4 of 44 images could not be read .*number 7: .*cut\.jpg.*and 1 more"):
        found = predictor(mixed)
    broken = [place for place, one in enumerate(found) if one.problem]
    assert broken == [7, 36, 37, 38]
    assert [one for one in found if not one.problem] == expected
    assert (found[7].label, found[7].unknown) == ("", None)
    assert np.isnan(found[7].confidence)
    assert np.isnan(list(found[7].probabilities.values())).all()
    assert "cut.jpg" in found[7].problem
    with pytest.warns(UserWarning, match="1 of 1"):
        assert predictor(["gone.png"])[0].problem
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        predictor("gone.png")


def test_a_table_is_answered_with_or_without_labels(exported, digits_model, digits, tmp_path):
    predictor = serving.Predictor(exported[0], temperature=1)
    table = digits[digits["split"] == "test"].head(35).set_index(pd.Index([3] * 35))
    expected = experiments.predict(digits_model, table)
    found = predictor.table(table)
    assert found.columns.tolist() == [*expected.columns, "problem"]
    assert found.index.tolist() == [3] * 35
    assert found["predicted"].dtype == expected["predicted"].dtype
    assert found["predicted"].tolist() == expected["predicted"].tolist()
    np.testing.assert_allclose(found.filter(like="p_"), expected.filter(like="p_"), atol=1e-4)
    new = table[["path"]].assign(problem="note of mine", site="NA").reset_index(drop=True)
    new.loc[4, "path"] = str(tmp_path / "gone.png")
    with pytest.warns(UserWarning, match=r"1 of 35 images .*gone\.png"):
        answered = predictor.table(new)
    assert answered["predicted"].isna().tolist() == [place == 4 for place in range(35)]
    assert (
        answered.drop(index=4)["predicted"].tolist()
        == expected["predicted"].tolist()[:4] + expected["predicted"].tolist()[5:]
    )
    assert np.isnan(answered.loc[4, ["confidence", "p_0"]].astype(float)).all()
    assert "gone.png" in answered.loc[4, "problem"]
    assert set(answered.drop(index=4)["problem"]) == {"note of mine"}
    assert (answered["site"] == "NA").all()
    fewer = table[table["label"].isin(["1", "2"])]
    fewer = fewer.assign(label=fewer["label"].cat.remove_unused_categories())
    assert predictor.table(fewer)["label"].cat.categories.tolist() == predictor.classes
    assert len(predictor.table(table.head(0))) == 0
    with pytest.raises(KeyError, match=r"Predictor\.table"):
        predictor.table(table.drop(columns="path"))


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
        (b"no image", ValueError, "not an image"),
        (b"", ValueError, "empty: 0 bytes"),
        (np.zeros((0, 8, 3)), ValueError, r"\(0, 8, 3\)"),
        (np.zeros((8, 8, 3), complex), TypeError, "complex128"),
        (np.full((8, 8, 3), None), TypeError, "object"),
        (np.zeros((8, 8, 3), bool), TypeError, "bool"),
        (np.zeros(5), ValueError, r"\(5,\)"),
        ("no/such/file.jpg", FileNotFoundError, "file.jpg"),
    ],
)
def test_what_is_no_image_is_refused(exported, image, error, words):
    with pytest.raises(error, match=words):
        serving.Predictor(exported[0])(image)


def copied(exported, tmp_path, **changes):
    """A copy of an export whose description says something else."""
    folder = Path(shutil.copytree(exported[0], tmp_path / "export"))
    about = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(about | changes))
    return folder


def sign(folder, format, file):
    """Makes the description say that a file is the one exported: what somebody with bad intent would do."""
    about = json.loads((folder / "export.json").read_text())
    facts = about["formats"].get(format, dict(about["formats"]["keras"]))
    about["formats"][format] = facts | {"sha256": digest_of(folder / file)}
    (folder / "export.json").write_text(json.dumps(about))


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"serving\.export"):
            serving.Predictor(folder)


@pytest.mark.parametrize(("format", "file"), [("litert", "model.tflite"), ("keras", "model.keras")])
def test_a_damaged_model_is_refused(exported, tmp_path, format, file):
    folder = copied(exported, tmp_path)
    data = (folder / file).read_bytes()
    for damaged in (data[:1000], data[:-1], data[:500] + b"x" + data[501:], b"", b"x" * len(data)):
        (folder / file).write_bytes(damaged)
        with pytest.raises(ValueError, match="not the file that was exported"):
            serving.Predictor(folder, format=format)
    (folder / file).write_bytes(b"x" * 1000)
    sign(folder, format, file)
    with pytest.raises(ValueError, match="could not be loaded"):
        serving.Predictor(folder, format=format)
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match="it is gone"):
        serving.Predictor(folder, format=format)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 1}, "another version"),
        ({"version": 99}, "another version"),
        ({"version": None}, "is damaged"),
        ({"classes": "abc"}, "is damaged"),
        ({"classes": [1, 2]}, "is damaged"),
        ({"classes": ["a", "b"]}, "names 2 classes"),
        ({"image_size": [8]}, "is damaged"),
        ({"image_size": [16, 16]}, "does not take images"),
        ({"channels": 0}, "is damaged"),
        ({"channels": 1}, "does not take images"),
        ({"resize": "melt"}, "is damaged"),
        ({"temperature": "warm"}, "is damaged"),
        ({"temperature": -1}, "temperature must be bigger"),
        ({"temperature": 1e-320}, "temperature must be bigger"),
        ({"formats": {}}, "is damaged"),
        ({"formats": {"../../etc/passwd": {"sha256": ""}}}, "is damaged"),
        ({"formats": ["litert"]}, "is damaged"),
    ],
)
def test_a_description_that_was_edited_is_refused(exported, tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        serving.Predictor(copied(exported, tmp_path, **changes))


@pytest.mark.parametrize("text", ["{", "", "[1]", "null", "\x00"])
def test_a_description_that_is_cut_is_refused(exported, tmp_path, text):
    folder = copied(exported, tmp_path)
    (folder / "export.json").write_text(text)
    with pytest.raises(ValueError, match="is damaged"):
        serving.Predictor(folder)


def test_only_exported_formats_are_opened(exported):
    with pytest.raises(ValueError, match="one of those exported: keras, litert"):
        serving.Predictor(exported[0], format="savedmodel")


def test_a_strangers_lambda_layer_never_runs(exported, tmp_path):
    folder = copied(exported, tmp_path)
    inputs = keras.Input((8, 8, 3))
    ran = tmp_path / "ran"
    code = eval(f"lambda x: (__import__('pathlib').Path({str(ran)!r}).touch(), x)[1]")
    stranger = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(keras.layers.Lambda(code)(inputs))))
    stranger.save(folder / "model.keras")
    sign(folder, "keras", "model.keras")
    ran.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"a Lambda layer.*are refused"):
        serving.Predictor(folder, format="keras")
    assert not ran.exists()


def test_a_file_that_disagrees_is_not_kept(digits_model, digits, tmp_path, monkeypatch):
    from cnnlab.serving import writers

    other = models.small_cnn(image_size=(8, 8), classes=list("0123456789"), filters=(4,))
    monkeypatch.setitem(writers.WRITERS, "keras", lambda model, path, images: other.save(path))
    check = digits[digits["split"] == "val"]
    with pytest.raises(ValueError, match="It was not kept"):
        serving.export(digits_model, tmp_path / "alone", formats=["keras"], check=check)
    assert not list((tmp_path / "alone").iterdir())
    with pytest.warns(
        UserWarning, match=r"keras export gives .* of 270 images; 99\.0% are asked for\. It was not kept"
    ):
        table = serving.export(digits_model, tmp_path / "two", formats=["keras", "litert"], check=check)
    assert table["kept"].tolist() == [False, True]
    assert not (tmp_path / "two" / "model.keras").exists()
    assert serving.Predictor(tmp_path / "two").format == "litert"
    table = serving.export(digits_model, tmp_path / "any", formats=["keras"], check=check, agreement=0)
    assert table["kept"].all()


def test_a_second_export_replaces_the_first(digits_model, digits, tmp_path):
    check = digits[digits["split"] == "val"]
    serving.export(digits_model, tmp_path, formats=["keras", "savedmodel"], check=check)
    serving.export(digits_model, tmp_path, formats=["savedmodel", "litert"], check=check)
    there = {path.name for path in tmp_path.iterdir()} - {".export.json.lock"}
    assert there == {"README.md", "earlier", "export.json", "model.tflite", "savedmodel"}
    assert {path.name for path in (tmp_path / "earlier").glob("*/*")} == {"model.keras", "savedmodel"}
    assert serving.Predictor(tmp_path, format="savedmodel", trust=True)(digits["path"].iloc[0]).confidence > 0


def test_the_images_checked_are_spread_over_the_table(digits_model, digits, tmp_path):
    many = pd.concat([digits.sort_values("label")] * 2, ignore_index=True)
    serving.export(digits_model, tmp_path, formats=["litert"], check=many)
    about = json.loads((tmp_path / "export.json").read_text())
    assert about["checked_on"] == about["formats"]["litert"]["images"] == 500
    card = (tmp_path / "README.md").read_text()
    shown = [int(line.split("|")[-2]) for line in card.splitlines() if re.match(r"\| \d \|", line)]
    assert len(shown) == 10
    assert min(shown) >= 45


@pytest.fixture(scope="module")
def every_format(digits_model, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "every"
    return folder, serving.export(digits_model, folder, formats=FORMATS, check=digits[digits["split"] != "train"])


def test_a_format_is_named_in_every_list():
    assert list(WRITERS) == list(ENGINES) == list(FILE_OF)
    assert {*FASTEST_FIRST, "savedmodel"} == {*FORMATS, "onnx"} == set(FILE_OF)


def test_every_format_agrees(every_format, digits_model, digits):
    table = every_format[1].set_index("format")
    rest = digits[digits["split"] != "train"]
    assert (table["images"].drop("litert_int8") == 500).all()
    assert table["images"]["litert_int8"] == 400  # not on those that its ranges were learned from
    assert (table["agreement"].drop("litert_int8") >= 0.998).all()
    assert table["agreement"]["litert_int8"] >= 0.98
    assert (table["largest_difference"][["keras", "savedmodel", "litert"]] < 1e-4).all()
    assert 0 < table["largest_difference"]["litert_float16"] < 0.02
    raw = experiments.predict(digits_model, rest)
    accuracy = (raw["label"].astype(str) == raw["predicted"].astype(str)).mean()
    np.testing.assert_allclose(table["accuracy"], accuracy, atol=0.02)
    np.testing.assert_allclose(table["accuracy_change"], 0, atol=0.02)
    assert table["kept"].all()


@pytest.mark.parametrize("format", FORMATS[1:])
def test_every_format_predicts(every_format, digits, format):
    table = digits[digits["split"] == "test"].head(50)
    predictor, plain = (serving.Predictor(every_format[0], format=name, trust=True) for name in (format, "keras"))
    images = np.stack([predictor.prepare(path) for path in table["path"]])
    tolerance = 0.1 if format == "litert_int8" else 0.02
    np.testing.assert_allclose(predictor.probabilities(images), plain.probabilities(images), atol=tolerance)
    features = predictor.features(images)
    assert np.corrcoef(features.ravel(), plain.features(images).ravel())[0, 1] > 0.99


def test_float16_and_int8_are_smaller(parts, tmp_path):
    model = models.small_cnn(image_size=(16, 16), classes=parts["label"].cat.categories, filters=(32, 64, 96))
    formats = ["litert", "litert_float16", "litert_int8"]
    sizes = serving.export(model, tmp_path, formats=formats, check=parts, agreement=0).set_index("format")["megabytes"]
    assert sizes["litert_float16"] < 0.6 * sizes["litert"]
    assert sizes["litert_int8"] < 0.4 * sizes["litert"]


def test_int8_keeps_the_first_and_the_last_operations_in_float(parts, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model = models.small_cnn(image_size=(16, 16), classes=parts["label"].cat.categories, filters=(8, 16, 24))
    serving.export(model, tmp_path, formats=["litert_int8"], check=parts, agreement=0)
    details = Interpreter(str(tmp_path / "model_int8.tflite")).get_tensor_details()
    kinds = {tuple(one["shape"]): one["dtype"] for one in details}
    assert kinds[8, 3, 3, 3] == np.float32  # the first convolution's kernel
    assert kinds[24, 3, 3, 16] == np.int8
    assert kinds[len(parts["label"].cat.categories), 24] == np.float32  # the last layer's


def test_onnx_needs_its_packages(digits_model, digits, tmp_path, monkeypatch):
    from cnnlab.serving import engines

    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install onnxruntime tf2onnx"):
        serving.export(digits_model, tmp_path / "export", formats=["onnx"], check=digits)
    assert not (tmp_path / "export").exists()


def test_onnx_agrees(digits_model, digits, tmp_path):
    pytest.importorskip("tf2onnx", reason="install the extra `onnx` to run this test")
    pytest.importorskip("onnxruntime", reason="install the extra `onnx` to run this test")
    check = digits[digits["split"] == "val"]
    table = serving.export(digits_model, tmp_path, formats=["onnx"], check=check)
    assert table["agreement"].tolist() == [1]
    assert table["largest_difference"].max() < 1e-4
    assert serving.Predictor(tmp_path)(check["path"].iloc[0]).confidence > 0


def test_a_model_of_mixed_precision_is_exported(digits, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = models.small_cnn(image_size=(8, 8), classes=list("0123456789"), filters=(4,))
    finally:
        keras.config.set_dtype_policy("float32")
    table = serving.export(model, tmp_path, check=digits.head(20), agreement=0.9)
    assert table["kept"].all()


def test_impossible_exports_are_refused(digits_model, digits, tmp_path):
    with pytest.raises(ValueError, match="'keras'"):
        serving.export(digits_model, tmp_path, formats="keras", check=digits)
    with pytest.raises(ValueError, match="each once"):
        serving.export(digits_model, tmp_path, formats=["keras", "keras"], check=digits)
    with pytest.raises(ValueError, match="Received: 99"):
        serving.export(digits_model, tmp_path, check=digits, agreement=99)
    with pytest.raises(ValueError, match="'melt'"):
        serving.export(digits_model, tmp_path, check=digits, resize="melt")
    with pytest.raises(ValueError, match="in the model's order"):
        serving.export(
            digits_model,
            tmp_path,
            check=tables.folds(digits, count=3, seed=0)
            .query("label in ['1', '2']")
            .assign(label=lambda table: table["label"].cat.remove_unused_categories()),
        )
    with pytest.raises(ValueError, match=r"\['coreml'\]"):
        serving.export(digits_model, tmp_path, formats=["coreml"], check=digits)
    numbers = keras.Sequential([keras.Input((2,)), keras.layers.Dense(10, activation="softmax")])
    with pytest.raises(ValueError, match="Expected a network for images"):
        serving.export(numbers, tmp_path, check=digits)
    gone = digits.head(3).assign(path=["x.png", "y.png", "z.png"])
    with pytest.raises(ValueError, match="None of 3 could be read"):
        serving.export(digits_model, tmp_path, check=gone)


def test_a_grey_model_takes_colour(digits, tmp_path):
    names = [f"grey {name}" for name in "0123456789"]
    check = digits.head(20).assign(label=digits["label"].cat.rename_categories(names))
    model = models.small_cnn(image_size=(8, 8), classes=names, channels=1, filters=(4,))
    serving.export(model, tmp_path / "grey", formats=["litert"], check=check)
    grey = np.asarray(Image.open(digits["path"].iloc[0]))
    expected = model.predict(grey[None, :, :, None].astype("float32"), verbose=0)[0].max()
    assert serving.Predictor(tmp_path / "grey")(digits["path"].iloc[0]).confidence == pytest.approx(expected, abs=1e-5)


def test_a_network_that_takes_whole_numbers_is_exported(digits, tmp_path):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    model = models.with_classes(
        keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x)), list("0123456789")
    )
    serving.export(model, tmp_path, formats=["keras", "savedmodel", "litert"], check=digits.head(20))
    expected = experiments.predict(model, digits.head(1))["confidence"].iloc[0]
    for format in ("keras", "savedmodel", "litert"):
        predictor = serving.Predictor(tmp_path, format=format, temperature=1)
        assert predictor(digits["path"].iloc[0]).confidence == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_files_agree_on_500_photographs(real_data, tmp_path):
    """A pretrained network with a head that has learned garments: LiteRT gives every label, int8 98 % or nothing."""
    table = tables.from_folder(real_data / "clothing")
    train, rest = table[table["split"] == "train"], table[table["split"] != "train"]
    inputs = keras.Input((224, 224, 3))
    backbone = keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None, input_shape=(224, 224, 3))
    backbone.load_weights(real_data / "weights" / "mobilenet_2_5_224_tf_no_top.h5")
    x = backbone(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs), training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    seen = keras.Model(inputs, x).predict(pipelines.load(train, image_size=(224, 224), cache=False), verbose=0)
    learned = LogisticRegression(C=1, max_iter=2000).fit(seen, train["label"].cat.codes)
    head = keras.layers.Dense(10, activation="softmax")
    model = models.with_classes(keras.Model(inputs, head(x)), table["label"].cat.categories)
    head.set_weights([learned.coef_.T, learned.intercept_])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        formats = ("litert", "litert_float16", "litert_int8")
        found = serving.export(model, tmp_path, formats=formats, check=rest).set_index("format")
    print(found.to_string())
    assert found.loc["litert", "images"] == 500
    assert found.loc["litert", "agreement"] == 1
    assert found.loc["litert", "accuracy"] > 0.6
    assert found.loc["litert_float16", "kept"]
    assert found.loc["litert_int8", "kept"] == (found.loc["litert_int8", "agreement"] >= 0.98)
    assert (len(said) == 0) == found.loc["litert_int8", "kept"]

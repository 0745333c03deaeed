"""The training that was asked for: that many steps, that number watched, that loss, one rule for the learning rate."""

import collections
import json
import re
import sys
import zipfile
from functools import partial

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from cnnlab import models, pipelines, training
from cnnlab.training.batches import suitable_loss
from cnnlab.training.best import numbers

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (20, 4, 4, 3)).astype("float32"), np.arange(20) % 2


def network(*end, outputs=2, activation="softmax"):
    return keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            *(end or [keras.layers.Dense(outputs, activation=activation)]),
        ]
    )


def still(model=None, *, loss="sparse_categorical_crossentropy", metrics=("accuracy",)):
    """A network that does not learn: each epoch is as good as the last."""
    model = model or network()
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=list(metrics), run_eagerly=True)
    return model


class Script(keras.callbacks.Callback):
    """Makes epochs report what the test says, and notes the weights of each."""

    def __init__(self, **values):
        super().__init__()
        self.values, self.weights = values, []

    def on_epoch_end(self, epoch, logs=None):
        logs |= {name: values[epoch] for name, values in self.values.items()}
        self.model.set_weights([weight + 1 for weight in self.model.get_weights()])
        self.weights.append(self.model.get_weights())


def best_epoch(folder, script):
    saved = keras.models.load_model(folder / "best.keras", compile=False).get_weights()
    return [all(map(np.array_equal, saved, weights)) for weights in script.weights].index(True)


# Which number is watched


@pytest.mark.parametrize(
    ("monitor", "mode", "values", "best"),
    [
        ("val_mae", "auto", [5.0, 1.0, 3.0], 1),
        pytest.param("val_mse", "auto", [2.0, 3.0, 1.0], 2, marks=pytest.mark.slow),
        ("val_accuracy", "auto", [0.5, 0.9, 0.7], 1),
        ("val_loss", "auto", [float("nan"), 2.0, 1.0], 2),
        ("val_brier", "min", [0.5, 0.1, 0.3], 1),
        ("val_brier", "max", [0.5, 0.1, 0.9], 2),
    ],
)
def test_the_best_epoch_is_the_one_of_the_numbers_own_direction(tmp_path, monitor, mode, values, best):
    def brier(truth, answer):
        return keras.ops.mean((truth - answer) ** 2, axis=-1)

    one_hot = np.eye(2)[LABELS]
    model = still(loss="categorical_crossentropy", metrics=["mae", "mse", "accuracy", brier])
    script = Script(**{monitor: values})
    callbacks = training.callbacks(tmp_path, patience=5, monitor=monitor, mode=mode, tensorboard=False)
    model.fit(IMAGES, one_hot, validation_data=(IMAGES, one_hot), epochs=3, verbose=0, callbacks=[script, *callbacks])
    assert best_epoch(tmp_path, script) == best
    for now, then in zip(model.get_weights(), script.weights[best], strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_number_of_unknown_direction_is_refused_with_the_words_that_help(tmp_path):
    script = Script(val_kappa=[0.1, 0.2])
    callbacks = training.callbacks(tmp_path, monitor="val_kappa", tensorboard=False)
    with pytest.raises(ValueError, match=r'val_kappa.*mode="max" if more'):
        still().fit(
            IMAGES, LABELS, validation_data=(IMAGES, LABELS), epochs=2, verbose=0, callbacks=[script, *callbacks]
        )
    with pytest.raises(ValueError, match=r"mode.*best"):
        training.callbacks(tmp_path, mode="best")


def test_epochs_without_validation_do_not_count(tmp_path):
    history = still().fit(
        IMAGES, LABELS, validation_data=(IMAGES, LABELS), validation_freq=3, epochs=12, verbose=0,
        callbacks=[*training.callbacks(tmp_path, patience=2, tensorboard=False), training.plateau(patience=9)],
    )  # fmt: skip
    assert len(history.epoch) == 9  # validated after 3, 6 and 9
    assert len(history.history["val_loss"]) == 3


def test_without_validation_data_patience_watches_the_training_and_says_so(tmp_path, caplog):
    callbacks = [*training.callbacks(tmp_path, patience=2, tensorboard=False), training.plateau(patience=9)]
    history = still().fit(IMAGES, LABELS, epochs=9, verbose=0, callbacks=callbacks)
    assert len(history.epoch) == 3
    assert "no validation data" in caplog.text
    assert "'loss'" in caplog.text


def test_metrics_that_are_arrays_are_kept_number_by_number(tmp_path):
    one_hot = np.eye(2)[LABELS]
    model = still(loss="categorical_crossentropy", metrics=[keras.metrics.F1Score(average=None)])
    options = {"validation_data": (IMAGES, one_hot), "epochs": 2, "verbose": 0}
    history = model.fit(IMAGES, one_hot, callbacks=training.callbacks(tmp_path / "a"), **options)
    header, first, *_ = (tmp_path / "a" / "history.csv").read_text().splitlines()
    row = dict(zip(header.split(","), first.split(","), strict=True))
    assert [float(row[f"f1_score_{index}"]) for index in (0, 1)] == pytest.approx(history.history["f1_score"][0])
    script = Script(val_f1_score=[np.array([0.5, 0.9]), np.array([0.8, 0.1])])
    model.fit(
        IMAGES, one_hot, **options,
        callbacks=[script, *training.callbacks(tmp_path / "b", monitor="val_f1_score_0", tensorboard=False)],
    )  # fmt: skip
    assert best_epoch(tmp_path / "b", script) == 1
    with pytest.raises(ValueError, match="which is several"):
        model.fit(IMAGES, one_hot, **options, callbacks=training.callbacks(tmp_path / "c", monitor="val_f1_score"))
    assert numbers(None) == {}


# A loss that is NaN


@pytest.mark.parametrize("good", [0, 1, 2])
def test_a_loss_that_is_no_number_ends_training_with_the_best_weights(tmp_path, caplog, good):
    """`good` epochs are fine; the best is the first of them."""
    model = still()
    begun = model.get_weights()
    losses = [0.5, 0.6][:good] + [float("nan")] * 9
    script = Script(loss=losses, val_loss=losses)
    callbacks = [script, *training.callbacks(tmp_path, patience=5, tensorboard=False)]
    history = model.fit(IMAGES, LABELS, validation_data=(IMAGES, LABELS), epochs=9, verbose=0, callbacks=callbacks)
    assert len(history.epoch) == good + 1
    assert "not a finite number" in caplog.text
    assert (tmp_path / "best.keras").exists() == (good > 0)
    for now, then in zip(model.get_weights(), script.weights[0] if good else begun, strict=True):
        np.testing.assert_array_equal(now, then)


# As many steps as asked


def batches(count=5):
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4).take(count)


EVERYDAY = [((3, 4), False), ((16, None), False), ((7, 3), True)]  # fewer steps than there are, more, and no multiple


class Counts(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.validated = self.predicted = 0

    def on_test_batch_end(self, batch, logs=None):
        self.validated = batch + 1

    def on_predict_batch_end(self, batch, logs=None):
        self.predicted = batch + 1


@pytest.mark.parametrize(
    ("steps", "validation_steps", "endless"),
    [
        pytest.param(*asked, endless, marks=[] if (asked, endless) in EVERYDAY else pytest.mark.slow)
        for asked in ((3, 4), (8, 2), (16, None), (7, 3))
        for endless in (False, True)
    ],
)
def test_the_steps_are_the_steps(steps, validation_steps, endless):
    data = batches().repeat() if endless else batches()
    model = training.compile(network(), learning_rate=1e-3)
    assert model.steps_per_execution == 16
    validation = batches().repeat() if endless and validation_steps else batches()
    counts = Counts()
    history = model.fit(
        data, epochs=3, steps_per_epoch=steps, validation_data=validation, validation_steps=validation_steps, verbose=0,
        callbacks=[counts],
    )  # fmt: skip
    assert int(model.optimizer.iterations) == 3 * steps
    assert len(history.history["val_loss"]) == 3
    assert counts.validated == (validation_steps or 16)  # Keras names the last step of an execution
    assert model.steps_per_execution == 16
    model.fit(batches(), epochs=2, verbose=0)
    assert int(model.optimizer.iterations) == 3 * steps + 10


def test_evaluate_and_predict_do_the_steps_too():
    model = training.compile(network())
    assert model.predict(batches().repeat(), steps=3, verbose=0).shape == (12, 2)
    few = model.evaluate(batches().repeat(), steps=2, verbose=0, return_dict=True)
    expected = model.evaluate(IMAGES[:8], LABELS[:8], verbose=0, return_dict=True)
    assert few["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert model.steps_per_execution == 16


def test_data_without_end_are_refused_before_the_first_epoch(tmp_path):
    with pytest.raises(ValueError, match=r"never be over.*steps_per_epoch"):
        still().fit(batches().repeat(), verbose=0, callbacks=training.callbacks(tmp_path))
    assert list(tmp_path.iterdir()) == []


# The learning rate


@pytest.mark.parametrize(
    "rule", [training.plateau, keras.callbacks.ReduceLROnPlateau, lambda: keras.callbacks.LearningRateScheduler(float)]
)
def test_two_rules_for_the_learning_rate_are_refused_before_training(tmp_path, rule):
    model = network()
    training.compile(model, learning_rate=training.one_cycle(0.1, steps=100))
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"one rule.*'one_cycle'.*plateau"):
        model.fit(IMAGES, LABELS, verbose=0, callbacks=[*training.callbacks(tmp_path), rule()])
    with pytest.raises(ValueError, match="one rule"):
        model.fit(IMAGES, LABELS, verbose=0, callbacks=[training.plateau()])
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_optimizers_for_groups_of_layers_have_no_one_rate_to_lower(capsys):
    rules = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), {".*bias": keras.optimizers.Adam(0.01)})
    model = training.compile(network(), optimizer=keras.optimizers.MultiOptimizer(rules))
    assert re.search(r"learning rate (0\.1 and 0\.01|0\.01 and 0\.1) ", capsys.readouterr().out)
    with pytest.raises(ValueError, match="`Plateau` expects an optimizer with one learning rate"):
        model.fit(IMAGES, LABELS, verbose=0, callbacks=[training.plateau()])
    model.fit(IMAGES, LABELS, verbose=0)


def test_two_callbacks_for_the_learning_rate_are_said(tmp_path, caplog):
    fixed = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)
    for others, said in (([training.plateau()], False), ([training.plateau(), fixed], True)):
        model = still()
        run = training.callbacks(tmp_path / str(said), tensorboard=False)
        model.fit(IMAGES, LABELS, validation_data=(IMAGES, LABELS), verbose=0, callbacks=[*run, *others])
        assert ("Two callbacks set the learning rate, Plateau and LearningRateScheduler" in caplog.text) == said


# The classes that the network has


@pytest.fixture
def three_digits(digits):
    """Two rows each of 0, 1 and 2, and of the same only 1 and 2: their labels are other numbers."""
    rows = digits.groupby("label", observed=True).head(2).loc[lambda table: table["label"].isin(["0", "1", "2"])]
    rows = rows.assign(label=rows["label"].cat.remove_unused_categories())
    fewer = rows[rows["label"] != "0"]
    return rows, fewer.assign(label=fewer["label"].cat.remove_unused_categories())


def test_labels_that_are_numbers_of_other_classes_are_refused(three_digits):
    rows, fewer = three_digits
    model = models.small_cnn(image_size=(8, 8), classes=["0", "1", "2"], filters=(2,))
    training.compile(model, run_eagerly=True)
    right, wrong = (pipelines.load(table, image_size=(8, 8)) for table in (rows, fewer))
    turned = rows.assign(label=rows["label"].cat.reorder_categories(["2", "1", "0"]))
    words = r"network for the classes 0, 1, 2\. The table has .* would be the number of another class"
    for call in (
        lambda: model.evaluate(wrong, verbose=0),
        lambda: model.fit(right, validation_data=wrong, verbose=0),
        lambda: model.fit(pipelines.load(turned, image_size=(8, 8), training=True, seed=0), verbose=0),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert model.evaluate(right, verbose=0, return_dict=True)["loss"] > 0
    assert model.predict(wrong, verbose=0).shape == (4, 3)  # where labels are not looked at


def test_more_classes_than_outputs_are_refused_before_training(three_digits):
    data = pipelines.load(three_digits[0], image_size=(4, 4))
    model = training.compile(network())
    with pytest.raises(ValueError, match=r"an output for each class.*has 2, the images are of 3 classes: 0, 1, 2\."):
        model.fit(data, verbose=0)
    regression = training.compile(network(keras.layers.Dense(1)), loss="mse", run_eagerly=True)
    assert regression.fit(data, verbose=0).epoch == [0]


@pytest.mark.parametrize("weights", [{"a": 1.0, "b": 3.0}, {0: 2.0}])
def test_class_weights_that_keras_cannot_use_are_refused_in_words(weights):
    model = training.compile(network(), run_eagerly=True)
    with pytest.raises(ValueError, match=r"a weight for each class number, 0 to 1, as `tables.class_weights"):
        model.fit(IMAGES, LABELS, class_weight=weights, verbose=0)
    assert model.fit(IMAGES, LABELS, class_weight={0: 1.0, np.int64(1): 3.0}, verbose=0).epoch == [0]


def test_a_schedule_that_is_over_is_refused_and_one_that_ends_early_is_said(tmp_path, caplog):
    model = network()
    training.compile(model, learning_rate=training.one_cycle(0.1, steps=10))
    options = {"batch_size": 4, "verbose": 0}
    model.fit(IMAGES, LABELS, epochs=2, callbacks=training.callbacks(tmp_path / "a", tensorboard=False), **options)
    assert caplog.text == ""
    with pytest.raises(ValueError, match="'one_cycle' is over: after 10 steps"):
        model.fit(IMAGES, LABELS, epochs=2, callbacks=training.callbacks(tmp_path / "b"), **options)
    assert not (tmp_path / "b").exists()
    training.compile(model, learning_rate=training.one_cycle(0.1, steps=10))
    model.fit(IMAGES, LABELS, epochs=4, callbacks=training.callbacks(tmp_path / "c", tensorboard=False), **options)
    assert "over after step 10 of 20" in caplog.text


# The loss that fits


def binary():
    return network(outputs=1, activation="sigmoid")


class Own(keras.Model):
    """A network of somebody's own class."""

    def __init__(self, outputs=2, activation="softmax"):
        super().__init__()
        self.head, self.flat = keras.layers.Dense(outputs, activation=activation), keras.layers.Flatten()
        self.scale = keras.layers.Rescaling(1 / 255)

    def call(self, images):
        return self.head(self.flat(self.scale(images)))


NUMBERS, COLUMN, SHARES = LABELS, LABELS[:, None], np.eye(2)[LABELS]
ENDS = {
    "softmax": network,
    "own class": Own,
    "softmax apart": lambda: network(keras.layers.Dense(2), keras.layers.Softmax()),
    "activation apart": lambda: network(keras.layers.Dense(2), keras.layers.Activation("softmax")),
    "own function": lambda: network(keras.layers.Dense(2, activation=lambda x: keras.ops.softmax(x))),
    "float32 at the end": lambda: network(
        keras.layers.Dense(2, activation="softmax"), keras.layers.Activation("linear")
    ),
    "small_cnn": lambda: models.small_cnn(image_size=(4, 4), classes=["a", "b"], filters=(2,)),
    "not built": lambda: keras.Sequential(
        [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    ),
    "logits": lambda: network(activation=None),
    "own class, logits": lambda: Own(activation=None),
    "one sigmoid": binary,
    "own class, one sigmoid": lambda: Own(1, "sigmoid"),
    "one logit": lambda: network(outputs=1, activation=None),
}


@pytest.mark.parametrize("labels", [NUMBERS, COLUMN, SHARES], ids=["numbers", "column", "shares"])
@pytest.mark.parametrize("end", list(ENDS))
def test_the_loss_is_the_cross_entropy_of_the_networks_own_answers(end, labels):
    model = ENDS[end]()
    if "one" in end.split()[-2:] and labels is SHARES:
        with pytest.raises(ValueError, match="one output"):
            suitable_loss(model, (IMAGES, labels))
        return
    model.compile("sgd", **suitable_loss(model, (IMAGES, labels)), run_eagerly=True)
    found = model.evaluate(IMAGES, labels, verbose=0, return_dict=True)
    answers = np.asarray(model(IMAGES), dtype=float)
    if answers.shape[1] == 1:
        probabilities = 1 / (1 + np.exp(-answers)) if "logit" in end else answers
        probabilities = np.hstack([1 - probabilities, probabilities])
    else:
        exponents = np.exp(answers)
        probabilities = exponents / exponents.sum(axis=1, keepdims=True) if "logit" in end else answers
    expected = -np.log(probabilities[np.arange(20), LABELS]).mean()
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    assert found["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == LABELS).mean())


@pytest.mark.parametrize("make", [binary, lambda: network(outputs=1, activation=None)], ids=["sigmoid", "logit"])
def test_a_network_with_one_output_is_compiled_with_an_accuracy_that_is_one(make):
    model = training.compile(make(), learning_rate=0.05, data=(IMAGES, LABELS))
    found = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)["accuracy"]
    right = (
        np.asarray(model(IMAGES))[:, 0] > (0.5 if model.layers[-1].activation.__name__ == "sigmoid" else 0)
    ) == LABELS
    assert found == pytest.approx(right.mean())
    assert model.fit(IMAGES, LABELS, epochs=1, verbose=0).history["accuracy"]


def test_networks_that_no_loss_fits_are_refused():
    with pytest.raises(ValueError, match="1 for any image"):
        training.compile(network(outputs=1))
    inputs = keras.Input((3,))
    two = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)])
    with pytest.raises(ValueError, match="has 2: pass `loss=`"):
        training.compile(two)


@pytest.mark.parametrize("data", [lambda y: (IMAGES, y), lambda y: [(IMAGES, y)], lambda y: batches_of(y)])
def test_shares_are_told_from_numbers_in_whatever_data(data):
    assert suitable_loss(network(), data(COLUMN))["loss"] == "sparse_categorical_crossentropy"
    assert suitable_loss(network(), data(SHARES))["loss"] == "categorical_crossentropy"
    assert suitable_loss(network(), data(NUMBERS))["loss"] == "sparse_categorical_crossentropy"


def batches_of(labels):
    return tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(4)


# Files that plain Keras loads


@pytest.mark.parametrize("how", ["saved", "best.keras", "smoothed"])
def test_a_model_file_names_losses_of_keras_only(tmp_path, how):
    model, adjusted = network(), models.LogitAdjusted([90, 10])
    if how == "smoothed":
        training.compile(model, label_smoothing=0.1)
    elif how == "saved":
        training.compile(model, loss=adjusted)
    else:
        model.compile("sgd", adjusted)
    loss = model.loss
    model.fit(IMAGES, LABELS, epochs=1, verbose=0, callbacks=training.callbacks(tmp_path, tensorboard=False))
    file = tmp_path / ("best.keras" if how == "best.keras" else "mine.keras")
    if how != "best.keras":
        model.save(file)
    config = json.loads(zipfile.ZipFile(file).read("config.json"))
    assert "cnnlab" not in json.dumps(config)
    again = keras.models.load_model(file)
    assert again.loss.name == "sparse_categorical_crossentropy"
    expected = -np.log(np.asarray(model(IMAGES))[np.arange(20), LABELS]).mean()
    assert again.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-4)
    assert model.loss is loss
    assert "cnnlab" in json.dumps(
        model.get_compile_config()
    )  # clones and searches train with the loss that was asked for


def test_the_gradient_survives_mixed_precision():
    """A probability of 6e-6 has no place in float16: the softmax has to stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = models.small_cnn(image_size=(8, 8), classes=["a", "b"], filters=(2,), batch_norm=False, dropout=0.0)
    finally:
        keras.config.set_dtype_policy(before)
    training.compile(model, learning_rate=1e-3)
    head = next(layer for layer in reversed(model.layers) if layer.weights)
    head.set_weights([np.zeros(head.get_weights()[0].shape), np.array([12.0, 0.0])])
    images = np.zeros((4, 8, 8, 3), "uint8")
    assert 1e-6 < float(np.asarray(model(images))[0, 1]) < 1e-5
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=np.ones(4, int), y_pred=model(images, training=True))
    gradients = tape.gradient(loss, model.trainable_weights)
    assert float(loss) == pytest.approx(12.0, rel=1e-3)
    assert all(np.isfinite(np.asarray(gradient)).all() for gradient in gradients)
    np.testing.assert_allclose(np.asarray(gradients[-1]), [1, -1], atol=5e-3)


# Networks with a train_step of their own, and those that are built late


class Doubled(keras.Model):
    """Counts its steps in a variable that training must give back."""

    def train_step(self, data):
        images, labels = data[:2]
        return super().train_step((images * 2, labels))


def doubled():
    plain = network()
    return Doubled(plain.inputs[0], plain.outputs[0])


def test_the_finder_and_preflight_train_as_the_network_does(monkeypatch):
    seen = []
    plain = Doubled.train_step
    monkeypatch.setattr(Doubled, "train_step", lambda self, data: seen.append(1) or plain(self, data))
    model = doubled()
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    optimizer, before = model.optimizer, model.get_weights()
    training.find_learning_rate(model, [(IMAGES, LABELS)], steps=12)
    assert seen
    seen.clear()
    training.preflight(model, [(IMAGES, LABELS)])
    assert seen
    assert model.optimizer is optimizer
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize("make", [Own, ENDS["not built"]], ids=["own class", "sequential"])
def test_looking_at_a_network_that_is_built_late_leaves_nothing_behind(make):
    weights = []
    for look in (None, partial(training.find_learning_rate, steps=20), training.preflight):
        keras.utils.set_random_seed(4)
        model = make()
        if look is not None:
            look(model, [(IMAGES, LABELS)])
        training.compile(model, learning_rate=0.01, data=(IMAGES, LABELS))
        model.fit(IMAGES, LABELS, epochs=1, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    for one, two, three in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


# Resume refuses another training, and goes on where more is asked for


def resumed(folder, *, make=training.resume, epochs=2, labels=LABELS, optimizer=None, model=None, options=None, **fit):
    model = model or network()
    if not model.compiled:
        model.compile(optimizer or keras.optimizers.AdamW(0.01), "sparse_categorical_crossentropy", run_eagerly=True)
    callbacks = make(folder, tensorboard=False, **(options or {}))
    return model.fit(IMAGES, labels, epochs=epochs, verbose=0, callbacks=callbacks, **{"batch_size": 4} | fit)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"optimizer": keras.optimizers.Adam(0.01)}, "optimizer was AdamW, is Adam"),
        ({"optimizer": keras.optimizers.AdamW(0.01, weight_decay=0.5)}, "weight_decay was 0.004, is 0.5"),
        ({"optimizer": keras.optimizers.AdamW(0.02)}, "learning_rate was 0.0"),
        ({"labels": 1 - LABELS}, "labels was"),
        ({"class_weight": {0: 1.0, 1: 3.0}}, "class_weight was None, is"),
        ({"batch_size": 10}, "steps per epoch was 5, is 2"),
    ],
)
def test_resume_refuses_another_training(tmp_path, changed, said):
    resumed(tmp_path, make=training.callbacks)
    with pytest.raises(ValueError, match=said):
        resumed(tmp_path, epochs=4, **changed)


def test_other_labels_of_the_same_files_are_refused(tmp_path, digits):
    rows = digits.head(40)
    relabelled = rows.assign(
        label=rows["label"].cat.codes.sub(9).abs().map(dict(enumerate(rows["label"].cat.categories)))
    )
    relabelled["label"] = relabelled["label"].astype(rows["label"].dtype)
    for table, make in ((rows, training.callbacks), (relabelled, training.resume)):
        data = pipelines.load(table, image_size=(4, 4), training=True, seed=0)
        model = models.small_cnn(image_size=(4, 4), classes=rows["label"].cat.categories, filters=(2,))
        training.compile(model)
        callbacks = make(tmp_path, tensorboard=False)
        if make is training.resume:
            with pytest.raises(ValueError, match="other data: labels was"):
                model.fit(data, epochs=2, verbose=0, callbacks=callbacks)
        else:
            model.fit(data, epochs=1, verbose=0, callbacks=callbacks)


def test_more_patience_goes_on_after_an_early_stop(tmp_path):
    options = {"optimizer": keras.optimizers.SGD(0.0), "validation_data": (IMAGES, LABELS)}
    first = resumed(tmp_path, make=training.callbacks, epochs=12, options={"patience": 2}, **options)
    assert len(first.epoch) == 3
    again = resumed(tmp_path, epochs=12, **options | {"optimizer": keras.optimizers.SGD(0.0)})
    assert len(again.epoch) == 3
    more = resumed(tmp_path, epochs=12, options={"patience": 5}, **options | {"optimizer": keras.optimizers.SGD(0.0)})
    assert len(more.epoch) == 6


def test_what_own_callbacks_gathered_goes_on(tmp_path):
    class Gathers(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.by_epoch, self.counter = {}, collections.Counter()

        def on_epoch_end(self, epoch, logs=None):
            self.by_epoch[epoch] = logs["loss"]
            self.counter[epoch % 2] += 1

    own = [Gathers(), Gathers()]
    for epochs, make, one in ((2, training.callbacks, own[0]), (3, training.resume, own[1])):
        model = still()
        model.fit(IMAGES, LABELS, epochs=epochs, verbose=0, callbacks=[*make(tmp_path, tensorboard=False), one])
    assert own[1].by_epoch.keys() == {0, 1, 2}
    assert own[1].counter == {0: 2, 1: 1}


@pytest.mark.parametrize("index", [0, 1])
def test_each_of_several_processes_writes_a_folder_of_its_own(tmp_path, monkeypatch, index):
    monkeypatch.setattr(sys.modules["cnnlab.training.callbacks"], "process_index", lambda: index)
    callbacks = training.callbacks(tmp_path)
    expected = tmp_path / "worker_1" if index == 1 else tmp_path
    assert {one.folder for one in callbacks if hasattr(one, "folder")} == {expected}


def test_a_run_folder_in_the_home_folder_is_there(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    still().fit(IMAGES, LABELS, verbose=0, callbacks=training.callbacks("~/run", tensorboard=False))
    still().fit(IMAGES, LABELS, epochs=2, verbose=0, callbacks=training.resume("~/run"))
    assert pd.read_csv(tmp_path / "home" / "run" / "history.csv")["epoch"].tolist() == [0, 1]


def test_a_watched_number_that_is_never_one_is_said(tmp_path, caplog):
    callbacks = training.callbacks(tmp_path, monitor="odd", mode="max", tensorboard=False)
    still().fit(IMAGES, LABELS, epochs=2, verbose=0, callbacks=[Script(odd=[np.nan, np.nan]), *callbacks])
    assert not (tmp_path / "best.keras").exists()
    assert "'odd' was NaN in every epoch, so there is no best one and no best.keras" in caplog.text


def test_the_history_tells_nan_from_what_was_not_measured(tmp_path):
    class Diverges(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs |= dict.fromkeys(set(logs) & {"val_loss"}, float("nan"))

    run = [Diverges(), *training.callbacks(tmp_path, tensorboard=False)]
    still().fit(IMAGES, LABELS, validation_data=(IMAGES, LABELS), validation_freq=2, epochs=2, verbose=0, callbacks=run)
    text = pd.read_csv(tmp_path / "history.csv", dtype=str, keep_default_na=False)
    assert text["val_loss"].tolist() == ["", "nan"]
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["val_loss"].isna().all() and history["val_accuracy"].isna().tolist() == [True, False]
    assert history["loss"].tolist() == [float(loss) for loss in text["loss"]]

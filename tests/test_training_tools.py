"""Finder, preflight, schedules, smoothing, resizing and fine-tuning."""

import math
import random
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnlab import models, pipelines, plots, training
from cnnlab.training.fine_tuning import (
    BestWeights,
    Task,
    average_weights,
    discriminative,
    quality,
    split_at_head,
)
from cnnlab.training.state import random_state, values_of

NAMES = list("0123456789")


@pytest.fixture
def data(digits):
    rows = digits.groupby("label", observed=True).head(20)
    return pipelines.load(rows, image_size=(8, 8), batch_size=32, training=True, seed=0)


def network(**options):
    return models.small_cnn(image_size=(8, 8), classes=NAMES, **{"filters": (16, 16), "dropout": 0.3} | options)


def everything(model, data):
    optimizer = values_of(model.optimizer.variables) if model.compiled else []
    return [value.tobytes() for value in [*values_of(model.variables), *optimizer]], random_state(), (
        data._cnnlab_source.next_epoch, model.compiled, getattr(model, "optimizer", None), model.trainable)  # fmt: skip


@pytest.mark.parametrize("compiled", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("look", [lambda m, d: training.find_learning_rate(m, d, steps=30), training.preflight])
def test_looking_changes_nothing(data, look, compiled):
    model = network()
    if compiled:
        training.compile(model)
        model.fit(data, epochs=1, verbose=0)
        pipelines.set_epoch(data, 3)
    before = everything(model, data)
    look(model, data)
    after = everything(model, data)
    assert after[0] == before[0]
    assert repr(after[1]) == repr(before[1])
    assert after[2] == before[2]


def test_training_after_the_finder_is_training_without_it(data):
    """Order, dropout and initial state included."""
    weights = []
    for find in (True, False):
        keras.utils.set_random_seed(1)
        pipelines.set_epoch(data, 0)
        model = network()
        if find:
            training.find_learning_rate(model, data, steps=20)
        training.compile(model, learning_rate=0.01)
        model.fit(data, epochs=1, verbose=0)
        weights.append([value.tobytes() for value in model.get_weights()])
    assert weights[0] == weights[1]


def test_the_suggestion_trains(data):
    model = network(dropout=0.0)
    found = training.find_learning_rate(model, data)
    assert found.suggestion == found.table.loc[found.table["suggested"], "learning_rate"].item()
    assert 3e-4 < found.suggestion < 3e-2
    np.testing.assert_allclose(np.diff(np.log(found.table["learning_rate"])), np.log(1e6) / 99)
    training.compile(model, learning_rate=found.suggestion)
    losses = model.fit(data, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]
    assert plots.learning_rates(found).get_xlabel() == "learning rate"


@pytest.mark.parametrize("options", [{"lowest": 0}, {"lowest": 2.0}, {"steps": 5}])
def test_an_empty_range_is_refused(data, options):
    with pytest.raises(ValueError, match="find_learning_rate"):
        training.find_learning_rate(network(), data, **options)


def test_data_that_is_none_is_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        training.find_learning_rate(network(), [])
    with pytest.raises(ValueError, match="images, labels"):
        training.find_learning_rate(network(), [np.zeros((4, 8, 8, 3))])


@pytest.mark.parametrize("look", [training.find_learning_rate, training.preflight])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "Received: NoneType"),
        ([(np.zeros((8, 8, 3)), np.int64(1))], r"data\.batch\(32\)"),
        ([(np.zeros((4, 8, 8, 3)), np.zeros(3))], "labels of shape"),
        ([(np.zeros((2, 8, 8, 3)), np.array(["cat", "dog"]))], "class numbers.*cat"),
    ],
    ids=["nothing", "single images", "too few labels", "names"],
)
def test_data_that_is_no_batches_is_refused_in_words(look, data, said):
    with pytest.raises(ValueError, match=said):
        look(network(), data)


def failed(model, batch):
    looked = training.preflight(model, [batch])
    assert (looked["advice"] != "").equals(~looked["passed"])
    return set(looked.loc[~looked["passed"], "check"])


def test_preflight_passes_what_is_right_and_names_what_is_wrong(data):
    images, labels = next(data.as_numpy_iterator())
    assert failed(network(), (images, labels)) == set()
    assert "pixels" in failed(network(), (images / 255, labels))
    assert "pixels" in failed(network(), (images.astype(float) - 128, labels))
    assert failed(network(), (images, labels + 1)) == {"labels"}
    assert failed(network(), (images, np.eye(9)[labels % 9])) == {"labels"}
    assert failed(network(), (images, np.zeros_like(labels))) == {"labels"}
    assert failed(network(), (images, np.eye(10)[labels])) == set()
    assert failed(network(), (images[:, :4], labels)) == {"image size"}


def test_preflight_finds_faults_of_the_model(data):
    batch = next(data.as_numpy_iterator())
    frozen = network()
    frozen.trainable = False
    assert failed(frozen, batch) == {"something to learn"}
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(inputs)
    logits = keras.Model(inputs, keras.layers.Dense(10)(x))
    assert "probabilities" in failed(logits, batch)
    raw = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", kernel_initializer="he_normal")(x))
    assert "first loss" in failed(raw, batch)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255**2)(inputs))
    twice = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    assert "looks at the image" in failed(twice, batch)
    lazy = network()
    training.compile(lazy, optimizer="sgd", learning_rate=1e-9)
    assert failed(lazy, batch) == {"learns one batch"}


def test_schedules_are_what_they_claim():
    schedule = training.warmup_cosine(0.1, steps=100, warmup=0.1, end=0.01)
    for step in range(101):
        cosine = 0.5 * (1 + math.cos(math.pi * (step - 10) / 90))
        expected = 0.1 * step / 10 if step < 10 else 0.1 * (0.99 * cosine + 0.01)
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-6)
    falling = training.step_down(0.8, steps=100, at=(0.3, 0.6), factor=0.5)
    assert [float(falling(step)) for step in (0, 30, 31, 60, 61, 99)] == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2, 0.2])
    ax = plots.schedule({"cosine": schedule, "steps": falling}, steps=100)
    np.testing.assert_allclose(ax.lines[0].get_ydata()[10], 0.1, rtol=1e-5)
    assert isinstance(training.plateau(), keras.callbacks.ReduceLROnPlateau)


@pytest.mark.parametrize(
    "make",
    [
        lambda: training.warmup_cosine(0, steps=10),
        lambda: training.warmup_cosine(0.1, steps=10, warmup=1),
        lambda: training.step_down(0.1, steps=10, at=(0.5, 0.2)),
        lambda: training.step_down(0.1, steps=10, factor=1),
        lambda: training.plateau(patience=0),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(ValueError, match="expects"):
        make()


def test_smoothing_works_with_integer_labels(data, tmp_path):
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 5, 7), rng.dirichlet(np.ones(5), 7)
    expected = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)(np.eye(5)[labels], probabilities)
    assert float(training.SmoothedCrossentropy(0.2)(labels, probabilities)) == pytest.approx(float(expected), rel=1e-5)
    model = training.compile(network(), label_smoothing=0.1)
    assert model.fit(data, epochs=1, verbose=0).history["accuracy"][0] > 0
    logits = np.log(probabilities)
    smoothed = training.SmoothedCrossentropy(0.2, from_logits=True)
    assert float(smoothed(labels[:, None], logits)) == pytest.approx(float(expected), rel=1e-5)
    model.save(tmp_path / "smooth.keras")  # see test_training_asked: plain Keras loads it
    assert keras.models.load_model(tmp_path / "smooth.keras").loss.name == "sparse_categorical_crossentropy"


def test_arguments_of_the_optimizer_go_to_it():
    rule = training.compile(network(), clipnorm=1.0, use_ema=True, weight_decay=0.01, learning_rate=0.1).optimizer
    assert (rule.clipnorm, rule.use_ema, rule.weight_decay) == (1.0, True, 0.01)
    assert training.compile(network(), optimizer="sgd", momentum=0.9, metrics=[]).optimizer.momentum == 0.9
    with pytest.raises(ValueError, match="clipnorm"):
        training.compile(network(), optimizer=keras.optimizers.SGD(), clipnorm=1.0)


def test_a_resized_network_has_the_same_weights(data):
    model = models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(8, 8))
    larger = training.resized(model, (24, 24))
    assert larger.input_shape == (None, 24, 24, 3)
    assert models.class_names(larger) == NAMES
    assert model.input_shape == (None, 16, 16, 3)
    for one, other in zip(model.get_weights(), larger.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="image_size"):
        training.resized(model, (24.5, 24))
    inputs = keras.Input((8, 8, 3))
    flat = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="takes images of any size"):
        training.resized(flat, (16, 16))


@pytest.fixture
def learned(digits_model, monkeypatch):
    monkeypatch.setattr("cnnlab.training.fine_tuning.HEAD_STEPS", 10)
    return models.reuse(digits_model, classes=NAMES)


def test_the_head_and_the_body_are_the_model(learned, data):
    body, head = split_at_head(learned)
    images = next(data.as_numpy_iterator())[0]
    np.testing.assert_allclose(head.predict(body.predict(images, verbose=0), verbose=0),
                               learned.predict(images, verbose=0), atol=1e-6)  # fmt: skip
    assert len(head.trainable_weights) == 2
    assert not body.trainable_weights


def test_fine_tuning_moves_what_it_should_and_nothing_else(learned, digits, data):
    val_rows = digits[digits["split"] == "val"]
    val = pipelines.load(val_rows, image_size=(8, 8))
    inside = models.backbone(learned)
    before = {weight.path: weight.numpy() for weight in inside.weights}
    history = training.fine_tune(learned, data, val, head_epochs=2, epochs=3, unfreeze=0.5)
    moved = {path for path, value in before.items() if not np.array_equal(value, _weight(inside, path))}
    assert moved == {weight.path for layer in models.trainable_layers(learned) for weight in layer.trainable_weights}
    assert moved
    phases = history.phases
    assert phases["phase"].tolist() == ["head", "layers"]
    assert (phases["moved"] == 0).all()
    assert phases["learning"].is_monotonic_increasing
    assert history.history["phase"].count("layers") == 3
    assert isinstance(learned.optimizer, keras.optimizers.AdamW)
    assert phases["share"].sum() == 1
    best = max(zip(history.history["val_accuracy"], [-loss for loss in history.history["val_loss"]], strict=True))
    found = learned.evaluate(val, verbose=0, return_dict=True)
    assert found["accuracy"] >= best[0] - 1e-6
    assert found["accuracy"] > best[0] + 1e-6 or found["loss"] <= -best[1] * 1.001
    if set(phases["share"]) == {0, 1}:  # one of the two phases is kept as it was
        assert found["accuracy"] == pytest.approx(best[0])
        assert found["loss"] == pytest.approx(-best[1], rel=1e-3)
    assert phases["val_accuracy"].max() > 0.9
    plots.history(history)


def test_the_head_learns_from_images_where_memory_is_short_of_features(learned, data, monkeypatch, caplog):
    monkeypatch.setattr("cnnlab.training.fine_tuning.free_memory", lambda: 1000)
    history = training.fine_tune(learned, data, data, head_epochs=2, epochs=0)
    assert history.history["phase"] == ["head", "head"]
    assert (history.phases["moved"] == 0).all()
    assert "The head learns from the images, which takes longer: their features would take" in caplog.text


def test_features_are_not_copied_where_they_are_learned_from_once(learned, data, monkeypatch):
    monkeypatch.setattr("cnnlab.training.fine_tuning.HEAD_STEPS", 1)
    made, fitted = [], []
    real, fit = sys.modules["cnnlab.training.fine_tuning"]._features, keras.Model.fit
    monkeypatch.setattr("cnnlab.training.fine_tuning._features", lambda *a: made.append(real(*a)) or made[-1])
    monkeypatch.setattr(keras.Model, "fit", lambda self, x, *a, **o: fitted.append(x) or fit(self, x, *a, **o))
    training.fine_tune(learned, data, data, head_epochs=1, epochs=0)
    assert fitted[0] is made[0][0]


def _weight(network, path):
    return next(weight.numpy() for weight in network.weights if weight.path == path)


def test_a_second_phase_that_spoils_it_is_taken_back(learned, digits, data):
    val = pipelines.load(digits[digits["split"] == "val"], image_size=(8, 8))
    history = training.fine_tune(learned, data, val, head_epochs=1, epochs=1, unfreeze=1.0, learning_rate=30.0)
    head = history.phases.set_index("phase").loc["head", "val_loss"]
    assert learned.evaluate(val, verbose=0)[0] == pytest.approx(head, rel=1e-3)


@pytest.mark.parametrize(
    ("select", "epochs", "best"),
    [
        ("accuracy", [(0.5, 0.9), (0.7, 1.5), (0.6, 0.1)], 1),  # more right answers, too confident: still better
        ("accuracy", [(0.7, 0.9), (0.7, 0.4), (0.7, 0.5)], 1),
        ("accuracy", [(math.nan, math.nan), (0.1, 3.0), (0.2, math.inf)], 1),
        ("loss", [(0.5, 0.9), (0.7, 1.5), (0.6, 0.1)], 2),
        ("loss", [(0.9, math.nan), (0.1, 2.0), (0.2, 3.0)], 1),
    ],
)
def test_the_weights_that_are_kept_are_those_of_the_selected_epoch(select, epochs, best):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    keeper, weights = BestWeights(select), []
    keeper.set_model(model)
    for epoch, (accuracy, loss) in enumerate(epochs):
        model.set_weights([np.full_like(weight, epoch) for weight in model.get_weights()])
        weights.append(model.get_weights())
        keeper.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_loss": loss})
    keeper.on_train_end()
    assert model.get_weights()[0] == weights[best][0]
    with pytest.raises(ValueError, match=f"select='{select}'.*val_"):
        keeper.on_epoch_end(0, {"loss": 1.0})


def test_a_learning_rate_that_ends_in_nan_leaves_the_head(learned, digits, data):
    val = pipelines.load(digits[digits["split"] == "val"], image_size=(8, 8))
    history = training.fine_tune(learned, data, val, head_epochs=1, epochs=1, learning_rate=1e30)
    assert np.isnan(history.history["val_loss"][-1])
    assert all(np.isfinite(weight).all() for weight in learned.get_weights())
    head = history.phases.set_index("phase").loc["head", "val_accuracy"]
    assert learned.evaluate(val, verbose=0, return_dict=True)["accuracy"] == pytest.approx(head)


@pytest.mark.parametrize("best", [0, 0.25, 0.5, 0.75, 1])
def test_weights_before_and_after_are_averaged_where_validation_says_so(best):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(keras.layers.BatchNormalization()(inputs)))
    model.layers[1].trainable = False
    model.compile(loss="mse", jit_compile=False)
    before, after = [np.array([[0.1]], np.float32)], [np.array([[1.3]], np.float32)]
    wanted = before if best == 0 else after if best == 1 else [(1 - best) * before[0] + best * after[0]]
    images = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
    model.layers[-1].set_weights(wanted)
    data = tf.data.Dataset.from_tensor_slices((images, model.predict(images, verbose=0))).batch(8)
    qualities = []
    for end in (before, after):
        model.layers[-1].set_weights(end)
        qualities.append(quality({"val_loss": model.evaluate(data, verbose=0)}, "loss"))
    statistics = [np.array(weight) for weight in model.non_trainable_weights]
    assert average_weights(Task(model, None, data, "loss", {}), before, qualities) == best
    np.testing.assert_array_equal(model.layers[-1].get_weights(), wanted)  # at the ends bit by bit
    assert all(map(np.array_equal, statistics, model.non_trainable_weights))


@pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match")  # of arrays, without a graph
def test_fine_tuning_takes_a_seed_a_loss_and_callbacks(digits_model, digits, monkeypatch, eagerly):
    monkeypatch.setattr("cnnlab.training.fine_tuning.HEAD_STEPS", 10)
    rows = digits.groupby("label", observed=True).head(10)
    data = pipelines.load(rows, image_size=(8, 8), training=True, one_hot=True)
    val = pipelines.load(rows.tail(30), image_size=(8, 8), one_hot=True)
    start = models.reuse(digits_model, classes=NAMES).get_weights()
    weights = []
    for _ in range(2):
        model = models.reuse(digits_model, classes=NAMES)
        model.set_weights(start)
        begun = {"head": [], "layers": []}
        told = {name: [keras.callbacks.LambdaCallback(on_train_begin=seen.append)] for name, seen in begun.items()}
        training.fine_tune(
            model, data, val, head_epochs=1, epochs=1, seed=5,
            loss=keras.losses.CategoricalFocalCrossentropy(), callbacks=told["layers"], head_callbacks=told["head"],
        )  # fmt: skip
        weights.append(model.get_weights())
        assert [len(seen) for seen in begun.values()] == [1, 1]
        assert isinstance(model.loss, keras.losses.CategoricalFocalCrossentropy)
    assert all(map(np.array_equal, *weights))


@pytest.mark.parametrize("mixed", ["train", "val"])
def test_fine_tuning_asks_for_both_labels_in_one_form_before_it_begins(learned, data, mixed):
    parts = {"train": data, "val": data}
    parts[mixed] = data.map(lambda images, labels: (images, tf.one_hot(labels, 10)))
    with pytest.raises(ValueError, match="one_hot=True"):
        training.fine_tune(learned, **parts, epochs=0)


def test_a_network_with_its_own_train_step_is_fine_tuned_by_it(learned, data):
    seen = []

    class Own(keras.Model):
        def train_step(self, batch):
            seen.append(batch[0].shape[1:])
            return super().train_step(batch)

    own = Own(learned.inputs[0], learned.outputs[0])
    columns = data.map(lambda images, labels: (images, labels[:, None]))
    history = training.fine_tune(own, columns, columns, head_epochs=1, epochs=1)
    assert set(seen) == {(8, 8, 3)}
    assert history.history["phase"] == ["head", "layers"]
    assert (history.phases["moved"] == 0).all()


def test_endless_data_are_refused_by_fine_tuning(learned, data):
    with pytest.raises(ValueError, match=r"known length.*take\(n\)"):
        training.fine_tune(learned, data.repeat(), data)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (None, "at least one batch"),
        ((np.zeros((4, 6, 6, 3)), np.zeros(4)), r"size \(8, 8, 3\).*\(6, 6, 3\)"),
        ((np.zeros((4, 8, 8, 3)), np.arange(8, 12)), "10 classes.*8 to 11"),
        ((np.zeros((4, 8, 8, 3)), np.full(4, 0.5)), "10 classes.*0.5 to 0.5"),
        ((np.zeros((4, 8, 8, 3)), np.eye(4)), "10 classes.*4 shares"),
        ((np.zeros((4, 8, 8, 3)), np.array(list("abcd"))), "class numbers"),
    ],
    ids=["none", "size", "class numbers", "halves", "shares", "names"],
)
@pytest.mark.parametrize("part", ["train", "val"])
def test_data_that_does_not_fit_the_model_is_refused(learned, data, batch, part, said):
    parts = {"train": data, "val": data} | {part: [] if batch is None else [batch]}
    with pytest.raises(ValueError, match=said):
        training.fine_tune(learned, **parts, head_epochs=1, epochs=0)
    with pytest.raises(ValueError, match="NoneType"):
        training.fine_tune(learned, **parts | {part: None})


def test_rates_fall_from_the_head_down(learned):
    models.unfreeze(learned, share=1.0)
    rule = discriminative(learned, 0.01, steps=10)
    rates = [rule._optimizer_map(weight)._learning_rate.warmup_target or rule._optimizer_map(weight)._learning_rate
             for layer in [*models.trainable_layers(learned), learned.get_layer("probabilities")]
             for weight in layer.trainable_weights[:1]]  # fmt: skip
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] == 0.01


@pytest.mark.parametrize("options", [{"head_epochs": 0}, {"epochs": -1}, {"unfreeze": 2}, {"learning_rate": 0}])
def test_impossible_fine_tuning_is_refused(learned, data, options):
    with pytest.raises(ValueError, match="fine_tune"):
        training.fine_tune(learned, data, data, **options)


def test_random_state_is_put_back():
    from cnnlab.training.state import set_random_state

    keras.random.normal(())
    state = random_state()
    first = random.random(), np.random.normal(), float(keras.random.normal(()))  # noqa: NPY002
    set_random_state(state)
    assert (random.random(), np.random.normal(), float(keras.random.normal(()))) == first  # noqa: NPY002

"""Private names of Keras and TensorFlow that the package relies on: an upstream release that changes one fails here."""

import keras
import numpy as np
import pytest
from keras.src.random import seed_generator

from cnnlab import _upstream


@pytest.fixture
def network():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


IMAGES, LABELS = np.ones((4, 3), "float32"), np.array([0, 1, 0, 1])


def test_a_callback_sees_the_fit_around_it(network):
    class Looks(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.fit = _upstream.fit_around(self)

    looks, other = Looks(), keras.callbacks.LambdaCallback()
    network.fit(
        IMAGES, LABELS, validation_data=(IMAGES, LABELS), validation_freq=2, class_weight={0: 1.0, 1: 2.0}, epochs=2,
        steps_per_epoch=1, batch_size=4, verbose=0, callbacks=[looks, other],
    )  # fmt: skip
    assert {looks, other, network.history} <= set(looks.fit.callbacks)
    told = looks.fit.arguments
    assert told["x"] is IMAGES
    assert told["y"] is LABELS
    assert told["validation_data"] is not None
    assert (told["validation_freq"], told["steps_per_epoch"], told["class_weight"]) == (2, 1, {0: 1.0, 1: 2.0})
    assert _upstream.fit_around(keras.callbacks.Callback()).arguments == {}


def test_keras_knows_the_direction_of_its_metrics(network):
    network.compile("sgd", "mse", metrics=["mae", "accuracy", keras.metrics.TruePositives(name="hits")])
    network.fit(IMAGES, np.eye(2)[LABELS], verbose=0)
    names = ("loss", "val_loss", "val_mae", "accuracy", "val_accuracy", "hits", "nothing")
    assert [_upstream.metric_mode(network, name) for name in names] == ["min", "min", "min", "max", "max", None, None]


def test_a_symbolic_tensor_names_its_operation(network):
    assert _upstream.operation_of(network.outputs[0]) is network.layers[-1]
    assert _upstream.operation_of(network.inputs[0]).output is network.inputs[0]


def test_the_calls_of_a_network_are_in_order():
    image = keras.Input((3,))
    one = keras.layers.Dense(4)(image)
    two = keras.layers.Add()([keras.layers.Dense(4)(one), one])
    model = keras.Model(image, two)
    calls = _upstream.calls_of(model)
    assert [type(call.operation).__name__ for call in calls] == ["Dense", "Dense", "Add"]
    assert calls[0].input_tensors[0] is model.inputs[0] and calls[-1].output_tensors[0] is model.outputs[0]
    assert len(calls[-1].input_tensors) == 2


def test_layers_inside_layers_are_found(network):
    inner = keras.layers.SpectralNormalization(keras.layers.Dense(2))
    outer = keras.Sequential([keras.Input((3,)), network, inner])
    assert {outer, network, network.layers[0], inner, inner.layer} <= set(_upstream.layers_within(outer))


def test_what_compile_was_given_is_kept_as_it_is(network):
    def loss(y, p):
        return keras.ops.mean(p)

    optimizer = keras.optimizers.SGD(0.5)
    network.compile(optimizer, loss, metrics=["accuracy", loss], loss_weights=[2.0], jit_compile=False)
    given = _upstream.compiled_with(network)
    assert given["optimizer"] is optimizer and given["loss"] is loss and given["metrics"] == ["accuracy", loss]
    assert given["loss_weights"] == [2.0] and given["weighted_metrics"] is None


def test_what_was_imported_with_keras_is_left_out_of_collections():
    import gc

    assert gc.isenabled() and gc.get_freeze_count() > 300_000


def test_metrics_know_their_direction():
    kinds = keras.metrics.AUC, keras.metrics.F1Score, keras.metrics.MeanSquaredError, keras.metrics.Mean
    assert [_upstream.metric_direction(kind()) for kind in kinds] == ["max", "max", "min", None]


def test_the_register_of_gradients_grows_with_a_custom_gradient():
    import tensorflow as tf

    @tf.custom_gradient
    def same(x):
        return x, lambda up: up

    before = set(_upstream.gradient_register())
    tf.function(same)(tf.constant(1.0))
    new = set(_upstream.gradient_register()) - before
    assert new and all(name.startswith("CustomGradient-") for name in new)


def test_a_built_dropout_gets_a_generator_that_is_part_of_its_state():
    layer = keras.layers.Dropout(0.0, seed=3)
    layer(IMAGES)
    assert getattr(layer, "seed_generator", None) is None and not layer.variables
    with pytest.raises(ValueError, match="already built"):
        layer.seed_generator = keras.random.SeedGenerator(3)
    _upstream.add_seed_generator(layer)
    layer.rate = 0.5
    assert [variable.path for variable in layer.variables] == [layer.seed_generator.state.path]
    assert (np.asarray(layer(np.ones((99, 3)), training=True)) == 0).any()
    with pytest.raises(ValueError, match="already built"):
        layer.other = keras.random.SeedGenerator(3)  # locked again


def test_a_fit_can_begin_at_a_later_epoch(network):
    begin = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: _upstream.begin_at_epoch(network, 2))
    assert network.fit(IMAGES, LABELS, epochs=3, verbose=0, callbacks=[begin]).epoch == [2]
    _upstream.begin_at_epoch(network, None)
    assert network.fit(IMAGES, LABELS, epochs=2, verbose=0).epoch == [0, 1]


def test_metrics_can_be_built_before_the_first_step(network):
    before = len(network.metrics_variables)
    _upstream.build_for_training(network, (IMAGES, LABELS))
    after = len(network.metrics_variables)
    network.fit(IMAGES, LABELS, verbose=0)
    assert before < after == len(network.metrics_variables)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_step_whose_variables_are_there_is_traced_once(ahead):
    """Where this fails without building ahead, Keras builds by itself, and `build_before_tracing` can go."""
    traces = []

    class Own(keras.Model):
        def train_step(self, data):
            traces.append(data)
            return super().train_step(data)

    def trained():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,))
        outputs = keras.layers.Dense(2, "softmax", name="last")(keras.layers.Dropout(0.5)(inputs))
        model = Own(inputs, outputs)
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
        return model

    model, plain = trained(), trained()
    if ahead:
        _upstream.build_before_tracing(model)
    model.evaluate(IMAGES, LABELS, verbose=0)
    assert not model.optimizer.built  # nobody trains yet
    history = model.fit(IMAGES, LABELS, epochs=3, verbose=0, class_weight={0: 1.0, 1: 2.0}).history
    assert len(traces) == (1 if ahead else 2)
    assert history == plain.fit(IMAGES, LABELS, epochs=3, verbose=0, class_weight={0: 1.0, 1: 2.0}).history
    names = [[variable.path.split("/")[-1] for variable in one.optimizer.variables] for one in (model, plain)]
    assert names[0] == names[1]


def test_what_cannot_be_built_ahead_is_left_to_the_first_step():
    class Odd(keras.Model):
        def call(self, images, training=None):
            if not training:
                raise ZeroDivisionError
            return images * self.trainable_weights[0]

        def build(self, shape):
            self.add_weight((3,), name="one")

    model = Odd()
    model.build((None, 3))
    model.compile("sgd", "mse", jit_compile=False)
    _upstream.build_before_tracing(model)
    assert len(model.fit(IMAGES, IMAGES, verbose=0).history["loss"]) == 1


def test_a_twin_shares_weights_and_is_compiled_by_itself():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.seen = keras.layers.Dense(2, activation="softmax"), 0

        def call(self, images):
            return self.dense(images)

        def train_step(self, data):
            self.seen += 1
            return super().train_step(data)

    model = Own()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    model(IMAGES)
    compiled = dict(vars(model))
    model.fit = lambda *_, **__: pytest.fail("the model itself is trained")
    twin = _upstream.compiled_twin(model)
    twin.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", jit_compile=False)
    before = model.get_weights()
    twin.fit(IMAGES, LABELS, verbose=0)
    assert twin.seen > 0 == model.seen
    assert not np.array_equal(before[0], model.get_weights()[0])
    del model.fit
    assert {key for key in compiled if compiled[key] is not vars(model)[key]} == set()
    assert len(model.fit(IMAGES, LABELS, verbose=0).history["accuracy"]) == 1


def several(rule):
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(rule))


def scaled(rule):
    return keras.optimizers.LossScaleOptimizer(rule)


def scaled_several(rule):
    return scaled(several(rule))


def test_optimizers_are_found_however_deep():
    rule, other = keras.optimizers.SGD(), keras.optimizers.Adam()
    both = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(rule, {"head/.*": other}))
    assert _upstream.optimizers_in(rule) == [rule]
    assert _upstream.optimizers_in(outer := scaled(both)) == [outer, both, other, rule]


@pytest.mark.parametrize("wrap", [lambda one: one, scaled, several, scaled_several])
def test_schedules_are_found(wrap):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert _upstream.schedules_of(wrap(keras.optimizers.SGD(schedule))) == [schedule]
    assert _upstream.schedules_of(wrap(keras.optimizers.SGD(0.1))) == []


def test_keras_asks_for_the_compile_configuration_when_it_saves(network, tmp_path):
    told = []
    plain = network.get_compile_config

    def asked():
        told.append(_upstream.called_while_saving())
        return plain()

    network.get_compile_config = asked
    network.get_compile_config()
    keras.models.clone_model(network)
    assert not any(told)
    network.save(tmp_path / "model.keras")
    assert told[-1]


def test_the_global_generator_is_the_one_keras_draws_from():
    made = _upstream.make_global_generator()
    assert _upstream.global_generator() is made is seed_generator.global_seed_generator()
    before = np.asarray(made.state)
    keras.random.normal(())
    assert not np.array_equal(before, np.asarray(made.state))
    _upstream.forget_global_generator()
    assert _upstream.global_generator() is None
    keras.random.normal(())
    assert _upstream.global_generator() is not None


def test_the_call_that_made_a_tensor_is_found_and_forgotten(network):
    (dense,), image = network.layers, keras.Input((3,))
    before = len(dense._inbound_nodes)
    with _upstream.calls_forgotten(network):
        scores = dense(image)
        call = _upstream.call_that_made(scores)
        assert (call.operation, call.input_tensors[0], call.output_tensors[0]) == (dense, image, scores)
        assert len(dense._inbound_nodes) == before + 1
    assert len(dense._inbound_nodes) == before
    assert _upstream.call_that_made(network.outputs[0]).operation is dense

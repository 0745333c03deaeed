"""What a frozen network must not do at random, and does again once it may learn."""

import keras
import numpy as np
import pytest

from cnnlab import models
from cnnlab.models.freezing import leaf_layers

layers = keras.layers


@keras.saving.register_keras_serializable(package="tests")
class DropPath(layers.Layer):
    """As in ConvNeXt: says how much by `drop_path_rate`."""

    def __init__(self, drop_path_rate, **kwargs):
        super().__init__(**kwargs)
        self.drop_path_rate = drop_path_rate

    def call(self, inputs, training=None):
        return inputs * (1 + self.drop_path_rate) if training else inputs

    def get_config(self):
        return super().get_config() | {"drop_path_rate": self.drop_path_rate}


RATES = {"drop_1": 0.3, "noise": 0.4, "path": 0.2, "drop_2": 0.5}
ATTRIBUTE = {"noise": "stddev", "path": "drop_path_rate"}


@pytest.fixture
def reused():
    """A network that learned before, with everything that changes features at random, as a new one's backbone."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv_1")(layers.Rescaling(1 / 255)(inputs))
    x = layers.SpatialDropout2D(RATES["drop_1"], name="drop_1")(x)
    x = layers.Conv2D(4, 3, name="conv_2")(x)
    x = layers.GaussianNoise(RATES["noise"], name="noise")(x)
    x = DropPath(RATES["path"], name="path")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(8, name="features")(x)
    x = layers.Dropout(RATES["drop_2"], seed=3, name="drop_2")(x)
    x = layers.Activation("relu")(x)
    learned = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    return models.reuse(learned, classes=["a", "b"], dropout=0.0)


def rates(model):
    inside = models.backbone(model)
    return {name: getattr(inside.get_layer(name), ATTRIBUTE.get(name, "rate")) for name in RATES}


def varies(model):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("float32")
    answers = [keras.ops.convert_to_numpy(model(images, training=True)) for _ in range(2)]
    return not np.allclose(answers[0], answers[1], rtol=1e-6)


@pytest.mark.parametrize("reloaded", [False, True])
def test_dropout_sleeps_while_frozen_and_comes_back_with_learning(reused, reloaded, tmp_path):
    model = reused
    if reloaded:
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    nothing = dict.fromkeys(RATES, 0)
    assert rates(model) == nothing and not varies(model)
    models.unfreeze(model, layers=["features"])
    assert rates(model) == nothing | {"drop_2": 0.5}
    assert varies(model)
    models.unfreeze(model, share=1.0)
    assert rates(model) == RATES
    models.unfreeze(model, layers=["conv_2"])
    assert rates(model) == RATES | {"drop_1": 0}
    models.unfreeze(model, share=0)
    assert rates(model) == nothing and not varies(model)


def test_a_model_saved_in_between_goes_on_with_its_rates(reused, tmp_path):
    models.unfreeze(reused, layers=["features"])
    reused.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert rates(again)["drop_2"] == 0.5 and varies(again)
    models.unfreeze(again, share=1.0)
    assert rates(again) == RATES
    again.compile("sgd", "sparse_categorical_crossentropy")
    again.fit(np.zeros((4, 8, 8, 3)), np.zeros(4), verbose=0)


def test_a_change_of_rates_alone_asks_for_compile(reused):
    """Keras would go on with the rates it compiled."""
    models.unfreeze(reused, share=1.0)
    reused.compile("sgd", "sparse_categorical_crossentropy")
    models.backbone(reused).get_layer("drop_1").rate = 0.0
    assert not models.unfreeze(reused, share=1.0).compiled


def test_the_earlier_name_still_answers(reused):
    models.unfreeze(reused, layers=["features"])
    with pytest.warns(DeprecationWarning, match=r"is now `models\.trainable_layers`"):
        assert [layer.name for layer in models.learning(reused)] == ["features"]


def test_a_network_that_was_never_frozen_keeps_its_rates_too(monkeypatch):
    inputs = keras.Input((32, 32, 3))
    x = layers.Dropout(0.3, name="drop")(layers.Conv2D(4, 3, name="conv")(inputs))
    monkeypatch.setattr("cnnlab.models.transfer.constructor", lambda name: lambda **options: keras.Model(inputs, x))
    model = models.pretrained("MobileNet", image_size=(32, 32), classes=["a", "b"], weights=None)
    drop = models.backbone(model).get_layer("drop")
    assert drop.rate == 0.3
    assert models.unfreeze(model, share=0) is model and drop.rate == 0
    assert models.unfreeze(model, share=1.0) is model and drop.rate == 0.3


def test_rates_survive_being_reused_twice(reused):
    twice = models.reuse(reused, classes=["x", "y", "z"])
    models.unfreeze(twice, share=1.0)
    inside = {layer.name: layer for layer in leaf_layers(models.backbone(twice))}
    assert {name: getattr(inside[name], ATTRIBUTE.get(name, "rate")) for name in RATES} == RATES

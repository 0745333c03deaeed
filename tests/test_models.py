import keras
import numpy as np
import pytest

from cnnlab import models

STRANGE = ['a, "b"', "two\nlines", "<script>", "猫", "a/b", "$x$"]


def test_class_names_survive_plain_keras(tmp_path):
    model = models.small_cnn(image_size=(8, 8), classes=STRANGE, filters=(4,))
    model.save(tmp_path / "model.keras")
    for other in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model)):
        assert models.class_names(other) == STRANGE
    with pytest.raises(ValueError, match="carries none"):
        models.class_names(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]))


def test_a_saved_model_needs_nothing_of_cnnlab(tmp_path):
    model = models.small_cnn(image_size=(8, 8), classes=["a", "b"])
    for layer in model.layers:
        assert type(layer).__module__.startswith("keras."), layer
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("float32")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))


def test_raw_pixels_go_in_and_probabilities_come_out():
    model = models.small_cnn(image_size=(12, 10), classes=["a", "b", "c"], channels=1)
    assert model.input_shape == (None, 12, 10, 1)
    rescaled = keras.Model(model.input, model.get_layer("rescaling").output)
    edges = np.array([0.0, 255.0], "float32").reshape(2, 1, 1, 1) * np.ones((2, 12, 10, 1), "float32")
    np.testing.assert_allclose(np.unique(rescaled.predict(edges, verbose=0)), [-1, 1], atol=1e-6)
    np.testing.assert_allclose(model.predict(edges, verbose=0).sum(axis=1), 1, rtol=1e-6)


def test_batch_normalisation_can_be_switched():
    kinds = [
        {
            type(layer).__name__
            for layer in models.small_cnn(image_size=(8, 8), classes=["a", "b"], batch_norm=on).layers
        }
        for on in (True, False)
    ]
    assert ("BatchNormalization" in kinds[0], "BatchNormalization" in kinds[1]) == (True, False)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (224, 224)])
def test_any_size_builds(size):
    model = models.small_cnn(image_size=size, classes=["a", "b"])
    assert model.predict(np.zeros((1, *size, 3)), verbose=0).shape == (1, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"classes": 10}, TypeError, "names of the classes"),
        ({"classes": "cats"}, TypeError, "names of the classes"),
        ({"classes": ["a"]}, ValueError, "at least two"),
        ({"classes": ["a", "a"]}, ValueError, "different names"),
        ({"image_size": 96}, ValueError, "Received: 96"),
        ({"image_size": (0, 8)}, ValueError, r"Received: \(0, 8\)"),
        ({"image_size": (8.5, 8)}, ValueError, r"Received: \(8.5, 8\)"),
        ({"filters": ()}, ValueError, "`filters`"),
        ({"filters": (8, 0)}, ValueError, "`filters`"),
    ],
)
def test_impossible_networks_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        models.small_cnn(**{"image_size": (8, 8), "classes": ["a", "b"]} | arguments)

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
    with pytest.raises(ValueError, match=r"models\.with_classes"):
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
@pytest.mark.parametrize("build", [models.small_cnn, models.residual_cnn])
def test_any_size_builds(build, size):
    model = build(image_size=size, classes=["a", "b"])
    assert np.asarray(model(np.zeros((1, *size, 3), "float32"))).shape == (1, 2)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_residual_blocks_start_as_if_they_were_not_there(batch_norm, tmp_path):
    """Before training, the answer is that of a network in which the blocks' second convolutions do not exist."""
    build = {"image_size": (16, 16), "classes": ["a", "b"], "filters": (4, 8), "batch_norm": batch_norm}
    model = models.residual_cnn(blocks=3, **build)
    assert any("batch_norm" in layer.name for layer in model.layers) == batch_norm
    shallow = models.residual_cnn(blocks=1, **build)
    for layer in shallow.layers:
        layer.set_weights(model.get_layer(layer.name).get_weights())
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(np.asarray(model(images)), np.asarray(shallow(images)), rtol=1e-3)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(np.asarray(again(images)), np.asarray(model(images)))
    assert models.class_names(again) == ["a", "b"]


@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_residual_network_learns(batch_norm, digits):
    from cnnlab import pipelines, training

    data = pipelines.load(digits[digits["split"] == "train"], image_size=(8, 8), training=True, seed=0)
    model = models.residual_cnn(
        image_size=(8, 8), classes=digits["label"].cat.categories, filters=(8, 16), blocks=1, batch_norm=batch_norm
    )
    training.compile(model, learning_rate=training.one_cycle(0.01, steps=4 * len(data)))
    model.fit(data, epochs=4, verbose=0)
    val = pipelines.load(digits[digits["split"] == "val"], image_size=(8, 8))
    assert model.evaluate(val, verbose=0)[1] > 0.9


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"classes": 10}, TypeError, "names of the classes"),
        ({"classes": "cats"}, TypeError, "names of the classes"),
        ({"classes": ["a"]}, ValueError, "at least two"),
        ({"classes": ["a", "a"]}, ValueError, "different names"),
        ({"classes": ["a"] * 500}, ValueError, r"Received 500 names, .{48}, …\.$"),
        ({"image_size": 96}, ValueError, "Received: image_size=96"),
        ({"image_size": (0, 8)}, ValueError, r"image_size=\(0, 8\)"),
        ({"image_size": (8.5, 8)}, ValueError, r"image_size=\(8.5, 8\)"),
        ({"filters": ()}, ValueError, "`filters`"),
        ({"filters": (8, 0)}, ValueError, "`filters`"),
        ({"channels": 2}, ValueError, "`channels`"),
        ({"dropout": 1}, ValueError, "`dropout` from 0 to below 1"),
    ],
)
@pytest.mark.parametrize("build", [models.small_cnn, models.residual_cnn])
def test_impossible_networks_are_refused(build, arguments, error, words):
    with pytest.raises(error, match=words):
        build(**{"image_size": (8, 8), "classes": ["a", "b"]} | arguments)


@pytest.mark.parametrize("blocks", [0, 1.5])
def test_a_stage_has_blocks(blocks):
    with pytest.raises(ValueError, match="`blocks` of 1 or more"):
        models.residual_cnn(image_size=(8, 8), classes=["a", "b"], blocks=blocks)


def test_the_residual_network_is_a_wide_residual_network():
    """Zagoruyko and Komodakis count 0.7 million weights in WRN-16-2."""
    model = models.residual_cnn(image_size=(28, 28), channels=1, classes=[str(digit) for digit in range(10)])
    assert 680_000 < model.count_params() < 700_000
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert sum(layer.kernel_size == (3, 3) for layer in convolutions) == 13

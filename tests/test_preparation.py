"""One preparation: size, channels, resize mode and levels belong to the model, whoever built it."""

import itertools
import subprocess
import sys
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import experiments, images, models, pipelines, training
from cnnlab.models.metadata import TAG

NAMES = ["left", "none"]
layers = keras.layers


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Wide pictures in colours; what tells the classes apart is at the left edge, which "fit" cuts off."""
    folder, rng = tmp_path_factory.mktemp("wide"), np.random.default_rng(0)
    rows = []
    for number in range(24):
        pixels = rng.integers(40, 90, (16, 64, 3), np.uint8)
        if number % 2 == 0:
            pixels[:, :12, 1] = 250
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append({"path": str(folder / f"{number}.png"), "label": NAMES[number % 2]})
    return pd.DataFrame(rows).astype({"label": "category"})


@pytest.fixture(autouse=True)
def _nothing_loaded_before(monkeypatch):
    monkeypatch.setattr("cnnlab.pipelines.loading._trained", {})


def sequential(units=2, activation="softmax", channels=3, size=(16, 16)):
    shape = [keras.Input((*size, channels))]
    return keras.Sequential(
        [*shape, layers.Rescaling(1 / 255), layers.Conv2D(4, 3), layers.GlobalMaxPooling2D(),
         layers.Dense(units, activation=activation)]
    )  # fmt: skip


def functional(units=2, activation="softmax", channels=3):
    inputs = keras.Input((16, 16, channels))
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, layers.Dense(units, activation=activation)(x))


class Subclassed(keras.Model):
    """Code of one's own, with a training step of its own."""

    def __init__(self, units=2, activation="softmax", channels=3, **kwargs):
        super().__init__(**kwargs)
        self.body, self.steps = functional(units, activation, channels), 0

    def call(self, inputs, training=False):
        return self.body(inputs, training=training)

    def train_step(self, data):
        self.steps += 1
        return super().train_step(data)


def first_batch(dataset):
    return next(iter(dataset.as_numpy_iterator()))[0]


# What the model says is what is done


@pytest.mark.parametrize("resize", ["fit", "pad", "stretch"])
@pytest.mark.parametrize("channels", [1, 3])
def test_load_like_a_model_prepares_as_it_says(wide, resize, channels):
    model = models.small_cnn(image_size=(12, 20), classes=NAMES, filters=(4,), channels=channels, resize=resize)
    prepared = models.preparation(model)
    assert prepared == images.Preparation((12, 20), channels, resize)
    for dataset in (pipelines.load(wide, like=model), pipelines.load(wide, like=prepared)):
        batch = first_batch(dataset)
        assert dataset.element_spec[0].shape == (None, 12, 20, channels)
        for row in (0, 1):
            np.testing.assert_array_equal(batch[row], images.prepare(wide["path"][row], prepared))
    if channels == 1:  # as Pillow's own grey, of the picture at its size
        colour = images.prepare(wide["path"][0], images.Preparation((12, 20), 3, resize))
        np.testing.assert_array_equal(batch[0, ..., 0], np.asarray(Image.fromarray(colour).convert("L")))


def test_training_augments_in_colour_and_hands_on_grey(wide):
    from cnnlab import augment

    model = models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(4,), channels=1)
    options = {"training": True, "seed": 0, "augment": augment.Policy(rotate=5, hue=0.2, mixup=0.3)}
    batch = first_batch(pipelines.load(wide, like=model, **options))
    assert batch.shape == (24, 16, 16, 1) and batch.std() > 5


def test_labels_in_another_order_than_the_outputs_are_refused(wide):
    model = models.with_classes(sequential(), NAMES[::-1])
    with pytest.raises(ValueError, match=r"network for the classes none, left\. The table has left, none, so a label"):
        pipelines.load(wide, like=model, training=True, seed=0)
    ordered = wide.assign(label=wide["label"].cat.set_categories(models.class_names(model)))  # as it advises
    labels = next(iter(pipelines.load(ordered, like=model)))[1].numpy()
    assert [models.class_names(model)[code] for code in labels] == wide["label"].tolist()
    one = wide[wide["label"] == "none"].assign(label=lambda rows: rows["label"].cat.remove_unused_categories())
    with pytest.raises(ValueError, match="would be the number of another class"):
        pipelines.load(one, like=models.with_classes(sequential(), NAMES))
    renamed = wide.assign(label=wide["label"].cat.rename_categories(["up", "down"]))  # for `models.reuse`
    assert first_batch(pipelines.load(renamed, like=model)).shape[1:] == (16, 16, 3)


def test_validation_images_must_be_numbered_and_scaled_as_the_training_images(wide):
    """Also for a network that knows no names: a test folder read on its own may lack a class."""
    model = training.compile(sequential())
    train = pipelines.load(wide, image_size=(16, 16), training=True, seed=0)
    turned = wide.assign(label=wide["label"].cat.reorder_categories(wide["label"].cat.categories[::-1]))
    with pytest.warns(UserWarning, match="gives other numbers"):
        val = pipelines.load(turned, image_size=(16, 16))
    with pytest.raises(ValueError, match=r"same classes, in the same order.*set_categories"):
        model.fit(train, validation_data=val, verbose=0)
    darker = pipelines.load(wide, image_size=(16, 16), levels=(0, 4095))
    with pytest.raises(ValueError, match=r"same `levels`\. Received None and \(0"):
        model.fit(train, validation_data=darker, verbose=0)


def test_levels_travel_with_the_model(tmp_path, caplog):
    deep = np.linspace(0, 4095, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    table = pd.DataFrame({"path": [str(tmp_path / "deep.png")] * 2, "label": pd.Categorical(NAMES)})
    model = models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(4,), levels=(0, 4095))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert models.preparation(again).levels == (0, 4095)
    batch = first_batch(pipelines.load(table, like=again))
    np.testing.assert_array_equal(batch[0, ..., 0], np.rint(deep / 4095 * 255))
    assert not caplog.records
    assert first_batch(pipelines.load(table, image_size=(16, 16))).max() == 16
    assert ["more than 8 bits" in record.getMessage() for record in caplog.records] == [True]


def test_the_levels_that_audit_found_are_used_and_said_once(tmp_path, caplog, monkeypatch):
    from cnnlab import audit

    monkeypatch.setattr("cnnlab.pipelines.loading._levels_said", set())
    deep = np.linspace(0, 4000, 256, dtype=np.uint16).reshape(16, 16)
    for number in range(2):
        Image.fromarray(deep + number).save(tmp_path / f"{number}.png")
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    table = audit.scan(pd.DataFrame({"path": paths, "label": pd.Categorical(NAMES)}))
    for _ in range(2):
        batch = first_batch(pipelines.load(table, image_size=(16, 16)))
        np.testing.assert_array_equal(batch[0, ..., 0], np.rint(deep / 4095 * 255))
    assert ["Levels 0 to 4095" in record.getMessage() for record in caplog.records] == [True]
    said = first_batch(pipelines.load(table, image_size=(16, 16), levels=(0, 8000)))
    assert said.max() == round(4000 / 8000 * 255)


@pytest.mark.parametrize(("resize", "right"), [("pad", 1.0), ("stretch", 1.0), ("fit", 0.5)])
def test_predict_asks_the_model(wide, resize, right):
    """A rule set by hand: the network answers by how green the left edge is, which "fit" cuts off."""
    edge, dense = layers.Cropping2D(((7, 7), (0, 13))), layers.Dense(2, activation="softmax")
    plain = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Rescaling(1 / 255), edge, layers.GlobalMaxPooling2D(), dense]
    )
    dense.set_weights([np.array([[0, 0], [20, -20], [0, 0]], "float32"), np.array([-14, 14], "float32")])
    predictions = experiments.predict(models.with_classes(plain, NAMES, resize=resize), wide)
    assert (predictions["predicted"] == wide["label"]).mean() == right


def test_training_images_prepared_otherwise_are_named(wide):
    model = models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(4,))
    pipelines.load(wide, image_size=(16, 16), training=True, seed=0, resize="pad")
    with pytest.warns(UserWarning, match=r"prepared otherwise \(.*resize='pad'.*\) than the model says \(.*'fit'"):
        experiments.predict(model, wide)
    told = models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(4,), resize="pad")
    experiments.predict(told, wide)
    pipelines.load(wide, like=model, training=True, seed=0)
    experiments.predict(model, wide)  # both were trained: nothing to say
    grey = models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(4,), channels=1)
    with pytest.warns(UserWarning, match="channels=3"):
        experiments.predict(grey, wide)


def test_like_and_other_words_do_not_contradict(wide):
    model = models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(4,))
    assert len(pipelines.load(wide, like=model, image_size=(16, 16), resize="fit")) == 1
    with pytest.raises(ValueError, match=r"already says how images are prepared.*resize='pad'.*where the model"):
        pipelines.load(wide, like=model, resize="pad")
    with pytest.raises(ValueError, match=r"Received: image_size=\(8, 8\)"):
        pipelines.load(wide, like=model, image_size=(8, 8))
    with pytest.raises(ValueError, match="expects `like=model`, or `image_size="):
        pipelines.load(wide)


# Networks of one's own


EVERYDAY = [(sequential, 1, 3), (functional, 2, 1), (Subclassed, 1, 1), (Subclassed, 2, 3)]


@pytest.mark.parametrize(
    ("build", "units", "channels"),
    [
        pytest.param(*kind, marks=[] if kind in EVERYDAY else pytest.mark.slow)
        for kind in itertools.product([sequential, functional, Subclassed], [1, 2], [1, 3])
    ],
)
def test_a_network_of_ones_own_is_trained_and_scored(wide, build, units, channels):
    plain = build(units, "sigmoid" if units == 1 else "softmax", channels)
    if build is Subclassed:
        plain(np.zeros((1, 16, 16, channels)))
    model = models.with_classes(plain, NAMES, resize="stretch")
    assert (model is plain) == (build is Subclassed)
    assert models.class_names(model) == NAMES
    assert models.preparation(model) == images.Preparation((16, 16), channels, "stretch")
    model.compile(
        keras.optimizers.Adam(0.05),
        "binary_crossentropy" if units == 1 else "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    model.fit(pipelines.load(wide, like=model, training=True, seed=0), epochs=2, verbose=0)
    if build is Subclassed:
        assert model.steps > 0
    predictions = experiments.predict(model, wide)
    outputs = model.predict(pipelines.load(wide, like=model), verbose=0)
    expected = outputs[:, -1]  # of one sigmoid, and of two outputs, the last is the second class
    np.testing.assert_allclose(predictions["p_none"], expected, rtol=1e-6)
    np.testing.assert_allclose(predictions["p_left"], 1 - expected, atol=1e-6)


def test_names_travel_with_plain_networks(tmp_path):
    for number, plain in enumerate((sequential(), functional())):
        model = models.with_classes(plain, ["a/b", "c d"], resize="pad", levels=(0, 1023))
        assert model.count_params() == plain.count_params()
        assert type(model.layers[-1]) is layers.Dropout
        for file in (f"{number}.keras", f"{number}.h5"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras advises against .h5
                model.save(tmp_path / file)
            again = keras.models.load_model(tmp_path / file)
            assert models.class_names(again) == ["a/b", "c d"]
            assert models.preparation(again) == images.Preparation((16, 16), 3, "pad", (0, 1023))
        renamed = models.with_classes(model, ["x", "y"])
        assert models.class_names(renamed) == ["x", "y"]
        assert [layer.name for layer in renamed.layers].count(TAG) == 1
        other = models.reuse(model, classes=["1", "2", "3"])
        assert models.class_names(other) == ["1", "2", "3"]
        assert models.preparation(other) == models.preparation(model)


def test_a_model_within_another_keeps_its_names():
    inner = models.small_cnn(image_size=(8, 8), classes=NAMES, filters=(4,))
    assert models.class_names(keras.Sequential([keras.Input((8, 8, 3)), inner])) == NAMES


def test_a_model_of_version_0_1_keeps_its_names(tmp_path):
    """There the names alone stood in the layer's configuration, as a list."""
    inputs = keras.Input((8, 8, 3))
    scores = layers.Dense(2, activation="softmax")(layers.Flatten()(inputs))
    keras.Model(inputs, layers.Dropout(0.0, seed=NAMES, name=TAG)(scores)).save(tmp_path / "old.keras")
    old = keras.models.load_model(tmp_path / "old.keras")
    assert models.class_names(old) == NAMES
    assert models.preparation(old) == images.Preparation((8, 8))


def test_a_network_without_names_takes_those_of_the_table(wide):
    plain = sequential()
    with pytest.warns(
        UserWarning,
        match=r"carries no class names.*left, none, and images .* resize='fit'\. `models\.with_classes",
    ):
        first = experiments.predict(plain, wide)
    second = experiments.predict(plain, wide)  # said once
    pd.testing.assert_frame_equal(first, second)
    assert first.columns[-2:].tolist() == ["p_left", "p_none"]
    with pytest.raises(ValueError, match=r"one output per class.*has 3 outputs for 2 classes"):
        experiments.predict(sequential(3), wide)


def test_a_network_for_any_size_has_to_be_told(wide):
    open_size = sequential(size=(None, None))
    with pytest.raises(ValueError, match=r"images of any size. Say which: .*with_classes"):
        models.with_classes(open_size, NAMES)
    model = models.with_classes(open_size, NAMES, image_size=(16, 64))
    assert models.preparation(keras.models.clone_model(model)).image_size == (16, 64)
    assert first_batch(pipelines.load(wide, like=model)).shape == (24, 16, 64, 3)
    unbuilt = keras.Sequential(
        [layers.Conv2D(2, 3), layers.GlobalMaxPooling2D(), layers.Dense(2, activation="softmax")]
    )
    assert models.preparation(models.with_classes(unbuilt, NAMES, image_size=(9, 8))).image_size == (9, 8)
    with pytest.raises(ValueError, match=r"takes images of 16×16 pixels. Received: image_size=\(8, 8\)"):
        models.with_classes(sequential(), NAMES, image_size=(8, 8))


def two_inputs():
    one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    return keras.Model([one, two], layers.Dense(2, activation="softmax")(layers.Flatten()(layers.Add()([one, two]))))


def two_outputs():
    inputs = keras.Input((8, 8, 3))
    x = layers.Flatten()(inputs)
    return keras.Model(inputs, [layers.Dense(2, activation="softmax")(x), layers.Dense(2, activation="softmax")(x)])


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (two_inputs, "one input, a batch of images.*has 2"),
        (two_outputs, r"one output of shape \(batch, classes\).*returns \(None, 2\), \(None, 2\)"),
        (lambda: sequential(3), "has 3 outputs for 2 classes"),
        (lambda: sequential(2, None), "expects probabilities.*activation='softmax'.*has 'linear'.*from_logits"),
        (lambda: sequential(2, "sigmoid"), "Several labels for one image are not supported"),
        (lambda: sequential(1, None), "activation='sigmoid'.*has 'linear'"),
        (lambda: sequential(1, "tanh"), "activation='sigmoid'.*has 'tanh'"),
        (lambda: sequential(2, "log_softmax"), "activation='softmax'.*has 'log_softmax'"),
        (lambda: keras.Sequential([sequential(2, None), layers.Activation("linear")]), "has 'linear'"),
        (lambda: sequential(channels=4), r"3 channels \(colour\) or 1 \(grey\).*takes \(None, 16, 16, 4\)"),
        (
            lambda: keras.Sequential(
                [keras.Input((3, 16, 16)), layers.Flatten(), layers.Dense(2, activation="softmax")]
            ),
            "channels seem to come first.*set_image_data_format",
        ),
        (lambda: keras.Sequential([keras.Input((7,)), layers.Dense(2, activation="softmax")]), r"takes \(None, 7\)"),
        (
            lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 1, activation="softmax")]),
            r"one output of shape \(batch, classes\).*returns \(None, 8, 8, 2\)",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_before_training(build, words):
    with pytest.raises(ValueError, match=words):
        models.require_supported(build(), classes=NAMES)
    with pytest.raises(ValueError, match=words):
        models.with_classes(build(), NAMES)


def test_other_arguments_are_refused_in_words():
    with pytest.raises(TypeError, match=r"expects a keras.Model. Received: str"):
        models.with_classes("model.keras", NAMES)
    with pytest.raises(TypeError, match=r"Expected a keras.Model. Received: str"):
        models.preparation("model.keras")
    with pytest.raises(TypeError, match="names of the classes"):
        models.with_classes(sequential(), 2)
    with pytest.raises(ValueError, match="`resize` must be one of"):
        models.with_classes(sequential(), NAMES, resize="squash")
    with pytest.raises(ValueError, match="`levels` must be"):
        models.small_cnn(image_size=(8, 8), classes=NAMES, levels=(5, 5))


def test_outputs_that_are_no_probabilities_are_refused(wide):
    class Logits(keras.Model):
        def call(self, images):
            return keras.ops.cast(images[:, 0, 0, :2], "float32")

    model = models.with_classes(Logits(), NAMES, image_size=(16, 16))
    with pytest.raises(ValueError, match="one probability per class, 0-1, that sum to 1"):
        experiments.predict(model, wide)


def in_a_dictionary():
    inputs = keras.Input((16, 16, 3), name="x")
    return keras.Model({"x": inputs}, {"p": layers.Dense(2, activation="softmax")(layers.Flatten()(inputs))})


def with_softmax_as_operation():
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, keras.ops.softmax(layers.Dense(2)(layers.Flatten()(inputs))))


def of_bytes():
    return keras.Sequential([keras.Input((16, 16, 3), dtype="uint8"), layers.Rescaling(1 / 255), layers.Flatten(),
                             layers.Dense(2, activation="softmax")])  # fmt: skip


def with_a_network_inside():
    inner = keras.applications.MobileNet(alpha=0.25, include_top=False, weights=None, input_shape=(32, 32, 3))
    return keras.Sequential([inner, layers.GlobalAveragePooling2D(), layers.Dense(2), layers.Softmax()])


@pytest.mark.parametrize("build", [in_a_dictionary, with_softmax_as_operation, of_bytes, with_a_network_inside])
def test_networks_written_in_other_ways_are_named_and_scored(wide, build):
    plain = build()
    model = models.with_classes(plain, NAMES)
    pixels = first_batch(pipelines.load(wide, like=model))
    assert model(pixels[:2]).shape == (2, 2)  # one batch of images, without a warning
    outputs = plain({"x": pixels} if build is in_a_dictionary else pixels, training=False)
    expected = np.asarray(outputs["p"] if isinstance(outputs, dict) else outputs)
    found = experiments.predict(model, wide)[["p_left", "p_none"]].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


# Whatever Keras is set to


def test_channels_first_builds_and_trains_the_same(wide):
    """Keras's default may be channels first, from a configuration file of old: images stay channels last."""
    keras.config.set_image_data_format("channels_first")
    try:
        built = [
            models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(4,), channels=1),
            models.residual_cnn(image_size=(16, 16), classes=NAMES, filters=(4,), blocks=1),
            models.pretrained("MobileNet", image_size=(32, 32), classes=NAMES, weights=None, alpha=0.25),
        ]
        built.append(models.reuse(built[0], classes=NAMES))
        for model in built:
            again = keras.models.model_from_json(model.to_json())
            again.set_weights(model.get_weights())
            pd.testing.assert_frame_equal(experiments.predict(again, wide), experiments.predict(model, wide))
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")
    pd.testing.assert_frame_equal(experiments.predict(built[0], wide), experiments.predict(keras.models.clone_model(
        built[0], clone_function=lambda layer: layer), wide))  # fmt: skip


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_the_softmax_stays_in_full_precision(policy):
    """At p = 6e-6, which 16 bits cannot hold, the gradient of the loss is that of plain cross-entropy: p - 1."""
    import tensorflow as tf

    keras.config.set_dtype_policy(policy)
    try:
        models_here = [
            models.small_cnn(image_size=(8, 8), classes=NAMES, filters=(4,)),
            models.with_classes(keras.Sequential([
                keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2),
                layers.Activation("softmax", dtype="float32"),
            ]), NAMES),
        ]  # fmt: skip
    finally:
        keras.config.set_dtype_policy("float32")
    for model in models_here:
        tag = model.get_layer(TAG)
        head = next(layer for layer in reversed(model.layers) if isinstance(layer, layers.Dense))
        tail = model.layers[model.layers.index(head) + 1 :]
        logits = tf.Variable([[0.0, 12.0]])
        with tf.GradientTape() as tape:
            x = logits if tail[0] is not tag else tf.nn.softmax(logits)
            for layer in tail:
                x = layer(x)
            loss = keras.losses.sparse_categorical_crossentropy(tf.constant([0]), x)
        p = 1 / (1 + np.exp(12.0))
        assert x.dtype == tf.float32
        np.testing.assert_allclose(x.numpy()[0, 0], p, rtol=1e-4)
        np.testing.assert_allclose(tape.gradient(loss, logits).numpy()[0], [p - 1, 1 - p], rtol=1e-3)


# On TensorFlow test_serving_decisions.py loads an export without cnnlab every day.
@pytest.mark.parametrize("backend", [pytest.param("tensorflow", marks=pytest.mark.slow), "jax"])
def test_plain_keras_keeps_what_a_model_says_on_every_backend(tmp_path, backend):
    """Without cnnlab: load, ask, save and clone. Fails should Keras no longer carry values in a Dropout's `seed`."""
    model = models.small_cnn(image_size=(8, 8), classes=["猫", "a/b"], filters=(4,), resize="pad", levels=(0, 4095))
    model.save(tmp_path / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("float32")
    np.save(tmp_path / "pixels.npy", pixels)
    code = (
        "import sys, keras, numpy as np\n"
        f"folder, tag = {str(tmp_path)!r}, {TAG!r}\n"
        "model = keras.models.clone_model(keras.saving.load_model(folder + '/model.keras', safe_mode=True))\n"
        "model.set_weights(keras.saving.load_model(folder + '/model.keras').get_weights())\n"
        "model.compile('sgd', 'sparse_categorical_crossentropy')\n"
        "pixels = np.load(folder + '/pixels.npy')\n"
        "np.save(folder + '/answers.npy', model.predict(pixels, verbose=0))\n"
        "model.fit(pixels, np.zeros(2), verbose=0)\n"
        "model.save(folder + '/again.keras')\n"
        "assert 'cnnlab' not in sys.modules and keras.backend.backend() == " + repr(backend)
    )
    environment = {"KERAS_BACKEND": backend, "PATH": "/usr/bin:/bin", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # it compiles sooner
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, cwd=tmp_path)
    again = keras.models.load_model(tmp_path / "again.keras")
    assert models.class_names(again) == ["猫", "a/b"]
    assert models.preparation(again) == images.Preparation((8, 8), 3, "pad", (0, 4095))
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), model.predict(pixels, verbose=0), atol=1e-5)


# Grey


def test_a_grey_network_takes_colour_batches_too(wide):
    """`load` without `like=` gives three channels; of grey pictures the answer is the same."""
    for build in (models.small_cnn, models.residual_cnn):
        model = build(image_size=(16, 16), classes=NAMES, filters=(4,), channels=1)
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)  # one step
        model.fit(pipelines.load(wide, image_size=(16, 16), training=True, seed=0), verbose=0)
        grey = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1)).astype("float32")
        np.testing.assert_allclose(model.predict(np.repeat(grey, 3, 3), verbose=0), model.predict(grey, verbose=0),
                                   rtol=1e-5)  # fmt: skip


# Tables


def test_paths_as_objects_and_a_broken_file(wide, tmp_path):
    from pathlib import Path

    table = wide.assign(path=[Path(path) for path in wide["path"]])
    (tmp_path / "broken.png").write_bytes(b"broken")
    table.loc[3, "path"] = table.loc[8:10, "path"] = tmp_path / "broken.png"
    model = models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(4,))
    with pytest.warns(UserWarning, match="4 of 24 images could not be read"):
        found = experiments.predict(model, table, batch_size=3)  # rows 8 to 10 are spread over two batches
    assert found.index[found["predicted"].isna()].tolist() == [3, 8, 9, 10]
    whole = experiments.predict(model, wide)
    kept = found["predicted"].notna()
    np.testing.assert_allclose(found.loc[kept, "p_none"], whole.loc[kept, "p_none"], rtol=1e-5)


def test_a_table_of_broken_files_has_no_predictions(wide, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        path.write_bytes(b"broken")
    model = models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(4,))
    with pytest.warns(UserWarning, match="3 of 3 images could not be read"):
        found = experiments.predict(model, wide.head(3).assign(path=paths), batch_size=2)
    assert found["predicted"].isna().all() and found["p_left"].isna().all()


@pytest.mark.parametrize("units", [1, 2])
def test_cross_validation_takes_networks_without_names(wide, units):
    def build():
        model = sequential(units, "sigmoid" if units == 1 else "softmax")
        loss = "binary_crossentropy" if units == 1 else "sparse_categorical_crossentropy"
        model.compile("sgd", loss, metrics=["accuracy"], run_eagerly=True)
        return model

    result = experiments.cross_validate(build, wide, folds=2, image_size=(16, 16), epochs=1, seed=0)
    assert result.predictions[["p_left", "p_none"]].sum(axis=1).to_numpy() == pytest.approx(1)


def test_images_without_labels_are_predicted(wide):
    model = models.small_cnn(image_size=(16, 16), classes=NAMES, filters=(4,))
    expected = experiments.predict(model, wide)
    for table in (wide[["path"]], wide.assign(label=pd.Categorical([None] * 24, categories=NAMES))):
        found = experiments.predict(model, table)
        assert found["predicted"].cat.categories.tolist() == NAMES
        pd.testing.assert_frame_equal(found[["p_left", "p_none"]], expected[["p_left", "p_none"]])


def test_a_network_that_is_named_anew_keeps_the_rest():
    first = models.small_cnn(image_size=(8, 8), classes=["a", "b"], resize="pad", levels=(0, 4095))
    again = models.with_classes(first, ["cat", "dog"])
    assert models.class_names(again) == ["cat", "dog"]
    assert models.preparation(again) == models.preparation(first)
    stretched = models.with_classes(first, ["cat", "dog"], resize="stretch", levels=(0, 255))
    assert (models.preparation(stretched).resize, models.preparation(stretched).levels) == ("stretch", (0, 255))
    open_size = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()])
    open_size.add(keras.layers.Dense(2, activation="softmax"))
    named = models.with_classes(open_size, ["a", "b"], image_size=(24, 16))
    assert models.preparation(models.with_classes(named, ["c", "d"])).image_size == (24, 16)


def test_outputs_named_in_another_order_than_the_training_images_are_said(wide):
    model = models.with_classes(functional(), NAMES[::-1])
    pipelines.load(wide, image_size=(16, 16), training=True, seed=0)
    renamed = wide.assign(label=wide["label"].cat.set_categories(NAMES[::-1]))
    with pytest.warns(UserWarning, match="in the order left, none; the model names its outputs none, left"):
        experiments.predict(model, renamed)


def test_answers_that_are_no_numbers_are_said(wide):
    model = models.with_classes(functional(), NAMES)
    model.layers[-2].bias.assign([np.nan, 0])
    with pytest.warns(UserWarning, match=rf"{len(wide)} of {len(wide)} images have no prediction, because .* with NaN"):
        predictions = experiments.predict(model, wide)
    assert predictions["predicted"].isna().all()

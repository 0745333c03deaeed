from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import experiments, models, pipelines
from cnnlab.experiments import heads, runner
from cnnlab.experiments.frozen_features import split_backbone
from cnnlab.experiments.training_run import FeatureBatches, Recipe, Rows, TrainingRun
from cnnlab.serving.network import two_outputs

# KerasTuner asks threads for their names in the old way.
pytestmark = [
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
]
SIZE = (16, 16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def backbone():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(12, 5, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(24, 3)(x)))
    model.trainable = False
    return model


def classifier(backbone, table, *, rate=0.0, hidden=None, learning_rate=1e-2, **options):
    inputs = keras.Input((*SIZE, 3))
    x = keras.layers.Dropout(rate)(backbone(inputs))
    if hidden:
        x = keras.layers.Dense(hidden, activation="gelu")(x)
    classes = table["label"].cat.categories
    outputs = keras.layers.Dense(len(classes), activation="softmax", **options)(x)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.AdamW(learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


@pytest.fixture(scope="module")
def table(parts):
    return parts.drop(columns="split").reset_index(drop=True)


def pixels(table):
    data = pipelines.load(table, image_size=SIZE, batch_size=len(table), cache=False)
    return next(iter(data))[0].numpy().astype("float32")


def test_features_are_the_networks_own_in_table_order(backbone, table):
    rows = table.sample(frac=1, random_state=0)
    expected = backbone.predict(pixels(rows), verbose=0)
    found = experiments.features(backbone, rows, batch_size=7)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_each_image_is_computed_once_whatever_it_is_called(backbone, table, tmp_path, monkeypatch):
    seen, real = [], pipelines.load
    monkeypatch.setattr(pipelines, "load", lambda rows, **o: seen.append(len(rows)) or real(rows, **o))
    first = experiments.features(backbone, table[:20])
    copy = tmp_path / "copy.png"
    copy.write_bytes(Path(table["path"][3]).read_bytes())
    renamed = table[:30].copy()
    renamed.loc[renamed.index[3], "path"] = str(copy)
    again = experiments.features(backbone, renamed)
    assert seen == [20, 10]
    np.testing.assert_array_equal(again[:20], first)
    other = keras.models.clone_model(backbone)
    other.set_weights([weight + 0.1 for weight in backbone.get_weights()])
    experiments.features(other, table[:5])
    assert seen == [20, 10, 5]


@pytest.mark.parametrize("kind", ["layer", "function", "nested"])
def test_edited_code_of_own_layers_is_computed_anew(table, kind):
    def of(factor):
        class Own(keras.layers.Layer):
            def call(self, x):
                return x * factor

        def scaled(x):
            return x * factor

        own = keras.layers.Lambda(scaled, output_shape=(*SIZE, 3)) if kind == "function" else Own()
        inner = keras.Sequential([keras.Input((*SIZE, 3)), own])
        layers = [inner if kind == "nested" else own, keras.layers.GlobalAveragePooling2D()]
        return experiments.features(keras.Sequential([keras.Input((*SIZE, 3)), *layers]), table)

    np.testing.assert_allclose(of(2.0), 2 * of(1.0), rtol=1e-5)


def test_unreadable_images_have_no_features(backbone, table, tmp_path):
    broken = table[:12].copy()
    (tmp_path / "broken.png").write_bytes(b"nothing")
    broken.loc[[2, 7], "path"] = [str(tmp_path / "broken.png"), str(tmp_path / "gone.png")]
    found = experiments.features(backbone, broken, batch_size=4)
    assert np.isnan(found).any(axis=1).nonzero()[0].tolist() == [2, 7]
    whole = experiments.features(backbone, table[:12])
    np.testing.assert_allclose(np.delete(found, [2, 7], 0), np.delete(whole, [2, 7], 0), rtol=1e-4, atol=1e-5)


def test_a_damaged_cache_is_computed_anew(backbone, table, tmp_path):
    first = experiments.features(backbone, table[:6])
    (file,) = (tmp_path / "cache" / "features").rglob("*.npy")
    whole = np.load(file)
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_allclose(experiments.features(backbone, table[:6]), first)
    (file,) = (tmp_path / "cache" / "features").rglob("*.npy")
    np.testing.assert_allclose(np.load(file)["values"], whole["values"])  # and is whole again


def test_features_refuse_what_is_no_network(table):
    with pytest.raises(TypeError, match=r"keras\.Model"):
        experiments.features(["MobileNet"], table)
    with pytest.raises(ValueError, match="one size"):
        inputs = keras.Input((None, None, 3))
        experiments.features(keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(inputs)), table)


def compiled(inputs, outputs, kind=keras.Model, **options):
    model = kind(inputs, outputs)
    model.compile(**{"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]} | options)
    return model


def split(model):
    return split_backbone(model)


def test_the_frozen_part_is_found(backbone, table):
    model = classifier(backbone, table, rate=0.3)
    parts = split(model)
    images = pixels(table)[:5]
    np.testing.assert_allclose(parts.head(parts.backbone(images)), model(images), atol=1e-6)
    assert parts.backbone.output_shape == (None, 24)
    assert split(classifier(backbone, table)).backbone.output_shape == (None, 24)
    sequential = keras.Sequential([keras.Input((*SIZE, 3)), backbone, keras.layers.Dense(2, activation="softmax")])
    sequential.compile("adam", "sparse_categorical_crossentropy")
    parts = split(sequential)
    np.testing.assert_allclose(parts.head(parts.backbone(images)), sequential(images), atol=1e-6)
    whole = models.small_cnn(image_size=SIZE, classes=["a", "b"])
    whole.compile("adam", "sparse_categorical_crossentropy")
    assert split(whole) is None
    inputs = keras.Input((*SIZE, 3))
    flipped = keras.layers.RandomFlip()(inputs)
    assert split(compiled(inputs, keras.layers.Dense(2)(backbone(flipped)))) is None
    random = keras.Model(inputs, keras.layers.Dropout(0.5)(backbone(inputs)))
    assert split(compiled(inputs, keras.layers.Dense(2)(random(inputs, training=False)))) is None


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


class OwnLayer(keras.layers.Layer):
    def call(self, inputs):
        return inputs


def own_loss(y, p):
    return keras.losses.sparse_categorical_crossentropy(y, p)


class OwnMetric(keras.metrics.SparseCategoricalAccuracy):
    pass


def inexact(backbone, kind):
    """A compiled network with a frozen part, for which training on features would not be the same."""
    inputs = keras.Input((*SIZE, 3))
    x, base, options = inputs, backbone, {}
    if kind in ("batch_norm", "spectral", "activity", "lambda", "own_layer"):
        layer = {
            "batch_norm": lambda: keras.layers.BatchNormalization(center=False, scale=False),
            "spectral": lambda: keras.layers.SpectralNormalization(keras.layers.Conv2D(3, 3), trainable=False),
            "activity": lambda: keras.layers.ActivityRegularization(l2=0.1),
            "lambda": lambda: keras.layers.Lambda(lambda x: x),
            "own_layer": OwnLayer,
        }[kind]()
        outer = keras.Input((*SIZE, 3))
        convolved = keras.layers.Conv2D(4, 3, trainable=False)(layer(outer))
        base = keras.Model(outer, keras.layers.GlobalMaxPooling2D()(convolved))
    if kind == "custom_loss":
        options["loss"] = own_loss
    if kind == "lambda_loss":
        options["loss"] = lambda y, p: own_loss(y, p)
    if kind == "metric":
        options["metrics"] = [OwnMetric()]
    if kind == "metric_function":
        options["metrics"] = [own_loss]
    if kind == "eager":
        options["run_eagerly"] = True
    outputs = keras.layers.Dense(6, activation=own_activation if kind == "activation" else "softmax")(base(x))
    return compiled(inputs, outputs, OwnStep if kind == "train_step" else keras.Model, **options)


def own_activation(x):
    return keras.ops.softmax(x)


KINDS = (
    "train_step", "custom_loss", "lambda_loss", "metric", "metric_function", "batch_norm", "spectral", "activity",
    "lambda", "own_layer", "activation", "eager",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_features_would_change_is_trained_on_images(backbone, kind):
    assert split(inexact(backbone, kind)) is None


def head_run(codes, train, val, test, *, seed, **recipe):
    """A run on rows of features; of a network, only the head is of interest here."""
    labels = pd.DataFrame({"label": pd.Categorical.from_codes(codes, list("abcde")[: codes.max() + 1])})
    recipe = Recipe(recipe["epochs"], recipe.get("patience"), loading={"batch_size": recipe["batch_size"]})
    return TrainingRun("run", None, Rows(*(labels.iloc[rows] for rows in (train, val, test))), seed, recipe)


def probabilities(outcome):
    return outcome.predictions.filter(like="p_").to_numpy()


@pytest.mark.parametrize("hidden", [pytest.param(None, marks=pytest.mark.slow), 8])
def test_heads_trained_together_equal_plain_keras(hidden):
    """Without dropout, number by number: same weights to begin with, same order, Keras's own fit."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, 90)
    features = (rng.normal(size=(4, 6))[codes] + rng.normal(size=(90, 6))).astype("float32")
    rates = [1e-3, 1e-2, keras.optimizers.schedules.CosineDecay(1e-2, 40)]
    runs, networks = [], []
    rows = np.arange(90)
    for rate in rates:
        inputs = keras.Input((6,))
        x = keras.layers.Dense(hidden, activation="relu")(inputs) if hidden else inputs
        network = keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))
        rule = keras.optimizers.AdamW(rate)
        network.compile(rule, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
        head = heads.plain_head(network, compiled_as=network)
        run = head_run(codes, rows[:60], rows[60:75], rows[75:], seed=5, batch_size=16, epochs=12, patience=3)
        runs.append((run, head))
        networks.append(network)
    val = (features[60:75], codes[60:75])
    for (run, head), network, found in zip(runs, networks, heads.train_heads(runs, features, codes), strict=True):
        network.set_weights(head.initial(run.seed))
        data = FeatureBatches(run, rows[:60], features, codes)
        stop = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
        history = network.fit(data, validation_data=val, epochs=12, callbacks=[stop], shuffle=False, verbose=0)
        outcome, weights = found
        assert len(outcome.history) == len(history.epoch)
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            np.testing.assert_allclose(outcome.history[name], history.history[name], rtol=2e-4, atol=1e-5)
        for weight, expected in zip(weights, network.get_weights(), strict=True):
            np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(probabilities(outcome), network(features[75:]), atol=1e-4)


def test_a_run_does_not_depend_on_what_ran_beside_it():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 60)
    features = rng.normal(size=(60, 5)).astype("float32")
    runs = []
    for rate in (0.0, 0.5):
        inputs = keras.Input((5,))
        outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Dropout(rate)(inputs))
        network = keras.Model(inputs, outputs)
        network.compile("sgd", "sparse_categorical_crossentropy")
        head = heads.plain_head(network, compiled_as=network)
        for fold in range(3):
            rows, test = np.flatnonzero(np.arange(60) % 3 != fold), np.arange(fold, 60, 3)
            runs.append((head_run(codes, rows, rows[:0], test, seed=fold, batch_size=8, epochs=3), head))
    together = heads.train_heads(runs, features, codes)
    for run, (expected, _) in zip(runs, together, strict=True):
        ((alone, _),) = heads.train_heads([run], features, codes)
        np.testing.assert_allclose(probabilities(alone), probabilities(expected), atol=1e-5)
    first, _, _, fourth, *_ = (probabilities(outcome) for outcome, _ in together)
    assert np.abs(first - fourth).max() > 1e-3  # dropout does something


def test_dropout_agrees_with_keras_within_noise():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 5, 400)
    features = (rng.normal(size=(5, 20))[codes] + 2 * rng.normal(size=(400, 20))).astype("float32")
    inputs = keras.Input((20,))
    outputs = keras.layers.Dense(5, activation="softmax")(keras.layers.Dropout(0.5)(inputs))
    network = keras.Model(inputs, outputs)
    network.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", jit_compile=False)
    head = heads.plain_head(network, compiled_as=network)
    rows = np.arange(400)
    options = {"batch_size": 20, "epochs": 6}
    runs = [head_run(codes, rows[:200], rows[:0], rows[200:], seed=seed, **options) for seed in range(8)]
    trained = heads.train_heads([(run, head) for run in runs], features, codes)
    ours = [outcome.history["loss"].iloc[-1] for outcome, _ in trained]
    theirs = []
    for run in runs[:5]:
        network.set_weights(head.initial(run.seed))
        network.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy", jit_compile=False)
        data = FeatureBatches(run, rows[:200], features, codes)
        theirs.append(network.fit(data, epochs=6, shuffle=False, verbose=0).history["loss"][-1])
    spread = np.sqrt(np.var(ours, ddof=1) / 8 + np.var(theirs, ddof=1) / 5)
    assert abs(np.mean(ours) - np.mean(theirs)) < 4 * spread


@pytest.mark.parametrize(
    "unlike",
    [
        {"kernel_regularizer": "l2"},
        {"activation": "sigmoid"},
        {"dtype": "mixed_bfloat16"},
    ],
)
def test_other_heads_are_left_to_keras(unlike):
    inputs = keras.Input((5,))
    network = keras.Model(inputs, keras.layers.Dense(3, **{"activation": "softmax"} | unlike)(inputs))
    network.compile("adam", "sparse_categorical_crossentropy")
    assert heads.plain_head(network, compiled_as=network) is None
    inputs = keras.Input((5,))
    network = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(inputs))
    network.compile("adam", "sparse_categorical_crossentropy")
    assert heads.plain_head(network, compiled_as=network) is not None


def test_cross_validation_and_search_use_features_by_themselves(backbone, table, tmp_path, monkeypatch):
    loads, real = [], pipelines.load
    monkeypatch.setattr(pipelines, "load", lambda rows, **o: loads.append(len(rows)) or real(rows, **o))

    def build(hp):
        return classifier(backbone, table, rate=hp["rate"], learning_rate=hp["learning_rate"])

    grid = {"learning_rate": [1e-3, 1e-2], "rate": [0.0, 0.3]}
    options = {"folds": 3, "image_size": SIZE, "epochs": 4, "seed": 0}
    search = experiments.grid_search(build, grid, table, folder=tmp_path / "s", **options)
    assert loads == [len(table)]
    expected = experiments.cross_validate(lambda: build({"learning_rate": 1e-2, "rate": 0.3}), table, **options)
    assert loads == [len(table)]
    found = search.results[search.results["trial"] == 3]
    np.testing.assert_allclose(found["val_accuracy"], expected.scores["accuracy"])
    model = search.best_model(refit=False)
    trial = int(search.ranking()["trial"].iloc[0])
    predictions = search.predictions[search.predictions["trial"] == trial]
    fold = search.results[search.results["trial"] == trial]["val_accuracy"].to_numpy().argmax()
    held_out = predictions[predictions["fold"] == fold]
    columns = [f"p_{name}" for name in table["label"].cat.categories]
    np.testing.assert_allclose(held_out[columns], model(pixels(held_out)), atol=1e-4)
    assert search.best_model().trainable_weights


def test_a_grid_over_resize_reads_the_images_in_each_way(backbone, tmp_path, monkeypatch):
    """Features belong to a network and to how its images were prepared, in memory as on disk."""
    rng = np.random.default_rng(0)
    for number in range(12):
        image = rng.integers(0, 256, (20, 60, 3), np.uint8)
        image[:, :20] = 255 * (number % 2)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    labels = pd.Categorical(["a", "b"] * 6)
    rows = pd.DataFrame({"path": [str(tmp_path / f"{number}.png") for number in range(12)], "label": labels})
    options = {"folds": 2, "image_size": SIZE, "epochs": 3, "seed": 0}
    modes, answers = ["fit", "pad", "stretch"], ["p_a", "p_b"]
    search = experiments.grid_search(
        lambda hp: classifier(backbone, rows), {"resize": modes}, rows, folder=tmp_path / "s", **options
    )
    found = [part[answers].to_numpy() for _, part in search.predictions.groupby("trial")]
    for mode, part in zip(modes, found, strict=True):
        monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / mode))
        alone = experiments.cross_validate(lambda: classifier(backbone, rows), rows, resize=mode, **options)
        order = np.argsort(alone.predictions["fold"], kind="stable")  # as a search keeps them
        np.testing.assert_allclose(part, alone.predictions[answers].to_numpy()[order], atol=1e-5)
    assert all(np.abs(found[one] - found[other]).max() > 1e-3 for one, other in ((0, 1), (0, 2), (1, 2)))


def test_another_head_is_fitted_on_features_by_keras(backbone, table, monkeypatch):
    loads, real = [], pipelines.load
    monkeypatch.setattr(pipelines, "load", lambda rows, **o: loads.append(len(rows)) or real(rows, **o))
    found = experiments.cross_validate(
        lambda: classifier(backbone, table, kernel_regularizer="l2"), table, folds=2, image_size=SIZE, epochs=2, seed=0
    )
    assert loads == [len(table)]
    assert len(found.histories) == 4


def test_augmented_pixels_need_images(backbone, table, monkeypatch):
    from cnnlab import augment

    monkeypatch.setattr(runner, "embed", None)  # would fail
    found = experiments.cross_validate(
        lambda: classifier(backbone, table), table[::2].reset_index(drop=True), folds=2, image_size=SIZE, epochs=1,
        seed=0, augment=augment.Policy(noise=4),
    )  # fmt: skip
    assert len(found.scores) == 2


def test_grey_files_and_colour_files_count_alike(backbone, table, tmp_path):
    Image.new("L", (40, 30), 90).save(tmp_path / "grey.png")
    rows = table[:1].assign(path=str(tmp_path / "grey.png"))
    assert np.isfinite(experiments.features(backbone, rows)).all()


def attentive():
    """Squeeze and excite, then a head of maps: its Dense layers are inside."""
    inputs = keras.Input((*SIZE, 3))
    maps = keras.layers.Conv2D(4, 3)(inputs)
    share = keras.layers.Dense(4, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(maps))
    maps = keras.layers.Multiply()([maps, keras.layers.Reshape((1, 1, 4))(share)])
    scores = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 1)(maps))
    return keras.Model(inputs, keras.layers.Softmax()(scores), name="attentive")


def test_a_dense_layer_inside_is_not_taken_for_the_head(table):
    model = models.with_classes(attentive(), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"last Dense layer.*'attentive', which has none"):
        experiments.features(model, table)
    both = two_outputs(model)(np.zeros((1, *SIZE, 3)))
    np.testing.assert_array_equal(both["features"], both["probabilities"])


class Grown(keras.Model):
    """Its layers are in Python code."""

    def __init__(self):
        super().__init__(name="odd")
        self.maps, self.head = keras.layers.Conv2D(4, 3), keras.layers.Dense(3, activation="softmax")

    def call(self, inputs):
        return self.head(keras.ops.mean(self.maps(inputs), axis=(1, 2)))


def grown():
    model = Grown()
    model(np.zeros((1, *SIZE, 3)))
    return model


def several(inputs, outputs):
    pictures = [keras.Input((*SIZE, 3)) for _ in range(inputs)]
    seen = keras.layers.Concatenate()([keras.layers.Flatten()(picture) for picture in (pictures * 2)[:2]])
    scores = [keras.layers.Dense(3, activation="softmax")(seen) for _ in range(outputs)]
    return keras.Model(pictures, scores, name="odd")


@pytest.mark.parametrize(
    ("network", "received"),
    [(grown, "layers in Python code"), (lambda: several(2, 1), "2 inputs"), (lambda: several(1, 2), "2 outputs")],
)
@pytest.mark.parametrize("use", ["features", "linear_probe", "reuse"])
def test_what_cannot_be_cut_is_refused_in_words(table, network, received, use):
    uses = {
        "features": lambda model: experiments.features(model, table),
        "linear_probe": lambda model: experiments.linear_probe(table, model, folds=2),
        "reuse": lambda model: models.reuse(model, classes=["x", "y"]),
    }
    with pytest.raises(ValueError, match=f"expects a network of one input and one output.*'odd'.*{received}"):
        uses[use](network())


def test_a_network_in_which_two_heads_meet_is_not_cut_at_one_of_them():
    inputs = keras.Input((*SIZE, 3))
    seen = keras.layers.Flatten()(inputs)
    both = keras.layers.Add()([keras.layers.Dense(3)(seen), keras.layers.Dense(3)(seen)])
    with pytest.raises(ValueError, match="last layer with weights is a Dense layer"):
        models.reuse(keras.Model(inputs, keras.layers.Softmax()(both)), classes=["x", "y"])


def test_a_classifier_without_a_dense_layer_is_told_what_to_pass(table):
    inputs = keras.Input((*SIZE, 3))
    maps = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(inputs))
    model = models.with_classes(keras.Model(inputs, keras.layers.Softmax()(maps), name="maps"), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"Dense layer.*'maps', which has none.*layer\.output"):
        experiments.features(model, table)

"""Keras's JAX backend, the second way to a GPU: one process of its own says what these tests compare."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from test_explain import explained

from cnnlab import explain, models, pipelines, tables, training

EXPLAINED = """
import sys
import keras, numpy as np
from cnnlab import explain, models
assert keras.backend.backend() == "jax" and "tensorflow" not in sys.modules
folder = sys.argv[1]
model = models.small_cnn(image_size=(16, 12), classes=["a", "b", "c"], filters=(4, 6))
images = np.random.default_rng(0).integers(0, 256, (2, 16, 12, 3)).astype("float32")
model.load_weights(folder + "/explained.weights.h5")
nested = models.reuse(model, classes=["x", "y"])
models.unfreeze(nested, share=0.5)
nested.compile("adam", loss="sparse_categorical_crossentropy")
nested.fit(images, np.array([0, 1]), verbose=0)
explain.grad_cam(nested, images)
models.pretrained("MobileNet", image_size=(32, 32), classes=["a", "b"], weights=None, alpha=0.25)
models.residual_cnn(image_size=(16, 16), classes=["a", "b"], filters=(4, 8), blocks=1)
maps = explain.feature_maps(model, images[0])
np.savez(folder + "/explained.npz", cam=explain.grad_cam(model, images, target="b"), maps=maps["relu_2"],
         covered=explain.occlusion(model, images, patch=6), work=explain.summary(model)["multiply_adds"].sum(),
         field=explain.receptive_fields(model)["field_height"].max())
"""

TRAINED = """
import json
from cnnlab import augment, pipelines, tables, training
says = {}
table = tables.read(folder + "/table.csv")
classes = table["label"].cat.categories
load = lambda **options: pipelines.load(table, image_size=(8, 8), batch_size=16, **options)
train = load(training=True, seed=0)
build = lambda: models.small_cnn(image_size=(8, 8), classes=classes, filters=(8,), dropout=0.0)

model = build()
model.load_weights(folder + "/start.weights.h5")
before = [np.array(weight) for weight in model.weights]
found = training.find_learning_rate(model, train)
report = training.preflight(model, train)
says["checks"] = report["check"].tolist()
says["untouched"] = all(np.array_equal(a, b) for a, b in zip(before, model.weights))
training.compile(model, learning_rate=1e-3, steps_per_execution=1)
whole = pipelines.load(table, image_size=(8, 8), batch_size=60, training=True, seed=0)  # one batch: in any order
says["loss"] = model.fit(whole, epochs=3, shuffle=False, verbose=0).history["loss"]

def run(name, epochs, go_on=False):
    model = build()
    model.load_weights(folder + "/start.weights.h5")
    training.compile(model, learning_rate=1e-3)
    make = training.resume if go_on else training.callbacks
    data = load(training=True, seed=0)
    model.fit(data, validation_data=load(), epochs=epochs, verbose=0, callbacks=make(folder + "/" + name))
    return [np.array(weight) for weight in model.weights]

whole = run("whole", 4)
run("halves", 2)
says["resumed"] = all(np.array_equal(a, b) for a, b in zip(whole, run("halves", 4, go_on=True)))

reused = models.reuse(model, classes=classes)
history = training.fine_tune(reused, load(training=True, seed=0), load(), head_epochs=1, epochs=1)
says["phases"] = history.phases["moved"].tolist()
says["shares"] = history.phases["share"].sum()

waves = np.sin(np.arange(40)[:, None, None] / 5 + np.arange(56)[:, None] / 4 + np.arange(3))
smooth = np.repeat((127 + 100 * waves).astype(np.uint8)[None], 8, axis=0)
for fill in ("reflect", "nearest", "constant"):
    policy = augment.Policy(flip="both", rotate=40, zoom=0.4, shift=0.6, shear=9, crop=0.4, saturation=0.3, fill=fill)
    sampled = policy.sample(8, seed=1)
    apart = np.abs(np.asarray(policy.layer().apply(smooth, sampled)) - policy.apply(smooth, sampled))
    says.setdefault("apart", []).append(float(apart.mean()))
json.dump(says, open(folder + "/says.json", "w"))
"""


@pytest.fixture(scope="module")
def table(digits):
    return digits.groupby("label", observed=True).head(6).reset_index(drop=True)


@pytest.fixture(scope="module")
def folder(table, tmp_path_factory):
    """What the process was given and what it left."""
    folder = tmp_path_factory.mktemp("jax")
    explained().save_weights(folder / "explained.weights.h5")
    tables.save(table, folder / "table.csv")
    small(table).save_weights(folder / "start.weights.h5")
    flags = {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # it compiles sooner
    subprocess.run([sys.executable, "-c", EXPLAINED + TRAINED, folder], env=os.environ | flags, check=True, timeout=280)
    return folder


def small(table):
    keras.utils.set_random_seed(0)
    classes = table["label"].cat.categories
    return models.small_cnn(image_size=(8, 8), classes=classes, filters=(8,), dropout=0.0)


def test_networks_are_explained_the_same(folder):
    model, found = explained(), np.load(folder / "explained.npz")
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 12, 3)).astype("float32")
    np.testing.assert_allclose(found["cam"], explain.grad_cam(model, images, target="b"), atol=1e-4)
    np.testing.assert_allclose(found["covered"], explain.occlusion(model, images, patch=6), atol=1e-4)
    np.testing.assert_allclose(found["maps"], explain.feature_maps(model, images[0])["relu_2"], atol=1e-4)
    assert found["work"] == explain.summary(model)["multiply_adds"].sum()
    assert found["field"] == explain.receptive_fields(model)["field_height"].max()


def test_networks_are_trained_the_same(folder, table):
    """Fed by tf.data."""
    says = json.loads((folder / "says.json").read_text())
    assert says["untouched"]
    assert "pixels" in " ".join(says["checks"])
    assert says["resumed"]
    assert max(says["apart"]) <= 0.6  # the pipeline's pixels are rounded
    assert says["phases"] == [0.0, 0.0]
    assert says["shares"] == 1  # of the weights before and after tuning, averaged
    model = small(table)
    model.load_weights(folder / "start.weights.h5")
    whole = pipelines.load(table, image_size=(8, 8), batch_size=60, training=True, seed=0)
    training.compile(model, learning_rate=1e-3, steps_per_execution=1)
    losses = model.fit(whole, epochs=3, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(says["loss"], losses, rtol=1e-3)

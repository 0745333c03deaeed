"""Training on Keras's JAX backend, fed by tf.data: the second way to a GPU."""

import json
import os
import subprocess
import sys

import keras
import numpy as np

from cnnlab import models, pipelines, tables, training

SCRIPT = """
import json, sys
import keras, numpy as np
from cnnlab import augment, models, pipelines, tables, training
assert keras.backend.backend() == "jax"
folder, says = sys.argv[1], {}
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

large = models.pretrained("MobileNet", image_size=(32, 32), classes=classes, weights=None, alpha=0.25)
images = lambda **options: pipelines.load(table, image_size=(32, 32), batch_size=16, **options)
history = training.fine_tune(large, images(training=True, seed=0), images(), head_epochs=1, epochs=1)
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


def test_jax_trains_the_same(digits, tmp_path):
    table = digits.groupby("label", observed=True).head(6).reset_index(drop=True)
    tables.save(table, tmp_path / "table.csv")
    keras.utils.set_random_seed(0)
    classes = table["label"].cat.categories
    model = models.small_cnn(image_size=(8, 8), classes=classes, filters=(8,), dropout=0.0)
    model.save_weights(tmp_path / "start.weights.h5")
    subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        check=True,
        timeout=280,
    )
    says = json.loads((tmp_path / "says.json").read_text())
    assert says["untouched"]
    assert "pixels" in " ".join(says["checks"])
    assert says["resumed"]
    assert max(says["apart"]) <= 0.6  # the pipeline's pixels are rounded
    assert says["phases"] == [0.0, 0.0]
    assert says["shares"] == 1  # of the weights before and after tuning, averaged
    whole = pipelines.load(table, image_size=(8, 8), batch_size=60, training=True, seed=0)
    training.compile(model, learning_rate=1e-3, steps_per_execution=1)
    losses = model.fit(whole, epochs=3, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(says["loss"], losses, rtol=1e-3)

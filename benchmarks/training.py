"""Training speed: training.compile beside Keras's own compile, and what callbacks and monitor cost; ratios in one run.

Usage: python benchmarks/training.py [--rounds 5] [--only small,large,pretrained,callbacks]
"""

import argparse
import contextlib
import functools
import io
import statistics
import tempfile
import time

import numpy as np

from cnnlab import models, training, widgets

import keras  # isort: skip  (after cnnlab, which sets what TensorFlow reads once)
import tensorflow as tf  # isort: skip

NAMES = list("0123456789")


def data_of(size, batch, steps):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch * steps, *size, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, batch * steps)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch).prefetch(2)


def plain(model):
    model.compile(keras.optimizers.AdamW(1e-3), loss="sparse_categorical_crossentropy", metrics=["accuracy"])


def ours(model):
    with contextlib.redirect_stdout(io.StringIO()):
        training.compile(model, learning_rate=1e-3)


def epoch_seconds(model, data, epochs=1, callbacks=()):
    began = time.perf_counter()
    model.fit(data, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return (time.perf_counter() - began) / epochs


def compared(name, build, size, batch, steps, rounds):
    """Rounds alternate, so that whatever else the machine does falls on both alike."""
    data = data_of(size, batch, steps)
    contestants = {"Keras": build(), "cnnlab": build()}
    plain(contestants["Keras"])
    ours(contestants["cnnlab"])
    for model in contestants.values():
        epoch_seconds(model, data)  # tracing
    times = {key: [] for key in contestants}
    for _ in range(rounds):
        for key, model in contestants.items():
            times[key].append(epoch_seconds(model, data))
    speed = {key: batch * steps / statistics.median(values) for key, values in times.items()}
    ratio = statistics.median(k / c for k, c in zip(times["Keras"], times["cnnlab"], strict=True))
    print(f"| {name} | {speed['Keras']:,.0f} | {speed['cnnlab']:,.0f} | {ratio:.2f} |", flush=True)


def cost_of_callbacks(rounds, epochs=150):
    """What callbacks add to a training, and the time spent inside them, which is the steadier of the two.

    Long enough that what is written once hardly counts, as in any real training.
    """
    data = data_of((16, 16), 32, 60)
    model = small((16, 16))
    ours(model)
    epoch_seconds(model, data)
    kinds = {
        "callbacks": lambda folder: training.callbacks(folder, patience=10_000, monitor="loss", tensorboard=False),
        "callbacks with TensorBoard": lambda folder: training.callbacks(folder, patience=10_000, monitor="loss"),
        "monitor": lambda folder: [widgets.monitor(watch="loss")],
    }
    added = {kind: [] for kind in kinds}
    inside = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, make in kinds.items():
            with tempfile.TemporaryDirectory() as folder:
                callbacks, spent = timed(make(folder))
                before = epoch_seconds(model, data, epochs)
                during = epoch_seconds(model, data, epochs, callbacks)
                after = epoch_seconds(model, data, epochs)
            added[kind].append(during / ((before + after) / 2) - 1)
            inside[kind].append(sum(spent) / (during * epochs - sum(spent)))
    for kind in kinds:
        print(f"| {kind} | {statistics.median(added[kind]):+.1%} | {statistics.median(inside[kind]):.1%} |", flush=True)


def timed(callbacks):
    """The callbacks, and a list that takes the seconds of each call of one of their methods."""
    spent = []

    def clocked(method):
        @functools.wraps(method)
        def call(*arguments, **options):
            began = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                spent.append(time.perf_counter() - began)

        return call

    for callback in callbacks:
        for name in dir(callback):
            if name.startswith("on_") and getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name):
                setattr(callback, name, clocked(getattr(callback, name)))
    return callbacks, spent


def small(size):
    return models.small_cnn(image_size=size, classes=NAMES)


def pretrained():
    return models.pretrained("MobileNetV2", image_size=(160, 160), classes=NAMES, weights=None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="small,large,pretrained,callbacks")
    options = parser.parse_args()
    chosen = options.only.split(",")
    print("| training | Keras, images/s | cnnlab, images/s | cnnlab is … times as fast |\n|---|---|---|---|")
    if "small" in chosen:
        compared("16×16, batch 32", lambda: small((16, 16)), (16, 16), 32, 100, options.rounds)
    if "large" in chosen:
        compared("28×28, batch 128", lambda: small((28, 28)), (28, 28), 128, 25, options.rounds)
    if "pretrained" in chosen:
        compared("MobileNetV2, 160×160, batch 16", pretrained, (160, 160), 16, 3, options.rounds)
    if "callbacks" in chosen:
        print("\n| what is watched | longer by | inside the callbacks |\n|---|---|---|")
        cost_of_callbacks(options.rounds)


if __name__ == "__main__":
    main()

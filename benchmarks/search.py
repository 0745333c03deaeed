"""Search over the heads of a frozen network: features once and all heads as one program, beside fitting 60 times.

Usage: CNNLAB_REAL_DATA=folder python benchmarks/search.py [--epochs 20]

12 heads (4 learning rates × 3 dropouts) × 5 folds on MobileNet-0.25, 500 photographs of clothing. The slow way is
KerasTuner's own GridSearch; one fit is timed and multiplied by 60, and `--slow-fits 60` trains them all. Its best score
is taken from the same 60 heads, trained one by one by Keras on the frozen features: the same numbers without the wait.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cnnlab import experiments, pipelines, tables

import keras  # isort: skip  (after cnnlab, which sets what TensorFlow reads once)
import keras_tuner as kt  # isort: skip

SIZE = (224, 224)
GRID = {"learning_rate": [1e-3, 3e-3, 1e-2, 3e-2], "dropout": [0.0, 0.2, 0.5]}
FOLDS = 5


def make_build(weights, classes):
    backbone = keras.applications.MobileNet(
        input_shape=(*SIZE, 3), alpha=0.25, include_top=False, weights=weights, pooling="avg"
    )
    backbone.trainable = False

    def build(hp):
        inputs = keras.Input((*SIZE, 3))
        x = backbone(keras.applications.mobilenet.preprocess_input(inputs), training=False)
        x = keras.layers.Dropout(hp["dropout"])(x)
        outputs = keras.layers.Dense(classes, activation="softmax")(x)
        model = keras.Model(inputs, outputs)
        model.compile(
            keras.optimizers.AdamW(hp["learning_rate"]), "sparse_categorical_crossentropy", metrics=["accuracy"]
        )
        return model

    return build, backbone


def seconds(work):
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def forward(table, backbone):
    """One pass of Keras's own `predict` over the images, in a model that has not run yet."""
    inputs = keras.Input((*SIZE, 3))
    outputs = backbone(keras.applications.mobilenet.preprocess_input(inputs), training=False)
    model = keras.Model(inputs, outputs)
    data = pipelines.load(table, image_size=SIZE, cache=False)
    return model.predict(data, verbose=0)


def slow_fit(table, build, epochs, folder):
    """One trial of KerasTuner's GridSearch on one fold, from images."""
    dealt = tables.folds(table, count=FOLDS, seed=0)
    train = pipelines.load(dealt[dealt["fold"] != 0], image_size=SIZE, training=True, seed=0)
    held_out = pipelines.load(dealt[dealt["fold"] == 0], image_size=SIZE)
    space = kt.HyperParameters()
    for name, values in GRID.items():
        space.Choice(name, values)
    tuner = kt.GridSearch(
        build, objective="val_accuracy", max_trials=1, hyperparameters=space, directory=folder, project_name="slow"
    )
    tuner.search(train, validation_data=held_out, epochs=epochs, verbose=0)


def one_by_one(table, features, epochs, seed):
    """The same heads by plain Keras, one after the other: accuracy by learning rate and dropout, mean over folds."""
    codes = table["label"].cat.codes.to_numpy()
    fold = tables.folds(table, count=FOLDS, seed=seed)["fold"].to_numpy()
    rows = []
    for rate in GRID["learning_rate"]:
        for dropout in GRID["dropout"]:
            for number in range(FOLDS):
                keras.backend.clear_session()
                keras.utils.set_random_seed(seed + number)
                layers = [keras.layers.Dropout(dropout), keras.layers.Dense(10, activation="softmax")]
                model = keras.Sequential([keras.Input(features.shape[1:]), *layers])
                model.compile(keras.optimizers.AdamW(rate), "sparse_categorical_crossentropy", jit_compile=False)
                train, held_out = fold != number, fold == number
                model.fit(features[train], codes[train], batch_size=32, epochs=epochs, verbose=0)
                right = model.predict(features[held_out], verbose=0).argmax(axis=1) == codes[held_out]
                rows.append({"learning_rate": rate, "dropout": dropout, "accuracy": right.mean()})
    return pd.DataFrame(rows).groupby(["learning_rate", "dropout"])["accuracy"].mean()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--speed", action="store_true", help="leave out the heads one by one, which take minutes")
    options = parser.parse_args()
    data = Path(os.environ["CNNLAB_REAL_DATA"])
    table = tables.from_folder(data / "clothing" / "train")
    build, backbone = make_build(data / "weights" / "mobilenet_2_5_224_tf_no_top.h5", 10)
    passes, searches, found = [], [], []
    for seed in range(options.repeats):
        passes.append(seconds(lambda: forward(table, backbone))[0])
        with tempfile.TemporaryDirectory() as folder:
            os.environ["CNNLAB_CACHE"] = folder + "/cache"  # nothing is known yet
            taken, search = seconds(
                lambda folder=folder, seed=seed: experiments.grid_search(
                    build, GRID, table, folds=FOLDS, image_size=SIZE, epochs=options.epochs, seed=seed,
                    folder=folder + "/search",
                )
            )  # fmt: skip
            searches.append(taken)
            found.append(search.ranking().set_index(["learning_rate", "dropout"])["mean"])
            inputs = keras.Input((*SIZE, 3))
            outputs = backbone(keras.applications.mobilenet.preprocess_input(inputs), training=False)
            features = experiments.features(keras.Model(inputs, outputs), table)
    with tempfile.TemporaryDirectory() as folder:
        slow, _ = seconds(lambda: slow_fit(table, build, options.epochs, folder))
    ratio = np.median(np.array(searches) / np.array(passes))
    print("| what | seconds |\n|---|---|")
    print(f"| one pass over {len(table)} images by `predict` | {', '.join(f'{value:.2f}' for value in passes)} |")
    taken = ", ".join(f"{value:.2f}" for value in searches)
    print(f"| the whole search, 12 heads × 5 folds, {options.epochs} epochs | {taken} |")
    print(f"| search / pass, median | {ratio:.2f} |")
    print(f"| KerasTuner's GridSearch, one fit of 60 | {slow:.1f} (× 60 = {60 * slow:,.0f}) |")
    print(f"| how many times faster | {60 * slow / np.median(searches):,.0f} |")
    if options.speed:
        return
    separate = [one_by_one(table, features, options.epochs, seed) for seed in range(options.repeats)]
    best = [(one.max(), other.max()) for one, other in zip(found, separate, strict=True)]
    print(f"| best accuracy, seed by seed: search | {', '.join(f'{one:.3f}' for one, _ in best)} |")
    print(f"| one by one on the same folds | {', '.join(f'{other:.3f}' for _, other in best)} |")
    means = [np.mean(values) for values in zip(*best, strict=True)]
    print(f"| mean: search, one by one, difference | {means[0]:.4f}, {means[1]:.4f}, {means[0] - means[1]:+.4f} |")
    points = pd.concat(found, axis=1).mean(axis=1) - pd.concat(separate, axis=1).mean(axis=1)
    print(f"| largest difference of a point, mean over seeds | {points.abs().max():.4f} |")


if __name__ == "__main__":
    main()

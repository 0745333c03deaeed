"""One image at a time: `serving.Predictor` beside `model.predict` and a `tf.function`, in one run; agreement; memory.

MobileNetV2 at 160 px. All contestants get the same uint8 image and hand back probabilities; they take turns, call by
call, so that whatever else the machine does meets them all.

Usage:
    python benchmarks/serving.py [--data FOLDER] [--calls 200] [--rounds 3] [--threads 2]
    python benchmarks/serving.py --stream 100000

FOLDER holds `clothing/` (one folder per split and class) and `weights/`; without it (or CNNLAB_REAL_DATA) the images
are rendered and the weights random, which changes no timing.
"""

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from cnnlab import experiments, images, models, pipelines, samples, serving, tables

import keras  # isort: skip  (after cnnlab, which keeps TensorFlow's log lines away)
import tensorflow as tf  # isort: skip

SIZE = (160, 160)
FORMATS = ("keras", "savedmodel", "litert", "litert_float16", "litert_int8")


def network(table, weights):
    """MobileNetV2 with a head that has learned the table's training rows (on features taken once)."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(*SIZE, 3))
    if weights is not None:
        backbone.load_weights(weights)
    features = keras.layers.GlobalAveragePooling2D()(backbone(x, training=False))
    head = keras.layers.Dense(table["label"].nunique(), activation="softmax", name="probabilities")
    plain = keras.Model(inputs, head(features), name="mobilenet_v2")
    model = models.with_classes(plain, table["label"].cat.categories)
    train = table[table["split"] == "train"]
    seen = keras.Model(inputs, features).predict(
        pipelines.load(train, image_size=SIZE, batch_size=8, cache=False), verbose=0
    )
    codes = train["label"].cat.codes.to_numpy()
    small = keras.Sequential([keras.Input(seen.shape[1:]), keras.layers.Dense(table["label"].nunique())])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    small.compile(keras.optimizers.Adam(1e-2 if weights is None else 3e-3), loss)
    small.fit(seen, codes, epochs=40, verbose=0)
    head.set_weights(small.get_weights())
    return model


def in_turns(contestants, calls):
    """Milliseconds of each call: rows are contestants."""
    for call in contestants.values():
        for _ in range(5):
            call()
    found = {name: [] for name in contestants}
    # Slow ones leave caches and threads in disorder, so each has its own stretch of calls within a round.
    for name, call in contestants.items():
        for _ in range(calls if name.startswith("Predictor") else max(20, calls // 5)):
            began = time.perf_counter()
            call()
            found[name].append(1000 * (time.perf_counter() - began))
    return found


def latencies(model, folder, path, options):
    """The table of contestants, and the three ratios that are promised."""
    image = images.prepare(path, images.Preparation(SIZE))
    data = Path(path).read_bytes()
    threads = {name: None if name in ("keras", "savedmodel") else options.threads for name in options.kept}
    predictors = {
        name: serving.Predictor(folder, format=name, threads=threads[name], trust=True) for name in options.kept
    }
    function = tf.function(lambda images: model(images, training=False))
    contestants = {
        "model.predict": lambda: model.predict(image[None], verbose=0),
        "tf.function": lambda: function(tf.constant(image[None], tf.float32)).numpy(),
    }
    contestants |= {f"Predictor, {name}": lambda one=one: one(image) for name, one in predictors.items()}
    contestants["Predictor, litert, JPEG bytes"] = lambda: predictors["litert"](data)
    rounds = [in_turns(contestants, options.calls) for _ in range(options.rounds)]
    print("\n| one image | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|")
    for name in contestants:
        p50, p95, p99 = np.percentile(np.concatenate([found[name] for found in rounds]), [50, 95, 99])
        print(f"| {name} | {p50:.2f} | {p95:.2f} | {p99:.2f} |")
    ours = "Predictor, litert"
    print("\n| round | model.predict / Predictor (≥ 15) | tf.function / Predictor (≥ 3) | p99 / p50 (≤ 2) |")
    print("|---|---|---|---|")
    for number, found in enumerate(rounds, start=1):
        p50, p99 = np.percentile(found[ours], [50, 99])
        ratios = [np.median(found[name]) / p50 for name in ("model.predict", "tf.function")]
        print(f"| {number} | {ratios[0]:.1f} | {ratios[1]:.1f} | {p99 / p50:.2f} |")


def agreement(model, table, folder):
    """Every format on up to 500 real images that the model has not learned from."""
    check = table[table["split"] != "train"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = serving.export(model, folder, formats=FORMATS, check=check)
    print(
        "\n| format | MB | images | same label | largest difference | accuracy | change | kept |\n" + "|---" * 8 + "|"
    )
    for row in found.itertuples():
        print(
            f"| {row.format} | {row.megabytes:.1f} | {row.images} | {row.agreement:.1%} | "
            f"{row.largest_difference:.2g} | {row.accuracy:.3f} | {row.accuracy_change:+.3f} | {row.kept} |"
        )
    for warning in said:
        print(f"\n{warning.message}")
    return found.loc[found["kept"], "format"].tolist()


def threads_share(folder, path):
    """Images a second from one predictor, asked by several threads."""
    from concurrent.futures import ThreadPoolExecutor

    predictor, image = serving.Predictor(folder), images.prepare(path, images.Preparation(SIZE))
    print("\n| threads asking | images/s |\n|---|---|")
    for count in (1, 2, 4):
        with ThreadPoolExecutor(count) as pool:
            began = time.perf_counter()
            list(pool.map(predictor, [image] * 200))
            print(f"| {count} | {200 / (time.perf_counter() - began):.0f} |")


def stream(count):
    """`count` frames through `serving.stream`: megabytes of this process on the way."""
    with tempfile.TemporaryDirectory() as folder:
        table = tables.from_folder(samples.digits(folder + "/digits"))
        model = models.small_cnn(image_size=(8, 8), classes=table["label"].cat.categories, filters=(8, 16))
        serving.export(model, folder + "/export", formats=["litert"], check=table.head(50))
        predictor = serving.Predictor(folder + "/export")
        pictures = np.random.default_rng(0).integers(0, 256, (64, 48, 48, 3)).astype(np.uint8)
        frames = serving.stream((pictures[n % 64].copy() for n in range(count)), predictor, suspicious=["3"], queue=0)
        print("| frames | MB |\n|---|---|")
        for frame in frames:
            if frame.number % (count // 10) == 0:
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                print(f"| {frame.number:,} | {pages * 4096 / 1e6:.1f} |")
        print(frames.summary().T.to_string(header=False))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=os.environ.get("CNNLAB_REAL_DATA"))
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--stream", type=int)
    options = parser.parse_args()
    if options.stream:
        stream(options.stream)
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = None
        if options.data:
            table = tables.from_folder(Path(options.data) / "clothing")
            weights = Path(options.data) / "weights" / "mobilenet_v2_1.0_224_from_quant_no_top.h5"
        else:
            parts = samples.inspection(folder + "/parts", per_class=60, size=160)
            table = tables.split(tables.from_folder(parts), val=0.3, test=0.3, seed=0)
        try:
            model = network(table, weights)
        except ValueError:  # a file of weights for another layout of the network
            model = network(table, None)
        options.kept = agreement(model, table, folder + "/export")
        path = table["path"].iloc[0]
        latencies(model, folder + "/export", path, options)
        threads_share(folder + "/export", path)
        truth = experiments.predict(model, table[table["split"] == "test"])
        right = (truth["label"].astype(str) == truth["predicted"].astype(str)).mean()
        print(f"\ntest accuracy of the network itself: {right:.3f} (n = {len(truth)})")


if __name__ == "__main__":
    main()

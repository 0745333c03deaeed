"""Fashion-MNIST: a small network (< 100k weights) and a larger one (< 800k), mean of seeds, test part used once.

The network and how it is trained were chosen on 5,000 held-out training images, and the test images are looked at by a
network that has finished; `--validation` leaves them alone altogether. Each process uses one core: on two cores, run
both networks beside each other. An interrupted run goes on where it was.

Usage: CNNLAB_REAL_DATA=folder python benchmarks/fashion_mnist.py small|large [--folder runs/fashion_mnist]
"""

import argparse
import gzip
import os
import time
from pathlib import Path

import cv2
import numpy as np

from cnnlab import models, training

import keras  # isort: skip  (after cnnlab, which sets what TensorFlow reads once)
import tensorflow as tf  # isort: skip

NAMES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
VALIDATION = 5_000
BATCH = 128
NETWORKS = {
    "small": {"filters": (16, 32, 64), "dropout": 0.1, "erase": 0.25, "policy": "float32", "epochs": 45},
    "large": {"filters": (32, 64, 128), "dropout": 0.2, "erase": 0.5, "policy": "mixed_bfloat16", "epochs": 32},
}


def read(path):
    """One IDX file as an array; the images get a last axis of one channel."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, 4)
    array = np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    return array[..., None] if axes == 3 else array.astype(np.int32)


def augmented(images, labels, seed, erase):
    """Batches of an epoch after another: mirrored, shifted by up to two pixels, a part erased."""

    def changed(batch, numbers):
        return tf.numpy_function(lambda b, n: change(b, [seed, *n[:2]], erase), [batch, numbers], tf.uint8)

    order = tf.data.Dataset.from_tensor_slices((images, labels)).enumerate().shuffle(len(images), seed=seed)
    batches = order.batch(BATCH)

    def make(numbers, pair):
        batch = changed(pair[0], numbers)
        return tf.ensure_shape(batch, (None, *images.shape[1:])), pair[1]

    return batches.map(make, num_parallel_calls=2, deterministic=True).prefetch(4)


def change(batch, key, erase):
    rng = np.random.default_rng([int(part) for part in key])
    out = np.empty_like(batch)
    count = len(batch)
    shift, flipped, erased = rng.integers(-2, 3, (count, 2)), rng.random(count) < 0.5, rng.random(count) < erase
    corner, grey = rng.integers(0, 22, (count, 2)), rng.integers(0, 256, count)
    for index, image in enumerate(batch):
        matrix = np.float32([[1, 0, shift[index, 0]], [0, 1, shift[index, 1]]])
        moved = cv2.warpAffine(image[..., 0], matrix, (28, 28), borderMode=cv2.BORDER_CONSTANT)
        out[index, ..., 0] = moved[:, ::-1] if flipped[index] else moved
        if erased[index]:
            top, left = corner[index]
            out[index, top : top + 8, left : left + 8] = grey[index]
    return out


def trained(kind, images, labels, folder, *, seed, epochs):
    """A network trained on these images with one cycle of the learning rate, begun or gone on with."""
    setting = NETWORKS[kind]
    keras.mixed_precision.set_global_policy(setting["policy"])
    keras.utils.set_random_seed(seed)
    model = models.residual_cnn(
        image_size=(28, 28),
        channels=1,
        classes=NAMES,
        filters=setting["filters"],
        blocks=1,
        dropout=setting["dropout"],
    )
    data = augmented(images, labels, seed, setting["erase"])
    schedule = training.one_cycle(0.01, steps=epochs * len(data))
    training.compile(model, learning_rate=schedule, label_smoothing=0.05, weight_decay=0.02)
    callbacks = training.resume(folder, monitor="loss", seed=seed, tensorboard=False)
    model.fit(data, epochs=epochs, verbose=0, callbacks=callbacks)
    return model


def accuracy(model, images, labels):
    """Share of right answers; each answer is the mean over an image, its four neighbours by a pixel, and mirrored."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    total = 0
    for down, right, weight in ((1, 1, 2), (0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1)):
        view = padded[:, down : down + 28, right : right + 28]
        for side in (view, view[:, :, ::-1]):
            total = total + weight * model.predict(side, batch_size=500, verbose=0)
    return float((total.argmax(axis=1) == labels).mean())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--epochs", type=int, help="fewer than the network's own for a trial")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--images", type=int, default=60_000, help="fewer for a trial")
    parser.add_argument("--folder", type=Path, default=Path("runs/fashion_mnist"), help="of the runs")
    parser.add_argument("--validation", action="store_true", help="does not look at the test images")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    data = Path(os.environ["CNNLAB_REAL_DATA"]) / "fashion-mnist"
    kinds = ("images-idx3", "labels-idx1")
    images, labels = (read(data / f"train-{kind}-ubyte.gz")[: options.images] for kind in kinds)
    test = tuple(read(data / f"t10k-{kind}-ubyte.gz") for kind in kinds)
    print("| network | weights | seed | validation | test | minutes |\n|---|---|---|---|---|---|")
    epochs = options.epochs or NETWORKS[options.network]["epochs"]
    scores = []
    for seed in options.seeds:
        order = np.random.default_rng(seed).permutation(len(images))
        val, train = np.split(order, [min(VALIDATION, len(images) // 5)])
        began = time.perf_counter()
        folder = options.folder / f"{options.network}_{seed}_{epochs}"
        model = trained(options.network, images[train], labels[train], folder, seed=seed, epochs=epochs)
        minutes = (time.perf_counter() - began) / 60
        seen = accuracy(model, images[val], labels[val])
        scores.append(np.nan if options.validation else accuracy(model, *test))
        size = model.count_params()
        print(f"| {options.network} | {size:,} | {seed} | {seen:.4f} | {scores[-1]:.4f} | {minutes:.1f} |", flush=True)
    print(f"\nmean of {len(scores)} seeds: {np.mean(scores):.4f} ± {np.std(scores):.4f}")


if __name__ == "__main__":
    main()

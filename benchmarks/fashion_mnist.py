"""Fashion-MNIST: a small network (< 100k weights) and a residual one (< 800k), mean of seeds, test part used once.

Usage: CNNLAB_REAL_DATA=folder python benchmarks/fashion_mnist.py [--network small|residual] [--epochs 30] [--seeds 3]
"""

import argparse
import gzip
import os
import time
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf

from cnnlab import models, training

NAMES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
VALIDATION = 5_000
BATCH = 128


def read(path):
    """One IDX file as an array; the images get a last axis of one channel."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, 4)
    array = np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    return array[..., None] if axes == 3 else array.astype(np.int32)


def augmented(images, labels, seed):
    """Batches of an epoch after another: mirrored, shifted by up to two pixels, a part erased."""

    def changed(batch, numbers):
        return tf.numpy_function(lambda b, n: change(b, [seed, *n[:2]]), [batch, numbers], tf.uint8)

    order = tf.data.Dataset.from_tensor_slices((images, labels)).enumerate().shuffle(len(images), seed=seed)
    batches = order.batch(BATCH)

    def make(numbers, pair):
        batch = changed(pair[0], numbers)
        return tf.ensure_shape(batch, (None, *images.shape[1:])), pair[1]

    return batches.map(make, num_parallel_calls=2, deterministic=True).prefetch(4)


def change(batch, key):
    rng = np.random.default_rng([int(part) for part in key])
    out = np.empty_like(batch)
    for index, image in enumerate(batch):
        x, y = rng.integers(-2, 3, 2)
        matrix = np.float32([[1, 0, x], [0, 1, y]])
        moved = cv2.warpAffine(image[..., 0], matrix, (28, 28), borderMode=cv2.BORDER_CONSTANT)
        if rng.random() < 0.5:
            moved = moved[:, ::-1]
        if rng.random() < 0.5:
            moved = moved.copy()
            top, left = rng.integers(0, 22, 2)
            moved[top : top + 8, left : left + 8] = rng.integers(0, 256)
        out[index, ..., 0] = moved
    return out


def network(kind):
    if kind == "small":
        return models.small_cnn(
            image_size=(28, 28), channels=1, classes=NAMES, filters=(24, 32, 48, 48, 64), dropout=0.2
        )
    return models.residual_cnn(image_size=(28, 28), channels=1, classes=NAMES)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", choices=["small", "residual"], default="small")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=60_000, help="fewer for a trial")
    parser.add_argument("--peak", type=float, default=0.01, help="highest learning rate")
    options = parser.parse_args()
    folder = Path(os.environ["CNNLAB_REAL_DATA"]) / "fashion-mnist"
    images, labels = (
        read(folder / f"train-{kind}-ubyte.gz")[: options.images] for kind in ("images-idx3", "labels-idx1")
    )
    test = tuple(read(folder / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    print("| network | weights | seed | validation | test | minutes |\n|---|---|---|---|---|---|")
    scores = []
    for seed in range(options.seeds):
        order = np.random.default_rng(seed).permutation(len(images))
        held = min(VALIDATION, len(images) // 5)
        val, train = order[:held], order[held:]
        keras.utils.set_random_seed(seed)
        model = network(options.network)
        data = augmented(images[train], labels[train], seed)
        schedule = training.one_cycle(options.peak, steps=options.epochs * len(data))
        training.compile(model, learning_rate=schedule, label_smoothing=0.05, weight_decay=0.02)
        keep = keras.callbacks.EarlyStopping("val_accuracy", patience=options.epochs, restore_best_weights=True)
        began = time.perf_counter()
        history = model.fit(
            data, validation_data=(images[val], labels[val]), epochs=options.epochs, callbacks=[keep], verbose=0
        )
        minutes = (time.perf_counter() - began) / 60
        scores.append(model.evaluate(*test, batch_size=500, verbose=0)[1])
        best = max(history.history["val_accuracy"])
        print(
            f"| {options.network} | {model.count_params():,} | {seed} | {best:.4f} | {scores[-1]:.4f} | {minutes:.1f} |"
        )
    print(f"\nmean of {len(scores)} seeds: {np.mean(scores):.4f} ± {np.std(scores):.4f}")


if __name__ == "__main__":
    main()

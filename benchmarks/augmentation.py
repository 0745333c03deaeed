"""Images a second with augmentation: cnnlab beside Keras layers, plain decoding, and albumentations with PyTorch.

Same images, same operations (flip, rotate, zoom, shift, brightness, contrast, saturation, noise), same output, one run.
The contestants take turns, so that whatever else the machine does meets them all; ratios are medians over the rounds.

Usage:
    python benchmarks/augmentation.py [--data FOLDER] [--rounds 5] [--albumentations-python PATH]

FOLDER holds JPEG files in one folder per class; without one, photograph-like images are made. PATH is the Python of an
environment with albumentations, torch and opencv-python-headless; without one that contestant is left out.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cnnlab import augment, pipelines, tables

import keras  # isort: skip  (after cnnlab, which keeps TensorFlow's log lines away)
import tensorflow as tf  # isort: skip

SIZE = (160, 160)
BATCH = 32
POLICY = augment.Policy(
    flip="horizontal", rotate=10, zoom=0.1, shift=0.1, brightness=0.1, contrast=0.1, saturation=0.1, noise=4
)
AUTO = tf.data.AUTOTUNE

# Runs in the other Python: one epoch for every line it is sent, answered with images and seconds.
ALBUMENTATIONS = """
import sys, time
import albumentations as A, cv2, numpy as np, torch
paths = open(sys.argv[1]).read().split("\\n")
change = A.Compose([
    A.Resize(160, 160), A.HorizontalFlip(p=0.5),
    A.Affine(rotate=(-10, 10), scale=(0.9, 1.1), translate_percent=(-0.1, 0.1), border_mode=cv2.BORDER_REFLECT, p=1),
    A.ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0, p=1),
    A.GaussNoise(std_range=(0, 4 / 255), p=1),
])
class Images(torch.utils.data.Dataset):
    def __len__(self):
        return len(paths)
    def __getitem__(self, index):
        image = cv2.cvtColor(cv2.imread(paths[index]), cv2.COLOR_BGR2RGB)
        return torch.from_numpy(change(image=image)["image"])
loader = torch.utils.data.DataLoader(
    Images(), batch_size=32, shuffle=True, num_workers=2, persistent_workers=True,
    worker_init_fn=lambda number: cv2.setNumThreads(0),
)
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    count = sum(len(batch) for batch in loader)
    print(count, time.perf_counter() - start, flush=True)
"""


def read(path):
    return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)


def resized(path):
    return tf.cast(tf.image.resize(read(path), SIZE), tf.uint8)


def keras_layers():
    """The same operations as layers, and noise as the cheapest way there is to write it."""
    layers = [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomRotation(10 / 360),
        keras.layers.RandomZoom(0.1),
        keras.layers.RandomTranslation(0.1, 0.1),
        keras.layers.RandomBrightness(0.1),
        keras.layers.RandomContrast(0.1),
        keras.layers.RandomSaturation((0.45, 0.55)),  # 0.5 leaves the image as it is
    ]

    def change(images):
        images = tf.cast(images, tf.float32)
        for layer in layers:
            images = layer(images, training=True)
        return tf.clip_by_value(images + tf.random.normal(tf.shape(images), stddev=4.0), 0.0, 255.0)

    return change


def contestants(table):
    """Name: (dataset, whether it gives batches)."""
    paths = tf.data.Dataset.from_tensor_slices(table["path"].astype(str).tolist())
    change = keras_layers()
    small = paths.map(resized, num_parallel_calls=AUTO)
    kept = small.cache()
    options = {"image_size": SIZE, "batch_size": BATCH, "training": True, "seed": 0, "resize": "stretch"}
    ours = {
        "cnnlab": pipelines.load(table, augment=POLICY, cache=False, **options),
        "cnnlab, from memory": pipelines.load(table, augment=POLICY, cache="memory", **options),
        "cnnlab, no augmentation": pipelines.load(table, cache=False, **options),
    }
    return {
        "decode only, full resolution": (paths.map(read, num_parallel_calls=AUTO).prefetch(AUTO), False),
        "Keras layers, per image": (
            small.map(change, num_parallel_calls=AUTO).batch(BATCH).prefetch(AUTO),
            True,
        ),
        "Keras layers, per batch": (
            small.batch(BATCH).map(change, num_parallel_calls=AUTO).prefetch(AUTO),
            True,
        ),
        "Keras layers, per image, from memory": (
            kept.map(change, num_parallel_calls=AUTO).batch(BATCH).prefetch(AUTO),
            True,
        ),
        "Keras layers, per batch, from memory": (
            kept.batch(BATCH).map(change, num_parallel_calls=AUTO).prefetch(AUTO),
            True,
        ),
    } | {name: (dataset, True) for name, dataset in ours.items()}


def epoch(dataset, batched):
    """Images and seconds of one pass, and the processor's seconds."""
    start, used, count = time.perf_counter(), time.process_time(), 0
    for batch in dataset:
        images = batch[0] if isinstance(batch, tuple) else batch
        count += int(images.shape[0]) if batched else 1
    return count, time.perf_counter() - start, time.process_time() - used


class Other:
    """The contestant in another Python."""

    def __init__(self, python, table, folder):
        listing, script = Path(folder) / "paths.txt", Path(folder) / "contestant.py"
        listing.write_text("\n".join(table["path"].astype(str)))
        script.write_text(ALBUMENTATIONS)
        command = [python, str(script), str(listing)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        while self.process.stdout.readline().strip() != "ready":
            if self.process.poll() is not None:
                raise SystemExit("The other Python could not run albumentations with torch; its message is above.")

    def epoch(self):  # noqa: D102
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        count, seconds = self.process.stdout.readline().split()
        return int(count), float(seconds), np.nan

    def close(self):  # noqa: D102
        self.process.stdin.close()
        self.process.wait()


def made_images(folder):
    """JPEG files of the kind a camera gives: smooth shapes and grain."""
    rng = np.random.default_rng(0)
    for number in range(240):
        path = Path(folder) / f"class{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            (512, 384), Image.Resampling.BICUBIC
        )
        grain = np.asarray(coarse) + rng.normal(0, 6, (384, 512, 3))
        Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).save(path, quality=92)
    return folder


def per_operation(table, rounds):
    """Milliseconds that each operation adds to an image that lies in memory."""
    options = {"image_size": SIZE, "training": True, "seed": 0, "resize": "stretch", "cache": "memory"}
    every = POLICY | augment.Policy(shear=10, crop=0.3, hue=0.05, grayscale=0.2, blur=1.0, erase=0.2)
    cases = {"none": augment.Policy()} | {name: every.only(name) for name in every.operations} | {"all eight": POLICY}
    datasets = {name: pipelines.load(table, augment=policy, **options) for name, policy in cases.items()}
    for dataset in datasets.values():
        epoch(dataset, True)
    cost = {name: [] for name in cases}
    for _ in range(rounds):
        for name, dataset in datasets.items():
            count, _, used = epoch(dataset, True)
            cost[name].append(1000 * used / count)
    plain = np.median(cost["none"])
    print("\n| operation, from memory | processor ms an image | of that, the operation |\n|---|---|---|")
    for name, values in cost.items():
        print(f"| {name} | {np.median(values):.3f} | {np.median(values) - plain:.3f} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--rounds", type=int, default=5)
    # In its first second an epoch may find its threads on one core; short ones would measure just that.
    parser.add_argument("--repeat", type=int, default=8, help="how often the files are listed, for longer epochs")
    parser.add_argument("--albumentations-python")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = tables.from_folder(arguments.data or made_images(folder))
        table = pd.concat([table] * arguments.repeat, ignore_index=True)
        runs = {
            name: lambda dataset=dataset, batched=batched: epoch(dataset, batched)
            for name, (dataset, batched) in contestants(table).items()
        }
        other = None
        if arguments.albumentations_python:
            other = Other(arguments.albumentations_python, table, folder)
            runs["albumentations + PyTorch, 2 workers"] = other.epoch
        for run in runs.values():  # fill caches, trace functions
            run()
        found = {name: [] for name in runs}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                found[name].append(run())
        report(found)
        per_operation(table, arguments.rounds)
        if other:
            other.close()


def report(found):
    rates = {name: np.array([count / seconds for count, seconds, _ in values]) for name, values in found.items()}
    ours = "cnnlab, from memory"
    print(
        "| pipeline | images/s, median (best) | processor ms an image | cnnlab is … times as fast |\n|---|---|---|---|"
    )
    for name, rate in rates.items():
        used = np.median([1000 * seconds / count for count, _, seconds in found[name]])
        against = rates[ours] if name.endswith("from memory") else rates["cnnlab"]
        ratio = np.median(against / rate)
        processor = f"{used:.2f}" if np.isfinite(used) else ""
        print(f"| {name} | {np.median(rate):,.0f} ({rate.max():,.0f}) | {processor} | {ratio:.2f} |")


if __name__ == "__main__":
    main()

"""training.fine_tune from EfficientNetLite0's ImageNet weights, beside its head alone: test accuracy and seconds.

Usage: CNNLAB_REAL_DATA=folder python benchmarks/fine_tuning.py [clothing|trash|sign_digits …] [--seeds 3]
       [--part val] to choose by; the test part is for the last look.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

from cnnlab import augment, experiments, models, pipelines, tables, training

import keras  # isort: skip  (after cnnlab, which sets what TensorFlow reads once)

DATA = Path(os.environ.get("CNNLAB_REAL_DATA", ""))
SHIFTS = {"rotate": 10, "zoom": 0.15, "shift": 0.1, "brightness": 0.15, "contrast": 0.15}
# Side in pixels, and what may happen to an image without changing its class.
SETS = {
    "clothing": (224, augment.Policy(flip="horizontal", **SHIFTS)),
    "trash": (224, augment.Policy(flip="both", **SHIFTS)),
    "sign_digits": (128, augment.Policy(rotate=10, zoom=0.1, shift=0.1, brightness=0.15, contrast=0.1)),
}


def parts(name):
    """The tables train, val and test."""
    table = tables.from_folder(DATA / name)
    if "split" not in table:
        table = tables.split(table, val=0.15, test=0.2, seed=0)
    return [table[table["split"] == part] for part in ("train", "val", "test")]


def tuned(name, train, val, seed, **options):
    """The network fine-tuned by the defaults, and the history."""
    size, policy = SETS[name]
    keras.utils.set_random_seed(seed)
    classes = train["label"].cat.categories
    model = models.pretrained("EfficientNetLite0", image_size=(size, size), classes=classes)
    data = pipelines.load(train, like=model, training=True, augment=policy, seed=seed)
    return model, training.fine_tune(model, data, pipelines.load(val, like=model), seed=seed, **options)


def accuracy(model, table):
    """Share of right answers."""
    guess = experiments.predict(model, table)
    return float((guess["label"].astype(str) == guess["predicted"].astype(str)).mean())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--part", default="test", choices=("val", "test"))
    options = parser.parse_args()
    print("| images | seed | head alone | seconds | fine-tuned | seconds | share |\n|---|---|---|---|---|---|---|")
    for name in options.sets or SETS:
        train, val, test = parts(name)
        asked = test if options.part == "test" else val
        found = []
        for seed in range(options.seeds):
            for epochs in ({"epochs": 0}, {}):
                began = time.perf_counter()
                model, history = tuned(name, train, val, seed, **epochs)
                seconds = time.perf_counter() - began
                found.append((accuracy(model, asked), seconds))
            share = history.phases["share"].iloc[-1]
            print("| {} | {} | {:.3f} | {:.0f} | {:.3f} | {:.0f} | {:g} |".format(
                name, seed, *found[-2], *found[-1], share), flush=True)  # fmt: skip
        head, whole = np.mean(found[::2], axis=0), np.mean(found[1::2], axis=0)
        print("| {} | mean | {:.3f} | {:.0f} | {:.3f} | {:.0f} | |".format(name, *head, *whole), flush=True)


if __name__ == "__main__":
    main()

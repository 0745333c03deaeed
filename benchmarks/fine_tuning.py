"""training.fine_tune from ImageNet's MobileNet-0.25, beside logistic regression on its features.

Usage: CNNLAB_REAL_DATA=folder python benchmarks/fine_tuning.py [clothing|sign_digits …] [--seeds 3]
"""

import argparse
import os
import time
from pathlib import Path

import keras
import numpy as np
from sklearn.linear_model import LogisticRegression

from cnnlab import augment, experiments, models, pipelines, tables, training

DATA = Path(os.environ.get("CNNLAB_REAL_DATA", ""))
# Side in pixels, epochs, and what may happen to an image without changing its class; chosen on the validation part.
SETS = {
    "clothing": (
        224,
        20,
        augment.Policy(flip="horizontal", rotate=10, zoom=0.15, shift=0.1, brightness=0.15, contrast=0.15),
    ),
    "sign_digits": (96, 40, augment.Policy(rotate=10, zoom=0.1, shift=0.1, brightness=0.15, contrast=0.1)),
}


def tuned(train, val, size, epochs, policy, seed):
    keras.utils.set_random_seed(seed)
    model = models.pretrained(
        "MobileNet",
        image_size=(size, size),
        classes=train["label"].cat.categories,
        weights=DATA / "weights" / "mobilenet_2_5_224_tf_no_top.h5",
        alpha=0.25,
    )
    untouched = keras.models.clone_model(model)
    untouched.set_weights(model.get_weights())
    data = pipelines.load(train, image_size=(size, size), training=True, augment=policy, seed=seed)
    training.fine_tune(model, data, pipelines.load(val, image_size=(size, size)), epochs=epochs)
    return model, untouched


def linear(model, train, test):
    """Test accuracy of logistic regression on what the network sees before it is tuned."""
    head = LogisticRegression(max_iter=5000).fit(experiments.features(model, train), train["label"].cat.codes)
    return (head.predict(experiments.features(model, test)) == test["label"].cat.codes.to_numpy()).mean()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print("| images | seed | test accuracy | logistic regression on features | minutes |\n|---|---|---|---|---|")
    for name in options.sets or SETS:
        size, epochs, policy = SETS[name]
        table = tables.from_folder(DATA / name)
        if "split" not in table:
            table = tables.split(table, val=0.15, test=0.2, seed=0)
        train, val, test = (table[table["split"] == part] for part in ("train", "val", "test"))
        scores = []
        for seed in range(options.seeds):
            began = time.perf_counter()
            model, untouched = tuned(train, val, size, epochs, policy, seed)
            minutes = (time.perf_counter() - began) / 60
            guess = experiments.predict(model, test)
            scores.append((guess["label"].astype(str) == guess["predicted"].astype(str)).mean())
            beside = f"{linear(untouched, train, test):.3f}" if seed == 0 else ""
            print(f"| {name} | {seed} | {scores[-1]:.3f} | {beside} | {minutes:.1f} |", flush=True)
        print(f"| {name} | mean | {np.mean(scores):.3f} | | |", flush=True)


if __name__ == "__main__":
    main()

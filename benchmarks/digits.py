"""scikit-learn's digits, stratified 5-fold: accuracy of small_cnn through cnnlab's own words, beside an SVC.

Usage: python benchmarks/digits.py [--epochs 20] [--seeds 1]
"""

import argparse
import tempfile
import time

import numpy as np
from PIL import Image
from sklearn.metrics import accuracy_score
from sklearn.svm import SVC

from cnnlab import augment, experiments, models, pipelines, samples, tables, training

import keras  # isort: skip  (after cnnlab, which sets what TensorFlow reads once)

SIZE = (16, 16)


def cnn_fold(table, fold, epochs, seed):
    train, held_out = table[table["fold"] != fold], table[table["fold"] == fold]
    keras.utils.set_random_seed(seed)
    policy = augment.Policy(rotate=8, zoom=0.1, shift=0.08, shear=5)
    data = pipelines.load(train, image_size=SIZE, batch_size=32, training=True, augment=policy, seed=seed)
    classes = table["label"].cat.categories
    model = models.small_cnn(image_size=SIZE, classes=classes, filters=(24, 48, 64), dropout=0.2)
    training.compile(model, learning_rate=training.one_cycle(5e-3, steps=epochs * len(data)))
    model.fit(data, epochs=epochs, verbose=0)
    predictions = experiments.predict(model, held_out)
    return accuracy_score(predictions["label"].astype(str), predictions["predicted"].astype(str))


def svc_fold(table, pixels, fold):
    train = (table["fold"] != fold).to_numpy()
    labels = table["label"].astype(str).to_numpy()
    return SVC(gamma=0.001).fit(pixels[train], labels[train]).score(pixels[~train], labels[~train])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = tables.from_folder(samples.digits(folder + "/digits"))
        pixels = np.stack([np.asarray(Image.open(path)) for path in table["path"]]).reshape(len(table), -1) * (16 / 255)
        print("| seed | small_cnn, 5 folds | mean ± sd | seconds | SVC on pixels, same folds |\n|---|---|---|---|---|")
        for seed in range(options.seeds):
            divided = tables.folds(table, count=5, seed=seed)
            began = time.perf_counter()
            scores = [cnn_fold(divided, fold, options.epochs, seed) for fold in range(5)]
            seconds = time.perf_counter() - began
            svc = [svc_fold(divided, pixels, fold) for fold in range(5)]
            folds = " ".join(f"{score:.4f}" for score in scores)
            print(
                f"| {seed} | {folds} | {np.mean(scores):.4f} ± {np.std(scores):.4f} | {seconds:.0f} | "
                f"{np.mean(svc):.4f} ± {np.std(svc):.4f} |"
            )


if __name__ == "__main__":
    main()

"""How many images a class a pretrained network pays for: rendered inspection, beside a small network from scratch.

Usage: python benchmarks/few_images.py [--images 10 20 50 150] [--seeds 5] [--steps 300] [--folder FOLDER]

Each run learns from so many images of each class and is asked for the same 300 others. "fine-tuned" is
EfficientNet-Lite0 at 96 pixels after both phases of `training.fine_tune`, "head alone" after the first; "from scratch"
is `models.small_cnn` at 64 pixels. Fine-tuning and the small network take the same number of steps, and all three see
the same random changes of the images. "linear probe" is logistic regression on what EfficientNet-Lite0 makes of the
images as they are: seconds instead of minutes. Runs are kept in FOLDER/runs.csv one by one, so that the same command
continues an interrupted one; FOLDER/curve.png shows them.
"""

import argparse
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.stats

from cnnlab import augment, experiments, models, pipelines, samples, tables, training

import keras  # isort: skip  (after cnnlab, which sets what TensorFlow reads once)

HELD_OUT, POOL = 50, 200  # images of each class
SIZE, PRETRAINED_SIZE = (64, 64), (96, 96)
POLICY = augment.Policy(flip="both", rotate=10, zoom=0.1, shift=0.05, brightness=0.15, contrast=0.15)
VERSIONS = 600  # of training images that the new last layer sees, or two of each image where that is more


def probe(train, test, seed, steps):
    """Predictions of a linear probe."""
    return experiments.linear_probe(train, test=test, image_size=PRETRAINED_SIZE, seed=seed)


def fine_tuned(train, test, seed, steps):
    """Predictions after both phases; no image beyond the training images chooses the weights."""
    keras.utils.set_random_seed(seed)
    model = models.pretrained("EfficientNetLite0", image_size=PRETRAINED_SIZE, classes=train["label"].cat.categories)
    data = pipelines.load(train, like=model, batch_size=16, training=True, augment=POLICY, seed=seed)
    known, passes = pipelines.load(train, like=model), max(2, VERSIONS // len(train))
    epochs = max(1, round(steps / len(data))) if steps else 0
    training.fine_tune(model, data, known, head_epochs=passes, epochs=epochs, seed=seed)
    return experiments.predict(model, test)


def head_alone(train, test, seed, steps):
    """Predictions after the first phase."""
    return fine_tuned(train, test, seed, steps=0)


def from_scratch(train, test, seed, steps):
    """Predictions of a small network; few images are shown more often, so that all runs make the same steps."""
    keras.utils.set_random_seed(seed)
    data = pipelines.load(train, image_size=SIZE, training=True, augment=POLICY, seed=seed)
    epochs = max(1, round(steps / len(data)))
    model = models.small_cnn(image_size=SIZE, classes=train["label"].cat.categories)
    training.compile(model, learning_rate=training.one_cycle(5e-3, steps=epochs * len(data)))
    model.fit(data, epochs=epochs, verbose=0)
    return experiments.predict(model, test)


METHODS = {"linear probe": probe, "head alone": head_alone, "fine-tuned": fine_tuned, "from scratch": from_scratch}


def interval(values):
    """Half of a 95 % interval of the mean, by Student's t."""
    return scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))


def report(runs, folder):
    """The table and the curve of all runs."""
    wide = runs.pivot(index=["images", "seed"], columns="method", values="accuracy")
    wide["difference"] = wide["fine-tuned"] - wide["from scratch"]
    print(
        f"| images a class | {' | '.join(METHODS)} | fine-tuned - from scratch | seconds, {' | '.join(METHODS)} |\n"
        + "|---" * (2 + 2 * len(METHODS))
        + "|"
    )
    seconds = runs.pivot_table(index="images", columns="method", values="seconds", aggfunc="median")
    for images, rows in wide.groupby("images"):
        cells = [f"{rows[name].mean():.3f} ± {interval(rows[name]):.3f}" for name in METHODS]
        difference = f"{rows['difference'].mean():+.3f} ± {interval(rows['difference']):.3f}"
        times = [f"{seconds.loc[images, name]:.1f}" for name in METHODS]
        print(f"| {images} | {' | '.join([*cells, difference, *times])} |")
    figure, ax = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    for name in METHODS:
        grouped = wide[name].groupby("images")
        ax.errorbar(list(grouped.groups), grouped.mean(), grouped.apply(interval), marker="o", capsize=3, label=name)
    ax.set(xscale="log", xlabel="training images of each class (log scale)", ylabel="accuracy, mean of all seeds")
    ax.set_xticks(sorted(set(runs["images"])), sorted(set(runs["images"])))
    ax.minorticks_off()
    ax.legend(frameon=False)
    figure.savefig(folder / "curve.png", dpi=150)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[10, 20, 50, 150], help=f"of each class, up to {POOL}")
    parser.add_argument("--seeds", type=int, default=5, help="2 or more")
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning, and from scratch")
    parser.add_argument("--folder", type=Path, default=Path("runs/few_images"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    table = tables.from_folder(samples.inspection(options.folder / "inspection", per_class=HELD_OUT + POOL, seed=0))
    share = HELD_OUT / (HELD_OUT + POOL)
    table = tables.split(table, val=0, test=share, group=False, seed=0)
    pool, test = table[table["split"] == "train"], table[table["split"] == "test"]
    experiments.features("EfficientNetLite0", table, image_size=PRETRAINED_SIZE, pyramid=True)  # not in the seconds
    file = options.folder / "runs.csv"
    key = ["images", "seed", "steps", "method"]
    runs = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=[*key, "accuracy", "seconds"])
    done = set(runs[key].itertuples(index=False, name=None))
    for images in options.images:
        for seed in range(options.seeds):
            train = pool.groupby("label", observed=True).sample(images, random_state=seed)
            for method, learn in METHODS.items():
                if (images, seed, options.steps, method) in done:
                    continue
                began = time.perf_counter()
                guess = learn(train, test, seed, options.steps)
                right = (guess["label"].astype(str) == guess["predicted"].astype(str)).mean()
                row = [images, seed, options.steps, method, right, time.perf_counter() - began]
                runs.loc[len(runs)] = row
                runs.to_csv(file, index=False)
    asked = runs["images"].isin(options.images) & (runs["seed"] < options.seeds) & (runs["steps"] == options.steps)
    report(runs[asked], options.folder)


if __name__ == "__main__":
    main()

"""Judges 07_transfer_learning: what learns, a frozen network, a classifier on features, and where a head start pays."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnnlab.exercises.answers import array, call, expect, expect_type, layers_in_order, number


def change(answer: Any) -> str:
    """A pretrained network for three classes in which only dense layers learn."""
    import cnnlab._quiet  # noqa: F401, I001
    import keras

    layers = layers_in_order(answer)
    learning = sum(int(np.prod(weight.shape)) for weight in answer.trainable_weights)
    whole = answer.count_params()
    expect(whole > 50_000, f"It has only {whole:,} weights: that is not a pretrained network.")
    expect(learning, "Nothing in it learns any more; the new head should.")
    expect(learning < 0.1 * whole, f"{learning:,} of its {whole:,} weights still learn, so more than the head does.")
    awake = [one.name for one in layers if one.trainable_weights and not isinstance(one, keras.layers.Dense)]
    expect(not awake, f"{', '.join(awake[:2])} still learns, which belongs to the backbone.")
    outputs = answer.output_shape[-1]
    expect(outputs == 3, f"It tells {outputs} classes apart, not 3.")
    return f"{learning:,} of {whole:,} weights learn."


def build(answer: Any) -> None:
    """A function that is about as often right as a logistic regression on scaled features."""
    for seed in range(2):
        x, y = make_classification(
            300, 20, n_informative=8, n_classes=3, n_clusters_per_class=1, class_sep=1.5, random_state=seed
        )
        x = x * np.geomspace(0.001, 1000, 20) + 5  # features of very different sizes, as networks have them
        names = np.array(["crack", "good", "pit"])[y]
        found = np.asarray(call(answer, x[:200].copy(), names[:200].copy(), x[200:].copy()))
        if found.ndim == 2:
            array(found, shape=(100, 3))
        expect(found.ndim == 1, "Your function should return one class name per row; these look like probabilities.")
        expect(len(found) == 100, f"For 100 rows it returned {len(found)} answers.")
        strange = set(map(str, found)) - set(names[:200])
        expect(not strange, f"It answers {min(strange, default='')!r}, which is not a class name.")
        reached = float((found.astype(str) == names[200:]).mean())
        reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[:200], names[:200])
        best = reference.score(x[200:], names[200:])
        words = f"It is right in {reached:.0%} of the rows, a scaled logistic regression in {best:.0%}."
        expect(reached > best - 0.05, words)


def pays(answer: Any) -> None:
    """A function that gives the numbers of images at which the pretrained network is better beyond the seeds."""
    gains = {10: (0.2, 0.05), 20: (0.02, 0.1), 50: (0.03, 0.004), 150: (-0.03, 0.004)}  # mean and spread over seeds
    for seed in range(3):
        rng, rows = np.random.default_rng(seed), []
        for images, (mean, spread) in gains.items():
            luck, noise = rng.normal(0, 0.1, 5), rng.normal(0, 1, 5)
            noise = (noise - noise.mean()) / noise.std(ddof=1)
            for one in range(5):
                rows.append((images, one, "scratch", 0.6 + luck[one]))
                rows.append((images, one, "pretrained", 0.6 + luck[one] + mean + spread * noise[one]))
        runs = pd.DataFrame(rows, columns=["images", "seed", "way", "accuracy"]).sample(frac=1, random_state=seed)
        found = call(answer, runs.reset_index(drop=True))
        expect_type(found, (list, tuple, np.ndarray, pd.Index), "a list of numbers of images")
        found = [int(number(one)) for one in found]
        expect(20 not in found, "At 20 images the interval reaches from below 0 to above: chance alone could do that.")
        expect(150 not in found, "At 150 images the pretrained network is worse.")
        words = "At 50 images the gain is small, but the same for every seed: compare the two ways seed by seed."
        expect(50 in found, words)
        expect(found == [10, 50], f"It gives {found} where the interval lies above 0 at 10 and at 50.")

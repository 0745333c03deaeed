"""Exercises of 07_transfer_learning: what learns, a frozen network, a classifier on features."""

from typing import Any

import numpy as np
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnnlab.exercises.asking import array, call, equal_number, exercise, expect, layers_in_order, model

FEATURES, CLASSES = 1280, 6


@exercise
def predict(answer: Any) -> str:
    """A frozen network gives 1,280 feature maps of 7 × 7. Upon them come global average pooling and a dense layer for 6
    classes. How many weights learn? Calculate first.

    Answer: a whole number
    Hint: Pooling has no weights, and leaves one number per feature map.
    Hint: Each of the 6 classes has one weight for each of the 1,280 numbers.
    Hint: … and one bias each.
    Right: So few weights are learned from a few hundred images, and cannot memorize them.
    """
    mistakes: dict[float, str] = {
        FEATURES * CLASSES: "Nearly: each class also has one number that is added at the end.",
        FEATURES: "That is enough for one class; there are six.",
        7 * 7 * FEATURES * CLASSES: "The pooling takes the mean over the 7 × 7 places first.",
        7 * 7 * FEATURES * CLASSES + CLASSES: "The pooling takes the mean over the 7 × 7 places first.",
        FEATURES + CLASSES: "Every class looks at every feature.",
    }
    equal_number(answer, FEATURES * CLASSES + CLASSES, mistakes=mistakes)
    return "The frozen part has millions."


@exercise
def change(answer: Any) -> str:
    """Make a network for the three classes of your choice from `models.pretrained`, in which only the new head learns.
    Hand in the model (`weights=None` will do here).

    Answer: a Keras model
    Hint: `models.pretrained(name, image_size=…, classes=…, weights=None)`; look at its `summary()`.
    Hint: A layer with `trainable = False` does not learn; `models.backbone(model)` is the part to freeze.
    Hint: Three classes, `models.backbone(model).trainable = False`, and nothing else.
    Right: What it has seen elsewhere stays; only the last decision is new.
    """
    network = model(answer)
    learning = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    whole = network.count_params()
    expect(whole > 50_000, f"It has only {whole:,} weights: that is no pretrained network.")
    expect(learning, "Nothing in it learns any more; the new head should.")
    expect(learning < 0.1 * whole, f"{learning:,} of its {whole:,} weights still learn, so more than the head does.")
    awake = [layer.name for layer in layers_in_order(network) if layer.trainable_weights and not _is_head(layer)]
    expect(not awake, f"{', '.join(awake[:2])} still learns, which belongs to the backbone.")
    outputs = network.output_shape[-1]
    expect(outputs == 3, f"It tells {outputs} classes apart, not 3.")
    return f"{learning:,} of {whole:,} weights learn."


def _is_head(layer: Any) -> bool:
    import keras

    return isinstance(layer, keras.layers.Dense)


def _blobs(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x, y = make_classification(
        300, 20, n_informative=8, n_classes=3, n_clusters_per_class=1, class_sep=1.5, random_state=seed
    )
    x = x * np.geomspace(0.001, 1000, 20) + 5  # features of very different sizes, as networks have them
    names = np.array(["crack", "good", "pit"])[y]
    return x[:200], names[:200], x[200:], names[200:]


@exercise
def build(answer: Any) -> None:
    """Write `probe(features, labels, new_features)`: learn a classifier of scikit-learn on features and return the
    class names of the new rows.

    Answer: a function of features, labels and new features
    Hint: `LogisticRegression` from scikit-learn has `fit` and `predict`.
    Hint: The features differ in size by factors; what brings them to one scale?
    Hint: `make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))`, then fit, then predict.
    Right: It takes seconds, and is the baseline that fine-tuning has to beat.
    """
    for seed in range(2):
        x, y, x_test, y_test = _blobs(seed)
        found = np.asarray(call(answer, x.copy(), y.copy(), x_test.copy()))
        if found.ndim == 2:
            array(found, shape=(100, 3))
        expect(found.ndim == 1, "Your function should return one class name per row; these look like probabilities.")
        expect(len(found) == len(x_test), f"For {len(x_test)} rows it returned {len(found)} answers.")
        strange = set(map(str, found)) - set(map(str, y))
        expect(not strange, f"It answers {min(strange, default='')!r}, which is no class name.")
        reached = float((found.astype(str) == y_test).mean())
        reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y).score(x_test, y_test)
        expect(
            reached > reference - 0.05,
            f"It is right in {reached:.0%} of the rows, a scaled logistic regression in {reference:.0%}.",
        )

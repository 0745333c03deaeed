"""Losses that Keras does not have."""

from collections.abc import Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._upstream import called_while_saving


def are_soft(labels: Any) -> bool:
    """Whether labels, or their specification, have a share of each class, (n, classes); (n,) and (n, 1) are numbers."""
    return len(labels.shape) == 2 and labels.shape[1] != 1


@keras.saving.register_keras_serializable(package="cnnlab")
class LogitAdjusted(keras.losses.Loss):
    """Cross-entropy that asks for a wider margin where a class is rare.

    While training, the logarithm of each class's share is added to its logit, so that a rare class must win by as much
    more. The network's own outputs then answer as if all classes were equally frequent; its confidence is that of
    such a world, too. Takes class numbers or one-hot labels, and probabilities, as the models of this package give.

    A model compiled by `training.compile(model, loss=…)` is saved as if trained with plain cross-entropy, which Keras
    loads anywhere. After `model.compile(loss=…)`, call `models.saved_plainly(model)` before `model.save`.

    Args:
        counts: Training images of each class, in the order of the classes, such as
            `train["label"].value_counts(sort=False)`; shares do as well.
        strength: 0 is plain cross-entropy; 1 is right where the test asks all classes alike.
        name: Of the loss, for messages.

    Raises:
        ValueError: If a class has no images, or `strength` is below 0.

    Source:
        Menon et al. (2021), Long-tail learning via logit adjustment.

    Example:
        >>> import numpy as np
        >>> loss = LogitAdjusted([90, 10])
        >>> probabilities = np.array([[0.5, 0.5]])
        >>> [round(float(loss(np.array([label]), probabilities)), 2) for label in (0, 1)]
        [0.11, 2.3]
    """

    def __init__(self, counts: Sequence[float], *, strength: float = 1.0, name: str = "logit_adjusted") -> None:
        super().__init__(name=name)
        self.counts = [float(count) for count in counts]
        self.strength = float(strength)
        if len(self.counts) < 2 or not all(0 < count < np.inf for count in self.counts):
            raise ValueError(
                "`counts` expects the images of each class, all above 0, of two classes or more. Received: "
                f"{self.counts[:10]}. A class without training images cannot be learned: leave it out."
            )
        if not 0 <= self.strength < np.inf:
            raise ValueError(f"`strength` expects a number from 0 up. Received: strength={strength}.")
        share = np.array(self.counts) / sum(self.counts)
        self.margin = (self.strength * np.log(share)).astype("float32")
        self.soft = False

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each image: labels (batch,) or (batch, classes), probabilities (batch, classes)."""
        y_pred = keras.ops.convert_to_tensor(y_pred)
        if y_pred.shape[-1] != len(self.counts):
            raise ValueError(
                f"Expected the probabilities of {len(self.counts)} classes, as many as `counts` has. Received: "
                f"{y_pred.shape[-1]}."
            )
        logits = keras.ops.log(keras.ops.maximum(y_pred, keras.config.epsilon())) + self.margin
        self.soft = are_soft(y_true)
        if self.soft:
            return keras.ops.categorical_crossentropy(y_true, logits, from_logits=True)
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        return keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    def get_config(self) -> dict[str, Any]:
        """What makes the same loss again."""
        return {"counts": self.counts, "strength": self.strength, "name": self.name}

    @property
    def plain(self) -> keras.losses.Loss:
        """The loss of Keras that is nearest."""
        return keras.losses.CategoricalCrossentropy() if self.soft else keras.losses.SparseCategoricalCrossentropy()


@keras.saving.register_keras_serializable(package="cnnlab")
class SmoothedCrossentropy(keras.losses.Loss):
    """`keras.losses.CategoricalCrossentropy(label_smoothing=…)` for class numbers.

    See `saved_plainly` for model files.

    Args:
        label_smoothing: Share of each label spread over all classes, 0 to below 1.
        from_logits: Whether the network gives logits, rather than probabilities.
        name: Of the loss, for messages.

    Source:
        Szegedy et al. 2016, "Rethinking the Inception Architecture".

    Example:
        >>> import numpy as np
        >>> round(float(SmoothedCrossentropy(0.2)(np.array([0]), np.array([[0.9, 0.1]]))), 3)
        0.325
    """

    def __init__(
        self, label_smoothing: float, *, from_logits: bool = False, name: str = "smoothed_crossentropy"
    ) -> None:
        super().__init__(name=name)
        self.label_smoothing, self.from_logits = float(label_smoothing), from_logits

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each image: labels (batch,), outputs (batch, classes)."""
        y_pred = keras.ops.convert_to_tensor(y_pred)
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        one_hot = keras.ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(
            one_hot, y_pred, from_logits=self.from_logits, label_smoothing=self.label_smoothing
        )

    def get_config(self) -> dict[str, Any]:
        """What makes the same loss again."""
        return {"label_smoothing": self.label_smoothing, "from_logits": self.from_logits, "name": self.name}

    @property
    def plain(self) -> keras.losses.Loss:
        """The loss of Keras that is nearest."""
        return keras.losses.SparseCategoricalCrossentropy(from_logits=self.from_logits)


def saved_plainly(model: keras.Model) -> keras.Model:
    """Lets a model be saved so that plain Keras can load it, whatever loss of this package it is trained with.

    Keras cannot load a file that names a loss it does not know. From now on the file of this model names the plain
    cross-entropy of Keras in its place; training, `model.loss` and clones stay as they are.

    Args:
        model: Compiled.

    Returns:
        The same model.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
        >>> model.compile("sgd", loss=LogitAdjusted([90, 10]))
        >>> "cnnlab" in saved_plainly(model).to_json()
        False
    """

    def get_compile_config() -> dict[str, Any]:
        config = type(model).get_compile_config(model)
        if config and called_while_saving() and isinstance(model.loss, LogitAdjusted | SmoothedCrossentropy):
            config["loss"] = keras.saving.serialize_keras_object(model.loss.plain)
        return config

    model.get_compile_config = get_compile_config
    return model

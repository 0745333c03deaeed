"""Cross-entropy with label smoothing for labels that stay integers, which Keras has for one-hot labels only."""

from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras


@keras.saving.register_keras_serializable(package="cnnlab")
class SmoothedCrossentropy(keras.losses.Loss):
    """`keras.losses.CategoricalCrossentropy(label_smoothing=…)` for class numbers.

    A model file that was saved with this loss is loaded by plain Keras with `compile=False`, or after
    `import cnnlab.training`.

    Args:
        label_smoothing: Share of each label spread over all classes, 0 to below 1.
        name: Of the loss, for messages.

    Source:
        Szegedy et al. 2016, "Rethinking the Inception Architecture".

    Example:
        >>> import numpy as np
        >>> round(float(SmoothedCrossentropy(0.2)(np.array([0]), np.array([[0.9, 0.1]]))), 3)
        0.325
    """

    def __init__(self, label_smoothing: float, *, name: str = "smoothed_crossentropy") -> None:
        super().__init__(name=name)
        self.label_smoothing = float(label_smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each image: labels (batch,), probabilities (batch, classes)."""
        y_pred = keras.ops.convert_to_tensor(y_pred)
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        one_hot = keras.ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(one_hot, y_pred, label_smoothing=self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        """What makes the same loss again."""
        return {"label_smoothing": self.label_smoothing, "name": self.name}

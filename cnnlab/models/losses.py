"""Losses that Keras does not have."""

from collections.abc import Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np


@keras.saving.register_keras_serializable(package="cnnlab")
class LogitAdjusted(keras.losses.Loss):
    """Cross-entropy that asks for a wider margin where a class is rare.

    While training, the logarithm of each class's share is added to its logit, so that a rare class must win by as much
    more. The network's own outputs then answer as if all classes were equally frequent; its confidence is that of
    such a world, too. Takes class numbers or one-hot labels, and probabilities, as the models of this package give.

    A model file that was saved with this loss is loaded by plain Keras with `compile=False`, or after
    `import cnnlab.models`.

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

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each image: labels (batch,) or (batch, classes), probabilities (batch, classes)."""
        y_pred = keras.ops.convert_to_tensor(y_pred)
        if y_pred.shape[-1] != len(self.counts):
            raise ValueError(
                f"Expected the probabilities of {len(self.counts)} classes, as many as `counts` has. Received: "
                f"{y_pred.shape[-1]}."
            )
        logits = keras.ops.log(keras.ops.maximum(y_pred, keras.config.epsilon())) + self.margin
        if len(y_true.shape) == 2 and y_true.shape[-1] == len(self.counts):
            return keras.ops.categorical_crossentropy(y_true, logits, from_logits=True)
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        return keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    def get_config(self) -> dict[str, Any]:
        """What makes the same loss again."""
        return {"counts": self.counts, "strength": self.strength, "name": self.name}

"""Batches of images and labels as training takes them, and whether they fit a network."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab.models.losses import are_soft

Batch = tuple[np.ndarray, np.ndarray]
EXPECTED = "Expected batches of (images, labels), such as `pipelines.load` makes."


def repeated(data: Any) -> Iterator[Batch]:
    """Batches of images and labels as numpy arrays, without end."""
    require_batches(data)
    while True:
        empty = True
        for batch in data:
            empty = False
            yield checked_batch(batch)
        if empty:
            raise ValueError("Expected at least one batch of (images, labels). Received data without any.")


def require_batches(data: Any) -> None:
    """Refuses what cannot be gone through."""
    if not isinstance(data, Iterable):
        raise ValueError(f"{EXPECTED} Received: {type(data).__name__}.")


def checked_batch(batch: Any) -> Batch:
    """Images and labels of a batch as numpy arrays; refused where they are not a pair, not a batch or not numbers."""
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise ValueError(f"{EXPECTED} Received: {type(batch).__name__}.")
    images, labels = np.asarray(batch[0]), np.asarray(batch[1])
    if images.ndim < 2 or labels.ndim == 0 or len(images) != len(labels):
        raise ValueError(
            f"{EXPECTED} Received images of shape {images.shape} with labels of shape {labels.shape}. "
            "Single images become batches with `data.batch(32)`."
        )
    if labels.dtype.kind not in "biuf":
        raise ValueError(
            f"Expected labels as class numbers, 0 for the first class. Received {labels.reshape(-1)[0]!r}, which is "
            "not a number. `pipelines.load` counts the classes of a table by itself; elsewhere use `label.cat.codes`."
        )
    return images, labels


def first_shapes(data: Any) -> tuple[Any, Any] | None:
    """Images and labels, or their specification, of a dataset, of (images, labels) or of a sequence of batches.

    None for anything else. No batch is taken from a dataset, which may count its passes.
    """
    spec = getattr(data, "element_spec", data)
    if spec is data and not isinstance(data, tuple):
        spec = data[0] if isinstance(data, Sequence | keras.utils.PyDataset) and len(data) else None
    if not isinstance(spec, tuple | list) or len(spec) < 2:
        return None
    images, labels = (part if hasattr(part, "shape") else np.asarray(part) for part in spec[:2])
    return images, labels


def size_fits(wanted: tuple[int | None, ...], images: np.ndarray) -> bool:
    """Whether a network that takes arrays of the shape `wanted`, None for any, takes these images."""
    given = images.shape[1:]
    return len(wanted) == len(given) and all(w in (None, g) for w, g in zip(wanted, given, strict=True))


def labels_fit(labels: np.ndarray, classes: int) -> bool:
    """Whether labels are whole numbers below `classes`, or as many shares that add up to 1; one output knows two."""
    classes = max(classes, 2)
    if are_soft(labels):
        return labels.shape[1] == classes and bool(np.allclose(labels.sum(axis=1), 1, atol=1e-3))
    return bool((labels >= 0).all() and (labels < classes).all() and (labels == np.floor(labels)).all())


def described(labels: np.ndarray) -> str:
    """What labels are, in a few words."""
    return f"{labels.shape[1]} shares each" if are_soft(labels) else f"{labels.min()} to {labels.max()}"


def check_fits(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Refuses images of another size and labels of other classes than the model has, which Keras says at length."""
    wanted, classes = model.input_shape[1:], model.output_shape[-1]
    if not size_fits(wanted, images):
        raise ValueError(
            f"`training.fine_tune` expects images of the model's size {wanted} (height, width, channels). Received "
            f"{images.shape[1:]}: load them with the model's `image_size`."
        )
    if not labels_fit(labels, classes):
        raise ValueError(
            f"`training.fine_tune` expects labels of the model's {classes} classes, numbers from 0 to {classes - 1} or "
            f"{classes} shares. Received {described(labels)}: build the model with the classes of these images."
        )

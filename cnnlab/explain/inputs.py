"""What `explain` is given: images as the model wants them, and the class in question."""

from collections.abc import Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._common import class_number, is_whole
from cnnlab.models.metadata import find_metadata
from cnnlab.models.naming import class_probabilities

Target = str | int | Sequence[str | int] | None


def checked_images(model: keras.Model, images: Any, *, caller: str) -> tuple[np.ndarray, bool]:
    """The images as (batch, height, width, channels) of float32, and whether a single one was given."""
    try:
        batch = np.asarray(images, dtype=np.float32)
    except (TypeError, ValueError):
        raise TypeError(
            f"`{caller}` expects pixels, such as `images.prepare(path, models.preparation(model))` of `cnnlab.images`, "
            f"or several of them as one array. Received: {images!r:.200}."
        ) from None
    single = batch.ndim == 3
    batch = batch[None] if single else batch
    inputs = getattr(model, "inputs", None) or []  # a subclassed model may not know its own
    expected = tuple(inputs[0].shape[1:]) if len(inputs) == 1 else (None, None, None)
    if batch.ndim != 4 or any(want not in (None, got) for want, got in zip(expected, batch.shape[1:], strict=True)):
        raise ValueError(
            f"`{caller}` expects one image of the model's size {expected} (height, width, channels), or a batch of "
            f"them, such as `next(iter(pipelines.load(…)))[0]`. Received an array of shape {np.shape(images)}."
        )
    lowest, highest = float(batch.min(initial=0)), float(batch.max(initial=0))
    if not np.isfinite(batch).all() or lowest < -0.5 or highest > 255.5 or 0 < highest <= 1:
        raise ValueError(
            f"`{caller}` expects raw pixels 0-255, since the model rescales by itself. Received values from "
            f"{lowest:.4g} to {highest:.4g}. Do not divide by 255 or preprocess them."
        )
    return batch, single


def checked_targets(model: keras.Model, target: Target, images: np.ndarray, *, caller: str) -> tuple[np.ndarray, int]:
    """The class in question for each image, that named or predicted, as a number; and how many classes there are."""
    outputs = keras.tree.flatten(model(images, training=False))
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        shapes = ", ".join(str(tuple(output.shape[1:])) for output in outputs)
        raise ValueError(
            f"`{caller}` expects a classifier with one output, a number for each class. {model.name!r} gives "
            f"{len(outputs)} of the shapes {shapes}. Explain one of them: `keras.Model(model.input, "
            "model.outputs[0])`."
        )
    count = outputs[0].shape[1]
    if count == 1:
        outputs, count = [class_probabilities(model, outputs[0])], 2
    if target is None:
        return keras.ops.convert_to_numpy(outputs[0]).argmax(axis=-1), count
    wanted: list[Any] = [target] * len(images) if np.isscalar(target) else list(target)  # type: ignore[arg-type]
    metadata = find_metadata(model)
    names = list(metadata.classes) if metadata else []
    numbers = [class_number(one, names) if names else one for one in wanted]
    if len(numbers) != len(images) or not all(is_whole(one, least=0) and one < count for one in numbers):
        known = f"one of {names}" if names else f"a class number from 0 to {count - 1}"
        unclear = [str(one) for one, number in zip(wanted, numbers, strict=True) if number == -1 and str(one) in names]
        hint = f" Say {unclear[0]!r} or the number {names.index(unclear[0])}: which is meant?" if unclear else ""
        raise ValueError(
            f"`{caller}` expects `target` to be {known}, or one for each image. Received: {target!r}.{hint}"
        )
    return np.asarray(numbers, dtype=np.int64), count

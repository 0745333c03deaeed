"""Batches of images and labels as training takes them, whether they fit a network, and the loss that fits both."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab.models.losses import SmoothedCrossentropy, are_soft
from cnnlab.models.metadata import require_same_order
from cnnlab.models.naming import last_activation

Batch = tuple[np.ndarray, np.ndarray]
EXPECTED = "Expected batches of (images, labels), such as `pipelines.load` makes."


def suitable_loss(model: keras.Model, data: Any = None, label_smoothing: float = 0.0) -> dict[str, Any]:
    """`loss` and `metrics` for `model.compile`, for how the network ends and what its labels are.

    `data`, batches or (images, labels), tells numbers from shares, and a network that is not built the image size.
    """
    outputs, activation = network_end(model, data)
    shapes = first_shapes(data)
    loss: Any
    shares, logits = shapes is not None and are_soft(shapes[1]), activation is None
    options = {"from_logits": logits, "label_smoothing": label_smoothing}
    if outputs == 1 and activation == "softmax":
        raise ValueError(
            f"Expected a network that can tell classes apart. {model.name!r} ends with softmax over one output, which "
            'is 1 for any image. End it with `Dense(1, activation="sigmoid")` or `Dense(2, activation="softmax")`.'
        )
    if outputs == 1 and shares:
        raise ValueError(
            f"Expected class numbers, 0 or 1, as {model.name!r} has one output. Received one share for each class: "
            "load the data without `one_hot`, mixup and cutmix, or end the network with one output per class."
        )
    if outputs == 1 or (shares and activation == "sigmoid"):
        loss = keras.losses.BinaryCrossentropy(**options) if logits or label_smoothing else "binary_crossentropy"
        return {"loss": loss, "metrics": [keras.metrics.BinaryAccuracy("accuracy", threshold=0.0 if logits else 0.5)]}
    loss = "categorical_crossentropy" if shares else "sparse_categorical_crossentropy"
    if shares and (logits or label_smoothing):
        loss = keras.losses.CategoricalCrossentropy(**options)
    elif label_smoothing:
        loss = SmoothedCrossentropy(label_smoothing, from_logits=logits)
    elif logits:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": loss, "metrics": ["accuracy"]}


def network_end(model: keras.Model, data: Any = None) -> tuple[int | None, str | None]:
    """How many outputs there are, None if unknown, and "softmax", "sigmoid" or None where the end is plain logits.

    Where the layers do not say it, as in a network of one's own class, the answers to a few random images do; where
    not even the size of its images is known, softmax is taken for granted.
    """
    if len(getattr(model, "outputs", None) or []) > 1:
        raise ValueError(
            f"Expected a network with one output. {model.name!r} has {len(model.outputs)}: pass `loss=` and `metrics=` "
            "for each of them, as to `model.compile`."
        )
    shapes = first_shapes(data)
    shape = tuple(shapes[0].shape) if shapes is not None else getattr(model, "input_shape", None) or (None, None)
    name = last_activation(model)
    if name is None and None in shape[1:] and isinstance(model, keras.Sequential) and model.layers:
        return getattr(model.layers[-1], "units", None), _named(getattr(model.layers[-1], "activation", None))
    if name is not None:
        return model.outputs[0].shape[-1], _named(name)
    if None in shape[1:]:
        return None, "softmax"
    images = np.random.default_rng(0).integers(0, 256, (16, *shape[1:])).astype("float32")
    images *= np.linspace(0, 1, 16, dtype="float32").reshape(-1, *[1] * (images.ndim - 1))
    answers = np.asarray(keras.ops.convert_to_numpy(model(images)), dtype=float)
    within = bool((answers >= 0).all() and (answers <= 1).all())
    softmax = within and answers.shape[-1] > 1 and np.allclose(answers.sum(axis=-1), 1, atol=1e-2)
    return answers.shape[-1], "softmax" if softmax else "sigmoid" if within else None


def _named(activation: Any) -> str | None:
    name = getattr(activation, "__name__", activation)
    return name if name in ("softmax", "sigmoid") else None


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


def source_of(data: Any) -> Any:
    """What stands behind a dataset of `pipelines.load`, or None."""
    return getattr(data, "_cnnlab_source", None)


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


def _require_alike(train: Any, val: Any) -> None:
    """Refuses validation images whose numbers mean other classes, or whose grey levels are others."""
    if train.class_names != val.class_names:
        raise ValueError(
            "`fit` expects the same classes, in the same order, in training and validation images. Received "
            f"{', '.join(train.class_names[:20])} and {', '.join(val.class_names[:20])}. Use "
            "`val['label'].cat.set_categories(train['label'].cat.categories)`."
        )
    if train.preparation.levels != val.preparation.levels:
        raise ValueError(
            f"`fit` expects training and validation images with the same `levels`. Received {train.preparation.levels} "
            f"and {val.preparation.levels}. Scan them as one table, or pass the same `levels` to `pipelines.load`."
        )


def require_known_classes(model: keras.Model, arguments: Mapping[str, Any]) -> None:
    """Refuses what `fit` or `evaluate` is given where labels or weights are of other classes than the network's."""
    outputs = getattr(model, "outputs", None) or []
    count = outputs[0].shape[-1] if len(outputs) == 1 else None
    sources = [source_of(arguments.get(name)) for name in ("x", "validation_data")]
    for source in sources:
        if source is None:
            continue
        require_same_order(model, source.class_names, name=model.name)
        if count is not None and 1 < count < len(source.class_names):
            raise ValueError(
                f"Expected a network with an output for each class. {model.name!r} has {count}, the images are of "
                f"{len(source.class_names)} classes: {', '.join(source.class_names[:20])}. Build it for these, or "
                "leave out rows of other classes and use `table['label'].cat.remove_unused_categories()`."
            )
    if None not in sources:
        _require_alike(*sources)
    weights = arguments.get("class_weight")
    if weights and count is not None:
        numbers = all(isinstance(key, int | np.integer) for key in weights)
        if not numbers or max(weights) < max(count, 2) - 1:
            raise ValueError(
                f"`class_weight` expects a weight for each class number, 0 to {max(count, 2) - 1}, as "
                f"`tables.class_weights(train)` gives. Received: {weights!r}."
            )

"""How a network ends, and the loss that fits it."""

from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab.models.losses import SmoothedCrossentropy, are_soft
from cnnlab.models.naming import last_activation
from cnnlab.training.batches import first_shapes


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

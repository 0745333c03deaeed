"""The network inside a network: frozen as a whole, then freed from the top down."""

import fnmatch
import warnings
from collections.abc import Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

from cnnlab._common import is_number
from cnnlab._upstream import add_seed_generator
from cnnlab.models.metadata import find_metadata

# Layers that change features at random while training, and the attribute that says how much; the last is ConvNeXt's.
RATE = {
    keras.layers.Dropout: "rate",
    keras.layers.AlphaDropout: "rate",
    keras.layers.GaussianDropout: "rate",
    keras.layers.GaussianNoise: "stddev",
}
DROP_PATH = "drop_path_rate"


def backbone(model: keras.Model) -> keras.Model:
    """The network inside a model of `models.pretrained` or `models.reuse`: everything that had learned before.

    Raises:
        ValueError: If there is none inside.

    Example:
        >>> from cnnlab.models import pretrained
        >>> model = pretrained("MobileNet", image_size=(32, 32), classes=["cat", "dog"], weights=None, alpha=0.25)
        >>> backbone(model).output_shape
        (None, 1, 1, 256)
    """
    inside = [layer for layer in getattr(model, "layers", []) if isinstance(layer, keras.Model)]
    if len(inside) != 1:
        raise ValueError(
            "Expected a model with one network inside, as `models.pretrained` and `models.reuse` build them. "
            f"Received {getattr(model, 'name', model)!r} with {len(inside)}."
        )
    return inside[0]


def unfreeze(model: keras.Model, *, share: float | None = None, layers: Sequence[str] | None = None) -> keras.Model:
    """Chooses which layers of the pretrained network learn along with the head: the upper ones first.

    Batch normalisation stays frozen and in inference mode whatever is chosen: the few images of a small data set would
    spoil the averages it learned from millions. Dropout and drop-path above the lowest layer that learns get back the
    rates that the network was built with. Each call chooses anew; `share=0` freezes everything again. The model has to
    be compiled again afterwards, and refuses to train until it is.

    Args:
        model: From `models.pretrained` or `models.reuse`, possibly saved and loaded in between.
        share: Share of the layers with weights, counted from the head down, 0 to 1.
        layers: Instead of a share: names of layers, or patterns such as "block_16_*".

    Returns:
        The same model, its layers' `trainable` set.

    Raises:
        ValueError: If not exactly one of `share` and `layers` is given, `share` is out of range, or a pattern fits
            no layer that can learn.

    Example:
        >>> from cnnlab.models import pretrained
        >>> model = pretrained("MobileNet", image_size=(32, 32), classes=["cat", "dog"], weights=None, alpha=0.25)
        >>> [layer.name for layer in trainable_layers(unfreeze(model, share=0.1))]
        ['conv_pw_12', 'conv_dw_13', 'conv_pw_13']
    """
    if (share is None) == (layers is None):
        raise ValueError(
            "`models.unfreeze` expects one of `share` (such as 0.3: the upper three tenths) and `layers` (names). "
            f"Received: share={share}, layers={layers}."
        )
    inside = backbone(model)
    before = [id(weight) for weight in model.trainable_weights]
    candidates = [
        layer
        for layer in leaf_layers(inside)
        if layer.weights and not isinstance(layer, keras.layers.BatchNormalization | keras.layers.Normalization)
    ]
    if layers is not None:
        chosen = _named(candidates, [layers] if isinstance(layers, str) else layers)
    elif is_number(share, most=1):
        count = max(round(share * len(candidates)), int(share > 0))
        chosen = candidates[len(candidates) - count :]
    else:
        raise ValueError(f"`models.unfreeze` expects `share` from 0 to 1. Received: {share!r}.")
    inside.trainable = bool(chosen)  # a frozen network hides its layers' own setting
    kept = {id(layer) for layer in chosen}
    for layer in leaf_layers(inside) if chosen else []:
        layer.trainable = id(layer) in kept
    metadata = find_metadata(model)
    changed = _set_rates(inside, metadata.rates if metadata else {}, kept)
    if changed or [id(weight) for weight in model.trainable_weights] != before:
        model.compiled = False  # what Keras compiled earlier would go on training the earlier choice
    return model


def trainable_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers inside the pretrained network that learn now, from the input up."""
    return [layer for layer in leaf_layers(backbone(model)) if layer.trainable_weights]


def learning(model: keras.Model) -> list[keras.layers.Layer]:
    """The earlier name of `trainable_layers`."""
    warnings.warn("`models.learning` is now `models.trainable_layers`.", DeprecationWarning, stacklevel=2)
    return trainable_layers(model)


def random_rates(network: keras.Model) -> dict[str, float]:
    """The rate of each layer that changes features at random while training, by its name."""
    rates = {layer.name: getattr(layer, _rate_attribute(layer), 0) for layer in leaf_layers(network)}
    return {name: float(rate) for name, rate in rates.items() if rate}


def freeze(network: keras.Model) -> None:
    """Freezes a network and holds it in inference mode, whichever way it is called.

    `network(x, training=False)` would not do: Keras 3 hands the outer model's `training` to the networks inside. Frozen
    batch normalisation uses its averages all the same; dropout has to be told.
    """
    network.trainable = False
    _set_rates(network, {}, set())


def _set_rates(network: keras.Model, rates: dict[str, float], learning: set[int]) -> bool:
    """Gives dropout above the lowest learning layer its rate, and all other dropout none; whether any changed."""
    awake = changed = False
    for layer in leaf_layers(network):
        awake = awake or id(layer) in learning
        attribute = _rate_attribute(layer)
        if not hasattr(layer, attribute) or (awake and layer.name not in rates):
            continue
        rate = rates[layer.name] if awake else 0.0
        changed = changed or getattr(layer, attribute) != rate
        setattr(layer, attribute, rate)
        if rate and attribute != DROP_PATH and getattr(layer, "seed_generator", None) is None:
            add_seed_generator(layer)  # a model that was loaded from a file has none, as its rate was 0 there
    return changed


def _rate_attribute(layer: keras.layers.Layer) -> str:
    return next((attribute for kind, attribute in RATE.items() if isinstance(layer, kind)), DROP_PATH)


def leaf_layers(network: Any) -> list[Any]:
    """All layers that hold no others, from the input up."""
    inside = getattr(network, "layers", None)
    return [network] if inside is None else [leaf for layer in inside for leaf in leaf_layers(layer)]


def _named(candidates: list[keras.layers.Layer], patterns: Sequence[str]) -> list[keras.layers.Layer]:
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(layer.name, pattern) for layer in candidates):
            raise ValueError(
                "`models.unfreeze` expects `layers` to name layers that can learn (batch normalisation stays frozen), "
                f"or to be patterns that fit some. Received: {pattern!r}. The upper ones are "
                f"{', '.join(layer.name for layer in candidates[-6:])}."
            )
    return [layer for layer in candidates if any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)]

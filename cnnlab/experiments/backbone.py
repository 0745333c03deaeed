"""Splits a network into the backbone that training does not change, which need run only once, and the head."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

# Layers that keep weights and nothing else: frozen, they do the same in training as in use.
WEIGHTS_ONLY = {
    "Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D",
    "SeparableConv2D", "Dense", "EinsumDense", "Embedding", "PReLU", "BatchNormalization", "LayerNormalization",
    "GroupNormalization", "RMSNormalization", "Normalization", "MultiHeadAttention", "GroupedQueryAttention",
    "LayerScale", "Functional", "Sequential",
}  # fmt: skip


class BackboneAndHead(NamedTuple):
    """A network in two.

    Attributes:
        backbone: Images to features; the same in every epoch.
        head: Features to probabilities: what is trained. Shares its layers with the whole network.
    """

    backbone: keras.Model
    head: keras.Model


def split_backbone(model: keras.Model) -> BackboneAndHead | None:
    """The frozen backbone of a compiled network and its head; None where training on features is not exactly the same.

    Frozen is what comes before the first layer that has trainable weights, keeps a state or draws at random. A dropout
    inside a backbone draws, even if it is called with `training=False`, which Keras 3 overrides when the network around
    it trains. Everything must be Keras's own: a class or function of somebody else's, in the network or in what it was
    compiled with, may look at images.

    Args:
        model: Built with Keras's functional interface, or a built `keras.Sequential`.
    """
    if not model.compiled or not model.built or model.run_eagerly or not _is_plain(model):
        return None
    graph = getattr(model, "_functional", None) or model
    if not hasattr(graph, "_nodes_by_depth") or len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return None
    changing: set[int] = set()
    cut: dict[int, Any] = {}
    has_weights = False
    for node in _nodes(graph):
        layer = node.operation
        reached = any(id(tensor) in changing for tensor in node.input_tensors)
        if not reached and not _changes(layer):
            has_weights |= bool(getattr(layer, "weights", []))
            continue
        cut |= {id(tensor): tensor for tensor in node.input_tensors if id(tensor) not in changing}
        changing |= {id(tensor) for tensor in node.output_tensors}
    if len(cut) != 1 or not has_weights or id(graph.outputs[0]) not in changing:
        return None
    (seam,) = cut.values()
    while isinstance(seam._keras_history.operation, keras.layers.Dropout):  # of rate 0; others may follow in a search
        seam = seam._keras_history.operation.input
    backbone = keras.Model(graph.inputs[0], seam, name="backbone")
    if len(backbone.input_shape) != 4 or None in (*backbone.input_shape[1:], *backbone.output_shape[1:]):
        return None
    return BackboneAndHead(backbone, keras.Model(seam, graph.outputs[0], name="head"))


def _nodes(graph: Any) -> Iterator[Any]:
    """The calls of the network's layers, from the input on."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input:
                yield node


def _is_plain(model: keras.Model) -> bool:
    """Whether model, layers, optimizer, loss and metrics are Keras's own, or this package's, which look at no image."""
    if not isinstance(model, keras.Sequential) and not hasattr(model, "_nodes_by_depth"):
        return False
    try:
        configs = [model.get_config(), model.get_compile_config()]
    except Exception:  # what cannot be written down is somebody's own
        return False
    return type(model).__module__.startswith("keras.") and all(_is_plain_config(config) for config in configs)


def _is_plain_config(config: Any) -> bool:
    if isinstance(config, list | tuple):
        return all(_is_plain_config(part) for part in config)
    if not isinstance(config, dict):
        return True
    module = str(config.get("module") or "keras")
    if config.get("class_name") in ("function", "__lambda__", "Lambda"):
        return False
    if module.partition(".")[0] not in ("keras", "builtins", "cnnlab"):
        return False
    return all(_is_plain_config(part) for part in config.values())


def _changes(operation: Any) -> bool:
    """Whether a call gives something else in the next epoch for the same input, or adds to the loss."""
    if not isinstance(operation, keras.Layer):
        return False
    return bool(operation.trainable_weights) or any(_layer_changes(layer) for layer in operation._flatten_layers())


def _layer_changes(layer: Any) -> bool:
    adds = isinstance(layer, keras.layers.ActivityRegularization)
    if adds or getattr(layer, "activity_regularizer", None) is not None:
        return True
    if getattr(layer, "rate", None) == 0 or getattr(layer, "drop_path_rate", None) == 0:
        return False
    if any(isinstance(value, keras.random.SeedGenerator) for value in vars(layer).values()):
        return True
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.trainable)  # without center and scale nothing in it is trainable, yet its statistics move
    return bool(layer.weights) and type(layer).__name__ not in WEIGHTS_ONLY

"""Finds the part of a network that training does not change, so that it need run only once."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras


class Parts(NamedTuple):
    """A network in two.

    Attributes:
        backbone: Images to features; the same in every epoch.
        head: Features to probabilities: what is trained. Shares its layers with the whole network.
    """

    backbone: keras.Model
    head: keras.Model


def split(model: keras.Model) -> Parts | None:
    """The frozen backbone of a network and its head; None where training changes something from the start.

    Frozen is what comes before the first layer that has trainable weights or draws at random. A dropout inside a
    backbone draws, even if it is called with `training=False`, which Keras 3 overrides when the network around it
    trains. Layers that are not Keras's own count as changing.

    Args:
        model: Built with Keras's functional interface, or a built `keras.Sequential`.
    """
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
    return Parts(backbone, keras.Model(seam, graph.outputs[0], name="head"))


def likeness(model: keras.Model) -> tuple[Any, ...]:
    """Equal for two networks, alive at the same time, that do the same with the same variables; quick to tell."""
    facts: list[Any] = []
    for node in _nodes(model):
        values = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
        constants = [repr(value) for value in values if not isinstance(value, keras.KerasTensor)]
        layer = node.operation
        if getattr(layer, "weights", None):
            facts.append((type(layer).__name__, *(id(variable) for variable in layer.weights), *constants))
            continue
        config = layer.get_config() if isinstance(layer, keras.Layer) else {}
        plain = repr([(key, value) for key, value in sorted(config.items()) if key != "name"])
        facts.append((type(layer).__name__, plain, *constants))
    return tuple(facts)


def _nodes(graph: Any) -> Iterator[Any]:
    """The calls of the network's layers, from the input on."""
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input:
                yield node


def _changes(operation: Any) -> bool:
    """Whether a call gives something else in the next epoch for the same input."""
    if not isinstance(operation, keras.Layer):
        return not type(operation).__module__.startswith("keras.")
    if operation.trainable_weights:
        return True
    layers = list(operation._flatten_layers())
    return any(not type(layer).__module__.startswith("keras.") or _draws(layer) for layer in layers)


def _draws(layer: Any) -> bool:
    if getattr(layer, "rate", None) == 0 or getattr(layer, "drop_path_rate", None) == 0:
        return False
    return any(isinstance(value, keras.random.SeedGenerator) for value in vars(layer).values())

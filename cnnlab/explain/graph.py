"""A network as a flat list of its layers, however many networks are nested inside."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

Key = tuple[int, int]  # which step made a tensor, and which of its outputs it is; (-1, …) is the image


@dataclass(frozen=True)
class Step:
    """One call of one layer: where it stands, what it reads and what it makes."""

    path: str  # its name, after those of the networks it stands in: "mobilenet/conv1"
    layer: Any  # a keras.Layer, or an operation of keras.ops
    reads: tuple[Key, ...]
    input_shapes: tuple[tuple[int | None, ...], ...]
    shape: tuple[int | None, ...]  # of its first output, batch first

    @property
    def kind(self) -> str:
        """Its class: "Conv2D"."""
        return type(self.layer).__name__


def steps(model: keras.Model) -> list[Step]:
    """Every call of every layer of a model, from the image up, those of nested networks in their place.

    Raises:
        TypeError: If the model is not built of layers that Keras knows the connections of.
    """
    if not getattr(model, "inputs", None) or len(model.inputs) != 1:
        raise TypeError(
            "Expected a built Functional or Sequential keras.Model with one input, the image. Received "
            f"{type(model).__name__} {getattr(model, 'name', '')!r}."
        )
    found: list[Step] = []
    _collect(model, "", [(-1, 0)], found)
    return found


def _collect(network: keras.Model, prefix: str, given: Sequence[Key], found: list[Step]) -> list[Key]:
    """Appends the steps of a network whose inputs are the tensors `given`; returns the keys of its outputs."""
    keys = {id(tensor): key for tensor, key in zip(network.inputs, given, strict=True)}
    for node in _nodes(network):
        if id(node.output_tensors[0]) in keys:  # an input of this network
            continue
        reads = [keys[id(tensor)] for tensor in node.input_tensors]
        if isinstance(node.operation, keras.Model):
            made = _collect(node.operation, f"{prefix}{node.operation.name}/", reads, found)
        else:
            shapes = tuple(tuple(tensor.shape) for tensor in node.input_tensors)
            shape = tuple(node.output_tensors[0].shape)
            made = [(len(found), number) for number in range(len(node.output_tensors))]
            found.append(Step(f"{prefix}{node.operation.name}", node.operation, tuple(reads), shapes, shape))
        keys |= {id(tensor): key for tensor, key in zip(node.output_tensors, made, strict=True)}
    return [keys[id(tensor)] for tensor in network.outputs]


def _nodes(network: keras.Model) -> list[Any]:
    """The calls inside one network, each after those it depends on."""
    order: list[Any] = []
    begun: set[int] = set()
    first = {id(tensor) for tensor in network.inputs}
    waiting = [(_maker(tensor), False) for tensor in reversed(network.outputs)]
    while waiting:
        node, done = waiting.pop()
        if done:
            order.append(node)
        elif id(node) not in begun:
            begun.add(id(node))
            waiting.append((node, True))
            if id(node.output_tensors[0]) not in first:
                waiting += [(_maker(tensor), False) for tensor in reversed(node.input_tensors)]
    return order


def _maker(tensor: keras.KerasTensor) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def leaf_layers(network: Any) -> list[keras.layers.Layer]:
    """All layers that hold no others; for models whose connections Keras does not know, too."""
    inside = getattr(network, "layers", None)
    return [network] if inside is None else [leaf for layer in inside for leaf in leaf_layers(layer)]


def find_layer(model: keras.Model, name: str) -> keras.layers.Layer:
    """The layer of this name, wherever it is nested.

    Raises:
        ValueError: If there is none or more than one, naming some that there are.
    """
    own = name.rsplit("/", 1)[-1]
    found = [layer for layer in leaf_layers(model) if layer.name == own]
    if len(found) > 1:
        by_path = {step.path: step.layer for step in steps(model)}
        found = [by_path[name]] if name in by_path else found
    if len(found) != 1:
        names = [layer.name for layer in leaf_layers(model) if layer.weights] or ["none"]
        known = ", ".join(names if len(names) <= 12 else [*names[:6], "…", *names[-5:]])
        raise ValueError(
            f"Expected the name of one layer of {model.name!r}, such as {known}. Received: {name!r}, which "
            f"{'none has' if not found else 'several have: write the networks it is in before it, with slashes'}."
        )
    return found[0]

"""A network as a flat list of the calls of its layers, however it was built and however many networks are nested."""

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

from cnnlab._upstream import call_that_made, calls_forgotten

Key = tuple[int, int]  # which step made a tensor, and which of its outputs it is; (-1, …) is the image
Shape = tuple[int | None, ...]
IMAGE: Key = (-1, 0)


@dataclass(frozen=True)
class Step:
    """One call of one layer: where it stands, what it reads and what it makes."""

    path: str  # its name, after those of the networks it stands in: "mobilenet/conv1"
    reads: tuple[Key, ...]
    node: Any  # Keras's record of the call

    @property
    def layer(self) -> Any:
        """A keras.Layer, or an operation of keras.ops."""
        return self.node.operation

    @property
    def kind(self) -> str:
        """Its class: "Conv2D"."""
        return type(self.layer).__name__

    @property
    def shape(self) -> Shape:
        """Of its first output, batch first."""
        return tuple(self.node.output_tensors[0].shape)

    @property
    def input_shapes(self) -> list[Shape]:
        """Of all that it reads."""
        return [tuple(tensor.shape) for tensor in self.node.input_tensors]

    def run(self, values: Sequence[Any], layer: Any = None) -> list[Any]:
        """What the layer (or another one in its place) makes of these inputs, outside of training."""
        given = {id(tensor): value for tensor, value in zip(self.node.input_tensors, values, strict=True)}
        inputs, options = self.node.arguments.fill_in(given)
        if "training" in inspect.signature(self.layer.call).parameters:
            options = {**options, "training": False}
        return list(keras.tree.flatten((layer or self.layer)(*inputs, **options)))


@dataclass(frozen=True)
class Graph:
    """All steps of a network, from the image up, and which tensors it gives out."""

    name: str
    image_shape: Shape  # (height, width, channels)
    steps: list[Step]
    outputs: list[Key]

    def find(self, name: str) -> int:
        """The number of the step whose layer has this name, wherever it is nested; the last one if called twice."""
        names = [step.path.rsplit("/", 1)[-1] for step in self.steps]
        named = [number for number, own in enumerate(names) if own == name.rsplit("/", 1)[-1]]
        reason = "none has"
        if len({id(self.steps[number].layer) for number in named}) > 1:
            named = [number for number in named if self.steps[number].path == name]
            reason = "several have: write the networks it is in before it, with slashes"
        if not named:
            known = [own for own, step in zip(names, self.steps, strict=True) if getattr(step.layer, "weights", [])]
            examples = ", ".join(known if len(known) <= 12 else [*known[:6], "…", *known[-5:]]) or "none"
            raise ValueError(
                f"Expected the name of one layer of {self.name!r}, such as {examples}. Received: {name!r}, which "
                f"{reason}."
            )
        return named[-1]

    def values(self, known: dict[Key, Any], wanted: Sequence[Key]) -> list[Any]:
        """The tensors `wanted`, computed from those `known`; no layer that is not needed runs, none is changed."""
        needed = {key[0] for key in wanted if key not in known}
        for number in range(len(self.steps) - 1, -1, -1):
            if number in needed:
                needed |= {key[0] for key in self.steps[number].reads if key not in known}
        found = dict(known)
        for number in sorted(needed):
            step = self.steps[number]
            made = step.run([found[key] for key in step.reads])
            found = {(number, place): value for place, value in enumerate(made)} | found
        return [found[key] for key in wanted]


def graph_of(model: keras.Model, image_shape: Sequence[int | None] | None = None) -> Graph:
    """Every call of every layer of a model, from the image up, those of nested networks in their place.

    A subclassed model is called once with a symbolic image of that shape (height, width, channels), or else of the one
    it was built for, which shows Keras the connections of its layers. A TypeError where that cannot be.
    """
    with calls_forgotten(model):  # the steps keep what was recorded; the model keeps no trace of it
        inputs, outputs = _ends(model, image_shape)
        if len(inputs) != 1:
            raise TypeError(
                f"Expected a model with one input, the image. Received {model.name!r}, which has {len(inputs)}."
            )
        steps: list[Step] = []
        keys = _collect(inputs, outputs, "", [IMAGE], steps)
        return Graph(model.name, tuple(inputs[0].shape[1:]), steps, keys)


def _ends(model: Any, shape: Sequence[int | None] | None) -> tuple[Sequence[Any], Sequence[Any]]:
    """Symbolic inputs and outputs of a model; those of a subclassed one are made by calling it once."""
    if getattr(model, "inputs", None):
        return model.inputs, model.outputs
    if shape is None:
        shape = (model.get_build_config() or {}).get("input_shape") if getattr(model, "built", False) else None
        if not isinstance(shape, list | tuple) or len(shape) != 4:
            raise TypeError(
                "Expected a built Functional or Sequential keras.Model, or a subclassed one that was called once. "
                f"Received {type(model).__name__} {getattr(model, 'name', '')!r}: call it on a batch of images first."
            )
        shape = shape[1:]
    options = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    image = keras.Input(shape)
    try:
        outputs = keras.tree.flatten(model.call(image, **options))
        _nodes([image], outputs)  # refuses numbers and tensors that do not come from the image
    except Exception as error:
        raise TypeError(
            "Expected a Functional or Sequential keras.Model, or a subclassed one whose `call` applies only Keras "
            f"layers and `keras.ops` to the image. Received {type(model).__name__} {model.name!r}, whose connections "
            f"Keras cannot follow: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    return [image], outputs


def _collect(
    inputs: Sequence[Any], outputs: Sequence[Any], prefix: str, given: Sequence[Key], steps: list[Step]
) -> list[Key]:
    """Appends the steps of a network whose inputs are the tensors `given`; returns the keys of its outputs."""
    keys = {id(tensor): key for tensor, key in zip(inputs, given, strict=True)}
    for node in _nodes(inputs, outputs):
        if id(node.output_tensors[0]) in keys:  # an input of this network
            continue
        reads = [keys[id(tensor)] for tensor in node.input_tensors]
        inner, ends = node.operation, None
        if isinstance(inner, keras.Model):
            with contextlib.suppress(TypeError):  # what cannot be looked into is one step
                ends = _ends(inner, tuple(node.input_tensors[0].shape[1:]))
        if ends is not None and len(ends[0]) == len(reads) and len(ends[1]) == len(node.output_tensors):
            made = _collect(*ends, f"{prefix}{inner.name}/", reads, steps)
        else:
            made = [(len(steps), number) for number in range(len(node.output_tensors))]
            steps.append(Step(f"{prefix}{inner.name}", tuple(reads), node))
        keys |= {id(tensor): key for tensor, key in zip(node.output_tensors, made, strict=True)}
    return [keys[id(tensor)] for tensor in outputs]


def _nodes(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """The calls inside one network, each after those it depends on."""
    order: list[Any] = []
    begun: set[int] = set()
    first = {id(tensor) for tensor in inputs}
    waiting = [(call_that_made(tensor), False) for tensor in reversed(outputs)]
    while waiting:
        node, done = waiting.pop()
        if done:
            order.append(node)
        elif id(node) not in begun:
            begun.add(id(node))
            waiting.append((node, True))
            if id(node.output_tensors[0]) not in first:
                waiting += [(call_that_made(tensor), False) for tensor in reversed(node.input_tensors)]
    return order

"""What a small head consists of, where it is plain enough to be trained beside others."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

RULES = ("SGD", "RMSprop", "Adam", "AdamW", "Nadam", "Adagrad", "Lion")  # each number by itself
OFF = ("clipnorm", "global_clipnorm", "clipvalue", "use_ema", "gradient_accumulation_steps", "loss_scale_factor")
OWN = ("learning_rate", "weight_decay", "name")  # what may differ between heads of one program


class Step(NamedTuple):
    """One layer of a head: its kind and, of a dense layer, what it takes to make it."""

    kind: str
    activation: str = "linear"
    shape: tuple[int, int] = (0, 0)
    bias: bool = False


@dataclass
class Head:
    """A compiled head that can be trained beside others: dense layers, dropouts and activations in a row.

    Attributes:
        steps: The layers; the last one gives logits.
        rates: Of the dropouts, in order.
        layers: The dense layers themselves.
        optimizer: As compiled.
    """

    steps: tuple[Step, ...]
    rates: tuple[float, ...]
    layers: list[Any]
    optimizer: Any

    @cached_property
    def program(self) -> str:
        """Equal for heads that can be trained by one program."""
        config = {key: value for key, value in self.optimizer.get_config().items() if key not in OWN}
        return repr((self.steps, type(self.optimizer).__name__, sorted(config.items())))

    def assign(self, weights: list[np.ndarray]) -> None:
        """Gives the layers, which are those of the whole network, these weights."""
        for variable, value in zip(self._variables(), weights, strict=True):
            variable.assign(value)

    def _variables(self) -> list[Any]:
        return [v for layer in self.layers for v in ([layer.kernel, layer.bias] if layer.use_bias else [layer.kernel])]

    def weights(self, seed: int, drawn: dict[Any, np.ndarray]) -> list[np.ndarray]:
        """New weights from the layers' own initializers; the same for equal layers and seeds (looked up in `drawn`)."""
        found = []
        for number, layer in enumerate(self.layers):
            rules = [(layer.kernel_initializer, layer.kernel.shape)]
            rules += [(layer.bias_initializer, layer.bias.shape)] if layer.use_bias else []
            for rule, shape in rules:
                config = rule.get_config()
                config |= {"seed": seed * 100 + number} if "seed" in config else {}
                key = repr((type(rule), config, tuple(shape)))
                if key not in drawn:
                    drawn[key] = keras.ops.convert_to_numpy(type(rule).from_config(config)(shape, dtype="float32"))
                found.append(drawn[key])
        return found


def head_of(model: keras.Model, *, compiled_as: keras.Model) -> Head | None:
    """What `model`, the head of the compiled network `compiled_as`, consists of; None where it cannot be stacked."""
    loss, rule = compiled_as.loss, compiled_as.optimizer
    if loss != "sparse_categorical_crossentropy" or len(model.input_shape) != 2:
        return None
    config = rule.get_config()
    if type(rule).__name__ not in RULES or any(config.get(key) for key in OFF) or compiled_as.run_eagerly:
        return None
    chain = _chain(model)
    steps = [_step(layer) for layer in chain]
    while steps and steps[-1] is not None and steps[-1].kind == "dropout" and chain[-1].rate == 0:
        chain, steps = chain[:-1], steps[:-1]  # such as the one that carries the class names
    if not steps or None in steps or not _is_softmax(steps[-1]):
        return None
    plain = [step for step in steps if step is not None]
    plain[-1] = plain[-1]._replace(activation="linear")
    if any(_is_softmax(step) for step in plain):
        return None
    rates = tuple(float(layer.rate) for layer in chain if isinstance(layer, keras.layers.Dropout))
    dense = [layer for layer in chain if isinstance(layer, keras.layers.Dense)]
    return Head(tuple(plain), rates, dense, rule) if dense else None


def _chain(model: keras.Model) -> list[Any]:
    """The layers in a row; empty where they form anything else."""
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if len(layers) != len(model.operations) - 1 or any(len(layer._inbound_nodes) == 0 for layer in layers):
        return []
    nodes = [node for depth in model._nodes_by_depth.values() for node in depth if not node.is_input]
    by_source = {id(node.input_tensors[0]): node for node in nodes if len(node.input_tensors) == 1}
    tensor, row = model.inputs[0], []
    while id(tensor) in by_source:
        node = by_source[id(tensor)]
        row.append(node.operation)
        tensor = node.output_tensors[0]
    return row if len(row) == len(layers) == len(nodes) else []


def _step(layer: Any) -> Step | None:
    if type(layer) is keras.layers.Dropout:
        return Step("dropout") if layer.noise_shape is None else None
    if type(layer) is keras.layers.Activation or type(layer) is keras.layers.Dense:
        name = keras.activations.serialize(layer.activation)
        if not isinstance(name, str):
            return None
        if type(layer) is keras.layers.Activation:
            return Step("activation", name)
        extras = ("kernel_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint")
        if any(getattr(layer, extra) is not None for extra in (*extras, "bias_constraint")) or not layer.trainable:
            return None
        if layer.dtype_policy.name != "float32" or len(layer.kernel.shape) != 2:
            return None
        return Step("dense", name, (int(layer.kernel.shape[0]), int(layer.kernel.shape[1])), layer.use_bias)
    return None


def _is_softmax(step: Step | None) -> bool:
    return step is not None and step.activation == "softmax"

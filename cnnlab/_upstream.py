"""Names of Keras and TensorFlow that are not public: each with what it is for; `tests/test_upstream.py` watches them.

Seen in Keras 3.15.1 and TensorFlow 2.21.0.
"""

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple

ARGUMENTS = ("x", "y", "class_weight", "sample_weight", "steps_per_epoch", "validation_data", "validation_freq")


class Fit(NamedTuple):
    """A `fit` that runs.

    Attributes:
        callbacks: All that take part, Keras's own History included.
        arguments: What it was called with: those of `ARGUMENTS`; empty where no `fit` was found.
    """

    callbacks: Sequence[Any]
    arguments: dict[str, Any]


def fit_around(callback: Any) -> Fit:
    """The `fit` in which `callback` is being called: the local variables of Keras's `Model.fit` (3.15).

    Keras tells a callback neither its companions nor the data, without which a run cannot be continued exactly.
    """
    import keras

    callbacks: Sequence[Any] = [callback]
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, keras.callbacks.CallbackList) and callback in owner.callbacks:
            callbacks = owner.callbacks
        elif frame.f_code.co_name == "fit" and isinstance(owner, keras.Model) and "validation_freq" in frame.f_locals:
            return Fit(callbacks, {key: frame.f_locals.get(key) for key in ARGUMENTS})
        frame = frame.f_back
    return Fit(callbacks, {})


def metric_mode(model: Any, name: str) -> str | None:
    """Whether Keras wants a metric of the compiled model "min" or "max"; None where it does not know.

    `EarlyStopping._set_monitor_op` (3.15) knows the direction of each metric, which metrics hold as `_direction`.
    """
    import keras

    asked = keras.callbacks.EarlyStopping(monitor=name)
    asked.set_model(model)
    try:
        asked._set_monitor_op()
    except ValueError:
        return None
    return "min" if asked.monitor_op is keras.ops.less else "max"


def operation_of(tensor: Any) -> Any:
    """The layer or operation that a symbolic tensor comes out of: `KerasTensor._keras_history` (3.15)."""
    return tensor._keras_history.operation


def calls_of(network: Any) -> list[Any]:
    """The calls of a functional network's layers, from the input on: `Functional._nodes_by_depth` (3.15).

    Each has an `operation`, `input_tensors` and `output_tensors`.
    """
    nodes = network._nodes_by_depth
    return [node for depth in sorted(nodes, reverse=True) for node in nodes[depth] if not node.is_input]


def layers_within(layer: Any) -> list[Any]:
    """A layer and all layers inside it, however deep: `Layer._flatten_layers` (3.15)."""
    return list(layer._flatten_layers())


def compiled_with(model: Any) -> dict[str, Any]:
    """Optimizer, loss and metrics as they were given to `compile`: `Model._compile_config.config` (3.15).

    The public `get_compile_config` writes them down, without the code of somebody's own.
    """
    config = getattr(getattr(model, "_compile_config", None), "config", None)
    found = config if isinstance(config, dict) else {"optimizer": model.optimizer, "loss": model.loss}
    return {name: found.get(name) for name in ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics")}


def metric_direction(metric: Any) -> str | None:
    """Which of a metric is better, "max" or "min": `Metric._direction` (3.15); None where it says neither."""
    return {"up": "max", "down": "min"}.get(getattr(metric, "_direction", None) or "")


def gradient_register() -> dict[str, Any]:
    """TensorFlow's register of gradients: `ops.gradient_registry._registry` (2.21); empty on other backends."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return {}
    from tensorflow.python.framework import ops

    return getattr(getattr(ops, "gradient_registry", None), "_registry", {})


def add_seed_generator(layer: Any) -> None:
    """Gives a dropout layer that was built with a rate of 0 a generator: `Layer._tracker` (3.15).

    Keras makes one only where the rate is above 0, and locks the state of a layer once it is built.
    """
    import keras

    layer._tracker.unlock()
    layer.seed_generator = keras.random.SeedGenerator(layer.seed)
    layer._tracker.lock()


def begin_at_epoch(model: Any, epoch: int | None) -> None:
    """Makes a `fit` that has begun start with that epoch: `Model._initial_epoch` (3.15), as BackupAndRestore does."""
    model._initial_epoch = epoch


def build_for_training(model: Any, batch: Any) -> None:
    """Makes the variables of metrics and loss: `Model._symbolic_build` (3.15)."""
    model._symbolic_build(data_batch=batch)


def build_before_tracing(model: Any) -> None:
    """Lets a model's `fit` make the variables of optimizer, metrics and loss before TensorFlow traces its first step.

    `TensorFlowTrainer._maybe_symbolic_build` (3.15) leaves them to that step, and a step that makes variables is traced
    a second time. What cannot be built ahead is left to it as before.
    """
    plain = getattr(model, "_maybe_symbolic_build", None)
    if plain is None:  # the other backends build ahead by themselves
        return

    def _maybe_symbolic_build(iterator: Any = None, data_batch: Any = None) -> None:
        trains = sys._getframe(1).f_code.co_name in ("fit", "train_on_batch")
        if trains and not model.run_eagerly and all(layer.built for layer in layers_within(model)):
            with suppress(Exception):
                build_for_training(model, _batch_like(iterator) if data_batch is None else data_batch)
        plain(iterator=iterator, data_batch=data_batch)

    model._maybe_symbolic_build = _maybe_symbolic_build


def called_while_saving() -> bool:
    """Whether the function that asks was called by Keras to write a model's file, rather than by somebody else.

    `keras.src.saving.serialization_lib.get_build_and_compile_config` (3.15) calls `get_compile_config` of a model.
    """
    return sys._getframe(2).f_code.co_name == "get_build_and_compile_config"


def compiled_twin(model: Any) -> Any:
    """The same layers, variables, methods and attributes in an object of the same class, to be compiled by itself.

    `Model.__dict__` (3.15) holds what `compile` sets; a copy of it leaves the model's own compilation alone, while an
    own `train_step` and `compute_loss` are kept, which a new `keras.Model` around the layers would lose. Functions in
    the place of methods, as `training.compile` puts them there, are left out: they are bound to the model.
    """
    twin = object.__new__(type(model))
    twin.__dict__.update({key: value for key, value in vars(model).items() if not inspect.isfunction(value)})
    return twin


def call_that_made(tensor: Any) -> Any:
    """Keras's record of the call of a layer that made a symbolic tensor: which operation, of which tensors.

    `KerasTensor._keras_history` and `Operation._inbound_nodes` (3.15), whose `Node` says more.
    """
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


@contextmanager
def calls_forgotten(model: Any) -> Iterator[None]:
    """Takes back the records of all calls of layers inside a model that the block makes.

    `Layer._flatten_layers` and `Operation._inbound_nodes` (3.15): what is recorded would be kept for ever.
    """
    recorded = [
        (layer._inbound_nodes, len(layer._inbound_nodes)) for layer in getattr(model, "_flatten_layers", list)()
    ]
    try:
        yield
    finally:
        for nodes, count in recorded:
            del nodes[count:]


def optimizers_in(optimizer: Any) -> list[Any]:
    """An optimizer and those within it, however deep: of loss scaling, and of several for groups of layers."""
    inner = getattr(optimizer, "inner_optimizer", None)
    within = [*([] if inner is None else [inner]), *getattr(optimizer, "optimizers", [])]
    return [optimizer, *(found for one in within for found in optimizers_in(one))]


def schedules_of(optimizer: Any) -> list[Any]:
    """The learning-rate schedules of an optimizer and of those within it: `Optimizer._learning_rate` (3.15).

    The public `learning_rate` evaluates a schedule.
    """
    import keras

    rates = [getattr(one, "_learning_rate", None) for one in optimizers_in(optimizer)]
    return [rate for rate in rates if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)]


def global_generator() -> Any:
    """The generator that Keras draws from where no layer has one of its own, or None while it was never needed.

    `keras.src.random.seed_generator.GLOBAL_SEED_GENERATOR` (3.15).
    """
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

    return global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)


def make_global_generator() -> Any:
    """The same; made where it was not needed so far."""
    from keras.src.random.seed_generator import global_seed_generator

    return global_seed_generator()


def forget_global_generator() -> None:
    """Lets Keras make it anew, with a seed from Python's random state."""
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)


def _batch_like(iterator: Any) -> Any:
    """An empty batch of what Keras's `TFEpochIterator` (3.15) yields."""
    import keras

    return keras.tree.map_structure(_empty, iterator._distributed_dataset.element_spec)


def _empty(spec: Any) -> Any:
    """A batch of one, of what a replica gets."""
    import tensorflow as tf

    spec = getattr(spec, "_value_specs", (spec,))[0]
    return tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)

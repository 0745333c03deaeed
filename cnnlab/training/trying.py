"""A model to try a few steps with, which leaves the person's own compilation alone."""

from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

from cnnlab._upstream import build_before_tracing, compiled_twin
from cnnlab.training.compiling import worth_compiling
from cnnlab.training.ends import suitable_loss


def compiled_like(model: keras.Model, images: Any, labels: Any) -> Any:
    """The same network, with its own `train_step` if it has one, compiled by itself for the same loss.

    Its layers are the model's: what it learns is to be undone by `untouched`.
    """
    twin = compiled_twin(model)
    loss = model.loss if getattr(model, "compiled", False) else suitable_loss(model, (images, labels))["loss"]
    twin.compile(optimizer_like(model), loss=loss, jit_compile=worth_compiling())
    build_before_tracing(twin)
    return twin


def one_step(model: Any, images: Any, labels: Any) -> float:
    """Trains on one batch; the loss before the step."""
    model.reset_metrics()
    return loss_of(model.train_on_batch(images, labels, return_dict=True))


def loss_of(logs: dict[str, Any]) -> float:
    """The loss among what a step returned."""
    if "loss" not in logs:
        raise ValueError(
            f"Expected the network's own `train_step` and `test_step` to return the loss as 'loss'. Received: "
            f"{', '.join(logs)}."
        )
    return float(logs["loss"])


def optimizer_like(model: keras.Model) -> keras.optimizers.Optimizer:
    """An optimizer set up as the model's own, without its memory; AdamW for a model that is not compiled."""
    own: Any = getattr(model, "optimizer", None)
    while getattr(own, "inner_optimizer", None) is not None:  # scaling the loss is not the question here
        own = own.inner_optimizer
    if own is None or hasattr(own, "optimizers"):
        return keras.optimizers.AdamW()
    config = own.get_config()
    if not isinstance(config.get("learning_rate"), float):
        config["learning_rate"] = 1e-3  # a schedule would change the rate by itself
    return type(own).from_config(config)

"""Training on several devices, or several machines, at once: `tf.distribute`, with what Keras 3 lacks for it."""

import inspect
import json
import os
from collections.abc import Callable
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

# Both causes of keras#20585, as they stand in keras/src/backend/tensorflow/trainer.py. Once they are gone, so is the
# need to step in.
SCALAR_OVER_AXIS_0 = 'strategy.reduce("MEAN", v, axis=0)'
PER_REPLICA_BATCH = "maybe_distributed_data_batch"


def distributed() -> Any:
    """A strategy for all devices of this machine, or for all machines that the environment names.

    Each worker computes its share of every batch, and all apply the same update: the weights stay equal, and are those
    that one process would find with the same global batch. Call it first thing in the program, build and compile inside
    `strategy.scope()`, and fit as ever; `batch_size` is the global one. All workers run the same program and need the
    same seed. Several workers are named by TF_CONFIG, as TensorFlow wants it, or by Slurm:

        TF_CONFIG='{"cluster": {"worker": ["10.0.0.5:7078", "10.0.0.6:7078"]}, "task": {"type": "worker", "index": 0}}'

    Returns:
        `tf.distribute.MultiWorkerMirroredStrategy` for several workers, else `tf.distribute.MirroredStrategy`.

    Raises:
        RuntimeError: If Keras runs on another backend, or TensorFlow has been used before.
        ValueError: If TF_CONFIG cannot be understood.

    Source:
        TensorFlow's `tf.distribute`; keras#20585.

    Example:
        >>> strategy = distributed()
        >>> with strategy.scope():
        ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        ...     model.compile("sgd", "mse")
        >>> strategy.num_replicas_in_sync >= 1
        True
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "`training.distributed` expects Keras to run on TensorFlow. Received: "
            f"{keras.backend.backend()!r}. On JAX, use keras.distribution."
        )
    import tensorflow as tf

    several = _several_workers()
    if several is None:
        return tf.distribute.MirroredStrategy()
    _mend_keras()
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver() if several == "slurm" else None
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise RuntimeError(
            "`training.distributed` expects to come before anything else that uses TensorFlow in this process: workers "
            "find each other when it starts. Call it right after the imports, or restart the kernel and do."
        ) from error


def _several_workers() -> str | None:
    """How several workers are named: "tf_config" or "slurm"; None where there is one."""
    text = os.environ.get("TF_CONFIG", "")
    if text:
        try:
            workers = json.loads(text)["cluster"]["worker"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                'TF_CONFIG expects JSON such as {"cluster": {"worker": ["10.0.0.5:7078", …]}, "task": '
                f'{{"type": "worker", "index": 0}}}}. Received: {text!r}.'
            ) from error
        return "tf_config" if len(workers) > 1 else None
    return "slurm" if int(os.environ.get("SLURM_NTASKS", "1")) > 1 else None


def _mend_keras() -> None:
    """Lets Keras 3 `fit` on several workers (keras#20585); does nothing where Keras has been mended, or twice."""
    from keras.src.backend.tensorflow import trainer

    if SCALAR_OVER_AXIS_0 in _source(trainer.reduce_per_replica):
        trainer.reduce_per_replica = _keeping_local_values(trainer.reduce_per_replica)
    build = trainer.TensorFlowTrainer._maybe_symbolic_build
    if PER_REPLICA_BATCH in _source(build):
        trainer.TensorFlowTrainer._maybe_symbolic_build = _on_a_local_batch(build)


def _source(function: Any) -> str:
    """The source of a function; empty where it cannot be read, and of what has been mended already."""
    try:
        return "" if hasattr(function, "mended") else inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def _keeping_local_values(original: Callable[..., Any]) -> Callable[..., Any]:
    """Metrics are kept by each worker: there is no axis 0 of a scalar to reduce over."""

    def reduce_per_replica(values: Any, strategy: Any, reduction: str) -> Any:
        if reduction not in ("auto", "mean") or not _spans_workers(strategy):
            return original(values, strategy, reduction)
        return keras.tree.map_structure(lambda value: strategy.experimental_local_results(value)[0], values)

    reduce_per_replica.mended = True  # type: ignore[attr-defined]
    return reduce_per_replica


def _on_a_local_batch(original: Callable[..., Any]) -> Callable[..., Any]:
    """Models, losses and metrics are built from the shapes of one replica's share of a batch.

    No batch is drawn for that: data of `pipelines.load` counts its passes, and would begin with the second epoch.
    """

    def _maybe_symbolic_build(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
        strategy = self._distribute_strategy
        if iterator is None or strategy is None or not _spans_workers(strategy):
            original(self, iterator=iterator, data_batch=data_batch)
            return
        with strategy.scope():
            self._symbolic_build(
                data_batch=keras.tree.map_structure(_empty, iterator._distributed_dataset.element_spec)
            )

    _maybe_symbolic_build.mended = True  # type: ignore[attr-defined]
    return _maybe_symbolic_build


def _empty(spec: Any) -> Any:
    """A batch of one, of what a replica gets."""
    import tensorflow as tf

    spec = getattr(spec, "_value_specs", (spec,))[0]
    return tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)


def _spans_workers(strategy: Any) -> bool:
    import tensorflow as tf

    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return several and strategy.extended._in_multi_worker_mode()

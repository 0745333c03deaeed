"""Training on several devices, or several machines, at once: what TensorFlow and JAX have for it, ready for Keras 3."""

import json
import os
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

from cnnlab._upstream import patch_multi_worker_fit


def distributed() -> Any:
    """A strategy for all devices of this machine, or for all machines that the environment names.

    Each worker computes its share of every batch, and all apply the same update: the weights stay equal, and are those
    that one process would find with the same global batch. Call it first thing in the program, build and compile inside
    `strategy.scope()`, and fit as ever; `batch_size` is the global one. All workers run the same program and need the
    same seed. Several workers are named by TF_CONFIG, as TensorFlow wants it, or by Slurm:

        TF_CONFIG='{"cluster": {"worker": ["10.0.0.5:7078", "10.0.0.6:7078"]}, "task": {"type": "worker", "index": 0}}'

    On JAX it holds from the call on, inside the scope or not, for all devices that JAX knows; it knows those of other
    machines after `keras.distribution.initialize`. Every batch, the last one too, has to be a multiple of their number.

    Returns:
        `tf.distribute.MultiWorkerMirroredStrategy` for several workers, else `tf.distribute.MirroredStrategy`; on JAX
        `keras.distribution.DataParallel`.

    Raises:
        RuntimeError: If Keras runs on a third backend, JAX is to find workers by itself, or TensorFlow has been used
            before.
        ValueError: If TF_CONFIG cannot be understood.

    Source:
        TensorFlow's `tf.distribute`, keras#20585; `keras.distribution`.

    Example:
        >>> strategy = distributed()
        >>> with strategy.scope():
        ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        ...     model.compile("sgd", "mse")
        >>> strategy.num_replicas_in_sync >= 1
        True
    """
    backend, several = keras.backend.backend(), _several_workers()
    if backend == "jax":
        return _on_jax(several)
    if backend != "tensorflow":
        raise RuntimeError(
            f"`training.distributed` expects Keras to run on TensorFlow or JAX. Received: {backend!r}. Set "
            "KERAS_BACKEND before Keras is imported."
        )
    import tensorflow as tf

    if several is None:
        return tf.distribute.MirroredStrategy()
    patch_multi_worker_fit()
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver() if several == "slurm" else None
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except RuntimeError as error:
        raise RuntimeError(
            "`training.distributed` expects to come before anything else that uses TensorFlow in this process: workers "
            "find each other when it starts. Call it right after the imports, or restart the kernel and do."
        ) from error


def _on_jax(several: str | None) -> Any:
    import jax

    if several and jax.process_count() == 1:
        raise RuntimeError(
            "`training.distributed` expects JAX to know the other machines. Received one process, although "
            f"{several.upper()} names several: call `keras.distribution.initialize` with their addresses first."
        )
    strategy = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(strategy)
    return strategy


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


def worker_index() -> int:
    """Which of several workers this process is, from 0; 0 where there is one."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        cluster, task = config.get("cluster", {}), config.get("task", {})
        if task.get("type") == "worker":
            return int(task["index"]) + ("chief" in cluster)
    except (ValueError, KeyError, TypeError, AttributeError):  # `distributed` explains it
        return 0
    return int(os.environ.get("SLURM_PROCID", "0")) if int(os.environ.get("SLURM_NTASKS", "1")) > 1 else 0

"""Training on several devices at once: what TensorFlow and JAX have for it, ready for Keras 3."""

import json
import os
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras


def distributed() -> Any:
    """A strategy for all devices of this machine or, on JAX, of all machines that it knows.

    Each device computes its share of every batch, and all apply the same update: the weights stay equal, and are those
    that one would find with the same global batch. Call it first thing in the program, build and compile inside
    `strategy.scope()`, and fit as ever; `batch_size` is the global one.

    On JAX it holds from the call on, inside the scope or not, for all devices that JAX knows; it knows those of other
    machines after `keras.distribution.initialize`. All machines run the same program and need the same seed. Every
    batch, the last one too, has to be a multiple of the number of devices.

    Returns:
        `tf.distribute.MirroredStrategy`; on JAX `keras.distribution.DataParallel`.

    Raises:
        RuntimeError: If Keras runs on a third backend, or several machines are named (TF_CONFIG, Slurm) of which this
            process knows only itself.
        ValueError: If TF_CONFIG cannot be understood.

    Source:
        TensorFlow's `tf.distribute`; `keras.distribution`; keras#20585: on several machines Keras 3 trains on JAX only.

    Example:
        >>> strategy = distributed()
        >>> with strategy.scope():
        ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        ...     model.compile("sgd", "mse")
        >>> strategy.num_replicas_in_sync >= 1
        True
    """
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise RuntimeError(
            f"`training.distributed` expects Keras to run on TensorFlow or JAX. Received: {backend!r}. Set "
            "KERAS_BACKEND before Keras is imported."
        )
    if _place()[1] > 1 and (backend == "tensorflow" or _jax().process_count() == 1):
        raise RuntimeError(
            "`training.distributed` trains on several machines with JAX, which has to know them. Received one process, "
            "although TF_CONFIG or Slurm names several: set KERAS_BACKEND=jax, and call "
            "`keras.distribution.initialize` with their addresses first."
        )
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.distribute.MirroredStrategy()
    strategy = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(strategy)
    return strategy


def _place() -> tuple[int, int]:
    """Which of how many processes TF_CONFIG or Slurm says that this one is."""
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster") or {}, config.get("task") or {}
        chiefs, workers = (len(cluster.get(kind, ())) for kind in ("chief", "worker"))
        if chiefs + workers:
            return int(task.get("index", 0)) + (chiefs if task.get("type") == "worker" else 0), chiefs + workers
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            'TF_CONFIG expects JSON such as {"cluster": {"worker": ["10.0.0.5:7078"]}, "task": {"type": "worker", '
            f'"index": 0}}}}. Received: {text!r}. Correct it, or unset it to train on one machine.'
        ) from error
    return int(os.environ.get("SLURM_PROCID") or 0), int(os.environ.get("SLURM_NTASKS") or 1)


def _jax() -> Any:
    import jax

    return jax


def process_index() -> int:
    """Which of several processes that train together this one is, from 0; 0 where there is one."""
    if keras.backend.backend() == "jax":
        return int(_jax().process_index())
    index, count = _place()
    return index if count > 1 else 0

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from cnnlab import training

EIGHT_DEVICES = """
import keras, numpy as np
from cnnlab import models, training
assert keras.backend.backend() == "jax" and len(keras.distribution.list_devices()) == 8

def trained():
    keras.utils.set_random_seed(0)
    model = models.small_cnn(image_size=(8, 8), classes=list("0123456789"), filters=(8,), dropout=0.0)
    training.compile(model, optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (96, 8, 8, 3)).astype("uint8"), random.integers(0, 10, 96).astype("int32")
    model.fit(images, labels, batch_size=16, epochs=3, shuffle=False, verbose=0)
    return model

alone = trained().get_weights()
strategy = training.distributed()
assert isinstance(strategy, keras.distribution.DataParallel)
with strategy.scope():
    model = trained()
assert len(model.weights[0].value.sharding.device_set) == 8
print("farthest", max(np.abs(one - other).max() for one, other in zip(alone, model.get_weights())))
"""


def test_jax_trains_on_eight_devices_what_one_trains():
    flags = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    flags |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # it compiles sooner
    command = [sys.executable, "-c", EIGHT_DEVICES]
    said = subprocess.run(command, env=os.environ | flags, check=True, capture_output=True, text=True, timeout=280)
    assert float(said.stdout.split()[-1]) <= 1e-4


@pytest.mark.parametrize(
    ("backend", "words"),
    [("torch", "TensorFlow or JAX"), ("jax", "keras.distribution.initialize"), ("tensorflow", "KERAS_BACKEND=jax")],
)
def test_what_it_cannot_do_is_said(monkeypatch, backend, words):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    with pytest.raises(RuntimeError, match=words):
        training.distributed()


def test_a_cluster_that_cannot_be_understood_is_said(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "worker 0 of 2")
    with pytest.raises(ValueError, match=r"TF_CONFIG expects JSON .* Received: 'worker 0 of 2'"):
        training.distributed()


CLUSTER = '{"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "%s", "index": %d}}'


@pytest.mark.parametrize(
    ("environment", "index"),
    [
        ({}, 0),
        ({"TF_CONFIG": CLUSTER % ("chief", 0)}, 0),
        ({"TF_CONFIG": CLUSTER % ("worker", 1)}, 2),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'}, 0),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, 3),
        ({"SLURM_NTASKS": "", "SLURM_PROCID": ""}, 0),
    ],
)
def test_workers_on_tensorflow_write_into_folders_of_their_own(tmp_path, monkeypatch, environment, index):
    for name in ("TF_CONFIG", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    folders = {one.folder for one in training.callbacks(tmp_path, tensorboard=False) if hasattr(one, "folder")}
    assert folders == {tmp_path / f"worker_{index}" if index else tmp_path}


def test_one_machine_gets_a_mirrored_strategy(monkeypatch):
    import tensorflow as tf

    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}')
    assert isinstance(training.distributed(), tf.distribute.MirroredStrategy)  # one worker is no cluster
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "")
    strategy = training.distributed()
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    history = model.fit(np.ones((8, 3)), np.ones((8, 1)), epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]

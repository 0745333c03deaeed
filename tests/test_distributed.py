import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from cnnlab import tables, training
from cnnlab._upstream import patch_multi_worker_fit
from cnnlab.training.distributed import _several_workers

SCRIPT = """
import sys
from cnnlab import models, pipelines, tables, training
import keras, numpy as np
strategy = training.distributed() if {several} else None
keras.utils.set_random_seed(0)
def build():
    model = models.small_cnn(image_size=(8, 8), classes=list("0123456789"), filters=(8,), batch_norm=False, dropout=0.0)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
if strategy is None:
    model = build()
else:
    with strategy.scope():
        model = build()
data = pipelines.load(tables.read({table!r}), image_size=(8, 8), batch_size=16, training=True, seed=0)
history = model.fit(data, epochs=3, verbose=0)
np.savez({out!r}, *model.get_weights(), loss=history.history["loss"])
"""

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


def start(tmp_path, table, name, several, **environment):
    tables.save(table, tmp_path / "table.csv")
    code = SCRIPT.format(several=several, table=str(tmp_path / "table.csv"), out=str(tmp_path / f"{name}.npz"))
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | environment)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_train_what_one_process_trains(digits, tmp_path):
    table = digits.groupby("label", observed=True).head(16).reset_index(drop=True)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(start(tmp_path, table, f"worker_{index}", True, TF_CONFIG=json.dumps(config)))
    assert [worker.wait(timeout=400) for worker in workers] == [0, 0]
    assert start(tmp_path, table, "alone", False).wait(timeout=200) == 0
    one, other, alone = (np.load(tmp_path / f"{name}.npz") for name in ("worker_0", "worker_1", "alone"))
    weights = [name for name in alone.files if name != "loss"]
    assert len(weights) == 4
    for name in weights:
        np.testing.assert_array_equal(one[name], other[name])
        np.testing.assert_allclose(one[name], alone[name], atol=1e-4)


def test_jax_trains_on_eight_devices_what_one_trains():
    flags = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    flags |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # it compiles sooner
    command = [sys.executable, "-c", EIGHT_DEVICES]
    said = subprocess.run(command, env=os.environ | flags, check=True, capture_output=True, text=True, timeout=280)
    assert float(said.stdout.split()[-1]) <= 1e-4


@pytest.mark.parametrize(
    ("backend", "words"), [("torch", "TensorFlow or JAX"), ("jax", "keras.distribution.initialize")]
)
def test_what_it_cannot_do_is_said(monkeypatch, backend, words):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    with pytest.raises(RuntimeError, match=words):
        training.distributed()


def test_one_machine_gets_a_mirrored_strategy(monkeypatch):
    import tensorflow as tf

    monkeypatch.delenv("TF_CONFIG", raising=False)
    strategy = training.distributed()
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    history = model.fit(np.ones((8, 3)), np.ones((8, 1)), epochs=2, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]


@pytest.mark.parametrize("text", ["{", "[]", '{"task": 1}'])
def test_a_wrong_tf_config_is_explained(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG expects JSON"):
        training.distributed()


def test_slurm_and_tf_config_name_the_workers(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert _several_workers() == "slurm"
    one = {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(one))
    assert _several_workers() is None
    monkeypatch.setenv("TF_CONFIG", json.dumps(one | {"cluster": {"worker": ["a:1", "b:1"]}}))
    assert _several_workers() == "tf_config"


def test_keras_is_patched_once_and_only_while_it_needs_it(monkeypatch):
    from keras.src.backend.tensorflow import trainer

    def upstream(values, strategy, reduction):
        return "fixed upstream"

    monkeypatch.setattr(trainer.TensorFlowTrainer, "_maybe_symbolic_build", lambda self: None)
    monkeypatch.setattr(trainer, "reduce_per_replica", upstream)
    patch_multi_worker_fit()
    assert trainer.reduce_per_replica is upstream
    monkeypatch.undo()
    monkeypatch.setattr(trainer, "reduce_per_replica", trainer.reduce_per_replica)
    monkeypatch.setattr(
        trainer.TensorFlowTrainer, "_maybe_symbolic_build", trainer.TensorFlowTrainer._maybe_symbolic_build
    )
    patch_multi_worker_fit()
    patched = trainer.reduce_per_replica
    patch_multi_worker_fit()
    assert trainer.reduce_per_replica is patched

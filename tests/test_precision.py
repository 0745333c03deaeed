"""training.precision sets what this hardware gains by; compile says what a network calculates in."""

import random
import sys
import types

import keras
import numpy as np
import pytest

from cnnlab import models, training
from cnnlab.training import compiling


@pytest.fixture(autouse=True)
def _as_before():
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


def cards(monkeypatch, *levels):
    """As if TensorFlow saw these cards."""
    import tensorflow as tf

    names = [types.SimpleNamespace(level=level) for level in levels]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: names if kind == "GPU" else [])
    details = lambda card: {"compute_capability": card.level} if card.level else {}  # noqa: E731
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([(9, 0)], "mixed_bfloat16"), ([(8, 0)], "mixed_bfloat16"), ([(12, 0)], "mixed_bfloat16"),
        ([(7, 5)], "mixed_float16"), ([(7, 0)], "mixed_float16"), ([(6, 1)], "float32"), ([None], "float32"),
        ([(9, 0), (7, 5)], "mixed_float16"),
    ],
)  # fmt: skip
def test_cards_on_both_sides_of_tensor_cores(monkeypatch, levels, expected):
    cards(monkeypatch, *levels)
    assert training.precision() == expected
    assert keras.config.dtype_policy().name == expected


def jax_devices(monkeypatch, platform, *levels):
    devices = [types.SimpleNamespace(compute_capability=level) for level in levels]
    jax = types.SimpleNamespace(default_backend=lambda: platform, devices=lambda: devices)
    monkeypatch.setitem(sys.modules, "jax", jax)  # the real one warns, from then on, of every fork in this process
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: [f"{platform}:{n}" for n in range(len(levels))])


@pytest.mark.parametrize(
    ("platform", "level", "expected"),
    [("gpu", "9.0", "mixed_bfloat16"), ("gpu", "7.5", "mixed_float16"), ("gpu", "gfx90a", "float32"),
     ("tpu", None, "mixed_bfloat16")],
)  # fmt: skip
def test_devices_of_jax(monkeypatch, platform, level, expected):
    jax_devices(monkeypatch, platform, level)
    assert training.precision("auto") == expected


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, "mixed_bfloat16"), (0.9, "float32")])
def test_a_processor_is_measured_where_it_has_the_instructions(monkeypatch, tmp_path, seconds, expected):
    flags = tmp_path / "cpuinfo"
    flags.write_text("flags : fpu avx2 amx_bf16 amx_tile")
    monkeypatch.setattr(compiling, "Path", lambda name: flags)
    monkeypatch.setattr(compiling, "_step_seconds", {"float32": 1.0, "mixed_bfloat16": seconds}.get)
    assert training.precision() == expected
    flags.write_text("flags : fpu avx2")
    assert training.precision() == "float32"
    flags.unlink()
    assert training.precision() == "float32"


def test_a_step_can_be_timed():
    assert 0 < compiling._step_seconds("float32") < 60


def test_what_is_trained_does_not_depend_on_whether_a_step_was_timed():
    def drawn():
        weights = models.small_cnn(image_size=(8, 8), classes=["a", "b"], filters=(2,)).get_weights()
        return random.random(), np.random.rand(), float(keras.random.normal(())), weights[0].tolist()  # noqa: NPY002

    keras.utils.set_random_seed(3)
    expected = drawn()
    keras.utils.set_random_seed(3)
    compiling._step_seconds("float32")
    assert drawn() == expected


def test_compile_says_the_precision(capsys, monkeypatch):
    def line():
        training.compile(models.small_cnn(image_size=(16, 16), classes=["a", "b"]))
        return capsys.readouterr().out

    assert line().endswith("· CPU\n")
    training.precision("mixed_bfloat16")
    assert line().endswith("· CPU in mixed_bfloat16\n")
    training.precision("float32")
    cards(monkeypatch, (8, 6))
    assert "1 steps an execution · GPU in float32, slower than" in line()


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="float64"):
        training.precision("float64")

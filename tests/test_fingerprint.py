"""What a result depends on, as text: another one where code or a setting changed, the same where nothing did."""

import functools
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnlab.images import Preparation
from cnnlab.models.fingerprint import describe, layers_digest, own_code


def run(text, **names):
    """What a cell of a notebook defines as `it`."""
    space = {"__name__": "__main__", "keras": keras, "tf": tf, "np": np, "functools": functools, **names}
    exec(textwrap.dedent(text), space)
    return space["it"]


LIBRARYS = {
    "schedule": "it = [keras.callbacks.LearningRateScheduler(lambda epoch: 1.0)]",
    "callback": "it = [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: 1.0)]",
    "tf.function": "it = tf.function(lambda x: x * 1.0)",
    "vectorize": "it = np.vectorize(lambda x: x * 1.0)",
    "lru_cache": "it = functools.lru_cache(lambda x: x * 1.0)",
    "partial": "it = keras.callbacks.LearningRateScheduler(functools.partial(lambda epoch, rate: rate, rate=1.0))",
    "callable object": """
        class Rate:
            def __call__(self, epoch):
                return 1.0
        it = [keras.callbacks.LearningRateScheduler(Rate())]
        """,
    "method": """
        class Rate:
            def at(self, epoch):
                return 1.0
        it = keras.callbacks.LearningRateScheduler(Rate().at)
        """,
}
OWN = {
    "set": """
        def it(x):
            return x in {"a", "b", "c", "d", "e", "1.0"}
        """,
    "key": """
        settings, found, KEY = {"rate": 1.0}, {}, 1.0
        def it(x):
            found[KEY] = x
        """,
    "copy": """
        settings = {"rate": 1.0}
        def it(x):
            return settings.copy().pop("rate")
        """,
    "wrapper": """
        def around(function):
            @functools.wraps(function)
            def wrapper(x):
                return function(x) * 1.0
            return wrapper
        @around
        def it(x):
            return x
        """,
    "wrapper's closure": """
        def by(rate):
            def around(function):
                @functools.wraps(function)
                def wrapper(x):
                    return function(x) * rate
                return wrapper
            return around
        @by(1.0)
        def it(x):
            return x
        """,
    "wrapped": """
        @functools.wraps(print)
        def one(x):
            return x * 1.0
        @functools.lru_cache
        def it(x):
            return one(x)
        """,
    "dataclass": """
        import dataclasses
        @dataclasses.dataclass
        class Brighter:
            by: float = 0.5
            def __call__(self, x):
                return x * 1.0
        it = Brighter()
        """,
    "constant words": """
        class Brighter:
            def __init__(self):
                self.by = 1.0
            def __repr__(self):
                return "Brighter"
        it = Brighter()
        """,
    "slots": """
        class Brighter:
            __slots__ = ("by",)
        it = Brighter()
        it.by = 1.0
        """,
    "getitem": """
        class Rates:
            def __getitem__(self, epoch):
                return 1.0
        it = Rates()
        """,
    "own dict": """
        class Rates(dict):
            def __missing__(self, epoch):
                return 1.0
        it = Rates()
        """,
    "enter": """
        class Rates:
            def __enter__(self):
                return 1.0
        rates = Rates()
        def it(x):
            with rates as found:
                return x * found
        """,
    "far away": """
        def a(x): return x * 1.0
        def b(x): return a(x)
        def c(x): return b(x)
        def d(x): return c(x)
        def it(x): return d(x)
        """,
    "model's layer": """
        class Own(keras.layers.Layer):
            def call(self, x):
                return x * 1.0
        model = keras.Sequential([keras.Input((2,)), Own()])
        def it(x):
            return model(x)
        """,
    "layer": """
        class Own(keras.layers.Layer):
            def call(self, x):
                return x * 1.0
        it = Own()
        """,
    "layer that cannot be written down": """
        class Own(keras.layers.Layer):
            def __init__(self, function):
                super().__init__()
                self.function = function
            def call(self, x):
                return self.function(x)
        it = keras.Sequential([keras.Input((2,)), Own(lambda x: x * 1.0)])
        """,
    "model's function": """
        def doubled(x):
            return x * 1.0
        it = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(doubled)])
        """,
    "model's lambda": "it = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x * 1.0)])",
    "model's tf.function": """
        @tf.function
        def doubled(x):
            return x * 1.0
        it = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(doubled)])
        """,
    "model's activation": """
        def doubled(x):
            return x * 1.0
        it = keras.Sequential([keras.Input((2,)), keras.layers.Activation(doubled)])
        """,
}


CELLS = LIBRARYS | OWN


@pytest.mark.parametrize("kind", CELLS)
def test_edited_code_is_other_text_and_a_cell_that_runs_again_the_same(kind):
    cell = CELLS[kind]
    assert describe(run(cell)) == describe(run(cell)) == describe(run("\n\n" + cell))
    assert describe(run(cell)) != describe(run(cell.replace("1.0", "2.0")))


def test_text_is_the_same_in_another_process():
    """Whatever the seed of Python's hashes, and wherever objects lie in memory."""
    program = (
        "import sys; sys.path.insert(0, 'tests'); import test_fingerprint as t\n"
        "for cell in t.CELLS.values(): print(t.describe(t.run(cell)))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    other = subprocess.run([sys.executable, "-c", program], env=environment, text=True, capture_output=True)
    assert other.stdout == "".join(f"{describe(run(cell))}\n" for cell in CELLS.values()), other.stderr


def test_an_own_module_counts_by_its_file_and_by_what_is_read_of_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "cnnlab_own_helpers.py"
    file.write_text("GAIN = 1.0\ncount = 0\ndef brighten(x):\n    return x * GAIN\n")
    cell = "import cnnlab_own_helpers as h\ndef it(x):\n    h.count += 1\n    return h.brighten(x)"
    try:
        before = describe(run(cell))
        module = sys.modules["cnnlab_own_helpers"]
        for name, value in {"GAIN": 2.0, "brighten": lambda x: x}.items():  # h.count is what the function changes
            monkeypatch.setattr(module, name, value)
            assert describe(run(cell)) != before, name
            monkeypatch.undo() or monkeypatch.syspath_prepend(tmp_path)
        assert describe(run(cell)) == before
        file.write_text(file.read_text() + "OTHER = 1\n")
        assert describe(run(cell)) != before
    finally:
        sys.modules.pop("cnnlab_own_helpers", None)


def test_what_a_function_changes_does_not_count():
    count = run("""
        class Seen: number = 0
        found, rows, log, seen = {}, [], {"loss": []}, Seen()
        def it(x, call=False):
            found[x] = x
            found["n"] = found.get("n", 0)
            found["n"] += 1
            del found[x]
            rows.append(x)
            log["loss"].append(x)
            seen.number += 1
        """)
    before = describe(count)
    count(1)
    assert describe(count) == before


def test_library_objects_that_say_all_are_what_they_say():
    assert describe([Preparation((8, 8)), np.float32(0.5)]) == f"[{Preparation((8, 8))!r}, 0.5]"


def test_a_network_of_kerass_own_layers_has_no_own_code():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="relu"), keras.layers.Dropout(0.5)])
    model.compile("adam", "mse")
    model.fit(np.zeros((4, 2)), np.zeros((4, 2)), verbose=0)
    assert own_code([*model.layers, model, model.optimizer]) == ""
    assert layers_digest(model) == layers_digest(keras.models.clone_model(model))


def test_objects_that_know_each_other_take_no_time():
    cell = """
        class Node: pass
        it = [Node() for _ in range(60)]
        for one in it:
            one.others = it
            one.three = it[:3]
        """
    assert describe(run(cell)) == describe(run(cell))

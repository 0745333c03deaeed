"""A disk that is really full (a small one in memory): words, nothing lost, and the next run goes on."""

import shutil
import subprocess
import sys
import textwrap

import pytest

COMMON = """
import sys
from pathlib import Path
import numpy as np

disk, here = Path(sys.argv[1]), Path(sys.argv[2])


def fill(spare):
    "Leaves about `spare` bytes."
    with (disk / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - spare))
"""

TRAINING = """
import keras
from cnnlab import models, pipelines, samples, tables, training

table = tables.from_folder(samples.digits(here / "digits")).sample(96, random_state=0)
SPARES = (0, 8_192, 40_960, 65_536, 90_112, 131_072)


class Ballast(keras.callbacks.Callback):
    spare = None

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2 and self.spare is not None:
            fill(self.spare)


def train(folder, spare=None, resume=False):
    keras.utils.set_random_seed(0)
    model = models.small_cnn(image_size=(8, 8), classes=table["label"].cat.categories, filters=(8,), dropout=0.3)
    training.compile(model, learning_rate=0.01)
    data = pipelines.load(table, image_size=(8, 8), training=True, seed=0)
    ballast = Ballast()
    ballast.spare = spare
    callbacks = (training.resume if resume else training.callbacks)(folder, monitor="loss", tensorboard=False)
    callbacks[0].budget.share = 1.0
    history = model.fit(data, epochs=5, verbose=0, callbacks=[ballast, *callbacks])
    return [*model.get_weights(), *(np.asarray(v) for v in model.optimizer.variables)], history.history


weights, history = train(here / "whole")
stopped = 0
for spare in SPARES:
    folder = disk / f"run_{spare}"
    try:
        train(folder, spare)
        continue
    except OSError as error:
        stopped += 1
        assert "is full, so training stopped" in str(error) and "training.resume" in str(error), error
    (disk / "ballast").unlink()
    again, seen = train(folder, resume=True)
    assert all(np.array_equal(a, b) for a, b in zip(again, weights, strict=True)), spare
    assert seen == history, spare
    __import__("shutil").rmtree(folder)
print("stopped", stopped)
"""

IMPORT = """
import importlib.resources

sys.modules.setdefault("importlib_resources", importlib.resources)  # as in `samples.from_tfds`: TFDS forgets it
import tensorflow_datasets as tfds
from PIL import Image
from cnnlab import samples

rng = np.random.default_rng(0)
for name in ("cat", "dog"):
    folder = here / "source" / "train" / name
    folder.mkdir(parents=True)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
tfds.dataset_builders.store_as_tfds_dataset(
    name="little", version="1.0.0", data_dir=here / "data", disable_shuffling=True,
    features=tfds.features.FeaturesDict(
        {"image": tfds.features.Image(encoding_format="png"), "label": tfds.features.ClassLabel(names=["cat", "dog"])}
    ),
    split_datasets={"train": list(enumerate(
        {"image": str(path), "label": path.parent.name} for path in sorted((here / "source").glob("*/*/*"))
    ))},
)
bytes_of = lambda folder: {path.relative_to(folder): path.read_bytes() for path in folder.glob("*/*")}
whole = bytes_of(samples.from_tfds("little", here / "whole", data_dir=here / "data"))
fill(150_000)
try:
    samples.from_tfds("little", disk / "out", data_dir=here / "data")
except OSError as error:
    assert "stopped half-way (No space left on device)" in str(error), error
    assert "run the same call again" in str(error), error
before = {path: path.stat().st_mtime_ns for path in (disk / "out").glob("*/*")}
assert 0 < len(before) < len(whole) == 80, len(before)
(disk / "ballast").unlink()
assert bytes_of(samples.from_tfds("little", disk / "out", data_dir=here / "data")) == whole
assert {path: path.stat().st_mtime_ns for path in before} == before
print("stopped 1")
"""


def on_a_small_disk(script, folder, size):
    """Runs a script with a disk of its own, in memory and away from the rest of the machine."""
    disk = folder / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={size} none "$1" && '
    start = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*start, mount + "true", "sh", disk], capture_output=True).returncode
    ):
        pytest.skip("needs Linux and the right to mount a disk in memory")
    return subprocess.run(
        [*start, mount + 'exec "$0" -W ignore -c "$3" "$1" "$2"', sys.executable, disk, folder, COMMON + script],
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "size", "stops"), [(TRAINING, "4m", 4), (IMPORT, "1m", 1)], ids=["training", "import"]
)
def test_a_disk_that_fills_up_stops_in_words_and_the_next_run_goes_on(tmp_path, script, size, stops):
    done = on_a_small_disk(textwrap.dedent(script), tmp_path, size)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split("stopped")[-1]) >= stops

"""What `load` keeps in memory and on disk, and lets go of again; functions of a person's own as augmentation."""

import concurrent.futures
import gc
import itertools
import multiprocessing
import os
import random
import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from cnnlab import __main__, augment, pipelines
from cnnlab.pipelines import cache

MB = 2**20


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """40 noisy pictures of 120 × 100 pixels."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (100, 120, 3), np.uint8)).save(folder / f"{number}.png")
    paths = [str(folder / f"{number}.png") for number in range(40)]
    return pd.DataFrame({"path": paths, "label": pd.Categorical(["a", "b"] * 20)})


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def everything(dataset):
    return np.concatenate([images for images, _ in dataset.as_numpy_iterator()])


def test_a_deleted_dataset_lets_its_images_go(table):
    dataset = pipelines.load(table, image_size=(100, 120), cache="memory")
    derived = dataset.map(lambda images, labels: (images / 2, labels))
    source = weakref.ref(dataset._cnnlab_source)
    del dataset
    gc.collect()
    assert len(everything(derived)) == 40  # what was made of it keeps it
    iterator = iter(derived)
    del derived
    next(iterator)
    del iterator
    gc.collect()
    assert source() is None


def growth(table, kind, count):
    """By how many bytes this process grows while it loads the table, or runs cells that train, so many times."""
    import keras

    large = pd.concat([table] * 25, ignore_index=True)
    process, grown = psutil.Process(), []
    model = keras.Sequential([keras.Input((100, 120, 3)), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(count):
        if kind == "load":
            data = pipelines.load(table, image_size=(100, 120), training=True, seed=0, cache="memory")
            everything(data)
        else:
            data = pipelines.load(large, image_size=(100, 120), training=True, seed=0, cache="memory")
            model.fit(data, epochs=1, verbose=0)
        grown.append(process.memory_info().rss)
    return grown[-1] - grown[0]


@pytest.mark.parametrize("loads, cells", [(80, 5), pytest.param(200, 21, marks=pytest.mark.slow)])
def test_loading_again_and_again_stays_flat(table, loads, cells):
    """Each load would hold 1.4 MB of pixels, each cell 36. In a process of its own, where nothing else grows."""
    context, counts = multiprocessing.get_context("spawn"), {"load": loads, "cell": cells}
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        grown = {kind: pool.submit(growth, table, kind, count).result() for kind, count in counts.items()}
    assert max(grown.values()) < 100 * MB, grown


# On disk


def test_the_key_is_what_decides_the_pixels(table, cache_folder):
    """Policies that need the same reduction share the files; another reduction or another scale of levels does not."""

    def names(**options):
        before = set(cache_folder.rglob("*.rgb"))
        list(pipelines.load(table.head(3), training=True, seed=0, cache="disk", **options))
        return len(set(cache_folder.rglob("*.rgb")) - before)

    zooms = [names(image_size=(16, 16), augment=augment.Policy(zoom=zoom)) for zoom in (0.1, 0.2, 0.3, 0.5)]
    assert zooms == [3, 0, 0, 0]  # all reduce 100 pixels by 4
    assert names(image_size=(24, 24), augment=augment.Policy(rotate=5)) == 0
    assert names(image_size=(40, 40), augment=augment.Policy(rotate=5)) == 3
    assert names(image_size=(40, 40)) == 3
    assert names(image_size=(40, 40), resize="pad") == 3
    assert names(image_size=(40, 40), levels=(0, 4095)) == 3


def test_another_decoder_does_not_find_the_old_pixels(table, cache_folder, monkeypatch):
    options = {"image_size": (16, 16), "cache": "disk"}
    expected = everything(pipelines.load(table.head(2), **options))
    monkeypatch.setattr(cache, "DECODER", "another")
    np.testing.assert_array_equal(everything(pipelines.load(table.head(2), **options)), expected)
    assert len(list(cache_folder.rglob("*.rgb"))) == 4


def test_the_least_recently_used_images_go(cache_folder):
    image = np.zeros((10, 10, 3), np.uint8)  # 316 bytes with its header
    keep = cache.DiskCache(limit=10 * 316)
    keys = [f"{number:032x}" for number in range(12)]
    cache_folder.mkdir(parents=True)
    (cache_folder / "notes.txt").write_text("a person's")
    for number, key in enumerate(keys[:10]):
        keep.put(key, image)
        os.utime(keep.path(key), (1000 + number, 1000 + number))
    assert keep.get(keys[0]) is not None  # used again: now it is the last to go
    cache.DiskCache(limit=10 * 316).put(keys[10], image)
    left = {key for key in keys if keep.path(key).exists()}
    assert left == {keys[0], *keys[3:11]}  # 8 of 10 stay, and the new one
    assert (cache_folder / "notes.txt").read_text() == "a person's"


def test_the_command_shows_and_clears(table, cache_folder, capsys, monkeypatch, tmp_path):
    everything(pipelines.load(table, image_size=(16, 16), cache="disk"))
    (cache_folder / "ab").mkdir(exist_ok=True)
    (cache_folder / "ab" / "mine.rgb").write_bytes(b"a person's")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f"{'0' * 30}.rgb").write_bytes(b"not the cache's")
    (cache_folder / "cd").exists() or (cache_folder / "cd").symlink_to(outside)
    assert __main__.main(["cache"]) == 0
    assert f"{cache_folder}: 40 images, 0.00 GB of at most 20 GB" in capsys.readouterr().out
    assert __main__.main(["cache", "--clear"]) == 0
    assert "40 images removed." in capsys.readouterr().out
    assert (cache_folder / "ab" / "mine.rgb").exists()
    assert list(outside.iterdir())
    monkeypatch.setenv("CNNLAB_CACHE_GB", "lots")
    assert __main__.main(["cache"]) == 1
    assert "number of gigabytes above 0. Received: 'lots'" in capsys.readouterr().err


# Functions of one's own


def speckled(image, seed):
    return np.random.default_rng(seed).integers(0, 256, image.shape, np.uint8)


def unseeded(image):
    image[:] = np.random.randint(0, 256)  # noqa: NPY002
    image[0] = random.randrange(256)
    return image


@pytest.mark.parametrize("function", [speckled, unseeded])
def test_a_function_augments_and_is_seeded_for_each_image_and_epoch(table, function):
    def epochs():
        data = pipelines.load(
            table, image_size=(8, 8), batch_size=4, training=True, seed=5, augment=function, balance="oversample"
        )
        return [everything(data) for _ in range(2)]

    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = epochs()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(epochs(), [first, second])
    assert not np.array_equal(first, second)
    assert all(not np.array_equal(one, two) for one, two in itertools.pairwise(first))
    untouched = everything(pipelines.load(table, image_size=(8, 8)))
    assert untouched.std() > 5  # the cached originals are not written into


@pytest.mark.parametrize("module", ["albumentations.core.composition", "somebodys"])
def test_a_transform_that_is_called_by_keyword(table, module):
    """As albumentations is: `transform(image=image)["image"]`, and a generator of its own."""

    class Compose:
        __module__ = module

        def set_random_seed(self, seed):
            self.generator = np.random.default_rng(seed)

        def __call__(self, *, image):
            return {"image": image + self.generator.integers(0, 2, dtype=np.uint8)}

    options = {"image_size": (8, 8), "training": True, "seed": 0, "augment": Compose()}
    np.testing.assert_array_equal(
        everything(pipelines.load(table, **options)), everything(pipelines.load(table, **options))
    )


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda image: image / 255, r"returned float64 of shape \(8, 8, 3\)"),
        (lambda image: image[:4], r"returned uint8 of shape \(4, 8, 3\)"),
        (lambda image: None, "returned object"),
    ],
)
def test_a_function_that_returns_something_else_is_refused_before_training(table, function, words):
    with pytest.raises(TypeError, match=words):
        pipelines.load(table, image_size=(8, 8), training=True, seed=0, augment=function)
    with pytest.raises(ValueError, match="for training only"):
        pipelines.load(table, image_size=(8, 8), augment=function)


def test_several_processes_share_one_cache(table, cache_folder):
    """Four at once with a limit that holds a third: all right, and the folder near its limit."""
    code = (
        "import sys, pandas as pd\nfrom cnnlab import pipelines\n"
        "table = pd.read_csv(sys.argv[1]).astype({'label': 'category'})\n"
        "for _ in range(2):\n"
        "    print(sum(len(images) for images, _ in pipelines.load(table, image_size=(64, 64), cache='disk')))"
    )
    path = cache_folder.parent.parent / "table.csv"
    table.to_csv(path, index=False)
    environment = {**os.environ, "CNNLAB_CACHE_GB": str(13 * 64 * 64 * 3 / 1e9)}
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [run.communicate()[0].split() for run in runs] == [["40", "40"]] * 2
    assert len(list(cache_folder.rglob("*.rgb"))) <= 2 * 16

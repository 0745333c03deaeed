"""The dataset: every image once, the same pixels for the same seed, honest about sizes and broken files."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnlab import augment, images, pipelines
from cnnlab._common import available_cores
from cnnlab.pipelines import cache, order

POLICY = augment.Policy(
    flip="horizontal", rotate=10, zoom=0.1, shift=0.1, brightness=0.1, contrast=0.1, saturation=0.1, noise=4
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """23 small pictures whose red level is their row, so that a pixel tells which one it was."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    rows = []
    for row in range(23):
        pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
        pixels[..., 0] = row * 10
        path = folder / f"{row}.png"
        Image.fromarray(pixels).save(path)
        rows.append({"path": str(path), "label": "abc"[row % 3 if row < 20 else 0]})
    return pd.DataFrame(rows).astype({"label": "category"})


def seen(dataset):
    return np.concatenate([images[:, 0, 0, 0] // 10 for images, _ in dataset.as_numpy_iterator()]).tolist()


def everything(dataset):
    batches = list(dataset.as_numpy_iterator())
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def test_evaluation_keeps_the_order_and_the_labels(table):
    dataset = pipelines.load(table, image_size=(16, 12), batch_size=5)
    pixels, labels = everything(dataset)
    assert len(dataset) == 5
    assert pixels.dtype == np.uint8 and pixels.shape == (23, 16, 12, 3)
    assert (pixels[:, 0, 0, 0] // 10).tolist() == list(range(23))
    assert labels.tolist() == table["label"].cat.codes.tolist()
    for row in (0, 22):
        expected = images.resize(images.read(table["path"][row]), (16, 12))
        np.testing.assert_array_equal(pixels[row], expected)
        np.testing.assert_array_equal(images.prepare(table["path"][row], images.Preparation((16, 12))), expected)


def test_training_shows_each_image_once_in_another_order_each_epoch(table):
    dataset = pipelines.load(table, image_size=(16, 12), batch_size=5, training=True, seed=3)
    first, second = seen(dataset), seen(dataset)
    assert sorted(first) == sorted(second) == list(range(23))
    assert first != second != list(range(23))
    again = pipelines.load(table, image_size=(16, 12), batch_size=5, training=True, seed=3)
    assert [seen(again), seen(again)] == [first, second]


def test_the_same_seed_gives_the_same_pixels_and_another_epoch_others(table):
    def load():
        return pipelines.load(table, image_size=(16, 12), batch_size=5, training=True, seed=1, augment=POLICY)

    one, two = load(), load()
    first = everything(one)
    np.testing.assert_array_equal(first[0], everything(two)[0])
    assert not np.array_equal(first[0], everything(two)[0])
    pipelines.set_epoch(two, 0)
    np.testing.assert_array_equal(first[0], everything(two)[0])


def test_the_rest_of_an_epoch_is_what_was_left(table):
    dataset = pipelines.load(table, image_size=(16, 12), batch_size=5, training=True, seed=1, augment=POLICY)
    pipelines.set_epoch(dataset, 4)
    whole = everything(dataset)[0]
    following = everything(dataset)[0]
    rest = pipelines.rest(dataset, epoch=4, step=3)
    assert len(rest) == 2
    np.testing.assert_array_equal(everything(rest)[0], whole[15:])
    np.testing.assert_array_equal(everything(dataset)[0], following)


# The same bytes everywhere

SCRIPT = """
import hashlib, os, sys
cores = int(sys.argv[2])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
import pandas as pd
from cnnlab import augment, pipelines
from cnnlab._common import available_cores
table = pd.read_csv(sys.argv[1]).astype({"label": "category"})
policy = augment.strong | augment.Policy(mixup=0.3)
dataset = pipelines.load(table, image_size=(40, 32), batch_size=4, training=True, seed=5, augment=policy)
digest = hashlib.sha256()
for _ in range(2):
    for images, labels in dataset.as_numpy_iterator():
        digest.update(images.tobytes() + labels.tobytes())
print(available_cores(), digest.hexdigest())
"""


def test_processes_and_threads_do_not_change_a_byte(table, tmp_path):
    table.to_csv(tmp_path / "table.csv", index=False)
    freely = {name: value for name, value in os.environ.items() if not name.startswith(("TF_NUM_", "OMP_"))}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "table.csv")]
    runs = [subprocess.Popen([*command, cores], stdout=subprocess.PIPE, text=True, env=freely) for cores in ("1", "2")]
    (one, first), (two, second) = (run.communicate()[0].split() for run in runs)
    assert one == "1" and (two == "2" or os.cpu_count() == 1)
    assert first == second


def test_batch_size_shards_and_caches_do_not_change_an_image(table):
    def by_row(**options):
        dataset = pipelines.load(
            table, **({"image_size": (16, 12), "training": True, "seed": 1, "augment": POLICY} | options)
        )
        source = dataset._cnnlab_source
        rows = np.concatenate([source.batch_rows(0, batch)[:, 0] for batch in range(len(dataset))])
        return dict(zip(rows.tolist(), everything(dataset)[0], strict=True)), dataset

    whole, _ = by_row(batch_size=5, cache=False)
    assert sorted(whole) == list(range(23))
    for options in ({"batch_size": 23}, {"cache": "memory"}, {"cache": "disk"}, {"shard": (0, 2)}, {"shard": (1, 2)}):
        part, dataset = by_row(**options)
        for row, image in part.items():
            np.testing.assert_array_equal(image, whole[row])
        pipelines.set_epoch(dataset, 0)
        np.testing.assert_array_equal(everything(dataset)[0], np.stack(list(part.values())))  # now from the cache


def test_nobody_waits_for_a_thread_that_tunes(table):
    """TensorFlow's would make whoever drops an iterator wait, for up to a minute; also behind a person's own steps."""
    dataset = pipelines.load(table, image_size=(8, 8), training=True, seed=0)
    assert not dataset.options().autotune.enabled
    assert not dataset.map(lambda images, labels: (images, labels)).prefetch(1).options().autotune.enabled


def test_two_iterators_at_once_are_two_epochs(table):
    dataset = pipelines.load(table, image_size=(16, 12), batch_size=5, training=True, seed=3)
    one, two = dataset.as_numpy_iterator(), dataset.as_numpy_iterator()
    rows = [[], []]
    for first, second in zip(one, two, strict=True):
        rows[0].extend(first[0][:, 0, 0, 0] // 10)
        rows[1].extend(second[0][:, 0, 0, 0] // 10)
    assert sorted(rows[0]) == sorted(rows[1]) == list(range(23))
    again = pipelines.load(table, image_size=(16, 12), batch_size=5, training=True, seed=3)
    assert [seen(again), seen(again)] == rows


def test_without_a_seed_keras_decides(table):
    import keras

    def load():
        return seen(pipelines.load(table, image_size=(8, 8), training=True))

    keras.utils.set_random_seed(4)
    first, other = load(), load()
    keras.utils.set_random_seed(4)
    assert load() == first != other


def test_keras_fits_on_it(table):
    import keras

    policy = augment.medium | augment.Policy(cutmix=1.0)
    train = pipelines.load(table, image_size=(16, 16), batch_size=5, training=True, seed=0, augment=policy)
    val = pipelines.load(table, image_size=(16, 16), batch_size=5, one_hot=True)
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(3)])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], steps_per_execution=2)
    history = model.fit(train, validation_data=val, epochs=3, verbose=0, shuffle=False).history
    assert len(history["val_loss"]) == 3 and np.isfinite(history["loss"]).all()
    assert model.predict(val, verbose=0).shape == (23, 3)
    assert val.element_spec[1].shape == (None, 3)
    assert everything(val)[1].argmax(axis=1).tolist() == table["label"].cat.codes.tolist()


# Which images


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any),
    seed=st.integers(0, 10**6),
    epoch=st.integers(0, 50),
    balance=st.sampled_from([None, "oversample", "undersample", 0.0, 0.3, 1.0]),
    shards=st.integers(1, 4),
)
def test_an_epoch_shows_what_was_promised(counts, seed, epoch, balance, shards):
    codes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = []
    for index in range(shards):
        options = {"training": True, "balance": balance, "shard": (index, shards)}
        part = order.epoch_rows(codes, epoch=epoch, seed=seed, **options)
        assert len(part) == order.epoch_length(codes, **options)
        parts.append(part)
    assert len({len(part) for part in parts}) == 1  # every worker has as many
    pairs = np.concatenate(parts)
    assert len(set(map(tuple, pairs))) == len(pairs)  # none twice with the same draws
    whole = order.epoch_rows(codes, epoch=epoch, seed=seed, training=True, balance=balance, shard=(0, 1))
    assert len(whole) - len(pairs) < shards
    present = np.bincount(codes)[np.unique(codes)]
    found = np.bincount(codes[whole[:, 0]])[np.unique(codes)]
    if balance is None or balance == 0.0:
        assert sorted(whole[:, 0]) == list(range(len(codes)))  # each image once
    elif balance == "undersample":
        assert (found == present.min()).all() and (whole[:, 1] == 0).all()
    else:
        share = 1.0 if balance == "oversample" else balance
        np.testing.assert_array_equal(found, np.maximum(present, np.ceil(share * present.max() - 1e-9)))
        shown = np.bincount(whole[:, 0], minlength=len(codes))
        for code in np.unique(codes):  # images of a class are shown equally often, but for one
            assert np.ptp(shown[codes == code]) <= 1


def test_evaluation_shards_cover_every_row_once(table):
    parts = [pipelines.load(table, image_size=(16, 12), batch_size=4, shard=(index, 3)) for index in range(3)]
    assert sorted(row for part in parts for row in seen(part)) == list(range(23))
    assert [len(part) for part in parts] == [2, 2, 2]


def test_rare_classes_come_as_often_with_other_draws(table):
    dataset = pipelines.load(
        table, image_size=(16, 12), training=True, seed=0, balance="oversample", augment=augment.Policy(noise=50)
    )
    images, labels = everything(dataset)
    assert np.bincount(labels).tolist() == [10, 10, 10]  # of 10, 7 and 6
    assert len(np.unique(images.reshape(30, -1), axis=0)) == 30


# Broken files


@pytest.fixture
def with_broken(table, tmp_path):
    paths = table["path"].tolist()
    problems = {3: b"", 4: b"no image", 10: None, 11: (tmp_path / "x").name.encode(), 22: b"\xff\xd8\xff" + bytes(50)}
    for row, data in problems.items():
        path = tmp_path / f"broken{row}.jpg"
        if data is not None:
            path.write_bytes(data)
        paths[row] = str(path)
    return table.assign(path=paths).set_index(pd.Index([f"image{row}" for row in range(23)])), sorted(problems)


@pytest.mark.parametrize("training", [False, True])
def test_broken_files_are_skipped_and_listed(with_broken, training, caplog):
    table, rows = with_broken
    dataset = pipelines.load(table, image_size=(16, 12), batch_size=5, training=training, seed=0)
    for _ in range(2):
        assert sorted(seen(dataset)) == [row for row in range(23) if row not in rows]
    assert len(dataset) == 5 == len(list(dataset))
    broken = pipelines.broken(dataset)
    assert broken.index.tolist() == [f"image{row}" for row in rows]
    assert broken["path"].tolist() == table["path"].iloc[rows].tolist()
    assert "empty: 0 bytes" in broken["problem"].iloc[0] and broken["problem"].iloc[2] == "there is no such file"
    assert len(caplog.records) == 1 and "pipelines.broken(dataset)" in caplog.text


def test_nothing_broken_is_an_empty_list(table):
    dataset = pipelines.load(table, image_size=(16, 12))
    seen(dataset)
    assert pipelines.broken(dataset).empty and pipelines.broken(dataset).columns.tolist() == ["path", "problem"]
    assert pipelines.delivered(dataset).tolist() == list(range(23))


def test_labels_stay_with_their_images_when_neighbours_are_broken(with_broken):
    table, _ = with_broken
    policy = augment.Policy(mixup=0.5)
    dataset = pipelines.load(table, image_size=(16, 12), batch_size=5)
    codes = table["label"].cat.codes.to_numpy()
    for pixels, labels in dataset.as_numpy_iterator():
        assert labels.tolist() == codes[pixels[:, 0, 0, 0] // 10].tolist()
    mixed = pipelines.load(table, image_size=(16, 12), batch_size=5, training=True, augment=policy, seed=0)
    assert sum(len(images) for images, _ in mixed) == 18


def test_a_batch_of_broken_files_is_stood_in_for(with_broken):
    table, rows = with_broken
    dataset = pipelines.load(table, image_size=(16, 12), batch_size=2)  # rows 10 and 11 are a batch, 22 another
    batches = [images for images, _ in dataset.as_numpy_iterator()]
    assert len(batches) == len(dataset) == 12
    assert len(batches[5]) == 1 and batches[5][0, 0, 0, 0] // 10 == 12
    assert len(batches[11]) == 1 and batches[11][0, 0, 0, 0] // 10 == 0
    found = pipelines.delivered(dataset)
    assert found[found >= 0].tolist() == [row for row in range(23) if row not in rows]
    assert len(found) == sum(map(len, batches)) and (found == -1).sum() == 2
    with pytest.raises(ValueError, match="about evaluation"):
        pipelines.delivered(pipelines.load(table, image_size=(8, 8), training=True, seed=0))


def test_when_no_file_can_be_read_it_says_so(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    table = pd.DataFrame({"path": [str(path)] * 3, "label": pd.Categorical(["a", "b", "a"])})
    dataset = pipelines.load(table, image_size=(8, 8))
    with pytest.raises(Exception, match=r"None of the 3 images can be read. The first: .*empty.png: empty"):
        list(dataset)
    with pytest.raises(ValueError, match="None of the images tried can be read"):
        pipelines.measure(dataset, seconds=0.1)


def test_a_file_that_is_mended_leaves_the_list(with_broken, table):
    broken, rows = with_broken
    dataset = pipelines.load(broken, image_size=(16, 12))
    seen(dataset)
    Path(broken["path"].iloc[3]).write_bytes(Path(table["path"].iloc[3]).read_bytes())
    assert 3 in seen(dataset)
    assert pipelines.broken(dataset).index.tolist() == [f"image{row}" for row in rows if row != 3]


# Caches


def test_memory_takes_what_it_may(table, monkeypatch):
    dataset = pipelines.load(table, image_size=(16, 12), cache="memory")
    expected = everything(dataset)[0]
    kept = dataset._cnnlab_source.cache
    assert len(kept.images) == 23 and kept.bytes == 23 * 16 * 12 * 3
    monkeypatch.setattr(cache, "free_memory", lambda: 4 * 5 * 16 * 12 * 3 + 1)  # a quarter holds five images
    small = pipelines.load(table, image_size=(16, 12), cache="memory")
    np.testing.assert_array_equal(everything(small)[0], expected)
    np.testing.assert_array_equal(everything(small)[0], expected)
    assert len(small._cnnlab_source.cache.images) == 5
    automatic = pipelines.load(table, image_size=(16, 12), cache="auto")
    assert automatic._cnnlab_source.cache.limit == 0
    monkeypatch.setattr(cache, "free_memory", lambda: 4 * 23 * 16 * 12 * 3)
    automatic = pipelines.load(table, image_size=(16, 12), cache="auto")
    assert automatic._cnnlab_source.cache.limit > 0


def test_auto_reckons_with_the_pixels_a_policy_needs(table, monkeypatch):
    monkeypatch.setattr(cache, "free_memory", lambda: 4 * 23 * 20 * 24 * 3)
    options = {"image_size": (16, 12), "training": True, "seed": 0, "augment": POLICY}
    assert pipelines.load(table, **options)._cnnlab_source.cache.limit > 0
    monkeypatch.setattr(cache, "free_memory", lambda: 4 * 23 * 20 * 24 * 3 - 4)
    assert pipelines.load(table, **options)._cnnlab_source.cache.limit == 0


def test_free_memory_is_a_sensible_number():
    assert 10**7 < cache.free_memory() < 10**14


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def test_disk_keeps_images_by_content_and_size(table, cache_folder, monkeypatch):
    options = {"image_size": (16, 12), "cache": "disk"}
    expected = everything(pipelines.load(table, **options))[0]
    files = sorted(cache_folder.rglob("*.rgb"))
    assert len(files) == 23
    with monkeypatch.context() as patch:  # the second time nothing is decoded
        patch.setattr("cnnlab.pipelines.source.read_reduced", None)
        np.testing.assert_array_equal(everything(pipelines.load(table, **options))[0], expected)
    everything(pipelines.load(table, image_size=(16, 13), cache="disk"))
    everything(pipelines.load(table, **options, resize="pad"))
    assert len(list(cache_folder.rglob("*.rgb"))) == 3 * 23
    files[0].write_bytes(files[0].read_bytes()[:-1])  # cut short, and not even a header
    files[1].write_bytes(b"x")
    np.testing.assert_array_equal(everything(pipelines.load(table, **options))[0], expected)
    assert files[0].stat().st_size == 16 + 16 * 12 * 3


def test_a_changed_file_is_not_taken_from_the_disk_cache(table, cache_folder, tmp_path):
    path = tmp_path / "changing.png"
    for level in (50, 200):
        Image.new("RGB", (20, 20), (level, 0, 0)).save(path)
        dataset = pipelines.load(table.head(1).assign(path=str(path)), image_size=(8, 8), cache="disk")
        assert everything(dataset)[0][0, 0, 0, 0] == level


def test_two_writers_and_a_full_disk_do_no_harm(table, cache_folder, caplog, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    keep = cache.DiskCache()
    image = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            list(pool.map(lambda _: keep.put("abcdef", image), range(40)))
            assert (keep.get("abcdef") == image).all()
    assert [path.name for path in cache_folder.rglob("*") if path.is_file()] == ["cdef.rgb"]
    os.mkfifo(cache_folder / "ab" / "pipe.rgb")
    assert keep.get("abpipe") is None  # and is not waited for

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "atomic_path", refuse)
    dataset = pipelines.load(table, image_size=(16, 12), cache="disk")
    assert seen(dataset) == list(range(23))
    assert len([record for record in caplog.records if "No space left" in record.getMessage()]) == 1


def test_the_cache_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("CNNLAB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_folder() == tmp_path / "cnnlab" / "images"


# Resizing and augmenting


@pytest.mark.parametrize("mode", ["fit", "pad", "stretch"])
def test_training_and_evaluation_see_the_same_pixels(table, mode):
    """A policy whose geometry happens to be none resamples to what evaluation shows."""
    still = augment.Policy(rotate=1e-9)
    evaluation = everything(pipelines.load(table, image_size=(14, 14), resize=mode))[0].astype(float)
    training = pipelines.load(table, image_size=(14, 14), resize=mode, training=True, seed=0, augment=still)
    rows = training._cnnlab_source.batch_rows(0, 0)[:, 0]
    difference = np.abs(everything(training)[0] - evaluation[rows])
    inner = difference[:, 2:-2, 2:-2] if mode == "pad" else difference
    assert inner.mean() <= 0.6


def test_padding_stays_black_however_the_policy_fills(table):
    policy = augment.Policy(shift=1e-9, fill="nearest")
    images = everything(pipelines.load(table, image_size=(30, 24), resize="pad", training=True, seed=0, augment=policy))
    assert (images[0][:, :4] == 0).all() and images[0][:, 10:20].any()


def test_the_margin_of_the_photograph_is_used(tmp_path):
    """Turned, a cut-out shows what lay beside it, not a mirror image."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :20] = pixels[:, 60:] = 255  # outside the middle square
    Image.fromarray(pixels).save(tmp_path / "a.png")
    table = pd.DataFrame({"path": [str(tmp_path / "a.png")], "label": pd.Categorical(["a"])})
    dataset = pipelines.load(table, image_size=(40, 40), training=True, seed=1, augment=augment.Policy(shift=0.5))
    assert everything(dataset)[0].max() == 255


def test_measure_says_where_the_time_goes(table):
    for options in ({}, {"training": True, "seed": 0, "augment": POLICY | augment.Policy(mixup=0.2)}):
        dataset = pipelines.load(table, image_size=(16, 12), batch_size=5, **options)
        found = pipelines.measure(dataset, seconds=0.2)
        assert found["stage"].tolist() == ["read", "decode", "augment", "batch", "all"]
        assert (found["milliseconds"] > 0).all()
        assert found["share"].iloc[:4].sum() == pytest.approx(1)
        np.testing.assert_allclose(found["images_per_second"] * found["milliseconds"], 1000)


# Refusals


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"image_size": 0}, ValueError, r"`image_size` must be \(height, width\)"),
        ({"image_size": (0, 5)}, ValueError, r"Received: image_size=\(0, 5\)"),
        ({"image_size": (96.0, 96)}, ValueError, "whole pixels"),
        ({"image_size": (True, 96)}, ValueError, "whole pixels"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be a whole number from 1"),
        ({"augment": POLICY}, ValueError, "`augment` is for training only"),
        ({"augment": "strong", "training": True}, TypeError, "must be an augment.Policy"),
        ({"balance": "oversample"}, ValueError, "`balance` is for training only"),
        ({"balance": "more", "training": True}, ValueError, "'oversample', 'undersample', a number from 0 to 1"),
        ({"balance": 1.5, "training": True}, ValueError, "balance=1.5"),
        ({"balance": True, "training": True}, ValueError, "balance=True"),
        ({"resize": "squash"}, ValueError, "`resize` must be one of 'fit', 'pad', 'stretch'"),
        ({"cache": True}, ValueError, "`cache` must be 'auto', 'memory', 'disk' or False"),
        ({"cache": "ram"}, ValueError, "cache='ram'"),
        ({"shard": (2, 2)}, ValueError, "0 <= index < count"),
        ({"shard": 1}, ValueError, "shard=1"),
        ({"shard": (0, 2), "training": True}, ValueError, "expects a `seed` in training"),
        ({"shard": (23, 24)}, ValueError, "leaves no row of 23"),
    ],
)
def test_impossible_requests_are_refused_in_words(table, options, error, words):
    with pytest.raises(error, match=words):
        pipelines.load(table, **({"image_size": (8, 8)} | options))


def test_impossible_tables_are_refused_in_words(table):
    with pytest.raises(TypeError, match="`label` to be a pandas Categorical"):
        pipelines.load(table.astype({"label": "str"}), image_size=(8, 8))
    with pytest.raises(TypeError, match="expects a table"):
        pipelines.load(table["path"], image_size=(8, 8))
    with pytest.raises(ValueError, match="Did you mean 'paths'"):
        pipelines.load(table.rename(columns={"path": "paths"}).assign(paht=1), image_size=(8, 8))
    with pytest.raises(ValueError, match="has no rows"):
        pipelines.load(table.head(0), image_size=(8, 8))
    missing = table.assign(label=table["label"].cat.remove_categories("b"))
    with pytest.raises(ValueError, match="`label` is empty in 7 of 23 rows"):
        pipelines.load(missing, image_size=(8, 8))
    with pytest.raises(ValueError, match="`path` is empty in 1 of 23"):
        pipelines.load(table.assign(path=[None, *table["path"][1:]]), image_size=(8, 8))
    with pytest.raises(FileNotFoundError, match="None of the first 8 files exist, such as nowhere/"):
        pipelines.load(table.assign(path="nowhere/" + table["label"].astype(str)), image_size=(8, 8))


def test_only_datasets_of_load_can_be_steered(table):
    dataset = pipelines.load(table, image_size=(8, 8), batch_size=5)
    for ask in (pipelines.broken, pipelines.measure, lambda other: pipelines.set_epoch(other, 0)):
        with pytest.raises(TypeError, match=r"the dataset that `pipelines.load` returned, before any `.map`"):
            ask(dataset.take(1))
    with pytest.raises(ValueError, match="`epoch` must be a whole number"):
        pipelines.set_epoch(dataset, -1)
    for wrong in ({"epoch": 0, "step": 5}, {"epoch": -1, "step": 0}, {"epoch": 0, "step": -1}):
        with pytest.raises(ValueError, match="`step` must be from 0 to 4"):
            pipelines.rest(dataset, **wrong)


# Size


@pytest.mark.slow
def test_two_hundred_thousand_rows_start_at_once_and_stay_flat(table):
    import psutil

    large = pd.concat([table] * (200_000 // 23 + 1), ignore_index=True).head(200_000)
    start = time.perf_counter()
    dataset = pipelines.load(
        large, image_size=(16, 12), batch_size=64, training=True, augment=POLICY, seed=0, cache=False
    )
    batches = iter(dataset)
    next(batches)
    assert time.perf_counter() - start < 3
    assert len(dataset) == 3125
    for _ in range(200):
        next(batches)
    before = psutil.Process().memory_info().rss
    count = 64 * 201 + sum(len(images) for images, _ in batches)
    assert count == 200_000
    assert psutil.Process().memory_info().rss - before < 200 * 2**20


# The workshop behind the dataset, called without TensorFlow's threads


@pytest.mark.parametrize("kind", ["memory", "disk", False])
@pytest.mark.parametrize("policy", [None, POLICY, augment.Policy(flip="both"), augment.Policy(mixup=0.3, crop=0.5)])
def test_the_dataset_hands_on_what_the_feed_makes(with_broken, cache_folder, kind, policy):
    table, rows = with_broken
    dataset = pipelines.load(
        table, image_size=(16, 12), batch_size=2, training=True, augment=policy, seed=0, cache=kind, resize="pad"
    )
    expected = list(dataset.as_numpy_iterator())
    source = dataset._cnnlab_source
    assert sorted(source.broken) == rows
    source.broken.clear()
    for _ in range(2):
        for number, (pixels, labels) in enumerate(expected):
            found = source.make_batch(0, source.batch_rows(0, number))
            np.testing.assert_array_equal(found[0], pixels)
            np.testing.assert_array_equal(found[1], labels)
    assert sorted(source.broken) == rows
    for epoch in range(9):  # orders of old epochs are let go
        source.batch_rows(epoch, 0)
    assert len(source._orders) <= 4


def test_a_file_that_vanishes_is_a_broken_file(table, tmp_path):
    paths = table["path"].tolist()
    paths[5] = str(tmp_path)  # a folder
    source = pipelines.load(table.assign(path=paths), image_size=(8, 8))._cnnlab_source
    assert len(source.make_batch(0, source.batch_rows(0, 0))[0]) == 22
    assert "a folder" in source.broken[5].lower()


def test_cores_are_counted_without_affinity_too(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert available_cores() == os.cpu_count()


def test_floats_without_levels_are_never_judged_file_by_file(tmp_path):
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    for name, top in (("a", 1), ("b", 0.5), ("c", 1.003), ("d", 255), ("e", 0.9)):
        Image.fromarray(ramp * np.float32(top)).save(tmp_path / f"{name}.tif")
    table = pd.DataFrame({"path": [str(tmp_path / f"{name}.tif") for name in "abcde"], "label": list("xyxyx")})
    table["label"] = table["label"].astype("category")
    dataset = pipelines.load(table, image_size=(16, 16))
    brightest = [int(image.numpy().max()) for image in next(iter(dataset))[0]]
    assert brightest == [255, 128, 255, 230]  # one scale for all that was read
    broken = pipelines.broken(dataset)
    assert broken["path"].tolist() == [table["path"][3]]
    assert broken["problem"].str.contains(r"from 0 to 255, and nothing says which .* Pass `levels=\(low, high\)`").all()
    with pytest.raises(images.UnreadableImageError, match=r"d\.tif cannot be read: its numbers reach from 0 to 255"):
        images.prepare(table["path"][3], images.Preparation((16, 16)))
    by_levels = next(iter(pipelines.load(table, image_size=(16, 16), levels=(0, 255))))[0]
    assert [int(image.numpy().max()) for image in by_levels] == [1, 0, 1, 255, 1]


def test_whole_numbers_of_32_bits_without_levels_are_not_cut_off(tmp_path):
    numbers = np.linspace(-1000, 2539, 256).reshape(16, 16).astype(np.int32)
    Image.fromarray(numbers).save(tmp_path / "scan.tif")
    Image.fromarray(numbers + 1000).save(tmp_path / "from_0.tif")
    with pytest.raises(images.UnreadableImageError, match=r"from -1000 to 2539, and nothing says which"):
        images.prepare(tmp_path / "scan.tif", images.Preparation((16, 16)))
    by_levels = images.prepare(tmp_path / "scan.tif", images.Preparation((16, 16), levels=(-1000, 2539)))
    assert (by_levels.min(), by_levels.max()) == (0, 255)
    assert images.prepare(tmp_path / "from_0.tif", images.Preparation((16, 16))).max() == round(3539 / 257)


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_seeds_that_are_none_are_refused(table, seed):
    with pytest.raises(TypeError, match=r"`pipelines.load` expects a whole number from 0 as `seed`"):
        pipelines.load(table, image_size=(14, 14), training=True, seed=seed)


def test_large_seeds_are_seeds_of_their_own():
    codes = np.zeros(50, int)
    options = {"epoch": 0, "training": True, "balance": None, "shard": (0, 1)}
    orders = {tuple(order.epoch_rows(codes, seed=2**64 - 1 - number, **options)[:, 0]) for number in range(5)}
    assert len(orders) == 5


def test_classes_that_have_other_numbers_than_in_training_are_said(table):
    pipelines.load(table, image_size=(12, 7), training=True, seed=0)
    first, *others = table["label"].cat.categories
    fewer = table[table["label"] != first].assign(label=lambda rows: rows["label"].cat.remove_unused_categories())
    turned = table.assign(label=table["label"].cat.reorder_categories([*others, first]))
    for other in (fewer, turned):
        with pytest.warns(UserWarning, match="gives other numbers"):
            pipelines.load(other, image_size=(12, 7))
        back = other.assign(label=other["label"].cat.set_categories(table["label"].cat.categories))  # as it advises
        pipelines.load(back, image_size=(12, 7))
        pipelines.load(other, image_size=(7, 12))  # another size, another network

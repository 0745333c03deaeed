"""Fixtures that the whole suite shares: small, built once a session, seeded before every test."""

import gc
import os
import random
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("CNNLAB_QUIET", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    gc.disable()  # until everything is imported: `pytest_collection_finish`
    # A core for each worker and the processes it starts, not one for each thread.
    for _name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import numpy as np
import pytest

# Whole files go to the workers (`--dist loadfile`), in this order: the longest first, or a worker waits for the other.
LONGEST = (
    "test_notebooks_run", "test_resume", "test_grid_search", "test_training_tools", "test_cross_validate",
    "test_models_pretrained", "test_training_asked", "test_jax", "test_serving_decisions", "test_imbalance",
    "test_hostile_experiments", "test_hostile_commands", "test_features", "test_pipelines_memory",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Puts them first; within a file everything stays in its order."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_collection_finish():
    """What all tests share is no garbage: networks, each of which asks for a collection, need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _forked_kernels():
    """Notebooks start in kernels that have Keras already; those of tests that drive a browser or a command do not."""
    from jupyter_client.provisioning import local_provisioner
    from kernels import launch

    with pytest.MonkeyPatch.context() as patch:
        if hasattr(os, "fork") and "PYTEST_XDIST_WORKER" in os.environ:
            patch.setattr(local_provisioner, "launch_kernel", launch)
        yield


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (libraries under test draw from the global state)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)
    if "cnnlab.pipelines.loading" in sys.modules:
        sys.modules["cnnlab.pipelines.loading"]._trained.clear()  # no network of an earlier test is meant


@pytest.fixture
def eagerly():
    """TensorFlow without graphs: a few steps of a network cost less one by one than a graph for them."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(autouse=True)
def _nothing_outside(request, tmp_path_factory):
    """Fails a test of test_hostile*.py that changed files beside its own folders, in the repository or in the home."""
    if not request.path.name.startswith("test_hostile"):
        yield
        return
    here = tmp_path_factory.getbasetemp()  # every `tmp_path` is a folder in it
    for name in ("outside/mine.csv", "x/mine.csv", "mine.csv", "photos/a.jpg"):
        (here / "beside" / name).parent.mkdir(parents=True, exist_ok=True)
        if not (here / "beside" / name).exists():
            (here / "beside" / name).write_text("path,label\n")
    before = _outside(here)
    yield
    after = _outside(here)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    assert not changed, f"Changed while this test ran, and none of its files: {sorted(changed)}"


HOME_FILES = (".bashrc", ".bash_profile", ".profile", ".zshrc", ".gitconfig", ".netrc", ".npmrc")
ROOT = Path(__file__).resolve().parents[1]


def _outside(temporary):
    """Files that are nobody's to change, with size and time: those of the repository, of the home, and sentinels."""
    found = {}
    places = [ROOT / name for name in ("cnnlab", "tests", "notebooks", "docs", "benchmarks", ".github")]
    places = [str(place) for place in (*places, temporary / "beside") if place.is_dir()]
    while places:
        with os.scandir(places.pop()) as inside:
            for entry in inside:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith((".", "__", "runs")):
                        places.append(entry.path)
                        found[entry.path] = "folder"
                else:
                    found[entry.path] = _state(entry)
    # Of these, other programs may change what is deeper, and other tests make folders of their own.
    for place in (ROOT, Path.home(), temporary, temporary.parent):
        with os.scandir(place) as inside:
            names = (entry for entry in inside if not entry.name.startswith(".") or entry.name in HOME_FILES)
            found |= {entry.path: _state(entry) for entry in names if entry.is_file(follow_symlinks=False)}
    return found


def _state(entry):
    status = entry.stat(follow_symlinks=False)
    return status.st_size, status.st_mtime_ns


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and weights; absent outside the project's own machines."""
    folder = os.environ.get("CNNLAB_REAL_DATA")
    if not folder:
        if os.environ.get("CI"):
            pytest.fail("CNNLAB_REAL_DATA must be set in CI.")
        pytest.skip("set CNNLAB_REAL_DATA to the folder of real images to run this test")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The real digits as a split table."""
    from cnnlab import samples, tables

    folder = samples.digits(tmp_path_factory.mktemp("samples") / "digits")
    return tables.split(tables.from_folder(folder), val=0.15, test=0.15, seed=0)


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """A small split table of rendered parts, 32×32 pixels."""
    from cnnlab import samples, tables

    folder = samples.inspection(tmp_path_factory.mktemp("samples") / "parts", per_class=20, size=32, seed=0)
    return tables.split(tables.from_folder(folder), val=0.2, test=0.2, seed=0)


@pytest.fixture(scope="session")
def digits_model(digits):
    """A small network that has learned the digits."""
    import keras

    from cnnlab import models, pipelines, training

    keras.utils.set_random_seed(0)
    train = digits[digits["split"] == "train"]
    data = pipelines.load(train, image_size=(8, 8), training=True, seed=0)
    model = models.small_cnn(image_size=(8, 8), classes=digits["label"].cat.categories, filters=(16, 32))
    training.compile(model, learning_rate=training.one_cycle(0.01, steps=6 * len(data)))
    model.fit(data, epochs=6, verbose=0)
    return model

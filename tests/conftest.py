"""Fixtures that the whole suite shares: small, built once a session, seeded before every test."""

import os
import random
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("CNNLAB_QUIET", "1")

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (libraries under test draw from the global state)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


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
    """The real digits as a divided table."""
    from cnnlab import samples, tables

    folder = samples.digits(tmp_path_factory.mktemp("samples") / "digits")
    return tables.split(tables.from_folder(folder), val=0.15, test=0.15, seed=0)


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """A small divided table of rendered parts, 32×32 pixels."""
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

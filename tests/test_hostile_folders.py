"""Damaged folders of strangers, at random: the quick part of tests/fuzz/folders.py, which also says what is asked."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnlab.experiments.runner import Runner

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import folders as fuzz
from damage import snapshot

# KerasTuner asks threads for their names in the old way.
pytestmark = [
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(google|keras_tuner|tensorboard)"),
]
LINUX = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="measures memory by /proc")
CASES = {"export": 25, "table": 40, "decisions": 40, "run": 6, "search": 3, "validation": 3}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "train", fuzz.untrained)
        yield fuzz.Kinds(tmp_path_factory.mktemp("folders"), quick=True)


@pytest.mark.parametrize("name", CASES)
def test_damaged_folders_end_in_a_result_or_a_sentence(kinds, name):
    numbers = kinds.names.index(name) + len(kinds.names) * np.arange(CASES[name])
    rows = [fuzz.case(kinds, int(number), seed=0) for number in numbers]
    assert not [row for row in rows if row["wrong"]]


def test_whole_folders_open(kinds):
    before = snapshot(kinds.place / "whole")
    for name in ("export", "table", "decisions", "search", "validation"):
        kinds.open(name, kinds.place / "whole" / name, np.random.default_rng(6))
    assert snapshot(kinds.place / "whole").keys() == before.keys()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder, rng: {}["x"], "KeyError"),
        (lambda folder, rng: int("one two"), "invalid literal"),
        (lambda folder, rng: Path(folder / "none here").read_text(), "No such file"),
        (lambda folder, rng: (folder / "../outside/mine.csv").write_text("path\n"), "changed outside"),
        (lambda folder, rng: (folder / "../outside/empty").unlink(), "changed outside"),
        (lambda folder, rng: (folder / "../../new").touch(), "changed outside"),
        pytest.param(lambda folder, rng: np.ones(2**25).sum(), "took 2", marks=LINUX),  # 256 MB
    ],
)
def test_the_fuzz_finds_what_it_looks_for(kinds, monkeypatch, harm, words):
    monkeypatch.setattr(fuzz, "MEGABYTES", 128)  # a quick machine takes 2 GiB in a second, others in fifteen
    monkeypatch.setattr(kinds, "open", lambda name, folder, rng: harm(folder, rng))
    assert words in fuzz.case(kinds, 2, seed=0)["wrong"]
    (kinds.place / "new").unlink(missing_ok=True)


def test_only_what_a_case_takes_itself_is_counted():
    """In one process with other tests, which took more before, and may hold it still."""
    held = np.ones(2**24)
    np.ones(2**25).sum()
    with fuzz.Taken() as taken:
        assert held.sum() > 0
    assert taken.megabytes < 64

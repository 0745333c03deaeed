import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cnnlab import samples, tables
from cnnlab.samples import folder as folders


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def test_digits_are_scikit_learns_own(tmp_path):
    table = tables.from_folder(samples.digits(tmp_path / "digits"))
    data = load_digits()
    assert table["label"].value_counts().sort_index().tolist() == np.bincount(data.target).tolist()
    for row in table.sample(20, random_state=0).itertuples():
        index = int(Path(row.path).stem)
        np.testing.assert_array_equal(np.asarray(Image.open(row.path)), np.rint(data.images[index] * 255 / 16))
        assert row.label == str(data.target[index])


def test_the_same_seed_renders_the_same_parts(tmp_path):
    first, again, other = (
        bytes_of(samples.inspection(tmp_path / name, per_class=3, size=32, seed=seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert first.keys() & other.keys() and first != other


def test_metadata_becomes_columns(tmp_path):
    table = tables.from_folder(samples.inspection(tmp_path / "parts", per_class=5, size=32))
    assert set(table["camera"]) <= {"north", "south", "west"}
    assert set(table["shift"]) == {"day", "night"}
    assert table["label"].cat.categories.tolist() == ["crack", "good", "inclusion", "pit", "scratch", "stain"]


def test_imbalance_is_as_asked(tmp_path):
    table = tables.from_folder(samples.inspection(tmp_path / "parts", per_class=50, imbalance=25, size=32))
    assert table["label"].value_counts().to_dict() == {"good": 50} | dict.fromkeys(
        ["crack", "inclusion", "pit", "scratch", "stain"], 2
    )


def test_planted_problems_are_the_truth(tmp_path):
    plant = {"wrong_labels": 0.1, "broken": 0.1, "copies": 0.1, "near_copies": 0.1}
    folder = samples.inspection(tmp_path / "parts", per_class=20, size=32, plant=plant, seed=3)
    table = tables.from_folder(folder).merge(samples.truth(folder), on="path", validate="one_to_one")
    counts = table["planted"].value_counts()
    for planted in ("wrong label", "broken", "copy", "near copy"):
        assert counts[planted] == pytest.approx(0.1 * len(table), abs=1), planted
    wrong = table["label"].astype(str) != table["true_label"]
    assert (wrong == (table["planted"] == "wrong label")).all()
    for path in table.loc[table["planted"] == "broken", "path"]:
        with pytest.raises((OSError, SyntaxError)):
            Image.open(path).load()
    for _, group in table[table["planted"].isin(["", "copy"])].groupby("picture"):
        assert len({Path(path).read_bytes() for path in group["path"]}) == 1
    near = table[table["planted"] == "near copy"].iloc[0]
    original = table[(table["picture"] == near["picture"]) & (table["planted"] == "")].iloc[0]
    assert Path(near["path"]).read_bytes() != Path(original["path"]).read_bytes()


def test_a_hard_camera_hides_its_defects_only(tmp_path):
    easy = samples.inspection(tmp_path / "easy", per_class=6, size=32, seed=0)
    hard = samples.inspection(tmp_path / "hard", per_class=6, size=32, plant={"hard_camera": 1.0}, seed=0)
    table = tables.from_folder(easy)
    for row in table.itertuples():
        same = Path(row.path).read_bytes() == Path(row.path.replace("/easy/", "/hard/")).read_bytes()
        assert same == (row.camera != "west" or row.label == "good")
    assert hard.name == "hard"


def test_an_interrupted_run_is_continued(tmp_path, monkeypatch):
    whole = bytes_of(samples.inspection(tmp_path / "whole", per_class=3, size=32))
    real, written = folders.atomic_path, []

    def full_disk(path):
        if len(written) >= 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return real(path)

    monkeypatch.setattr(folders, "atomic_path", full_disk)
    with pytest.raises(OSError, match=r"stopped half-way.*run the same call again"):
        samples.inspection(tmp_path / "cut", per_class=3, size=32)
    monkeypatch.setattr(folders, "atomic_path", real)
    assert 0 < len(bytes_of(tmp_path / "cut")) < len(whole)
    assert bytes_of(samples.inspection(tmp_path / "cut", per_class=3, size=32)) == whole


def test_a_killed_run_leaves_no_half_file(tmp_path):
    code = f"from cnnlab import samples; samples.digits({str(tmp_path / 'digits')!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    while len(list(tmp_path.rglob("*.png"))) < 20:
        assert process.poll() is None
    process.kill()
    process.wait()
    table = tables.from_folder(samples.digits(tmp_path / "digits"))
    assert len(table) == 1797
    found = {name: data for name, data in bytes_of(tmp_path / "digits").items() if "/." not in name}
    assert found == bytes_of(samples.digits(tmp_path / "again"))  # but for a hidden temporary file


def test_nothing_of_the_persons_is_touched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(FileExistsError, match="nothing of yours is mixed"):
        samples.digits(tmp_path / "mine")
    with pytest.raises(NotADirectoryError, match="Received a file"):
        samples.digits(tmp_path / "mine" / "letter.txt")
    assert bytes_of(tmp_path / "mine") == {"letter.txt": b"dear"}
    samples.inspection(tmp_path / "parts", per_class=1, size=32, seed=0)
    with pytest.raises(FileExistsError, match=r"other arguments \(seed=0\)"):
        samples.inspection(tmp_path / "parts", per_class=1, size=32, seed=1)


def test_a_damaged_note_is_no_folder_of_ours(tmp_path):
    samples.digits(tmp_path / "digits")
    (tmp_path / "digits" / folders.RECIPE).write_text("{")
    with pytest.raises(FileExistsError):
        samples.digits(tmp_path / "digits")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"per_class": 0}, "per_class=0"),
        ({"size": 31}, "size=31"),
        ({"imbalance": 0.5}, "imbalance=0.5"),
        ({"plant": {"wrong_label": 0.1}}, "'wrong_label'"),
        ({"plant": {"broken": 0.6}}, "from 0 to 0.5"),
        ({"plant": {"hard_camera": 1.1}}, "from 0 to 1.0"),
        ({"plant": {"broken": None}}, "from 0 to 0.5. Received: None"),
        ({"plant": {"hard_camera": True}}, "from 0 to 1.0. Received: True"),
    ],
)
def test_impossible_parts_are_refused(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        samples.inspection(tmp_path / "parts", **arguments)
    assert not (tmp_path / "parts").exists()


def test_truth_is_told_of_our_folders_only(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"samples\.inspection"):
        samples.truth(tmp_path)


def test_a_file_mode_follows_the_umask(tmp_path):
    folder = samples.inspection(tmp_path / "parts", per_class=1, size=32)
    old = os.umask(0)
    os.umask(old)
    assert (folder / "metadata.csv").stat().st_mode & 0o777 == 0o666 & ~old
    assert json.loads((folder / folders.RECIPE).read_text())["complete"] is True


def test_truth_joins_to_the_table(tmp_path):
    folder = samples.inspection(tmp_path / "parts", per_class=2, size=32)
    truth = samples.truth(folder)
    assert isinstance(truth, pd.DataFrame)
    assert set(truth["path"]) == set(tables.from_folder(folder)["path"])

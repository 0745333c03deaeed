"""samples.from_tfds on sets that are really prepared on disk, and what it says when something is missing."""

import errno
import importlib.resources.abc
import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlab import samples, tables
from cnnlab.samples import folder as folders

from cnnlab import _quiet  # noqa: F401  isort: skip
import tensorflow_datasets as tfds

sys.modules.setdefault("importlib_resources", importlib.resources)  # as in `samples.from_tfds`: TFDS forgets it


def bytes_of(folder, pattern="*/*"):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).glob(pattern)) if p.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A small set, prepared by TFDS itself: a data_dir, and the encoded bytes that went in, by class."""
    root = tmp_path_factory.mktemp("tfds")
    rng = np.random.default_rng(0)
    names, rows = ["cat", "wild/dog"], {"train": [], "test": []}
    for number in range(14):
        kind = "png" if number % 3 else "jpg"
        path = root / f"{number}.{kind}"
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(path)
        rows["train" if number < 10 else "test"].append({"image": str(path), "label": names[number % 2]})
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=names)}
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="little",
        version="1.2.0",
        features=features,
        split_datasets={part: list(enumerate(chosen)) for part, chosen in rows.items()},
        data_dir=root / "data",
        description="A little set.",
        citation="@misc{little}",
        homepage="https://example.org",
        disable_shuffling=True,
    )
    given = {
        part: {name: {Path(row["image"]).read_bytes() for row in chosen if row["label"] == name} for name in names}
        for part, chosen in rows.items()
    }
    return root / "data", given


def test_the_stored_bytes_become_files(prepared, tmp_path):
    data_dir, given = prepared
    folder = samples.from_tfds("little", tmp_path / "out", data_dir=data_dir)
    for name, safe in (("cat", "cat"), ("wild/dog", "wild_dog")):
        assert set(bytes_of(folder / safe, "*").values()) == given["train"][name]
    assert {path.suffix for path in folder.glob("*/*")} == {".png", ".jpg"}
    for path in folder.glob("*/*"):
        with Image.open(path) as image:
            assert image.format == {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    table = tables.from_folder(folder)
    assert table["label"].value_counts().to_dict() == {"cat": 5, "wild_dog": 5}


def test_licence_and_citation_stand_beside_them(prepared, tmp_path):
    folder = samples.from_tfds("little", tmp_path / "out", data_dir=prepared[0])
    about = (folder / "ABOUT.txt").read_text()
    for words in ("little/1.2.0", "A little set.", "https://example.org", "Licence: ", "@misc{little}"):
        assert words in about


def test_several_splits_are_ready_made_splits(prepared, tmp_path):
    data_dir, given = prepared
    folder = samples.from_tfds("little", tmp_path / "out", split=["train", "test"], data_dir=data_dir)
    table = tables.from_folder(folder)
    assert table["split"].value_counts().to_dict() == {"train": 10, "test": 4}
    assert set(bytes_of(folder / "test" / "cat", "*").values()) == given["test"]["cat"]


def test_a_full_disk_is_one_sentence_and_the_next_run_continues(prepared, tmp_path, monkeypatch):
    data_dir, _ = prepared
    whole = bytes_of(samples.from_tfds("little", tmp_path / "whole", data_dir=data_dir))
    real, written = folders.atomic_path, []

    def full_disk(path):
        if len(written) >= 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return real(path)

    monkeypatch.setattr(folders, "atomic_path", full_disk)
    with pytest.raises(OSError, match=r"stopped half-way \(No space left on device\).*run the same call again"):
        samples.from_tfds("little", tmp_path / "cut", data_dir=data_dir)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*/*")}
    assert 0 < len(before) < len(whole)
    monkeypatch.setattr(folders, "atomic_path", real)
    folder = samples.from_tfds("little", tmp_path / "cut", data_dir=data_dir)
    assert bytes_of(folder) == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before  # what was there is not written again
    assert json.loads((folder / folders.RECIPE).read_text())["complete"]


def test_a_complete_folder_is_returned_at_once(prepared, tmp_path, monkeypatch):
    folder = samples.from_tfds("little", tmp_path / "out", data_dir=prepared[0])
    monkeypatch.setattr("cnnlab.samples.tfds._files", lambda *arguments: pytest.fail("written again"))
    assert samples.from_tfds("little", tmp_path / "out", data_dir=prepared[0]) == folder
    with pytest.raises(FileExistsError, match=r"other arguments \(splits=\['train'\]\)"):
        samples.from_tfds("little", tmp_path / "out", split="test", data_dir=prepared[0])


def test_an_unknown_name_brings_the_nearest_ones(tmp_path):
    with pytest.raises(ValueError, match=r"Received: 'tf_flower'. Did you mean 'tf_flowers'"):
        samples.from_tfds("tf_flower", tmp_path / "out", data_dir=tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'little'"):
        data = tmp_path / "data"
        (data / "little").mkdir(parents=True)
        samples.from_tfds("litle", tmp_path / "out", data_dir=data)
    with pytest.raises(ValueError, match="catalog"):
        samples.from_tfds("xqzjwv", tmp_path / "out", data_dir=tmp_path)
    assert not (tmp_path / "out").exists()


def test_an_unknown_split_names_those_there_are(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"train, test\. Received: 'dev'"):
        samples.from_tfds("little", tmp_path / "out", split="dev", data_dir=prepared[0])
    samples.from_tfds("little", tmp_path / "out", split="train[:50%]", data_dir=prepared[0])
    assert len(bytes_of(tmp_path / "out")) == 5


def test_without_network_one_sentence_says_so(tmp_path, monkeypatch):
    def refused(*arguments, **options):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refused)
    with pytest.raises(ConnectionError) as caught:
        samples.from_tfds("tf_flowers", tmp_path / "out", data_dir=tmp_path / "none")
    words = str(caught.value)
    assert words.startswith("'tf_flowers' is not prepared on this machine and could not be downloaded")
    assert "data_dir=" in words and "\n" not in words and len(words) < 500
    samples.digits(tmp_path / "other")  # nothing is locked or left open


def test_a_set_without_class_labels_is_refused(tmp_path):
    features = tfds.features.FeaturesDict({"image": tfds.features.Image(), "size": tfds.features.Scalar(np.int32)})
    Image.new("RGB", (4, 4)).save(tmp_path / "1.png")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="unlabelled",
        version="1.0.0",
        features=features,
        split_datasets={"train": [(0, {"image": str(tmp_path / "1.png"), "size": 4})]},
        data_dir=tmp_path / "data",
    )
    with pytest.raises(ValueError, match=r"has the features (image, size|size, image)"):
        samples.from_tfds("unlabelled", tmp_path / "out", data_dir=tmp_path / "data")


def test_clothing_as_an_image_folder_comes_back_byte_by_byte(real_data, tmp_path):
    source = tmp_path / "source"
    for part in ("train", "test"):
        for path in sorted((real_data / "clothing" / part).glob("*/*.jpg"))[::40]:
            (source / part / path.parent.name).mkdir(parents=True, exist_ok=True)
            (source / part / path.parent.name / path.name).write_bytes(path.read_bytes())
    builder = tfds.folder_dataset.ImageFolder(str(source))
    rows = {
        part: [{"image": str(example.image_path), "label": example.label} for example in builder._split_examples[part]]
        for part in ("train", "test")
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="clothes",
        version="1.0.0",
        features=tfds.features.FeaturesDict({key: builder.info.features[key] for key in ("image", "label")}),
        split_datasets={part: list(enumerate(chosen)) for part, chosen in rows.items()},
        data_dir=tmp_path / "data",
    )
    folder = samples.from_tfds("clothes", tmp_path / "out", split=["train", "test"], data_dir=tmp_path / "data")
    for part in ("train", "test"):
        for name in {path.parent.name for path in (source / part).glob("*/*")}:
            expected = sorted(bytes_of(source / part / name, "*").values())
            assert sorted(bytes_of(folder / part / name, "*").values()) == expected


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (["train[:60%]", "test[:2]"], {"train": 6, "test": 2}),
        ({"train": "train[:80%]", "val": "train[80%:]", "test": "test"}, {"train": 8, "test": 4, "val": 2}),
    ],
)
def test_slices_of_splits_are_ready_made_splits(prepared, tmp_path, split, expected):
    folder = samples.from_tfds("little", tmp_path / "out", split=split, data_dir=prepared[0])
    table = tables.from_folder(folder)
    assert table["split"].value_counts().to_dict() == expected
    assert table["label"].cat.categories.tolist() == ["cat", "wild_dog"]
    assert samples.from_tfds("little", folder, split=split, data_dir=prepared[0]) == folder


@pytest.mark.parametrize("split", [["train[:80%]", "train[80%:]"], ["train", "corrupted"], {"training": "train"}])
def test_splits_that_could_be_either_are_refused(prepared, tmp_path, split):
    with pytest.raises(ValueError, match="Say which is which"):
        samples.from_tfds("little", tmp_path / "out", split=split, data_dir=prepared[0])
    assert not (tmp_path / "out").exists()


def test_class_names_that_are_one_folder_elsewhere_get_numbers():
    from cnnlab.samples.tfds import _folder_names

    assert _folder_names(["Cat", "cat", "..", "a/b"]) == ["Cat_0", "cat_1", "_", "a_b"]

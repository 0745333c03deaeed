"""The template on folders as people have them: each ends with a report, or with one clear sentence."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlab import tables
from cnnlab.__main__ import main

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "12_your_own_images.ipynb"
QUICK = ("epochs=1", "least_steps=4", "image_size=24", 'network=""')


def report(data, folder, *values):
    settings = [part for value in (*QUICK, *values) for part in ("--set", value)]
    return main(["report", str(NOTEBOOK), "--data", str(data), "--folder", str(folder), *settings])


def page_of(folder):
    """The report, after what holds for every one."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"Traceback|Warning:|<script", page)
    cells = json.loads((folder / "report.ipynb").read_text(encoding="utf-8"))["cells"]
    assert "stderr" not in {output.get("name") for cell in cells for output in cell.get("outputs", [])}
    assert "Test accuracy" in page
    assert (folder / "export" / "model.tflite").is_file()
    assert (folder / "export" / "README.md").read_text(encoding="utf-8").startswith("# Model card")
    return page


def write(folder, count, color, *, size=(28, 36), mode="RGB", copies=False):
    """Images of one colour with a pattern of their own each."""
    folder.mkdir(parents=True)
    for number in range(count):
        generator = np.random.default_rng([*color, 0 if copies else number])
        coarse = generator.normal(color, 40, (*(side // 4 for side in size), 3)).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        image.convert(mode).save(folder / f"photo {number}.png")


@pytest.mark.notebooks
def test_a_folder_with_cameras_and_a_class_too_small(tmp_path, capfd):
    data = tmp_path / "data"
    write(data / "<b>red & hot", 40, (200, 40, 40))
    write(data / "blue", 12, (40, 40, 200))
    write(data / "two only", 2, (40, 200, 40))
    rows = [f"{path.relative_to(data)},{'north' if index % 3 else 'south'}" for index, path in
            enumerate(sorted(data.rglob("*.png")))]  # fmt: skip
    (data / "metadata.csv").write_text("\n".join(["file_name,camera", *rows]))
    assert report(data, tmp_path / "run", "least_steps=12") == 0, capfd.readouterr().err
    page = page_of(tmp_path / "run")
    assert "1 class left out" in page
    assert "two only" in page
    assert "Accuracy is lowest for" in page
    assert "Groups with fewer than 30 images" in page
    assert "<b>red" not in page
    assert "&lt;b&gt;red" in page


def test_a_folder_of_copies_is_one_sentence(tmp_path, capfd):
    for name, color in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        write(tmp_path / "data" / name, 6, color, copies=True)
    assert report(tmp_path / "data", tmp_path / "run") == 1
    error = capfd.readouterr().err.strip()
    assert "most are copies of each other" in error
    assert len(error.splitlines()) == 1


# Real images, with small settings.


def signs(real_data, target, sizes, *, mode="RGB", turns=(0,)):
    """Hand signs as a folder of its own: `sizes` images of each class and turn."""
    classes = [(name, turn) for turn in turns for name in "0123456789"]
    for (name, turn), count in zip(classes, sizes, strict=False):
        folder = target / f"{name} turned {turn}"
        folder.mkdir(parents=True)
        for path in sorted((real_data / "sign_digits" / name).iterdir())[:count]:
            image = Image.open(path).convert(mode).resize((100, 100)).rotate(turn)
            image.save(folder / f"{path.stem}.png")
    return target


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["trash", "clothing", "sign_digits"])
def test_real_folders_from_a_pretrained_network(name, real_data, tmp_path, capfd):
    options = ("network=EfficientNetLite0", "network_size=64", "tune_epochs=1")
    status = report(real_data / name, tmp_path / "run", *options)
    assert status == 0, capfd.readouterr().err
    page = page_of(tmp_path / "run")
    assert "EfficientNetLite0, frozen" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["grey", "two classes", "40 images", "30 classes, 1:100"])
def test_folders_of_awkward_kinds(kind, real_data, tmp_path, capfd):
    target = tmp_path / "data"
    sizes = {"grey": [20] * 10, "two classes": [60, 60], "40 images": [10] * 4}.get(kind)
    if sizes is None:
        sizes, turns = np.round(np.geomspace(200, 2, 30)).astype(int).tolist(), (0, 90, 180)
    else:
        turns = (0,)
    signs(real_data, target, sizes, mode="L" if kind == "grey" else "RGB", turns=turns)
    assert len(tables.from_folder(target)) == sum(sizes)
    assert report(target, tmp_path / "run") == 0, capfd.readouterr().err
    page = page_of(tmp_path / "run")
    if kind == "30 classes, 1:100":
        assert "Rare classes are shown more often" in page
        assert "2 classes left out" in page
    if kind == "40 images":
        assert "The interval is wide" in page


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ready_made_parts_with_leaks(real_data, tmp_path, capfd):
    whole = signs(real_data, tmp_path / "all", [30] * 3)
    for number, path in enumerate(sorted(whole.rglob("*.png"))):
        part = ("train", "train", "train", "Test")[number % 4]
        target = tmp_path / "data" / part / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    tested = sorted((tmp_path / "data" / "Test").rglob("*.png"))
    for path in tested[:4]:
        shutil.copy(path, tmp_path / "data" / "train" / path.parent.name / f"again_{path.name}")
    assert report(tmp_path / "data", tmp_path / "run") == 0, capfd.readouterr().err
    assert "4 training images left out" in page_of(tmp_path / "run")

"""The main job on small and on difficult folders, as the command line runs it."""

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlab.__main__ import main

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "00_quickstart.ipynb"
QUICK = ["--set", "epochs=1", "--set", "image_size=24", "--set", "pretrained="]


def run(data, folder):
    arguments = ["report", str(NOTEBOOK), "--folder", str(folder), *QUICK]
    return main([*arguments, *(["--data", str(data)] if data else [])])


def write_images(folder, count, *, color, mode="RGB"):
    rng = np.random.default_rng(sum(color))
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = np.clip(rng.normal(color, 30, (30, 40, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"im, age '{index}' \"é猫\" $x$.png")


def bomb(path):
    """A PNG of a few hundred bytes that claims 30,000 × 30,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.fixture(scope="module")
def difficult(tmp_path_factory):
    """Names of every kind, grey and transparent images, broken files, a loop of links, an enormous image."""
    data = tmp_path_factory.mktemp("difficult") / 'my, "data" \'é'
    write_images(data / "<script>alert(1)<" / "deep", 20, color=(200, 40, 40))
    write_images(data / "two\nlines", 20, color=(40, 200, 40), mode="L")
    write_images(data / "猫, a 'b' \"c\"", 20, color=(40, 40, 200), mode="RGBA")
    first = data / "two\nlines"
    (first / "empty.jpg").write_bytes(b"")
    (first / "text.png").write_text("no image")
    whole = next(first.glob("im*.png")).read_bytes()
    (first / "cut.png").write_bytes(whole[: len(whole) // 2])
    (first / "notes.txt").write_text("kept")
    (first / "again").symlink_to(data)
    bomb(first / "bomb.png")
    return data


@pytest.mark.notebooks
def test_a_difficult_folder_ends_with_a_report(difficult, tmp_path, capfd):
    before = {path: path.stat().st_mtime_ns for path in sorted(difficult.rglob("*")) if path.is_file()}
    assert run(difficult, tmp_path / "run") == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "4 of 64 images left out" in page
    for name in ("empty.jpg", "text.png", "cut.png", "bomb.png"):
        assert name in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"Traceback|Warning:", page)
    cells = json.loads((tmp_path / "run" / "report.ipynb").read_text())["cells"]
    assert "stderr" not in {output.get("name") for cell in cells for output in cell.get("outputs", [])}
    assert "notes.txt" in page
    assert (tmp_path / "run" / "export" / "model.tflite").exists()
    assert {path: path.stat().st_mtime_ns for path in sorted(difficult.rglob("*")) if path.is_file()} == before


def test_one_image_in_a_class_is_one_sentence(tmp_path, capfd):
    write_images(tmp_path / "data" / "many", 10, color=(200, 40, 40))
    write_images(tmp_path / "data" / "one", 1, color=(40, 40, 200))
    assert run(tmp_path / "data", tmp_path / "run") == 1
    error = capfd.readouterr().err.strip()
    assert "'one' has 1" in error
    assert len(error.splitlines()) == 1


def test_only_broken_images_are_one_sentence(tmp_path, capfd):
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(5):
            (tmp_path / "data" / label / f"{index}.jpg").write_text("no image")
    assert run(tmp_path / "data", tmp_path / "run") == 1
    error = capfd.readouterr().err.strip()
    assert "two classes with 3 readable images each" in error
    assert len(error.splitlines()) == 1

"""Thumbnails for the browser: small, kept, true to small images, and grey with a reason where a file is broken."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from cnnlab.widgets import thumbnails as room
from cnnlab.widgets.thumbnails import thumbnails


def pixels(thumbnail):
    return cv2.imdecode(np.frombuffer(thumbnail.data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def test_thumbnails_are_small_and_tiny_images_exact(tmp_path):
    rng = np.random.default_rng(0)
    tiny, large = rng.integers(0, 256, (8, 10, 3), np.uint8), np.full((300, 900, 3), (200, 30, 90), np.uint8)
    for name, values in (("tiny.png", tiny), ("large.png", large)):
        Image.fromarray(values).save(tmp_path / name)
    first, second = thumbnails([tmp_path / "tiny.png", str(tmp_path / "large.png")], 240)
    np.testing.assert_array_equal(pixels(first), tiny)
    assert pixels(second).shape == (80, 240, 3)
    np.testing.assert_allclose(pixels(second).mean((0, 1)), (200, 30, 90), atol=3)
    assert (first.problem, second.problem) == ("", "")


@pytest.mark.parametrize("kind", ["gone", "no image", "a folder", "a pipe"])
def test_a_broken_file_is_grey_and_says_why(tmp_path, kind):
    path = tmp_path / "1.png"
    if kind == "no image":
        path.write_bytes(b"no image")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    (found,) = thumbnails([path])
    assert found.problem and "\n" not in found.problem
    assert np.ptp(pixels(found)) == 0


def test_thumbnails_are_kept_until_the_file_changes_and_never_more_than_fit(tmp_path):
    path = tmp_path / "1.png"
    Image.new("RGB", (9, 9), "red").save(path)
    (first,), (again,) = thumbnails([path]), thumbnails([path])
    assert first.data is again.data
    Image.new("RGB", (9, 12), "blue").save(path)
    assert pixels(thumbnails([path])[0])[0, 0].tolist() == [0, 0, 255]
    thumbnails([path.with_name(str(number)) for number in range(2 * room.KEPT)])
    assert room._kept.cache_info().currsize == room.KEPT


def test_deep_images_are_shown_by_levels(tmp_path):
    Image.fromarray(np.full((80, 80), 2000, np.uint16)).save(tmp_path / "1.png")
    assert pixels(thumbnails([tmp_path / "1.png"], levels=(0, 4000))[0]).mean() == pytest.approx(127.5, abs=1)

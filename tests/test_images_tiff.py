"""TIFF and PFM files as microscopes, satellites and scanners write them: read as meant, or refused in words."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from cnnlab import images

RNG = np.random.default_rng(7)
COLOURS = RNG.integers(0, 256, (6, 9, 3)).astype(np.uint16) * 257
GREY = RNG.integers(0, 65536, (6, 9)).astype(np.uint16)
TYPES = {"u": 1, "i": 2, "f": 3}


def tiff_of(values, *, photometric, planar=1, extra=None, orientation=1):
    """A TIFF without compression, by the specification (TIFF 6.0); planes of shape (channels, height, width)."""
    samples = 1 if values.ndim == 2 else values.shape[0 if planar == 2 else 2]
    height, width = values.shape[-2:] if planar == 2 else values.shape[:2]
    data, bits = values.tobytes(), 8 * values.itemsize
    tags = {
        256: [width], 257: [height], 258: [bits] * samples, 259: [1], 262: [photometric], 273: [8], 274: [orientation],
        277: [samples], 278: [height], 279: [len(data)], 284: [planar], 339: [TYPES[values.dtype.kind]] * samples,
    }  # fmt: skip
    if planar == 2:
        plane = len(data) // samples
        tags |= {273: [8 + number * plane for number in range(samples)], 279: [plane] * samples}
    if extra is not None:
        tags[338] = [extra]
    start = 8 + len(data)
    after, beyond, entries = start + 2 + 12 * len(tags) + 4, b"", b""
    for tag, numbers in sorted(tags.items()):
        kind = "I" if tag in (273, 279) else "H"
        body = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        if len(body) > 4:
            body, beyond = struct.pack("<I", after + len(beyond)), beyond + body
        entries += struct.pack("<HHI", tag, 4 if kind == "I" else 3, len(numbers)) + body.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", start) + data + struct.pack("<H", len(tags)) + entries + bytes(4) + beyond


def shown(values):
    """16 bits as 0-255."""
    return values.astype(np.float64) / 257


def test_a_fourth_channel_that_is_no_transparency_is_left_out():
    infrared = np.dstack([COLOURS, np.full((6, 9), 3000, np.uint16)])
    np.testing.assert_allclose(images.read(tiff_of(infrared, photometric=2, extra=0)), shown(COLOURS), atol=0.01)


@pytest.mark.parametrize("extra", [1, 2])
def test_transparency_of_16_bits_lies_on_white_multiplied_before_or_not(extra):
    alpha = np.full((6, 9, 1), 20000, np.uint16)
    share = alpha / 65535
    stored = np.rint(COLOURS * share).astype(np.uint16) if extra == 1 else COLOURS
    found = images.read(tiff_of(np.dstack([stored, alpha]), photometric=2, extra=extra))
    np.testing.assert_allclose(found, shown(COLOURS) * share + 255 * (1 - share), atol=0.01)


def test_one_colour_after_the_other_is_refused_with_16_bits_and_read_with_8(tmp_path):
    path = tmp_path / "planes.tif"
    path.write_bytes(tiff_of(np.ascontiguousarray(COLOURS.transpose(2, 0, 1)), photometric=2, planar=2))
    with Image.open(path) as opened:
        for source in (path, opened, path.read_bytes()):
            with pytest.raises(images.UnreadableImageError, match=r"one colour stored after the other. Save it with"):
                images.read(source)
    small = (COLOURS // 257).astype(np.uint8)
    found = images.read(tiff_of(np.ascontiguousarray(small.transpose(2, 0, 1)), photometric=2, planar=2))
    np.testing.assert_array_equal(found, small)


def test_numbers_of_which_0_is_white_are_turned_round():
    found = images.read(tiff_of(GREY, photometric=0))
    np.testing.assert_allclose(found[..., 0], 255 - shown(GREY), atol=0.01)
    np.testing.assert_allclose(images.read(tiff_of(GREY, photometric=1))[..., 0], shown(GREY), atol=0.01)


@pytest.mark.parametrize("values", [GREY, (GREY >> 8).astype(np.uint8)], ids=["16 bits", "8 bits"])
def test_an_image_opened_from_a_path_is_turned_as_its_file_is(tmp_path, values):
    path = tmp_path / "turned.tif"
    path.write_bytes(tiff_of(values, photometric=1, orientation=6))
    upright = np.rot90(shown(values) if values.dtype == np.uint16 else values, -1)
    with Image.open(path) as opened, Image.open(io.BytesIO(path.read_bytes())) as in_memory:
        for source in (path, path.read_bytes(), opened, in_memory):
            np.testing.assert_allclose(images.read(source)[..., 0], upright, atol=0.01)


@pytest.mark.parametrize(
    "values", [GREY / 65535, np.dstack([GREY] * 13), (COLOURS / 65535).astype(np.float32)], ids=["64", "13", "floats"]
)
def test_kinds_that_cannot_be_read_are_refused_in_words(values):
    with pytest.raises(images.UnreadableImageError, match=r"a kind of TIFF that cannot be read here.*Save it as grey"):
        images.read(tiff_of(values, photometric=1 if values.ndim == 2 or values.shape[2] > 3 else 2))


def test_a_float_map_keeps_its_numbers():
    values = np.linspace(0, 1, 54, dtype="<f4").reshape(6, 9)
    found = images.read(b"Pf\n9 6\n-1.0\n" + values[::-1].tobytes())
    np.testing.assert_allclose(found[..., 0], values * 255, atol=0.01)


def test_bytes_of_a_path_are_refused_in_words():
    with pytest.raises(
        images.UnreadableImageError, match=r"these bytes look like a path\. Pass it as text: os\.fsdecode"
    ):
        images.read(b"/photos/1.PNG")

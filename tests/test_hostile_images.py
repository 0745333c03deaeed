"""Files that only claim to be images: none is opened that blocks, runs a program, or takes memory or minutes."""

import contextlib
import io
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import EpsImagePlugin, Image

from cnnlab import audit, images
from cnnlab.images import decoding, limits
from cnnlab.images.files import Budget
from cnnlab.plots.style import thumbnail

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import images as fuzz

Refusal = images.UnreadableImageError


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def refused(path, words):
    """Decoder, plots and audit refuse it alike, at once."""
    began = time.monotonic()
    with pytest.raises(Refusal, match=words):
        images.read(path)
    with pytest.raises(Refusal, match=words):
        images.prepare(path, images.Preparation((8, 8)))
    assert (thumbnail(str(path), 16) == 200).all()
    assert words in audit.scan(pd.DataFrame({"path": [str(path)]}))["problem"].iloc[0]
    assert time.monotonic() - began < 5


def test_pipes_sockets_devices_and_folders_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket.jpg"))
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "socket.jpg", "zero.jpg", "folder.jpg"):
        refused(tmp_path / name, "not a file")
    server.close()


def test_a_file_of_200_gigabytes_of_nothing_is_not_read(tmp_path):
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(200 * 2**30)
    refused(tmp_path / "sparse.jpg", "too large: 204,800 MB")


def test_postscript_starts_no_program(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    (tmp_path / "photo.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    refused(tmp_path / "photo.jpg", "not an image: a PostScript document")


@pytest.mark.parametrize("ending", ["pcx", "tga", "ico", "psd", "fits", "dds"])
def test_formats_that_are_not_named_are_refused(tmp_path, ending):
    path = tmp_path / f"photo.{ending}"
    if ending in ("psd", "fits"):
        path.write_bytes({"psd": b"8BPS\0\1", "fits": b"SIMPLE  ="}[ending] + bytes(4000))
    else:
        Image.new("RGB", (16, 16)).save(path)
    refused(path, "not an image")


def test_a_jpeg_of_2000_scans_is_refused(tmp_path):
    noise = Image.effect_noise((64, 64), 60).convert("RGB")
    data = encoded(noise, "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    (tmp_path / "scans.jpg").write_bytes(data[:at] + data[at:-2] * 2000 + data[-2:])
    refused(tmp_path / "scans.jpg", "scans, which would take very long")


def test_few_scans_of_a_huge_picture_are_refused_too():
    data = bytearray(encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True))
    at = data.index(b"\xff\xc2")
    data[at + 5 : at + 9] = struct.pack(">HH", 9000, 9000)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(Refusal, match="more than 24 scans"):
        images.read(bytes(data[:last] + data[last:-2] * 30 + data[-2:]))


def webp_of(width, height):
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + (60).to_bytes(4, "little") + b"WEBPVP8X" + (10).to_bytes(4, "little") + bytes(4) + size + bytes(60)


def jp2_with(data, **changes):
    """A JPEG 2000 file whose codestream says otherwise."""
    data = bytearray(data)
    at = data.index(b"\xff\x4f\xff\x51") + 8
    for place, value in changes.values():
        data[at + place : at + place + 4] = struct.pack(">I", value)
    return bytes(data)


def test_small_files_that_claim_much_are_refused_by_their_headers():
    flat = encoded(Image.new("RGB", (64, 64)), "JPEG2000")
    for data in (
        webp_of(12_000, 12_000),
        jp2_with(flat, across=(16, 1), down=(20, 1)),
        jp2_with(flat, width=(0, 30_000), height=(4, 30_000)),
        png_claiming(13_000, 13_000),
    ):
        assert len(data) < 2000
        with pytest.raises(Refusal, match=r"too large|damaged"):
            images.read(data)


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")
def test_decoders_take_no_more_memory_than_they_are_counted_with():
    """So the budget holds; measured in a process of its own, for a picture of 9 megapixels."""
    code = """
import sys
sys.path[:0] = sys.argv[1:]
import images as fuzz
from PIL import Image
from cnnlab import images
from cnnlab.images.limits import BYTES
whole = Image.new("RGBA", (3000, 3000), (9, 200, 30, 99))
for kind, how in (("WEBP", {"lossless": True, "method": 0}), ("JPEG2000", {}), ("AVIF", {"speed": 10}), ("PNG", {})):
    data = fuzz.encoded(whole, kind, **how)
    with fuzz.Taken() as taken:
        images.prepare(data, images.Preparation((8, 8)))
    each = taken.megabytes * 2**20 / whole.width / whole.height
    assert each < BYTES.get(kind, 7) + 2, (kind, each)
"""
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent / "fuzz")], check=True)


def test_a_webp_frame_far_larger_than_its_picture_is_refused():
    """It would be decoded to a canvas that takes more than its pixels: 400 MB for 3 kB."""
    file = io.BytesIO()
    Image.new("RGBA", (40, 40), (9, 200, 30, 99)).save(file, "WEBP", exif=Image.Exif(), lossless=True)
    data = bytearray(file.getvalue())
    if data[12:16] != b"VP8X":
        data[12:12] = b"VP8X" + struct.pack("<I", 10) + bytes([0x10, 0, 0, 0]) + bytes(6)
        data[4:8] = struct.pack("<I", len(data) - 8)
    data[24:27] = (262_200 - 1).to_bytes(3, "little")
    data[27:30] = (40 - 1).to_bytes(3, "little")
    with pytest.raises(images.UnreadableImageError, match="no side of a WebP picture is longer than 16,384"):
        images.read(bytes(data))


def png_claiming(width, height):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def test_a_tiff_of_giant_tiles_is_refused():
    data = encoded(Image.new("L", (64, 64)), "TIFF", compression="tiff_lzw")
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = [data[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    kept = [entry for entry in entries if struct.unpack_from("<H", entry)[0] not in (273, 278, 279)]  # its strips
    tiles = [
        struct.pack("<HHII", *entry)
        for entry in ((322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8), (325, 4, 1, 40))
    ]
    directory = struct.pack("<H", len(kept) + 4) + b"".join([*kept, *tiles]) + bytes(4)
    with pytest.raises(Refusal, match="tiles of 3,600,000,000 pixels"):
        images.read(data[:4] + struct.pack("<I", len(data)) + data[8:] + directory)


def exif_of(*entries):
    """EXIF data with these entries: tag, kind, count, value."""
    rows = [struct.pack("<HHII", *entry) for entry in entries]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(rows) + bytes(4)


ODD = [
    exif_of((0x0112, 7, 1, 6)),
    exif_of((0x0112, 2, 9, 0xFFFFFF)),
    exif_of((0x0112, 3, 0, 6)),
    exif_of((0x0112, 3, 3, 6)),
    exif_of((0x0112, 3, 1, 77)),
    exif_of((0x0112, 12, 1, 2**31)),
    exif_of((0x0112, 99, 1, 6)),
    exif_of((0x8769, 4, 1, 8)),  # an inner directory that is this one again
    exif_of((0x0112, 3, 1, 6))[:20],
    b"Exif\0\0",
    b"Exif\0\0MM*\0\xff\xff\xff\xff\xff\xff",
    b"nothing of the kind",
]


@pytest.mark.parametrize("exif", ODD)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_odd_exif_tags_turn_nothing(kind, exif):
    picture = Image.fromarray(np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8)).convert("RGB")
    data = encoded(picture, kind, exif=exif)
    assert images.read(data).shape == (48, 64, 3)
    with Image.open(io.BytesIO(data)) as image:
        assert images.read(image).shape == (48, 64, 3)


def test_an_orientation_behind_an_odd_tag_is_applied():
    picture = np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8)[..., None].repeat(3, axis=2)
    exif = exif_of((0x010E, 7, 0xFFFFFFFF, 0xFFFFFFF0), (0x0112, 3, 1, 6))
    found = images.read(encoded(Image.fromarray(picture), "PNG", exif=exif))
    np.testing.assert_array_equal(found, np.rot90(picture, -1))


@pytest.mark.parametrize(
    "error", [RuntimeError, NotImplementedError, AttributeError, TypeError, KeyError, AssertionError]
)
def test_whatever_a_decoder_raises_is_a_broken_file(monkeypatch, error, tmp_path):
    def load(self):
        raise error("something inside")

    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.new("RGB", (9, 9)), "PNG"))
    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    refused(path, "something inside")
    with pytest.raises(Refusal, match="something inside"):
        images.read(Image.new("RGB", (9, 9)))


def test_threads_wait_for_memory_instead_of_taking_it_together():
    budget, most, now, lock = Budget(100), [0], [0], threading.Lock()

    def work(size):
        with budget.hold(size):
            with lock:
                now[0] += size
                most[0] = max(most[0], now[0])
            time.sleep(0.01)
            with lock:
                now[0] -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in [60, 30, 100, 10, 45] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 60 <= most[0] <= 100
    assert budget.free == 100


def test_a_refused_picture_gives_its_memory_back():
    free = decoding.MEMORY.free
    for kind in fuzz.KINDS:
        data = fuzz.images_of(kind)[0]
        for cut in (len(data) // 2, len(data) - 3):
            with contextlib.suppress(Refusal):
                images.read(data[:cut])
    assert decoding.MEMORY.free == free == decoding.MEMORY.limit


def test_mutated_files_of_ten_formats_stop_nothing(tmp_path):
    rows = fuzz.run(list(fuzz.write(tmp_path, 300, seed=1)))
    assert (rows["error"] == "").all(), rows[rows["error"] != ""].to_dict("records")
    for name in ("audit", "load", "predictor", "table"):
        assert (rows[name] == rows["decoder"]).all(), name
    assert rows["seconds"].max() < 5
    assert 30 < rows["decoder"].sum() < 290
    assert rows["same words"].dropna().astype(bool).all()


@pytest.mark.slow
def test_20000_mutated_files():
    code = [sys.executable, str(Path(__file__).parent / "fuzz" / "images.py"), "--count", "20000"]
    result = subprocess.run(code, capture_output=True, text=True, check=True, timeout=3000)
    found = pd.read_json(io.StringIO(result.stdout.splitlines()[-1]), typ="series")
    assert found["exceptions"] == found["disagreements"] == 0
    assert found["slowest"] < 5
    assert found["memory"] < 1536


def test_scans_of_one_channel_each_are_counted_in_plain_files_too():
    """Baseline files hold their channels in one scan or in one each; thousands of the latter take minutes as well."""
    data = encoded(Image.effect_noise((64, 64), 60).convert("RGB"), "JPEG")
    at = data.index(b"\xff\xda")
    one = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + data[at + 14 : at + 40]
    with pytest.raises(Refusal, match="more than 100 scans"):
        images.read(data[:at] + one * 2000 + b"\xff\xd9")


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def of_many_pieces():
    """Files in which Pillow would take a minute, step by step in Python; whole ones, but for what was put in."""
    rgb = Image.effect_noise((56, 40), 60).convert("RGB")
    jpeg, png, gif = (encoded(rgb, kind) for kind in ("JPEG", "PNG", "GIF"))
    packed = bytearray(encoded(rgb.convert("P"), "BMP"))
    packed[30:34] = struct.pack("<I", 1)
    count = 2_000_000
    rows = packed[:]
    struct.pack_into("<ii", rows, 18, 10_000, 10_000)
    rows = bytes(rows[: struct.unpack_from("<I", rows, 10)[0]]) + b"\1\5\0\0" * 10_000
    return {
        "fill bytes": jpeg[:2] + b"\xff" * count + jpeg[3:],
        "markers": jpeg[:2] + b"\xff\xe1\x00\x02" * count + jpeg[2:],
        "chunks": png[:33] + chunk(b"abCd", b"") * count + png[33:],
        "comments": gif[:781] + b"\x21\xfe\x01a\0" * count + gif[781:],
        "blocks": gif[:781] + b"\x21\xfe" + b"\x01a" * count + b"\0" + gif[781:],
        "between": gif[:781] + b"\0" * count + gif[781:],
        "rows": rows,
        "rows without a file's header": rows[14:],
        "tags of a large file": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, count) + bytes(20 * count),
        "comment at the end": b"P6\n8 8\n#" + b"a" * count * 10 + b"\n255\n" + bytes(192),
        "tags": b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(12 * 65535),
        "runs": bytes(packed) + b"\0\0" * 3 * count,
        "comment": b"P6\n#" + b"a" * count * 10 + b"\n8 8\n255\n" + bytes(192),
        "comment lines": b"P6\n" + b"#\n" * count * 10 + b"8 8\n255\n" + bytes(192),
        "comments between numbers": b"P2\n4000 4000\n255\n" + b"1#\n" * count,
        "text": b"P3\n4000 4000\n255\n" + b"1 " * 20 * count,
    }


def dicom_of(syntax, pixels, frame=b""):
    """A DICOM file of 8 × 8 pixels that holds something else."""
    pydicom = pytest.importorskip("pydicom")
    dataset, dataset.file_meta = pydicom.Dataset(), pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3", "1.2.4"
    dataset.Rows = dataset.Columns = dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.HighBit = 1, 0, 7
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = pydicom.encaps.encapsulate([frame]) if frame else pixels
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = bool(frame)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:The pixel data is 6400 bytes long:UserWarning")
def test_dicom_files_that_unfold_to_more_than_they_say_are_refused():
    large = Image.new("L", (3000, 3000))
    for data, words in (
        (dicom_of("1.2.840.10008.1.2.1.99", bytes(10**6)), "a deflated DICOM"),
        (dicom_of("1.2.840.10008.1.2.4.90", b"", encoded(large, "JPEG2000")), "contradicts itself"),
        (dicom_of("1.2.840.10008.1.2.4.50", b"", encoded(large, "JPEG")), "contradicts itself"),
        (dicom_of("1.2.840.10008.1.2.5", b"", struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 10**6), "more data"),
    ):
        with pytest.raises(Refusal, match=words):
            images.read(data)
    assert images.read(dicom_of("1.2.840.10008.1.2.1", bytes(6400))).shape == (8, 8, 3)  # of more frames than it says
    noise = Image.effect_noise((8, 8), 60)
    found = images.read(dicom_of("1.2.840.10008.1.2.4.90", b"", encoded(noise, "JPEG2000")))
    np.testing.assert_array_equal(found[..., 0], np.asarray(noise))


def test_jpeg_2000_of_tiny_blocks_is_refused(monkeypatch):
    monkeypatch.setattr(limits, "MOST_BLOCKS", 2**12)
    with pytest.raises(Refusal, match="blocks are so small"):
        images.read(encoded(Image.new("L", (280, 280)), "JPEG2000", codeblock_size=(4, 4)))
    assert images.read(encoded(Image.new("L", (220, 220)), "JPEG2000", codeblock_size=(4, 4))).shape == (220, 220, 3)


def test_files_of_millions_of_pieces_are_refused_at_once():
    for name, data in of_many_pieces().items():
        began = time.process_time()
        with pytest.raises(Refusal, match=r"more pieces than any|(as text|by run lengths) it would take very long"):
            images.read(data)
        assert decoding.declared_size(data) is None or name in ("runs", "rows", "rows without a file's header", "text")
        assert time.process_time() - began < 2, name


def test_text_is_read_as_far_as_it_takes_seconds():
    for value in (2, 200):  # a bright picture has more digits than a dark one
        read = images.read(b"P2\n# one\n280 280\n255\n" + b"%d " % value * 280**2)
        np.testing.assert_array_equal(read, np.full((280, 280, 3), value, np.uint8))
    with pytest.raises(Refusal, match=r"\(9\.0 MiB, at most 8\)\. Save it as PNG"):
        images.read(b"P2\n2000 2000\n255\n" + b"1 " * (9 * 2**19))


@pytest.mark.parametrize("kind", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("maximum", [1, 100, 255, 256, 1000, 65535])
def test_ppm_files_of_text_and_of_odd_numbers_are_what_pillow_reads(kind, maximum):
    rng = np.random.default_rng(kind + maximum)
    values = rng.integers(0, (1 if kind == 1 else maximum) + 1, (7, 12, 3 if kind in (3, 6) else 1))
    head = b"P%d # of\n# many # colours\n12 7" % kind + (b"\n" if kind == 1 else b" \n%d\n" % maximum)
    body = values.astype(">u2" if maximum > 255 else "u1").tobytes()
    if kind < 4:
        body = b"# none\n".join(b"%d " % value for value in values.ravel())
    with (
        Image.open(io.BytesIO(head + body)) as image,
        Image.open(io.BytesIO(limits.with_plain_numbers(head + body, ""))) as other,
    ):
        np.testing.assert_array_equal(np.asarray(other), np.asarray(image))
    for damaged in (head + body[: len(body) // 2], head, head + body.replace(b"1 ", b"x "), head + b"70000 " * 300):
        if damaged != head + body and (kind < 4 or len(damaged) < len(head + body)):
            with pytest.raises(Refusal):
                images.read(damaged)

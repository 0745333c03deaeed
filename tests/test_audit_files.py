"""Files of every kind, broken in every way: never an exception, a hang or much memory; each has its problem named."""

import io
import subprocess
import sys
import time
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnlab import audit
from cnnlab.audit import files

KINDS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")


def picture(seed=0, size=(96, 72)):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)


def encoded(kind, seed=0, **how):
    buffer = io.BytesIO()
    picture(seed).save(buffer, kind, **how)
    return buffer.getvalue()


def problem_of(data, ending=".jpg"):
    return files.judge(data, ending).problem


def mutated(data, rng):
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(data) if rng.random() < 0.5 else min(64, len(data))))
        size = int(rng.integers(1, 1 + min(64, len(data))))
        kind = rng.integers(4)
        if kind == 0:
            data[at : at + size] = rng.bytes(len(data[at : at + size]))
        elif kind == 1 and len(data) > size + 8:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = data[at : at + size]
        else:
            data[at : at + 4] = b"\xff\xff\xff\xff"[: len(data[at : at + 4])]
    return bytes(data)


# The largest memory of this process, MB. `resource` would count that of the parent which it was split off from.
PEAK = """
def peak():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) // 1024
"""


def mutate_many(folder, count):
    rng = np.random.default_rng(0)
    whole = {kind: [encoded(kind, seed) for seed in range(4)] for kind in KINDS}
    paths = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        paths.append(folder / f"{number}.{kind.lower()}")
        paths[-1].write_bytes(mutated(whole[kind][number % 4], rng))
    code = (
        PEAK + "import sys, glob, pandas as pd; from cnnlab import audit\n"
        "table = pd.DataFrame({'path': sorted(glob.glob(sys.argv[1] + '/*.*'))})\n"
        "found = audit.scan(table)\n"
        "print((found['problem'] != '').sum(), len(found), peak())"
    )
    command = [sys.executable, "-c", code, str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    return [int(word) for word in result.stdout.split()]


def test_mutated_files_never_stop_a_scan(tmp_path):
    named, total, memory = mutate_many(tmp_path, 300)
    assert total == 300
    assert 150 < named < 300
    assert memory < 1024


@pytest.mark.slow
def test_two_thousand_mutated_files(tmp_path):
    named, total, memory = mutate_many(tmp_path, 2000)
    assert total == 2000
    assert 1000 < named < 2000
    assert memory < 1024


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF"]), st.binary())
def test_any_bytes_are_judged(start, data):
    assert problem_of(start + data) != ""


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 10**6))
def test_every_cut_is_found(kind, at):
    data = encoded(kind, compression="tiff_deflate") if kind == "TIFF" else encoded(kind)
    cut = data[: 1 + at % (len(data) - 64)]
    assert problem_of(cut, f".{kind.lower()}") != "", len(cut)


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"quality": 100}])
def test_whole_files_of_every_kind_are_readable(how):
    assert problem_of(encoded("JPEG", **how)) == ""
    for kind in KINDS[1:]:
        assert problem_of(encoded(kind), f".{kind.lower()}") == ""
    grey = io.BytesIO()
    picture().convert("L").save(grey, "JPEG", restart_marker_blocks=3, **how)
    assert problem_of(grey.getvalue()) == ""


def test_a_picture_with_other_data_behind_it_is_whole():
    for kind in ("JPEG", "PNG"):
        assert problem_of(encoded(kind) + b"\0" * 400, f".{kind.lower()}") == ""


def test_a_byte_changed_in_a_png_is_found():
    data = encoded("PNG")
    for at in range(len(data) // 4, len(data) - 20, 37):
        assert problem_of(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], ".png") != ""


def test_missing_pieces_of_jpeg_data_are_found():
    data = encoded("JPEG", quality=92)
    start = data.index(b"\xff\xda")
    places = range(start + 50, len(data) - 300, 37)
    lost = [problem_of(data[:at] + data[at + 200 :]) != "" for at in places]
    zeroed = [problem_of(data[:at] + bytes(200) + data[at + 200 :]) != "" for at in places]
    # Now and then the decoder falls back into step and ends where it should: then nothing tells.
    assert np.mean(lost) > 0.7, (np.mean(lost), len(places))
    assert np.mean(zeroed) > 0.3, (np.mean(zeroed), len(places))


def test_overwritten_jpeg_data_is_mostly_found():
    data, rng = encoded("JPEG", quality=92), np.random.default_rng(0)
    start = data.index(b"\xff\xda") + 20
    places = rng.integers(start, len(data) - 100, 200)
    noise = [problem_of(data[:at] + rng.bytes(16) + data[at + 16 :]) != "" for at in places]
    # The decoder may fall back into step and end where it should: then only the picture tells.
    assert np.mean(noise) > 0.6, np.mean(noise)


@pytest.mark.parametrize("spare", [b"\x5a", b"\0\0\0", b"\x7f" * 16])
def test_a_little_padding_behind_the_data_is_no_damage(spare):
    data = encoded("JPEG", quality=92)
    assert problem_of(data[:-2] + spare + data[-2:]) == ""
    for more in (b"\x7f" * 100, b"\x28\xa2\x8a\x00"):
        assert "bytes too many" in problem_of(data[:-2] + more + data[-2:])


def test_kinds_of_jpeg_that_only_pillow_decodes_are_readable():
    flat = Image.new("RGB", (64, 64), (200, 40, 40))
    for y, x in ((0, 0), (8, 8)):
        flat.paste((20, 90, 200), (x, y, x + 30, y + 30))
    buffer = io.BytesIO()
    flat.convert("CMYK").save(buffer, "JPEG", quality=95)
    facts = files.judge(buffer.getvalue(), ".jpg")
    assert (facts.problem, facts.notes) == ("", ("CMYK",))
    buffer = io.BytesIO()
    flat.save(buffer, "JPEG", quality=95, subsampling=0)
    wide = files.judge(buffer.getvalue(), ".jpg")
    difference = np.abs(facts.colour.astype(int) - wide.colour)
    assert difference.mean() < 4
    assert np.abs(facts.grey.astype(int) - wide.grey).mean() < 4


def png_header(width, height):
    def chunk(name, body):
        return len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    packed = zlib.compress(bytes(10**6), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def with_size(data, kind, width, height):
    """The file, declaring another size."""
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + height.to_bytes(2) + width.to_bytes(2) + data[at + 4 :]
    if kind == "GIF":
        return data[:6] + width.to_bytes(2, "little") + height.to_bytes(2, "little") + data[10:]
    if kind == "BMP":
        return data[:18] + width.to_bytes(4, "little") + height.to_bytes(4, "little") + data[26:]
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + (22 + len(data)).to_bytes(4, "little") + b"WEBPVP8X" + (10).to_bytes(4, "little") + bytes(4) + size


def test_bombs_are_refused_by_size_not_by_memory(tmp_path):
    (tmp_path / "1.png").write_bytes(png_header(50_000, 50_000))
    for kind in ("JPEG", "GIF", "BMP", "WEBP"):
        size = (16_000, 16_000) if kind == "WEBP" else (60_000, 60_000)
        (tmp_path / f"2.{kind.lower()}").write_bytes(with_size(encoded(kind), kind, *size))
    code = (
        PEAK + "import sys, glob, pandas as pd; from cnnlab import audit\n"
        "before = peak()\n"
        "found = audit.scan(pd.DataFrame({'path': sorted(glob.glob(sys.argv[1] + '/*.*'))}))\n"
        "print(found['problem'].str.startswith('too large').sum(), len(found))\n"
        "print(peak() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    refused, total, more_memory = (int(word) for word in result.stdout.split())
    assert refused == total == 5
    assert more_memory < 100  # MB


def test_a_small_file_of_endless_scans_is_refused_at_once():
    data = encoded("JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    began = time.monotonic()
    assert "scans" in problem_of(data[:at] + data[at:-2] * 3000 + data[-2:])
    assert time.monotonic() - began < 5


def test_places_that_are_no_files_are_named(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    paths = [str(tmp_path / name) for name in ("folder.png", "loop.png", "gone.png")] + ["with\0null.png"]
    found = audit.scan(pd.DataFrame({"path": paths}))["problem"].tolist()
    for words, problem in zip(("a folder", "unreadable", "missing", "unreadable"), found, strict=True):
        assert words in problem

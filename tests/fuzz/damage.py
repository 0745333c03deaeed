"""Damage to a folder of files: bytes, JSON, cells, archives, and files that are no plain files any more."""

import csv
import hashlib
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

from images import mutated

OUTSIDE = "../outside/mine.csv"  # from inside a folder, somebody's file beside it
TEXTS = (
    "", " ", OUTSIDE, "/../../outside/x", "..", "/etc/passwd", "C:\\x", "a\rb", "a\nb", "\0", "\ud800", "<script>",
    "=1+1", "x" * 5000, "nan", "-1", "1e999", "٣", "None", "[]", "\u202e", "__class__",
)  # fmt: skip
NUMBERS = (None, True, False, -1, 0, 3, 0.5, 1e-320, 1e308, 2**31, 2**63, 2**70, -(2**64), float("nan"), float("inf"))
NESTED = ([], {}, [[]], {"": {}}, [None] * 50, {"a": [1, "b"]})


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def hostile(rng):
    """A value that JSON can hold and few expect."""
    return pick(rng, (TEXTS, NUMBERS, NESTED)[int(rng.integers(3))])


def damaged_json(text, rng):
    """The same JSON with a value replaced, a key lost, renamed or added, or two values exchanged."""
    value = json.loads(text)
    for _ in range(int(rng.integers(1, 3))):
        places = [(value, key) for key in _keys(value)]
        for inner, key in places:  # grows while it is gone through
            places += [(inner[key], deeper) for deeper in _keys(inner[key])]
        if not places:
            return json.dumps(hostile(rng))
        inner, key = pick(rng, places)
        other, its = pick(rng, places)
        kind = rng.integers(7)
        if kind == 0:
            del inner[key]
        elif kind == 1 and isinstance(inner, dict):
            inner[pick(rng, TEXTS)] = inner.pop(key)
        elif kind == 2 and isinstance(inner, dict):
            inner[pick(rng, TEXTS)] = hostile(rng)
        elif kind == 3 and its in _keys(other):
            inner[key] = json.loads(json.dumps(other[its]))
        elif kind == 4 and isinstance(inner[key], int | float):
            inner[key] = inner[key] * pick(rng, (-1, 0.5, 2, 1e6))
        else:
            inner[key] = hostile(rng)
    return json.dumps(value)


def _keys(value):
    return list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []


def damaged_csv(text, rng):
    """The same table with a cell replaced, a row lost, doubled or cut, or a column renamed."""
    rows = list(csv.reader(io.StringIO(text))) or [[""]]
    row = pick(rng, rows[:1] * 2 + rows)
    kind = rng.integers(6)
    if kind == 0:
        rows.remove(row)
    elif kind == 1:
        rows.append(list(row))
    elif kind == 2 and row:
        row.pop()
    elif row:
        row[int(rng.integers(len(row)))] = str(hostile(rng))
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue()


def damaged_zip(data, rng):
    """The same archive, whole and with right checksums, with one member damaged, lost, renamed, or a bomb."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = pick(rng, list(members))
    kind, packing = rng.integers(6), zipfile.ZIP_STORED
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[pick(rng, (OUTSIDE, "/etc/x.npy", "a.npy", "arr_99.npy", f"{name}x"))] = members.pop(name)
    elif kind == 2:
        members[name], packing = members[name] + bytes(64 << 20), zipfile.ZIP_DEFLATED
    elif name.endswith(".json"):
        members[name] = damaged_json(members[name], rng).encode("utf-8", "surrogatepass")
    else:
        members[name] = mutated(members[name], rng)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing, compresslevel=1) as archive:
        for one, content in members.items():
            archive.writestr(one, content)
    return file.getvalue()


def strange(path, outside, rng):
    """Puts something in the place of a file that is no plain file, or none that anybody would write."""
    kind = int(rng.integers(9))
    path.unlink()
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(pick(rng, ("/dev/zero", path.name, "../outside/mine.csv")))
    elif kind == 3:
        shutil.copy(outside, path)
    elif kind == 4:
        with path.open("wb") as file:
            file.truncate(200 << 30)
    elif kind == 5:
        path.write_bytes(pick(rng, (b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'"' + b"a,\n" * 10_000)))
    elif kind == 6:
        path.write_bytes(b"")
    elif kind == 7:
        path.write_bytes(rng.bytes(300))
    elif kind == 8:
        path.symlink_to(outside)


def damage(folder, rng):
    """Damages one or two files of a folder; what carries a digest is signed again half of the time."""
    for _ in range(1 + int(rng.random() < 0.2)):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
        files = [path for path in files if path.stat().st_size < 1 << 27]
        if files:
            path = pick(rng, files + 4 * [path for path in files if path.suffix == ".ckpt"])
            try:
                _damage(path, folder.parent / OUTSIDE[3:], rng)
            except (ValueError, zipfile.BadZipFile, RecursionError, csv.Error):  # damaged before
                path.write_bytes(mutated(path.read_bytes() or b"x", rng))
    if rng.random() < 0.6:
        sign(folder)


def _damage(path, outside, rng):
    if rng.random() < 0.12:
        strange(path, outside, rng)
        return
    data = path.read_bytes() or b"\0"
    whole = rng.random() < 0.7
    if whole and path.suffix == ".json":
        text = damaged_json(data, rng)
        path.write_bytes((text if rng.random() < 0.5 else json.dumps(json.loads(text), ensure_ascii=False)).encode(
            "utf-8", "surrogatepass"))  # fmt: skip
    elif whole and path.suffix == ".csv":
        path.write_bytes(damaged_csv(data.decode(), rng).encode("utf-8", "surrogatepass"))
    elif whole and path.suffix in (".npz", ".keras"):
        path.write_bytes(damaged_zip(data, rng))
    elif whole and path.suffix == ".ckpt":
        path.write_bytes(data[:START] + damaged_checkpoint(data[START:], rng))
    else:
        path.write_bytes(mutated(data, rng))


MARK = b"cnnlab checkpoint 2\n"
START = len(MARK) + 32


def damaged_checkpoint(data, rng):
    """A checkpoint's archive with other facts, which are JSON in an array, or damaged as any archive."""
    import numpy as np

    if rng.random() < 0.3:
        return damaged_zip(data, rng)
    with np.load(io.BytesIO(data)) as kept:
        arrays = dict(kept)
    facts = damaged_json(arrays["facts"].tobytes(), rng).encode("utf-8", "surrogatepass")
    file = io.BytesIO()
    np.savez(file, **arrays | {"facts": np.frombuffer(facts, np.uint8)})
    return file.getvalue()


def sign(folder):
    """Makes digests right again, as somebody with bad intent would."""
    for path in folder.rglob("*.ckpt"):
        if path.is_file() and path.stat().st_size < 1 << 27:
            content = path.read_bytes()[START:]
            path.write_bytes(MARK + hashlib.blake2b(content, digest_size=32).digest() + content)
    about = folder / "export.json"
    try:
        state = json.loads(about.read_text()) if about.is_file() and about.stat().st_size < 1 << 27 else {}
        for format, facts in state.get("formats", {}).items():
            file = folder / MODELS[format]
            if file.is_file() and file.stat().st_size < 1 << 27:
                facts["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        if state:
            about.write_text(json.dumps(state))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UnicodeError):
        return


MODELS = {"keras": "model.keras", "litert": "model.tflite", "onnx": "model.onnx"}


def snapshot(place, *, besides=Path("/nowhere")):
    """What lies in a place, except in one folder of it: name → size, time and digest; links and pipes by kind."""
    found = {}
    for folder, names, files in os.walk(place):
        if Path(folder) == place and besides.name in names:
            names.remove(besides.name)
        for path in (Path(folder, name) for name in (*names, *files)):
            status = path.lstat()
            if not path.name.endswith(".lock"):
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                facts = (status.st_mode, hashlib.sha256(content).hexdigest())
                found[str(path.relative_to(place))] = facts + ((status.st_mtime_ns,) if content else ())
    return found

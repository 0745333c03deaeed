"""Files from strangers, two programs at once, full disks: tables and decisions lose nothing and say what is wrong."""

import builtins
import errno
import io
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlab import audit, tables
from cnnlab._common import atomic_path, atomic_paths, locked, read_bytes, read_json


def table_of(labels, **columns):
    return pd.DataFrame({"path": [f"{i}.png" for i in range(len(labels))], "label": pd.Categorical(labels)} | columns)


# --------------------------------------------------------------------------------------------- what rooms share


def test_new_files_follow_the_umask_and_the_umask_is_never_touched(tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("another thread could inherit this"))
        with atomic_path(tmp_path / "new.txt") as temporary:
            temporary.write_text("new")
        (tmp_path / "private.txt").touch()
        (tmp_path / "private.txt").chmod(0o600)
        with atomic_path(tmp_path / "private.txt") as temporary:
            temporary.unlink()  # as writers do that bring a file of their own
            temporary.write_text("secret")
    finally:
        monkeypatch.undo()
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "private.txt").stat().st_mode) == 0o600


def test_a_hundred_threads_leave_the_umask_as_it_is(tmp_path):
    before = os.umask(0o022)
    os.umask(before)

    def write(number):
        with atomic_path(tmp_path / f"{number}.txt") as temporary:
            temporary.write_text("x")

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(write, range(100)))
    after = os.umask(before)
    assert after == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~before}


def test_files_that_belong_together_change_together_or_not_at_all(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("old")
    with pytest.raises(RuntimeError), atomic_paths(one, two) as (first, second):
        first.write_text("new")
        second.write_text("new")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["one.txt"] and one.read_text() == "old"
    with atomic_paths(one, two) as (first, second):
        first.write_text("new")
        second.write_text("new")
    assert (one.read_text(), two.read_text()) == ("new", "new")
    with atomic_path(tmp_path / ("é" * 120 + ".txt")) as temporary:  # 240 of the 255 bytes that a name may have
        temporary.write_text("long")


def test_a_lock_lets_one_in_and_names_the_holder(tmp_path):
    counted, at_once = [], []

    def work():
        with locked(tmp_path / "a.csv"):
            at_once.append(1)
            counted.append(len(at_once))
            at_once.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    with locked(tmp_path / "a.csv"):
        sentence = f"'.*a.csv' is in use by process {os.getpid()} on "
        with pytest.raises(TimeoutError, match=sentence), locked(tmp_path / "a.csv", timeout=0):
            pytest.fail("two inside")
        for thread in threads:
            thread.start()
        assert not counted
    for thread in threads:
        thread.join()
    assert counted == [1] * 8
    with locked(tmp_path / "a.csv", timeout=0):  # let go, also after an error
        pass


@pytest.mark.parametrize("kind", ["pipe", "huge"])
def test_a_lock_that_somebody_else_put_there_is_not_read(tmp_path, kind):
    """Also one that no write would end; then whoever comes second is not told a name."""
    note = tmp_path / ".t.csv.lock"
    if kind == "pipe":
        os.mkfifo(note)
    else:
        note.touch()
        os.truncate(note, 300 << 30)
    tables.save(table_of(["a", "b"]), tmp_path / "t.csv")
    assert len(tables.read(tmp_path / "t.csv")) == 2


def test_a_killed_holder_holds_no_longer(tmp_path):
    script = "import os, sys; from cnnlab._common import locked\nwith locked(sys.argv[1]): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, tmp_path / "a.csv"], check=False)
    assert (tmp_path / ".a.csv.lock").exists()
    with locked(tmp_path / "a.csv", timeout=1):
        assert str(os.getpid()) in (tmp_path / ".a.csv.lock").read_text()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 60 + b"]" * 60, "nested too deeply"),
        (b'{"a": ', "Expecting value"),
        (b"\xff\xfe\x00", "codec can't decode"),
        (b"9" * 5000, "integer string conversion"),
        (b" " * 5000 + b"1" * 2000, "at most 6,000 bytes"),
    ],
)
def test_hostile_json_is_one_sentence(tmp_path, content, words):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_json(tmp_path / "a.json", limit=6000 if b" " in content[:2] else 2**20)
    assert "a.json" in str(caught.value)


def test_json_comes_back_and_pipes_are_not_waited_for(tmp_path):
    value = {"a": [1, 2.5, None, {"é": True}]}
    (tmp_path / "a.json").write_text(json.dumps(value), encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == value
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/tty"):
        with pytest.raises((ValueError, OSError)):
            read_bytes(path, limit=100)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "socket", tmp_path / "loop"):
        before = psutil.Process().num_fds()
        with pytest.raises(ValueError, match=r"Expected a regular file\. '.*' is a (folder|socket)"):
            read_bytes(path, limit=100)
        assert psutil.Process().num_fds() == before
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


# -------------------------------------------------------------------------------------------------- two at once

DECIDE = """
import sys
import pandas as pd
from cnnlab import audit

file, me, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
paths = [f"{me}_{number}.png" for number in range(count)]
table = pd.DataFrame({"path": paths, "label": pd.Categorical(["a", "b"] * (count // 2))})
for path in paths:
    audit.decide(table, path, "exclude", file=file)
"""


def decide_in_processes(file, processes, count):
    started = [
        subprocess.Popen([sys.executable, "-c", DECIDE, file, str(number), str(count)]) for number in range(processes)
    ]
    assert [process.wait() for process in started] == [0] * processes
    return audit.decisions(file)


def test_two_notebooks_that_decide_at_once_lose_nothing(tmp_path):
    rows = decide_in_processes(tmp_path / "decisions.csv", 3, 20)
    assert len(rows) == 60 and rows["path"].nunique() == 60
    assert [path.name for path in tmp_path.iterdir()] == ["decisions.csv"]


@pytest.mark.slow
def test_four_processes_of_five_hundred_decisions_make_two_thousand_rows(tmp_path):
    rows = decide_in_processes(tmp_path / "decisions.csv", 4, 500)
    assert len(rows) == 2000 and rows["path"].nunique() == 2000


def test_decisions_and_undo_in_threads_add_up(tmp_path):
    table = table_of(["a", "b"] * 20)
    file = tmp_path / "decisions.csv"
    audit.decide(table, table["path"], "keep", file=file)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: audit.undo(file, path), table["path"][:20]))
        list(pool.map(lambda path: audit.decide(table, path, "exclude", file=file), table["path"][20:]))
    rows = audit.decisions(file)
    assert rows["action"].value_counts().to_dict() == {"keep": 20, "exclude": 20}


def test_two_that_save_one_table_leave_one_of_them(tmp_path):
    csv = tmp_path / "t.csv"
    some = [table_of(["a", "b"] * 10, number=[number] * 20, **{f"own_{number}": "x"}) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda table: tables.save(table, csv), some * 5))
    found = tables.read(csv)
    pd.testing.assert_frame_equal(found, some[found["number"][0]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.csv.json"]


# ------------------------------------------------------------------------------------------ a disk that fills up


class FullDisk:
    """Counts what a program does to a disk, and fails at one of it as a full disk does."""

    def __init__(self, monkeypatch, fails_at):
        self.count, self.fails_at = 0, fails_at
        for place, name in ((os, "open"), (os, "replace"), (os, "chmod"), (io, "open"), (builtins, "open")):
            monkeypatch.setattr(place, name, self.counted(getattr(place, name)))

    def counted(self, real):
        def call(*arguments, **options):
            mode = str(options.get("mode", arguments[1] if len(arguments) > 1 else "r"))
            writes = real.__name__ != "open" or real is OS_OPEN or any(letter in mode for letter in "wax+")
            if writes and "pytest" in str(arguments[0]):
                self.count += 1
                if self.count == self.fails_at:
                    raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **options)

        return call


OS_OPEN = os.open


def every_failure(tmp_path, prepare, act, look):
    """Lets each write and rename of `act` fail, one after the other; returns what `look` then saw."""
    seen = []
    for fails_at in range(1, 100):
        folder = tmp_path / str(fails_at)
        folder.mkdir()
        prepare(folder)
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, fails_at)
            failed = False
            try:
                act(folder)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                failed = True
        left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        assert left in ([], [".t.csv.lock"]), left
        seen.append(look(folder))
        if not failed and disk.count < fails_at:
            return seen
    raise AssertionError("never done")


OLD = {"right": [True, False], "site": ["NA", ""]}
NEW = {"right": [0.5, None], "note": ["a\r", None]}


@pytest.mark.parametrize("first", [True, False], ids=["new file", "old file"])
def test_a_disk_that_fills_at_any_write_of_save(tmp_path, first):
    old, new = table_of(["cat", "dog"], **OLD), table_of(["dog", "emu"], **NEW)

    def look(folder):
        try:
            found = tables.read(folder / "t.csv")
        except FileNotFoundError:
            return "none"
        which = "old" if found.columns.equals(old.columns) else "new"
        pd.testing.assert_frame_equal(found, old if which == "old" else new)
        return which

    seen = every_failure(
        tmp_path,
        lambda folder: None if first else tables.save(old, folder / "t.csv"),
        lambda folder: tables.save(new, folder / "t.csv"),
        look,
    )
    assert len(seen) > 6 and seen[-1] == "new"
    assert set(seen) == ({"none", "new"} if first else {"old", "new"})


def test_a_disk_that_fills_at_any_write_of_a_decision(tmp_path):
    table = table_of(["a", "b"])
    seen = every_failure(
        tmp_path,
        lambda folder: audit.decide(table, "0.png", "exclude", file=folder / "t.csv"),
        lambda folder: audit.decide(table, "1.png", "relabel", label="a", file=folder / "t.csv"),
        lambda folder: len(audit.decisions(folder / "t.csv")),
    )
    assert len(seen) > 4 and seen[-1] == 2 and set(seen) == {1, 2}


ON_A_DISK = """
import sys
import pandas as pd
from pathlib import Path
from cnnlab import audit, tables

disk = Path(sys.argv[1])
label = pd.Categorical(["cat", "dog"] * 500)
old = pd.DataFrame({"path": [f"{n}.png" for n in range(1000)], "label": label, "right": True})
new = pd.DataFrame({"path": [f"{n}.jpg" for n in range(1000)], "label": label, "right": 0.5, "note": "x"})
counts = {"old": 0, "new": 0}
for spare in range(0, 120_000, 4_000):
    tables.save(old, disk / "t.csv")
    audit.decide(old, old["path"][:800], "keep", file=disk / "d.csv")
    with (disk / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - spare))
    for act in (
        lambda: tables.save(new, disk / "t.csv"),
        lambda: audit.decide(old, old["path"][800:], "exclude", file=disk / "d.csv"),
    ):
        try:
            act()
        except OSError as error:
            assert error.errno == 28, error
    found, decided = tables.read(disk / "t.csv"), audit.decisions(disk / "d.csv")
    which = "old" if found.columns.equals(old.columns) else "new"
    pd.testing.assert_frame_equal(found, old if which == "old" else new)
    counts[which] += 1
    assert len(decided) in (800, 1000), len(decided)
    for path in list(disk.iterdir()):
        path.unlink()
print(counts)
assert min(counts.values()) > 3
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path):
    (tmp_path / "disk").mkdir()
    mount = 'mount -t tmpfs -o size=400k none "$1" && exec "$0" -W ignore -c "$2" "$1"'
    start = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*start, mount, "true", tmp_path / "disk", ""]).returncode:
        pytest.skip("needs Linux and the right to mount a disk in memory")
    done = subprocess.run([*start, mount, sys.executable, tmp_path / "disk", ON_A_DISK], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


# ---------------------------------------------------------------------------------------- names and sidecars

NAMES = ["a\rb", "two\nlines", "\r\n", 'say "hi"', "a,b;c\td", "=1+1", "'", "  ", "\x00", "\x1b[31m", "\u202egpj"]


def test_names_of_all_kinds_keep_rows_and_decisions_whole(tmp_path):
    table = pd.DataFrame({"path": [f"{name}.png" for name in NAMES], "label": pd.Categorical(NAMES, categories=NAMES)})
    file = tmp_path / "decisions.csv"
    for name in NAMES:
        audit.decide(table, f"{name}.png", "relabel", label=name, reason=name, file=file)
    rows = audit.decisions(file)
    assert rows["label"].tolist() == rows["reason"].tolist() == NAMES
    assert audit.apply(table, file)["label"].tolist() == NAMES
    tables.save(table, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(tables.read(tmp_path / "t.csv"), table)
    audit.undo(file, f"{NAMES[0]}.png")
    assert audit.decisions(file)["label"].tolist() == NAMES[1:]


@pytest.mark.parametrize(
    "sidecar",
    [
        "[" * 100_000,
        "[]",
        '{"columns": []}',
        '{"columns": {"label": 1}}',
        '{"columns": {"label": {"dtype": "object[x]"}}}',
        '{"columns": {"label": {"dtype": ["int64"]}}}',
        '{"columns": {"label": {"categories": 7}}}',
        '{"columns": {"label": {"categories": [["a"]]}}}',
        '{"columns": {"label": {"categories": ["a", "b"]}}}',
        '{"columns": {"label": {"categories": ["a", "a"], "ordered": false}}}',
        '{"columns": {"label": {"dtype": "str", "missing": 3}}}',
        '{"columns": {"label": {"dtype": "datetime64[us]"}}}',
        "\0",
    ],
)
def test_a_damaged_or_hostile_sidecar_is_one_sentence(tmp_path, sidecar):
    tables.save(table_of(["a", "b"]), tmp_path / "t.csv")
    (tmp_path / "t.csv.json").write_text(sidecar)
    with pytest.raises(ValueError, match=r"t\.csv"):
        tables.read(tmp_path / "t.csv")


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_bytes_that_claim_to_be_a_csv(tmp_path_factory, data, header):
    folder = tmp_path_factory.mktemp("csv")
    (folder / "a.png").touch()
    (folder / "t.csv").write_bytes(b"path,label\na.png,x\na.png,y\n" * header + data)
    for call in (tables.from_csv, tables.read, audit.decisions):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert isinstance(call(folder / "t.csv"), pd.DataFrame)
            except (ValueError, KeyError, FileNotFoundError) as error:
                assert "xpected" in str(error) or "None of" in str(error) or "expects" in str(error), error


def test_tables_that_claim_gigabytes_are_refused_at_once(tmp_path):
    tables.save(table_of(["a", "b"]), tmp_path / "t.csv")
    os.truncate(tmp_path / "t.csv", 200 << 30)
    began = time.monotonic()
    for call in (tables.from_csv, tables.read, audit.decisions):
        with pytest.raises(ValueError, match=r"at most 1,073,741,824 bytes. '.*t\.csv' has 214,748,364,800"):
            call(tmp_path / "t.csv")
    assert time.monotonic() - began < 5


def test_folders_nested_without_end_are_a_sentence(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()

    def endless(*arguments, **options):
        raise RecursionError

    monkeypatch.setattr(os, "walk", endless)
    with pytest.raises(ValueError, match="nested too deeply"):
        tables.from_folder(tmp_path)


def test_a_sidecar_that_is_a_folder_is_a_sentence(tmp_path):
    (tmp_path / "t.csv.json").mkdir()
    (tmp_path / "t.csv").write_text("path,label\na.png,a\n")
    with pytest.raises(ValueError, match="Move it elsewhere to read the CSV without it"):
        tables.read(tmp_path / "t.csv")


def test_what_from_csv_reads_stays_in_words_for_pipes(tmp_path):
    os.mkfifo(tmp_path / "t.csv")
    for call in (tables.from_csv, tables.read):
        with pytest.raises(FileNotFoundError, match="There is none"):
            call(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="left as it is"):
        audit.decisions(tmp_path / "t.csv")

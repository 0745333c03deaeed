"""Files from strangers, two programs at once, full disks: tables and decisions lose nothing and say what is wrong."""

import json
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from cnnlab._common import atomic_path, atomic_paths, locked, neutralised, read_bytes, read_json

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


def test_a_killed_holder_holds_no_longer(tmp_path):
    script = "import os, sys; from cnnlab._common import locked\nwith locked(sys.argv[1]): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, tmp_path / "a.csv"], check=False)
    with locked(tmp_path / "a.csv", timeout=1):
        pass


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
    with pytest.raises((ValueError, OSError)):
        read_bytes(tmp_path, limit=100)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_what_spreadsheets_would_run_is_neutralised(tmp_path):
    cells = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a=1", "", None]
    table = pd.DataFrame(
        {
            "text": cells,
            "=head": pd.Categorical(["=x", "y", *[None] * 7]),
            "number": [-0.5] * 9,
            "flag": [True] * 9,
            "day": pd.Timestamp("2026-01-01"),
        }
    )
    before = table.copy()
    result = neutralised(table)
    assert result["text"].tolist()[:8] == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t=1", "'\r=1", "a=1", ""]
    assert result["text"].isna().tolist() == table["text"].isna().tolist()
    assert result["'=head"].tolist()[:2] == ["'=x", "y"]
    pd.testing.assert_frame_equal(result[["number", "flag", "day"]], table[["number", "flag", "day"]])
    pd.testing.assert_frame_equal(table, before)

"""Names, folders and files that a stranger chose, and two at once, on the command line and in the exercises."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from cnnlab import _report, exercises
from cnnlab.__main__ import main

ROOT = Path(__file__).parent.parent
NAMES = [
    "a$b", "$(touch x)", "${HOME}", "`id`", "a b", "a'b", 'a"b', "a\\b", "a;b", "a&b", "-x", "--folder", "a\nb", "a#b",
    "猫 é", "*", "~", "%s {0}", "a=b", "--data=x",
]  # fmt: skip


def made(folder):
    """Every file below a folder with its content, other than a report's."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and "run" not in path.parts}


def notebook(folder, *sources):
    cells = [nbformat.v4.new_code_cell("data = ''\nfolder = '.'\nnumber = 1", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "tiny.ipynb")
    return folder / "tiny.ipynb"


def images(folder, *classes):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(np.full((8, 8, 3), 60 * index, np.uint8)).save(folder / name / f"{index}.png")
    return folder


# -- make ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path):
    """The words that `make` hands to Python, for names given on its command line or in the environment."""
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!{sys.executable}\nimport json, sys; print(json.dumps(sys.argv[1:]))\n")
    python.chmod(0o755)
    (tmp_path / "venv" / "installed").touch()

    def run(target, *, typed=(), **environment):
        done = subprocess.run(
            ["make", "--no-print-directory", target, f"VENV={tmp_path / 'venv'}", *typed],
            cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["quickstart", "report"])
def test_make_passes_names_on_as_they_are(words, target, name):
    expected = [f"--folder={name}", f"--data={name}"]
    assert words(target, typed=[f"DATA={name}", f"FOLDER={name}"])[-2:] == expected
    assert words(target, DATA=name, FOLDER=name)[-2:] == expected


def test_make_has_a_folder_for_each_target(words):
    assert words("quickstart")[-2:] == ["--folder=runs/quickstart", "--data="]
    assert words("report")[-2:] == ["--folder=runs/report", "--data="]


# -- python -m cnnlab report -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("name", ["-x", "a\nb", "a'b\"c\\d $e {f} 猫"])
def test_a_report_of_any_name_in_a_folder_of_any_name(tmp_path, monkeypatch, name, joined):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / name, "x", "y")
    (tmp_path / f"{name}.book").mkdir()
    source = notebook(
        tmp_path / f"{name}.book", "from pathlib import Path\nprint(sorted(p.name for p in Path(data).iterdir()))"
    )
    options = {"--data": name, "--folder": f"{name}.run"}
    given = [f"{key}={value}" for key, value in options.items()] if joined else [w for o in options.items() for w in o]
    assert main(["report", str(source), *given]) == 0
    assert "['x', 'y']" in (tmp_path / f"{name}.run" / "report.html").read_text()


@pytest.mark.parametrize("option", ["--data", "--folder"])
def test_a_name_that_is_not_utf_8_is_refused_in_words(tmp_path, option, capsys):
    name = tmp_path / os.fsdecode(b"a\xff")
    images(name, "x", "y")
    options = {"--folder": str(tmp_path / "run")} | {option: str(name)}
    assert main(["report", str(notebook(tmp_path, "1")), *(word for pair in options.items() for word in pair)]) == 1
    assert "not valid UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["data", "data/run", "data/../data", "link", "."])
def test_a_report_inside_the_images_is_refused_and_moves_nothing(tmp_path, monkeypatch, folder, capsys):
    """Classes called as a report's own files are a person's images, whatever way the folder is written."""
    monkeypatch.chdir(tmp_path)
    data = images(tmp_path / "data", "export", "checkpoint")
    (tmp_path / "link").symlink_to(data)
    if folder == ".":
        data = data.rename(tmp_path / "tensorboard")
    before = made(tmp_path)
    status = main(["report", str(notebook(tmp_path, "1")), "--data", str(data), "--folder", folder])
    assert status == 1
    assert "must lie outside the images" in capsys.readouterr().err
    assert {path: text for path, text in made(tmp_path).items() if path.suffix == ".png"} == before


def test_a_folder_of_ones_own_files_is_refused_and_moves_nothing(tmp_path, capsys):
    images(tmp_path / "mine", "export")
    before = made(tmp_path / "mine")
    assert main(["report", str(notebook(tmp_path, "1")), "--folder", str(tmp_path / "mine")]) == 1
    assert "holds export, which no report left there" in capsys.readouterr().err
    assert made(tmp_path / "mine") == before


def test_a_report_does_not_follow_a_link_for_earlier_ones(tmp_path, capsys):
    outside, folder = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    folder.mkdir()
    (folder / "earlier").symlink_to(outside)
    (folder / "report.ipynb").write_text("mine")
    assert main(["report", str(notebook(tmp_path, "1")), "--folder", str(folder)]) == 1
    assert "earlier' is a link: nothing outside" in capsys.readouterr().err
    assert not list(outside.iterdir()) and (folder / "report.ipynb").read_text() == "mine"


def test_of_two_reports_in_one_folder_one_is_made_and_the_other_told_who_has_it(tmp_path):
    source = notebook(tmp_path, "import time; time.sleep(2); print(number)")
    start = threading.Barrier(2)

    def run(number):
        start.wait()
        command = [sys.executable, "-m", "cnnlab", "report", str(source), "--folder", str(tmp_path / "run")]
        return subprocess.run([*command, "--set", f"number={number}"], capture_output=True, text=True, cwd=ROOT)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(run, (41, 42)))
    assert sorted(one.returncode for one in done) == [0, 1], done
    winner = 41 if done[0].returncode == 0 else 42
    refused = next(one for one in done if one.returncode)
    assert "report.html' is in use by process" in refused.stderr
    assert f">{winner}\n" in (tmp_path / "run" / "report.html").read_text()
    assert not (tmp_path / "run" / "earlier").exists()
    _report.run(source, folder=tmp_path / "run")  # free again
    assert (tmp_path / "run" / "earlier").exists()


# -- the record of exercises -----------------------------------------------------------------------------------------

GOOD = '{"02.1": {"wrong": 2, "solved": false, "when": "2026-01-01 00:00:00"}'
RECORDS = {
    "negative": '{"02.1": {"wrong": -5, "solved": false, "when": ""}}',
    "true for a number": '{"02.1": {"wrong": true, "solved": false, "when": ""}}',
    "huge": '{"02.1": {"wrong": 1e400, "solved": false, "when": ""}}',
    "more digits than Python reads": '{"02.1": {"wrong": ' + "9" * 5000 + ', "solved": false, "when": ""}}',
    "a word": '{"02.1": {"wrong": "2", "solved": "no", "when": ""}}',
    "when": '{"02.1": {"wrong": 1, "solved": false, "when": ["<script>"]}}',
    "half": '{"02.1": {"wrong": 1}}',
    "a list": "[1, 2]",
    "deep": "[" * 100_000,
    "deep inside": '{"02.1": ' + '{"a":' * 100_000,
    "large": " " * 2_000_000 + "{}",
    "text": "half a file {",
    "nothing": "",
    "not text": b"\xff\xfe\0\0",
    "beside a good one": GOOD + ', "02.2": 7}',
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_hostile_record_is_a_sentence_and_is_kept(tmp_path, capsys, name):
    file = tmp_path / "exercises.json"
    content = RECORDS[name] if isinstance(RECORDS[name], bytes) else RECORDS[name].encode()
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"^The record .*exercises.json (cannot be read|holds 1 damaged entries)"):
        table = exercises.progress(file)
    assert table.loc["02", "predict"] == ("2 tries" if content.startswith(GOOD.encode()) else "")
    exercises.check("02.1", 16, file=file)
    words = " ".join(capsys.readouterr().out.split())
    assert "Not yet." in words and "Hint" in words and "It was kept as exercises.damaged-" in words
    (kept,) = tmp_path.glob("*.damaged-*")
    assert kept.read_bytes() == content
    tries = "3 tries" if content.startswith(GOOD.encode()) else "1 try"
    assert exercises.progress(file).loc["02", "predict"] == tries


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "loop"])
def test_a_record_that_is_no_file_does_not_stop_the_reply(tmp_path, capsys, kind):
    file = tmp_path / "exercises.json"
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if kind == "device" else file)
    exercises.check("02.1", 15, file=file)
    words = " ".join(capsys.readouterr().out.split())
    assert words.startswith("Right!")
    assert "cannot be read" in words or "could not be kept" in words


ANSWERING = """
import sys
from cnnlab import exercises
file, process = sys.argv[1], int(sys.argv[2])
for number in range(30):
    exercises.check(f"02.{(number + process) % 2 + 2}", None, file=file)  # wrong: counted
"""


def test_four_processes_answering_at_once_lose_nothing(tmp_path):
    file = tmp_path / "runs" / "exercises.json"
    command = [sys.executable, "-c", ANSWERING, str(file)]
    running = [subprocess.Popen([*command, str(number)], cwd=ROOT, stdout=subprocess.DEVNULL) for number in range(4)]
    assert [one.wait(timeout=250) for one in running] == [0] * 4
    answers = json.loads(file.read_text())
    assert sum(entry["wrong"] for entry in answers.values()) == 120
    assert not list(file.parent.glob("*.damaged-*"))

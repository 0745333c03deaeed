import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from cnnlab import _report
from cnnlab.__main__ import main

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "00_quickstart.ipynb"


def tiny_notebook(folder, *sources):
    cells = [nbformat.v4.new_code_cell("data = ''\nfolder = '.'\nnumber = 1", metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), folder / "tiny.ipynb")
    return folder / "tiny.ipynb"


def test_a_notebook_becomes_a_page_that_needs_no_network(tmp_path, capfd):
    notebook = tiny_notebook(
        tmp_path,
        "import pandas as pd, matplotlib.pyplot as plt\nprint(number + 1, '<script>alert(1)</script>')",
        "pd.DataFrame({'path': ['<script>alert(2)</script>']})",
        "_ = plt.figure().gca().imshow(__import__('numpy').random.rand(300, 300, 3) * 0.2 + 0.4)",
    )
    assert main(["report", str(notebook), "--folder", str(tmp_path / "run"), "--set", "number=41"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "42 &lt;script&gt;" in page
    assert "<script>alert" not in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert "data:image/jpeg;base64" in page  # a photograph; a drawing would stay PNG
    out, err = capfd.readouterr()
    assert "report.html" in out
    assert err == ""


def test_an_earlier_report_is_moved_aside(tmp_path):
    notebook = tiny_notebook(tmp_path, "print(number)")
    for number in (1, 2):
        _report.run(notebook, folder=tmp_path / "run", parameters=[f"number={number}"])
    (earlier,) = (tmp_path / "run" / "earlier").iterdir()
    assert ">1\n" in (earlier / "report.html").read_text()
    assert ">2\n" in (tmp_path / "run" / "report.html").read_text()


def test_all_that_training_leaves_is_moved_aside_with_the_report():
    from cnnlab.training.callbacks import LEFT_BEHIND

    assert set(LEFT_BEHIND) <= set(_report.LEFT_BEHIND)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ValueError('Expected a. Received: b.')", "^Expected a. Received: b.$"),
        ("1 / 0", "stopped in cell 3 with ZeroDivisionError"),
        ("import os; os._exit(1)", "Python process died"),
    ],
)
def test_a_cell_that_fails_is_one_sentence(tmp_path, source, words, capsys):
    notebook = tiny_notebook(tmp_path, source)
    with pytest.raises(_report.NotebookError, match=words):
        _report.run(notebook, folder=tmp_path / "run")


def test_a_process_that_does_not_answer_is_one_sentence(tmp_path, monkeypatch):
    def silent(*_, **__):
        raise RuntimeError("Kernel didn't respond in 60 seconds")

    monkeypatch.setattr("papermill.execute_notebook", silent)
    with pytest.raises(_report.NotebookError, match="loopback network"):
        _report.run(tiny_notebook(tmp_path, "1"), folder=tmp_path / "run")


def folder_of(tmp_path, **classes):
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda tmp: tmp / "nowhere", "There is nothing at"),
        (lambda tmp: folder_of(tmp), "There is nothing at"),
        (lambda tmp: folder_of(tmp, only=3), "at least two classes"),
        (lambda tmp: NOTEBOOK, "is a file"),
    ],
)
def test_a_wrong_folder_is_told_before_anything_starts(tmp_path, make, words, capsys):
    status = main(["report", str(NOTEBOOK), "--data", str(make(tmp_path)), "--folder", str(tmp_path / "run")])
    assert status == 1
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error
    assert not (tmp_path / "run").exists()


def test_a_missing_notebook_and_a_wrong_parameter(tmp_path, capsys):
    assert main(["report", str(tmp_path / "x.ipynb"), "--folder", str(tmp_path)]) == 1
    assert "There is none" in capsys.readouterr().err
    assert main(["report", str(NOTEBOOK), "--folder", str(tmp_path), "--set", "epochs"]) == 1
    assert "name=value" in capsys.readouterr().err
    notebook = tiny_notebook(tmp_path, "print(number)")
    assert main(["report", str(notebook), "--folder", str(tmp_path / "run"), "--set", "epoch=3"]) == 1
    assert "data, folder, number. Received: 'epoch'" in capsys.readouterr().err
    assert _report._parameter("a=1e-3") == ("a", 0.001)
    assert _report._parameter("name=two words") == ("name", "two words")


def test_the_command_line_works_as_a_command():
    result = subprocess.run([sys.executable, "-m", "cnnlab", "--help"], capture_output=True, text=True, check=True)
    assert "doctor" in result.stdout
    assert "report" in result.stdout


def test_a_refreshed_notebook_keeps_its_outputs_and_no_timings(tmp_path):
    notebook = tiny_notebook(tmp_path, "print(number + 1)")
    assert main(["refresh", str(notebook)]) == 0
    content = nbformat.read(notebook, as_version=4)
    assert [cell.source for cell in content.cells][1] == "print(number + 1)"
    assert len(content.cells) == 2
    assert content.cells[1].outputs[0].text == "2\n"
    assert "papermill" not in notebook.read_text()
    figure = "# alt: A line that rises.\nimport matplotlib.pyplot as plt\n_ = plt.plot([1, 2])"
    assert main(["refresh", str(tiny_notebook(tmp_path, figure))]) == 0
    (drawn,) = nbformat.read(notebook, as_version=4).cells[1].outputs
    assert drawn.metadata == {"image/png": {"alt": "A line that rises."}}
    broken = tiny_notebook(tmp_path, "1 / 0")
    before = broken.read_bytes()
    assert main(["refresh", str(broken)]) == 1
    assert broken.read_bytes() == before

"""Every notebook runs from its first cell to its last, with parameters shrunk so that each takes seconds."""

import shutil
import zlib
from pathlib import Path

import kernels
import nbformat
import numpy as np
import pytest
from jupyter_client.provisioning import local_provisioner

from cnnlab import _report

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))

# What makes a notebook quick. A notebook without a line here fails, so that none is forgotten.
QUICK = {
    "00_quickstart": {"epochs": 1, "image_size": 24, "network_size": 32},
    "01_setup": {},
    "02_cnn_basics": {"epochs": 1, "image_size": 32},
    "03_prepare_images": {"per_class": 30, "folds": 2, "seeds": [0, 1], "probe_size": 32},
    "04_augmentation": {"epochs": 2, "seeds": [0], "training_images": 100},
    "05_training": {"epochs": 2, "short": 1, "long": 4, "seeds": [0], "rates": [0.01]},
    "06_tuning": {
        "images": 100,
        "epochs": 1,
        "folds": 2,
        "learning_rates": [0.001, 0.01],
        "batch_sizes": [64],
        "trials": 2,
        "seeds": 2,
    },
    "07_transfer_learning": {
        "images_per_class": [2, 3, 4],
        "repeats": [2, 1, 1],
        "held_out": 5,
        "image_size": 32,
        "steps": 3,
        "epochs": 1,
    },
    "08_evaluation": {
        "good_parts": 80,
        "imbalance": 10,
        "image_size": 24,
        "epochs": 1,
        "folds": 2,
        "patients": 40,
        "sizes": [0.5, 1.0],
        "repeats": 1,
    },
    "09_fine_tuning": {"image_size": 32, "few": 2, "head_epochs": 1, "epochs": 1, "seeds": [0]},
    "10_imbalance_and_fairness": {
        "patients": 80,
        "other_patients": 60,
        "imbalance": 5,
        "dark": 0.4,
        "image_size": 32,
        "folds": 2,
    },
    "11_real_time": {
        "days": 4,
        "test_days": 1,
        "minutes": 6,
        "epochs": 1,
        "unknown_share": 0.05,
        "formats": ["keras", "litert"],
    },
    "12_your_own_images": {
        "epochs": 1,
        "least_steps": 5,
        "image_size": 24,
        "network_size": 32,
        "tune_epochs": 0,
    },
}
# Fewer images, filters, seeds and points, and a shorter measurement: in the sources, as no parameter says them.
DIGITS = 'samples.digits("../data/digits"))'
FEWER = {
    "per_class=250": "per_class=25",
    "per_class=300": "per_class=25",
    "seconds=2)": "seconds=0.3)",
    "filters=(16, 32, 48)": "filters=(8, 16)",
    **{
        f"small_cnn({size}, classes={names})": f"small_cnn({size}, classes={names}, filters=(8, 16))"
        for size, names in {
            "image_size=size": "classes",
            "image_size=(64, 64)": "classes",
            "image_size=(image_size, image_size)": "classes",
        }.items()
    },
    "filters=(12, 24)": "filters=(8,)",
    "[(12, 24), (16, 32)]": "[(8,), (4,)]",
    "[few], [3])": "[few], [2])",
    '"learning_rate": [0.001, 0.003, 0.01, 0.03], "dropout": [0.0, 0.2, 0.5]': (
        '"learning_rate": [0.01, 0.03], "dropout": [0.0, 0.2]'
    ),
    '{"constant": found.suggestion} | schedules': '{"constant": found.suggestion, "steps": schedules["steps"]}',
    '["steps"] + 16': '["steps"] + 3',  # so that the power fails in as few steps, too
    DIGITS: f'{DIGITS}.groupby("label", observed=True).head(40)',
}
# In kernels of their own from the first import on; so does 00 in test_browser.py.
ORDINARY = ("01_setup", "11_real_time")
# Without graphs, as they train few steps; the slow test runs all notebooks in ordinary kernels, and with graphs.
EAGER = ("04_augmentation", "06_tuning", "07_transfer_learning", "08_evaluation", "12_your_own_images")
STOPPED = ("08_evaluation",)  # is stopped in the middle first, and then runs on what that left


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the notebooks, whose data and runs lie beside it and are shared as a person's would be."""
    folder = tmp_path_factory.mktemp("course") / "notebooks"
    folder.mkdir()
    for path in NOTEBOOKS:
        shutil.copy(path, folder)
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            for words, fewer in FEWER.items():
                if cell.cell_type == "code":
                    cell.source = cell.source.replace(words, fewer)
        nbformat.write(notebook, folder / path.name)
    return folder


def test_what_is_to_be_fewer_is_there():
    sources = "".join(cell.source for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells)
    assert [words for words in FEWER if words not in sources] == []


def run(notebook, folder, values):
    """Runs a notebook and gives what it printed and drew."""
    result = folder / notebook.name
    _report._execute(notebook, result, values)
    return nbformat.read(result, as_version=4)


@pytest.mark.notebooks
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_to_its_end(path, course, tmp_path, monkeypatch, capsys):
    values = QUICK[path.stem]
    if path.stem in ORDINARY:
        monkeypatch.setattr(local_provisioner, "launch_kernel", kernels.ordinary)
    if path.stem in EAGER:
        monkeypatch.setenv(kernels.EAGERLY, "1")
    known = _report._known(path, dict(values))
    assert known == values
    if path.stem in STOPPED:
        with pytest.raises(_report.NotebookError, match="process died"):
            run(stopped(course / path.name), tmp_path, values)
    content = run(course / path.name, tmp_path, values)
    check(content)
    if path.stem == "05_training":
        assert any(
            "power failure" in output.get("text", "") for cell in content.cells for output in cell.get("outputs", [])
        )
    assert not any(folder.name not in ("notebooks", "data", "runs") for folder in course.parent.iterdir())


def check(content):
    for cell in content.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_killed_at_random_moments_it_runs_again(path, course, tmp_path):
    rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
    cells = [place for place, cell in enumerate(nbformat.read(path, as_version=4).cells) if cell.cell_type == "code"]
    deaths = 0
    for _ in range(12):  # a moment may come after the end of a short notebook
        if deaths == 3:
            break
        place, seconds = int(rng.choice(cells[2:-1])), rng.uniform(0.05, 2)
        try:
            run(killed(course / path.name, place, seconds), tmp_path, QUICK[path.stem])
        except _report.NotebookError as error:
            assert "process died" in str(error)
            deaths += 1
    assert deaths
    check(run(course / path.name, tmp_path, QUICK[path.stem]))


def killed(path, place, seconds):
    """The same notebook, whose process dies some seconds after one of its cells was started, whatever it does then."""
    notebook = nbformat.read(path, as_version=4)
    cell = notebook.cells[place]
    cell.source = f"import os, threading\nthreading.Timer({seconds}, os._exit, [1]).start()\n{cell.source}"
    target = path.with_name(f"killed_{path.name}")
    nbformat.write(notebook, target)
    return target


def stopped(path):
    """The same notebook, whose process dies after three quarters of its cells."""
    notebook = nbformat.read(path, as_version=4)
    place = len(notebook.cells) * 3 // 4
    notebook.cells[place:] = [nbformat.v4.new_code_cell("import os\nos._exit(1)")]
    target = path.with_name(f"stopped_{path.name}")
    nbformat.write(notebook, target)
    return target


def test_every_notebook_has_quick_parameters():
    assert {path.stem for path in NOTEBOOKS} <= set(QUICK)

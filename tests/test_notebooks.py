"""What is committed of the notebooks: in order, small, without noise, results computed and never typed."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def text_of(output):
    data = output.get("data", {})
    parts = [output.get("text", []), data.get("text/plain", []), data.get("text/html", [])]
    return "".join("".join(part) for part in parts)


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_small(path):
    assert path.stat().st_size <= 300_000


def test_it_ran_from_top_to_bottom(notebook):
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_its_outputs_are_free_of_noise_and_of_this_machine(notebook):
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", text_of(output)
            assert not re.search(r"Warning|/work/|/home/|/Users/|/tmp/|site-packages", text_of(output))


def test_it_has_the_shape(notebook):
    parameters = [cell for cell in code_cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(parameters) == 1
    prose = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    for words in ("**Goal.**", "**Afterwards you can**", "**Time.**", "## Summary", "## Exercises", "own notebook"):
        assert words in prose


def test_no_result_is_typed_into_its_prose(notebook):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            prose = re.sub(r"```.*?```|`[^`]*`", "", "".join(cell["source"]), flags=re.DOTALL)
            assert not re.search(r"\b0\.\d\d|\d\d(\.\d+)? ?%", prose), prose

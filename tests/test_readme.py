"""The README's code runs as it stands, in the everyday suite on little; the map of the package names what is there."""

import re
from functools import partial
from pathlib import Path

import kernels
import pytest

from cnnlab import models, samples

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
SMALLER = [
    (r'"EfficientNetLite0", image_size=\(160, 160\)', '"EfficientNetLite0", image_size=(32, 32)'),
    (r"epochs=\d+", "epochs=1"),
    (r"\((96|160), \1\)", "(32, 32)"),
    (r"bootstrap=1000", "bootstrap=100"),
]


def run(code, folder, monkeypatch):
    (folder / "notebooks").mkdir()
    monkeypatch.chdir(folder / "notebooks")  # where people's notebooks are
    names = {}
    exec(code, names)
    return names


def check(names):
    assert 0 <= names["predictions"]["confidence"].min() <= 1
    classes = set(names["table"]["label"].cat.categories)
    assert set(names["predictor"](names["test"]["path"].iloc[0]).probabilities) == classes
    assert names["model"].output_shape == (None, len(classes))


@pytest.mark.notebooks
def test_the_code_runs_on_little(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(models, "small_cnn", partial(models.small_cnn, filters=(8,)))  # compiles sooner
    kernels.three_blocks(monkeypatch.setattr)
    kernels.few_head_steps(monkeypatch.setattr)
    monkeypatch.setattr(samples, "inspection", partial(samples.inspection, per_class=12, size=32))
    code = CODE
    for pattern, replacement in SMALLER:
        assert re.search(pattern, code), pattern
        code = re.sub(pattern, replacement, code)
    check(run(code, tmp_path, monkeypatch))


@pytest.mark.slow
def test_the_code_runs_word_for_word(tmp_path, monkeypatch, capsys):
    names = run(CODE, tmp_path, monkeypatch)
    check(names)
    right = names["predictions"]["label"].astype(str) == names["predictions"]["predicted"].astype(str)
    assert right.mean() > 0.8


def test_what_the_map_names_is_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:cnnlab|tests)/[\w/.]*)`", page)
    assert len(files) > 50
    assert [name for name in files if not (ROOT / name).exists()] == []
    names = re.findall(r"`(\w+)`\s(?:of|in)\s`([\w/]+\.py)`", page)
    assert len(names) > 8
    assert [pair for pair in names if pair[0] not in (ROOT / pair[1]).read_text(encoding="utf-8")] == []

"""The README's code runs as it stands; in the everyday suite with fewer and smaller images and epochs."""

import re
from functools import partial
from pathlib import Path

import pytest

from cnnlab import samples

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
CODE = "\n".join(re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
SMALLER = [
    # A smaller network, which compiles sooner; the slow test runs the code word for word.
    (
        r'"EfficientNetLite0", image_size=\(160, 160\), classes=classes',
        '"MobileNet", image_size=(32, 32), classes=classes, weights=None, alpha=0.25',
    ),
    (r"epochs=\d+", "epochs=1"),
    (r"\((96|160), \1\)", "(32, 32)"),
    (r"\(48, 48\)", "(16, 16)"),
    (r"folds=\d", "folds=2"),
    (r"seeds=3", "seeds=2"),
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
    assert set(names["predictor"](names["test"]["path"].iloc[0]).probabilities) == set(names["classes"])
    assert {"trial", "learning_rate", "batch_size", "fold", "val_accuracy"} <= set(names["search"].results)
    assert names["best"].output_shape == (None, len(names["classes"]))


def test_the_code_runs_on_little(tmp_path, monkeypatch, capsys):
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

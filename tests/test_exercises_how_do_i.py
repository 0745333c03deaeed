"""Every answer of docs/how_do_i.md runs, one after the other, in a folder with images."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "how_do_i.md"


def test_every_answer_runs_and_is_short(tmp_path, monkeypatch, capsys):
    from cnnlab import samples

    monkeypatch.chdir(tmp_path)
    samples.inspection("images", per_class=20, size=32, seed=0)
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == page.count("\n## ") + 1
    names = {}
    for block in blocks:
        assert len(block.strip().splitlines()) <= 5
        exec(compile(block, block.splitlines()[0], "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "images.csv", "images.csv.json", "runs"}
    assert names["predictor"](names["test"]["path"].iloc[0]).label in set(names["table"]["label"])

"""The code of the user guide runs, page after page, in a folder with images."""

import re
from pathlib import Path

GUIDE = Path(__file__).parent.parent / "docs" / "guide"
NAMES = re.search(r"```\{toctree\}.*?\n\n(.*?)```", (GUIDE / "index.md").read_text(encoding="utf-8"), re.DOTALL)
PAGES = ["index", *NAMES[1].split()]
LARGE, SMALL = '"EfficientNetLite0", image_size=(64, 64)', '"MobileNet", image_size=(32, 32), alpha=0.25, weights=None'


def test_every_page_is_named():
    assert sorted(PAGES) == sorted(path.stem for path in GUIDE.glob("*.md"))


def test_the_code_runs_and_is_short(tmp_path, monkeypatch, capsys):
    from cnnlab import samples

    monkeypatch.chdir(tmp_path)
    samples.inspection("images", per_class=20, size=32, seed=0)
    names = {}
    assert LARGE in (GUIDE / "transfer.md").read_text(encoding="utf-8")
    for page in PAGES:
        blocks = re.findall(r"```python\n(.*?)```", (GUIDE / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
        for block in blocks:
            assert len(block.strip().splitlines()) <= 9
            block = block.replace(LARGE, SMALL)  # which compiles sooner
            exec(compile(block, f"{page}: {block.splitlines()[0]}", "exec"), names)
    written = {"images", "images.csv", "images.csv.json", "list.csv", "decisions.csv", "decisions.csv.lock", "runs"}
    assert {path.name for path in tmp_path.iterdir()} <= written
    assert names["predictor"](names["test"]["path"].iloc[0]).label in set(names["table"]["label"])

"""The code of the user guide runs, page after page, in a folder with images."""

import re
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import kernels
import pytest
import uvicorn

GUIDE = Path(__file__).parent.parent / "docs" / "guide"
NAMES = re.search(r"```\{toctree\}.*?\n\n(.*?)```", (GUIDE / "index.md").read_text(encoding="utf-8"), re.DOTALL)
PAGES = ["index", *NAMES[1].split()]
LARGE, SMALL = '"EfficientNetLite0", image_size=(64, 64)', '"EfficientNetLite0", image_size=(32, 32)'


@contextmanager
def served(app):
    """The address of the app, on this machine's loopback."""
    # uvicorn's own logging would close the handlers that pytest has
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_every_page_is_named():
    assert sorted(PAGES) == sorted(path.stem for path in GUIDE.glob("*.md"))


@pytest.mark.notebooks
def test_the_code_runs_and_is_short(tmp_path, monkeypatch, capsys):
    from cnnlab import models, samples

    monkeypatch.setattr(models, "small_cnn", partial(models.small_cnn, filters=(8,)))  # compiles sooner
    kernels.three_blocks(monkeypatch.setattr)
    kernels.few_head_steps(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    samples.inspection("images", per_class=20, size=32, seed=0)
    names = {}
    assert LARGE in (GUIDE / "transfer.md").read_text(encoding="utf-8")
    for page in PAGES:
        blocks = re.findall(r"```python\n(.*?)```", (GUIDE / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
        for block in blocks:
            assert len(block.strip().splitlines()) <= (17 if "FastAPI" in block else 9)
            block = block.replace(LARGE, SMALL)
            exec(compile(block, f"{page}: {block.splitlines()[0]}", "exec"), names)
    written = {"images", "images.csv", "images.csv.json", "list.csv", "decisions.csv", "decisions.csv.lock", "runs"}
    assert {path.name for path in tmp_path.iterdir()} <= written
    image = Path(names["test"]["path"].iloc[0])
    expected = names["predictor"](image)
    assert expected.label in set(names["table"]["label"])
    with served(names["app"]) as address:
        answer = httpx.post(f"{address}/predict", content=image.read_bytes())
        assert (answer.status_code, answer.json()) == (200, pytest.approx(expected.probabilities))
        for content, status, words in (
            (bytes(100_000_000), 413, "at most 20 MB"),
            (b"just text", 422, "not an image"),
            (image.read_bytes()[:200], 422, "cannot be read"),
            (b"", 422, "cannot be read"),
        ):
            answer = httpx.post(f"{address}/predict", content=content)
            assert answer.status_code == status
            assert words in answer.json()["detail"]

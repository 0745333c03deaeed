"""A real browser, a real JupyterLab and a camera made of a file: from two held buttons to a model."""

import re
import shutil
import time

import nbformat
import numpy as np
import pytest
from test_browser import FLAGS, PATIENCE, READY, TOKEN, code, jupyterlab, new_page, open_and_run_all, shut_down_kernels
from test_browser import chromium as chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
SECONDS, RATE, HEIGHT, WIDTH = 6, 10, 240, 320  # of each of the two scenes

CAMERA = """\
from cnnlab import widgets
camera = widgets.capture("../data/recorded", ["stripes", "spots"], image_size=(96, 96))
camera"""
MODEL = "model, early = camera.model(), set(camera.table()['path'])\nprint('a model of', len(early), 'frames')"
SCORE = """\
from cnnlab import experiments
late = camera.table()[lambda table: ~table["path"].isin(early)]
predictions = experiments.predict(model, late)
print("right", (predictions["label"].astype(str) == predictions["predicted"].astype(str)).mean(), "of", len(late))"""


def film(path):
    """Six seconds of drifting stripes, dark to the left, then six of drifting spots, bright to the left; in a loop."""
    random = np.random.default_rng(0)
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{RATE}:1 Ip A1:1 C420jpeg\n".encode())
        for number in range(2 * SECONDS * RATE):
            spots = number >= SECONDS * RATE
            wave = np.sin(across / 9 + number / 5) * (np.sin(down / 9 + number / 7) if spots else 1)
            grey = 128 + 70 * np.sign(wave) + random.normal(0, 8, wave.shape)
            grey[:, : WIDTH // 8] = 235 if spots else 20  # tells the test what is shown
            colour = np.full((2, HEIGHT // 2, WIDTH // 2), 128, np.uint8)
            file.write(b"FRAME\n" + np.clip(grey, 0, 255).astype(np.uint8).tobytes() + colour.tobytes())


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A notebook for each test."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "notebooks").mkdir()
    nobody = CAMERA.replace("recorded", "nothing")
    notebooks = {"camera": (CAMERA, MODEL, SCORE), "nobody": (nobody,), "results": (RESULTS, MAP, SELECTED)}
    for name, cells in notebooks.items():
        nbformat.write(code(*cells), folder / "notebooks" / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def server(course, tmp_path_factory):
    with jupyterlab(course, tmp_path_factory.mktemp("home"), CNNLAB_QUIET="0") as address:
        yield address


@pytest.fixture
def lab(server):
    yield server
    shut_down_kernels(server)


def watched(page):
    """What the page complains of in its console from now on, apart from JupyterLab itself being offline."""
    said = []
    page.on("console", lambda one: said.append(one.text) if one.type == "error" and "ERR_FAILED" not in one.text else 0)
    page.on("pageerror", lambda error: said.append(str(error)))
    return said


SCENE = """() => {
  const video = document.querySelector('.cnnlab-capture video'), canvas = document.createElement('canvas');
  const pen = canvas.getContext('2d');
  pen.drawImage(video, 0, 0, video.videoWidth / 8, video.videoHeight, 0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data[0] > 128;
}"""


def record(page, place, spots):
    """Holds a class's key while its scene is shown; gives up the frames of the last half second to be sure."""
    deadline = time.monotonic() + PATIENCE
    for awaited in (not spots, spots):  # from the beginning of the scene on
        while page.evaluate(SCENE) != awaited:
            assert time.monotonic() < deadline
            page.wait_for_timeout(50)
    page.focus(".cnnlab-capture")
    page.keyboard.down(str(place + 1))
    page.wait_for_timeout(1000 * (SECONDS - 2))
    page.keyboard.up(str(place + 1))
    page.wait_for_function(
        "place => /recording/.test(document.querySelectorAll('.cnnlab-capture .hold small')[place].textContent) &&"
        " !document.querySelector('.cnnlab-capture .on')", arg=place,
    )  # fmt: skip


def run_cell(page, number, words):
    page.locator(".jp-Notebook .jp-CodeCell").nth(number).locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    output = page.locator(f".jp-OutputArea-output:has-text('{words}')").last
    output.wait_for()
    return output.inner_text()


def test_held_keys_make_a_model_that_is_right_on_later_recordings(lab, course, tmp_path, chromium):
    film(tmp_path / "film.y4m")
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    fake += [f"--use-file-for-fake-video-capture={tmp_path / 'film.y4m'}"]
    browser = chromium.browser_type.launch(executable_path=shutil.which("chromium"), args=[*FLAGS, *fake])
    context, page = new_page(browser)
    said = watched(page)
    try:
        page.goto(f"{lab}/lab/workspaces/camera/tree/notebooks/camera.ipynb?token={TOKEN}")
        page.wait_for_selector(".jp-NotebookPanel .jp-Notebook .jp-CodeCell")
        page.wait_for_selector(READY)
        run_cell(page, 0, "Hold to record")
        assert page.locator("button.hold:has-text('stripes')").is_disabled()
        page.click("button:has-text('Start the camera')")
        page.wait_for_function("() => document.querySelector('.cnnlab-capture video').videoWidth > 0")
        for _ in range(2):
            record(page, 0, spots=False)
            record(page, 1, spots=True)
        page.wait_for_selector("text=/Learned from .* frames in/")
        for awaited, name in ((False, "stripes"), (True, "spots")):
            page.wait_for_function(f"() => ({SCENE})() === {str(awaited).lower()}")
            page.wait_for_selector(f".cnnlab-capture .answer:has-text('{name}')")
        page.wait_for_selector("text=/Answered in \\d+ ms/")
        page.screenshot(path=tmp_path / "camera.png")
        frames = int(re.search(r"a model of (\d+) frames", run_cell(page, 1, "a model of"))[1])
        assert frames >= 20
        record(page, 0, spots=False)
        record(page, 1, spots=True)
        right, count = re.search(r"right ([\d.]+) of (\d+)", run_cell(page, 2, "right")).groups()
        assert float(right) >= 0.95
        assert int(count) >= 10
        assert len(list((course / "data" / "recorded").glob("*/*"))) == 6  # recordings
        assert len(list((course / "data" / "recorded").glob("*/*/*.jpg"))) == frames + int(count)
        assert said == []
    finally:
        context.close()
        browser.close()


def test_without_a_camera_there_is_a_sentence(lab, chromium):
    context, page = new_page(chromium)
    said = watched(page)
    try:
        open_and_run_all(page, lab, "nobody")
        page.click("button:has-text('Start the camera')")
        page.wait_for_selector("text=/There is no camera|does not give this page the camera/")
        assert said == []
    finally:
        context.close()


RESULTS = """\
from cnnlab import samples, tables, widgets
import numpy as np
import pandas as pd
table = tables.from_folder(samples.inspection("../data/parts", per_class=8, size=48, seed=0))
random = np.random.default_rng(0)
predictions = table.assign(predicted=table["label"], confidence=random.random(len(table)))
predictions.loc[:2, "predicted"] = "good"
view = widgets.confusion(predictions)
view"""
MAP = """\
places = np.stack([table["label"].cat.codes, np.arange(len(table)) % 8], axis=1)
dots = widgets.embedding(table, places)
dots"""
SELECTED = """\
print("cell", view.selected["path"].tolist() == predictions[:3].sort_values("confidence")["path"].tolist())
print("lasso", sorted(dots.selected["label"].unique()), len(dots.selected))"""


def test_a_cell_shows_its_images_and_a_lasso_selects(lab, tmp_path, chromium):
    context, page = new_page(chromium)
    said = watched(page)
    try:
        open_and_run_all(page, lab, "results")
        page.click("button[title='3 of 8 images of crack: predicted good']")
        images = page.locator(".cnnlab-results >> nth=0 >> figure img")
        images.nth(2).wait_for()
        assert images.evaluate_all("all => all.map(one => one.naturalWidth)") == [48, 48, 48]
        captions = page.locator(".cnnlab-results >> nth=0 >> figcaption")
        surest = [float(text.rstrip("%")) for text in captions.all_inner_texts()]
        assert surest == sorted(surest, reverse=True)
        page.select_option(".cnnlab-results select", "least sure first")
        page.wait_for_function(
            "last => document.querySelector('.cnnlab-results figcaption').textContent === last",
            arg=f"{surest[-1]:.1f}%",
        )
        canvas = page.locator(".cnnlab-results canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        wide, high = box["width"] - 32, box["height"] - 32

        def spot(x, y):  # of the map, 0 to 1
            return box["x"] + 16 + x * wide, box["y"] + 16 + (1 - y) * high

        page.mouse.move(*spot(0, 0.93))
        page.mouse.move(*spot(0, 1))
        page.wait_for_selector(".cnnlab-results .tip img")
        page.screenshot(path=tmp_path / "results.png")
        page.mouse.move(*spot(0.1, 1.02))
        page.mouse.down()
        for corner in ((0.1, -0.02), (0.5, -0.02), (0.5, 1.02)):
            page.mouse.move(*spot(*corner), steps=4)
        page.mouse.up()
        page.wait_for_selector("text=16 of 48 images selected")
        output = run_cell(page, 2, "lasso")
        assert output.split("\n")[:2] == ["cell True", "lasso ['good', 'inclusion'] 16"]
        assert said == []
    finally:
        context.close()

"""A real browser drives a real JupyterLab: what a person sees and presses, from the first cell to the last."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
TOKEN = "a-token-for-the-tests"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--disable-dev-shm-usage"]
READY = "text=/ipykernel.* [|] Idle/"  # the status bar, once the kernel is there and has nothing to do
PATIENCE = int(os.environ.get("CNNLAB_PATIENCE", "120"))  # seconds for one thing to appear; a quiet machine needs few

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


def without_browser(words):
    """A skip where a person runs the tests; a failure where the project does."""
    if os.environ.get("CI"):
        pytest.fail(words, pytrace=False)
    pytest.skip(words)


@pytest.fixture(scope="module")
def chromium():
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        without_browser("the browser tests need chromium: apt-get install chromium (or another package manager's)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        without_browser("the browser tests need playwright: pip install -e '.[dev]'")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


def code(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3 (ipykernel)"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


RELABEL = """\
from cnnlab import audit, samples, tables, widgets
table = tables.from_folder(samples.inspection("../data/parts", per_class=2, size=48, seed=0))
panel = widgets.relabel(table, file="../data/decisions.csv")
panel"""

LABEL = """\
from cnnlab import audit, experiments, widgets
from PIL import Image
import numpy as np, pandas as pd, os
print("process", os.getpid())
colours = {"red": (220, 30, 30), "lime": (40, 220, 40), "blue": (30, 30, 220)}
os.makedirs("../data/colours", exist_ok=True)
paths = [f"../data/colours/{number:02d}.png" for number in range(60)]
for number, path in enumerate(paths):
    Image.new("RGB", (80, 60), list(colours.values())[number % 3]).save(path)
features = np.eye(3)[np.arange(60) % 3] * 9 + np.random.default_rng(0).normal(size=(60, 3))
view = widgets.label(pd.DataFrame({"path": paths}), list(colours), file="../data/labels.csv", features=features)
view"""

MONITOR = """\
from cnnlab import models, widgets
import numpy as np
import keras
images = np.random.default_rng(0).integers(0, 256, (256, 8, 8, 3)).astype("uint8")
model = models.small_cnn(image_size=(8, 8), classes=["a", "b"], filters=(4,))
model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
history = model.fit(images, np.arange(256) % 2, validation_split=0.25, epochs=100_000, verbose=0,
                    callbacks=[widgets.monitor()])"""

SLIDERS = """\
from cnnlab import widgets
import numpy as np
view = widgets.convolution(np.eye(12) * 255)
view"""


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the first notebook with small parameters, and three of the tests' own."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "notebooks").mkdir()
    quickstart = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", as_version=4)
    for cell in quickstart.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = cell.source.replace("per_class=250", "per_class=25")
            if "parameters" in cell.metadata.get("tags", []):
                cell.source += "\nepochs, image_size, pretrained = 1, 24, ''"
    notebooks = {
        "00_quickstart": quickstart,
        "relabel": code(RELABEL),
        "label": code(LABEL),
        "monitor": code(MONITOR, "print('epochs that ran:', len(history.epoch), model.stop_training)"),
        "exercise": code(
            "from cnnlab import exercises\nexercises.check('02.1', 16)",
            "exercises.check('02.1', 15)",
            "exercises.progress().loc[['02']]",
        ),
        "sliders": code(SLIDERS),
    }
    for name, notebook in notebooks.items():
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    return folder


@pytest.fixture(scope="module")
def lab(course, tmp_path_factory):
    with jupyterlab(course, tmp_path_factory.mktemp("home"), CNNLAB_QUIET="0") as address:
        yield address


@contextlib.contextmanager
def jupyterlab(course, home, **environment):
    """JupyterLab on this machine's loopback, with settings of its own; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    places |= {"IPYTHONDIR": str(home / "ipython"), "JUPYTERLAB_SETTINGS_DIR": str(home / "s")}
    environment = os.environ | places | {"JUPYTERLAB_WORKSPACES_DIR": str(home / "w")} | environment
    environment.pop("MPLBACKEND", None)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={course}", f"--IdentityProvider.token={TOKEN}"]
    log = (home / "lab.log").open("w")
    server = subprocess.Popen(command, env=environment, cwd=course, stdout=log, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for_server(f"{address}/api?token={TOKEN}", server, home / "lab.log")
        yield address
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def wait_for_server(address, server, log):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}", pytrace=False)


@pytest.fixture
def page(chromium, lab):
    context, page = new_page(chromium)
    yield page
    shut_down_kernels(lab)
    context.close()


def new_page(browser):
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(PATIENCE * 1000)
    context.route("**/*", lambda route: route.continue_() if "//127.0.0.1" in route.request.url else route.abort())
    return context, context.new_page()


def sessions(lab):
    with urllib.request.urlopen(f"{lab}/api/sessions?token={TOKEN}") as answer:
        return json.load(answer)


def shut_down_kernels(lab):
    for session in sessions(lab):
        request = urllib.request.Request(f"{lab}/api/sessions/{session['id']}?token={TOKEN}", method="DELETE")
        urllib.request.urlopen(request).close()


def open_and_run_all(page, lab, name):
    """Opens a notebook, waits for its kernel and chooses Run → Run All Cells."""
    # a workspace of its own, else the notebooks of the tests before come back with it
    page.goto(f"{lab}/lab/workspaces/{name}/tree/notebooks/{name}.ipynb?token={TOKEN}")
    page.wait_for_selector(".jp-NotebookPanel .jp-Notebook .jp-CodeCell")
    page.wait_for_selector(READY)
    page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")


def saved(page, course, name):
    """The notebook as JupyterLab saves it."""
    file = course / "notebooks" / f"{name}.ipynb"
    before = file.stat().st_mtime_ns
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    deadline = time.monotonic() + 30
    while file.stat().st_mtime_ns == before and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    page.wait_for_timeout(300)
    return nbformat.read(file, as_version=4)


def test_quickstart_runs_to_its_end(page, lab, course):
    open_and_run_all(page, lab, "00_quickstart")
    exported = course / "runs" / "quickstart" / "export" / "model.tflite"
    deadline = time.monotonic() + 2 * PATIENCE
    while not exported.exists() and time.monotonic() < deadline:
        page.wait_for_timeout(500)
    assert exported.exists()
    page.wait_for_timeout(2000)
    page.wait_for_selector(READY)
    notebook = saved(page, course, "00_quickstart")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 6
    assert page.locator(".jp-RenderedImage img").count() >= 1
    width = page.locator(".jp-RenderedImage img").first.evaluate("image => image.naturalWidth")
    assert width > 100


def listen(page):
    """What the browser's console says in anger."""
    errors = []
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def ours(errors):
    """Without those about what JupyterLab itself asks for and does not get here."""
    return [error for error in errors if "Failed to load resource" not in error]


def decisions_of(course, name, count, page):
    """The rows of a file of decisions, once there are as many."""
    file, deadline = course / "data" / name, time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if file.exists() and len(rows := pd.read_csv(file, keep_default_na=False)) == count:
            return rows
        page.wait_for_timeout(100)
    pytest.fail(f"{name} never held {count} rows")


def test_keys_and_clicks_in_relabel_are_rows_in_the_file(page, lab, course):
    errors = listen(page)
    open_and_run_all(page, lab, "relabel")
    cards = page.locator(".cnnlab-grid .card")
    cards.first.wait_for()
    assert cards.count() == 12
    cards.nth(0).hover()  # the keys go where the pointer is: nothing was clicked
    page.keyboard.press("-")
    page.wait_for_selector("text=image 2 of 12")
    page.keyboard.press("Space")
    page.wait_for_selector("text=image 3 of 12")
    assert decisions_of(course, "decisions.csv", 2, page)["action"].tolist() == ["exclude", "keep"]
    page.click(".cnnlab-grid button:has-text('undo')")
    page.wait_for_selector("text=11 open")
    cards.nth(4).click()
    cards.nth(6).click(modifiers=["Shift"])
    page.keyboard.press("-")
    rows = decisions_of(course, "decisions.csv", 4, page)
    assert rows["action"].tolist() == ["exclude"] * 4
    page.wait_for_function("document.querySelectorAll('.cnnlab-grid .card.done').length === 4")
    assert page.locator(".jp-Cell").count() == 1  # no key reached the notebook
    assert ours(errors) == []


def test_sixty_images_are_labelled_by_keys_and_drags_over_a_restart(page, lab, course):
    errors, names = listen(page), ["red", "lime", "blue"]
    open_and_run_all(page, lab, "label")
    cards = page.locator(".cnnlab-grid .card")

    def shown():
        return cards.evaluate_all(
            "cards => cards.filter(card => !card.classList.contains('done')).map(card => Number(card.dataset.row))"
        )

    def settled(before):
        deadline = time.monotonic() + PATIENCE
        while shown() == before and time.monotonic() < deadline:
            page.wait_for_timeout(100)

    def label_all(until):
        while page.locator("text=60 of 60 have an answer").count() == 0 and (rows := shown()):
            if page.locator(".cnnlab-grid .card[aria-selected=true]").count() == len(rows):  # alike: all selected
                page.keyboard.press(names[rows[0] % 3][0])
            else:
                groups = page.locator(".cnnlab-grid h4").all_text_contents()
                assert groups and all(group.endswith("?") for group in groups)
                page.keyboard.press("Enter")
            settled(rows)
            if until():
                return

    cards.first.wait_for()
    cards.first.hover()
    first = shown()
    page.keyboard.press("Escape")  # nothing is selected: draw a rectangle around all of the first row of cards
    assert page.locator(".cnnlab-grid .card[aria-selected=true]").count() == 0
    boxes = [cards.nth(place).bounding_box() for place in range(3)]
    page.mouse.move(boxes[0]["x"] + 4, boxes[0]["y"] + 4)
    page.mouse.down()
    page.mouse.move(boxes[2]["x"] + boxes[2]["width"] - 4, boxes[2]["y"] + boxes[2]["height"] - 4, steps=5)
    page.mouse.up()
    assert page.locator(".cnnlab-grid .card[aria-selected=true]").count() == 3
    page.keyboard.press(names[first[0] % 3][0])
    rows = decisions_of(course, "labels.csv", 3, page)
    assert set(rows["label"]) == {names[first[0] % 3]}
    settled(first)
    page.keyboard.press("Control+a")
    label_all(until=lambda: True)
    before = len(pd.read_csv(course / "data" / "labels.csv"))
    assert 3 < before < 60
    process = page.locator("text=/process [0-9]+/").inner_text().strip()
    page.click(".lm-MenuBar-itemLabel:text-is('Kernel')")
    page.click(".lm-Menu-itemLabel:text-is('Restart Kernel and Run All Cells…')")
    page.click("button:has-text('Restart')")
    page.wait_for_function("old => !document.body.innerText.includes(old)", arg=process)
    page.wait_for_selector("text=/process [0-9]+/")
    page.wait_for_selector(f"text={before} of 60 have an answer")
    cards.first.hover()
    label_all(until=lambda: False)
    rows = decisions_of(course, "labels.csv", 60, page)
    assert [names[int(Path(path).stem) % 3] for path in rows["path"]] == rows["label"].tolist()
    assert ours(errors) == []


def test_the_stop_button_ends_training_cleanly(page, lab, course):
    open_and_run_all(page, lab, "monitor")
    page.wait_for_selector("svg:has-text('training loss')")
    page.click("button:has-text('Stop')")
    page.wait_for_selector(".jp-OutputArea-output:has-text('epochs that ran:')")
    assert page.locator("text=stopped, best weights are back").count() == 1
    notebook = saved(page, course, "monitor")
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    words = notebook.cells[1].outputs[0].text
    assert 1 <= int(words.split()[3]) < 100_000


def test_an_exercise_answers_back(page, lab, course):
    open_and_run_all(page, lab, "exercise")
    page.wait_for_selector("text=Not yet. 16 would be right with")
    page.wait_for_selector("text=Hint 1 of 3")
    page.wait_for_selector("text=Right! You can now read")
    page.wait_for_selector("td:has-text('solved')")
    assert json.loads((course / "runs" / "exercises.json").read_text())["02.1"]["solved"]


def test_a_kernel_can_be_edited_and_slid(page, lab, course):
    open_and_run_all(page, lab, "sliders")
    image = page.locator(".jp-OutputArea img.widget-image")
    image.wait_for()
    before = image.get_attribute("src")
    box = page.locator(".jp-OutputArea input[type='number']").first
    box.fill("7")
    box.press("Enter")
    page.wait_for_function("before => document.querySelector('img.widget-image').src !== before", arg=before)

"""`widgets.capture`, asked as the browser asks it: what lies in the folder, what is answered, and the model."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import experiments, models, tables, widgets

SIZE = (64, 64)


def frame(name, seed):
    """A JPEG file: bright or dark stripes, lying or standing, with noise."""
    random = np.random.default_rng(seed)
    stripes = np.where(np.arange(96) // random.integers(4, 8) % 2, 200, 60)
    pixels = np.broadcast_to(stripes if name == "standing" else stripes[:, None], (96, 96))
    noisy = np.clip(pixels[..., None] + random.normal(0, 25, (96, 96, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG")
    return buffer.getvalue()


class Browser:
    """Stands in for the page: sends what `capture.js` sends, and keeps what comes back."""

    def __init__(self, view, monkeypatch):
        self.view, self.said = view, []
        monkeypatch.setattr(view, "send", lambda content, buffers=None: self.said.append(content))

    def send(self, content, *buffers):
        json.dumps(content)
        self.view._handle_custom_msg(content, [memoryview(one) for one in buffers])

    def record(self, label, count, seed):
        self.send({"begin": self.view.classes.index(label)})
        for number in range(count):
            self.send({"frame": True}, frame(label, 1000 * seed + number))
        self.send({"end": True})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with two recordings of each of two classes, what the browser was told, and the view."""
    folder = tmp_path_factory.mktemp("capture") / "stripes"
    view = widgets.capture(folder, ["standing", "lying"], image_size=SIZE)
    with pytest.MonkeyPatch.context() as patch:
        browser = Browser(view, patch)
        for seed, (label, count) in enumerate([("standing", 8), ("lying", 8), ("standing", 8), ("lying", 7)]):
            browser.record(label, count, seed)
    return folder, view, browser.said


def test_frames_lie_in_a_folder_for_each_recording(recorded):
    folder, view, _ = recorded
    table = view.table()
    assert table["label"].value_counts().to_dict() == {"standing": 16, "lying": 15}
    assert table.groupby("group").size().tolist() == [8, 7, 8, 8]
    assert view.counts == [[16, 2], [15, 2]]
    assert [path.name for path in sorted(folder.rglob(".*"))] == []  # no temporary file is left
    assert Path(table["path"][0]).read_bytes() == frame(table["label"][0], 1000 * (table["label"][0] == "lying"))
    split = tables.split(table, val=0.5, test=0, seed=0)
    assert split.groupby("group")["split"].nunique().eq(1).all()
    plain = tables.from_folder(folder)
    assert plain["subfolder"].nunique() == 4


def test_answers_begin_at_twenty_frames_of_two_classes(recorded):
    _, view, said = recorded
    answers = [message["answer"] for message in said]
    assert len(answers) == 31
    assert answers[:24] == [{}] * 24  # the third recording ends with frame 24
    assert all(max(answer, key=answer.get) == "lying" for answer in answers[24:])
    assert all(sum(answer.values()) == pytest.approx(1) for answer in answers[24:])
    assert int(re.match(r"Learned from 31 frames in (\d+) ms\.", view.words)[1]) < 1000


def test_the_model_is_plain_keras_and_answers_as_the_picture_did(recorded, tmp_path):
    _, view, _ = recorded
    model = view.model()
    model.save(tmp_path / "model.keras")
    assert models.class_names(model) == ["standing", "lying"]
    labels = ["standing", "lying"] * 5
    files = [tmp_path / f"{number}.jpg" for number in range(10)]
    for number, file in enumerate(files):
        file.write_bytes(frame(labels[number], 9000 + number))
    predictions = experiments.predict(model, pd.DataFrame({"path": [str(file) for file in files]}))
    assert predictions["predicted"].tolist() == labels
    for path, chance in predictions[["path", "p_lying"]].itertuples(index=False):
        assert view.frame(Path(path).read_bytes())["lying"] == pytest.approx(chance, abs=1e-4)
    assert view.counts == [[16, 2], [15, 2]]  # nothing was being recorded


def test_a_folder_with_recordings_goes_on(recorded):
    folder, view, _ = recorded
    (folder / "lying" / "mine.png").write_bytes(b"no image")  # teaches nothing
    again = widgets.capture(folder, ["standing", "lying"], image_size=SIZE)
    assert again.learned
    assert again.counts == [[16, 2], [16, 3]]
    image = frame("lying", 77)
    assert again.frame(image) == pytest.approx(view.frame(image), abs=1e-3)
    again.begin("lying")
    again.frame(image)
    assert len(again.table()) == 33  # no file was written over
    with pytest.raises(ValueError, match=r"not among `classes`: lying\. Add them"):
        widgets.capture(folder, ["standing", "hanging"], image_size=SIZE)
    assert "image/png" not in again._repr_mimebundle_()[0]  # frames of people do not get into the notebook
    for path in again.table()["path"][again.table()["label"] == "lying"]:
        Path(path).unlink()
    with pytest.raises(ValueError, match="of lying none"):
        again.model()


def test_what_goes_wrong_is_a_sentence_in_the_view(tmp_path, monkeypatch):
    view = widgets.capture(tmp_path / "new", ["a", "b"], image_size=SIZE)
    browser = Browser(view, monkeypatch)
    with pytest.raises(ValueError, match=r"20 frames or more, some of each class\. Received 0, of a, b none"):
        view.model()
    browser.send({"begin": 0})
    browser.send({"frame": True}, b"no image")
    assert browser.said == [{"problem": "the frame cannot be read: not an image."}]
    browser.send({"begin": 0})
    browser.send({"frame": True}, frame("lying", 0))
    assert browser.said[-1]["frames"] == 1
    (tmp_path / "new" / "b").write_text("a file where a folder should be")
    browser.send({"begin": 1})
    browser.send({"frame": True}, frame("lying", 0))
    assert "problem" in browser.said[-1]
    assert len(view.table()) == 1


@pytest.mark.parametrize(
    ("classes", "error", "words"),
    [
        ("ab", TypeError, "names of the classes"),
        (2, TypeError, "names of the classes"),
        (None, TypeError, "names of the classes"),
        (["a"], ValueError, "at least two classes"),
        (["a", "A"], ValueError, "names of folders"),
        (["a", "../b"], ValueError, "names of folders"),
        (["a", ""], ValueError, "names of folders"),
    ],
)
def test_classes_that_cannot_be_folders_are_refused(tmp_path, classes, error, words):
    with pytest.raises(error, match=words):
        widgets.capture(tmp_path / "new", classes)
    assert not (tmp_path / "new").exists()


def test_an_unknown_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match="EfficientNetLite0"):
        widgets.capture(tmp_path / "new", ["a", "b"], network="EfficentNetLite0")

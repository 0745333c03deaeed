"""`widgets.confusion` and `widgets.embedding`, asked as the browser asks: which rows, in which order, with pictures."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import widgets


@pytest.fixture
def predictions(tmp_path):
    """Sixty images of three classes, every fourth one taken for another, two without an answer, one broken."""
    random = np.random.default_rng(0)
    label = pd.Categorical(np.array(["a", "b", "c"])[np.arange(60) % 3])
    predicted = np.where(np.arange(60) % 4 == 0, "b", label.astype(str))
    table = pd.DataFrame({"path": [str(tmp_path / f"{row}.png") for row in range(60)], "label": label})
    table = table.assign(predicted=pd.Categorical(predicted, label.categories), confidence=random.random(60))
    table.loc[[1, 2], ["predicted", "confidence"]] = [None, np.nan]
    for row, path in enumerate(table["path"]):
        Image.new("RGB", (20, 10), (4 * row, 0, 0)).save(path)
    (tmp_path / "0.png").write_bytes(b"no image")
    return table.set_index(np.arange(60) * 7)  # people slice and shuffle


@pytest.fixture
def ask(monkeypatch):
    def asked(view, **content):
        said = []
        monkeypatch.setattr(view, "send", lambda content, buffers=None: said.append((content, buffers)))
        view._handle_custom_msg(json.loads(json.dumps(content)), [])
        (message,) = said
        json.dumps(message[0])
        return message

    return asked


def test_a_cell_gives_its_images_by_confidence(predictions, ask):
    with pytest.warns(UserWarning, match="leaves out 2 of 60 rows"):
        view = widgets.confusion(predictions)
    assert np.sum(view.facts["cells"]) == 58
    expected = predictions.query("label == 'a' and predicted == 'b'").sort_values("confidence")
    assert view.facts["cells"][0][1] == len(expected) == 5
    message, pictures = ask(view, select=[0, 1, False])
    pd.testing.assert_frame_equal(view.selected, expected[::-1])
    assert message["captions"] == [f"{sure:.1%}" for sure in expected["confidence"][::-1]]
    assert (message["count"], message["start"], len(pictures)) == (5, 0, 5)
    message, pictures = ask(view, select=[0, 1, True])
    pd.testing.assert_frame_equal(view.selected, expected)
    place = expected["path"].tolist().index(predictions["path"].iloc[0])
    assert "not an image" in message["titles"][place]  # a broken file has a grey picture, and says why
    pd.testing.assert_frame_equal(view.select("a", "b", least_sure_first=True), expected)
    assert view.static()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(ValueError, match=r"`select` expects classes: a, b, c\. Received: 'd'"):
        view.select("a", "d")
    with pytest.raises(ValueError, match="'path'"):
        widgets.confusion(predictions.drop(columns="path"))


def test_more_images_come_when_they_are_asked_for(predictions, ask):
    many = pd.concat([predictions.assign(predicted=predictions["label"])] * 4)
    view = widgets.confusion(many.drop(columns="confidence"))
    message, pictures = ask(view, select=[2, 2, False])
    assert (message["count"], len(pictures)) == (80, 48)
    message, pictures = ask(view, start=48)
    assert (message["start"], len(pictures)) == (48, 32)
    assert message["captions"] == [path.rpartition("/")[2] for path in view.selected["path"][48:]]


def test_a_lasso_selects_rows_of_the_map(predictions, ask):
    places = np.random.default_rng(1).normal(size=(60, 2))
    places[3] = np.nan
    view = widgets.embedding(predictions, places)
    rest = predictions.drop(index=21)  # row 3 has no place
    x = np.array(view.facts["x"])
    assert (x.min(), x.max(), len(x)) == (0, 1, 59)
    assert np.corrcoef(x, np.delete(places[:, 0], 3))[0, 1] == pytest.approx(1, abs=1e-6)
    assert [view.facts["names"][code] for code in view.facts["codes"]] == rest["label"].tolist()
    message, pictures = ask(view, select=[5, 40, 3])
    pd.testing.assert_frame_equal(view.selected, rest.iloc[[5, 40, 3]])
    assert message["captions"] == rest["label"].iloc[[5, 40, 3]].tolist()
    message, pictures = ask(view, hover=7)
    assert (message["kind"], message["hover"], len(pictures)) == ("hover", 7, 1)
    assert len(view.selected) == 3
    assert view.static()[:8] == b"\x89PNG\r\n\x1a\n"
    message, pictures = ask(view, select=[])
    assert (message["count"], len(view.selected), pictures) == (0, 0, [])


def test_a_map_of_unlabelled_images(predictions):
    view = widgets.embedding(predictions[["path"]].head(8), np.random.default_rng(0).normal(size=(8, 5)))
    assert (view.facts["names"], set(view.facts["codes"]), len(view.facts["x"])) == ([], {-1}, 8)
    same = widgets.embedding(predictions[["path"]].head(8), np.ones((8, 5)))
    assert same.facts["x"] == same.facts["y"] == [0] * 8
    with pytest.raises(ValueError, match="none but NaN"):
        widgets.embedding(predictions.head(3), np.full((3, 2), np.nan))
    with pytest.raises(TypeError, match=r"expects a table .* Received: NoneType"):
        widgets.embedding(None, np.eye(3))
    with pytest.raises(ValueError, match="four images or more"):
        widgets.embedding(predictions.head(3), np.eye(3))

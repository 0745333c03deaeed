"""widgets.relabel: buttons and keys write decisions at once, and what is on the page follows the file."""

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnlab import audit, widgets
from cnnlab.widgets.grid import letters_for


@pytest.fixture
def suspects(tmp_path):
    """Four suspects of three classes; the second file is no image."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, size in zip(paths, (8, 40, 700, 90), strict=True):
        Image.fromarray(rng.integers(0, 256, (size, size + 2, 3), np.uint8)).save(path)
    paths[1].write_bytes(b"no image")
    categories = ["cat", "dog", "<b>cow</b>"]
    return pd.DataFrame(
        {
            "path": [str(path) for path in paths],
            "label": pd.Categorical(["cat", "cat", "dog", "dog"], categories=categories),
            "suggested": pd.Categorical(["dog", "<b>cow</b>", "cat", None], categories=categories),
            "suspicion": [0.99, 0.9, 0.8, 0.7],
        }
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "decisions.csv"


def press_button(panel, words):
    """As the browser does on a click, with nothing selected."""
    (keys,) = (keys for text, _, keys in panel.buttons if words in text)
    panel._receive(panel, {"keys": keys, "rows": []}, [])


def test_enter_and_undo_leave_what_was_decided_elsewhere(suspects, file):
    panel = widgets.relabel(suspects, file=file)
    audit.decide(suspects, suspects["path"][1], "exclude", file=file)
    panel.press("\n")
    assert audit.latest(suspects, file)["action"].tolist() == ["keep", "exclude", "keep", "keep"]
    audit.decide(suspects, suspects["path"][0], "exclude", file=file)
    panel.press("\b")
    assert audit.latest(suspects, file)["action"].tolist() == ["exclude", "exclude", "", ""]


def press_class(panel, name):
    assert name in [known for known, _ in panel.classes]
    panel._receive(panel, {"name": name, "rows": []}, [])


def card(panel, row):
    return next(card for card in panel.cards if card["row"] == row)


def pixels_of(panel):
    return Image.open(io.BytesIO(card(panel, panel.place)["data"]))


def decided(file):
    table = audit.decisions(file)
    return list(zip(table["path"], table["action"], table["label"], strict=True))


def test_buttons_write_rows_at_once(suspects, file):
    panel = widgets.relabel(suspects, file=file)
    press_button(panel, "it is as suggested")
    assert decided(file) == [("0.png", "relabel", "dog")]
    assert audit.decisions(file)["reason"].tolist() == ["suspicion 0.99"]
    press_button(panel, "exclude")
    press_button(panel, "label is right")
    assert decided(file)[1:] == [("1.png", "exclude", ""), ("2.png", "keep", "")]
    assert panel.left == 1
    press_class(panel, "<b>cow</b>")
    assert decided(file)[3] == ("3.png", "relabel", "<b>cow</b>")
    assert panel.left == 0 and "audit.apply" in panel.status
    assert audit.apply(suspects, file)["label"].tolist() == ["dog", "dog", "<b>cow</b>"]


def test_keys_decide_and_backspace_takes_back(suspects, file):
    panel = widgets.relabel(suspects, file=file)
    panel.press("+")
    panel.press("-")
    panel.press("?")  # no such key
    panel.press(".")
    assert decided(file) == [("0.png", "relabel", "dog"), ("1.png", "exclude", "")]
    assert panel.place == 3
    panel.press("d")
    panel.press("\b")
    assert len(decided(file)) == 2
    panel.press("\b")
    assert decided(file) == [("0.png", "relabel", "dog")]
    assert panel.place == 1
    panel.press("\b")
    assert decided(file) == []
    panel.press(" c")
    assert decided(file) == [("0.png", "keep", ""), ("1.png", "relabel", "cat")]


def test_a_selection_is_decided_and_taken_back_at_once(suspects, file):
    panel = widgets.relabel(suspects, file=file)
    panel.press("c", rows=[0, 3])
    assert decided(file) == [("0.png", "relabel", "cat"), ("3.png", "relabel", "cat")]
    panel.press("\n")  # all others are right
    assert decided(file)[2:] == [("1.png", "keep", ""), ("2.png", "keep", "")]
    assert panel.answers == {"0": "cat", "1": "keep", "2": "keep", "3": "cat"}
    panel.undo()
    assert panel.left == 2 and panel.answers == {"0": "cat", "3": "cat"}
    panel.undo()
    assert panel.left == 4


@settings(max_examples=20, deadline=None)
@given(st.text(" +-.,cdbq", max_size=8))
def test_taking_back_what_was_typed_leaves_nothing(tmp_path_factory, keys):
    folder = tmp_path_factory.mktemp("relabel")
    for number in range(3):
        Image.new("RGB", (9, 9)).save(folder / f"{number}.png")
    table = pd.DataFrame({"path": [str(folder / f"{number}.png") for number in range(3)]})
    table["label"] = table["suggested"] = pd.Categorical(["cat", "dog", "cow"])
    panel = widgets.relabel(table, file=folder / "decisions.csv")
    panel.press(keys)
    decides = {*" +-", *panel.letters.values()}
    count = sum(key in decides for key in keys)
    assert len(audit.decisions(folder / "decisions.csv")) == count
    panel.press("\b" * count)
    assert not len(audit.decisions(folder / "decisions.csv"))


def test_a_restart_goes_on_where_it_stopped(suspects, file):
    widgets.relabel(suspects, file=file).press("-")
    code = (
        "import pandas as pd, sys; from cnnlab import widgets\n"
        "table = pd.read_pickle(sys.argv[1])\n"
        "panel = widgets.relabel(table, file=sys.argv[2])\n"
        "print(panel.place, panel.left); panel.undo(); print(panel.place, panel.left)"
    )
    suspects.to_pickle(file.with_suffix(".pkl"))
    command = [sys.executable, "-c", code, str(file.with_suffix(".pkl")), str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1", "3", "0", "4"]


def test_switching_the_class_keeps_what_was_decided(suspects, file):
    panel = widgets.relabel(suspects, file=file)
    assert [value for _, value in panel.choices] == ["all classes", "cat", "dog"]
    panel.press(" ")
    panel.choice = "dog"
    assert panel.place == 2 and "image 1 of 2" in panel.status
    panel.press("-")
    panel.step(5)
    assert panel.place == 3
    panel.choice = "cat"
    assert panel.place == 1 and "1 open" in panel.status
    panel.undo()  # the last decision was about a dog: it is shown again
    assert panel.place == 2 and panel.choice == "all classes"
    assert decided(file) == [("0.png", "keep", "")]


def test_decisions_by_others_are_seen_and_left_alone(suspects, file):
    panel = widgets.relabel(suspects, file=file)
    everything = pd.concat([suspects, suspects[:1].assign(path="elsewhere.png")], ignore_index=True)
    audit.decide(everything, everything["path"][2], "exclude", file=file)
    audit.decide(everything, "elsewhere.png", "exclude", file=file)
    assert panel.left == 3
    panel.press("- ")
    assert panel.place == 3
    for _ in range(5):
        panel.undo()
    assert [Path(path).name for path, _, _ in decided(file)] == ["elsewhere.png"]


def test_images_are_large_enough_to_judge(suspects, file):
    panel = widgets.relabel(suspects, file=file, size=480)
    np.testing.assert_array_equal(np.asarray(pixels_of(panel)), np.asarray(Image.open(suspects["path"][0])))
    panel.step(1)
    assert "The picture cannot be shown." in card(panel, 1)["facts"] and "1.png" in card(panel, 1)["facts"]
    panel.step(1)
    assert max(pixels_of(panel).size) == 480


@pytest.mark.parametrize("kind", ["gone", "a pipe", "a device", "a folder"])
def test_a_file_that_may_not_be_opened_is_words_and_can_be_decided(suspects, file, kind):
    path = Path(suspects["path"][0])
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    panel = widgets.relabel(suspects, file=file)
    assert "The picture cannot be shown." in card(panel, 0)["facts"]
    assert panel._repr_mimebundle_()["image/png"]
    panel.press("-")
    assert decided(file) == [("0.png", "exclude", "")]
    assert "cannot be shown" not in card(panel, 3)["facts"]


def test_deep_images_are_shown_by_the_levels_of_the_table(suspects, file):
    Image.fromarray(np.full((80, 80), 2000, np.uint16)).save(suspects["path"][0])
    panel = widgets.relabel(suspects.assign(levels="0-4000"), file=file)
    assert np.asarray(pixels_of(panel)).mean() == pytest.approx(127.5, abs=1)


def test_what_is_known_about_an_image_is_shown(suspects, file):
    panel = widgets.relabel(suspects.assign(note="<script>"), file=file)
    assert card(panel, 1)["caption"] == "cannot be shown" and "cat → <b>cow</b>?" in card(panel, 1)["alt"]
    assert card(panel, 0)["caption"] == "cat → dog?"
    assert card(panel, 0)["facts"].splitlines()[1] == "labelled cat · suggested dog, suspicion 0.99 · <script>"


def test_nothing_of_a_person_becomes_html():
    source = (Path(widgets.__file__).parent / "grid.js").read_text(encoding="utf-8")
    assert "innerHTML" not in source and "insertAdjacentHTML" not in source


def test_many_suspects_are_shown_page_by_page(tmp_path, file):
    Image.new("RGB", (9, 9)).save(tmp_path / "0.png")
    for number in range(1, 60):
        (tmp_path / f"{number}.png").symlink_to(tmp_path / "0.png")
    paths = [str(tmp_path / f"{number}.png") for number in range(60)]
    table = pd.DataFrame({"path": paths, "label": pd.Categorical(["cat"] * 60, categories=["cat", "dog"])})
    panel = widgets.relabel(table, file=file)
    first = [card["row"] for card in panel.cards]
    panel.press("\n")
    assert first == list(range(len(first))) and panel.cards[0]["row"] == len(first) == panel.place
    panel.press("\n\n")
    assert panel.left == 0 and len(decided(file)) == 60


def test_a_picture_stands_in_where_widgets_do_not_run(suspects, file, monkeypatch):
    panel = widgets.relabel(suspects, file=file)
    view = "application/vnd.jupyter.widget-view+json"
    monkeypatch.setenv("CNNLAB_QUIET", "1")
    bundle = panel._repr_mimebundle_()
    assert view not in bundle
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width > 300
    monkeypatch.setattr("cnnlab.widgets.exploring.is_quiet", lambda: False)
    assert {view, "image/png", "text/plain"} <= set(panel._repr_mimebundle_())


def test_classes_without_a_key_are_typed(tmp_path, file):
    Image.new("RGB", (9, 9)).save(tmp_path / "1.png")
    names = [f"class {number:02d}" for number in range(60)]
    table = pd.DataFrame({"path": [str(tmp_path / "1.png")], "label": pd.Categorical(["class 07"], categories=names)})
    panel = widgets.relabel(table, file=file)
    panel._receive(panel, {"name": "klass 42", "rows": []}, [])
    assert "Received: 'klass 42'" in panel.status and decided(file) == []
    press_class(panel, "class 42")
    assert decided(file) == [("1.png", "relabel", "class 42")]


@given(st.lists(st.text(max_size=6), max_size=40, unique=True))
def test_letters_belong_to_one_class_each(names):
    letters = letters_for(names)
    assert len(set(letters.values())) == len(letters) == min(len(names), 36)
    assert not set(letters.values()) & set(" +-.,")
    for name in names:
        if len(name) == 1 and name in "abcdefghijklmnopqrstuvwxyz0123456789":
            assert letters[name] == name


def test_wrong_calls_are_explained(suspects, file):
    with pytest.raises(ValueError, match="nothing to decide"):
        widgets.relabel(suspects[:0], file=file)
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="left as it is"):
        widgets.relabel(suspects, file=file)
    with pytest.raises(AttributeError, match=r"It has .*relabel"):
        widgets.relabl  # noqa: B018
    assert "relabel" in dir(widgets)

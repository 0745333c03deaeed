"""widgets.relabel: buttons and keys write decisions at once, and what is on the page follows the file."""

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnlab import audit, widgets
from cnnlab.widgets.relabelling import letters_for


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


def button(panel, words):
    found = [part for part in every(panel) if isinstance(part, ipywidgets.Button) and words in part.description]
    assert len(found) == 1, words
    return found[0]


def every(part):
    yield part
    for child in getattr(part, "children", ()):
        yield from every(child)


def text_of(panel):
    return " ".join(part.value for part in every(panel) if isinstance(part, ipywidgets.HTML))


def pixels_of(panel):
    picture = next(part for part in every(panel) if isinstance(part, ipywidgets.Image))
    return Image.open(io.BytesIO(picture.value))


def keyboard(panel):
    return next(part for part in every(panel) if isinstance(part, ipywidgets.Text))


def decided(file):
    table = audit.decisions(file)
    return list(zip(table["path"], table["action"], table["label"], strict=True))


def test_buttons_write_rows_at_once(suspects, file):
    panel = widgets.relabel(suspects, file=file)
    button(panel, "it is dog").click()
    assert decided(file) == [("0.png", "relabel", "dog")]
    assert audit.decisions(file)["reason"].tolist() == ["suspicion 0.99"]
    button(panel, "exclude").click()
    button(panel, "label is right").click()
    assert decided(file)[1:] == [("1.png", "exclude", ""), ("2.png", "keep", "")]
    assert panel.left == 1
    button(panel, "cow").click()
    assert decided(file)[3] == ("3.png", "relabel", "<b>cow</b>")
    assert panel.left == 0 and "audit.apply" in text_of(panel)
    assert audit.apply(suspects, file)["label"].tolist() == ["dog", "dog", "<b>cow</b>"]


def test_keys_decide_and_backspace_takes_back(suspects, file):
    panel = widgets.relabel(suspects, file=file)
    field = keyboard(panel)
    field.value = "+"
    field.value = "+-"
    field.value = "+-?"  # no such key
    field.value = "+-?."
    assert decided(file) == [("0.png", "relabel", "dog"), ("1.png", "exclude", "")]
    assert panel.place == 3
    field.value = "+-?.d"
    field.value = "+-?."
    field.value = "+-?"
    field.value = "+-"
    assert len(decided(file)) == 2
    field.value = "+"
    assert decided(file) == [("0.png", "relabel", "dog")]
    assert panel.place == 1
    field.value = ""
    assert decided(file) == []
    field.value = " c"  # typed faster than the page sends
    assert decided(file) == [("0.png", "keep", ""), ("1.png", "relabel", "cat")]


@settings(max_examples=20, deadline=None)
@given(st.text(" +-.,cdbq", max_size=8))
def test_deleting_what_was_typed_leaves_nothing(tmp_path_factory, keys):
    folder = tmp_path_factory.mktemp("relabel")
    for number in range(3):
        Image.new("RGB", (9, 9)).save(folder / f"{number}.png")
    table = pd.DataFrame({"path": [str(folder / f"{number}.png") for number in range(3)]})
    table["label"] = table["suggested"] = pd.Categorical(["cat", "dog", "cow"])
    panel = widgets.relabel(table, file=folder / "decisions.csv")
    field = keyboard(panel)
    for length in range(len(keys) + 1):
        field.value = keys[:length]
    decides = {*" +-", *panel.letters.values()}
    assert len(audit.decisions(folder / "decisions.csv")) == sum(key in decides for key in keys)
    for length in range(len(keys), -1, -1):
        field.value = keys[:length]
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
    choice = next(part for part in every(panel) if isinstance(part, ipywidgets.Dropdown))
    assert [value for _, value in choice.options] == ["all classes", "cat", "dog"]
    panel.press(" ")
    choice.value = "dog"
    assert panel.place == 2 and "image 1 of 2" in text_of(panel)
    panel.press("-")
    panel.step(5)
    assert panel.place == 3
    choice.value = "cat"
    assert panel.place == 1 and "1 open" in text_of(panel)
    panel.undo()  # the last decision was about a dog: it is shown again
    assert panel.place == 2 and choice.value == "all classes"
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
    tiny = pixels_of(panel)
    assert max(tiny.size) >= 320
    original = np.asarray(Image.open(suspects["path"][0]))
    np.testing.assert_array_equal(np.asarray(tiny)[:: tiny.height // 8, :: tiny.width // 10], original)
    panel.step(1)
    assert "The picture cannot be shown." in text_of(panel) and "1.png" in text_of(panel)
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
    assert "The picture cannot be shown." in text_of(panel)
    assert panel._repr_mimebundle_()["image/png"]
    panel.press("-")
    assert decided(file) == [("0.png", "exclude", "")]
    panel.step(2)
    assert "cannot be shown" not in text_of(panel)


def test_deep_images_are_shown_by_the_levels_of_the_table(suspects, file):
    Image.fromarray(np.full((80, 80), 2000, np.uint16)).save(suspects["path"][0])
    panel = widgets.relabel(suspects.assign(levels="0-4000"), file=file)
    assert np.asarray(pixels_of(panel)).mean() == pytest.approx(127.5, abs=1)


def test_names_are_shown_as_they_are(suspects, file):
    panel = widgets.relabel(suspects.assign(note="<script>"), file=file)
    panel.step(1)
    assert "&lt;b&gt;cow&lt;/b&gt;" in text_of(panel) and "&lt;script&gt;" in text_of(panel)
    assert "<script>" not in text_of(panel)


def test_a_picture_stands_in_where_widgets_do_not_run(suspects, file, monkeypatch):
    panel = widgets.relabel(suspects, file=file)
    view = "application/vnd.jupyter.widget-view+json"
    monkeypatch.setenv("CNNLAB_QUIET", "1")
    bundle = panel._repr_mimebundle_()
    assert view not in bundle
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).width > 300
    monkeypatch.setattr("cnnlab.widgets.exploring.is_quiet", lambda: False)
    assert {view, "image/png", "text/plain"} <= set(panel._repr_mimebundle_())


def test_many_classes_are_chosen_from_a_list(tmp_path, file):
    Image.new("RGB", (9, 9)).save(tmp_path / "1.png")
    names = [f"class {number:02d}" for number in range(60)]
    table = pd.DataFrame({"path": [str(tmp_path / "1.png")], "label": pd.Categorical(["class 07"], categories=names)})
    panel = widgets.relabel(table, file=file)
    choice = next(part for part in every(panel) if isinstance(part, ipywidgets.Combobox))
    choice.value = "class 42"
    assert decided(file) == [("1.png", "relabel", "class 42")]
    assert choice.value == ""


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

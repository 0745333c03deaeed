"""The model card: what it says, and that no name from the data becomes more than text."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cnnlab import experiments, metrics, models, serving
from cnnlab.serving.cards import escaped

EVIL = ['<script>alert("x")</script>', "a|b`c`", "[click](https://evil.example)", "**bold**\n# title\u202e"]


class Tags(HTMLParser):
    """Collects the tags and links of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.found += [value for name, value in attrs if name in ("href", "src")]


def rendered(text):
    """The card as HTML, by the library that nbconvert renders notebooks with."""
    import mistune

    return mistune.create_markdown(plugins=["table", "url", "strikethrough"])(text)


@pytest.fixture(scope="module")
def exported(digits_model, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "digits"
    serving.export(digits_model, folder, check=digits[digits["split"] == "val"])
    return folder


def test_an_export_explains_itself(exported, digits_model, digits):
    text = (exported / "README.md").read_text(encoding="utf-8")
    for title in ("# Model card", "## Purpose", "## Data", "## Scores", "## Groups", "## Limits", "## Files", "## Lic"):
        assert title in text
    val = experiments.predict(digits_model, digits[digits["split"] == "val"])
    scores = metrics.scores(val, bootstrap=1000, seed=0).set_index("metric").loc["accuracy"]
    assert f"| accuracy | {scores['value']:.3f} ({scores['low']:.3f} to {scores['high']:.3f}) |" in text
    assert f"On {len(val)} images of the split val." in text
    assert "model.tflite" in text
    assert "calibrated with the temperature" in text


def test_a_card_tells_splits_groups_and_ones_own_words(exported, digits_model, digits):
    test = digits[digits["split"] == "test"]
    predictions = experiments.predict(digits_model, test).assign(desk=["left", "right"] * (len(test) // 2))
    about = {
        "purpose": "Reads *digits*.",
        "licence": "CC BY 4.0",
        "limits": "Small images only.",
        "data": "scikit-learn",
    }
    path = serving.card(exported, predictions, table=digits, by="desk", about=about)
    text = path.read_text(encoding="utf-8")
    for words in (r"Reads \*digits\*.", "CC BY 4.0", "Small images only.", "scikit-learn", "model.tflite"):
        assert words in text
    assert "of the split test" in text
    left = predictions[predictions["desk"] == "left"]
    accuracy = (left["label"].astype(str) == left["predicted"].astype(str)).mean()
    assert re.search(rf"\| left \| {accuracy:.3f} \(.*\) \| {len(left)} \|", text)
    counts = pd.crosstab(digits["label"], digits["split"])
    assert "| class | test | train | val |" in text
    assert f"| 3 | {counts.loc['3', 'test']} | {counts.loc['3', 'train']} | {counts.loc['3', 'val']} |" in text


def test_names_stay_text(digits, tmp_path):
    names = dict(zip(sorted(digits["label"].unique())[:4], EVIL, strict=True))
    table = digits[digits["label"].isin(list(names))].copy()
    table["label"] = pd.Categorical(table["label"].astype(str).map(names), categories=EVIL)
    table["split"] = np.where(np.arange(len(table)) % 2, "<img src=x>", "val")
    table["camera|1"] = "<b>north</b> https://evil.example"
    model = models.small_cnn(image_size=(8, 8), classes=EVIL, filters=(4,))
    serving.export(model, tmp_path, formats=["keras"], check=table)
    predictions = experiments.predict(model, table)
    for text in (
        (tmp_path / "README.md").read_text(encoding="utf-8"),
        serving.card(
            tmp_path,
            predictions,
            table=table,
            by="camera|1",
            about=dict.fromkeys(["purpose", "licence"], EVIL[0] + EVIL[2]),
        ).read_text(encoding="utf-8"),
    ):
        page = Tags()
        page.feed(rendered(text))
        allowed = {"h1", "h2", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
        assert set(page.found) <= allowed, set(page.found) - allowed
        rows = [line for line in text.splitlines() if line.startswith("|")]
        blocks = re.split(r"\n\n", text)
        for block in blocks:
            if block.startswith("|"):
                widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
                assert len(widths) == 1
        assert rows
        assert "\u202e" not in text


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "größe 3",
        "猫",
        "x" * 300,
        "",
        "a\x00b",
        "- a",
        "# a",
        "1. first",
        "> a",
        "+ b",
        "www.example.com",
        "user@host",
    ],
)
def test_escaped_names_are_one_line(name):
    text = escaped(name)
    assert "\n" not in text
    assert "\x00" not in text
    assert len(text) <= 200
    assert "<ul" not in rendered(text)
    assert "<ol" not in rendered(text)
    assert "<a " not in rendered(text)
    if name in ("plain", "größe 3", "猫"):
        assert text == name


def test_a_card_of_another_model_is_refused(exported, digits, tmp_path):
    predictions = digits.assign(predicted=digits["label"])
    with pytest.raises(FileNotFoundError, match="Export the model first"):
        serving.card(tmp_path, predictions)
    with pytest.raises(ValueError, match="'license'"):
        serving.card(exported, predictions, about={"license": "MIT"})
    fewer = predictions[predictions["label"].isin(["1", "2"])]
    fewer = fewer.assign(label=fewer["label"].cat.remove_unused_categories())
    with pytest.raises(ValueError, match="the export's classes"):
        serving.card(exported, fewer)

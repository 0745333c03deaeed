"""Figures of groups and of remedies: every number of the table is where it should be."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cnnlab import fairness, plots
from cnnlab.plots.style import GREEN, GREY, RED


@pytest.fixture
def table():
    label = pd.Categorical(["ok", "crack"] * 75)
    cameras = ["north"] * 60 + ["south $1$"] * 70 + ["attic"] * 20
    table = pd.DataFrame({"label": label, "predicted": label, "camera": cameras, "shift": ["day", "day", "night"] * 50})
    table.loc[60:90:3, "predicted"] = "ok"
    return table


def lines(ax, marker):
    return [line for line in ax.lines if (line.get_marker() == "o") == marker and len(line.get_xdata()) == 2 - marker]


@pytest.mark.filterwarnings("ignore:Groups with fewer than")
def test_groups_shows_values_intervals_and_sizes(table):
    found = fairness.groups(table, "camera")
    ax = plots.groups(found)
    part = found[found["metric"] == "accuracy"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["attic (20)", "north (60)", r"south \$1\$ (70)"]
    assert [line.get_xdata()[0] for line in lines(ax, True)] == part["value"].tolist()
    assert [tuple(line.get_xdata()) for line in lines(ax, False)] == list(zip(part["low"], part["high"], strict=True))
    assert [line.get_alpha() for line in lines(ax, True)] == [0.35, 1.0, 1.0]
    assert "pale: too few images" in ax.get_xlabel()
    assert ax.get_legend() is None


@pytest.mark.filterwarnings("ignore:Groups with fewer than")
def test_groups_shows_classes_side_by_side_and_intersections(table):
    found = fairness.groups(table, ["camera", "shift"])
    ax = plots.groups(found, metric="true_positive_rate")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["crack", "ok"]
    assert ax.get_yticklabels()[0].get_text().startswith("attic, day (")
    own = plt.figure().gca()
    assert plots.groups(found, own, metric="true_positive_rate", positive="crack") is own
    part = found[(found["metric"] == "true_positive_rate") & (found["class"] == "crack")]
    assert [line.get_xdata()[0] for line in lines(own, True)] == part["value"].tolist()
    assert own.get_xlabel().startswith("true positive rate of crack")
    own.figure.canvas.draw()


@pytest.mark.filterwarnings("ignore:Groups with fewer than")
@pytest.mark.parametrize("options", [{"metric": "f1"}, {"metric": "true_positive_rate", "positive": "cracks"}])
def test_groups_refuses_what_is_not_there(table, options):
    with pytest.raises(ValueError, match=r"metrics of accuracy, selection_rate.*classes of all, crack, ok"):
        plots.groups(fairness.groups(table, "camera"), **options)


@pytest.mark.filterwarnings("ignore:Groups with fewer than")
def test_groups_of_a_repeated_index_are_drawn_the_same(table):
    found = fairness.groups(table, "camera")
    twice = found.set_axis([0] * len(found))
    values = [[line.get_xdata()[0] for line in lines(plots.groups(part), True)] for part in (found, twice)]
    assert values[0] == values[1]


def row(remedy, verdict, difference, metric="macro_f1"):
    moved = {"difference": difference, "difference_low": difference - 0.1, "difference_high": difference + 0.1}
    facts = {"remedy": remedy, "metric": metric, "images": 90, "value": 0.4 + difference, "low": 0.3, "high": 0.5}
    return facts | {"verdict": verdict} | ({} if remedy == "none" else moved)


def test_remedies_shows_differences_and_verdicts():
    rows = [("none", "baseline", 0.0), ("smote", "better", 0.2), ("focal", "noise", 0.05), ("mixup", "worse", -0.2)]
    scores = pd.DataFrame([row(*facts, metric) for metric in ("macro_f1", "calibration_error") for facts in rows])
    axes = plots.remedies(scores, metrics=["macro_f1", "calibration_error"])
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["smote", "focal", "mixup"]
    dots = lines(axes[0], True)
    np.testing.assert_allclose([line.get_xdata()[0] for line in dots], [0.2, 0.05, -0.2])
    assert [line.get_color() for line in dots] == [GREEN, GREY, RED]
    np.testing.assert_allclose(lines(axes[0], False)[0].get_xdata(), [0.1, 0.3])
    assert axes[0].get_title() == "macro F1, n = 90 images\nnone: 0.40 (0.30 to 0.50)"
    assert "right is better" in axes[0].get_xlabel()
    assert "left is better" in axes[1].get_xlabel()
    own = plt.figure().subplots(1, 1, squeeze=False)[0]
    assert plots.remedies(scores, own, metrics=["macro_f1"])[0] is own[0]


def test_remedies_refuses_what_is_not_there():
    scores = pd.DataFrame([row("none", "baseline", 0.0), row("smote", "better", 0.2)])
    with pytest.raises(ValueError, match=r"metrics of macro_f1\. Received: metrics=\['accuracy'\]"):
        plots.remedies(scores, metrics=["accuracy"])
    with pytest.raises(ValueError, match=r"remedies=\[\]"):
        plots.remedies(scores[scores["remedy"] == "none"], metrics=["macro_f1"])
    with pytest.raises(KeyError, match="expects a column 'remedy'"):
        plots.remedies(scores.drop(columns="remedy"))

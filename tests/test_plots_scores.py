"""Figures of scores: what they draw is what the tables say, and it stays legible at 2, 10 and 100 classes."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from test_metrics import drawn_table

from cnnlab import fairness, metrics, plots

STRANGE = ["$x_1$", "two\nlines", "猫の写真", "<b>&amp;</b>", "a" * 80, "naïve ∞ ✓ \U0001f600"]
FIGURES = {
    "confusion": plots.confusion,
    "per_class": lambda table, ax=None: plots.per_class(metrics.per_class(table, bootstrap=100), ax),
    "roc": lambda table, ax=None: plots.roc(metrics.roc(table), ax),
    "precision_recall": lambda table, ax=None: plots.precision_recall(metrics.precision_recall(table), ax),
    "reliability": lambda table, ax=None: plots.reliability(metrics.reliability(table), ax),
    "thresholds": lambda table, ax=None: plots.thresholds(
        metrics.thresholds(table, table["label"].cat.categories[0]), ax, show=("recall", "cost"), chosen=0.3
    ),
}


def table_of(classes, images=600):
    names = [f"class number {number}" for number in range(classes)]
    return drawn_table(images, classes, skill=2.5, names=names, seed=classes)


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def names_at(axis, figure):
    """The boxes of the names along an axis that are in view."""
    low, high = sorted(axis.get_view_interval())
    labels = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    return [text.get_window_extent(figure.canvas.get_renderer()) for place, text in labels if low <= place <= high]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_nothing_runs_into_anything_or_out_of_the_figure(name, classes):
    ax = FIGURES[name](table_of(classes))
    ax.figure.canvas.draw()
    for axis in (ax.xaxis, ax.yaxis):
        found = names_at(axis, ax.figure)
        assert not any(one.overlaps(other) for one, other in itertools.pairwise(found))
    whole = ax.figure.bbox
    for part in ax.figure.axes:
        box = part.get_tightbbox()
        assert box.x0 >= whole.x0 - 1
        assert box.y0 >= whole.y0 - 1
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1


@pytest.mark.parametrize("name", FIGURES)
def test_strange_names_and_given_axes(name, tmp_path):
    ax = plt.figure().gca()
    table = drawn_table(200, len(STRANGE), names=STRANGE)
    assert FIGURES[name](table, ax) is ax
    ax.figure.savefig(tmp_path / "figure.png")


def test_confusion_writes_every_count_and_takes_either_table():
    table = table_of(4)
    counts = reference.confusion_matrix(table["label"].cat.codes, table["predicted"].cat.codes)
    for given in (table, metrics.confusion(table)):
        ax = plots.confusion(given)
        words = [text.get_text() for text in ax.texts]
        assert words == [str(count) for count in counts.ravel()]
        np.testing.assert_allclose(ax.images[0].get_array(), counts / counts.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("normalize", ["row", "column", "all"])
@pytest.mark.parametrize("right", [False, True])
def test_a_divided_confusion_shows_its_shares_and_the_true_number_of_images(normalize, right):
    table = table_of(4)
    table = table.assign(predicted=table["label"]) if right else table
    words = {"row": "true", "column": "pred", "all": "all"}[normalize]
    expected = reference.confusion_matrix(table["label"], table["predicted"], normalize=words)
    ax = plots.confusion(metrics.confusion(table, normalize=normalize))
    np.testing.assert_allclose(ax.images[0].get_array(), expected)
    assert [text.get_text() for text in ax.texts] == [f"{share:.2f}".removeprefix("0") for share in expected.ravel()]
    assert ax.get_title(loc="left") == "n = 600 images"
    assert ax.get_ylabel() == "label"
    assert "(" not in ax.get_yticklabels()[0].get_text()
    plain = pd.DataFrame(metrics.confusion(table, normalize=normalize).to_numpy(), table["label"].cat.categories)
    plain.columns = plain.index
    if not right:  # shares from elsewhere: how many images they are of is not known, and not said
        assert plots.confusion(plain).get_title(loc="left") == ""


def test_confusion_of_100_classes_lists_the_most_frequent_mistakes():
    table = table_of(100, images=3000)
    counts = metrics.confusion(table)
    ax = plots.confusion(table, mistakes=3)
    lines = ax.texts[0].get_text().splitlines()[3:]
    off = counts.to_numpy() - np.diag(np.diag(counts))
    for line, most in zip(lines, np.sort(off, axis=None)[::-1], strict=False):
        names, numbers = line.rsplit(": ", 1)
        label, guess = names.split(" → ")
        assert counts.loc[label, guess] == most
        assert numbers == f"{most} of {counts.loc[label].sum()}"
    assert len(lines) == 3


def test_confusion_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match="square table"):
        plots.confusion(pd.DataFrame({"a": [1, 2]}))
    with pytest.raises(ValueError, match="none of which has all"):
        plots.confusion(table_of(2).assign(predicted=None))


def test_per_class_draws_bars_and_intervals_and_the_worst_first():
    table = metrics.per_class(table_of(10), bootstrap=100)
    ax = plots.per_class(table, score="recall")
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], table["recall"])
    ends = np.array([line[:, 0] for line in ax.collections[0].get_segments()])
    np.testing.assert_allclose(ends, table[["recall_low", "recall_high"]])
    ax = plots.per_class(table, worst=3)
    worst = table["f1"].nsmallest(3)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], worst)
    assert ax.get_title("left") == "the worst 3 of 10 classes"
    assert [text.get_text().split(" (")[0] for text in ax.get_yticklabels()] == list(worst.index)
    with pytest.raises(ValueError, match="worst=0"):
        plots.per_class(table, worst=0)
    with pytest.raises(ValueError, match="score='accuracy'"):
        plots.per_class(table, score="accuracy")


def test_roc_and_precision_recall_are_scikit_learns_curves():
    table = table_of(3)
    for number, line in enumerate(plots.roc(metrics.roc(table)).lines[1:]):
        true, score = table["label"].cat.codes == number, table[f"p_class number {number}"]
        alarms, found, _ = reference.roc_curve(true, score, drop_intermediate=False)
        np.testing.assert_allclose(line.get_xydata(), np.stack([alarms, found], axis=1))
        area = f"{reference.roc_auc_score(true, score):.3f}"
        assert line.get_label() == f"class number {number} ({true.sum()} images): area {area}"
    for number, line in enumerate(plots.precision_recall(metrics.precision_recall(table)).lines):
        true, score = table["label"].cat.codes == number, table[f"p_class number {number}"]
        precision, recall, _ = reference.precision_recall_curve(true, score)
        np.testing.assert_allclose(line.get_xydata()[::-1], np.stack([recall, precision], axis=1))
        # the steps as they are drawn enclose the area that is written beside them
        x, y = line.get_xydata().T
        assert (np.diff(x) * y[1:]).sum() == pytest.approx(reference.average_precision_score(true, score))
        assert line.get_drawstyle() == "steps-pre"


def test_many_classes_name_the_worst():
    curves = metrics.roc(table_of(30))
    ax = plots.roc(curves, highlight=3)
    areas = curves.drop_duplicates("class").set_index("class")["area"]
    words = legend_of(ax)
    assert words[0].startswith("27 better classes: area ")
    assert [word.split(" (")[0] for word in words[1:]] == areas.nsmallest(3).index.tolist()
    assert len(ax.lines) == 31


def test_roc_can_be_enlarged():
    curves = metrics.roc(table_of(3))
    assert plots.roc(curves, up_to=0.1).get_xlim()[1] == pytest.approx(0.101)
    with pytest.raises(ValueError, match="up_to=5"):
        plots.roc(curves, up_to=5)


def test_a_prediction_table_is_told_the_way():
    table = table_of(2)
    with pytest.raises(KeyError, match=r"plots.roc\(metrics.roc\(predictions\)\)"):
        plots.roc(table)
    with pytest.raises(KeyError, match=r"plots.precision_recall\(metrics.precision_recall\(predictions\)\)"):
        plots.precision_recall(table)
    for draw in (plots.reliability, plots.thresholds, plots.learning_curve):
        with pytest.raises(KeyError, match=f"`plots.{draw.__name__}` expects a column"):
            draw(table)


def test_reliability_draws_points_intervals_and_images():
    table = metrics.reliability(table_of(10), bins=10)
    ax = plots.reliability(table)
    points = ax.lines[1].get_xydata()
    np.testing.assert_allclose(points, table[["confidence", "accuracy"]])
    ends = np.array([segment[:, 1] for segment in ax.containers[0][2][0].get_segments()])
    np.testing.assert_allclose(ends, table[["low", "high"]], atol=1e-12)
    bars = ax.child_axes[0].patches
    assert [bar.get_height() for bar in bars] == table["images"].tolist()
    assert [bar.get_x() for bar in bars] == table["left"].tolist()


def test_reliability_compares_several_tables():
    before = table_of(5)
    tables = {"before": before, "after": metrics.calibrate(before, on=0.5)}
    ax = plots.reliability({name: metrics.reliability(table) for name, table in tables.items()})
    assert legend_of(ax) == ["before", "after"]
    assert ax.get_xlabel() == "confidence (n = 600 images)"
    with pytest.raises(ValueError, match="Received none"):
        plots.reliability({})


def test_reliability_of_more_models_than_there_are_colours():
    table = metrics.reliability(table_of(5))
    ax = plots.reliability({f"model {number}": table for number in range(9)})
    assert legend_of(ax) == [f"model {number}" for number in range(9)]
    looks = {(container[0].get_color(), container[0].get_marker()) for container in ax.containers}
    assert len(looks) == 9


UNDER = ["_under", "__init__", "over"]


def test_names_that_begin_with_an_underline_are_in_every_legend():
    table = drawn_table(200, 3, names=UNDER).assign(camera=["a", "b"] * 100, split=["_train", "test"] * 100)
    reliable = metrics.reliability(table)
    figures = {
        "roc": plots.roc(metrics.roc(table)),
        "precision_recall": plots.precision_recall(metrics.precision_recall(table)),
        "reliability": plots.reliability(dict.fromkeys(UNDER, reliable)),
        "groups": plots.groups(fairness.groups(table, "camera"), metric="selection_rate"),
        "schedule": plots.schedule(dict.fromkeys(UNDER, lambda step: 0.1), steps=10),
    }
    for name, ax in figures.items():
        found = [text.strip().split(" (")[0] for text in legend_of(ax)]
        assert sorted(found) == sorted(UNDER), name
    assert [text.strip() for text in legend_of(plots.class_counts(table))] == ["test", "_train"]


def test_thresholds_draw_steps_that_hold_what_the_table_says():
    table = metrics.thresholds(table_of(3, images=40), "class number 1", miss_cost=7)
    ax = plots.thresholds(table, show=("precision", "recall", "cost"), chosen=0.25)
    recall = next(line for line in ax.lines if line.get_label() == "recall")
    x, y = recall.get_xydata().T
    score = table_of(3, images=40)
    positive = score["label"] == "class number 1"
    for threshold in (0.0, 0.1, 0.333, 0.7, 0.95, 1.0):
        drawn = y[np.searchsorted(x, threshold)]  # steps-pre: a value holds up to and with its own place
        assert drawn == pytest.approx((score.loc[positive, "p_class number 1"] >= threshold).mean())
    assert "chosen: 0.25" in legend_of(ax)
    right = next(other for other in ax.figure.axes if other is not ax)
    assert right.get_ylabel() == "cost, in your unit"
    assert f"n = 40 images, {positive.sum()} of the class" in ax.get_xlabel()
    with pytest.raises(ValueError, match="costs"):
        plots.thresholds(table, show=("costs",))


def test_learning_curve_draws_runs_and_their_means():
    table = pd.DataFrame(
        {
            "images": [50, 50, 100, 100] * 2,
            "repeat": [0, 1] * 4,
            "part": ["training"] * 4 + ["held out"] * 4,
            "scored": [50, 50, 100, 100, 80, 80, 80, 80],
            "accuracy": [1.0, 0.9, 0.9, 0.9, 0.5, 0.7, 0.7, 0.8],
        }
    )
    ax = plots.learning_curve(table)
    np.testing.assert_allclose(ax.lines[3].get_xydata(), [[50, 0.6], [100, 0.75]])
    assert len(ax.lines[2].get_xydata()) == 4
    assert legend_of(ax) == ["on the images learned from, 2 runs each", "held out (n = 80), 2 runs each"]
    assert list(ax.get_xticks()) == [50, 100]
    with pytest.raises(ValueError, match="Received: 'f1'"):
        plots.learning_curve(table, metric="f1")


def test_drawing_leaves_the_global_style_alone():
    before = plt.rcParams.copy()
    for draw in FIGURES.values():
        draw(table_of(2))
    assert plt.rcParams == before

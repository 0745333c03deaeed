"""Curves, thresholds, reliability and temperature, against scikit-learn and numbers counted by hand."""

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import sklearn.metrics as reference
from hypothesis import given, settings
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from test_metrics import drawn_table, prediction_table, quiet, tables_of_any_kind

from cnnlab import metrics

HAND = prediction_table(
    [1, 1, 0, 1, 0, 0, 0, 0],
    [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.4, 0.6], [0.6, 0.4], [0.8, 0.2], [0.9, 0.1]],
    ["ok", "crack"],
)


def test_thresholds_counted_by_hand():
    found = metrics.thresholds(HAND, "crack", miss_cost=10, false_alarm_cost=2)
    assert found["threshold"].tolist() == [np.inf, 0.9, 0.8, 0.7, 0.6, 0.4, 0.2, 0.1]
    assert found["misses"].tolist() == [3, 2, 1, 1, 0, 0, 0, 0]
    assert found["false_alarms"].tolist() == [0, 0, 0, 1, 2, 3, 4, 5]
    assert found["flagged"].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert found["cost"].tolist() == [30, 20, 10, 12, 4, 6, 8, 10]
    np.testing.assert_allclose(found["recall"], np.array([0, 1, 2, 2, 3, 3, 3, 3]) / 3)
    np.testing.assert_allclose(found["precision"], [np.nan, 1, 1, 2 / 3, 3 / 5, 3 / 6, 3 / 7, 3 / 8])
    np.testing.assert_allclose(found["f1"], [0, 2 / 4, 4 / 5, 4 / 6, 6 / 8, 6 / 9, 6 / 10, 6 / 11])
    np.testing.assert_allclose(found["false_positive_rate"], np.array([0, 0, 0, 1, 2, 3, 4, 5]) / 5)


@pytest.mark.parametrize(
    ("purpose", "threshold"),
    [
        ({"recall": 2 / 3}, 0.8),
        ({"recall": 0.67}, 0.6),
        ({"recall": 1.0}, 0.6),
        ({"precision": 1.0}, 0.8),
        ({"precision": 0.6}, 0.6),
        ({"precision": 0.61}, 0.7),
        ({"miss_cost": 10, "false_alarm_cost": 2}, 0.6),
        ({"miss_cost": 1.9, "false_alarm_cost": 1}, 0.8),
        ({"miss_cost": 2.1, "false_alarm_cost": 1}, 0.6),
        ({"miss_cost": 0.0}, np.inf),
    ],
)
def test_a_threshold_serves_its_purpose(purpose, threshold):
    assert metrics.choose_threshold(HAND, "crack", **purpose) == threshold


def test_a_chosen_threshold_keeps_its_word_on_the_same_images():
    table = drawn_table(400, 4, skill=1.2, seed=5)
    threshold = metrics.choose_threshold(table, "class 2", recall=0.9)
    found = metrics.per_class(metrics.apply_threshold(table, "class 2", threshold))
    assert found.loc["class 2", "recall"] >= 0.9
    stricter = metrics.apply_threshold(table, "class 2", np.nextafter(threshold, 1))
    assert metrics.per_class(stricter).loc["class 2", "recall"] < 0.9


def test_apply_threshold_falls_back_on_the_likeliest_other_class():
    table = prediction_table([0, 1, 2], [[0.2, 0.5, 0.3], [0.1, 0.3, 0.6], [0.45, 0.35, 0.2]])
    found = metrics.apply_threshold(table, "class 1", 0.4)
    assert found["predicted"].tolist() == ["class 1", "class 2", "class 0"]
    assert found["confidence"].tolist() == [0.5, 0.6, 0.45]
    never = metrics.apply_threshold(table, "class 1", np.inf)
    assert never["predicted"].tolist() == ["class 2", "class 2", "class 0"]


def test_apply_threshold_leaves_rows_without_probabilities_empty():
    table = drawn_table(10, 3)
    table.loc[4, ["p_class 0", "p_class 1", "p_class 2"]] = np.nan
    found = metrics.apply_threshold(table, "class 1", 0.3)
    assert found["predicted"].isna().tolist() == [row == 4 for row in range(10)]
    assert np.isnan(found.loc[4, "confidence"])


@settings(max_examples=40, deadline=None)
@given(tables_of_any_kind())
def test_curves_equal_scikit_learns(table):
    true = table["label"].cat.codes.to_numpy()
    drawn = [k for k in range(len(table["label"].cat.categories)) if 0 < (true == k).sum() < len(true)]
    if not drawn:
        for word in (metrics.roc, metrics.precision_recall):
            with pytest.raises(ValueError, match="at least two classes"):
                word(table)
        return
    roc, precision_recall = metrics.roc(table), metrics.precision_recall(table)
    assert roc["class"].unique().tolist() == [f"class {k}" for k in drawn]
    for k in drawn:
        score = table[f"p_class {k}"].to_numpy()
        part = roc[roc["class"] == f"class {k}"]
        alarms, hits, levels = reference.roc_curve(true == k, score, drop_intermediate=False)
        np.testing.assert_allclose(part["false_positive_rate"], alarms)
        np.testing.assert_allclose(part["true_positive_rate"], hits)
        np.testing.assert_allclose(part["threshold"], levels)
        np.testing.assert_allclose(part["area"], reference.roc_auc_score(true == k, score))
        part = precision_recall[precision_recall["class"] == f"class {k}"].iloc[::-1]
        precision, recall, _ = quiet(reference.precision_recall_curve, true == k, score)
        np.testing.assert_allclose(part["precision"], precision)
        np.testing.assert_allclose(part["recall"], recall)
        np.testing.assert_allclose(part["area"], reference.average_precision_score(true == k, score))
        np.testing.assert_allclose(part["share"], (true == k).mean())


def test_reliability_equals_scikit_learns_and_its_gaps_make_the_calibration_error():
    table = drawn_table(700, 4, skill=1.5)
    found = metrics.reliability(table, bins=10)
    right = (table["label"] == table["predicted"]).to_numpy()
    from sklearn.calibration import calibration_curve

    accuracy, confidence = calibration_curve(right, table["confidence"], n_bins=10)
    np.testing.assert_allclose(found["accuracy"], accuracy)
    np.testing.assert_allclose(found["confidence"], confidence)
    assert found["images"].sum() == 700
    assert ((found["low"] <= found["accuracy"]) & (found["accuracy"] <= found["high"])).all()
    found = metrics.reliability(table)
    error = np.average((found["accuracy"] - found["confidence"]).abs(), weights=found["images"])
    assert error == pytest.approx(metrics.scores(table).set_index("metric").loc["calibration_error", "value"])


@pytest.mark.parametrize(("confidence", "left"), [(0.0, 0.0), (0.1, 0.0), (0.1000001, 0.1), (1.0, 0.9)])
def test_bins_are_closed_at_their_right(confidence, left):
    table = drawn_table(3, 2).assign(confidence=confidence)
    assert metrics.reliability(table, bins=10)["left"].tolist() == [pytest.approx(left)]


def sharpened(images, classes, factor, seed=0):
    """A calibrated model whose logits were then multiplied."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(images, classes)) * 2
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = (generator.random((images, 1)) > np.cumsum(chance, axis=1)).sum(axis=1)
    sharp = np.exp(factor * logits) / np.exp(factor * logits).sum(axis=1, keepdims=True)
    return prediction_table(np.minimum(true, classes - 1), sharp)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_temperature_finds_the_factor_that_was_put_in(classes, factor):
    assert metrics.temperature(sharpened(6000, classes, factor)) == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize("classes", [2, 4])
def test_temperature_is_where_the_log_loss_is_least(classes):
    table = sharpened(300, classes, 2.0)

    def loss(factor):
        return metrics.scores(metrics.calibrate(table, on=factor)).set_index("metric").loc["log_loss", "value"]

    best = scipy.optimize.minimize_scalar(loss, bounds=(0.2, 10), method="bounded").x
    assert metrics.temperature(table) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("classes", [2, 5])
def test_temperature_is_scikit_learns(classes):
    table = sharpened(2000, classes, 2.5, seed=4)
    logits = np.log(table[[f"p_class {k}" for k in range(classes)]].to_numpy())

    class Logits(ClassifierMixin, BaseEstimator):
        def fit(self, X, y, sample_weight=None):
            self.classes_ = np.unique(y)
            return self

        def decision_function(self, X):
            return X[:, 1] - X[:, 0] if classes == 2 else X

        def predict(self, X):
            return X.argmax(axis=1)

    everything = np.arange(len(table))
    model = CalibratedClassifierCV(Logits(), method="temperature", ensemble=False, cv=[(everything, everything)])
    expected = model.fit(logits, table["label"].cat.codes.to_numpy()).predict_proba(logits)
    found = metrics.calibrate(table, on=table)[[f"p_class {k}" for k in range(classes)]]
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop(columns="label"),
        lambda table: table.assign(label=table["label"].astype(str)),
        lambda table: table.assign(label=None),
        lambda table: table.drop(columns="label").assign(predicted=table["predicted"].astype(str)),
    ],
)
def test_images_without_labels_or_with_text_are_calibrated_and_thresholded(change):
    table = drawn_table(40, 3)
    columns = ["p_class 0", "p_class 1", "p_class 2", "confidence"]
    expected = metrics.calibrate(table, on=2.0)
    pd.testing.assert_frame_equal(metrics.calibrate(change(table), on=2.0)[columns], expected[columns])
    called = metrics.apply_threshold(change(table), "class 1", 0.2)
    assert called["predicted"].tolist() == metrics.apply_threshold(table, "class 1", 0.2)["predicted"].tolist()


def test_calibrating_on_validation_mends_the_test_images():
    validation, test = sharpened(1500, 5, 3.0, seed=1), sharpened(1500, 5, 3.0, seed=2)
    mended = metrics.calibrate(test, on=validation)
    before, after = (metrics.scores(table).set_index("metric")["value"] for table in (test, mended))
    assert after["calibration_error"] < before["calibration_error"] / 3
    assert after["log_loss"] < before["log_loss"]
    assert after["accuracy"] == before["accuracy"]
    np.testing.assert_allclose(mended[[f"p_class {k}" for k in range(5)]].sum(axis=1), 1)
    assert (mended["predicted"] == test["predicted"]).all()


def test_temperature_with_a_class_that_validation_lacks():
    table = sharpened(2000, 4, 2.0)
    part = table[table["label"] != "class 3"]
    assert metrics.temperature(part) == pytest.approx(2.0, rel=0.35)


def test_no_mistake_teaches_no_temperature():
    table = prediction_table([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    with pytest.warns(UserWarning, match="no mistake on the 3 images"):
        assert metrics.temperature(table) == 1.0


def test_calibrate_keeps_rows_without_probabilities_and_certain_ones():
    table = prediction_table([0, 1, 1], [[1.0, 0.0], [0.2, 0.8], [0.3, 0.7]])
    table.loc[2, ["p_class 0", "p_class 1", "confidence"]] = np.nan
    found = metrics.calibrate(table, on=2.0)
    assert found.loc[0, "p_class 0"] == pytest.approx(1)
    assert found.loc[1, "confidence"] == pytest.approx(2 / 3)
    assert found.loc[2, ["p_class 0", "confidence"]].isna().all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t: metrics.thresholds(t, "cracks"), "Received: 'cracks'"),
        (lambda t: metrics.thresholds(t[t["label"] == "ok"], "crack"), "images of 'crack'. Received none"),
        (lambda t: metrics.thresholds(t, "crack", miss_cost=-1), "from 0 up"),
        (lambda t: metrics.thresholds(t[["label", "predicted"]], "crack"), "expects the columns p_<class>"),
        (lambda t: metrics.choose_threshold(t, "crack"), "expects one purpose"),
        (lambda t: metrics.choose_threshold(t, "crack", recall=0.9, precision=0.9), "Received: recall, precision"),
        (lambda t: metrics.choose_threshold(t, "crack", recall=90), "share above 0 and up to 1"),
        (
            lambda t: metrics.choose_threshold(t, "crack", recall=0.9, false_alarm_cost=5),
            r"leaves nothing to weigh\. Received: recall=0\.9, false_alarm_cost=5\. Give both costs",
        ),
        (lambda t: metrics.choose_threshold(t, "crack", precision=0.9, false_alarm_cost=1.0), "Give both costs"),
        (lambda t: metrics.choose_threshold(t, "crack", false_alarm_cost=5), "expects one purpose"),
        (lambda t: metrics.choose_threshold(t, "crack", miss_cost=np.nan), "from 0 up"),
        (lambda t: metrics.apply_threshold(t, "crack", 40), r"0 to 1, or inf\. .*=40; did you mean 0\.4\?"),
        (lambda t: metrics.apply_threshold(t, "crack", -0.1), "threshold=-0.1"),
        (lambda t: metrics.apply_threshold(t, "crack", np.nan), "threshold=nan"),
        (lambda t: metrics.choose_threshold(t, "ok", precision=1.0), None),
        (lambda t: metrics.apply_threshold(t, "cracks", 0.5), "Received: 'cracks'"),
        (lambda t: metrics.apply_threshold(t[["label"]], "crack", 0.5), "Received none"),
        (lambda t: metrics.roc(t[["label", "predicted"]]), "expects the columns p_<class>"),
        (lambda t: metrics.temperature(t[["label", "predicted"]]), "Received none"),
        (lambda t: metrics.calibrate(t, on=0.0), "above 0"),
        (lambda t: metrics.calibrate(t, on=np.inf), "above 0"),
        (lambda t: metrics.calibrate(t[["label"]], on=2.0), "Received none"),
        (lambda t: metrics.reliability(t, bins=0), "from 1 up"),
    ],
)
def test_impossible_wishes_are_refused_in_words(call, words):
    if words is None:
        assert call(HAND) == 0.6
        return
    with pytest.raises(ValueError, match=words):
        call(HAND)


def test_a_precision_out_of_reach_is_said_with_the_best_there_is():
    table = prediction_table([0, 1], [[0.1, 0.9], [0.9, 0.1]])
    with pytest.raises(ValueError, match=r"the best is 0\.500"):
        metrics.choose_threshold(table, "class 1", precision=0.8)


def test_reliability_needs_a_confidence():
    with pytest.raises(KeyError, match="expects a column 'confidence'"):
        metrics.reliability(HAND.drop(columns="confidence"))


def test_classes_that_are_numbers_can_be_called():
    table = drawn_table(60, 3, names=[10, 20, 30])
    assert pd.api.types.is_float(metrics.choose_threshold(table, 20, recall=0.8))
    assert 20 in set(metrics.apply_threshold(table, 20, 0.1)["predicted"])

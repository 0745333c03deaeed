"""Scores against scikit-learn and ten lines of numpy: random, single-class, empty-class and tied tables."""

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier

from cnnlab import metrics
from cnnlab.metrics.score import off_diagonal


def prediction_table(true, chance, names=None):
    """A prediction table from class numbers and probabilities."""
    chance = np.asarray(chance, float)
    names = names or [f"class {number}" for number in range(chance.shape[1])]
    table = pd.DataFrame(
        {
            "path": [f"{row}.png" for row in range(len(true))],
            "label": pd.Categorical.from_codes(np.asarray(true), names),
            "predicted": pd.Categorical.from_codes(chance.argmax(axis=1), names),
            "confidence": chance.max(axis=1),
        }
    )
    columns = pd.DataFrame(chance, table.index, [f"p_{name}" for name in names])
    return pd.concat([table, columns], axis=1)


def drawn_table(images, classes, *, skill=1.5, seed=0, names=None, prior=None):
    """Predictions of a model that is as good as `skill` says."""
    generator = np.random.default_rng(seed)
    true = generator.choice(classes, images, p=prior)
    logits = generator.normal(size=(images, classes))
    logits[np.arange(images), true] += skill
    chance = np.exp(logits)
    return prediction_table(true, chance / chance.sum(axis=1, keepdims=True), names)


@st.composite
def tables_of_any_kind(draw):
    """Few images, 2 to 5 classes; coarse probabilities, so that ties are many; often empty or single classes."""
    classes = draw(st.integers(2, 5))
    images = draw(st.integers(1, 25))
    used = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes, unique=True))
    true = draw(st.lists(st.sampled_from(used), min_size=images, max_size=images))
    weights = draw(
        st.lists(
            st.lists(st.integers(0, 4), min_size=classes, max_size=classes).filter(any),
            min_size=images,
            max_size=images,
        )
    )
    chance = np.array(weights, float)
    return prediction_table(true, chance / chance.sum(axis=1, keepdims=True))


def quiet(function, *arguments, **options):
    """Calls scikit-learn without its warnings about classes that are absent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def expected_scores(table, top=3):
    """Every score by scikit-learn, or by numpy where it has none."""
    names = list(table["label"].cat.categories)
    true, guess = table["label"].cat.codes.to_numpy(), table["predicted"].cat.codes.to_numpy()
    chance = table[[f"p_{name}" for name in names]].to_numpy()
    labels = np.arange(len(names))
    found = {
        "accuracy": reference.accuracy_score(true, guess),
        "balanced_accuracy": quiet(reference.balanced_accuracy_score, true, guess),
        "kappa": quiet(reference.cohen_kappa_score, true, guess),
        "mcc": quiet(reference.matthews_corrcoef, true, guess),
        "log_loss": quiet(reference.log_loss, true, chance, labels=labels),
        "brier": quiet(reference.brier_score_loss, true, chance, labels=labels),
    }
    for average in ("macro", "weighted"):
        parts = quiet(reference.precision_recall_fscore_support, true, guess, average=average, zero_division=0)
        found |= {f"{average}_{name}": part for name, part in zip(("precision", "recall", "f1"), parts, strict=False)}
    if len(names) > top:
        found[f"top_{top}_accuracy"] = quiet(reference.top_k_accuracy_score, true, chance, k=top, labels=labels)
    roc = [reference.roc_auc_score(true == k, chance[:, k]) for k in labels if 0 < (true == k).sum() < len(true)]
    average = [quiet(reference.average_precision_score, true == k, chance[:, k]) for k in labels if (true == k).any()]
    found["roc_auc"] = np.mean(roc) if roc else np.nan
    found["pr_auc"] = np.mean(average)
    found["calibration_error"] = expected_calibration_error(table["confidence"].to_numpy(), true == guess)
    return found


def expected_calibration_error(confidence, right, bins=15):
    error = 0.0
    for low, high in zip(np.linspace(0, 1, bins + 1)[:-1], np.linspace(0, 1, bins + 1)[1:], strict=True):
        inside = (confidence > low + 1e-12) & (confidence <= high + 1e-12)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return error


@settings(max_examples=80, deadline=None)
@given(tables_of_any_kind())
def test_every_score_equals_scikit_learns(table):
    found = metrics.scores(table).set_index("metric")["value"]
    expected = expected_scores(table)
    assert set(found.index) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


@settings(max_examples=40, deadline=None)
@given(tables_of_any_kind())
def test_per_class_and_confusion_equal_scikit_learns(table):
    labels = np.arange(len(table["label"].cat.categories))
    true, guess = table["label"].cat.codes, table["predicted"].cat.codes
    precision, recall, f1, support = quiet(
        reference.precision_recall_fscore_support, true, guess, labels=labels, zero_division=0
    )
    found = metrics.per_class(table)
    occurs = np.isin(labels, true) | np.isin(labels, guess)
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(found[name], np.where(occurs, values, np.nan))
    assert found["support"].tolist() == support.tolist()
    for normalize, words in ((None, None), ("row", "true"), ("column", "pred"), ("all", "all")):
        expected = quiet(reference.confusion_matrix, true, guess, labels=labels, normalize=words)
        np.testing.assert_allclose(metrics.confusion(table, normalize=normalize).fillna(0), expected)


def test_a_real_size_equals_scikit_learn_too():
    table = drawn_table(3000, 12, seed=1)
    found = metrics.scores(table).set_index("metric")["value"]
    for name, value in expected_scores(table).items():
        assert found[name] == pytest.approx(value), name


def test_scores_without_probabilities_are_those_of_the_labels():
    table = drawn_table(50, 3)[["label", "predicted"]]
    assert "log_loss" not in set(metrics.scores(table)["metric"])
    assert {"accuracy", "mcc"} <= set(metrics.scores(table)["metric"])


def test_predicted_may_be_text_or_categories_in_another_order():
    table = drawn_table(60, 3)
    expected = metrics.scores(table)
    as_text = table.assign(predicted=table["predicted"].astype(str))
    turned = table.assign(predicted=table["predicted"].cat.reorder_categories(["class 2", "class 0", "class 1"]))
    pd.testing.assert_frame_equal(metrics.scores(as_text), expected)
    pd.testing.assert_frame_equal(metrics.scores(turned), expected)


def test_classes_may_be_numbers():
    table = drawn_table(60, 3, names=[10, 20, 30])
    assert metrics.scores(table)["value"].iloc[0] == (table["label"] == table["predicted"]).mean()
    assert metrics.confusion(table).index.tolist() == [10, 20, 30]


def test_thresholded_predictions_count_not_the_likeliest():
    table = drawn_table(60, 2)
    flagged = metrics.apply_threshold(table, "class 1", 0.01)
    found = metrics.scores(flagged).set_index("metric")["value"]
    assert found["accuracy"] == (flagged["predicted"] == flagged["label"]).mean()
    assert found["roc_auc"] == metrics.scores(table).set_index("metric")["value"]["roc_auc"]


def test_by_scores_each_part_apart():
    table = drawn_table(200, 3).assign(camera=["north", "south"] * 100, shift=["day"] * 150 + ["night"] * 50)
    found = metrics.scores(table, by="camera", bootstrap=200)
    assert list(found.columns) == ["camera", "images", "metric", "value", "low", "high"]
    south = table[table["camera"] == "south"]
    alone = metrics.scores(south, bootstrap=200)
    part = found[found["camera"] == "south"].reset_index(drop=True)
    pd.testing.assert_frame_equal(part[["metric", "value", "low", "high"]], alone)
    assert (part["images"] == 100).all()
    both = metrics.scores(table, by=["camera", "shift"])
    assert both.groupby(["camera", "shift"])["images"].first().tolist() == [75, 25, 75, 25]


@pytest.mark.parametrize("column", ["label", "predicted", "class", "group", "split"])
def test_by_takes_any_column_that_is_none_of_its_own(column):
    table = drawn_table(60, 3).assign(**{"class": "x", "group": list(range(30)) * 2, "split": "test"})
    found = metrics.scores(table, by=column, bootstrap=100)
    assert found[found["metric"] == "accuracy"]["images"].sum() == 60
    assert found.groupby(column, observed=True).size().index.tolist() == sorted(table[column].unique())


def test_a_repeated_index_changes_nothing():
    table = drawn_table(60, 3, seed=2)
    twice = table.set_axis([0, 1, 2] * 20)
    pd.testing.assert_frame_equal(metrics.scores(twice, bootstrap=100), metrics.scores(table, bootstrap=100))
    pd.testing.assert_frame_equal(metrics.per_class(twice, bootstrap=100), metrics.per_class(table, bootstrap=100))
    pd.testing.assert_frame_equal(metrics.compare(twice, twice), metrics.compare(table, table))
    found, expected = (metrics.apply_threshold(one, "class 1", 0.3)["predicted"] for one in (twice, table))
    assert found.tolist() == expected.tolist()


def test_mistakes_are_the_cells_off_the_diagonal():
    table = drawn_table(300, 4, skill=1.0)
    found = off_diagonal(metrics.confusion(table))
    labels, guesses = table["label"].cat.codes, table["predicted"].cat.codes
    counts = reference.confusion_matrix(labels, guesses)
    assert found["images"].sum() == (labels != guesses).sum()
    assert found["images"].is_monotonic_decreasing
    for pair in found.itertuples():
        row, column = int(pair.label[-1]), int(pair.predicted[-1])
        assert pair.images == counts[row, column]
        assert pair.share == pytest.approx(counts[row, column] / counts[row].sum())
    assert off_diagonal(metrics.confusion(table.assign(predicted=table["label"]))).empty


def test_rows_without_a_prediction_are_left_out_and_said_so():
    table = drawn_table(40, 3)
    holes = table.copy()
    holes.loc[[0, 5], ["predicted", "confidence"]] = None
    with pytest.warns(UserWarning, match="leaves out 2 of 40 rows"):
        found = metrics.scores(holes)
    pd.testing.assert_frame_equal(found, metrics.scores(table.drop([0, 5])))


def test_nothing_is_changed_in_place():
    table = drawn_table(30, 3).assign(camera="a")
    before = table.copy(deep=True)
    metrics.scores(table, by="camera", bootstrap=100)
    metrics.per_class(table, bootstrap=100)
    metrics.compare(table, table, bootstrap=100)
    metrics.calibrate(table, on=2.0)
    metrics.apply_threshold(table, "class 1", 0.4)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda t: t.drop(columns="predicted"), KeyError, "expects a column 'predicted'"),
        (lambda t: t.assign(label=t["label"].astype(str)), TypeError, "Categorical"),
        (lambda t: t.assign(predicted="bird"), ValueError, "Received also: 'bird'"),
        (lambda t: t.assign(predicted=None), ValueError, "none of which has all"),
        (lambda t: t.iloc[:0], ValueError, "Received 0 rows"),
        (lambda t: t.drop(columns="p_class 1"), KeyError, "Missing: p_class 1"),
        (lambda t: t.assign(**{"p_class 1": 3.0}), ValueError, "add up to 1"),
        (lambda t: t.assign(**{"p_class 1": np.nan}), ValueError, "add up to 1"),
        (lambda t: t.assign(confidence=97.0), ValueError, "`confidence` from 0 to 1"),
        (lambda t: t.assign(confidence=np.nan), ValueError, "`confidence` from 0 to 1"),
    ],
)
def test_impossible_tables_are_refused_in_words(change, error, words):
    with pytest.raises(error, match=words):
        metrics.scores(change(drawn_table(20, 3)))


def test_wrong_options_are_refused_in_words():
    table = drawn_table(20, 3).assign(site="only one")
    with pytest.raises(ValueError, match="normalize='rows'"):
        metrics.confusion(table, normalize="rows")
    with pytest.raises(ValueError, match="at least 100 resamples"):
        metrics.scores(table, bootstrap=10)
    with pytest.raises(ValueError, match=r"names columns of its result metric, value, .* Received: by='metric'"):
        metrics.scores(table.assign(metric="a"), by="metric")
    with pytest.raises(KeyError, match="expects a column 'sites'"):
        metrics.scores(table, by="sites")


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda t: metrics.scores(t, top=0), ValueError, "`top` expects a whole number of classes from 1.*: 0"),
        (lambda t: metrics.scores(t, top=-1), ValueError, "`top` expects"),
        (lambda t: metrics.baselines(t, top=1.5), ValueError, "`top` expects"),
        (lambda t: metrics.compare(t, t, top=0), ValueError, "`top` expects"),
        (lambda t: metrics.scores(t, bootstrap=1000.0), ValueError, "`bootstrap` expects 0, or at least 100"),
        (lambda t: metrics.per_class(t, bootstrap=True), ValueError, "`bootstrap` expects 0, or at least 100"),
        (lambda t: metrics.compare(t, t, bootstrap=0), ValueError, "`bootstrap` expects a whole number of resamples"),
        (lambda t: metrics.scores(t, bootstrap=100, seed=-1), TypeError, "whole number from 0 as `seed`.*: -1"),
        (lambda t: metrics.reliability(t, bins=2.5), ValueError, "`bins` expects a whole number.*bins=2.5"),
    ],
)
def test_impossible_numbers_are_refused_in_words(ask, error, words):
    with pytest.raises(error, match=words):
        ask(drawn_table(20, 3))


def test_baselines_equal_dummy_classifiers():
    table = drawn_table(500, 4, prior=[0.6, 0.2, 0.15, 0.05])
    true = table["label"].cat.codes.to_numpy()
    features = np.zeros((len(true), 1))
    dummy = DummyClassifier(strategy="prior").fit(features, true)
    constant = prediction_table(true, dummy.predict_proba(features))
    found = metrics.baselines(table).set_index("metric")
    assert found["majority"].to_dict() == pytest.approx(expected_scores(constant))
    guesses = np.random.default_rng(0).choice(4, (300, len(true)), p=np.bincount(true) / len(true))
    scores = [reference.f1_score(true, guess, average="macro") for guess in guesses]
    assert found.loc["macro_f1", "guess"] == pytest.approx(np.mean(scores), abs=0.005)
    assert found.loc["accuracy", "guess"] == pytest.approx((guesses == true).mean(), abs=0.005)
    assert found.loc["roc_auc"].tolist() == [0.5, 0.5]


def test_baselines_of_a_single_class():
    table = prediction_table([0, 0, 0], [[1, 0], [1, 0], [0, 1]])
    found = metrics.baselines(table).set_index("metric")
    assert found.loc["accuracy"].tolist() == [1, 1]
    assert np.isnan(found.loc["roc_auc", "majority"])

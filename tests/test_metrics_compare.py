"""Comparison of two models: what it says when they differ, how often it cries wolf when they do not."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from test_metrics import drawn_table, prediction_table

from cnnlab import metrics


def two_models(generator, images, *, skill=(1.8, 1.8), shared=0.5, classes=3):
    """Predictions of two models that meet the same hard images."""
    true = generator.choice(classes, images)
    common = generator.normal(size=(images, classes))
    tables = []
    for strength in skill:
        logits = np.sqrt(shared) * common + np.sqrt(1 - shared) * generator.normal(size=(images, classes))
        logits[np.arange(images), true] += strength
        chance = np.exp(logits)
        tables.append(prediction_table(true, chance / chance.sum(axis=1, keepdims=True)))
    return tables


def test_a_better_model_is_called_better_and_losses_count_the_other_way():
    a, b = two_models(np.random.default_rng(0), 400, skill=(1.0, 2.5))
    found = metrics.compare(a, b).set_index("metric")
    assert (found["verdict"].drop("calibration_error") == "b is better").all()
    assert found.loc["log_loss", "difference"] < 0 < found.loc["accuracy", "difference"]
    turned = metrics.compare(b, a).set_index("metric")
    assert (turned["verdict"].drop("calibration_error") == "a is better").all()
    np.testing.assert_allclose(turned["difference"], -found["difference"])
    scores = [metrics.scores(table).set_index("metric")["value"] for table in (a, b)]
    np.testing.assert_allclose(found["a"], scores[0])
    np.testing.assert_allclose(found["b"], scores[1])


def test_a_model_is_no_better_than_itself():
    table = drawn_table(60, 3)
    found = metrics.compare(table, table, bootstrap=100)
    assert (found["difference"] == 0).all()
    assert (found["p_value"] == 1).all()
    assert (found["verdict"] == "noise").all()


def test_interval_p_value_and_verdict_agree():
    generator = np.random.default_rng(1)
    for _ in range(5):
        found = metrics.compare(*two_models(generator, 150, skill=(1.5, 1.9)), bootstrap=200)
        apart = (found["low"] > 0) | (found["high"] < 0)
        assert (apart == (found["p_value"] < 0.05)).all()
        assert (apart == (found["verdict"] != "noise")).all()


def test_mcnemar_equals_the_formula_and_scipys_binomial():
    label = pd.Categorical(["a", "b"] * 50)
    right, wrong = list(label), ["b", "a"] * 50
    a = pd.DataFrame({"label": label, "predicted": wrong[:9] + right[9:]})
    b = pd.DataFrame({"label": label, "predicted": right[:9] + wrong[9:12] + right[12:]})
    found = metrics.compare(a, b, bootstrap=100).set_index("metric")["mcnemar"]
    exact = scipy.stats.binomtest(3, 12).pvalue
    assert found["accuracy"] == pytest.approx(exact - scipy.stats.binom.pmf(3, 12, 0.5))
    assert found.drop("accuracy").isna().all()


def test_rows_are_paired_by_path_whatever_their_order():
    a, b = two_models(np.random.default_rng(2), 80)
    expected = metrics.compare(a, b, bootstrap=100)
    pd.testing.assert_frame_equal(metrics.compare(a, b.sample(frac=1, random_state=0), bootstrap=100), expected)


def test_groups_widen_the_interval_and_leave_mcnemar_out():
    a, b = two_models(np.random.default_rng(3), 100, skill=(1.0, 1.5))
    tables = []
    for table in (a, b):
        copies = pd.concat([table.assign(image=table["path"])] * 4, ignore_index=True)
        tables.append(copies.assign(path=[f"{row}.png" for row in range(400)]))
    alone, grouped = metrics.compare(*tables), metrics.compare(*tables, group="image")
    ratio = (grouped["high"] - grouped["low"]) / (alone["high"] - alone["low"])
    assert ratio.drop(ratio.index[-1]).between(1.7, 2.3).all()
    assert grouped["mcnemar"].isna().all()


def test_rows_that_one_model_could_not_predict_are_left_out():
    a, b = two_models(np.random.default_rng(4), 60)
    holes = b.astype({"predicted": object}).copy()
    holes.loc[3, "predicted"] = None
    with pytest.warns(UserWarning, match="leaves out 1 of 60 rows"):
        found = metrics.compare(a, holes, bootstrap=100)
    pd.testing.assert_frame_equal(found, metrics.compare(a.drop(3), b.drop(3), bootstrap=100))


def test_rows_without_a_label_are_left_out_and_never_called_corrected():
    a, b = two_models(np.random.default_rng(4), 60)
    expected = metrics.compare(a.drop(3), b.drop(3), bootstrap=100)
    for first, second in ((True, True), (True, False), (False, True)):
        tables = [table.copy() for table in (a, b)]
        for table, without in zip(tables, (first, second), strict=True):
            table.loc[[3] if without else [], "label"] = None
        with pytest.warns(UserWarning, match="leaves out 1 of 60 rows"):
            found = metrics.compare(*tables, bootstrap=100)
        pd.testing.assert_frame_equal(found, expected)


def test_one_group_says_nothing_about_two_models():
    table = drawn_table(30, 3).assign(patient="one")
    with pytest.warns(UserWarning, match="has 1 group"), pytest.raises(ValueError, match="at least two groups"):
        metrics.compare(table, table, group="patient", bootstrap=100)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.iloc[1:], "1 images are in one table only"),
        (lambda t: t.assign(path="same.png"), "each once"),
        (lambda t: t.drop(columns="path").iloc[1:], "Received 30 and 29 rows"),
        (
            lambda t: t.assign(label=t["label"].cat.codes.map(lambda k: f"class {(k + 1) % 3}").astype("category")),
            "were labels",
        ),
    ],
)
def test_tables_of_other_images_are_refused_in_words(change, words):
    table = drawn_table(30, 3)
    with pytest.raises(ValueError, match=words):
        metrics.compare(table, change(table), bootstrap=100)


def rejections(pairs, images, *, classes, shared, bootstrap=200):
    generator = np.random.default_rng(8)
    wrong, mcnemar = None, 0
    for _ in range(pairs):
        found = metrics.compare(
            *two_models(generator, images, shared=shared, classes=classes), bootstrap=bootstrap
        ).set_index("metric")
        hit = (found["p_value"] < 0.05).astype(int)
        wrong = hit if wrong is None else wrong + hit
        mcnemar += found.loc["accuracy", "mcnemar"] < 0.05
    return {name: count / pairs for name, count in wrong.items()} | {"McNemar": mcnemar / pairs}


def test_equal_models_are_seldom_called_different():
    """The small version of the slow proof below: 200 pairs, so that four standard errors are 6 %."""
    found = rejections(200, 150, classes=3, shared=0.5, bootstrap=100)
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert found[name] <= 0.11, name


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("images", "classes", "shared"), [(150, 3, 0.5), (300, 10, 0.8), (200, 2, 0.3)])
def test_equal_models_are_called_different_in_5_of_100(images, classes, shared):
    """2,000 pairs each, so that a standard error is 0.5 %; areas and exact tests on few images stay below 5 %."""
    found = rejections(2000, images, classes=classes, shared=shared)
    print((images, classes, shared), {name: round(float(share), 3) for name, share in found.items()})
    for name, share in found.items():
        low = 0.015 if name in ("roc_auc", "pr_auc", "top_3_accuracy", "McNemar") else 0.035
        assert low <= share <= 0.065, f"{name}: {share}"

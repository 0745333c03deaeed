"""Intervals: that they cover the truth as often as they say, stay honest at the edges, and know what a group is."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from test_metrics import drawn_table, prediction_table

from cnnlab import metrics
from cnnlab.metrics import intervals
from cnnlab.metrics.formulas import values
from cnnlab.metrics.predictions import outcome


def limits(table, **options):
    return metrics.scores(table, bootstrap=options.pop("bootstrap", 300), **options).set_index("metric")


def test_an_interval_contains_its_value_and_stays_possible():
    table = drawn_table(150, 5, seed=3)
    found = limits(table)
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()
    assert (found["low"] >= -1).all()
    assert (found["high"].drop(["log_loss", "brier"]) <= 1).all()


def test_accuracy_and_recall_have_wilsons_interval():
    table = drawn_table(90, 3)
    hits = int((table["label"] == table["predicted"]).sum())
    expected = scipy.stats.binomtest(hits, 90).proportion_ci(0.95, "wilson")
    assert tuple(limits(table).loc["accuracy", ["low", "high"]]) == pytest.approx((expected.low, expected.high))
    found = metrics.per_class(table, bootstrap=100)
    part = table[table["label"] == "class 1"]
    hits = int((part["predicted"] == "class 1").sum())
    expected = scipy.stats.binomtest(hits, len(part)).proportion_ci(0.95, "wilson")
    assert found.loc["class 1", "recall_low"] == pytest.approx(expected.low)
    assert found.loc["class 1", "recall_high"] == pytest.approx(expected.high)


def test_no_mistake_is_no_certainty():
    table = prediction_table([0, 1] * 10, np.eye(2)[[0, 1] * 10])
    found = limits(table)
    assert (found["value"].drop(["log_loss", "brier", "calibration_error"]) == 1).all()
    bounded = found.drop(["log_loss", "brier", "calibration_error"])
    assert (bounded["low"] < 0.87).all()
    assert (bounded["low"] > 0.6).all()
    assert (bounded["high"] == 1).all()
    classes = metrics.per_class(table, bootstrap=100)
    assert (classes["f1_low"] < 0.87).all()
    np.testing.assert_allclose(classes["f1_high"], 1)


def test_a_class_that_never_occurs_has_no_interval():
    table = prediction_table([0, 1] * 10, np.eye(3)[[0, 1] * 10])
    found = metrics.per_class(table, bootstrap=100)
    assert found.loc["class 2"].drop("support").isna().all()
    assert found.loc["class 2", "support"] == 0


def test_without_bootstrap_there_are_no_limits():
    table = drawn_table(30, 3)
    assert metrics.scores(table)[["low", "high"]].isna().all(axis=None)
    assert "f1_low" not in metrics.per_class(table)


def test_the_same_seed_gives_the_same_interval():
    table = drawn_table(80, 3)
    pd.testing.assert_frame_equal(limits(table, seed=4), limits(table, seed=4))
    assert not limits(table, seed=4).equals(limits(table, seed=5))


def test_resamples_draw_groups_as_a_whole():
    units = np.array([0, 0, 0, 1, 2, 2])
    weights = np.concatenate(list(intervals.resamples(units, count=500, seed=0)), axis=1)
    assert weights.shape == (6, 500)
    assert (weights[0] == weights[1]).all()
    assert (weights[4] == weights[5]).all()
    assert (weights[[0, 3, 4]].sum(axis=0) == 3).all()
    assert weights[3].mean() == pytest.approx(1, abs=0.1)


def test_blocks_do_not_change_the_resamples(monkeypatch):
    units = np.arange(50)
    whole = np.concatenate(list(intervals.resamples(units, count=30, seed=1)), axis=1)
    monkeypatch.setattr(intervals, "MOST_NUMBERS", 300)
    parts = list(intervals.resamples(units, count=30, seed=1))
    assert len(parts) == 5
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_copies_of_an_image_add_no_knowledge():
    """Each image five times: the grouped interval is about that of the images once, the ungrouped one far shorter."""
    once = drawn_table(120, 3, seed=2)
    copies = pd.concat([once.assign(image=once["path"])] * 5)
    found = (limits(once), limits(copies), limits(copies, group="image"))
    single, wrong, grouped = (part["high"] - part["low"] for part in found)
    ratio = grouped / single
    assert ratio.drop("calibration_error").between(0.85, 1.15).all()
    assert ratio["calibration_error"] > 0.7
    assert (wrong / single).drop("calibration_error").between(0.3, 0.6).all()
    classes = metrics.per_class(copies, group="image", bootstrap=300)
    alone = metrics.per_class(once, bootstrap=300)
    for name in ("precision", "recall", "f1"):
        ratio = (classes[f"{name}_high"] - classes[f"{name}_low"]) / (alone[f"{name}_high"] - alone[f"{name}_low"])
        assert ratio.between(0.85, 1.2).all()


def test_bca_is_scipys():
    """The same statistic by `scipy.stats.bootstrap`; both draw 10,000 resamples, so limits differ by little."""
    table = drawn_table(60, 3, skill=1.2, seed=4)
    codes = np.stack([table[name].cat.codes for name in ("label", "predicted")])

    def macro_f1(rows, axis):
        true, guess = codes[0][rows], codes[1][rows]
        hits = np.stack([((true == k) & (guess == k)).sum(axis=axis) for k in range(3)])
        sizes = np.stack([(true == k).sum(axis=axis) + (guess == k).sum(axis=axis) for k in range(3)])
        return (2 * hits / sizes).mean(axis=0)

    expected = scipy.stats.bootstrap((np.arange(60),), macro_f1, n_resamples=10_000, method="BCa", rng=0)
    found = limits(table, bootstrap=10_000).loc["macro_f1"]
    plain = np.quantile(expected.bootstrap_distribution, [0.025, 0.975])
    moved = np.abs(plain - expected.confidence_interval).max()
    assert moved > 0.004
    np.testing.assert_allclose(found[["low", "high"]].tolist(), expected.confidence_interval, atol=0.3 * moved)


def test_the_column_group_is_taken_where_nothing_else_is_said():
    once = drawn_table(60, 3, seed=2)
    copies = pd.concat([once.assign(group=once["path"])] * 4, ignore_index=True)
    named = limits(copies, group="group")
    pd.testing.assert_frame_equal(limits(copies), named)
    alone = limits(copies, group=False)
    assert not alone.equals(named)
    pd.testing.assert_frame_equal(alone, limits(copies.drop(columns="group")))
    pd.testing.assert_frame_equal(limits(copies.assign(group=range(240))), alone)
    table = metrics.per_class(copies, bootstrap=100)
    assert (table["recall_high"] - table["recall_low"]).min() > 0.2
    assert metrics.compare(*[copies.drop(columns="path")] * 2, bootstrap=100)["mcnemar"].isna().all()


def test_rows_linked_by_any_of_several_columns_are_one_group():
    table = drawn_table(120, 3).assign(patient=np.arange(120) // 2, burst=(np.arange(120) + 1) // 2 % 60)
    table.loc[table.index % 8 == 7, "burst"] = None  # every fourth link is cut, so that chains of eight rows remain
    chains = table.assign(chain=np.arange(120) // 8)
    pd.testing.assert_frame_equal(limits(chains, group=["patient", "burst"]), limits(chains, group="chain"))
    missing = chains.assign(chain=chains["chain"].where(chains["chain"] > 4))
    apart = chains.assign(chain=[row if row < 40 else 1000 + row // 8 for row in range(120)])
    pd.testing.assert_frame_equal(limits(missing, group="chain"), limits(apart, group="chain"))


def test_a_part_with_one_patient_has_scores_and_no_interval():
    table = drawn_table(120, 3).assign(camera=["north"] * 100 + ["south"] * 20, patient=[*range(50)] * 2 + [99] * 20)
    with pytest.warns(UserWarning, match=r"has 1 group of 'patient' to draw from: .* over one there are none"):
        found = metrics.scores(table, by="camera", group="patient", bootstrap=100)
    south = found[found["camera"] == "south"]
    assert south["value"].notna().all()
    assert south[["low", "high"]].isna().all(axis=None)
    north = found[found["camera"] == "north"][["metric", "value", "low", "high"]]
    pd.testing.assert_frame_equal(north, metrics.scores(table[:100], group="patient", bootstrap=100))


def test_large_tables_need_no_jackknife(monkeypatch):
    table = drawn_table(400, 3, seed=1)
    exact = limits(table)
    monkeypatch.setattr(intervals, "MOST_LEFT_OUT", 100)
    found = limits(table)
    size = exact["high"] - exact["low"]
    assert ((found["low"] - exact["low"]).abs() < 0.1 * size).all()
    assert not found.equals(exact)


def test_a_score_that_most_resamples_cannot_have_has_no_interval():
    table = prediction_table([0] * 30, np.tile([0.9, 0.1], (30, 1)))
    assert limits(table).loc["roc_auc", ["value", "low", "high"]].isna().all()


# situation: images, class frequencies, skill by class, sharpness of the probabilities
SITUATIONS = {
    "two classes, 0.90": (100, [0.5, 0.5], [1.8, 1.8], 1.0),
    "two classes, 0.98": (200, [0.5, 0.5], [2.9, 2.9], 1.0),
    "two classes, 9:1": (200, [0.9, 0.1], [2.5, 1.2], 1.0),
    "three classes, 7:2:1": (150, [0.7, 0.2, 0.1], [2.6, 1.8, 1.5], 1.5),
    "six classes, 0.45": (150, [1 / 6] * 6, [1.0] * 6, 1.0),
    "ten classes, 0.87": (300, [0.1] * 10, [2.8] * 10, 2.0),
    "three classes, 50 images": (50, [1 / 3] * 3, [1.9] * 3, 1.0),
    "three classes, 0.995": (200, [1 / 3] * 3, [3.9] * 3, 1.5),
    "five classes, 15:1": (500, [0.6, 0.2, 0.1, 0.06, 0.04], [2.5, 2.0, 2.0, 1.5, 1.5], 1.5),
    "ten classes, 0.96": (500, [0.1] * 10, [3.6] * 10, 2.0),
    "three classes, far too sure": (300, [1 / 3] * 3, [1.5] * 3, 4.0),
}


def simulated(generator, images, prior, skill, sharpness):
    true = generator.choice(len(prior), images, p=prior)
    logits = generator.normal(size=(images, len(prior)))
    logits[np.arange(images), true] += np.array(skill)[true]
    chance = np.exp(sharpness * logits)
    return prediction_table(true, chance / chance.sum(axis=1, keepdims=True))


def coverage(situation, *, tables, bootstrap):
    """How often the interval of each score contains the truth, which 300,000 images tell."""
    generator = np.random.default_rng(7)
    images, *rest = SITUATIONS[situation]
    truth = values(outcome(simulated(generator, 300_000, *rest), caller="test"))
    hits = dict.fromkeys(truth, 0)
    for _ in range(tables):
        found = limits(simulated(generator, images, *rest), bootstrap=bootstrap)
        for name, value in truth.items():
            hits[name] += found.loc[name, "low"] <= value <= found.loc[name, "high"]
    return {name: count / tables for name, count in hits.items()}


def test_intervals_cover_the_truth_in_a_few_tables():
    """The small version of the slow proof below: 150 tables, so four standard errors are 7 %."""
    found = coverage("three classes, 7:2:1", tables=150, bootstrap=100)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "mcc", "brier", "log_loss"):
        assert 0.88 <= found[name] <= 1, name


# What BCa's intervals reach, with the standard error of 1,000 tables on either side. What is outside, and why:
USUAL = (0.90, 0.985)
OUTSIDE = {
    # of 200 images 20 are the rare class, and a few of them decide the area
    ("two classes, 9:1", "roc_auc"): (0.86, 0.93),
}
FEW_MISTAKES = (0.90, 1.0)  # a handful of values, and Wilson's interval where there is none: rather long than short
CALIBRATION = (0.89, 0.995)  # 0 is the least error there is: where the truth is near it, no interval lies too high


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_intervals_cover_the_truth(situation):
    """1,000 tables each, so that a standard error is 0.7 %."""
    found = coverage(situation, tables=1000, bootstrap=500)
    print(situation, {name: round(float(share), 3) for name, share in found.items()})
    for name, share in found.items():
        usual = CALIBRATION if name == "calibration_error" else USUAL
        low, high = FEW_MISTAKES if situation == "three classes, 0.995" else OUTSIDE.get((situation, name), usual)
        assert low <= share <= high, f"{name}: {share}"


def class_coverage(situation, *, tables):
    """How often the intervals of precision, recall and F1 of the classes contain the truth."""
    generator = np.random.default_rng(5)
    images, *rest = SITUATIONS[situation]
    truth = metrics.per_class(simulated(generator, 300_000, *rest))
    hits = dict.fromkeys(["precision", "recall", "f1"], 0.0)
    for _ in range(tables):
        found = metrics.per_class(simulated(generator, images, *rest), bootstrap=100)
        for name in hits:
            inside = (found[f"{name}_low"] <= truth[name]) & (truth[name] <= found[f"{name}_high"])
            hits[name] += inside[found[f"{name}_low"].notna()].mean()
    return {name: count / tables for name, count in hits.items()}


@pytest.mark.parametrize("situation", ["two classes, 9:1", "six classes, 0.45"])
def test_intervals_of_a_class_cover_the_truth(situation):
    for name, share in class_coverage(situation, tables=150).items():
        assert 0.91 <= share <= 0.99, name


@pytest.mark.slow
def test_intervals_over_groups_cover_the_truth():
    """40 patients with 5 images each, some patients easy and some hard: ungrouped intervals would be too short."""
    generator = np.random.default_rng(11)

    def patients(count):
        true = generator.choice(3, (count, 5))
        hardness = generator.normal(size=(count, 1, 1))
        logits = generator.normal(size=(count, 5, 3)) * 0.7
        np.put_along_axis(logits, true[..., None], 1.3 + hardness + generator.normal(size=(count, 5, 1)) * 0.5, axis=2)
        chance = np.exp(logits.reshape(-1, 3))
        table = prediction_table(true.ravel(), chance / chance.sum(axis=1, keepdims=True))
        return table.assign(patient=np.repeat(np.arange(count), 5))

    truth = values(outcome(patients(100_000), caller="test"))
    grouped, wrong = dict.fromkeys(truth, 0), dict.fromkeys(truth, 0)
    for _ in range(500):
        table = patients(40)
        for hits, found in ((grouped, limits(table, group="patient")), (wrong, limits(table))):
            for name, value in truth.items():
                hits[name] += found.loc[name, "low"] <= value <= found.loc[name, "high"]
    print("40 patients", {name: count / 500 for name, count in grouped.items()})
    print("… as if independent", {name: count / 500 for name, count in wrong.items()})
    for name in ("accuracy", "macro_f1", "mcc", "brier", "roc_auc"):
        assert 0.91 <= grouped[name] / 500 <= 0.98, name
    assert wrong["accuracy"] / 500 < 0.9

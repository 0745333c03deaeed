"""Rare classes: losses, weights and thresholds against numbers computed here, and the bench that compares remedies."""

import contextlib
import io

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes
from imblearn.over_sampling import SMOTE
from PIL import Image
from sklearn.linear_model import LogisticRegression

from cnnlab import augment, experiments, images, metrics, models, pipelines, samples, tables, training
from cnnlab.experiments import imbalance_bench as bench
from cnnlab.experiments import imbalance_remedies as inside

SIZE = (8, 8)


@pytest.fixture(scope="module")
def rare(digits):
    """Real digits: 48 noughts, 10 ones, 10 sevens."""
    label = digits["label"].astype(str)
    parts = [digits[label == name].head(count) for name, count in (("0", 48), ("1", 10), ("7", 10))]
    table = pd.concat(parts, ignore_index=True).drop(columns="split")
    return table.assign(label=table["label"].cat.remove_unused_categories())


def build():
    with contextlib.redirect_stdout(io.StringIO()):
        model = models.small_cnn(image_size=SIZE, classes=["0", "1", "7"], filters=(16,))
        # few steps: no graph
        return training.compile(model, learning_rate=0.01, steps_per_execution=1, run_eagerly=True)


def run(table, remedies, **options):
    return experiments.imbalance(
        build, table, remedies=remedies, **{"folds": 2, "image_size": SIZE, "epochs": 4, "seed": 0} | options
    )


@pytest.fixture(scope="module")
def result(rare, tmp_path_factory):
    return run(rare, ["smote", "threshold", "focal"], folder=tmp_path_factory.mktemp("bench"))


# Losses


def softmax(logits):
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


@settings(max_examples=25, deadline=None)
@given(
    shapes.arrays(np.float32, (5, 3), elements=st.floats(-4, 4, width=32)),
    st.lists(st.integers(0, 2), min_size=5, max_size=5),
    st.lists(st.integers(1, 1000), min_size=3, max_size=3),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_logit_adjustment_in_ten_lines_of_numpy(logits, labels, counts, strength):
    share = np.array(counts) / np.sum(counts)
    chance = softmax(logits + strength * np.log(share))
    expected = -np.log(chance[np.arange(5), labels]).mean()
    loss = models.LogitAdjusted(counts, strength=strength)
    probabilities = softmax(logits).astype(np.float32)
    assert float(loss(np.array(labels), probabilities)) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert float(loss(np.array(labels)[:, None], probabilities)) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    one_hot = np.eye(3, dtype=np.float32)[labels]
    assert float(loss(one_hot, probabilities)) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_focal_loss_in_ten_lines_of_numpy(rare):
    chance = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])
    labels = np.array([0, 1, 2])
    right = chance[np.arange(3), labels]
    expected = (-((1 - right) ** 2) * np.log(right)).mean()
    assert float(inside.LOSSES["focal"](rare)(np.eye(3)[labels], chance)) == pytest.approx(expected, rel=1e-5)


def test_without_strength_it_is_plain_cross_entropy_and_comes_back_from_its_file(tmp_path):
    chance = np.array([[0.7, 0.3], [0.1, 0.9]], np.float32)
    plain = keras.losses.SparseCategoricalCrossentropy()(np.array([0, 0]), chance)
    assert float(models.LogitAdjusted([9, 1], strength=0)(np.array([0, 0]), chance)) == pytest.approx(float(plain))
    model = models.small_cnn(image_size=SIZE, classes=["a", "b"], filters=(4,))
    model.compile(loss=models.LogitAdjusted([30, 1]), jit_compile=False)
    model.fit(np.zeros((2, *SIZE, 3)), np.array([0, 1]), verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.loss.counts == [30.0, 1.0]
    np.testing.assert_allclose(again.loss.margin, np.log([30 / 31, 1 / 31]), rtol=1e-6)


def test_the_counts_of_a_table_are_in_the_order_of_its_classes(rare):
    table = rare.assign(label=rare["label"].cat.reorder_categories(["7", "0", "1"]))
    assert inside.LOSSES["logit_adjustment"](table).counts == [10, 48, 10]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: models.LogitAdjusted([5, 0]), "all above 0"),
        (lambda: models.LogitAdjusted([5]), "two classes or more"),
        (lambda: models.LogitAdjusted([5, 5], strength=-1), "from 0 up"),
        (lambda: models.LogitAdjusted([5, 5])(np.array([0]), np.array([[0.2, 0.3, 0.5]])), "of 2 classes"),
    ],
)
def test_impossible_losses_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# Weights, oversampling, thresholds: by hand


def test_weights_by_hand(rare):
    assert tables.class_weights(rare) == pytest.approx({0: 68 / (3 * 48), 1: 68 / 30, 2: 68 / 30})
    assert rare["label"].map(lambda name: tables.class_weights(rare)[list("017").index(name)]).sum() == pytest.approx(
        68
    )


@pytest.mark.parametrize(
    ("balance", "counts"),
    [
        (None, [48, 10, 10]),
        ("oversample", [48] * 3),
        ("undersample", [10] * 3),
        (0.5, [48, 24, 24]),
        (0.1, [48, 10, 10]),
    ],
)
def test_an_epoch_shows_as_many_of_each_class_as_computed_by_hand(rare, balance, counts):
    data = pipelines.load(rare, image_size=SIZE, training=True, seed=0, balance=balance)
    for _ in range(2):
        labels = np.concatenate([labels for _, labels in data.as_numpy_iterator()])
        assert np.bincount(labels).tolist() == counts


def test_moving_a_threshold_by_hand():
    label = pd.Categorical(["ok", "crack", "ok", "crack"], ["crack", "ok"])
    crack = np.array([0.05, 0.12, 0.5, 0.08])
    table = pd.DataFrame({"label": label, "p_crack": crack, "p_ok": 1 - crack})
    share = np.array([0.1, 0.9])
    moved = inside.shift(table, share, 1.0)
    # crack/0.1 > ok/0.9 is crack > 0.1
    assert moved["predicted"].tolist() == ["ok", "crack", "crack", "ok"]
    odds = crack / (1 - crack) * 9
    np.testing.assert_allclose(moved["p_crack"], odds / (1 + odds))
    assert inside.shift(table, share, 0.0)["predicted"].tolist() == ["ok", "ok", "crack", "ok"]
    np.testing.assert_allclose(moved[["p_crack", "p_ok"]].max(axis=1), moved["confidence"])


def test_the_power_is_where_macro_f1_is_highest():
    generator = np.random.default_rng(0)
    crack = generator.random(600) < 0.1
    logit = np.where(crack, 1.0, -1.0) + generator.normal(size=600) - 2.2
    chance = 1 / (1 + np.exp(-logit))
    label = pd.Categorical(np.where(crack, "crack", "ok"), ["crack", "ok"])
    table = pd.DataFrame({"label": label, "predicted": label, "p_crack": chance, "p_ok": 1 - chance})
    power = inside.choose_power(table, np.array([0.1, 0.9]))

    def f1(power):
        from sklearn.metrics import f1_score

        moved = chance / 0.1**power > (1 - chance) / 0.9**power
        return f1_score(crack, moved, average="macro")

    assert f1(power) == pytest.approx(max(f1(tried) for tried in inside.POWERS))
    assert power > 0


# SMOTE on features


def test_smote_is_imbalanced_learns_and_copes_with_a_single_image():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(30, 4)), np.repeat([0, 1], [22, 8])
    expected = SMOTE(k_neighbors=5, random_state=3).fit_resample(x, y)
    for mine, theirs in zip(inside.smote(x, y, seed=3), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    x, y = np.concatenate([x, [[9.0] * 4]]), np.append(y, 2)
    found, labels = inside.smote(x, y, seed=3)
    assert np.bincount(labels).tolist() == [22, 22, 22]
    assert (found[labels == 2] == 9).all()


@pytest.mark.parametrize("names", [["0", "1"], ["0", "1", "7"]])
def test_the_new_last_layer_answers_as_scikit_learn_does(rare, names):
    table = rare[rare["label"].isin(names)]
    table = table.assign(label=table["label"].cat.remove_unused_categories())
    model = models.small_cnn(image_size=SIZE, classes=names, filters=(8,))
    renewed = inside.with_smote(model, table, seed=0)
    images = np.concatenate([batch for batch, _ in pipelines.load(table, image_size=SIZE).as_numpy_iterator()])
    features = keras.Model(model.input, model.get_layer("probabilities").input).predict(images, verbose=0)
    codes = table["label"].cat.codes.to_numpy()
    x, y = SMOTE(k_neighbors=5, random_state=0).fit_resample(features, codes)
    expected = LogisticRegression(max_iter=2000).fit(x, y).predict_proba(features)
    np.testing.assert_allclose(renewed.predict(images, verbose=0), expected, atol=1e-4)
    assert models.class_names(renewed) == names


# Synthetic images


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_synthetic_images_are_mixed_of_two_of_their_class(rare, tmp_path, method):
    new = experiments.synthesize(rare, tmp_path, image_size=SIZE, method=method, seed=0)
    assert new["label"].value_counts(sort=False).to_dict() == {"0": 0, "1": 38, "7": 38}
    assert new["label"].dtype == rare["label"].dtype
    label_of = dict(zip(rare["path"], rare["label"].astype(str), strict=True))
    whole = 0
    for row in new.itertuples():
        one, other = row.made_from.split(" + ")
        assert label_of[one] == label_of[other] == row.label
        assert one != other
        image = images.read(row.path).astype(int)
        sources = np.stack([images.prepare(path, images.Preparation(SIZE)).astype(int) for path in (one, other)])
        if method == "mixup":
            assert (image >= sources.min(axis=0)).all() and (image <= sources.max(axis=0)).all()
        else:
            assert ((image == sources[0]) | (image == sources[1])).all()
        whole += (image == sources[0]).all() or (image == sources[1]).all()
    assert whole < len(new) / 4
    again = experiments.synthesize(rare, tmp_path / "again", image_size=SIZE, method=method, seed=0)
    assert again["made_from"].tolist() == new["made_from"].tolist()
    for one, other in zip(new["path"], again["path"], strict=True):
        np.testing.assert_array_equal(images.read(one), images.read(other))


def test_synthetic_images_of_few_and_of_broken_files(tmp_path):
    for name, count in (("many", 7), ("one", 1), ("broken", 2), ("all_broken", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("RGB", (9, 9), (40 * number, 0, 0)).save(tmp_path / name / f"{number}.png")
    for path in ("broken/0.png", "all_broken/0.png", "all_broken/1.png"):
        (tmp_path / path).write_text("no image")
    table = tables.from_folder(tmp_path)
    new = experiments.synthesize(table, tmp_path / "new", image_size=SIZE, share=0.5, seed=0)
    assert new["label"].value_counts(sort=False).to_dict() == {"all_broken": 0, "broken": 2, "many": 0, "one": 3}
    assert (images.read(new["path"].iloc[-1]) == 0).all()
    with pytest.raises(ValueError, match="share from 0 to 1"):
        experiments.synthesize(table, tmp_path / "x", image_size=SIZE, share=2, seed=0)
    with pytest.raises(ValueError, match="method of 'mixup', 'cutmix'"):
        experiments.synthesize(table, tmp_path / "x", image_size=SIZE, method="blend", seed=0)


# The bench


def test_every_remedy_predicts_every_image_once_on_the_same_folds(rare, result):
    folds = tables.folds(rare, count=2, seed=0)["fold"].tolist()
    for _, part in result.predictions.groupby("remedy"):
        assert part["path"].tolist() == rare["path"].tolist()
        assert part["fold"].tolist() == folds
        assert part["predicted"].notna().all()
    assert result.runs["steps"].tolist() == [4 * 2] * len(result.runs)
    images = result.runs.groupby("remedy")["images"].first().to_dict()
    assert images == {"none": 34, "smote": 34, "threshold": 27, "focal": 34}


def test_scores_are_those_of_metrics(rare, result):
    found = result.scores.set_index(["remedy", "metric"])
    base, other = (result.predictions[result.predictions["remedy"] == name] for name in ("none", "smote"))
    scores = metrics.scores(other, bootstrap=1000, seed=0).set_index("metric")
    moved = metrics.compare(base, other, bootstrap=1000, seed=0).set_index("metric")
    for name in ("macro_f1", "calibration_error", "accuracy"):
        row = found.loc[("smote", name)]
        assert (row["value"], row["low"], row["high"]) == tuple(scores.loc[name, ["value", "low", "high"]])
        assert row["difference"] == pytest.approx(moved.loc[name, "difference"])
        assert row["difference_low"] == pytest.approx(moved.loc[name, "low"])
    ones = base[base["label"].isin(["1", "7"])]
    recall = (ones["label"].astype(str) == ones["predicted"].astype(str)).mean()
    assert found.loc[("none", "minority_recall"), "value"] == pytest.approx(recall)
    assert found.loc[("none", "minority_recall"), "images"] == 20
    assert (found.loc["none", "verdict"] == "baseline").all()
    assert set(found["verdict"]) <= {"baseline", "better", "worse", "noise"}


def test_none_is_a_plain_keras_loop(rare, result):
    parts = tables.folds(rare, count=2, seed=0)
    keras.utils.set_random_seed(1)
    model = build()
    data = pipelines.load(parts[parts["fold"] != 1], image_size=SIZE, training=True, seed=1)
    for _ in range(4):
        model.fit(data, verbose=0)
    expected = experiments.predict(model, parts[parts["fold"] == 1])
    found = result.predictions[(result.predictions["remedy"] == "none") & (result.predictions["fold"] == 1)]
    np.testing.assert_allclose(found["p_7"].to_numpy(), expected["p_7"].to_numpy(), atol=1e-5)


def test_finished_folds_are_not_trained_again(rare, tmp_path, monkeypatch):
    first = run(rare, ["none"], folder=tmp_path)
    calls = []
    real = inside.RemedyRunner.train
    monkeypatch.setattr(inside.RemedyRunner, "train", lambda self, run: calls.append(run.remedy) or real(self, run))
    second = run(rare, ["oversample"], folder=tmp_path)
    assert [remedy.balance for remedy in calls] == ["oversample"] * 2
    pd.testing.assert_frame_equal(first.scores, second.scores[second.scores["remedy"] == "none"], check_dtype=False)
    with pytest.raises(FileExistsError, match="epochs"):
        run(rare, ["oversample"], folder=tmp_path, epochs=5)
    with pytest.raises(FileExistsError, match="remedy"):
        run(rare, {"oversample": experiments.Remedy(balance=0.5)}, folder=tmp_path)


def test_own_remedies_repeats_and_groups(rare, tmp_path):
    extra = experiments.synthesize(rare, tmp_path, image_size=SIZE, seed=5)
    own = experiments.Remedy(
        extra=extra, mix="cutmix", class_weights=True, loss=lambda train: models.LogitAdjusted([2, 1, 1])
    )
    found = run(rare.assign(day=np.arange(len(rare)) // 2), {"own": own}, repeats=2, epochs=1, group="day")
    # 5 of each rare class in training, mixed up to the 24 of the largest; then the further 38 each
    assert found.runs.groupby("remedy")["images"].first().to_dict() == {"none": 34, "own": 34 + 76 + 2 * 19}
    assert found.predictions.groupby("remedy")["path"].nunique().tolist() == [68, 68]
    assert found.scores["images"].max() == 2 * len(rare)


def test_an_image_that_is_predicted_several_times_is_one_witness(result):
    once = result.predictions[result.predictions["remedy"].isin(["none", "smote"])]
    often = pd.concat([once.assign(repeat=number) for number in range(4)]).sort_values(
        ["remedy", "repeat"], kind="stable"
    )
    options = {"minority": ["1", "7"], "group": None, "bootstrap": 1000, "seed": 0}
    one, many = (bench.compare_remedies(part, **options).set_index(["remedy", "metric"]) for part in (once, often))
    np.testing.assert_allclose(many["value"], one["value"])
    width = [table["difference_high"] - table["difference_low"] for table in (one, many)]
    np.testing.assert_allclose(width[1]["smote"], width[0]["smote"], rtol=0.15, atol=1e-6)


def test_unreadable_images_take_no_part(rare, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    table = rare.copy()
    table.loc[3, "path"] = str(broken)
    with pytest.warns(UserWarning, match="could not be read"):
        found = run(table, {"both": experiments.Remedy(mix="mixup", smote=True)}, epochs=1)
    assert found.predictions["predicted"].isna().sum() == 2
    assert found.scores["images"].max() == len(rare) - 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_step_by_step(p_values):
    adjusted = bench.holm(np.array(p_values))
    rejected, order = set(), np.argsort(p_values, kind="stable")
    for step, place in enumerate(order):  # the procedure as Holm wrote it down
        if p_values[place] * (len(p_values) - step) >= 0.05:
            break
        rejected.add(int(place))
    assert {int(place) for place in np.flatnonzero(adjusted < 0.05)} == rejected
    assert (adjusted >= np.array(p_values)).all()


def test_the_verdict_in_words(result):
    row = {"metric": "macro_f1", "difference": 0.1, "difference_low": 0.05, "difference_high": 0.15}
    words = bench.verdict(
        pd.DataFrame(
            [
                {"remedy": "none", "verdict": "baseline", "metric": "macro_f1"},
                row | {"remedy": "smote", "verdict": "better"},
                row | {"remedy": "focal", "verdict": "noise", "difference": 0.01},
                row | {"remedy": "mixup", "verdict": "better", "difference": 0.2},
            ]
        )
    )
    assert words == (
        "Better than none in macro_f1: mixup (+0.200, +0.050 to +0.150), smote (+0.100, +0.050 to +0.150). "
        "No more than noise in macro_f1: focal (+0.010, +0.050 to +0.150)."
    )
    assert "in macro_f1: " in result.verdict


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"remedies": ["smoke"]}, ValueError, "Received: 'smoke'"),
        ({"remedies": {"mine": "smote"}}, TypeError, "under 'mine'"),
        ({"minority": ["8"]}, ValueError, r"classes of the table: 0, 1, 7\. Received: \['8'\]"),
        ({"minority": 1}, ValueError, r"classes of the table: 0, 1, 7\. Received: \[1\]"),
        ({"epochs": 0}, ValueError, "1 or more"),
        ({"folds": 11}, ValueError, "has 10"),
    ],
)
def test_impossible_wishes_are_refused_in_words(rare, options, error, words):
    with pytest.raises(error, match=words):
        run(rare, **{"remedies": ["oversample"]} | options)


def test_a_table_without_rare_classes_is_refused(rare):
    with pytest.raises(ValueError, match="less than half the images of the largest"):
        run(rare.groupby("label", observed=True).head(10), ["oversample"])
    with pytest.raises(ValueError, match="'focal', 'logit_adjustment' or a function"):
        experiments.Remedy(loss="focus")
    with pytest.raises(ValueError, match="'mixup', 'cutmix' or None"):
        experiments.Remedy(mix="blend")


# Proofs that take minutes


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_same_remedy_twice_is_noise(digits):
    """Where nothing differs but the start of the network, "better" must be as rare as it claims."""
    label = digits["label"].astype(str)
    parts = [digits[label == name].iloc[:count] for name, count in (("3", 150), ("8", 20), ("9", 20))]
    table = pd.concat(parts, ignore_index=True).drop(columns="split")
    table = table.assign(label=table["label"].cat.remove_unused_categories())

    def build():
        model = models.small_cnn(image_size=SIZE, classes=["3", "8", "9"], filters=(8, 16))
        model.compile("adamw", "sparse_categorical_crossentropy", jit_compile=False)
        model.optimizer.learning_rate = 0.01
        return model

    run = experiments.imbalance(build, table, remedies=["none"], folds=2, image_size=SIZE, epochs=6, seed=0, repeats=12)
    repeat = run.predictions["repeat"]
    parts = [
        run.predictions[repeat // 3 == part].assign(repeat=repeat % 3, remedy=name)
        for part, name in enumerate(["none", "second", "third", "fourth"])
    ]
    scores = bench.compare_remedies(pd.concat(parts), minority=["8", "9"], group=None, bootstrap=1000, seed=0)
    told = scores[scores["metric"] == "macro_f1"].set_index("remedy")
    print(told[["value", "difference", "difference_low", "difference_high", "verdict"]].round(3).to_string())
    assert (told["verdict"].drop("none") == "noise").all()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_at_one_in_fifty_a_remedy_beats_none_and_the_bench_says_so(tmp_path):
    table = tables.from_folder(samples.inspection(tmp_path / "parts", per_class=600, imbalance=50, seed=0))
    assert table["label"].value_counts().to_dict() == {"good": 600} | dict.fromkeys(
        ["crack", "inclusion", "pit", "scratch", "stain"], 12
    )
    rendered = tables.from_folder(samples.inspection(tmp_path / "more", per_class=100, seed=1000))
    more = experiments.Remedy(extra=rendered[rendered["label"] != "good"])
    steps = 25 * -(-len(table) * 2 // 3 // 32)

    def build():
        model = models.small_cnn(image_size=(64, 64), classes=table["label"].cat.categories)
        return training.compile(model, learning_rate=training.one_cycle(5e-3, steps=steps))

    found = experiments.imbalance(
        build, table, remedies={"rendered": more}, image_size=(64, 64), epochs=25, seed=0,
        augment=augment.Policy(flip="both", rotate=10, zoom=0.1, shift=0.05, brightness=0.15, contrast=0.15),
    )  # fmt: skip
    print(found.scores.round(3).to_string(), found.verdict)
    best = found.scores[(found.scores["metric"] == "macro_f1") & (found.scores["verdict"] == "better")]
    assert (best["difference_low"] > 0).any()
    assert found.verdict.startswith("Better than none in macro_f1: ")


def test_rows_of_the_test_split_in_a_comparison_are_said(digits, caplog, monkeypatch):
    monkeypatch.setattr("cnnlab.tables.linking._said", set())
    some = digits.groupby(["label", "split"], observed=True).head(1)
    with pytest.raises(ValueError, match="Expected at least 9 images"):
        experiments.imbalance(build, some, minority=["1"], folds=9, image_size=(8, 8), epochs=1, seed=0)
    assert "The comparison of remedies learns from 10 rows of the test split" in caplog.text

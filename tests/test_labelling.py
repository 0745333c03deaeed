"""experiments.Labeller: learns from a person, keeps every answer, and says honestly how much of the rest is right."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from cnnlab import audit, experiments, widgets
from cnnlab.widgets import thumbnails

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "labelling.py"
CLASSES = ["cat", "dog", "cow", "owl"]


@pytest.fixture(scope="module")
def benchmark():
    specification = importlib.util.spec_from_file_location("labelling_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def blobs(folder, count=240, seed=0, apart=2.0):
    """Images of four classes whose features overlap somewhat, and the truth about them."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, count)
    features = apart * np.eye(4, 12)[truth] * 2 + rng.normal(size=(count, 12))
    table = pd.DataFrame({"path": [f"{folder}/{number}.png" for number in range(count)]})
    return table, features, np.array(CLASSES, dtype=object)[truth]


def answer_screen(labeller, truth):
    rows = labeller.screen()
    for name in np.unique(truth[rows]):
        labeller.answer(rows[truth[rows] == name], name)
    return rows


def test_a_person_needs_few_actions_and_the_estimate_is_honest(tmp_path, benchmark):
    runs = []
    for seed, goal in ((0, 0.97), (1, 2)):  # 2: until the last image
        table, features, truth = blobs(tmp_path, seed=seed, apart=1.6)
        options = {"file": tmp_path / f"{seed}.csv", "size": 24, "seed": seed}
        labeller = experiments.Labeller(table, features, CLASSES, **options)
        runs.append(benchmark.simulate(labeller, truth, seed=seed, goal=goal))
    assert runs[0]["actions"] <= 0.35 * 240
    assert (runs[1]["left"], labeller.left) == (0, 0)
    shown = runs[0]["shown"] + runs[1]["shown"]
    assert len(shown) >= 6
    assert np.mean([low <= right <= high for _, low, high, right in shown]) >= 0.85
    assert np.mean([high - low for _, low, high, _ in shown]) < 0.5


def test_counting_actions(benchmark):
    assert benchmark.actions([""] * 16) == 0
    assert benchmark.actions(["", "a", "", "a", "b"]) == 5  # three clicks, two keys
    assert benchmark.actions(["a"] * 10) == 3  # a drag in each row, one key


def test_screens_are_of_one_class_and_of_random_draws(tmp_path):
    table, features, truth = blobs(tmp_path)
    labeller = experiments.Labeller(table, features, CLASSES, file=tmp_path / "d.csv", size=24)
    while labeller.proposed(labeller.screen())[0] == "":
        assert labeller.estimate() is None
        answer_screen(labeller, truth)
    rows = labeller.screen()
    assert len(rows) == 24 == len(set(rows)) and np.array_equal(rows, labeller.screen())
    assert max(np.unique(labeller.proposed(rows), return_counts=True)[1]) >= 12
    expected = (np.array(labeller.proposed(rows)) == truth[rows]).sum()
    answer_screen(labeller, truth)
    assert labeller.right_so_far() == (expected, 24) and expected > 12
    reasons = audit.decisions(tmp_path / "d.csv")["reason"]
    assert reasons.str.endswith(", drawn at random, 1 of 12").sum() == 12
    predictions = labeller.predictions()
    unseen = predictions["label"].isna()
    share = (predictions["predicted"][unseen] == truth[unseen]).mean()
    estimate = labeller.estimate()
    assert estimate.low <= share <= estimate.high and estimate.low <= estimate.right <= estimate.high


def test_a_new_kernel_goes_on_and_new_classes_stay(tmp_path):
    table, features, truth = blobs(tmp_path)
    labeller = experiments.Labeller(table, features, ["cat"], file=tmp_path / "d.csv")
    rows = answer_screen(labeller, truth)
    again = experiments.Labeller(table, features, ["cat"], file=tmp_path / "d.csv")
    assert again.left == 240 - len(rows) and sorted(again.classes) == sorted({"cat", *truth[rows]})
    again.undo()
    assert again.left == 240 - len(rows) + (truth[rows] == np.unique(truth[rows])[-1]).sum()


def test_two_kernels_do_not_lose_each_others_rows(tmp_path):
    table, features, _ = blobs(tmp_path)
    first, second = (experiments.Labeller(table, features, CLASSES, file=tmp_path / "d.csv", seed=s) for s in (0, 1))
    mine, others = first.screen(), np.setdiff1d(second.screen(), first.screen())
    first.answer(mine, "cat")
    second.answer(others, "dog")
    assert first.table()["label"].value_counts()[["cat", "dog"]].tolist() == [len(mine), len(others)]
    first.undo()
    assert second.table()["label"].value_counts()[["cat", "dog"]].tolist() == [0, len(others)]


def test_undo_takes_back_a_whole_answer_and_shows_it_again(tmp_path):
    table, features, _ = blobs(tmp_path)
    labeller = experiments.Labeller(table, features, CLASSES, file=tmp_path / "d.csv")
    rows = labeller.screen()
    labeller.answer(rows, "cat")
    labeller.screen()
    assert sorted(labeller.undo()) == sorted(rows) == sorted(labeller.screen())
    assert labeller.left == 240 and not len(labeller.undo())
    labeller.answer(rows[:3], None)
    assert len(labeller.table()) == 237
    assert audit.apply(table.assign(label=pd.Categorical([None] * 240)), tmp_path / "d.csv")["path"].size == 237


def test_what_is_known_teaches_and_what_cannot_be_read_comes_last(tmp_path):
    table, features, truth = blobs(tmp_path)
    table["label"] = pd.Categorical(np.where(np.arange(240) < 200, truth, None), categories=CLASSES)
    features[230:] = np.nan
    labeller = experiments.Labeller(table, features, CLASSES, file=tmp_path / "d.csv")
    seen = []
    while labeller.left > 10:
        seen += (rows := labeller.screen()).tolist()
        assert (np.array(labeller.proposed(rows)) == truth[rows]).mean() > 0.8
        labeller.confirm()
    assert sorted(seen) == list(range(200, 230))
    assert sorted(labeller.screen()) == list(range(230, 240)) and set(labeller.proposed(labeller.screen())) == {""}
    labeller.answer(labeller.screen(), None)
    assert not len(labeller.screen()) and labeller.left == 0


def test_passing_over_brings_other_images_first(tmp_path):
    table, features, _ = blobs(tmp_path, count=40)
    labeller = experiments.Labeller(table, features, CLASSES, file=tmp_path / "d.csv")
    seen = []
    while not set(labeller.screen()) & set(seen):
        seen += labeller.screen().tolist()
        labeller.skip()
    assert len(seen) == len(set(seen)) == 40


def test_one_image_of_each_class_teaches_nothing_yet(tmp_path):
    table, features, _ = blobs(tmp_path)
    labeller = experiments.Labeller(table, features, CLASSES, file=tmp_path / "d.csv")
    for row, name in ((0, "cat"), (1, "dog"), (2, "dog")):
        assert labeller.predictions()["predicted"].isna().all() and labeller.estimate() is None
        labeller.answer([row], name)
    assert set(labeller.predictions()["predicted"]) == {"cat", "dog"}


def learned(tmp_path):
    """A labeller with a screen of proposals, some wrong, which has 12 random draws."""
    table, features, truth = blobs(tmp_path, apart=0.8)
    labeller = experiments.Labeller(table, features, CLASSES, file=tmp_path / "d.csv", size=24)
    while labeller.proposed(labeller.screen())[0] == "":
        answer_screen(labeller, truth)
    return labeller, truth


def test_undo_on_a_screen_leaves_the_rest_of_it(tmp_path):
    labeller, _ = learned(tmp_path)
    rows, proposed = labeller.screen(), labeller.proposed(labeller.screen())
    labeller.answer(rows[3:5], "owl")
    assert sorted(labeller.undo()) == sorted(rows[3:5])
    assert np.array_equal(labeller.screen(), rows) and labeller.proposed(rows) == proposed
    labeller.confirm()
    asked = audit.decisions(tmp_path / "d.csv")
    assert asked["reason"].str.endswith("drawn at random, 1 of 12").sum() == 12


def test_screens_that_are_left_halfway_do_not_count(tmp_path):
    labeller, truth = learned(tmp_path)
    answer_screen(labeller, truth)
    draws = audit.decisions(tmp_path / "d.csv")["reason"].str.contains("drawn at random").sum()
    rows = labeller.screen()
    wrong = rows[np.array(labeller.proposed(rows)) != truth[rows]]
    for row in wrong:  # what is wrong is answered first
        labeller.answer([row], truth[row])
    labeller.skip()
    assert audit.decisions(tmp_path / "d.csv")["reason"].str.contains("drawn at random").sum() > draws
    predictions = labeller.predictions()
    unseen = predictions["label"].isna() & ~np.isin(np.arange(240), rows)
    estimate = labeller.estimate()
    assert estimate.low <= (predictions["predicted"][unseen] == truth[unseen]).mean() <= estimate.high


def test_a_screen_that_is_undone_and_confirmed_again_counts_once(tmp_path):
    labeller, _ = learned(tmp_path)
    rows = labeller.screen()
    labeller.confirm()
    labeller.screen()  # the next, which goes back to the end of the queue
    before = audit.decisions(tmp_path / "d.csv"), labeller.estimate()
    assert sorted(labeller.undo()) == sorted(rows) == sorted(labeller.screen())
    labeller.confirm()
    columns = ["path", "label", "reason"]
    after = audit.decisions(tmp_path / "d.csv")[columns].sort_values("path", ignore_index=True)
    pd.testing.assert_frame_equal(after, before[0][columns].sort_values("path", ignore_index=True))
    assert labeller.estimate() == before[1]


def test_the_label_is_right_keeps_the_label_that_was_given_here(tmp_path):
    table, features, _ = blobs(tmp_path)
    labeller = experiments.Labeller(table, features, CLASSES, file=tmp_path / "d.csv")
    labeller.answer([0, 1], "cat")
    audit.decide(labeller.table(), table["path"][0], "keep", file=tmp_path / "d.csv")
    assert labeller.table()["label"][:2].tolist() == ["cat", "cat"]
    bare = table.assign(label=pd.Categorical([None] * 240, categories=CLASSES))
    assert audit.apply(bare, tmp_path / "d.csv")["label"][:2].tolist() == ["cat", "cat"]
    given = table.assign(label=pd.Categorical(["dog"] * 240, categories=CLASSES))
    assert audit.apply(given, tmp_path / "d.csv")["label"][:2].tolist() == ["dog", "cat"]  # the table's own is right


def test_what_another_kernel_decided_since_is_not_taken_back(tmp_path):
    table, features, _ = blobs(tmp_path)
    first, second = (experiments.Labeller(table, features, CLASSES, file=tmp_path / "d.csv") for _ in range(2))
    first.answer([0, 1], "cat")
    second.answer([0], "dog")
    assert first.undo().tolist() == [1]
    assert second.table()["label"][:2].tolist() == ["dog", np.nan]


def test_wrong_calls_are_explained(tmp_path):
    table, features, truth = blobs(tmp_path, count=6)
    with pytest.raises(ValueError, match=r"each image once\. Received 6 rows of 5 images"):
        experiments.Labeller(table.iloc[[0, 0, 1, 2, 3, 4]], features, CLASSES, file=tmp_path / "d.csv")
    labeller = experiments.Labeller(table, features, [1, 2], file=tmp_path / "numbers.csv")
    labeller.answer([0], 1)
    assert labeller.classes == ["1", "2"]
    with pytest.raises(ValueError, match="`label` expects the name"):
        labeller.answer([0], " ")
    for classes in ("cat", [], ["cat", "cat"], ["cat", " "], None, 3):
        with pytest.raises(ValueError, match="`classes` expects"):
            experiments.Labeller(table, features, classes, file=tmp_path / "d.csv")
    with pytest.raises(ValueError, match="without a label"):
        experiments.Labeller(table.assign(label=pd.Categorical(truth)), features, CLASSES, file=tmp_path / "d.csv")
    with pytest.raises(ValueError, match="without a label"):
        experiments.Labeller(table[:0], features[:0], CLASSES, file=tmp_path / "d.csv")
    with pytest.raises(ValueError, match="one row of numbers"):
        experiments.Labeller(table, features[1:], CLASSES, file=tmp_path / "d.csv")
    with pytest.raises(TypeError, match="expects a table"):
        experiments.Labeller(None, features, CLASSES, file=tmp_path / "d.csv")
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="left as it is"):
        experiments.Labeller(table, features, CLASSES, file=tmp_path / "d.csv")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_real_images_take_a_third_of_the_actions_and_the_estimate_covers_the_truth(tmp_path, real_data, benchmark):
    for name, table in benchmark.sets(["clothing", "sign_digits"], tmp_path):
        features = experiments.features("EfficientNetLite0", table, pyramid=True)
        truth, bare = table["label"].astype(str).to_numpy(), table[["path"]].reset_index(drop=True)
        runs = []
        for seed in range(100 if name == "clothing" else 3):
            options = {"file": tmp_path / f"{name}{seed}.csv", "seed": seed}
            labeller = experiments.Labeller(bare, features, list(np.unique(truth)), **options)
            runs.append(benchmark.simulate(labeller, truth, seed=seed))
        assert np.mean([run["actions"] for run in runs]) <= 0.35 * len(table)
        shown = np.array([each for run in runs for each in run["shown"]])
        last = np.array([run["shown"][-1] for run in runs])
        for right, low, high, true in (shown.T, last.T):
            assert ((low <= true) & (true <= high)).mean() >= 0.9
            assert abs(right - true).mean() < 0.1


@pytest.fixture
def view(tmp_path):
    """`widgets.label` over sixty tiny images of three colours."""
    colours = {"red": (220, 30, 30), "lime": (40, 220, 40), "blue": (30, 30, 220)}
    for number in range(60):
        Image.new("RGB", (12, 12), list(colours.values())[number % 3]).save(tmp_path / f"{number}.png")
    table = pd.DataFrame({"path": [str(tmp_path / f"{number}.png") for number in range(60)]})
    features = np.eye(3)[np.arange(60) % 3] * 9 + np.random.default_rng(0).normal(size=(60, 3))
    return widgets.label(table, ["red", "lime"], file=tmp_path / "d.csv", features=features)


def test_keys_label_a_screen_and_the_view_learns(view):
    names = ("red", "lime", "blue")
    while view.labeller.left:
        rows = [card["row"] for card in view.cards]
        if view.marked:  # all alike
            assert view.marked == rows and len({row % 3 for row in rows}) == 1
            view._receive(view, {"name": names[rows[0] % 3], "rows": rows}, [])
            continue
        for name in names:
            if wrong := [row for row in rows if names[row % 3] == name and view.labeller.proposed([row]) != [name]]:
                view.name(name, wrong)
        view.press("\n")
    assert view.table()["label"].tolist() == [names[row % 3] for row in range(60)]
    assert sorted(name for name, _ in view.classes) == ["blue", "lime", "red"]
    assert "60 of 60 have an answer" in view.status and "view.table()" in view.status


def test_the_frame_goes_on_and_undo_brings_back(view):
    rows = [card["row"] for card in view.cards]
    view.press("r")
    assert view.answers == {str(rows[0]): "red"} and view.place == rows[1]
    view.press("-")
    assert view.answers == {str(rows[0]): "red", str(rows[1]): "left out"}
    assert "2 of 60 have an answer" in view.status
    view.press("\b\b")
    assert view.answers == {} and view.labeller.left == 60
    view.press(".")
    assert not set(rows) & {card["row"] for card in view.cards}


def test_cards_are_of_their_rows_when_some_were_left_out_before(view):
    view.press("--")
    again = widgets.label(view.labeller.images[["path"]], ["red"], file=view.labeller.file, features=np.eye(60))
    for card in again.cards:
        assert card["facts"].startswith(again.labeller.images["path"][card["row"]])


def test_what_was_meant_for_the_page_before_is_dropped(view):
    seen = [card["row"] for card in view.cards]
    for _ in range(2):
        view._receive(view, {"keys": ".", "rows": [], "seen": seen}, [])
    assert view.labeller.left == 60
    left = [card["row"] for card in view.cards]
    view._receive(view, {"name": "red", "rows": seen[:1], "seen": seen}, [])
    assert view.labeller.left == 60 and [card["row"] for card in view.cards] == left


def test_keys_after_the_end_decide_nothing(view):
    view.labeller.answer(np.arange(60), "red")
    view._draw()
    assert not view.cards
    view.press("-lr ")
    assert view.table()["label"].tolist() == ["red"] * 60


def test_a_screen_is_sent_once_with_alternative_texts(view):
    cards = view.cards
    view.press("r")
    assert view.cards is cards
    assert all(card["alt"].endswith(".png, ?") and card["data"][:4] == b"\x89PNG" for card in cards)


def test_a_picture_stands_in_where_widgets_do_not_run(view, monkeypatch):
    kind = "application/vnd.jupyter.widget-view+json"
    monkeypatch.setattr("cnnlab.widgets.exploring.is_quiet", lambda: False)
    assert {kind, "image/png", "text/plain"} <= set(view._repr_mimebundle_())
    monkeypatch.undo()
    assert kind not in view._repr_mimebundle_()


@pytest.mark.slow
def test_a_hundred_thousand_images_come_screen_by_screen(tmp_path):
    for number in range(40):
        Image.new("RGB", (400, 300), (number * 6, 90, 30)).save(tmp_path / f"{number}.jpg")
    paths = [str(tmp_path / f"{number % 40}-{number}.jpg") for number in range(100_000)]
    for number, path in enumerate(paths):
        Path(path).symlink_to(tmp_path / f"{number % 40}.jpg")
    truth = np.arange(100_000) % 4
    features = (np.eye(4, 64)[truth] * 6 + np.random.default_rng(0).normal(size=(100_000, 64))).astype(np.float32)
    began = time.perf_counter()
    view = widgets.label(pd.DataFrame({"path": paths}), CLASSES, file=tmp_path / "d.csv", features=features)
    assert time.perf_counter() - began < 5
    assert len(view.cards) <= 48 and thumbnails._kept.cache_info().currsize <= thumbnails.KEPT
    used = []
    for _ in range(20):
        for name in range(4):
            rows = [card["row"] for card in view.cards if truth[card["row"]] == name]
            if rows:
                view.name(CLASSES[name], rows)
        used.append(psutil.Process().memory_info().rss)
    assert used[-1] - used[4] < 100 * 2**20

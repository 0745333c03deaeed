"""Images unlike the training data: the distance, its limit and the false alarms it promises."""

import json
import shutil

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from cnnlab import serving
from cnnlab.serving.novelty import Novelty


@pytest.fixture(scope="module")
def known(digits_model, digits, tmp_path_factory):
    """An export that has learned what digits look like, its predictor, and the report."""
    folder = tmp_path_factory.mktemp("export") / "digits"
    train, val = (digits[digits["split"] == name] for name in ("train", "val"))
    serving.export(digits_model, folder, check=val)
    predictor = serving.Predictor(folder)
    return folder, predictor, predictor.fit_novelty(train, val, false_alarms=0.05)


def test_usual_images_are_known_and_strange_ones_are_not(known, digits):
    _, predictor, report = known
    answers = predictor(digits[digits["split"] == "test"]["path"].tolist())
    share = np.mean([answer.unknown for answer in answers])
    assert report["low"][0] - 0.05 <= share <= report["high"][0] + 0.05
    rng = np.random.default_rng(0)
    strange = [np.full((8, 8, 3), level, np.uint8) for level in (0, 128, 255)]
    strange += [rng.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(40)]
    assert np.mean([answer.unknown for answer in predictor(strange)]) > 0.8
    assert all((answer.distance > 1) == answer.unknown for answer in answers)


def test_a_table_says_what_is_unknown(known, digits, tmp_path):
    _, predictor, _ = known
    table = digits[digits["split"] == "test"].head(30)[["path"]].reset_index(drop=True)
    table.loc[3, "path"] = str(tmp_path / "gone.png")
    with pytest.warns(UserWarning, match="1 of 30"):
        found = predictor.table(table)
    with pytest.warns(UserWarning, match="1 of 30"):
        answers = predictor(table["path"])
    assert found["unknown"].isna().tolist() == [place == 3 for place in range(30)]
    assert found["unknown"].drop(3).tolist() == [one.unknown for one in answers if not one.problem]


def test_the_old_name_still_works(known, digits):
    val = digits[digits["split"] == "val"]
    with pytest.warns(DeprecationWarning, match="now `fit_novelty`"):
        known[1].learn_unknown(digits[digits["split"] == "train"], val, false_alarms=0.05)


def test_what_was_learned_stays_with_the_export(known, digits):
    folder, predictor, _ = known
    path = digits["path"].iloc[0]
    again = serving.Predictor(folder)(path)
    assert (again.distance, again.unknown) == (predictor(path).distance, predictor(path).unknown)
    other = serving.Predictor(folder, format="keras")(path)  # learned for LiteRT only
    assert (other.distance, other.unknown) == (None, None)


def test_what_was_learned_for_another_model_is_not_used(known, digits_model, digits, tmp_path):
    folder = tmp_path / "export"
    shutil.copytree(known[0], folder)
    about = json.loads((folder / "export.json").read_text())
    digits_model.get_layer("probabilities").bias.assign_add(np.full(10, 0.01))
    try:
        serving.export(digits_model, folder, check=digits[digits["split"] == "val"])
    finally:
        digits_model.get_layer("probabilities").bias.assign_sub(np.full(10, 0.01))
    assert json.loads((folder / "export.json").read_text())["formats"] != about["formats"]
    with pytest.warns(UserWarning, match="an earlier export"):
        assert serving.Predictor(folder)(digits["path"].iloc[0]).unknown is None
    (folder / "novelty_litert.npz").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="is damaged"):
        serving.Predictor(folder)


def test_the_distance_is_to_the_fifth_nearest_image():
    rng = np.random.default_rng(0)
    train, new = rng.normal(size=(200, 7)), rng.normal(size=(50, 7)) * 3
    expected = NearestNeighbors(n_neighbors=5).fit(normalize(train)).kneighbors(normalize(new))[0][:, -1]
    novelty = Novelty.fit(train)
    np.testing.assert_allclose(novelty.distance(new), expected, atol=1e-3)
    np.testing.assert_allclose(novelty.distance(new), novelty.distance(new * 10), atol=1e-3)
    novelty.limit = 2.0
    np.testing.assert_allclose(novelty.distance(new), expected / 2, atol=1e-3)


def test_the_limit_keeps_its_promise():
    """Over many draws, the share of new images beyond the limit is what was promised, and lies in the interval."""
    rng = np.random.default_rng(0)
    count, inside, shares = 99, [], []
    for _ in range(2000):
        novelty = Novelty(np.eye(1))
        report = novelty.set_limit(rng.uniform(size=count), false_alarms=0.1)
        share = 1 - novelty.limit  # of new images, since they are uniform
        shares.append(share)
        inside.append(report["low"][0] <= share <= report["high"][0])
    assert report["false_alarms"][0] == pytest.approx(0.1)
    assert np.mean(shares) == pytest.approx(0.1, abs=0.003)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("images", [9, 19, 100, 1000])
@pytest.mark.parametrize("false_alarms", [0.05, 0.1])
def test_too_few_images_promise_nothing(images, false_alarms):
    novelty = Novelty(np.eye(1))
    if images + 1 < 1 / false_alarms:
        with pytest.raises(ValueError, match=f"at least {round(1 / false_alarms) - 1} validation images"):
            novelty.set_limit(np.arange(images), false_alarms)
    else:
        report = novelty.set_limit(np.arange(images), false_alarms)
        assert 0 < report["false_alarms"][0] <= false_alarms


def test_impossible_arguments_are_refused(known, digits):
    predictor = known[1]
    for share in (0, 1, -1):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            predictor.fit_novelty(digits, digits, false_alarms=share)
    with pytest.raises(ValueError, match="at least 5 readable training images"):
        predictor.fit_novelty(digits.head(4), digits)
    with pytest.raises(KeyError, match="fit_novelty"):
        predictor.fit_novelty(digits.drop(columns="path"), digits)

"""Images that stand apart, near copies by features, and their map: planted ones, and numpy by hand."""

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.offsetbox import AnnotationBbox
from sklearn.datasets import load_sample_images

from cnnlab import audit, experiments, plots


def clusters(seed=0):
    """60 directions around each of three classes, and their table."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], 60)
    features = 4 * rng.normal(size=(3, 30))[labels] + rng.normal(size=(180, 30))
    paths = [f"{number}.png" for number in range(180)]
    return pd.DataFrame({"path": paths, "label": pd.Categorical.from_codes(labels, list("abc"))}), features


def test_images_unlike_their_class_or_any_are_found():
    table, features = clusters()
    features[7] = np.random.default_rng(9).normal(size=30)
    table.loc[100, "label"] = "c"  # looks like class b
    table.index += 1000
    found = audit.outliers(table, features)
    assert found.loc[[1007, 1100], "kind"].tolist() == ["unlike any class", "unlike its class"]
    assert len(found) < 2 + 0.05 * len(table) and found["score"].is_monotonic_decreasing and found["score"].min() > 1
    points = features / np.linalg.norm(features, axis=1, keepdims=True)
    fifth = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 5]
    low, high = np.percentile(fifth, [25, 75])
    assert found.loc[1007, "score"] == pytest.approx(fifth[7] / (high + 1.5 * (high - low)))


def test_what_has_no_features_or_too_few_neighbours_is_left_out():
    table, features = clusters()
    features[7], features[8] = 50, np.nan
    features[8:20] = np.nan
    found = audit.outliers(table, features)
    assert not set(range(8, 20)) & set(found.index)
    assert audit.outliers(table[:6], features[:6]).empty
    assert audit.outliers(table[:0], features[:0]).columns.tolist() == ["path", "label", "kind", "score"]
    one = table[:60].assign(label=pd.Categorical(["a"] * 60))
    assert audit.outliers(one, features[:60])["kind"].isin(["unlike any class", "unlike its class"]).all()
    assert audit.outliers(table.assign(label=table["label"].where(table["label"] != "a")), features) is not None


def test_similar_pairs_are_numpys():
    table, features = clusters()
    features[11], features[90] = features[3] + 0.01, features[5]
    features[20] = np.nan
    found = audit.similar(table.assign(group=[0] * 12 + list(range(1, 169))), features, threshold=0.7)
    rows = np.delete(np.arange(180), 20)
    values = (features[rows] - features[rows].mean(axis=0)) / features[rows].std(axis=0)
    cosine = values @ values.T / np.outer(*[np.linalg.norm(values, axis=1)] * 2)
    one, other = np.nonzero(np.triu(cosine, 1) >= 0.7)
    expected = {(f"{rows[a]}.png", f"{rows[b]}.png"): cosine[a, b] for a, b in zip(one, other, strict=True)}
    pairs = dict(zip(zip(found["path"], found["other"], strict=True), found["similarity"], strict=True))
    assert pairs == pytest.approx(expected, abs=1e-6)
    assert found["similarity"].is_monotonic_decreasing
    assert found.set_index(["path", "other"])["grouped"][[("3.png", "11.png"), ("5.png", "90.png")]].tolist() == [
        True,
        False,
    ]
    assert audit.similar(table[:1], features[:1]).columns.tolist() == ["path", "other", "similarity"]
    same = audit.similar(table[:2], np.ones((2, 3)))
    assert same["similarity"].tolist() == [1.0]


def test_a_planted_crop_is_found_by_a_pretrained_network(tmp_path):
    tiles = [
        photo[y : y + 200, x : x + 200]
        for photo in load_sample_images().images
        for y in (0, 220)
        for x in (0, 220, 440)
    ]
    for number, pixels in enumerate([*tiles, tiles[4][6:190, 10:195]]):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), pixels[..., ::-1])
    table = pd.DataFrame({"path": sorted(map(str, tmp_path.glob("*.png")))})
    found = audit.similar(table, experiments.features("EfficientNetLite0", table, cache=False), threshold=0.7)
    assert found[["path", "other"]].values.tolist() == [[table["path"][4], table["path"][12]]]


@pytest.mark.parametrize("call", [audit.outliers, audit.similar, plots.embedding])
def test_features_of_other_images_are_refused(call):
    table, features = clusters()
    for wrong in (features[:-1], features[:, 0], np.full(features.shape, "a"), features[:, :0]):
        with pytest.raises(ValueError, match="for each of the 180"):
            call(table, wrong)
    with pytest.raises(KeyError, match="'path'"):
        call(table.drop(columns="path"), features)


def test_a_threshold_that_is_none_is_refused():
    for wrong in (0, 1.2, np.nan):
        with pytest.raises(ValueError, match="threshold"):
            audit.similar(*clusters(), threshold=wrong)


def test_the_map_shows_all_images_and_keeps_neighbours():
    table, features = clusters()
    features[4] = np.nan
    one, other = (plots.embedding(table, features, thumbnails=0, seed=1) for _ in range(2))
    places = [np.concatenate([dots.get_offsets() for dots in ax.collections]) for ax in (one, other)]
    np.testing.assert_array_equal(*places)
    labels = np.delete(np.repeat([0, 1, 2], 60), 4)
    distance = np.linalg.norm(places[0][:, None] - places[0], axis=2) + np.diag([np.inf] * 179)
    assert (labels[distance.argmin(axis=1)] == labels).mean() > 0.95
    assert [len(dots.get_offsets()) for dots in one.collections] == [59, 60, 60]
    plt.close("all")


def test_places_are_drawn_as_given_with_thumbnails_on_the_axes_given(parts):
    rows = parts[:30]
    places = np.random.default_rng(0).normal(size=(30, 2))
    _, ax = plt.subplots()
    assert plots.embedding(rows, places, thumbnails=7, ax=ax) is ax
    drawn = np.concatenate([dots.get_offsets() for dots in ax.collections])
    assert sorted(map(tuple, drawn)) == sorted(map(tuple, places))
    boxes = [artist for artist in ax.artists if isinstance(artist, AnnotationBbox)]
    assert len(boxes) == 7 and {tuple(box.xy) for box in boxes} <= set(map(tuple, places))
    plain = plots.embedding(rows[["path"]], places, thumbnails=50)
    assert plain.get_legend() is None and len([a for a in plain.artists if isinstance(a, AnnotationBbox)]) == 30
    with pytest.raises(ValueError, match="four images"):
        plots.embedding(rows[:3], np.ones((3, 8)))
    plt.close("all")

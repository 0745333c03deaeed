"""audit.scan on real images and on files of every kind."""

import hashlib
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import audit, images, samples, tables
from cnnlab.audit import neighbours


def table_of(paths, labels=None):
    labels = labels or ["a" if index % 2 else "b" for index in range(len(paths))]
    return pd.DataFrame({"path": [str(path) for path in paths], "label": pd.Categorical(labels)})


@pytest.fixture(scope="module")
def photos(real_data):
    return sorted((real_data / "clothing" / "train" / "dress").glob("*.jpg"))[:24]


def test_files_with_two_labels_are_found_in_real_data(real_data):
    table = audit.scan(tables.from_folder(real_data / "trash"))
    digests = table["path"].map(lambda path: hashlib.sha256(Path(path).read_bytes()).hexdigest())
    labels = table.groupby(digests)["label"].nunique()
    conflicting = digests.map(labels) > 1
    assert conflicting.sum() == 6
    assert table.loc[conflicting, "problem"].str.startswith("same picture as ").all()
    assert (table.groupby(digests)["group"].nunique() == 1).all()


def test_no_real_photo_is_called_broken(real_data):
    table = audit.scan(tables.from_folder(real_data / "clothing"))
    problems = table.loc[table["problem"] != "", "problem"]
    assert problems.str.startswith("same picture as ").all()
    assert len(problems) <= 4
    assert len(audit.leaks(table)) == table.groupby("group")["split"].nunique().gt(1).sum() * 2


def test_every_kind_of_damage_is_named(photos, tmp_path):
    whole = photos[0].read_bytes()
    files = {
        "empty.jpg": b"",
        "text.jpg": b"no image at all",
        "half.jpg": whole[: len(whole) // 2],
        "page.png": b"<html></html>",
        "head.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    Image.new("RGB", (200, 200), (90, 90, 90)).save(tmp_path / "blank.png")
    Image.effect_noise((2, 300), 60).convert("RGB").save(tmp_path / "tiny.png")
    table = audit.scan(table_of([*sorted(tmp_path.iterdir()), tmp_path / "gone.png", *photos]))
    found = dict(zip(table["path"].map(lambda path: Path(path).name), table["problem"], strict=True))
    expected = {"empty": "empty", "half": "truncated", "text": "not an image", "page": "HTML", "head": "damaged"}
    expected |= {"blank": "blank", "tiny": "tiny"}
    for name, words in expected.items():
        problem = next(problem for file, problem in found.items() if file.startswith(name + "."))
        assert words in problem, (name, problem)
    assert found["gone.png"] != ""
    assert all(found[path.name] == "" for path in photos)


def test_what_works_but_is_odd_is_a_note(photos, tmp_path):
    image = Image.open(photos[1]).convert("RGB")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    image.convert("P").save(tmp_path / "palette.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "ending.png", "JPEG")
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "deep.png")
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[image.transpose(Image.Transpose.ROTATE_180)])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray((np.asarray(image) * 0.1).astype(np.uint8)).save(tmp_path / "dark.png")
    table = audit.scan(table_of(sorted(tmp_path.iterdir()), ["a"] * 8))
    assert (table["problem"] == "").all()
    notes = dict(zip(table["path"].map(lambda path: Path(path).stem), table["note"], strict=True))
    expected = {"alpha": "alpha", "palette": "palette", "cmyk": "CMYK", "ending": "JPEG file named .png"}
    expected |= {"deep": "16-bit", "moving": "animated", "turned": "rotated by EXIF", "dark": "very dark"}
    for name, words in expected.items():
        assert words in notes[name], (name, notes[name])


def changed(image, how):
    width, height = image.size
    if how == "half":
        return image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    if how == "mirror":
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if how == "crop":
        return image.crop((0, 0, int(width * 0.95), int(height * 0.95)))
    factor = {"brighter": 1.2, "darker": 0.8}.get(how, 1.0)
    return Image.fromarray(np.clip(np.asarray(image) * factor, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("how", ["half", "quality", "mirror", "brighter", "darker", "crop"])
def test_near_copies_of_photos_share_a_group(photos, tmp_path, how):
    for path in photos[:12]:
        changed(Image.open(path).convert("RGB"), how).save(tmp_path / path.name, quality=30 if how == "quality" else 92)
    table = audit.scan(table_of([*photos, *sorted(tmp_path.iterdir())], ["a"] * 36))
    groups = table["group"].groupby(table["path"].map(lambda path: Path(path).name)).nunique()
    assert (groups == 1).sum() >= 23  # of 12 pairs and 12 photographs that have no copy
    assert table["group"].nunique() >= 23
    assert table["note"].str.contains("copy of").sum() >= 11


def test_planted_copies_are_found_and_kept_on_one_side(tmp_path):
    folder = samples.inspection(
        tmp_path / "parts", per_class=30, plant={"copies": 0.1, "near_copies": 0.1, "broken": 0.05}, seed=1
    )
    table = audit.scan(tables.from_folder(folder)).merge(samples.truth(folder), on="path")
    assert ((table["problem"] != "") == (table["planted"] == "broken")).all()
    readable = table[table["problem"] == ""]
    assert (readable.groupby("group")["picture"].nunique() == 1).all()
    sizes = readable.groupby("group")["path"].transform("size")
    alone = (sizes == 1) & readable["planted"].isin(["copy", "near copy"])
    assert alone.sum() <= 0.05 * readable["planted"].isin(["copy", "near copy"]).sum()
    assert (readable["note"].str.contains("copy of").sum()) == len(readable) - readable["group"].nunique()
    divided = tables.split(readable, val=0.2, test=0.2, group="group", seed=0)
    assert len(audit.leaks(divided)) == 0
    careless = tables.split(readable, val=0.2, test=0.2, group=False, seed=0)
    assert len(audit.leaks(careless)) > 0


def test_the_table_itself_stays_as_it_is(photos):
    table = table_of(photos).set_index(pd.Index(range(100, 100 + len(photos))))
    before = table.copy()
    result = audit.scan(table)
    pd.testing.assert_frame_equal(table, before)
    assert result.index.equals(table.index)
    assert audit.scan(result).columns.tolist() == result.columns.tolist()
    assert audit.scan(result[:0])["problem"].tolist() == []


def test_leaks_between_ready_made_splits(photos, tmp_path):
    for part, names in (("train", photos[:4]), ("test", [photos[0], *photos[5:8]])):
        (tmp_path / part / "a").mkdir(parents=True)
        for path in names:
            shutil.copy(path, tmp_path / part / "a")
        (tmp_path / part / "b").mkdir()
        shutil.copy(photos[10 if part == "train" else 11], tmp_path / part / "b")
    found = audit.leaks(tables.from_folder(tmp_path))
    assert {Path(path).name for path in found["path"]} == {photos[0].name}
    assert found["other_split"].tolist() == ["train", "test"]
    with pytest.raises(KeyError, match="'split'"):
        audit.leaks(table_of(photos))


# Deep images: one scale for a set


def deep_set(folder, values_of, kind="png"):
    rows = []
    for number in range(6):
        path = folder / f"{number}.{kind}"
        Image.fromarray(values_of(number)).save(path)
        rows.append(path)
    return table_of(rows)


def test_deep_images_get_one_scale_and_a_note(tmp_path):
    rng = np.random.default_rng(0)

    def twelve_bits(number):
        top = 900 if number % 2 else 4000
        return np.clip(rng.normal(top / 2, top / 8, (64, 64)), 0, top).astype(np.uint16)

    table = audit.scan(deep_set(tmp_path, twelve_bits))
    assert (table["problem"] == "").all(), table["problem"].tolist()
    assert table["levels"].tolist() == ["0-4095"] * 6
    assert audit.levels(table) == audit.levels(table[:1]) == (0.0, 4095.0)
    assert table["note"].str.contains(r"uses \d+ % of its 16-bit range").all()
    faint, strong = (images.read(table["path"][row], levels=audit.levels(table)) for row in (1, 0))
    assert faint.mean() < strong.mean() / 2  # as they are, not each by its own range
    assert "levels" not in audit.scan(table.assign(path=table["path"].iloc[0] + "gone"))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda number: np.full((40, 40), -1000 + 700 * number, np.int32) + np.arange(40, dtype=np.int32),
            (-1000, 2539),
        ),
        (lambda number: np.linspace(0, 0.4 + number / 10, 1600, dtype=np.float32).reshape(40, 40), (0, 1)),
        (lambda number: np.linspace(0, 1, 1600, dtype=np.float32).reshape(40, 40), (0, 1)),
        (lambda number: np.linspace(0, 1.003, 1600, dtype=np.float32).reshape(40, 40), (0, 1)),
        (lambda number: np.linspace(0, 40 * number + 9, 1600, dtype=np.float32).reshape(40, 40), (0, 255)),
        (lambda number: np.linspace(-2.5, 7.5, 1600, dtype=np.float32).reshape(40, 40), (-2.5, 7.5)),
        (lambda number: np.linspace(0, 60_000, 1600).reshape(40, 40).astype(np.int32), (0, 65535)),
    ],
)
def test_levels_of_other_numbers(tmp_path, make, expected):
    table = audit.scan(deep_set(tmp_path, make, "tif"))
    assert audit.levels(table) == pytest.approx(expected)
    assert audit.levels(table.drop(columns="levels")) is None
    with pytest.raises(ValueError, match=r"expects two numbers such as '0-4095'\. Received: 'all'"):
        audit.levels(table.assign(levels="all"))


def test_a_deep_image_is_blank_by_its_own_numbers(tmp_path):
    rng = np.random.default_rng(0)
    dim = rng.integers(300, 420, (64, 64)).astype(np.uint16)  # of 65,535: black to whoever keeps 8 bits
    Image.fromarray(dim).save(tmp_path / "dim.png")
    Image.fromarray(np.full((64, 64), 30_000, np.uint16)).save(tmp_path / "flat.png")
    Image.fromarray(np.full((64, 64), np.nan, np.float32)).save(tmp_path / "none.tif")
    table = audit.scan(table_of(sorted(tmp_path.iterdir())))
    assert table["problem"].tolist() == ["", "blank: one colour all over", "blank: one colour all over"]


def test_eight_bit_sets_have_no_levels(photos):
    assert "levels" not in audit.scan(table_of(photos[:2]))
    assert audit.levels(table_of(photos[:2])) is None


def test_leaks_are_found_quickly_and_as_one_by_one():
    rng = np.random.default_rng(0)
    count = 20_000
    table = pd.DataFrame(
        {
            "path": [f"{row}.png" for row in range(count)],
            "split": rng.choice(["train", "val", "test"], count),
            "group": rng.integers(0, count // 3, count),
        },
        index=rng.permutation(count),
    )
    began = time.perf_counter()
    found = audit.leaks(table)
    assert time.perf_counter() - began < 2
    few = table[table["group"] < 100]
    expected = []
    for row in few.itertuples():
        others = few[(few["group"] == row.group) & (few["split"] != row.split)]
        if len(others):
            other = others.iloc[0]
            expected.append((row.path, row.split, other["path"], other["split"]))
    assert list(audit.leaks(few).itertuples(index=False, name=None)) == expected
    assert set(found.columns) == {"path", "split", "other", "other_split"} and len(found) > 1000


def test_the_nearest_pictures_are_those_of_comparing_all_with_all():
    """The forest of k-d trees finds what is near, the same in every run, and never a picture itself or its mirror."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, 35)).astype(np.float32)
    points[300:600] = points[:300] + rng.normal(size=(300, 35)).astype(np.float32) * 0.05  # row r and r + 300 are alike
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    row, point = neighbours.nearest(points, 300)
    again = neighbours.nearest(points, 300)
    np.testing.assert_array_equal([row, point], again)
    assert (point % 300 != row).all()
    mixed = np.concatenate([points, points[rng.permutation(600)]])
    row, point = neighbours.nearest(mixed, 1200)
    likeness = mixed @ mixed.T
    found = {(int(one), int(other)) for one, other in zip(row, point, strict=True)}
    np.fill_diagonal(likeness, -1)
    best = [(index, other) for index in range(1200) for other in np.flatnonzero(likeness[index] > 0.9)[:1]]
    assert np.mean([pair in found for pair in best]) > 0.98


def test_groups_of_ones_own_are_kept_under_another_name(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / f"{number}.png")
    paths = [str(tmp_path / f"{number}.png") for number in range(12)]
    patients = [f"p{number // 3}" for number in range(12)]
    table = pd.DataFrame({"path": paths, "label": pd.Categorical(["a", "b"] * 6), "group": patients, "note": "mine"})
    with pytest.warns(
        UserWarning, match=r"group and note .* is now group_before and note_before\. group='group_before'"
    ):
        scanned = audit.scan(table)
    assert scanned["group_before"].tolist() == patients and set(scanned["note_before"]) == {"mine"}
    assert scanned["group"].nunique() == 12
    divided = tables.split(scanned, val=0.25, test=0.25, group="group_before", seed=0)  # as it advises
    assert (divided.groupby("group_before")["split"].nunique() == 1).all()
    again = audit.scan(scanned)  # its own columns are replaced, and nothing is said
    pd.testing.assert_frame_equal(again, scanned)
    with pytest.warns(UserWarning, match="is now group_before"):
        assert len(audit.leaks(table.assign(split=["train", "test"] * 6))) == 0  # patients are no copies


def test_what_can_be_learned_from_is_kept_and_the_rest_named():
    table = pd.DataFrame({"path": [f"{number}.png" for number in range(9)], "label": list("aaaabbbbc"), "problem": ""})
    table = table.astype({"label": "category"})
    table.loc[0, "problem"] = "cut off"
    with pytest.warns(UserWarning) as said:
        kept = audit.usable(table)
    assert [str(one.message) for one in said] == [
        "1 of 9 images left out:\n  0.png: cut off",
        "1 class left out, as each needs 3 readable images: 'c' (1).",
    ]
    assert kept["path"].tolist() == [f"{number}.png" for number in range(1, 8)]
    assert kept["label"].cat.categories.tolist() == ["a", "b"]
    large = table[table["label"] == "b"].assign(label=lambda rows: rows["label"].cat.remove_unused_categories())
    with pytest.raises(ValueError, match=r"two classes with 3 readable images each\. Received 1"):
        audit.usable(large)
    with pytest.raises(ValueError, match=r"Received 1; 'c' has 1\. Add images"), pytest.warns(UserWarning):
        audit.usable(
            table[table["label"] != "b"].assign(label=lambda rows: rows["label"].cat.remove_unused_categories())
        )

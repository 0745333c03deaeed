import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.class_weight import compute_class_weight

from cnnlab import tables

SPLITS = ["train", "val", "test"]


def table_of(labels, **columns):
    labels = [str(label) for label in labels]
    return pd.DataFrame({"path": [f"{i}.png" for i in range(len(labels))], "label": pd.Categorical(labels), **columns})


def image_at(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


# ------------------------------------------------------------------------------------------------------ split


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(3, 60), min_size=2, max_size=5),
    st.floats(0.01, 0.45),
    st.floats(0.01, 0.45),
    st.integers(0, 99),
)
def test_split_is_within_one_image_of_exact(counts, val, test, seed):
    table = table_of([label for label, count in enumerate(counts) for _ in range(count)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = tables.split(table, val=val, test=test, seed=seed)
    shares = pd.Series({"train": 1 - val - test, "val": val, "test": test})
    found = pd.crosstab(result["label"], result["split"])
    for label, count in enumerate(counts):
        row = found.loc[str(label)].reindex(SPLITS, fill_value=0)
        assert (abs(row - shares[SPLITS] * count) <= 1 + 1e-6).all(), (row, shares * count)
        assert (row[shares[SPLITS] * count >= 0.5] >= 1).all() or count < 4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=12, max_size=80),
    st.integers(0, 99),
)
def test_no_group_is_on_two_sides(rows, seed):
    table = table_of([label for label, _ in rows], patient=[group for _, group in rows])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = tables.split(table, val=0.2, test=0.2, group="patient", seed=seed)
    assert (result.groupby("patient")["split"].nunique() == 1).all()
    assert result["split"].notna().all()


def test_pairs_of_copies_cost_no_exactness():
    labels = np.repeat(["a", "b"], 100)
    groups = np.arange(200)
    groups[1:20:2] = groups[0:20:2]  # ten pairs within a
    groups[150] = groups[50]  # one pair across classes
    result = tables.split(table_of(labels, group=groups), val=0.15, test=0.15, group="group", seed=0)
    counts = pd.crosstab(result["label"], result["split"])
    assert (abs(counts[SPLITS] - [70, 15, 15]) <= 1).all().all()
    assert (result.groupby("group")["split"].nunique() == 1).all()


def test_missing_groups_are_groups_of_their_own():
    table = table_of(["a", "b"] * 20, patient=[None] * 40)
    result = tables.split(table, val=0.25, test=0.25, group="patient", seed=0)
    assert result["split"].value_counts().to_dict() == {"train": 20, "val": 10, "test": 10}


def test_the_seed_decides():
    table = table_of(["a", "b"] * 50)
    first, again, other = (tables.split(table, val=0.2, test=0.2, seed=seed)["split"] for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)
    assert "split" not in table


def test_ready_made_parts_are_kept():
    table = table_of(["a", "b"] * 50, split=["train"] * 80 + ["test"] * 20)
    result = tables.split(table, val=0.25, test=0.5, seed=0, keep=True)
    assert (result["split"][80:] == "test").all()
    assert result["split"][:80].value_counts().to_dict() == {"train": 60, "val": 20, "test": 0}
    whole = tables.split(result, val=0.5, test=0.1, seed=1, keep=True)
    assert whole["split"].equals(result["split"])
    with pytest.raises(ValueError, match="Received: 'holdout'"):
        tables.split(table.assign(split="holdout"), val=0.1, test=0.1, seed=0, keep=True)


def test_a_class_too_small_is_named():
    with pytest.warns(UserWarning, match=r"'b' \(2 images\)"):
        tables.split(table_of(["a"] * 10 + ["b"] * 2), val=0.2, test=0.2, seed=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"val": 0.5, "test": 0.5}, "must stay below 1"),
        ({"val": -0.1, "test": 0.5}, "Received: -0.1"),
        ({"val": "0.1", "test": 0.5}, "Received: '0.1'"),
        ({"val": True, "test": 0.5}, "Received: True"),
    ],
)
def test_impossible_shares_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        tables.split(table_of(["a", "b"]), **arguments, seed=0)


def test_a_missing_group_column_is_one_sentence():
    table = table_of(["a", "b"], patient=[1, 2])
    with pytest.raises(KeyError) as caught:
        tables.split(table, val=0.1, test=0.1, group="patients", seed=0)
    assert str(caught.value).endswith("Did you mean 'patient'?")


def test_labels_must_be_categorical():
    table = pd.DataFrame({"path": ["1.png"], "label": ["a"]})
    with pytest.raises(TypeError, match="Categorical"):
        tables.split(table, val=0.1, test=0.1, seed=0)
    with pytest.raises(TypeError, match="Received: list"):
        tables.split([1], val=0.1, test=0.1, seed=0)


# ------------------------------------------------------------------------------------------------------ folds


def test_folds_are_scikit_learns():
    table = table_of(["a", "b", "b"] * 20)
    result = tables.folds(table, count=4, seed=5)
    splitter = StratifiedKFold(4, shuffle=True, random_state=5)
    for number, (_, held_out) in enumerate(splitter.split(table, table["label"])):
        assert set(np.flatnonzero(result["fold"] == number)) == set(held_out)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=30, max_size=80), st.integers(0, 9))
def test_no_group_is_in_two_folds(groups, seed):
    table = table_of([group % 2 for group in groups], site=groups)
    distinct = pd.Series(groups).groupby(table["label"].to_numpy()).nunique()
    if len(distinct) == 2 and distinct.min() >= 3:
        result = tables.folds(table, count=3, group="site", seed=seed)
        assert (result.groupby("site")["fold"].nunique() == 1).all()


def test_more_folds_than_the_smallest_class():
    table = table_of(["a"] * 9 + ["b"] * 3, site=[0] * 12)
    with pytest.raises(ValueError, match=r"'b' has 3. Use fewer folds \(count=3\)"):
        tables.folds(table, count=4, seed=0)
    with pytest.raises(ValueError, match="groups of 'site'"):
        tables.folds(table, count=2, group="site", seed=0)
    with pytest.raises(ValueError, match="2 folds or more"):
        tables.folds(table, count=1, seed=0)
    assert tables.folds(table, count=3, seed=0)["fold"].nunique() == 3


# ------------------------------------------------------------------------------------------- weights and storing


def test_class_weights_are_the_hand_computed_ones():
    table = table_of(["a"] * 6 + ["b"] * 2)
    assert tables.class_weights(table) == {0: pytest.approx(8 / (2 * 6)), 1: pytest.approx(8 / (2 * 2))}
    expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=table["label"].cat.codes.to_numpy())
    assert list(tables.class_weights(table).values()) == pytest.approx(expected.tolist())
    assert tables.class_weights(table[table["label"] == "a"]) == {0: 1.0, 1: 0.0}
    with pytest.raises(ValueError, match="Received none"):
        tables.class_weights(table[:0])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(max_size=8).filter(lambda t: "\r" not in t and "\0" not in t), st.floats(0, 1), st.booleans()
        ),
        min_size=1,
        max_size=12,
    )
)
def test_save_and_read_bring_back_the_same_table(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("store")
    names = [name.encode("utf-8", "ignore").decode() for name, _, _ in rows]
    table = pd.DataFrame(
        {
            "path": [f"{index}_{name}" for index, name in enumerate(names)],
            "label": pd.Categorical(names, categories=sorted(set(names), reverse=True)),
            "confidence": [number for _, number, _ in rows],
            "right": [flag for _, _, flag in rows],
            "fold": range(len(rows)),
        }
    )
    tables.save(table, folder / "table.csv")
    pd.testing.assert_frame_equal(tables.read(folder / "table.csv"), table, check_exact=True)


def test_missing_classes_stay_missing(tmp_path):
    table = pd.DataFrame({"path": ["1", "2"], "predicted": pd.Categorical([None, "b"], categories=["a", "b"])})
    tables.save(table, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(tables.read(tmp_path / "t.csv"), table)


def test_a_lone_csv_is_read_with_alphabetical_classes(tmp_path):
    tables.save(table_of(["b", "a"]), tmp_path / "t.csv")
    (tmp_path / "t.csv.json").unlink()
    assert tables.read(tmp_path / "t.csv")["label"].cat.categories.tolist() == ["a", "b"]
    (tmp_path / "by_hand.csv").write_text('path,label\n0.png,"cat "\n1.png,cat\n2.png,dog\n')
    assert tables.read(tmp_path / "by_hand.csv")["label"].tolist() == ["cat", "cat", "dog"]
    with pytest.raises(FileNotFoundError, match="There is none"):
        tables.read(tmp_path / "u.csv")
    with pytest.raises(ValueError, match=r"ending in \.csv"):
        tables.save(table_of(["b", "a"]), tmp_path / "t.xlsx")


def test_a_fingerprint_follows_content_and_split_only(tmp_path):
    for number, color in enumerate(["red", "blue", "green", "white"]):
        (tmp_path / "one").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), color).save(tmp_path / "one" / f"{number}.png")
    table = table_of(["a", "b", "a", "b"], split=[*SPLITS, "train"])
    table["path"] = [str(tmp_path / "one" / f"{number}.png") for number in range(4)]
    (tmp_path / "one").rename(tmp_path / "two")
    moved = table.assign(path=table["path"].str.replace("/one/", "/two/"))
    first = tables.fingerprint(moved)
    assert tables.fingerprint(moved[::-1]) == first
    assert tables.fingerprint(moved.assign(split="train")) != first
    Image.new("RGB", (4, 4), "black").save(tmp_path / "two" / "0.png")
    assert tables.fingerprint(moved) != first


def test_the_same_split_can_be_proved_later(tmp_path):
    rng = np.random.default_rng(0)
    table = table_of(["a", "b"] * 10)
    table["path"] = [str(tmp_path / f"{number}.png") for number in range(20)]
    for path in table["path"]:
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(path)
    divided = tables.split(table, val=0.2, test=0.2, seed=0)
    csv = tmp_path / "table.csv"
    tables.save(divided, csv, prove=True)
    pd.testing.assert_frame_equal(tables.read(csv, verify=True), divided)
    text = csv.read_text()
    csv.write_text(text.replace("train", "test", 1))
    with pytest.raises(ValueError, match="an image, a label or the split has changed"):
        tables.read(csv, verify=True)
    csv.write_text(text)
    Image.new("RGB", (4, 4)).save(table["path"][3])
    with pytest.raises(ValueError, match="has changed since"):
        tables.read(csv, verify=True)
    tables.save(divided, csv)
    with pytest.raises(ValueError, match="prove=True"):
        tables.read(csv, verify=True)


# ------------------------------------------------------------------------------------------------ what save keeps

TEXT = st.text(st.characters(exclude_categories=["Cs"], include_characters="\r\n\t\0\"',;=NA"), max_size=6)
COLUMNS = {
    "text": st.one_of(st.none(), TEXT),
    "words": TEXT,
    "whole": st.integers(-(2**63), 2**63 - 1),
    "real": st.floats(),
    "small": st.floats(width=32),
    "flag": st.booleans(),
    "maybe": st.one_of(st.none(), st.booleans()),
    "count": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    "time": st.one_of(st.none(), st.datetimes(pd.Timestamp(1970, 1, 1), pd.Timestamp(2100, 1, 1))),
}


@pytest.mark.parametrize("dtype", ["Int64", "UInt64"])
def test_large_whole_numbers_come_back_beside_missing_ones(tmp_path, dtype):
    table = pd.DataFrame({"count": pd.array([2**53 + 1, None, 2**63 - 512, 0], dtype=dtype)})
    tables.save(table, tmp_path / "t.csv")
    assert tables.read(tmp_path / "t.csv")["count"].tolist() == [2**53 + 1, pd.NA, 2**63 - 512, 0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.fixed_dictionaries(COLUMNS), max_size=8), TEXT.filter(bool), st.booleans())
def test_what_is_saved_comes_back_exactly_or_is_refused(tmp_path_factory, rows, name, ordered):
    folder = tmp_path_factory.mktemp("store")
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        {
            "text": "str",
            "words": "str",
            "maybe": "boolean",
            "time": "datetime64[us]",
            "whole": "int64",
            "real": "float64",
            "small": "float32",
            "flag": "bool",
        }
    )
    table["count"] = pd.array([row["count"] for row in rows], dtype="Int64")  # `astype` would go through floats
    table["label"] = pd.Categorical(
        table["text"], categories=sorted(set(table["text"].dropna()), reverse=True), ordered=ordered
    )
    table["old"] = table["text"].astype(object).where(table["text"].notna(), None)
    table["zone"] = table["time"].dt.tz_localize("UTC")
    table["span"] = table["time"] - pd.Timestamp(1970, 1, 1)
    if name not in table:
        table[name] = table["words"]
    try:
        tables.save(table, folder / "table.csv")
    except ValueError as error:
        assert "would not come back the same" in str(error) or "expects columns with names" in str(error)
        assert list(folder.iterdir()) == []
        return
    found = tables.read(folder / "table.csv")
    pd.testing.assert_frame_equal(found, table, check_exact=True, check_column_type=False)
    assert sorted(path.name for path in folder.iterdir()) == ["table.csv", "table.csv.json"]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([1, "1"], "would not come back the same"),
        ([{"a": 1}, None], "would not come back the same"),
        ([1 + 2j, 0j], "would not come back the same"),
        (pd.period_range("2026", periods=2), "would not come back the same"),
        (pd.Categorical(pd.to_datetime(["2026-01-01", "2026-01-02"])), "would not come back the same"),
        (pd.arrays.IntervalArray.from_breaks([0, 1, 2]), "would not come back the same"),
        (pd.Series(["\udce4.png", "b"], dtype=object), "written as UTF-8"),
    ],
)
def test_what_a_csv_cannot_hold_is_refused_before_a_file_is_touched(tmp_path, column, words):
    good = table_of(["a", "b"])
    tables.save(good, tmp_path / "t.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=words):
        tables.save(good.assign(extra=column), tmp_path / "t.csv")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    pd.testing.assert_frame_equal(tables.read(tmp_path / "t.csv"), good)


def test_an_index_is_not_lost_without_a_word(tmp_path):
    table = table_of(["a", "b", "a"])
    tables.save(table[table["label"] == "a"], tmp_path / "t.csv")
    assert tables.read(tmp_path / "t.csv").index.tolist() == [0, 1]
    for index in (["x", "y", "z"], pd.Index([1, 2, 3], name="id")):
        with pytest.raises(ValueError, match="reset_index"):
            tables.save(table.set_axis(index), tmp_path / "t.csv")
    with pytest.raises(ValueError, match="names that are text and occur once"):
        tables.save(pd.concat([table, table], axis=1), tmp_path / "t.csv")
    tables.save(table.assign(path=[Path(path) for path in table["path"]]), tmp_path / "p.csv")
    assert tables.read(tmp_path / "p.csv")["path"].tolist() == table["path"].tolist()


def edited(csv, old, new):
    csv.write_text(csv.read_text().replace(old, new, 1))


def test_a_label_edited_to_a_new_class_is_an_error_in_words(tmp_path):
    csv = tmp_path / "t.csv"
    tables.save(table_of(["cat", "dog"], age=[1, 2], right=[True, False]), csv)
    for old, new, words in (
        ("cat", "dgo", "'label' .* 1 cells are none of its classes, such as 'dgo'. Did you mean 'dog'"),
        ("1,True", "x,True", "'age' .* should hold int64"),
        ("True", "yes", "'right' .* should hold bool: a cell is neither True nor False"),
    ):
        text = csv.read_text()
        edited(csv, old, new)
        with pytest.raises(ValueError, match=words):
            tables.read(csv)
        csv.write_text(text)
    edited(csv, "cat", "dog")
    assert tables.read(csv)["label"].tolist() == ["dog", "dog"]
    csv.write_text(
        "\n".join(f"{line},{end}," for line, end in zip(csv.read_text().split(), ("site", "NA", "007"), strict=True))
    )
    assert tables.read(csv)["site"].tolist() == ["NA", "007"]  # an added column, and a separator at the end


def test_a_saved_table_that_a_spreadsheet_has_saved_again(tmp_path):
    table = table_of(["Bär", "Käfer"], site=["007", "NA"], score=[0.5, 1e-7])
    tables.save(table, tmp_path / "t.csv")
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    for data in (text.encode("utf-8-sig"), text.replace(",", ";").encode(), text.replace(",", "\t").encode("utf-16")):
        (tmp_path / "t.csv").write_bytes(data)
        pd.testing.assert_frame_equal(tables.read(tmp_path / "t.csv"), table)
    (tmp_path / "t.csv.json").unlink()
    found = tables.read(tmp_path / "t.csv")
    assert found["site"].tolist() == ["007", "NA"] and found["score"].tolist() == [0.5, 1e-7]


def test_tables_of_earlier_versions_still_open(tmp_path):
    (tmp_path / "t.csv").write_text("path,label,site,fold\n1.png,b,,0\n2.png,,x,1\n")
    (tmp_path / "t.csv.json").write_text(
        '{"columns": {"path": {"dtype": "str"}, "label": {"categories": ["b", "a"], "ordered": false}, '
        '"site": {"dtype": "str"}, "fold": {"dtype": "int64"}, "gone": {"dtype": "int64"}}}'
    )
    table = tables.read(tmp_path / "t.csv")
    assert table["label"].cat.categories.tolist() == ["b", "a"]
    assert table["label"].isna().tolist() == [False, True]
    assert table["site"].tolist() == ["", "x"] and table["fold"].tolist() == [0, 1]


def test_images_that_have_moved_are_found_again(tmp_path):
    old, new = tmp_path / "old" / "pets", tmp_path / "new"
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        image_at(old / name)
    table = tables.from_folder(old)
    tables.save(table, tmp_path / "t.csv")
    new.mkdir()
    old.rename(new / "animals")
    found = tables.read(tmp_path / "t.csv", folder=new / "animals")
    assert found["path"].tolist() == [str(new / "animals" / name) for name in ("cat/1.png", "dog/1.png", "dog/2.png")]
    assert found["path"].dtype == table["path"].dtype
    (new / "animals" / "dog" / "2.png").unlink()
    with pytest.warns(UserWarning, match="1 of 3 images are not in '.*animals', such as '.*2.png'"):
        tables.read(tmp_path / "t.csv", folder=new / "animals")
    with pytest.raises(FileNotFoundError, match="3 of 3 images are not in"):
        tables.read(tmp_path / "t.csv", folder=tmp_path / "old")


@pytest.mark.parametrize("seed", [None, 1.5, True, "0"])
def test_dividing_without_a_seed_is_refused(seed):
    table = pd.DataFrame({"path": list("abcdef"), "label": pd.Categorical(["x", "y"] * 3)})
    with pytest.raises(TypeError, match="expects a whole number from 0 as `seed`"):
        tables.split(table, val=0.2, test=0.2, seed=seed)
    with pytest.raises(TypeError, match="expects a whole number from 0 as `seed`"):
        tables.folds(table, count=2, seed=seed)

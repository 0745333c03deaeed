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


# ------------------------------------------------------------------------------------------------ from_folder


def test_classes_come_from_subfolders_in_alphabetical_order(tmp_path):
    for name in ("zebra/1.jpg", "ant/2.PNG", "ant/deeper/3.webp", "zebra/4.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    table = tables.from_folder(tmp_path)
    assert table["label"].tolist() == ["ant", "ant", "zebra", "zebra"]
    assert [Path(path).name for path in table["path"]] == ["2.PNG", "3.webp", "1.jpg", "4.tif"]
    assert "split" not in table


def test_ready_made_splits_in_any_case(tmp_path):
    for part in ("Training", "VALID", "test"):
        for label in ("a", "b"):
            image_at(tmp_path / part / label / "1.png")
    image_at(tmp_path / "test" / "c" / "1.png")
    table = tables.from_folder(tmp_path)
    assert table.groupby("split")["label"].nunique().to_dict() == {"train": 2, "val": 2, "test": 3}
    assert table["label"].cat.categories.tolist() == ["a", "b", "c"]


def test_a_class_may_be_called_train(tmp_path):
    for label in ("train", "car", "test"):
        image_at(tmp_path / label / "1.png")
    assert tables.from_folder(tmp_path)["label"].tolist() == ["car", "test", "train"]


def test_real_ready_made_splits(real_data):
    table = tables.from_folder(real_data / "clothing")
    assert len(table) == 1213
    assert table["label"].nunique() == 10
    assert sorted(table["split"].unique()) == ["test", "train", "val"]


def test_strange_names_work(tmp_path):
    names = ["a, b", 'say "hi"', "<script>alert(1)</script>".replace("/", "_"), "two\nlines", "猫", "$x$", " lead"]
    for name in names:
        image_at(tmp_path / name / f"{name}.png")
    table = tables.from_folder(tmp_path)
    assert sorted(table["label"]) == sorted(names)
    assert all(Path(path).exists() for path in table["path"])
    tables.save(table, tmp_path / "table.csv")
    pd.testing.assert_frame_equal(tables.read(tmp_path / "table.csv"), table)


def test_a_loop_of_links_ends(tmp_path):
    image_at(tmp_path / "data" / "a" / "1.png")
    image_at(tmp_path / "data" / "b" / "1.png")
    (tmp_path / "data" / "a" / "again").symlink_to(tmp_path / "data" / "a")
    (tmp_path / "data" / "b" / "up").symlink_to(tmp_path / "data")
    table = tables.from_folder(tmp_path / "data")
    assert table["label"].tolist() == ["a", "b"]


def test_a_linked_class_folder_is_followed(tmp_path):
    image_at(tmp_path / "elsewhere" / "1.png")
    image_at(tmp_path / "data" / "b" / "1.png")
    (tmp_path / "data" / "a").symlink_to(tmp_path / "elsewhere")
    assert tables.from_folder(tmp_path / "data")["label"].tolist() == ["a", "b"]


def test_other_files_are_counted(tmp_path):
    for label in ("a", "b"):
        image_at(tmp_path / label / "1.png")
    (tmp_path / "a" / "notes.docx").write_bytes(b"")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"")
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"")
    image_at(tmp_path / "loose.png")
    with pytest.warns(UserWarning, match="^2 of the files.*'notes.docx'"):
        assert len(tables.from_folder(tmp_path)) == 2


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        (None, FileNotFoundError, "There is nothing at"),
        ([], ValueError, "There is none with an ending"),
        (["a/1.png"], ValueError, "only 'a' with 1 images"),
        (["1.png", "2.png"], ValueError, "2 images .* lie in the folder itself"),
        (["a/1.txt", "b/1.txt"], ValueError, "There is none with an ending"),
        (["train/1.png", "test/1.png"], ValueError, "one subfolder per class"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*passed over")
def test_folders_without_classes_are_explained(tmp_path, files, error, words):
    folder = tmp_path / "data"
    for name in files if files is not None else []:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    if files == []:
        folder.mkdir()
    with pytest.raises(error, match=words):
        tables.from_folder(folder)


def test_a_file_is_no_folder(tmp_path):
    image_at(tmp_path / "1.png")
    with pytest.raises(NotADirectoryError, match="is a file"):
        tables.from_folder(tmp_path / "1.png")


def test_metadata_of_another_kind_is_left_alone(tmp_path):
    for label in ("a", "b"):
        image_at(tmp_path / label / "1.png")
    (tmp_path / "metadata.csv").write_text("key,value\nx,1\n")
    assert tables.from_folder(tmp_path).columns.tolist() == ["path", "label"]


# --------------------------------------------------------------------------------------------------- from_csv


def test_csv_keeps_the_words_of_a_label(tmp_path):
    for name in ("1", "2", "3"):
        image_at(tmp_path / f"{name}.png")
    (tmp_path / "t.csv").write_text("path,label,age\n1.png,NA,3\n2.png,001,\n3.png,NA,5\n")
    table = tables.from_csv(tmp_path / "t.csv")
    assert table["label"].tolist() == ["NA", "001", "NA"]
    assert table["label"].cat.categories.tolist() == ["001", "NA"]
    assert table["age"].isna().tolist() == [False, True, False]
    assert Path(table["path"][0]).exists()


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("file,label\n1.png,a\n", KeyError, "expects a column 'path'"),
        ("path,lable\n1.png,a\n", KeyError, "Did you mean 'lable'"),
        ("path,label\n", ValueError, "it has no rows"),
        ("path,label\n1.png,a\n1.png,\n", ValueError, "1 of 2 rows have no 'label'"),
        ("path,label\nx.png,a\ny.png,b\n", FileNotFoundError, "None of the 2 images"),
        ("path,label\n1.png,a\n1.png,a\n", ValueError, "at least two classes"),
    ],
)
def test_csv_faults_are_explained(tmp_path, text, error, words):
    image_at(tmp_path / "1.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(error, match=words):
        tables.from_csv(tmp_path / "t.csv")
    with pytest.raises(FileNotFoundError, match="There is none"):
        tables.from_csv(tmp_path / "u.csv")


# ------------------------------------------------------------------------------------------------------ split


@settings(max_examples=150, deadline=None)
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


@settings(max_examples=150, deadline=None)
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
    with pytest.raises(ValueError, match="Received: 'dev'"):
        tables.split(table.assign(split="dev"), val=0.1, test=0.1, seed=0, keep=True)


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


@settings(max_examples=60, deadline=None)
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

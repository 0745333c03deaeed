"""tables.from_folder: which folders are classes, splits or clutter, and what is said about the rest."""

import os
import re
import unicodedata
import warnings
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from cnnlab import tables


def image_at(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def folder_with(root, *names):
    """Empty files, since `from_folder` opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def both(*parts):
    """Paths of two classes, cat and dog, below each of `parts`."""
    return [f"{part}/{label}/{number}.png".lstrip("/") for part in parts for label in ("cat", "dog") for number in "12"]


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
    for label in ("train", "car", "bus"):
        image_at(tmp_path / label / "1.png")
    assert tables.from_folder(tmp_path)["label"].tolist() == ["bus", "car", "train"]


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


# ------------------------------------------------------------------------------------------- splits in any layout


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("training_set", "validation_set", "test_set"),
        ("images_train", "images_valid", "images_test"),
        ("Train", "Validation", "TEST"),
        ("trainset", "valset", "testset"),
        ("train-images", "val-images", "testing-images"),
        ("train2017", "val2017", "test2017"),
        ("train_data", "validation data", "test_data"),
        ("seg_train", "seg_val", "seg_test"),
        ("chest train", "chest val", "chest test"),
    ],
)
def test_splits_in_the_spellings_people_use(tmp_path, train, val, test):
    table = tables.from_folder(folder_with(tmp_path, *both(train, val, test)))
    assert table["label"].cat.categories.tolist() == ["cat", "dog"]
    folder = table["path"].map(lambda path: Path(path).parents[1].name)
    assert table["split"].tolist() == folder.map({train: "train", val: "val", test: "test"}).tolist()


@pytest.mark.parametrize(
    "outer",
    [
        "{}/{}",  # seg_train/seg_train, as archives unpack
        "archive/{}",
        "archive/archive/{}",
        "{}/images",
        "images/{}/{}",
    ],
)
def test_splits_nested_once_more(tmp_path, outer):
    folder = tmp_path / "archive"
    table = tables.from_folder(folder_with(folder, *both(*(outer.format(name, name) for name in ("train", "test")))))
    assert table["label"].cat.categories.tolist() == ["cat", "dog"]
    assert table["split"].value_counts().to_dict() == {"train": 4, "test": 4}


@pytest.mark.parametrize("outer", ["pets", "images", "Images/photos"])
def test_classes_nested_once_more(tmp_path, outer):
    table = tables.from_folder(folder_with(tmp_path / "pets", *both(outer)))
    assert table["label"].cat.categories.tolist() == ["cat", "dog"]
    assert "split" not in table and "subfolder" not in table


CLUTTER = ["__MACOSX", "@eaDir", ".ipynb_checkpoints", ".git", "#recycle", "$RECYCLE.BIN"]


@pytest.mark.parametrize("beside", [*CLUTTER, "annotations", "empty"])
def test_what_lies_beside_splits_makes_no_class(tmp_path, beside):
    folder_with(tmp_path, *both("train", "test"), f"{beside}/notes.json")
    if beside in CLUTTER:
        folder_with(tmp_path, f"{beside}/cat/1.png", f"train/cat/{beside}/1.png", f"train/{beside}/1.png")
    if beside == "empty":
        (tmp_path / "empty" / "notes.json").unlink()
    table = tables.from_folder(tmp_path)
    assert len(table) == 8
    assert table["label"].cat.categories.tolist() == ["cat", "dog"]
    assert set(table["split"]) == {"train", "test"}


@pytest.mark.parametrize("beside", CLUTTER)
def test_what_lies_beside_classes_makes_no_class(tmp_path, beside):
    table = tables.from_folder(folder_with(tmp_path, *both(""), f"{beside}/1.png", f"cat/{beside}/2.png"))
    assert table["label"].tolist() == ["cat", "cat", "dog", "dog"]


def test_images_beside_splits_are_passed_over_by_name(tmp_path):
    folder_with(tmp_path, *both("train", "test"), "seg_pred/1.png", "masks/cat/1.png")
    with pytest.warns(UserWarning, match="'masks' and 'seg_pred' next to the ready-made splits"):
        table = tables.from_folder(tmp_path)
    assert len(table) == 8 and set(table["split"]) == {"train", "test"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train/a.png", "test/b.png"], "'test' and 'train' .* hold their images without class folders"),
        (["train/a.png", "test/b.png", "other/c.png"], "look like ready-made splits"),
        (["train/a.png", "test/b.png", "__MACOSX/c.png"], "look like ready-made splits"),
        ([*both("train"), "test/1.png"], "images of 'test' .* labelled=False"),
        ([*both("train"), "other/1.png"], "found both: 'train' as well as 'other'"),
        ([*both("train", "training_set", "test")], "'train' and 'training_set' mean the same one"),
        ([*both("train[:80%]", "train[80%:]")], r"'train\[80%:\]' and 'train\[:80%\]' mean the same one"),
        (["train/a/1.png", "test/b/1.png", "car/1.png"], "found both"),
        (["cat/p1/1.png", "cat/p2/1.png"], "only 'cat' with 2 images"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*passed over")
def test_what_is_ambiguous_is_refused_not_guessed(tmp_path, names, words):
    with pytest.raises(ValueError, match=words):
        tables.from_folder(folder_with(tmp_path, *names))


@pytest.mark.parametrize("name", ["train_station", "test tube", "contest", "trained", "cats_train"])
def test_a_class_whose_name_only_contains_a_split(tmp_path, name):
    folder_with(tmp_path, f"{name}/deep/1.png", f"{name}/2.png", "other/1.png")
    table = tables.from_folder(tmp_path)
    assert table["label"].cat.categories.tolist() == sorted([name, "other"])


def test_an_empty_split_is_said(tmp_path):
    folder_with(tmp_path, *both("train"))
    (tmp_path / "val").mkdir()
    with pytest.warns(UserWarning, match="'val' .* hold no image"):
        assert set(tables.from_folder(tmp_path)["split"]) == {"train"}


# -------------------------------------------------------------------------------- patients, no labels, lost classes


def test_a_patients_folder_becomes_a_column(tmp_path):
    names = [
        f"{label}/p{patient}/{visit}{n}.png"
        for label in "ab"
        for patient in "12"
        for visit in ("", "v1/")
        for n in "12"
    ]
    table = tables.from_folder(folder_with(tmp_path, *names, "a/single.png"))
    expected = [
        (parts[-3:-1] if "v1" in parts else parts[-2:-1])[0] for parts in (Path(path).parts for path in table["path"])
    ]
    single = table["path"].str.endswith("single.png")
    assert table.loc[~single, "subfolder"].tolist() == [e for e, s in zip(expected, single, strict=True) if not s]
    assert table.loc[single, "subfolder"].isna().all()
    divided = tables.split(table, val=0.5, test=0.0, group="subfolder", seed=0)
    assert (divided.groupby("subfolder")["split"].nunique() == 1).all()


def test_splits_inside_each_class(tmp_path):
    folder_with(tmp_path, *(f"{label}/{part}/1.png" for label in ("cat", "dog") for part in ("Train", "test")))
    table = tables.from_folder(tmp_path)
    assert table["label"].tolist() == ["cat", "cat", "dog", "dog"]
    assert table["split"].tolist() == ["train", "test"] * 2 and "subfolder" not in table
    folder_with(tmp_path, "cat/2.png")  # now some images are in no split
    with pytest.warns(UserWarning, match="2 of 5 images lie in folders named val or test"):
        assert "split" not in tables.from_folder(tmp_path)


def test_images_that_nobody_has_labelled(tmp_path):
    folder_with(tmp_path, "2.png", "1.jpg", "monday/3.png", "monday/.hidden.png", "@eaDir/4.png")
    (tmp_path / "metadata.csv").write_text("file_name,camera\n1.jpg,007\nmonday/3.png,NA\n2.png,\n")
    table = tables.from_folder(tmp_path, labelled=False)
    assert [os.path.relpath(path, tmp_path) for path in table["path"]] == ["1.jpg", "2.png", "monday/3.png"]
    assert table["camera"].fillna("missing").tolist() == ["007", "missing", "NA"]
    assert table["subfolder"].isna().tolist() == [True, True, False]
    assert "label" not in table
    with pytest.raises(ValueError, match=r"labelled=False.*serving.Predictor"):
        tables.from_folder(folder_with(tmp_path / "flat", "1.png", "2.png"))
    with pytest.raises(ValueError, match="Expected images in"):
        (tmp_path / "none").mkdir()
        tables.from_folder(tmp_path / "none", labelled=False)


@pytest.mark.parametrize("ending", [".HEIC", ".dcm", ".nef", ".svg"])
@pytest.mark.filterwarnings("ignore:.*passed over")
def test_a_class_of_unreadable_kinds_alone_is_refused_by_name(tmp_path, monkeypatch, ending):
    monkeypatch.setattr("cnnlab.tables.layout.IMAGE_ENDINGS", (".png", ".jpg"))
    folder_with(tmp_path, *both(""), f"bird/1{ending}", f"bird/2{ending}")
    with pytest.raises(ValueError, match=f"Class 'bird' has only 2 files such as '1{ending}'"):
        tables.from_folder(tmp_path)


def test_a_folder_without_an_image_is_named(tmp_path):
    with pytest.warns(UserWarning, match=r"2 of the files.*No class comes of 'annotations'"):
        table = tables.from_folder(folder_with(tmp_path, *both(""), "annotations/1.xml", "annotations/2.xml"))
    assert table["label"].cat.categories.tolist() == ["cat", "dog"]


@pytest.fixture
def closed(monkeypatch):
    """Folders called "closed" may not be read, also where the tests run as root."""
    real = os.scandir

    def scandir(path="."):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_folders_that_may_not_be_read_are_named(tmp_path, closed):
    folder_with(tmp_path, *both(""), "cat/closed/3.png")
    with pytest.warns(UserWarning, match="may not be read.*cat/closed'"):
        assert len(tables.from_folder(tmp_path)) == 4
    with pytest.raises(ValueError, match=r"Class 'closed' has only a closed folder\. Change its permissions"):
        tables.from_folder(folder_with(tmp_path / "two", *both(""), "closed/1.png"))


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="file systems that know UTF-8 only")
def test_file_names_that_are_not_utf8_are_named(tmp_path):
    folder_with(tmp_path, *both(""))
    (tmp_path / "cat" / os.fsdecode(b"K\xe4fer.png")).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 of the files .* not UTF-8.*'K\\udce4fer.png'"):
        assert len(tables.from_folder(tmp_path)) == 4
    folder_with(tmp_path, os.fsdecode(b"K\xe4fer/1.png"))
    with pytest.raises(ValueError, match=r"Class 'K\\udce4fer' has only .* Rename what is not UTF-8"):
        tables.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("cat", "cat "),
        ("café", unicodedata.normalize("NFD", "café")),
        ("traffic light", "traffic_light"),
        ("cat", "c\u0430t"),  # a Cyrillic letter
        ("cat", "cat\u200b"),  # a space of no width
        ("1", "1.0"),
        ("7", "007"),
        ("-1", "-1.0"),
    ],
)
def test_classes_that_look_alike_are_said(tmp_path, one, other):
    with pytest.warns(UserWarning, match="look alike"):
        table = tables.from_folder(folder_with(tmp_path, f"{one}/1.png", f"{other}/1.png"))
    assert table["label"].nunique() == 2


def test_1_and_its_negative_do_not_look_alike(tmp_path):
    with warnings.catch_warnings(action="error"):
        assert tables.from_folder(folder_with(tmp_path, "-1/1.png", "1/1.png"))["label"].nunique() == 2


@pytest.mark.parametrize("parts", [("fold1", "fold2", "fold3"), ("обучение", "проверка"), ("site_A", "site_B")])
def test_parts_that_hold_the_same_classes_are_not_taken_for_classes_without_a_word(tmp_path, parts):
    with pytest.warns(UserWarning, match=r"hold the same folders, 'cat', 'dog'\. If those are the classes, read each"):
        table = tables.from_folder(folder_with(tmp_path, *both(*parts)))
    assert set(table["label"]) == set(parts)
    whole = pd.concat([tables.from_folder(tmp_path / part) for part in parts], ignore_index=True)  # as it advises
    assert whole["label"].value_counts().to_dict() == {"cat": 2 * len(parts), "dog": 2 * len(parts)}


def test_patients_below_each_class_are_no_reason_for_a_word(tmp_path):
    names = [f"{label}/{patient}/1.png" for label, patient in ("a1", "a2", "b2", "b3")]
    assert tables.from_folder(folder_with(tmp_path, *names))["subfolder"].tolist() == ["1", "2", "2", "3"]


def test_dev_is_the_validation_part(tmp_path):
    table = tables.from_folder(folder_with(tmp_path, *both("train", "dev", "test")))
    assert table["split"].value_counts().to_dict() == {"train": 4, "val": 4, "test": 4}


def test_the_refusal_of_one_class_names_the_folder_further_in(tmp_path):
    folder_with(tmp_path, *both("food-101/images"))
    with pytest.raises(ValueError, match=r"Or pass '.*food-101.images', if its folders are the classes"):
        tables.from_folder(tmp_path)


# --------------------------------------------------------------------------------------------------- metadata.csv


def test_metadata_beside_each_split_as_hugging_face_has_it(tmp_path):
    folder_with(tmp_path, *both("train", "test"))
    for part in ("train", "test"):
        rows = [f"{label}/{n}.png,{part}-{label},{n}" for label in ("cat", "dog") for n in "12"]
        (tmp_path / part / "metadata.csv").write_text("\n".join(["file_name,patient,age", *rows]))
    table = tables.from_folder(tmp_path)
    assert table["patient"].tolist() == [
        f"{part}-{label}" for part in ("test", "train") for label in ("cat", "cat", "dog", "dog")
    ]
    assert table["age"].tolist() == [1, 2] * 4


@pytest.mark.parametrize("parts", [("train", "validation"), ("",)])
def test_metadata_names_the_classes_where_there_are_no_class_folders(tmp_path, parts):
    for part in parts:
        (tmp_path / part).mkdir(exist_ok=True)
        for name in ("1.png", "2.png", "3.png", "4.png"):
            (tmp_path / part / name).write_bytes(b"x")
        rows = ["file_name,label,age", "1.png,dog,5", "2.png,cat,6", "3.png,dog,7"]
        (tmp_path / part / "metadata.csv").write_text("\n".join(rows))
    with pytest.warns(
        UserWarning, match=rf"{len(parts)} images in .* have no label in a metadata.csv .*such as '4.png'"
    ):
        table = tables.from_folder(tmp_path)
    assert [Path(path).name for path in table["path"]] == ["1.png", "2.png", "3.png"] * len(parts)
    assert table["label"].tolist() == ["dog", "cat", "dog"] * len(parts)
    assert table["label"].cat.categories.tolist() == ["cat", "dog"]
    assert table["age"].tolist() == [5, 6, 7] * len(parts)
    assert table.get("split", pd.Series()).tolist() == (["train"] * 3 + ["val"] * 3 if len(parts) > 1 else [])
    with pytest.warns(UserWarning, match=rf"{len(parts)} of .* images have no row"):
        unlabelled = tables.from_folder(tmp_path, labelled=False)
    assert "label" not in unlabelled
    assert unlabelled["age"].dropna().tolist() == [5, 6, 7] * len(parts)


def test_metadata_of_windows_without_endings_and_with_a_split(tmp_path):
    folder_with(tmp_path, *both(""))
    rows = ["cat\\1,Train", "cat\\2,valid", "dog\\1.PNG,Training", "dog\\2,TEST"]
    (tmp_path / "metadata.csv").write_text("\r\n".join(["file_name;split", *rows]).replace(",", ";"))
    assert tables.from_folder(tmp_path)["split"].tolist() == ["train", "val", "train", "test"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["x.png,1", "y.png,2"], ["2 rows name no image of the table, such as '.*x.png'", "4 of 4 images have no row"]),
        (["cat/1.png,1", "cat/2.png,2", "dog/1.png,3"], ["1 of 4 images have no row"]),
        ([*(f"{name},1" for name in both("")), "cat/1.png,2"], ["1 rows name an image once more and were passed over"]),
    ],
)
def test_metadata_that_fits_in_part_is_said_with_counts(tmp_path, rows, words):
    (folder_with(tmp_path, *both("")) / "metadata.csv").write_text("\n".join(["file_name,age", *rows]))
    with pytest.warns(UserWarning) as caught:
        table = tables.from_folder(tmp_path)
    assert len(table) == 4 and "age" in table
    for word in words:
        assert any(re.search(word, str(warning.message)) for warning in caught), (word, caught.list)


def test_metadata_that_contradicts_the_folders_is_said(tmp_path):
    (folder_with(tmp_path, *both("")) / "metadata.csv").write_text("file_name,label\ncat/1.png,dog\ncat/2.png,cat\n")
    with pytest.warns(UserWarning) as caught:
        assert tables.from_folder(tmp_path)["label"].tolist() == ["cat", "cat", "dog", "dog"]
    assert any("gives 1 images another label than their folder" in str(warning.message) for warning in caught)


def test_splits_within_a_split_are_taken_or_refused(tmp_path):
    folder_with(tmp_path, *both("training/train", "training/val"))
    table = tables.from_folder(tmp_path)
    assert table["split"].value_counts().to_dict() == {"train": 4, "val": 4} and set(table["label"]) == {"cat", "dog"}
    folder_with(tmp_path, *both("testing"))
    with pytest.raises(ValueError, match=r"'training' .* hold splits again. Move those out"):
        tables.from_folder(tmp_path)


def test_splits_in_names_with_capitals_inside(tmp_path):
    table = tables.from_folder(folder_with(tmp_path, *both("imagesTrain", "imagesTest")))
    assert table["split"].value_counts().to_dict() == {"train": 4, "test": 4}
    with pytest.raises(ValueError, match="look like ready-made splits, but hold their images without class folders"):
        tables.from_folder(
            folder_with(tmp_path / "horses", *(f"{part}{kind}/1.png" for part in ("train", "test") for kind in "AB"))
        )


def test_some_splits_inside_classes_are_said_and_not_guessed(tmp_path):
    folder_with(tmp_path, "cat/train/1.png", "cat/test/2.png", "dog/train/1.png", "dog/2.png")
    with pytest.warns(UserWarning, match="1 of 4 images lie in folders named val or test inside a class folder"):
        assert "split" not in tables.from_folder(tmp_path)
    deep = folder_with(
        tmp_path / "deep", *(f"{label}/p{label}/{part}/1.png" for label in ("cat", "dog") for part in ("train", "test"))
    )
    with pytest.warns(UserWarning, match="2 of 4 images lie in folders named val or test"):
        assert tables.from_folder(deep)["subfolder"].tolist() == ["pcat", "pcat", "pdog", "pdog"]


def test_the_patient_below_a_split_inside_a_class_is_kept(tmp_path):
    names = [
        f"{label}/{part}/{patient}/1.png" for label, part, patient in (("cat", "train", "p1"), ("dog", "test", "p2"))
    ]
    table = tables.from_folder(folder_with(tmp_path, *names))
    assert table["split"].tolist() == ["train", "test"] and table["subfolder"].tolist() == ["p1", "p2"]


def test_images_and_masks_are_not_taken_for_classes_without_a_word(tmp_path):
    folder_with(tmp_path, *both(*(f"{kind}/{part}" for kind in ("images", "masks") for part in ("train", "val"))))
    with pytest.warns(
        UserWarning, match=r"All class folders in .* \('images', 'masks'\) hold the same folders, 'cat', 'dog'"
    ):
        tables.from_folder(tmp_path)


@pytest.mark.parametrize("place", ["", "train"])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_the_other_metadata_of_hugging_face_is_said_and_made_in_one_line(tmp_path, place, ending):
    """The sentence's own line makes the file; then nothing is said, and the columns are there."""
    names = [f"{split}/{label}/{number}.png" for split in ("train", "test") for label in "ab" for number in (1, 2)]
    folder_with(tmp_path, *names)
    inside = [name.removeprefix(f"{place}/") for name in names if place in name]
    table = pd.DataFrame({"file_name": inside, "camera": "north"})
    if ending == "jsonl":
        table.to_json(tmp_path / place / "metadata.jsonl", orient="records", lines=True)
    else:
        table.to_parquet(tmp_path / place / "metadata.parquet")
    with pytest.warns(UserWarning, match=rf"metadata\.{ending}' is not read") as said:
        assert "camera" not in tables.from_folder(tmp_path)
    exec("import pandas; " + re.search("`(.*)`", str(said[0].message))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if place else "error")  # the other split has no such file
        assert (tables.from_folder(tmp_path)["camera"] == "north").sum() == len(inside)

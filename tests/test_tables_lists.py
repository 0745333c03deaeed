"""tables.from_csv: labels, numbers and paths as people and spreadsheet programs write them."""

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


def csv_at(folder, rows, *, header="path,label", name="list.csv", encoding="utf-8"):
    (folder / name).write_bytes("\r\n".join([header, *rows, ""]).encode(encoding))
    return folder / name


@pytest.fixture
def pictures(tmp_path):
    """Six images, 0.png to 5.png, and one deeper."""
    for number in range(6):
        image_at(tmp_path / f"{number}.png")
    image_at(tmp_path / "deep" / "0.png")
    return tmp_path


# ------------------------------------------------------------------------------------------ text stays text


@pytest.mark.parametrize(
    "sites",
    [
        ["NA", "EU", "null"],
        ["None", "nan", "N/A"],
        ["True", "False", "True"],
        ["007", "7", "12"],
        ["1e5", "2e5", "3e5"],
        ["1.10", "1.1", "1.2"],
        ["12345678901234567890", "1", "2"],
        ["-", "", "#N/A"],
        ["1_000", "2", "3"],
        ["٣", "4", "5"],
        ["inf", "1", "2"],
        ["2026-01-02", "2026-01-03", "1"],
    ],
)
def test_text_stays_text(pictures, sites):
    rows = [f"{number}.png,{'ab'[number % 2]},{sites[number % 3]}" for number in range(6)]
    site = tables.from_csv(csv_at(pictures, rows, header="path,label,site"))["site"]
    assert [None if pd.isna(value) else value for value in site] == [text or None for text in sites * 2]


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1", "20", "-3"], [1, 20, -3]),
        (["0.5", "1.25", "-0.125"], [0.5, 1.25, -0.125]),
        (["1e-07", "2.5E+10", "0"], [1e-07, 2.5e10, 0.0]),
        (["1", "", "3"], [1.0, None, 3.0]),
    ],
)
def test_plain_numbers_become_numbers(pictures, cells, numbers):
    rows = [f"{number}.png,{'ab'[number % 2]},{cells[number % 3]}" for number in range(6)]
    age = tables.from_csv(csv_at(pictures, rows, header="path,label,age"))["age"]
    assert pd.api.types.is_numeric_dtype(age.dtype)
    assert [None if pd.isna(value) else value for value in age] == numbers * 2


def test_ids_that_became_floats_find_their_files(pictures):
    csv = csv_at(pictures, [f"{number}.0,{'ab'[number % 2]}" for number in range(6)])
    assert tables.from_csv(csv)["path"].tolist() == [str(pictures / f"{number}.png") for number in range(6)]


def test_the_home_folder_is_found(pictures, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(pictures))
    monkeypatch.chdir(pictures / "deep")
    csv_at(pictures, [f"{number}.png,{'ab'[number % 2]}" for number in range(6)])
    table = tables.from_csv("~/list.csv", folder="~")
    tables.save(table, "~/saved.csv")
    assert tables.read("~/saved.csv").equals(table) and tables.read(pictures / "saved.csv", folder="~").equals(table)
    assert [path.name for path in (pictures / "deep").iterdir()] == ["0.png"]


def test_blanks_are_stripped_and_classes_that_look_alike_are_said(pictures):
    labels = ["cat", "cat ", " dog", "dog", "\tdog", "Cat"]
    csv = csv_at(
        pictures, [f"{number}.png,{label},{label}" for number, label in enumerate(labels)], header="path,label,site"
    )
    with pytest.warns(UserWarning, match="look alike: 'Cat' and 'cat'"):
        table = tables.from_csv(csv)
    assert table["label"].tolist() == table["site"].tolist() == ["cat", "cat", "dog", "dog", "dog", "Cat"]
    accents = ["é", unicodedata.normalize("NFD", "é")]
    csv = csv_at(pictures, [f"{number}.png,{accents[number % 2]}" for number in range(6)])
    with pytest.warns(UserWarning, match=r"'\\xe9' and 'e\\u0301'|'e\\u0301' and '\\xe9'"):
        tables.from_csv(csv)


# ---------------------------------------------------------------------------------- what spreadsheet programs write


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_encodings_and_separators(pictures, separator, encoding):
    rows = [f"{number}.png{separator}{('Bär', 'Käfer')[number % 2]}{separator}x" for number in range(6)]
    csv = csv_at(pictures, [*rows, separator * 2], header=f"path{separator}label{separator}", encoding=encoding)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = tables.from_csv(csv)
    assert table["label"].tolist() == ["Bär", "Käfer"] * 3
    said = [str(warning.message) for warning in caught]
    assert len(said) == (encoding == "cp1252") and all("Windows-1252" in one and "'Bär'" in one for one in said)


def test_other_things_that_spreadsheets_do(pictures):
    rows = ['0.png;"a;b"', '1.png;"c ""d"""', ";", "", "2.png;a;b", "3.png;x"]
    csv = csv_at(pictures, rows[:4], header="sep=;\r\npath;label")
    assert tables.from_csv(csv)["label"].tolist() == ["a;b", 'c "d"']
    with pytest.raises(ValueError, match="rows that fit the header path, label"):
        tables.from_csv(csv_at(pictures, rows, header="path;label"))
    with pytest.raises(ValueError, match="several called 'label'"):
        tables.from_csv(csv_at(pictures, ["0.png,a,b"], header="path,label,label"))
    (pictures / "list.csv").write_bytes(b"path,label\n0.png,\x81\n")
    with pytest.raises(ValueError, match="encoding UTF-8, UTF-16 or Windows-1252"):
        tables.from_csv(pictures / "list.csv")


# ----------------------------------------------------------------------------------------------- where images lie


@pytest.mark.parametrize(
    "spelled",
    [
        "deep/0.png",
        "deep\\0.png",
        ".\\deep\\0.png",
        "./deep/0.png",
        " deep/0.png ",
        "deep/0",
        "deep/0.PNG",
        "C:\\Users\\anna\\pets\\deep\\0.png",
        "/home/anna/pets/deep/0.png",
        "pets/deep/0",
    ],
)
def test_one_picture_however_its_path_is_spelled(pictures, spelled):
    image_at(pictures / "deep" / "1.png")
    table = tables.from_csv(csv_at(pictures, [f"{spelled},a", f"{spelled.replace('0', '1')},b"]))
    assert table["path"].tolist() == [str(pictures / "deep" / "0.png"), str(pictures / "deep" / "1.png")]


def test_accents_in_file_names_written_in_two_ways(tmp_path):
    image_at(tmp_path / unicodedata.normalize("NFD", "café.png"))
    image_at(tmp_path / "b.png")
    table = tables.from_csv(csv_at(tmp_path, ["café.png,a", "b.png,b"]))
    assert all(Path(path).exists() for path in table["path"])


def test_several_files_that_fit_one_name_are_refused(pictures):
    image_at(pictures / "0.jpg")
    with pytest.raises(ValueError, match=r"one image for '0' in .* There are '0.jpg', '0.png'"):
        tables.from_csv(csv_at(pictures, ["0,a", "1,b"]))


def test_folders_that_would_become_one_are_not_guessed(pictures):
    rows = ["x/0.png,a", "y/0.png,b"]
    with pytest.raises(FileNotFoundError, match="None of the 2 images"):
        tables.from_csv(csv_at(pictures, rows))


@pytest.mark.parametrize("there", [1, 3, 5])
def test_images_that_are_not_there_are_counted(pictures, there):
    rows = [f"{number if number < there else number + 50}.png,{'ab'[number % 2]}" for number in range(6)]
    with pytest.warns(UserWarning, match=f"{6 - there} of the 6 images .* are not there, such as '.*{there + 50}.png'"):
        assert len(tables.from_csv(csv_at(pictures, rows))) == 6


# ---------------------------------------------------------------------------------------------- labels of all kinds


@pytest.mark.parametrize("marks", [("1", "0"), ("1.0", "0.0"), ("True", "False"), ("1", "")])
def test_a_column_for_each_class(pictures, marks):
    rows = [f"{n}," + ",".join(marks[0] if n % 3 == column else marks[1] for column in range(3)) for n in range(6)]
    csv = csv_at(pictures, rows, header="image,MEL,NV,BCC")
    table = tables.from_csv(csv, path="image", label=["MEL", "NV", "BCC"])
    assert table["label"].tolist() == ["MEL", "NV", "BCC"] * 2
    assert table["label"].cat.categories.tolist() == ["MEL", "NV", "BCC"]
    assert table.columns.tolist() == ["path", "label"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["0,1,1", "1,0,1"], "1 rows have several and 0 have none"),
        (["0,0,0", "1,0,1"], "0 rows have several and 1 have none"),
        (["0,0.7,0.3", "1,0,1"], "Column 'a' holds '0.7'"),
        (["0,yes,no", "1,no,yes"], "Column 'a' holds 'yes'"),
    ],
)
def test_columns_that_are_no_single_label_are_refused(pictures, rows, words):
    with pytest.raises(ValueError, match=words):
        tables.from_csv(csv_at(pictures, rows, header="path,a,b"), label=["a", "b"])
    with pytest.raises(KeyError, match="expects a column 'c'"):
        tables.from_csv(csv_at(pictures, rows, header="path,a,b"), label=["a", "c"])


@pytest.mark.parametrize(
    ("labels", "example"),
    [
        (["rust", "scab", "rust scab", "scab rust", "healthy", "rust"], "rust scab"),
        (["rust scab", "scab rust", "healthy", "healthy", "rust", "healthy"], "rust scab"),
        (["cat", "dog", "cat|bird", "dog", "cat", "cat"], "cat|bird"),
        (["cat;dog", "dog;bird", "bird;cat", "fox", "fox", "fox"], "bird;cat"),
        (['"cat,dog"', "cat", "dog", "cat", "dog", "cat"], "cat,dog"),
        (["\"['cat', 'dog']\"", "\"['dog', 'fox']\"", "fox", "fox", "cat", "cat"], "['cat', 'dog']"),
        (["a+b", "a", "b", "a", "b", "a"], "a+b"),
        (["['cat']", "['dog']", "\"['cat', 'dog']\"", "['cat']", "['dog']", "['dog']"], "['cat', 'dog']"),
        (['"red, round"', '"red, flat"', '"blue, round"', '"blue, flat"', "'x'", "'x'"], "blue, flat"),
    ],
)
def test_several_labels_in_one_cell_are_refused_in_words(pictures, labels, example):
    csv = csv_at(pictures, [f"{number}.png,{label}" for number, label in enumerate(labels)])
    with pytest.raises(ValueError, match="rows hold several, such as ") as caught:
        tables.from_csv(csv)
    assert repr(example) in str(caught.value) and "write it as one word" in str(caught.value)


@pytest.mark.parametrize(
    "labels",
    [
        ["red apple", "green apple", "pear"],
        ['"pear, green"', '"apple, green"', "plum"],
        ["a|b*c", "d", "e"],
        ["traffic light", "light", "n/a"],
        ["T-shirt", "Ankle boot", "Pullover"],
        ["'s Gravenhage", '"New York"', "York"],
    ],
)
def test_names_of_several_words_are_one_label(pictures, labels):
    table = tables.from_csv(csv_at(pictures, [f"{number}.png,{label}" for number, label in enumerate(labels)]))
    assert table["label"].tolist() == [label.strip('"') for label in labels]


def test_columns_that_would_take_anothers_name(pictures):
    rows = [f"{number}.png,{number % 2},{'ab'[number % 2]},x" for number in range(6)]
    table = tables.from_csv(
        csv_at(pictures, rows, header="file,label,label_name,path"), path="file", label="label_name"
    )
    assert table.columns.tolist() == ["path", "label", "label_in_csv", "path_in_csv"]
    assert table["label_in_csv"].tolist() == [0, 1] * 3


def test_splits_of_a_column_are_understood(pictures):
    names = ["Train", "training", "valid", "VALIDATION", "Test set", ""]
    rows = [f"{number}.png,{'ab'[number % 2]},{name}" for number, name in enumerate(names)]
    table = tables.from_csv(csv_at(pictures, rows, header="path,label,split"))
    assert table["split"].tolist()[:5] == ["train", "train", "val", "val", "test"] and pd.isna(table["split"].iloc[5])
    rows = [row.replace("Test set", "holdout") for row in rows]
    with pytest.raises(ValueError, match="1 of 6 rows have 'holdout'"):
        tables.from_csv(csv_at(pictures, rows, header="path,label,split"))
    rows = [f"{number}.png,{'ab'[number % 2]},{number % 3}" for number in range(6)]
    assert tables.from_csv(csv_at(pictures, rows, header="path,label,split"))["split"].tolist() == [0, 1, 2] * 2


def test_blanks_around_the_names_of_columns_are_taken_away(pictures):
    table = tables.from_csv(csv_at(pictures, ["0.png, cat, 1", "1.png, dog, 2"], header="path, label, site"))
    assert table.columns.tolist() == ["path", "label", "site"] and table["site"].tolist() == [1, 2]
    both = csv_at(pictures, ["0.png,cat,1,2", "1.png,dog,2,3"], header="path,label,a, a")
    assert tables.from_csv(both).columns.tolist() == ["path", "label", "a", " a"]


def test_rows_about_one_image_are_counted(pictures):
    with pytest.warns(UserWarning, match=r"2 of the 4 rows .* `table.drop_duplicates\('path'\)`"):
        tables.from_csv(csv_at(pictures, ["0.png,cat", "1.png,dog", "./0.png,cat", "1.png,dog"]))


def test_one_image_with_different_labels_is_said(pictures):
    rows = ["0.png,cat", "1.png,dog", "./0.png,dog", "1.png,dog"]
    with pytest.warns(UserWarning, match=r"1 images of .* have several rows with different labels, such as '.*0\.png'"):
        assert len(tables.from_csv(csv_at(pictures, rows))) == 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04" + bytes(20), "is a workbook or a ZIP archive: save its sheet as CSV"),
        (b"\xd0\xcf\x11\xe0" + bytes(20), "is an old Excel workbook: save its sheet as CSV"),
        (b"\x1f\x8b\x08" + bytes(20), "is compressed by gzip: unpack it"),
        (b"PAR1" + bytes(20), "is a Parquet file: write it as CSV"),
    ],
)
def test_workbooks_and_archives_are_refused_in_words(tmp_path, data, words):
    (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        tables.from_csv(tmp_path / "labels.csv")


@pytest.mark.parametrize("column", ["Split", "usage"])
def test_a_ready_made_split_of_another_name_is_said(tmp_path, column):
    rows = "a.png,x,Training\nb.png,y,test\n"
    csv = tmp_path / "t.csv"
    csv.write_text(f"path,label,{column}\n{rows}")
    for name in ("a.png", "b.png"):
        image_at(tmp_path / name)
    with pytest.warns(UserWarning, match=f"Column '{column}' .* is not used. .*'{column}': 'split'"):
        table = tables.from_csv(csv)
    assert table[column].tolist() == ["Training", "test"]


def test_other_columns_are_taken_for_no_split(tmp_path, recwarn):
    (tmp_path / "t.csv").write_text("path,label,set,kind\na.png,x,train,train\nb.png,y,train,bus\n")
    for name in ("a.png", "b.png"):
        image_at(tmp_path / name)
    tables.from_csv(tmp_path / "t.csv")
    assert not recwarn

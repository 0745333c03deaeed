"""Rows that belong together: one file, copies, groups. No link crosses a split or a fold."""

import logging
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlab import tables
from cnnlab._groups import found_by_scan
from cnnlab.tables import linking


@pytest.fixture(autouse=True)
def said(caplog):
    """What was said so far; each sentence is said once a process, so forget those of other tests."""
    linking._said.clear()
    caplog.set_level(logging.WARNING, logger="cnnlab")
    return caplog


def table_of(labels, **columns):
    labels = [str(label) for label in labels]
    return pd.DataFrame({"path": [f"{i}.png" for i in range(len(labels))], "label": pd.Categorical(labels)} | columns)


ROW = st.tuples(
    st.integers(0, 2),  # class
    st.integers(0, 30),  # file
    st.one_of(st.none(), st.just(""), st.integers(0, 12).map(str)),  # patient
    st.one_of(st.none(), st.integers(0, 20).map(float)),  # day
    st.integers(0, 25),  # what audit.scan found
    st.sampled_from([None, "train", "val", "test", "Validation", ""]),
)


def linked_pairs(table, columns):
    """The independent answer: pairs of rows with one file, or one value in a column."""
    rows = table.to_dict("records")
    for first in range(len(rows)):
        for second in range(first):
            one, other = rows[first], rows[second]
            if any(
                one[column] == other[column] and str("" if one[column] is None else one[column]).strip()
                for column in ("path", *columns)
            ):
                yield first, second


def linked_table(rows, group, scanned, seed):
    """A table of the rows drawn, with files spelled in two ways, and the pairs of rows that belong together."""
    table = table_of([row[0] for row in rows])
    table["path"] = [f"{row[1]}.png" if number % 2 else f"./x/../{row[1]}.png" for number, row in enumerate(rows)]
    table["patient"], table["day"] = [pd.Series([row[column] for row in rows], dtype=object) for column in (2, 3)]
    table["split"] = pd.Series([row[5] for row in rows], dtype=object)
    columns = [group] if isinstance(group, str) else list(group or [])
    if scanned or "group" in columns:
        table["group"] = [row[4] for row in rows]
        columns += ["group"] if group is None or columns else []
    plain = table.assign(path=[f"{row[1]}.png" for row in rows])
    table.index = np.random.default_rng(seed).integers(0, 5, len(table))  # as after pd.concat
    return table, list(linked_pairs(plain, columns))


@settings(max_examples=120, deadline=None)
@given(
    st.lists(ROW, min_size=4, max_size=40),
    st.sampled_from([None, False, "patient", ["patient"], ["patient", "day"], ["patient", "group"], []]),
    st.sampled_from([None, True, False]),
    st.booleans(),
    st.integers(0, 9),
)
def test_no_link_crosses(rows, group, keep, scanned, seed):
    table, links = linked_table(rows, group, scanned, seed)
    before = table.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sides = tables.split(table, val=0.2, test=0.2, group=group, seed=seed, keep=keep)["split"].tolist()
        except ValueError as error:  # all rows hang together with the ready-made test
            assert "Expected training rows that share no group" in str(error)
            sides = ["test"] * len(table)
        assert all(sides[one] == sides[other] for one, other in links)
        assert set(sides) <= {"train", "val", "test"}
        if keep is not False:
            kept = {"val": {"val", "test"}, "Validation": {"val", "test"}, "test": {"test"}}
            assert all(side in kept.get(row[5], {side}) for side, row in zip(sides, rows, strict=True))
        for count in (2, 3):
            try:
                fold = tables.folds(table, count=count, group=group, seed=seed)["fold"].tolist()
            except ValueError as error:
                assert "in each class, one for each fold" in str(error)
                continue
            assert all(fold[one] == fold[other] for one, other in links)
            assert set(fold) == set(range(count))
    numbers = tables.linked_groups(table, group)
    assert all(numbers[one] == numbers[other] for one, other in links)
    assert len(set(numbers)) == len(table) - len(spanning(links))
    pd.testing.assert_frame_equal(table, before)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(ROW, min_size=8, max_size=40),
    st.sampled_from([None, False, "patient", ["patient", "day"], ["patient", "group"]]),
    st.booleans(),
    st.sampled_from([None, 2]),
    st.integers(0, 9),
)
def test_no_link_crosses_in_an_experiment(rows, group, scanned, patience, seed):
    """Of the rows that `cross_validate` and `grid_search` train on, stop by and test on, no two sides share a link."""
    from cnnlab.experiments.runner import checked_rows, rows_of_folds

    table, links = linked_table(rows, group, scanned, seed)
    plain = checked_rows(table, caller="test", seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = rows_of_folds(plain, folds=2, repeats=2, seed=seed, group=group, patience=patience)
        except ValueError as error:
            assert "in each class, one for each fold" in str(error)
            return
    for _, parts in found.values():
        side = {row: name for name, part in parts._asdict().items() for row in part.index}
        assert sorted(side) == list(range(len(rows))) and sum(map(len, parts)) == len(rows)
        assert all(side[one] == side[other] for one, other in links)
        assert len(parts.val) == 0 or patience
    for repeat in (0, 1):
        tested = [row for fold in (0, 1) for row in found[repeat, fold][1].test.index]
        assert sorted(tested) == list(range(len(rows)))


def spanning(links):
    """Links without which as many rows would hang together: what a union leaves of them."""
    parent = {}

    def root(row):
        while parent.setdefault(row, row) != row:
            row = parent[row]
        return row

    kept = []
    for one, other in links:
        if root(one) != root(other):
            parent[root(one)] = root(other)
            kept.append((one, other))
    return kept


def test_one_file_listed_ten_times_is_on_one_side():
    table = table_of(["a", "b"] * 30)
    table.loc[:9, "path"] = "same.png"
    for seed in range(10):
        divided = tables.split(table, val=0.3, test=0.3, seed=seed, group=False)
        assert divided["split"][:10].nunique() == 1
        assert tables.folds(table, count=3, seed=seed)["fold"][:10].nunique() == 1


@pytest.mark.parametrize("spelled", ["./0.png", "x/../0.png", "x//../0.png"])
def test_one_file_spelled_in_two_ways_is_one(spelled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for other in (spelled, str(tmp_path / "0.png")):
        table = table_of(["a", "b"]).assign(path=["0.png", other])
        assert tables.linked_groups(table).tolist() == [0, 0]


def test_a_group_column_is_used_and_said_once(said):
    table = table_of(["a", "b"] * 20, group=np.arange(40) // 2)
    for _ in range(3):
        divided = tables.split(table, val=0.25, test=0.25, seed=0)
        assert (divided.groupby("group")["split"].nunique() == 1).all()
        folds = tables.folds(table, count=4, seed=0)
        assert (folds.groupby("group")["fold"].nunique() == 1).all()
    assert [record.getMessage() for record in said.records] == [
        "Rows of equal `group` stay together, because the table has that column; group=False turns it off."
    ]
    careless = tables.split(table, val=0.25, test=0.25, seed=0, group=False)
    assert (careless.groupby("group")["split"].nunique() > 1).any()


def test_copies_stay_together_beside_a_column_that_is_named(said):
    table = table_of(["a", "b"] * 20, patient=list(range(20)) * 2, group=[0, 0, *range(1, 39)])
    divided = tables.split(table, val=0.25, test=0.25, group="patient", seed=0)
    assert divided["split"][[0, 1, 20, 21]].nunique() == 1
    assert "Copies of one picture (column `group`) stay together" in said.text
    named = table.assign(group=["treated", "control"] * 20)  # a column of the person's own
    assert tables.split(named, val=0.25, test=0.25, group="patient", seed=0)["split"].nunique() == 3


def test_missing_groups_are_counted(said):
    table = table_of(["a", "b"] * 20, patient=[None, "", " ", np.nan, "NA", "NA", *map(str, range(34))])
    assert tables.linked_groups(table, "patient").tolist() == [0, 1, 2, 3, 4, 4, *range(5, 39)]
    assert "4 of 40 rows have no 'patient'; each counts as a group of its own." in said.text


def test_names_that_are_no_columns():
    table = table_of(["a", "b"], patient=[1, 2])
    with pytest.raises(KeyError, match="Did you mean 'patient'"):
        tables.linked_groups(table, ["patient", "patients"])
    with pytest.raises(TypeError, match="Received: True"):
        tables.linked_groups(table, True)


# ------------------------------------------------------------------------------------------------ ready-made splits


def ready_made(**columns):
    return table_of(["a", "b"] * 28, split=["train"] * 40 + ["test"] * 16, **columns)


def test_a_ready_made_test_set_is_kept_and_said(said):
    table = ready_made()
    divided = tables.split(table, val=0.15, test=0.15, seed=0)
    assert (divided["split"] == "test").tolist() == (table["split"] == "test").tolist()
    assert divided["split"][:40].value_counts().to_dict() == {"train": 34, "val": 6, "test": 0}
    assert "ready-made `split`: 16 rows of test stay as they are. Split again with keep=False." in said.text
    anew = tables.split(table, val=0.15, test=0.15, seed=0, keep=False)
    assert (anew["split"][40:] != "test").any()
    assert tables.split(table[:40], val=0.2, test=0.2, seed=0)["split"].value_counts().to_dict() == {
        "train": 24,
        "val": 8,
        "test": 8,
    }


def test_groups_of_a_ready_made_test_follow_it():
    table = ready_made(patient=[*range(40), *range(8), *range(100, 108)])
    for keep in (None, True):
        with pytest.warns(UserWarning, match="8 rows share a group or a file with the ready-made val or test"):
            divided = tables.split(table, val=0.15, test=0.15, group="patient", seed=0, keep=keep)
        assert (divided["split"][40:] == "test").all() and (divided["split"][:8] == "test").all()
        assert (divided.groupby("patient")["split"].nunique() == 1).all()
    with pytest.raises(ValueError, match="training rows that share no group"):
        tables.split(table.assign(patient=1), val=0.15, test=0.15, group="patient", seed=0)


def test_other_words_in_a_split_column_are_refused():
    table = ready_made().replace({"split": {"train": "Training ", "test": "TEST"}})
    assert (tables.split(table, val=0.1, test=0.1, seed=0)["split"][40:] == "test").all()
    for keep in (None, True):
        with pytest.raises(ValueError, match=r"Received: 'holdout'.*keep=False"):
            tables.split(table.assign(split="holdout"), val=0.1, test=0.1, seed=0, keep=keep)
    assert tables.split(table.assign(split="holdout"), val=0.1, test=0.1, seed=0, keep=False)["split"].nunique() == 3


def test_missing_labels_are_divided_like_a_class_of_their_own():
    table = table_of(["a", "b"] * 30, group=np.arange(60) // 3)
    table.loc[:29, "label"] = None
    for group in (None, False):
        divided = tables.split(table, val=0.2, test=0.2, group=group, seed=0)
        assert (divided.groupby("group")["split"].nunique() == 1).all() or group is False
        assert divided["split"][:30].value_counts().to_dict() == {"train": 18, "val": 6, "test": 6}
    assert tables.folds(table, count=3, seed=0)["fold"][:30].value_counts().tolist() == [12, 9, 9]


def test_a_class_of_one_gets_advice_that_helps():
    with pytest.raises(ValueError, match=r"'b' has 1\. Collect more, or drop it"):
        tables.folds(table_of(["a"] * 5 + ["b"]), count=3, seed=0)


@pytest.mark.parametrize(
    "numbers", [[1, 1.0, "1", 2], ["1", "1 ", " 1", "2"], ["1", "1.0", 1.0, "2"], [np.int64(1), "1", 1, "2"]]
)
def test_one_patient_written_in_several_ways_is_one_group(numbers):
    table = table_of("abab", patient=pd.Series(numbers, dtype=object))
    assert tables.linked_groups(table, "patient").tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("kind", ["int64", "float64", object])
def test_copies_stay_together_beside_a_patient_whatever_type_the_column_became(kind):
    copies = pd.Series([0.0, 0.0, 1.0, 2.0] if kind != "int64" else [0, 0, 1, 2], dtype=kind)
    if kind != "int64":
        copies[3] = None  # as beside rows that were never scanned
    table = table_of("abab", group=copies, patient=list("wxyz"))
    assert tables.linked_groups(table, "patient").tolist() == [0, 0, 1, 2]
    named = table_of("abab", group=["u", "u", "v", "v"], patient=list("wxyz"))  # a person's own column
    assert tables.linked_groups(named, "patient").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("wrong", [pd.Series(list("wxyz")), np.arange(4), [["patient"]]])
def test_values_instead_of_names_of_columns_are_refused_in_words(wrong):
    with pytest.raises(TypeError, match=r"expects the name of a column, or several names, .* Use group='patient'"):
        tables.split(table_of("abab", patient=list("wxyz")), val=0.2, test=0.2, group=wrong, seed=0)


def test_a_table_of_test_rows_alone_is_not_divided():
    table = table_of("ab" * 6, split="test")
    with pytest.raises(ValueError, match=r"Expected training rows .* keep=False"):
        tables.split(table, val=0.2, test=0.2, seed=0)
    assert set(tables.split(table, val=0.2, test=0.2, seed=0, keep=False)["split"]) == {"train", "val", "test"}


def test_the_warning_of_missing_classes_counts_groups():
    table = table_of("ab" * 10, patient="one")
    with pytest.warns(UserWarning, match=r"'a' \(10 images in 1 groups\), 'b' \(10 images in 1 groups\)"):
        tables.split(table, val=np.float32(0.2), test=0.2, group="patient", seed=0)


def test_one_file_under_several_links_is_one(tmp_path):
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(b"")
        (tmp_path / f"soft{number}.png").symlink_to(tmp_path / f"{number}.png")
        (tmp_path / f"hard{number}.png").hardlink_to(tmp_path / f"{number}.png")
    (tmp_path / "again").symlink_to(tmp_path)
    names = [f"{kind}{number}.png" for number in range(10) for kind in ("", "soft", "hard", "again/")]
    table = pd.DataFrame({"path": [str(tmp_path / name) for name in names], "label": pd.Categorical(["a", "b"] * 20)})
    assert tables.linked_groups(table).tolist() == [number for number in range(10) for _ in range(4)]


@pytest.mark.parametrize("column", ["patient", "Patient_ID", "lesion_id", "PatientID", "subfolder", "Video"])
def test_a_column_of_patients_that_nothing_uses_is_said(said, column):
    """A person on two sides makes scores too high, and nobody would see it."""
    table = table_of([0, 1] * 4, **{column: list("aabbccdd")})
    tables.split(table, val=0.2, test=0.2, seed=0)
    assert f"Rows of equal {column!r} may land on two sides of a split" in said.text
    assert f"Keep them together with group={column!r}" in said.text


def test_a_column_of_patients_is_said_where_another_one_is_used(said):
    table = table_of([0, 1] * 4, patient=list("aabbccdd"), group=range(8))
    tables.folds(table, count=2, group="group", seed=0)
    assert "group=['group', 'patient']" in said.text


@pytest.mark.parametrize(
    ("columns", "group"),
    [
        ({"patient": list("aabbccdd")}, "patient"),
        ({"patient": list("aabbccdd")}, False),  # the person's own decision
        ({"patient": list("abcdefgh")}, None),  # one image each
        ({"patient": [None] * 8}, None),
        ({"subfolder": ["one"] * 4 + ["two"] * 4}, None),  # no more of them than classes: not people
        ({"camera": list("aabbccdd"), "patient age": [60] * 8, "inpatient": [0, 1] * 4}, None),
    ],
)
def test_a_column_of_patients_is_not_said_where_all_is_well(said, columns, group):
    tables.split(table_of([0, 1] * 4, **columns), val=0.2, test=0.2, group=group, seed=0)
    assert "may land on two sides" not in said.text


def test_names_that_differ_in_case_alone_are_said(said):
    table = table_of([0, 1] * 4, patient=["P1", "p1", "P2", "P2", "P3", "P3", "P4", "P4"])
    tables.split(table, val=0.2, test=0.2, group="patient", seed=0)
    assert "Column 'patient' has 'P1' and 'p1', counted as two groups" in said.text


def test_groups_of_two_scans_put_together_are_not_taken_for_one(said):
    """Both count from 0: equal numbers mean nothing, and a copy in the other table was never looked for."""
    scan = table_of(["a", "b"] * 10, group=[0, 0, *range(1, 19)], problem="", note=["", "copy of 0.png", *[""] * 18])
    assert found_by_scan(scan.sample(frac=1, random_state=0))
    assert found_by_scan(scan.iloc[1:])
    both = pd.concat([scan, scan.assign(path="other/" + scan["path"])], ignore_index=True)
    assert not found_by_scan(both)
    tables.split(both, val=0.2, test=0.2, seed=0)
    assert "Scan the whole table once more" in said.text


@pytest.mark.parametrize("seed", range(3))
def test_every_fold_tests_every_class_where_the_groups_allow_it(seed):
    patients = [1, 1, 0, 1, 1, 0, 0, 2, 2, 3, 2]
    table = table_of("aababbbaaaa", patient=patients)
    folds = tables.folds(table, count=2, group="patient", seed=seed)
    assert (pd.crosstab(folds["label"], folds["fold"]) > 0).all(axis=None)
    assert (folds.groupby("patient")["fold"].nunique() == 1).all()


def test_a_ready_made_test_without_a_class_is_said():
    table = table_of(["a"] * 12 + ["b"] * 12, split=["train"] * 18 + ["val"] * 3 + ["test"] * 3)
    with pytest.warns(UserWarning, match=r"Not in each of train, val, test: the classes 'a' \(12 images\)"):
        tables.split(table, val=0.2, test=0.2, seed=0)


def test_a_column_twice_is_refused_in_words():
    table = table_of(["a", "b"] * 6)
    with pytest.raises(KeyError, match="one column 'label'"):
        tables.split(pd.concat([table, table[["label"]]], axis=1), val=0.2, test=0.2, seed=0)

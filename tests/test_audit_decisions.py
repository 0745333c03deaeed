"""Decisions about images: rows in a CSV, applied and undone; files and tables stay as they are."""

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlab import audit

CLASSES = ["cat", "dog", "NA", "01"]


def table_of(folder, **columns):
    paths = [str(Path(folder) / f"{number}.png") for number in range(6)]
    labels = pd.Categorical(["cat", "cat", "dog", "dog", "NA", "01"], categories=CLASSES)
    return pd.DataFrame({"path": paths, "label": labels, **columns})


def test_each_action_does_what_it_says(tmp_path):
    file, table = tmp_path / "decisions.csv", table_of(tmp_path, problem=["", "blank", "", "tiny", "", ""])
    before = table.copy()
    audit.decide(table, table["path"][0], "relabel", label="NA", reason='a "cat", really', file=file)
    audit.decide(table, table["path"][1:3], "exclude", file=file)
    rows = audit.decide(table, [Path(table["path"][3])], "keep", file=file)
    result = audit.apply(table, file)
    assert result["path"].tolist() == table["path"][[0, 3, 4, 5]].tolist()
    assert result["label"].tolist() == ["NA", "dog", "NA", "01"]
    assert result["problem"].tolist() == ["", "", "", ""]
    assert result["label"].dtype == table["label"].dtype
    assert rows.loc[0, "reason"] == 'a "cat", really'
    assert pd.to_datetime(rows["time"]).dt.tz is not None
    pd.testing.assert_frame_equal(table, before)
    pd.testing.assert_frame_equal(audit.decisions(file), rows)


def test_the_last_decision_counts_and_undo_brings_back_the_one_before(tmp_path):
    file, table = tmp_path / "decisions.csv", table_of(tmp_path)
    first, second = table["path"][:2]
    for label in ("dog", "01"):
        audit.decide(table, first, "relabel", label=label, file=file)
    audit.decide(table, second, "exclude", file=file)
    assert audit.apply(table, file)["label"].tolist()[0] == "01"
    audit.undo(file, first)
    assert audit.apply(table, file)["label"].tolist()[0] == "dog"
    audit.undo(file)
    assert len(audit.apply(table, file)) == 6
    with pytest.raises(ValueError, match="none about"):
        audit.undo(file, second)
    audit.undo(file)
    pd.testing.assert_frame_equal(audit.apply(table, file), table)
    with pytest.raises(ValueError, match="holds none"):
        audit.undo(file)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["exclude", "keep", *CLASSES])), min_size=1, max_size=5))
def test_undoing_everything_leaves_the_table_as_it_was(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("decisions")
    file, table = folder / "decisions.csv", table_of(folder, problem="blank", group=range(6))
    expected = {row.path: str(row.label) for row in table.itertuples()}
    for number, what in steps:
        relabel = what in CLASSES
        action, label = ("relabel", what) if relabel else (what, None)
        audit.decide(table, table["path"][number], action, label=label, file=file)
    for number in range(6):  # the independent answer: only the last step about an image counts
        last = [what for about, what in steps if about == number][-1:]
        if last == ["exclude"]:
            del expected[table["path"][number]]
        elif last and last[0] in CLASSES:
            expected[table["path"][number]] = last[0]
    result = audit.apply(table, file)
    assert dict(zip(result["path"], result["label"].astype(str), strict=True)) == expected
    for _ in steps:
        audit.undo(file)
    pd.testing.assert_frame_equal(audit.apply(table, file), table)


def test_a_settled_conflict_is_no_problem_any_more(tmp_path):
    file = tmp_path / "decisions.csv"
    table = table_of(tmp_path, group=[0, 1, 0, 2, 3, 4], note=["", "", "near copy of 0.png", "", "", ""])
    table["problem"] = ["same picture as x", "", "same picture as y", "", "", ""]
    for action, label in (("relabel", "dog"), ("exclude", None), ("keep", None)):
        audit.decide(table, table["path"][0], action, label=label, file=file)
        left = audit.apply(table, file).set_index("path")["problem"]
        assert (left[table["path"][2]] == "") == (action != "keep")
        assert (left != "").sum() == (1 if action == "keep" else 0)
    audit.undo(file)
    audit.undo(file)
    audit.undo(file)
    assert audit.apply(table, file)["problem"].str.contains("labelled 'dog'|labelled 'cat'").sum() == 2


def test_images_and_decisions_move_together(tmp_path):
    (tmp_path / "a").mkdir()
    table = table_of(tmp_path / "a")
    audit.decide(table, table["path"][1], "exclude", file=tmp_path / "a" / "decisions.csv")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert len(audit.apply(table_of(tmp_path / "b"), tmp_path / "b" / "decisions.csv")) == 5
    with pytest.warns(UserWarning, match="None of the 1 decisions"):
        assert len(audit.apply(table_of(tmp_path / "c"), tmp_path / "b" / "decisions.csv")) == 6


def test_relative_paths_mean_the_same_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = table_of("images")
    audit.decide(table, table["path"][0], "exclude", file="decisions.csv")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    moved = table.assign(path=[os.path.join("..", path) for path in table["path"]])  # noqa: PTH118
    assert len(audit.apply(moved, "../decisions.csv")) == 5


def test_an_index_of_ones_own_is_kept(tmp_path):
    file = tmp_path / "decisions.csv"
    table = table_of(tmp_path, problem="", group=0).set_index(pd.Index([7] * 6))
    audit.decide(table, table["path"].iloc[1], "exclude", file=file)
    assert audit.apply(table, file).index.tolist() == [7] * 5
    assert len(audit.apply(table[:0], file)) == 0


def test_classes_may_be_numbers(tmp_path):
    table = pd.DataFrame({"path": ["a.png", "b.png"], "label": pd.Categorical([1, 2])})
    audit.decide(table, "a.png", "relabel", label=2, file=tmp_path / "decisions.csv")
    assert audit.apply(table, tmp_path / "decisions.csv")["label"].tolist() == [2, 2]


def test_wrong_calls_are_explained(tmp_path):
    file, table = tmp_path / "decisions.csv", table_of(tmp_path)
    path = table["path"][0]
    for arguments, words in (
        ((path, "delete", None), "'relabel', 'exclude', 'keep'"),
        ((path, "relabel", "dgo"), "Did you mean 'dog'"),
        ((path, "relabel", None), "expects a class of the table"),
        ((path, "exclude", "dog"), "goes with action='relabel' only"),
        (("strange.png", "exclude", None), "1 of 1 are not in it"),
    ):
        with pytest.raises(ValueError, match=words):
            audit.decide(table, *arguments[:2], label=arguments[2], file=file)
    assert not file.exists()
    audit.decide(table, path, "relabel", label="01", file=file)
    with pytest.raises(ValueError, match=r"add_categories\(\['01'\]\)"):
        audit.apply(table[:4].assign(label=table["label"][:4].cat.remove_unused_categories()), file)


def test_another_file_is_never_written_over(tmp_path):
    file, table = tmp_path / "notes.csv", table_of(tmp_path)
    file.write_text("path,action,label,reason,time\n1.png,burn,,,\n")
    before = file.read_bytes()
    for call in (lambda: audit.decide(table, table["path"][0], "keep", file=file), lambda: audit.undo(file)):
        with pytest.raises(ValueError, match="left as it is"):
            call()
    assert file.read_bytes() == before


def test_decisions_about_other_images_are_said(tmp_path):
    table, file = table_of(tmp_path), tmp_path / "runs" / "decisions.csv"
    audit.decide(table, table["path"][0], "exclude", file=file)
    assert len(audit.apply(table, file)) == 5
    elsewhere = table.assign(path=table["path"].str.replace(str(tmp_path), str(tmp_path / "moved")))
    with pytest.warns(UserWarning, match=r"None of the 1 decisions .* Have images or the file moved"):
        assert len(audit.apply(elsewhere, file)) == 6


def test_groups_of_ones_own_make_no_conflict(tmp_path):
    """After a scan a person may write patients into `group`: images of one patient may have two labels."""
    table = table_of(tmp_path, problem="", note="", group=[0, 0, 0, 1, 1, 1])
    assert (audit.apply(table, tmp_path / "none.csv")["problem"] == "").all()

"""The exercises: replies, hints, the record of progress, and the questions themselves."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from cnnlab import exercises
from cnnlab.exercises.catalogue import chapters, find, load, names

NAMES = [name for chapter in chapters() for name in names(chapter)]
MORE = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12")  # chapters with five exercises


@pytest.fixture
def file(tmp_path):
    return tmp_path / "runs" / "exercises.json"


def reply(capsys, *arguments, **options):
    exercises.check(*arguments, **options)
    return capsys.readouterr().out


def test_wrong_answers_bring_one_hint_after_another_and_never_the_solution(file, capsys):
    question = find("02.1")
    for number, hint in enumerate([*question.hints, question.hints[-1]]):
        words = reply(capsys, "02.1", 16, file=file)
        assert words.startswith("Not yet.")
        assert "padding" in words  # what is off with just this answer
        assert " ".join(hint.split()) in " ".join(words.split())
        assert ("solutions/02_solutions.ipynb" in words) == (number == 3)
        assert "15" not in words
    words = reply(capsys, "02.1", 15, file=file)
    assert words.startswith("Right!")
    entry = json.loads(file.read_text())["02.1"]
    assert (entry["wrong"], entry["solved"]) == (4, True)


def test_a_solved_exercise_stays_solved(file, capsys):
    for answer in (15, 16):
        reply(capsys, "02.1", answer, file=file)
    assert exercises.progress(file).loc["02", "predict"] == "solved"
    assert json.loads(file.read_text())["02.1"]["wrong"] == 0


def test_dots_are_no_answer(file, capsys):
    assert reply(capsys, "02.1", ..., file=file) == (
        "02.1 waits for your answer: a whole number, instead of the dots.\n"
    )
    assert not file.exists()


def test_progress_is_a_small_table(file, capsys):
    reply(capsys, "02.1", 15, file=file)
    reply(capsys, "02.2", 0, file=file)
    table = exercises.progress(file)
    assert table.loc["02"].tolist() == ["solved", "1 try", "", 1]
    assert table.loc["all"].tolist() == [
        f"1 of {len(chapters())}",
        f"0 of {len(chapters())}",
        f"0 of {len(chapters())}",
        1,
    ]
    assert list(table.columns) == ["predict", "change", "build", "solved"]


def test_progress_counts_the_exercises_beyond_the_third(file, capsys):
    reply(capsys, "11.4", 1.23, file=file)
    assert exercises.progress(file).loc["11"].tolist() == ["", "", "", 1]
    assert exercises.progress(file).loc["all", "solved"] == 1


@pytest.mark.parametrize("damage", ["", "{", "[1, 2]", '{"02.1": 3}', "\0\xff"])
def test_a_damaged_record_is_put_aside_and_a_new_one_begun(file, damage, capsys):
    file.parent.mkdir()
    file.write_text(damage)
    with pytest.warns(UserWarning, match="The record .* (cannot be read|holds 1 damaged)"):
        assert exercises.progress(file).loc["all", "solved"] == 0
    words = reply(capsys, "02.1", 15, file=file)
    assert "It was kept as exercises.damaged-" in words
    assert exercises.progress(file).loc["02", "predict"] == "solved"
    (aside,) = file.parent.glob("*.damaged-*")
    assert aside.read_text() == damage


def test_a_record_that_cannot_be_written_does_not_stop_the_reply(tmp_path, capsys):
    (tmp_path / "runs").write_text("a file where the folder should be")
    words = reply(capsys, "02.1", 15, file=tmp_path / "runs" / "exercises.json")
    assert words.startswith("Right!")
    assert "could not be kept" in words


@pytest.mark.parametrize("inside", ["notebooks", "notebooks/solutions"])
def test_the_record_lies_beside_the_notebooks(tmp_path, monkeypatch, capsys, inside):
    (tmp_path / inside).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / inside)
    reply(capsys, "02.1", 15)
    assert (tmp_path / "runs" / "exercises.json").exists()
    assert exercises.progress().loc["02", "predict"] == "solved"
    reply(capsys, "02.2", 0, keep=False)
    assert exercises.progress().loc["02", "change"] == ""


def test_names_are_read_kindly_and_unknown_ones_answered_with_the_nearest():
    assert exercises.judge("2.1", 15).right
    for name in ("02.6", "2.7", "42.1", "02", "quickstart", None):
        with pytest.raises(ValueError, match="There is no exercise") as error:
            exercises.judge(name, 15)
        assert "the nearest are " in str(error.value)
    with pytest.raises(ValueError, match=r"nearest are .*02\.1"):
        exercises.judge("02.6", 15)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "answer",
    [None, "", "maybe", -1, float("nan"), [], {}, pd.DataFrame(), lambda *_: None, lambda *_: 1 / 0, object()],
    ids=lambda answer: type(answer).__name__,
)
def test_whatever_is_handed_in_is_answered_in_a_sentence(name, answer):
    verdict = exercises.judge(name, answer)
    assert not verdict.right
    assert "Hint 1 of 3" in verdict.words
    assert "object at 0x" not in verdict.words


@pytest.mark.parametrize("chapter", chapters())
def test_a_notebook_has_its_exercises_with_three_hints_each(chapter):
    assert names(chapter) == [f"{chapter}.{place}" for place in range(1, 6 if chapter in MORE else 4)]
    for question in load(chapter):
        assert len(set(question.hints)) == 3
        assert question.question[-1] in ".?)"
        assert all(words[-1] in ".?!" for words in (*question.hints, question.right))
    assert exercises.markdown(chapter).count("\n") == 1 + len(load(chapter))


def test_the_words_of_exercises_come_with_the_package():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["package-data"]["cnnlab.exercises"] == ["exercises.toml"]
    code = "from cnnlab import exercises; print(exercises.judge('02.1', 15).words, exercises.judge('02.2', 1).words)"
    result = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True)
    assert "Right! You can now read" in result.stdout and "Hint 1 of 3: Below minus above" in result.stdout


def test_exercises_load_only_the_notebook_that_is_asked_for():
    code = (
        "import sys; from cnnlab import exercises; exercises.judge('03.1', 0.8)\n"
        "print([name for name in sys.modules if name in ('tensorflow', 'cnnlab.exercises.nb04')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_asks_what_is_checked(path):
    """Its exercise cell is the text of the registry, and a cell below it holds the checks."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    place = next(i for i, cell in enumerate(cells) if "exercise" in cell["metadata"].get("tags", []))
    chapter = path.name[:2]
    assert "".join(cells[place]["source"]).strip() == exercises.markdown(chapter)
    assert cells[place + 1]["cell_type"] == "code"
    for name in names(chapter):
        assert f'exercises.check("{name}", ...)' in "".join(cells[place + 1]["source"])

"""Plain English: words and turns that a native teacher would not use have no place in what people read."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "data/README.md", "benchmarks/README.md")
PAGES += (
    "docs/architecture.md",
    "docs/compare.md",
    "docs/course.md",
    "docs/index.md",
    "cnnlab/exercises/exercises.toml",
)
INSTEAD = {
    r"mend(?:s|ed|ing)?": "fix",
    r"likeness(?:es)?": "similarity",
    r"aloud": "leave it out",
    r"tapping": "click",
    r"brush(?:es|ing)?": "name the tool or the texture",
    r"shel(?:f|ves)": "folder, cache",
    r"heaps?": "many, list",
    r"(?<!there )is no (?:image|table|(?:whole )?number)": "is not a",
    r"by heart": "memorize",
    r"in place of": "instead of",
    r"beside": "next to, with, compared with",
    r"puts? (?:\w+ ){0,3}right|put right": "correct",
    r"dealt(?! with)": "drawn, shuffled, split",
    r"(?:a|the|our) feeds?": "pipeline",
    r"divid(?:e[sd]?|ing)(?![^.,;:]{0,40}\bby\b)": "split",
    r"take it along": "export",
    r"(?:failure|fault|part) is played": "simulate",
    r"looks how": "look at how",
    r"called so": "say what it is called",
    r"from the right side": "say what rises or falls",
    r"of the kind": "like this",
}
WORDS = re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in INSTEAD), re.IGNORECASE)
NAMES = {"told", "looking", "feed", "shelf", "heap", "likeness", "mend"}  # no name for a file, function or variable


@cache
def trees():
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.glob("cnnlab/**/*.py")
    }
    return {file: list(ast.walk(ast.parse(source))) for file, source in sources.items()}


def lines():
    """Everything that people read: file, line or cell, text."""
    for page in [*(ROOT / page for page in PAGES), *sorted(ROOT.glob("docs/guide/*.md"))]:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            yield page.relative_to(ROOT).as_posix(), number, line
    for path in sorted(ROOT.glob("notebooks/**/[0-9]*.ipynb")):
        for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            for line in "".join(cell["source"]).splitlines() if cell["cell_type"] == "markdown" else ():
                yield path.relative_to(ROOT).as_posix(), number, line
    for file, nodes in trees().items():
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                for number, line in enumerate(node.value.splitlines(), node.lineno):
                    yield file, number, line


def found(text):
    return [re.sub(r"\s+", " ", match[0].lower()) for match in WORDS.finditer(text)]


def test_no_word_that_a_native_teacher_would_not_use():
    bad = []
    for file, number, line in lines():
        bad += [f"{file}:{number}: {word!r} in: {line.strip()}" for word in found(line)]
    assert bad == [], "Say it in plain English; INSTEAD says how.\n" + "\n".join(bad)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Mend it in place of a new one.", ["mend", "in place of"]),
        ("Not an image, instead of: amend, brushed, mendable, besides, a dividend.", []),
        ("It is no whole number; is no table. There is no table.", ["is no whole number", "is no table"]),
        ("Divide the table; divided by its sum.", ["divide"]),
        ("The share is divided by 3. It deals with shelves, dealt with.", ["shelves"]),
        ("Feed it pixels; the feed ends.", ["the feed"]),
        ("What was put right, and puts the labels right; the right side.", ["put right", "puts the labels right"]),
    ],
)
def test_the_list_finds_what_it_is_for(text, words):
    assert found(text) == words


def test_no_name_says_it_either():
    names = {Path(file).stem for file in trees()}
    for nodes in trees().values():
        names |= {getattr(node, field, None) for node in nodes for field in ("name", "id", "attr", "arg")}
    assert {name for name in names if name and name.strip("_") in NAMES} == set()

"""A grid of images to decide about, with keys: what `widgets.label` and `widgets.relabel` share."""

import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from cnnlab import plots
from cnnlab.images.levels import levels_of
from cnnlab.widgets.exploring import Pictured, as_png
from cnnlab.widgets.thumbnails import thumbnails

KEEP, ACCEPT, EXCLUDE, NEXT, BACK, ALL_RIGHT, UNDO = " ", "+", "-", ".", ",", "\n", "\b"
STATIC = 12  # images in the picture that stands in where widgets do not run
ALL = "all classes"


class Grid(Pictured, anywidget.AnyWidget):
    """Images side by side, what was decided about each, and keys: what `grid.js` draws."""

    _esm = Path(__file__).with_name("grid.js").read_text(encoding="utf-8")
    cards: Any = traitlets.List().tag(sync=True)  # row, data, alt, caption, facts, group
    answers: Any = traitlets.Dict().tag(sync=True)  # what was decided, by row
    marked: Any = traitlets.List().tag(sync=True)  # rows that are selected when the cards come
    place = traitlets.Int(0).tag(sync=True)  # the row with the frame
    classes: Any = traitlets.List().tag(sync=True)  # name, key
    buttons: Any = traitlets.List().tag(sync=True)  # words, key as people call it, key
    choices: Any = traitlets.List().tag(sync=True)  # words, class
    choice = traitlets.Unicode(ALL).tag(sync=True)
    other = traitlets.Unicode("another class").tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)
    size = traitlets.Int().tag(sync=True)

    def __init__(self, table: pd.DataFrame, size: int, **traits: Any) -> None:
        self.images = table.reset_index(drop=True)
        super().__init__(size=size, **traits)
        self.on_msg(self._receive)

    def press(self, keys: str, rows: Iterable[int] = ()) -> None:
        """Does what the keys say, one after another, with these rows of the table, else with the one in the frame."""
        rows = list(rows)
        for key in keys.lower():
            chosen = self._chosen(rows)
            name = next((name for name, letter in self.letters.items() if letter == key), None)
            self._press(key, chosen) if name is None else self._name(name, chosen)
            self._draw()

    def name(self, label: str, rows: Iterable[int] = ()) -> None:
        """Says that these images, else the one in the frame, show this class."""
        self._name(label, self._chosen(list(rows)))
        self._draw()

    def _chosen(self, rows: list[int]) -> np.ndarray:
        """These rows, else the one in the frame, if it is on the page."""
        return np.array(rows or [card["row"] for card in self.cards if card["row"] == self.place], int)

    def _name(self, label: str, rows: np.ndarray) -> None:
        raise NotImplementedError

    def _press(self, key: str, rows: np.ndarray) -> None:
        raise NotImplementedError

    def _draw(self) -> None:
        raise NotImplementedError

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        here = [card["row"] for card in self.cards]
        if content.get("seen", here) != here:
            return  # it was meant for the page before
        try:
            done = self.name if "name" in content else self.press
            done(content.get("name") or content["keys"], map(int, content["rows"]))
        except (ValueError, OSError) as error:  # a full disk, a file that somebody changed
            self.status = str(error)

    def list_classes(self, names: Sequence[str]) -> None:
        """Puts a button with a key for each class on the page."""
        self.letters = letters_for(names)
        self.classes = [[name, self.letters.get(name, "")] for name in names]

    def frame_next(self, rows: list[int], still_open: set[int]) -> None:
        """Puts the frame on the next of these rows that is open: behind it, else from the start."""
        at = rows.index(self.place) if self.place in rows else 0
        self.place = next((row for row in rows[at:] + rows[:at] if row in still_open), self.place)

    def show(self, rows: np.ndarray, captions: Sequence[str], facts: Sequence[str], groups: Sequence[str]) -> None:
        """Sends the images, if they are others than those on the page."""
        if [card["row"] for card in self.cards] == rows.tolist():
            return
        pictures = thumbnails(self.images["path"].iloc[rows], self.size, levels=levels_of(self.images))
        cards = []
        for row, picture, caption, fact, group in zip(rows, pictures, captions, facts, groups, strict=True):
            path = str(self.images["path"].iloc[row])
            problem = f"The picture cannot be shown. {picture.problem}" if picture.problem else ""
            words = {"alt": f"{Path(path).name}, {caption}", "caption": "cannot be shown" if problem else caption}
            facts_of = "\n".join(part for part in (path, fact, problem) if part)
            cards.append({"row": int(row), "data": picture.data, "facts": facts_of, "group": group, **words})
        self.cards = cards


def picture(table: pd.DataFrame) -> bytes:
    """The images of a table side by side, as PNG; empty where it has none."""
    if not len(table):
        return b""
    figure = Figure((8.2, 1.7 * -(-len(table) // 6)), layout="constrained")
    plots.images(table, count=len(table), ax=figure.subplots())
    return as_png(figure, dpi=80)


def letters_for(names: Sequence[str]) -> dict[str, str]:
    """A key for each class: the first letter or digit of its name that is still free, else any free one.

    >>> letters_for(["crack", "good", "clean", "10", "1"])
    {'1': '1', 'crack': 'c', 'good': 'g', 'clean': 'l', '10': '0'}
    """
    taken: dict[str, str] = {}
    usual = [*string.ascii_lowercase, *string.digits]
    for name in sorted(names, key=lambda name: (name not in usual, len(name) > 1)):  # "a" has the first right to a
        free = [key for key in (*name.lower(), *usual) if key in usual and key not in taken.values()]
        if free:
            taken[name] = free[0]
    return taken

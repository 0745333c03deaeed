"""Grids of images to decide about: `label` from nothing, `relabel` suspects first; each decision is a row in a CSV."""

import os
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from cnnlab import audit, experiments, plots
from cnnlab._common import require_columns
from cnnlab.audit.decisions import append
from cnnlab.images.levels import levels_of
from cnnlab.widgets.exploring import Pictured, as_png
from cnnlab.widgets.thumbnails import thumbnails

KEEP, ACCEPT, EXCLUDE, NEXT, BACK, ALL_RIGHT, UNDO = " ", "+", "-", ".", ",", "\n", "\b"
PAGE = 24  # suspects side by side
STATIC = 12  # images in the picture that stands in where widgets do not run
ALL = "all classes"


def label(
    table: pd.DataFrame,
    classes: Sequence[str],
    *,
    file: str | os.PathLike[str],
    features: Any = None,
    size: int = 240,
    seed: int = 0,
) -> "Label":
    """Shows images without labels in grids of what looks alike, proposes their class and learns from each screen.

    At first the images of a screen look alike, and all are selected: click those that do not belong, then press the
    class. From then on each image has a proposal. Select what is wrong, by click, by drag or with shift, and press the
    letter of its class; Enter confirms all others at once and brings the next screen. Space confirms the selection (or
    the image with the frame), minus leaves it out, full stop passes over, backspace takes back; arrows move, and a
    class that is missing is typed into the field. The line above says how many proposals were right so far, and how
    many of the images that you have not seen have the right one: stop when that is enough.

    Close it, restart the kernel: your answers are in `file`, and the same call goes on. Images are never touched.

    Args:
        table: With the column path, such as `tables.from_folder(folder, labelled=False)`; labels that are there are
            taken as answers.
        classes: Their names, in order; others can be added on the way.
        file: The CSV of decisions, as for `audit.decide`; `audit.apply` reads it.
        features: A row of numbers for each image; those of EfficientNetLite0 where None, computed once and kept.
        size: The longer side of the images, in pixels, at most.
        seed: Decides which images are drawn at random.

    Returns:
        The view: leave it on a cell's last line. `view.table()` is the table with the labels so far, and
        `view.predictions()` has a proposal for every image. Where widgets do not run, a picture stands in its place.

    Raises:
        ValueError: If no image is without a label, or the file is not a table of decisions.

    Source:
        `experiments.Labeller`, which chooses and learns.

    Example:
        >>> import tempfile
        >>> from cnnlab import samples, tables, widgets
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     truth = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     view = widgets.label(truth[["path"]], ["good"], file=folder + "/labels.csv", features=[[0], [1]] * 3)
        ...     view.press("g", rows=[0, 2])
        ...     view.table()["label"].tolist()
        ['good', nan, 'good', nan, nan, nan]
    """
    if features is None:
        features = experiments.features("EfficientNetLite0", table, pyramid=True)
    return Label(experiments.Labeller(table, features, classes, file=file, seed=seed), size)


def relabel(table: pd.DataFrame, *, file: str | os.PathLike[str], size: int = 480) -> "Relabel":
    """Shows suspects in a grid, with keys for what to do about them; writes each decision down at once.

    Close it, switch the class, restart the kernel: what you decided is in `file`, and the panel goes on with the first
    image that is still open. `audit.apply(table, file)` carries the decisions out. Images are never touched.

    Select images by click, drag or shift, or move the frame with the arrows; then press the letter of a class, space
    for "the label is right", plus for the suggested class, or minus to exclude. Enter says that all labels left on the
    page are right; full stop and comma go on and back, backspace takes back.

    Args:
        table: The images to look at, in this order: with the columns path and label, and suggested, suspicion, problem
            or note where there are any. What `audit.label_issues` returns, or `table[table["problem"] != ""]`.
        file: The CSV of decisions, as for `audit.decide`.
        size: The longer side of the images, in pixels, at most; the slider makes them smaller.

    Returns:
        The panel: leave it on a cell's last line. Where widgets do not run (a web page, a report), a picture of the
        first suspects stands in its place.

    Raises:
        ValueError: If the table has no rows, or the file is not a table of decisions.

    Example:
        >>> import tempfile
        >>> from cnnlab import audit, samples, tables, widgets
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     panel = widgets.relabel(table, file=folder + "/decisions.csv")
        ...     panel.press("-")
        ...     len(audit.apply(table, folder + "/decisions.csv"))
        5
    """
    require_columns(table, "path", "label", caller="widgets.relabel")
    if not len(table):
        raise ValueError(
            "`widgets.relabel` expects a table with at least one image to look at. Received one without rows: there is "
            "nothing to decide."
        )
    audit.decisions(file)  # refuses another kind of file before anything is shown
    return Relabel(table, file, size)


class Grid(Pictured, anywidget.AnyWidget):
    """Images side by side, what was decided about each, and keys: what `label.js` draws."""

    _esm = Path(__file__).with_name("label.js").read_text(encoding="utf-8")
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
        self._images = table.reset_index(drop=True)
        super().__init__(size=size, **traits)
        self.on_msg(self._receive)

    def press(self, keys: str, rows: Iterable[int] = ()) -> None:
        """Does what the keys say, one after another, with these rows of the table, else with the one in the frame."""
        for key in keys.lower():
            chosen = np.array(list(rows) or [self.place])
            name = next((name for name, letter in self.letters.items() if letter == key), None)
            self._press(key, chosen) if name is None else self._name(name, chosen)
            self._draw()

    def name(self, label: str, rows: Iterable[int] = ()) -> None:
        """Says that these images, else the one in the frame, show this class."""
        self._name(label, np.array(list(rows) or [self.place]))
        self._draw()

    def _name(self, label: str, rows: np.ndarray) -> None:
        raise NotImplementedError

    def _press(self, key: str, rows: np.ndarray) -> None:
        raise NotImplementedError

    def _draw(self) -> None:
        raise NotImplementedError

    def _receive(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        try:
            done = self.name if "name" in content else self.press
            done(content.get("name") or content["keys"], map(int, content["rows"]))
        except (ValueError, OSError) as error:  # a full disk, a file that somebody changed
            self.status = str(error)

    def _list_classes(self, names: Sequence[str]) -> None:
        self.letters = letters_for(names)
        self.classes = [[name, self.letters.get(name, "")] for name in names]

    def _go_on(self, rows: list[int], still_open: set[int]) -> None:
        """Puts the frame on the next of these rows that is open: behind it, else from the start."""
        at = rows.index(self.place) if self.place in rows else 0
        self.place = next((row for row in rows[at:] + rows[:at] if row in still_open), self.place)

    def _show(self, rows: np.ndarray, captions: Sequence[str], facts: Sequence[str], groups: Sequence[str]) -> None:
        """Sends the images, if they are others than those on the page."""
        if [card["row"] for card in self.cards] == rows.tolist():
            return
        pictures = thumbnails(self._images["path"].iloc[rows], self.size, levels=levels_of(self._images))
        cards = []
        for row, picture, caption, fact, group in zip(rows, pictures, captions, facts, groups, strict=True):
            path = str(self._images["path"].iloc[row])
            problem = f"The picture cannot be shown. {picture.problem}" if picture.problem else ""
            words = {"alt": f"{Path(path).name}, {caption}", "caption": "cannot be shown" if problem else caption}
            facts_of = "\n".join(part for part in (path, fact, problem) if part)
            cards.append({"row": int(row), "data": picture.data, "facts": facts_of, "group": group, **words})
        self.cards = cards


class Label(Grid):
    """The view that `widgets.label` returns."""

    def __init__(self, labeller: experiments.Labeller, size: int) -> None:
        self.labeller, self._estimated = labeller, ""
        buttons = [["confirm all", "Enter", ALL_RIGHT], ["confirm", "space", KEEP], ["leave out", EXCLUDE, EXCLUDE]]
        buttons += [["pass over", NEXT, NEXT], ["undo", "backspace", UNDO]]
        super().__init__(labeller.table(), size, buttons=buttons, other="another or a new class")
        self._draw()

    def table(self) -> pd.DataFrame:
        """The table with the labels so far; see `experiments.Labeller.table`."""
        return self.labeller.table()

    def predictions(self) -> pd.DataFrame:
        """The table with a proposal for every image; see `experiments.Labeller.predictions`."""
        return self.labeller.predictions()

    def _name(self, label: str, rows: np.ndarray) -> None:
        self.labeller.answer(rows, label)

    def _press(self, key: str, rows: np.ndarray) -> None:
        if key in (KEEP, ACCEPT, ALL_RIGHT):
            self.labeller.confirm(None if key == ALL_RIGHT else rows)
        elif key == EXCLUDE:
            self.labeller.answer(rows, None)
        elif key == NEXT:
            self.labeller.skip()
        elif key == UNDO:
            self.labeller.undo()

    def _draw(self) -> None:
        left = self.labeller.screen()
        answers = self.labeller.answers()
        shown = [card["row"] for card in self.cards]
        with self.hold_sync():
            self._list_classes(self.labeller.classes)
            if not len(left) or not set(left) <= set(shown):
                shown = left.tolist()
                proposed = self.labeller.proposed(left)
                self.marked = [row for row, name in zip(shown, proposed, strict=True) if not name]
                groups = [f"{name}?" if name else "These look alike. What are they?" for name in proposed]
                self._show(left, [name or "?" for name in proposed], [""] * len(left), groups)
                self._estimated = self._estimate()
            self.answers = {str(row): answers[row] for row in shown if row in answers}
            self._go_on(shown, set(left))
            self.status = self._words()

    def _words(self) -> str:
        right, asked = self.labeller.right_so_far()
        words = [f"{len(self._images) - self.labeller.left:,} of {len(self._images):,} have an answer"]
        words += [f"{right / asked:.0%} of {asked:,} proposals were right"] if asked else []
        return " · ".join([*words, self._estimated] if self._estimated else words)

    def _estimate(self) -> str:
        if not self.labeller.left:
            return "all done: view.table()"
        found = self.labeller.estimate()
        if found is None:
            return ""
        about = f"about {found.right:.0%} ({found.low:.0%} to {found.high:.0%})"
        return f"of the {self.labeller.left:,} without an answer, {about} have the right proposal"

    def static(self) -> bytes:
        """The screen with its proposals, as PNG."""
        rows = [card["row"] for card in self.cards][:STATIC]
        table = self.labeller.predictions()[["path", "predicted", "confidence"]]
        return _picture(table[table["path"].isin(self._images["path"].iloc[rows])])


class Relabel(Grid):
    """The panel that `widgets.relabel` returns."""

    def __init__(self, table: pd.DataFrame, file: str | os.PathLike[str], size: int):
        self.table, self.file = table.drop_duplicates("path").reset_index(drop=True), Path(file)
        self.names = [str(name) for name in table["label"].cat.categories]
        self._undo: list[list[int]] = []
        labels = self.table["label"].astype(str)
        counts = labels.value_counts()
        choices = [[f"{ALL} ({len(labels)})", ALL], *([f"{n} ({counts[n]})", n] for n in self.names if n in counts)]
        buttons = [["label is right", "space", KEEP]]
        buttons += [["it is as suggested", ACCEPT, ACCEPT]] if any(map(self._suggested, range(len(self.table)))) else []
        buttons += [["exclude", EXCLUDE, EXCLUDE], ["all others are right", "Enter", ALL_RIGHT]]
        buttons += [["back", BACK, BACK], ["next", NEXT, NEXT], ["undo", "backspace", UNDO]]
        super().__init__(self.table, size, buttons=buttons, choices=choices)
        self._list_classes(self.names)
        self.observe(lambda _: self._show_class(), "choice")
        self._to_next_open()
        self._draw()

    # ------------------------------------------------------------------------------------------- what a person does

    def decide(self, action: str, label: str | None = None, rows: Iterable[int] = ()) -> None:
        """Writes down a decision about these rows of `table`, else about the image in the frame; goes to the next."""
        self._decide([(row, action, label) for row in list(rows) or [self.place]])
        self._draw()

    def undo(self) -> None:
        """Takes back the last decision about images of this table, and shows them again."""
        found = audit.latest(self.table, self.file)["row"]
        rows = [
            row for row in (self._undo.pop() if self._undo else [int(found.to_numpy().argmax())]) if found[row] >= 0
        ]
        if rows:
            audit.undo(self.file, self.table["path"].iloc[rows])
            self.choice = ALL if not set(rows) <= set(self._rows()) else self.choice
            self.place = int(rows[0])
        self._draw()

    def step(self, by: int) -> None:
        """Goes `by` images on, within the class chosen."""
        rows = self._rows()
        self.place = int(rows[np.clip(np.searchsorted(rows, self.place) + by, 0, len(rows) - 1)])
        self._draw()

    @property
    def left(self) -> int:
        """How many images are without a decision."""
        return int((audit.latest(self.table, self.file)["action"] == "").sum())

    def _name(self, label: str, rows: np.ndarray) -> None:
        if label not in self.names:
            raise ValueError(f"Expected one of {', '.join(self.names)}. Received: {label!r}.")
        self._decide([(row, "relabel", label) for row in rows])

    def _press(self, key: str, rows: np.ndarray) -> None:
        if key in (NEXT, BACK):
            self.step(1 if key == NEXT else -1)
        elif key == UNDO:
            self.undo()
        elif key == ALL_RIGHT:
            self._decide([(card["row"], "keep", None) for card in self.cards if str(card["row"]) not in self.answers])
        elif key in (KEEP, EXCLUDE):
            self._decide([(row, "keep" if key == KEEP else "exclude", None) for row in rows])
        elif key == ACCEPT:
            self._decide([(row, "relabel", self._suggested(row)) for row in rows if self._suggested(row)])

    def _decide(self, decisions: list[tuple[int, str, str | None]]) -> None:
        table = self.table
        why = [f"suspicion {value:.2f}" for value in table["suspicion"]] if "suspicion" in table else [""] * len(table)
        if decisions:
            append([[table["path"][row], action, label or "", why[row]] for row, action, label in decisions], self.file)
            self._undo.append([int(row) for row, _, _ in decisions])
            self._to_next_open()

    # --------------------------------------------------------------------------------------------------- what is shown

    def _show_class(self) -> None:
        if self.place not in self._rows():
            self.place = int(self._rows()[0])
            if audit.latest(self.table, self.file)["action"][self.place]:
                self._to_next_open()
        self._draw()

    def _rows(self) -> np.ndarray:
        return np.flatnonzero((self.table["label"].astype(str) == self.choice) | (self.choice == ALL))

    def _suggested(self, row: int) -> str:
        """The class that is suggested for an image, or ""."""
        name = str(self.table["suggested"][row]) if "suggested" in self.table else ""
        return name if name in self.names else ""

    def _to_next_open(self) -> None:
        """The next image of the class chosen without a decision: behind this one, else from the start."""
        rows = self._rows()
        self._go_on(rows.tolist(), set(rows[(audit.latest(self.table, self.file)["action"][rows] == "").to_numpy()]))

    def _draw(self) -> None:
        rows, latest = self._rows(), audit.latest(self.table, self.file)
        at = int(np.searchsorted(rows, self.place))
        page = rows[at // PAGE * PAGE :][:PAGE]
        left = int((latest["action"][rows] == "").sum())
        with self.hold_sync():
            captions, facts = zip(*map(self._about, page), strict=True)
            self._show(page, captions, facts, [""] * len(page))
            decided = latest.iloc[page]
            self.answers = {
                str(row): f"{action} {label}".strip() if action != "relabel" else label
                for row, action, label in zip(page, decided["action"], decided["label"], strict=True)
                if action
            }
            done = f"all decided: audit.apply(table, {str(self.file)!r})"
            self.status = f"image {at + 1} of {len(rows)} · {f'{left} open' if left else done}"

    def _about(self, row: int) -> tuple[str, str]:
        """Caption and facts; the words are the person's own and may hold anything."""
        about = self.table.iloc[row]
        suggested, facts = self._suggested(row), [f"labelled {about['label']}"]
        if suggested:
            facts.append(
                f"suggested {suggested}" + (f", suspicion {about['suspicion']:.2f}" if "suspicion" in about else "")
            )
        facts += [str(about[column]) for column in ("problem", "note") if about.get(column)]
        return f"{about['label']}" + (f" → {suggested}?" if suggested else ""), " · ".join(facts)

    def static(self) -> bytes:
        """The first suspects, as PNG."""
        table = self.table[["path", "label"]]
        if {"suggested", "suspicion"} <= set(self.table) and self.table["suggested"].notna().any():
            table = table.assign(predicted=self.table["suggested"], confidence=self.table["suspicion"])
            table = table.dropna(subset="predicted")
        return _picture(table.head(STATIC))


def _picture(table: pd.DataFrame) -> bytes:
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

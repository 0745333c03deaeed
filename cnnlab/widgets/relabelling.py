"""A panel for looking at suspects one by one and deciding about each; every decision is a row in a CSV at once."""

import functools
import html
import io
import os
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from cnnlab import audit, images, plots
from cnnlab._common import require_columns
from cnnlab.widgets.exploring import Pictured, as_png

KEEP, ACCEPT, EXCLUDE, NEXT, BACK = " ", "+", "-", ".", ","
SMALLEST = 360  # pixels: tiny images are enlarged to about this, since nobody can judge 8 × 8
MOST_BUTTONS = 24  # more classes than this are chosen from a list
STATIC = 12  # suspects in the picture that stands in where widgets do not run
ALL = "all classes"


def relabel(table: pd.DataFrame, *, file: str | os.PathLike[str], size: int = 480) -> "Relabel":
    """Shows suspects one at a time, large, with buttons and keys for what to do; writes each decision down at once.

    Close it, switch the class, restart the kernel: what you decided is in `file`, and the panel goes on with the first
    image that is still open. `audit.apply(table, file)` carries the decisions out. Images are never touched.

    Keys, typed into the small field: the letter on its button for a class, space for "the label is right", plus for
    the suggested class, minus to exclude, full stop and comma for next and back; backspace takes back.

    Args:
        table: The images to look at, in this order: with the columns path and label, and suggested, suspicion, problem
            or note where there are any. What `audit.label_issues` returns, or `table[table["problem"] != ""]`.
        file: The CSV of decisions, as for `audit.decide`.
        size: The longer side of the image on the page, in pixels.

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
        ...     _ = panel.press("-")
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


class Relabel(Pictured, ipywidgets.VBox):
    """The panel that `widgets.relabel` returns."""

    def __init__(self, table: pd.DataFrame, file: str | os.PathLike[str], size: int):
        self.table = table.drop_duplicates("path").reset_index(drop=True)
        self.file, self.size = Path(file), size
        self.names = [str(name) for name in table["label"].cat.categories]
        self.letters = letters_for(self.names)
        self.place = 0  # the row of the table that is shown
        self._typed, self._decided = "", list[bool]()  # the keys in the field, and which of them decided something
        super().__init__(self._parts())
        self._to_next_open()

    # ------------------------------------------------------------------------------------------- what a person does

    def decide(self, action: str, label: str | None = None) -> None:
        """Writes down a decision about the image shown, and shows the next open one."""
        row = self.table.iloc[self.place]
        reason = f"suspicion {row['suspicion']:.2f}" if "suspicion" in row else ""
        audit.decide(self.table, row["path"], action, label=label, reason=reason, file=self.file)
        self._to_next_open()

    def undo(self) -> None:
        """Takes back the last decision about one of these images, and shows that image again."""
        found = audit.latest(self.table, self.file)["row"]
        if found.max() >= 0:
            self.place = int(found.to_numpy().argmax())
            self._choice.value = ALL if self.place not in self._rows() else self._choice.value
            audit.undo(self.file, self.table["path"][self.place])
        self._draw()

    def step(self, by: int) -> None:
        """Goes `by` images on, within the class chosen."""
        rows = self._rows()
        self.place = int(rows[np.clip(np.searchsorted(rows, self.place) + by, 0, len(rows) - 1)])
        self._draw()

    def press(self, keys: str) -> list[bool]:
        """Does what the keys say, one after another; tells of each whether it decided something."""
        return [self._press(key) for key in keys]

    def _press(self, key: str) -> bool:
        decisions: dict[str, tuple[str, str | None]] = {KEEP: ("keep", None), EXCLUDE: ("exclude", None)}
        decisions |= {letter: ("relabel", name) for name, letter in self.letters.items()}
        if suggested := self._suggested():
            decisions[ACCEPT] = ("relabel", suggested)
        if key in (NEXT, BACK):
            self.step(1 if key == NEXT else -1)
        elif key.lower() in decisions:
            self.decide(*decisions[key.lower()])
        return key.lower() in decisions

    @property
    def left(self) -> int:
        """How many images are without a decision."""
        return int((audit.latest(self.table, self.file)["action"] == "").sum())

    # --------------------------------------------------------------------------------------------------- what is shown

    def _parts(self) -> list[ipywidgets.Widget]:
        labels = self.table["label"].astype(str)
        counts = labels.value_counts()
        options = [(f"{name} ({counts[name]})", name) for name in self.names if name in counts]
        self._choice = ipywidgets.Dropdown(
            options=[(f"{ALL} ({len(labels)})", ALL), *options], description="labelled", layout={"width": "20em"}
        )
        self._choice.observe(lambda _: self._show_class(), "value")
        self._count = ipywidgets.HTML()
        square = {"width": f"{self.size}px", "height": f"{self.size}px", "object_fit": "contain"}
        self._picture = ipywidgets.Image(format="png", layout=square)
        self._facts = ipywidgets.HTML(layout={"width": "26em"})
        self._keys = ipywidgets.Text(
            placeholder="click here, then use the keys", description="keys", layout={"width": "20em"}
        )
        self._keys.observe(lambda change: self._type(change["new"]), "value")
        self._accept = self._button("", ACCEPT, lambda: self.press(ACCEPT), "primary")
        actions = [
            self._button("label is right", "space", lambda: self.press(KEEP), "success"),
            self._accept,
            self._button("exclude", EXCLUDE, lambda: self.press(EXCLUDE), "warning"),
            self._button("back", BACK, lambda: self.step(-1)),
            self._button("next", NEXT, lambda: self.step(1)),
            self._button("undo", "backspace", self.undo),
        ]
        wrap = {"flex_flow": "row wrap", "width": "26em"}
        side = [self._facts, ipywidgets.HBox(actions, layout=wrap), self._class_buttons(wrap), self._keys]
        below = ipywidgets.HBox([self._picture, ipywidgets.VBox(side)])
        return [ipywidgets.HBox([self._choice, self._count]), below]

    def _class_buttons(self, layout: dict[str, str]) -> ipywidgets.Widget:
        def pick(change: dict[str, str]) -> None:
            if change["new"] in self.names:
                choice.value = ""
                self.decide("relabel", change["new"])

        if len(self.names) > MOST_BUTTONS:
            choice = ipywidgets.Combobox(options=self.names, placeholder="another class", ensure_option=True)
            choice.observe(pick, "value")
            return choice
        buttons = [
            self._button(name, self.letters.get(name, ""), functools.partial(self.decide, "relabel", name))
            for name in self.names
        ]
        return ipywidgets.HBox(buttons, layout=layout)

    def _button(self, words: str, key: str, call: Callable[[], object], style: str = "") -> ipywidgets.Button:
        words_and_key = f"{words} [{key}]" if key else words
        button = ipywidgets.Button(
            description=words_and_key, tooltip=words, button_style=style, layout={"width": "auto"}
        )

        def clicked(_: ipywidgets.Button) -> None:
            call()
            self._keys.focus()  # so that keys go on working after a click

        button.on_click(clicked)
        return button

    def _show_class(self) -> None:
        rows = self._rows()
        if self.place not in rows:
            self.place = int(rows[0])
            if audit.latest(self.table, self.file)["action"][self.place]:
                self._to_next_open()
                return
        self._draw()

    def _type(self, text: str) -> None:
        """Presses what was typed since last time; what was taken away takes back what it decided."""
        same = len(self._typed)
        while not text.startswith(self._typed[:same]):
            same -= 1
        for decided in self._decided[same:]:
            if decided:
                self.undo()
        self._typed, self._decided = text, self._decided[:same] + self.press(text[same:])

    def _rows(self) -> np.ndarray:
        return np.flatnonzero((self.table["label"].astype(str) == self._choice.value) | (self._choice.value == ALL))

    def _suggested(self) -> str:
        """The class that is suggested for the image shown, or ""."""
        name = str(self.table["suggested"][self.place]) if "suggested" in self.table else ""
        return name if name in self.names else ""

    def _to_next_open(self) -> None:
        """Shows the next image of the class chosen without a decision: behind this one, else from the start."""
        rows = self._rows()
        open_rows = rows[(audit.latest(self.table, self.file)["action"][rows] == "").to_numpy()]
        if len(open_rows):
            self.place = int(min(open_rows, key=lambda row: (row < self.place, row)))
        self._draw()

    def _draw(self) -> None:
        row, rows = self.table.iloc[self.place], self._rows()
        decisions = audit.latest(self.table, self.file)
        left = int((decisions["action"][rows] == "").sum())
        done = f"all decided: <code>audit.apply(table, {html.escape(repr(str(self.file)))})</code>"
        at = int(np.searchsorted(rows, self.place)) + 1
        self._count.value = f"&nbsp; image {at} of {len(rows)} &nbsp;·&nbsp; {f'{left} open' if left else done}"
        facts = _facts(row, decisions.iloc[self.place])
        try:
            self._picture.value = enlarged(row["path"], self.size, audit.levels(self.table))
        except (OSError, ValueError) as error:
            self._picture.value = NOTHING
            facts.append(f"<b>The picture cannot be shown.</b> {html.escape(str(error))}")
        self._facts.value = "<br>".join(facts)
        suggested = self._suggested()
        self._accept.description = f"it is {suggested} [{ACCEPT}]"
        self._accept.layout.display = "" if suggested else "none"

    def static(self) -> bytes:
        """The first suspects, as PNG."""
        table = self.table[["path", "label"]]
        if {"suggested", "suspicion"} <= set(self.table) and self.table["suggested"].notna().any():
            table = table.assign(predicted=self.table["suggested"], confidence=self.table["suspicion"])
            table = table.dropna(subset="predicted")
        count = min(STATIC, len(table))
        figure = Figure((8.2, 1.7 * -(-count // 6)), layout="constrained")
        plots.images(table.head(count), count=count, ax=figure.subplots())
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


def enlarged(path: str | os.PathLike[str], size: int, levels: tuple[float, float] | None = None) -> bytes:
    """An image as PNG with a longer side of at most `size` pixels; tiny ones are enlarged, pixel by pixel."""
    pixels = np.clip(np.rint(images.read(path, levels=levels)), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.thumbnail((size, size))
    times = max(1, SMALLEST // max(image.size))
    how = Image.Resampling.NEAREST if max(image.size) < 64 else Image.Resampling.BICUBIC
    return _png(image.resize((image.width * times, image.height * times), how))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


NOTHING = _png(Image.new("L", (SMALLEST, SMALLEST), 200))


def _facts(row: pd.Series, decision: pd.Series) -> list[str]:
    """What is known about an image, as HTML; the words are the person's own and may hold anything."""
    lines = [f"<small>{html.escape(str(row['path']))}</small>", f"labelled <b>{html.escape(str(row['label']))}</b>"]
    if "suggested" in row and pd.notna(row["suggested"]):
        share = f", suspicion {row['suspicion']:.2f}" if "suspicion" in row else ""
        lines.append(f"the networks suggest <b>{html.escape(str(row['suggested']))}</b>{share}")
    lines += [html.escape(str(row[column])) for column in ("problem", "note") if row.get(column)]
    if decision["action"]:
        words = f"{decision['action']} {decision['label']}".strip()
        lines.append(f"decided: <b>{html.escape(words)}</b>")
    return lines

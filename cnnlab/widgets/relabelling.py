"""Looking through suspects, the likeliest first; each decision is a row in a CSV."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from cnnlab import audit
from cnnlab._common import require_columns
from cnnlab.audit.decisions import append, kept_path, still_last
from cnnlab.widgets.grid import ACCEPT, ALL, ALL_RIGHT, BACK, EXCLUDE, KEEP, NEXT, STATIC, UNDO, Grid, picture

PAGE = 24  # suspects side by side


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


class Relabel(Grid):
    """The panel that `widgets.relabel` returns."""

    def __init__(self, table: pd.DataFrame, file: str | os.PathLike[str], size: int):
        self.table, self.file = table.drop_duplicates("path").reset_index(drop=True), Path(file).expanduser()
        self.names = [str(name) for name in table["label"].cat.categories]
        self._undo: list[pd.DataFrame] = []  # what was written
        labels = self.table["label"].astype(str)
        counts = labels.value_counts()
        choices = [[f"{ALL} ({len(labels)})", ALL], *([f"{n} ({counts[n]})", n] for n in self.names if n in counts)]
        buttons = [["label is right", "space", KEEP]]
        buttons += [["it is as suggested", ACCEPT, ACCEPT]] if any(map(self._suggested, range(len(self.table)))) else []
        buttons += [["exclude", EXCLUDE, EXCLUDE], ["all others are right", "Enter", ALL_RIGHT]]
        buttons += [["back", BACK, BACK], ["next", NEXT, NEXT], ["undo", "backspace", UNDO]]
        super().__init__(self.table, size, buttons=buttons, choices=choices)
        self.list_classes(self.names)
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
        if self._undo:  # but not what was decided elsewhere since
            mine = set(still_last(self._undo.pop(), self.file))
            rows = [row for row, path in enumerate(self.table["path"]) if kept_path(path, self.file) in mine]
        else:
            rows = [int(found.to_numpy().argmax())] if found.max() >= 0 else []
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
            decided = audit.latest(self.table, self.file)["action"]
            self._decide([(card["row"], "keep", None) for card in self.cards if not decided[card["row"]]])
        elif key in (KEEP, EXCLUDE):
            self._decide([(row, "keep" if key == KEEP else "exclude", None) for row in rows])
        elif key == ACCEPT:
            self._decide([(row, "relabel", self._suggested(row)) for row in rows if self._suggested(row)])

    def _decide(self, decisions: list[tuple[int, str, str | None]]) -> None:
        table = self.table
        why = [f"suspicion {value:.2f}" for value in table["suspicion"]] if "suspicion" in table else [""] * len(table)
        if decisions:
            rows = [[table["path"][row], action, label or "", why[row]] for row, action, label in decisions]
            self._undo.append(append(rows, self.file).tail(len(rows)))
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
        still_open = (audit.latest(self.table, self.file)["action"][rows] == "").to_numpy()
        self.frame_next(rows.tolist(), set(rows[still_open]))

    def _draw(self) -> None:
        rows, latest = self._rows(), audit.latest(self.table, self.file)
        at = int(np.searchsorted(rows, self.place))
        page = rows[at // PAGE * PAGE :][:PAGE]
        left = int((latest["action"][rows] == "").sum())
        with self.hold_sync():
            captions, facts = zip(*map(self._about, page), strict=True)
            self.show(page, captions, facts, [""] * len(page))
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
        return picture(table.head(STATIC))

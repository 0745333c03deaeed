"""Labelling from nothing: images in grids of what looks alike, a proposal for each; each answer is a row in a CSV."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnnlab import experiments
from cnnlab.widgets.grid import ACCEPT, ALL_RIGHT, EXCLUDE, KEEP, NEXT, STATIC, UNDO, Grid, picture


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


class Label(Grid):
    """The view that `widgets.label` returns."""

    def __init__(self, labeller: experiments.Labeller, size: int) -> None:
        self.labeller, self._estimated = labeller, ""
        buttons = [["confirm all", "Enter", ALL_RIGHT], ["confirm", "space", KEEP], ["leave out", EXCLUDE, EXCLUDE]]
        buttons += [["pass over", NEXT, NEXT], ["undo", "backspace", UNDO]]
        super().__init__(labeller.images, size, buttons=buttons, other="another or a new class")
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
            self.list_classes(self.labeller.classes)
            if not len(left) or not set(left) <= set(shown):
                shown = left.tolist()
                proposed = self.labeller.proposed(left)
                self.marked = [row for row, name in zip(shown, proposed, strict=True) if not name]
                groups = [f"{name}?" if name else "These look alike. What are they?" for name in proposed]
                self.show(left, [name or "?" for name in proposed], [""] * len(left), groups)
                self._estimated = self._estimate()
            self.answers = {str(row): answers[row] for row in shown if row in answers}
            self.frame_next(shown, set(left))
            self.status = self._words()

    def _words(self) -> str:
        right, asked = self.labeller.right_so_far()
        words = [f"{len(self.images) - self.labeller.left:,} of {len(self.images):,} have an answer"]
        words += [f"{right / asked:.0%} of {asked:,} proposals were right"] if asked else []
        return " · ".join([*words, self._estimated] if self._estimated else words)

    def _estimate(self) -> str:
        if not self.labeller.left:
            return "all done: view.table()"
        found = self.labeller.estimate()
        if found is None:
            return ""
        about = f"about {found.right:.0%} ({found.low:.0%} to {found.high:.0%})"
        return f"of the images that are still to come, {about} have the right proposal"

    def static(self) -> bytes:
        """The screen with its proposals, as PNG."""
        rows = [card["row"] for card in self.cards][:STATIC]
        table = self.labeller.predictions()[["path", "predicted", "confidence"]]
        return picture(table[table["path"].isin(self.images["path"].iloc[rows])])

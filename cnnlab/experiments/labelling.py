"""Labelling without a browser: which images to ask about next, what to propose, and how far to trust the proposals."""

import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_limits

from cnnlab import audit
from cnnlab._answers import scaled_by_temperature, with_probabilities
from cnnlab._common import require_columns, require_features, require_seed
from cnnlab.audit.decisions import append, kept_path, still_last
from cnnlab.experiments.diversity import FITTED, far_apart, main_axes, tight_clusters
from cnnlab.metrics.intervals import wilson

OPEN, EXCLUDED = -1, -2  # in place of a class
NONE = np.zeros(0, int)  # rows
SIZE = 48  # images on a screen
DRAWN = 0.5  # of a screen is drawn at random, which the estimate rests on
SHRINKAGE, TEMPERATURE = 0.4, 4.0  # of the probe, whose probabilities would be too sure of themselves
LATEST = 4  # screens, whose random draws the estimate uses
FOLDS = 5
MISTAKES = 0.02  # of a person's answers, by which right proposals look wrong
PROPOSED = re.compile(
    r"(?s)proposed (?P<proposed>.*), screen (?P<screen>\d+)(, drawn at random, 1 of (?P<drawn>\d+))?$"
)


class Estimate(NamedTuple):
    """How many of the images without an answer have the right proposal, as a share, with its 95 % interval."""

    right: float
    low: float
    high: float


class Labeller:
    """Asks a person about images without labels, screen by screen, and learns from the answers.

    First come clusters of images that look alike, two for each class; from then on linear discriminant analysis of the
    features proposes a class for every image. A screen holds images of one proposed class that teach most (the least
    certain ones, far from each other, and ordinary ones), and as many drawn at random from all that are open: these
    tell honestly how many proposals are right. Each answer is a row of the decisions file at once, so a new kernel goes
    on where the last one stopped, and `audit.apply` reads it. `widgets.label` is the view of it.

    Args:
        table: With the column path; labels that it has are taken as answers.
        features: A row of numbers for each image, such as `experiments.features("EfficientNetLite0", table,
            pyramid=True)`; images whose features are not a number come last.
        classes: Their names, in order; more can be added on the way.
        file: The CSV of decisions, as for `audit.decide`.
        size: Images on a screen.
        seed: Decides clusters and random draws.

    Attributes:
        images: The table that all rows are of, with the labels that it came with.

    Raises:
        ValueError: If no image is without a label, there is no class, or a class or an image comes twice.

    Source:
        B. Settles, "Active learning literature survey" (2009); O. Sener, S. Savarese, "Active learning for
        convolutional neural networks: a core-set approach" (2018).

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import pandas as pd
        >>> from cnnlab import experiments
        >>> table = pd.DataFrame({"path": [f"{number}.png" for number in range(40)]})
        >>> features = np.repeat([[0.0, 1.0], [9.0, 8.0]], 20, axis=0) + np.arange(40)[:, None] / 100
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     labeller = experiments.Labeller(table, features, ["cat", "dog"], file=folder + "/decisions.csv")
        ...     while len(rows := labeller.screen()) and not labeller.proposed(rows)[0]:
        ...         labeller.answer(rows, "cat" if rows[0] < 20 else "dog")
        ...     proposals = labeller.predictions()["predicted"].tolist()
        >>> proposals == ["cat"] * 20 + ["dog"] * 20
        True
    """

    def __init__(
        self,
        table: pd.DataFrame,
        features: np.ndarray,
        classes: Sequence[str],
        *,
        file: str | os.PathLike[str],
        size: int = SIZE,
        seed: int = 0,
    ) -> None:
        caller = "experiments.Labeller"
        require_columns(table, "path", caller=caller)
        require_columns(table, *(["label"] if "label" in table else []), caller=caller)
        require_seed(seed, caller=caller)
        names = list(map(str, classes)) if isinstance(classes, Iterable) and not isinstance(classes, str) else []
        if not names or len(set(names)) < len(names) or not all(map(str.strip, names)):
            raise ValueError(
                f"`classes` expects one name or more, each once, such as ['cat', 'dog']. Received: {classes!r}."
            )
        given = table["label"].astype(object) if "label" in table else pd.Series(np.nan, table.index, dtype=object)
        names += [str(name) for name in given.dropna().unique() if str(name) not in names]
        if not given.isna().any():
            raise ValueError(
                f"`{caller}` expects images without a label. All {len(table)} rows have one: see `widgets.relabel`."
            )
        values = require_features(table, features, caller=caller)
        self.file, self.size = Path(file).expanduser(), size
        self.images = table.assign(label=pd.Categorical(given.map(str, na_action="ignore"), categories=names))
        self._given = self.images["label"].cat.codes.to_numpy().astype(int)
        self._row_of = {kept_path(path, self.file): row for row, path in enumerate(table["path"])}
        if len(self._row_of) < len(table):
            raise ValueError(
                f"`{caller}` expects each image once. Received {len(table)} rows of {len(self._row_of)} images. Use "
                "`table.drop_duplicates('path')`, before the features are computed."
            )
        self._known = np.isfinite(values).all(axis=1)
        self._rng = np.random.default_rng(seed)
        known = np.flatnonzero(self._known)
        self._places = main_axes(values, self._rng.permutation(known))
        unlabelled = self._rng.permutation(known[self._given[known] == OPEN])[:FITTED]
        taught = len(np.unique(self._given[self._given >= 0])) >= 2  # the labels given teach enough
        self._clusters = [] if taught else tight_clusters(self._places, unlabelled, 2 * len(self.classes), seed)
        self._undo: list[pd.DataFrame] = []  # what was written
        self._screen, self._drawn, self._draws, self._number = NONE, NONE, 0, 0
        self._proposals: dict[int, str] = {}  # of the screen, as they were shown
        self._aside: dict[int, bool] = {}  # rows that a person passed over: with a proposal?
        self._learned: tuple[bytes, np.ndarray | None] = b"", None
        self._read()

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in order."""
        return [str(name) for name in self.images["label"].cat.categories]

    def screen(self) -> np.ndarray:
        """The rows of the table to ask about, in reading order: the same until all have an answer; none at the end."""
        self._read()
        self._screen = self._screen[self._codes[self._screen] == OPEN]
        if not len(self._screen):
            rows, alike = self._next()
            self._proposals = {}
            names = [""] * len(rows) if alike else self.proposed(rows)
            self._screen, self._proposals = rows, dict(zip(rows.tolist(), names, strict=True))
        return self._screen

    def proposed(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The class that is proposed for each row; "" where nobody knows yet, and where all are only alike.

        On the screen it stays what it was when the screen came.
        """
        if all(int(row) in self._proposals for row in rows):
            return [self._proposals[int(row)] for row in rows]
        found = self._probabilities()
        best = np.full(len(self._codes), -1) if found is None else np.where(self._known, found.argmax(axis=1), -1)
        names = [*self.classes, ""]
        return [self._proposals.get(int(row), names[best[row]]) for row in rows]

    def answer(self, rows: Sequence[int] | np.ndarray, label: str | None) -> None:
        """Writes down that these images show `label`, which may be a new class; None leaves the images out."""
        label = None if label is None else str(label)
        if label is not None and not label.strip():
            raise ValueError(f"`label` expects the name of a class, or None to leave images out. Received: {label!r}.")
        self._write({label: np.asarray(rows, int)})

    def confirm(self, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Writes down that the proposals for these rows are right; for all on the screen where None."""
        rows = self.screen() if rows is None else np.asarray(rows, int)
        proposed = np.array(self.proposed(rows), dtype=object)
        self._write({name: rows[proposed == name] for name in dict.fromkeys(proposed) if name})

    def skip(self) -> None:
        """Passes over what is left of the screen; it comes again with a proposal, or once all others have an answer."""
        self._aside |= {row: bool(self._proposals[row]) for row in self._screen.tolist()}
        self._screen = NONE

    def undo(self) -> np.ndarray:
        """Takes back the last answer: all images that it was about are on the screen again. Gives their rows.

        Images about which another kernel has decided since stay as they are.
        """
        self._read()
        if self._undo:
            mine = still_last(self._undo.pop(), self.file)
            rows = np.array([self._row_of[path] for path in mine if path in self._row_of], int)
        else:  # what was written at one time for one class
            facts = self._log[["action", "label", "time"]]
            rows = facts.index[(facts == facts.iloc[-1:].to_numpy()).all(axis=1)].to_numpy()
        if len(rows):
            undone = self._log.loc[rows]
            audit.undo(self.file, self.images["path"].iloc[rows])
            self._read()
            if set(rows.tolist()) <= set(self._proposals):
                shown = np.array(list(self._proposals), int)
                self._screen = shown[self._codes[shown] == OPEN]
            else:  # of an earlier screen, as which they count again
                self._screen = rows
                self._proposals = dict(zip(rows.tolist(), undone["proposed"].fillna(""), strict=True))
                self._drawn, self._draws = rows[undone["drawn"] > 0], int(undone["drawn"].max())
                self._number = int(undone["screen"].max())
        return rows

    def table(self) -> pd.DataFrame:
        """The table with the labels answered so far, NaN where there is none; without what was left out."""
        self._read()
        labels = np.array([*self.classes, None], dtype=object)[np.maximum(self._codes, OPEN)]
        return self.images.assign(label=pd.Categorical(labels, self.classes))[self._codes != EXCLUDED]

    def predictions(self) -> pd.DataFrame:
        """What `table` gives, with predicted, confidence and `p_<class>` for every image."""
        found, table = self._probabilities(), self.table()
        empty = np.full((len(self.images), len(self.classes)), np.nan)
        return with_probabilities(table, (empty if found is None else found)[self._codes != EXCLUDED])

    def answers(self) -> dict[int, str]:
        """What was answered so far for each row of the table; "left out" for what is."""
        named = self._log.loc[self._log["action"] != "keep", ["action", "label"]]
        return {int(row): "left out" if action == "exclude" else name for row, action, name in named.itertuples()}

    @property
    def left(self) -> int:
        """How many images are without an answer."""
        return int((self._codes == OPEN).sum())

    def right_so_far(self) -> tuple[int, int]:
        """How many proposals proved right, and how many were looked at."""
        asked = self._log[self._log["action"] == "relabel"].dropna(subset="proposed")
        return int((asked["proposed"] == asked["label"]).sum()), len(asked)

    def estimate(self) -> Estimate | None:
        """How many proposals of images that nobody has looked at are right; None before there is anything to tell from.

        The random draws of the latest screens, asked what a probe that has not learned from them says, tell of all
        images that were open then; those that have an answer since are known, and taken off. Screens of which some
        draws have no answer do not count: people answer first what is wrong. The upper limit grants that 2 of 100
        answers are a person's own mistakes.
        """
        log = self._log
        aside = [row for row, proposed in self._aside.items() if proposed]
        open_rows = np.setdiff1d(np.flatnonzero((self._codes == OPEN) & self._known), aside)
        draws = log[log["drawn"] > 0].groupby("screen")["drawn"].agg(["size", "max"])
        latest = sorted(draws.index[draws["size"] == draws["max"]])[-LATEST:]
        if not len(open_rows) or self._probabilities() is None or not latest:
            return None
        right = np.zeros(len(self._codes), bool)  # of a probe that has not learned from the image
        answered = np.random.default_rng(0).permutation(np.flatnonzero((self._codes >= 0) & self._known))
        for part in np.array_split(answered, FOLDS):
            probe = self._probe(np.setdiff1d(answered, part))
            if len(part) and probe:
                right[part] = probe.predict(self._places[part]) == self._codes[part]
        found = []
        for number in latest:
            since = log.index[log["screen"] >= number]
            drawn = log.index[(log["screen"] == number) & (log["drawn"] > 0)]
            then = len(open_rows) + len(since)
            share = (then * right[drawn].mean() - right[since].sum()) / len(open_rows)
            found.append((share, (len(open_rows) / then) ** 2 * len(drawn)))
        shares, weights = np.array(found).T
        share = float(np.clip(np.average(shares, weights=weights), 0, 1))
        low, high = wilson(share, 1 / (1 / weights.sum() + 1 / len(open_rows)))
        return Estimate(share, float(low), min(1.0, float(high) / (1 - MISTAKES)))

    def _next(self) -> tuple[np.ndarray, bool]:
        """The rows of the next screen, and whether all that is known of them is that they are alike."""
        found = self._probabilities()
        waiting = np.flatnonzero((self._codes == OPEN) & self._known)
        rows = np.array([row for row in waiting.tolist() if self._aside.get(row) is not (found is not None)], dtype=int)
        self._drawn, self._draws = NONE, 0
        self._number = int(self._log["screen"].max() if len(self._log) else 0) + 1
        while self._clusters and not self._log["proposed"].notna().any():
            cluster = self._clusters.pop(0)
            if len(cluster := cluster[np.isin(cluster, rows)]):
                return cluster, True
        if not len(rows):  # what was passed over, or cannot be read
            self._aside.clear()
            return (waiting if len(waiting) else np.flatnonzero(self._codes == OPEN))[: self.size], False
        self._drawn = self._rng.permutation(rows)[: round(self.size * DRAWN)]
        self._draws = len(self._drawn)
        if found is None:
            return self._drawn, False
        first, second = np.argsort(found, axis=1)[:, :-3:-1].T
        best, margin = found[np.arange(len(found)), first], -np.diff(np.sort(found, axis=1)[:, :-3:-1])[:, 0]
        chosen = np.setdiff1d(rows, self._drawn)
        if len(chosen):
            chosen = chosen[first[chosen] == np.bincount(first[chosen], 1 - best[chosen]).argmax()]
            half = (self.size - len(self._drawn)) // 2
            useful = far_apart(self._places, chosen[np.argsort(margin[chosen])][: 2 * half], half)
            ordinary = self._rng.permutation(np.setdiff1d(chosen, useful))
            chosen = np.r_[useful, ordinary[: self.size - len(self._drawn) - len(useful)]]
        rows = np.r_[chosen, self._drawn]
        # what may be wrong in the same way stands side by side
        other = np.where(best > 0.9, -1, second)
        return rows[np.lexsort((-margin[rows], other[rows], first[rows]))], False

    def _write(self, answers: dict[str | None, np.ndarray]) -> None:
        """Adds the answers to the file; one undo takes them back."""
        rows = []
        for label, places in answers.items():
            action = ("exclude", "") if label is None else ("relabel", label)
            for row, name in zip(places, self.proposed(places), strict=True):
                reason = f"proposed {name}, screen {self._number}" if name else ""
                reason += f", drawn at random, 1 of {self._draws}" if name and row in self._drawn else ""
                rows.append([self.images["path"].iloc[row], *action, reason])
        if rows:
            self._undo.append(append(rows, self.file).tail(len(rows)))
            self._read()

    def _read(self) -> None:
        """Brings answers and classes up to date with the file, which other kernels may write as well."""
        done = audit.decisions(self.file)
        done = done.assign(row=done["path"].map(self._row_of)).dropna(subset="row").astype({"row": int})
        named = done[done["action"] == "relabel"].drop_duplicates("row", keep="last").set_index("row")["label"]
        done = done.drop_duplicates("row", keep="last").set_index("row")
        # "the label is right" of what had no label: it is the one that was given here
        right = (done["action"] == "keep") & (self._given[done.index] == OPEN) & done.index.isin(named.index)
        log = done.assign(action=done["action"].mask(right, "relabel"), label=done["label"].mask(right, named))
        parts = done["reason"].str.extract(PROPOSED)
        self._log = log.assign(proposed=parts["proposed"], **parts[["screen", "drawn"]].fillna("0").astype(int))
        relabelled = self._log.loc[self._log["action"] == "relabel", "label"]
        added = [name for name in relabelled.unique() if name not in self.classes]
        self.images["label"] = self.images["label"].cat.add_categories(added)
        self._codes: np.ndarray = self._given.copy()
        self._codes[relabelled.index] = pd.Index(self.classes).get_indexer(pd.Index(relabelled))
        self._codes[self._log.index[self._log["action"] == "exclude"]] = EXCLUDED

    def _probabilities(self) -> np.ndarray | None:
        """Of each class for each image, by what has been answered; None while there is nothing to learn from."""
        state = self._codes.tobytes() + bytes(len(self.classes))
        if self._learned[0] != state:
            probe, found = self._probe(np.flatnonzero((self._codes >= 0) & self._known)), None
            if probe:
                found = np.zeros((len(self._codes), len(self.classes)))
                found[:, probe.classes_] = scaled_by_temperature(probe.predict_proba(self._places), TEMPERATURE)
                found[~self._known] = np.nan
            self._learned = state, found
        return self._learned[1]

    def _probe(self, rows: np.ndarray) -> LinearDiscriminantAnalysis | None:
        """Learned from these rows; None where they are too few to tell classes apart."""
        if not 2 <= len(np.unique(self._codes[rows])) < len(rows):
            return None
        # The same numbers on any number of cores; a class of one image has no covariance of its own.
        with threadpool_limits(1), warnings.catch_warnings(action="ignore", category=UserWarning):
            probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE)
            return probe.fit(self._places[rows], self._codes[rows])

"""The findings as a pandas table that shows whole sentences in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cnnlab.doctor._findings import COLUMNS, STATUSES, Finding, sort_key

LAYOUT = {"text-align": "left", "vertical-align": "top", "white-space": "pre-wrap"}


class Report(pd.DataFrame):
    """A DataFrame in all but one thing: a notebook shows its texts whole, where pandas cuts them after 50 letters."""

    @property
    def _constructor(self) -> Any:  # rows chosen from a report are a report
        return Report

    def _repr_html_(self) -> Any:
        if not set(self.columns) <= set(COLUMNS):  # a table made from a report, with an index that says something
            return super()._repr_html_()  # type: ignore[misc]  # pandas-stubs leaves it out
        shown = pd.DataFrame(self).style.hide(axis="index").format(escape="html")
        return shown.set_properties(None, **LAYOUT).to_html()


def as_table(findings: Sequence[Finding]) -> Report:
    """One row per finding, worst first."""
    rows = [[getattr(finding, name) for name in COLUMNS] for finding in sorted(findings, key=sort_key)]
    table = Report(rows, columns=list(COLUMNS))
    table["status"] = pd.Categorical(table["status"], categories=list(STATUSES), ordered=True)
    return table

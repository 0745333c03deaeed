"""The findings as a pandas table that shows whole sentences in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import pandas as pd

from cnnlab.doctor._findings import COLUMNS, STATUSES, Finding, sort_key

STYLE = "text-align: left; vertical-align: top; white-space: pre-wrap;"


class Report(pd.DataFrame):
    """A DataFrame in all but one thing: a notebook shows its texts whole, where pandas cuts them after 50 letters."""

    @property
    def _constructor(self) -> Any:  # rows chosen from a report are a report
        return Report

    def _repr_html_(self) -> Any:
        if not set(self.columns) <= set(COLUMNS):  # a table made from a report, with an index that says something
            return super()._repr_html_()  # type: ignore[misc]  # pandas-stubs leaves it out
        head = "".join(f'<th style="{STYLE}">{html.escape(str(name))}</th>' for name in self.columns)
        body = "".join(
            "<tr>" + "".join(self._cell(name, value) for name, value in row.items()) + "</tr>\n"
            for row in self.to_dict("records")
        )
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"

    @staticmethod
    def _cell(name: Any, value: Any) -> str:
        text = html.escape(str(value)).replace("\n", "<br>")
        if name == "fix" and text:
            text = f"<code>{text}</code>"
        if name == "status" and value in STATUSES[2:]:
            text = f"<b>{text}</b>"
        return f'<td style="{STYLE}">{text}</td>'


def as_table(findings: Sequence[Finding]) -> Report:
    """One row per finding, worst first."""
    rows = [[getattr(finding, name) for name in COLUMNS] for finding in sorted(findings, key=sort_key)]
    table = Report(rows, columns=list(COLUMNS))
    table["status"] = pd.Categorical(table["status"], categories=list(STATUSES), ordered=True)
    return table

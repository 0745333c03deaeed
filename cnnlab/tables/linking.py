"""Which rows belong together: one file listed twice, copies of one picture, images of one patient."""

import logging
import os
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

from cnnlab._common import COPIES, in_threads, require_column, require_columns
from cnnlab._groups import connected, found_by_scan

logger = logging.getLogger("cnnlab")
Group = str | Sequence[str] | bool | None
# Columns whose equal values usually mean pictures of one thing, such as "PatientID"; `subfolder` is `from_folder`'s.
ONE_THING = re.compile(
    "(patient|person|subject|participant|individual|animal|lesion|case|study|slide|video|clip|sequence|subfolder)s?"
    "([ _-]?(id|uid|no|nr|number|name|key|code))?"
)


def linked_groups(table: pd.DataFrame, group: Group = None) -> NDArray[np.int64]:
    """Numbers the rows so that all rows which must stay on one side of a split share a number.

    Rows are linked where they name the same file, where they share a value in any column of `group`, and where
    `audit.scan` has found copies of one picture. Links add up: if a patient's image has a copy among another
    patient's, the images of both stay together.

    Args:
        table: With the column path.
        group: A column, or several. None uses the column group, which `audit.scan` gives, where there is one; its
            copies also stay together when you name other columns. False links nothing but rows of the same file.

    Returns:
        A whole number for each row, from 0, in the order of the table.

    Raises:
        KeyError: If there is no such column.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import tables
        >>> table = pd.DataFrame({"path": list("abcda"), "patient": [1, 2, 2, 3, 4], "camera": list("xyxzw")})
        >>> tables.linked_groups(table, "patient").tolist(), tables.linked_groups(table, ["patient", "camera"]).tolist()
        ([0, 1, 1, 2, 0], [0, 0, 0, 1, 0])
    """
    require_columns(table, "path", caller="tables.linked_groups")
    columns = group_columns(table, group)
    paths, names = pd.factorize(table["path"].astype(str))
    keys = [pd.factorize(np.array(in_threads(_file, names), object))[0][paths]]  # threads: a network drive is slow
    for column in columns:
        require_column(table, column, caller="tables.linked_groups")
        codes, values = pd.factorize(_names(table[column]), use_na_sentinel=True)
        keys.append(codes)
        missing = int((codes < 0).sum())
        folded = pd.Series([str(value).casefold() for value in values], dtype=object)
        if folded.duplicated().any():
            first, second = values[folded == folded[folded.duplicated()].iloc[0]][:2]
            say_once(f"Column {column!r} has {first!r} and {second!r}, counted as two groups: give one thing one name.")
        if missing:
            say_once(f"{missing} of {len(table)} rows have no {column!r}; each counts as a group of its own.")
    return connected(keys)


def _file(path: str) -> str:
    """The same for one file, however its path is spelled and whichever link leads to it."""
    try:
        status = os.stat(path)  # noqa: PTH116 (ten times as fast)
    except (OSError, ValueError):
        return os.path.abspath(path)  # noqa: PTH100
    if not status.st_ino:  # a file system that numbers no files
        return os.path.abspath(path)  # noqa: PTH100
    return f"{status.st_dev} {status.st_ino}"


def _names(values: pd.Series) -> pd.Series:
    """What a column names, so that "P1 " is P1, and 1, 1.0 and "1" are one number; a blank names nobody."""
    if is_numeric_dtype(values.dtype) or is_datetime64_any_dtype(values.dtype):
        return values
    texts = {value: re.sub(r"^(-?\d+)\.0+$", r"\1", str(value).strip()) for value in values.dropna().unique()}
    return values.astype(object).map(texts).replace("", None)


def group_columns(table: pd.DataFrame, group: Group) -> list[str]:
    """The columns that link rows; says so where a column is used that nobody named, or should be."""
    if group is not False and {"problem", COPIES} <= set(table) and not found_by_scan(table):
        _say_other_numbers(table)
    if group is None:
        _say_unused(table, [])
        if COPIES not in table:
            return []
        say_once("Rows of equal `group` stay together, because the table has that column; group=False turns it off.")
        return [COPIES]
    if group is True:
        raise TypeError("`group` expects a column, several columns, or False. Received: True.")
    columns = [] if group is False else [group] if isinstance(group, str) else list(group)
    if not all(isinstance(column, str) for column in columns) or isinstance(group, pd.Series):
        raise TypeError(
            "`group` expects the name of a column, or several names, not what is in it. Received: "
            f"{type(group).__name__}. Use group='patient', after `table.assign(patient=…)` if it is not a column yet."
        )
    if columns and found_by_scan(table) and COPIES not in columns:
        say_once(f"Copies of one picture (column `group`) stay together, like rows of equal {' or '.join(columns)}.")
        columns.append(COPIES)
    if columns:
        _say_unused(table, columns)
    return columns


def _say_other_numbers(table: pd.DataFrame) -> None:
    if is_numeric_dtype(table[COPIES].dtype):
        say_once(
            "The column `group` is not that of one `audit.scan`, so copies of one picture may land on two sides of a "
            "split. Scan the whole table once more, after any `pd.concat`; a group of your own becomes `group_before`."
        )


def _say_unused(table: pd.DataFrame, used: list[str]) -> None:
    """A person in training and in the test makes scores too high: a column that looks like one is not passed over."""
    classes = table["label"].nunique() if "label" in table else 1
    for column in table.columns.difference(used, sort=False):
        if ONE_THING.fullmatch(str(column).lower()) and classes < table[column].nunique() < table[column].count():
            named = repr(column) if not used else repr([*used, column])
            say_once(
                f"Rows of equal {column!r} may land on two sides of a split; scores are too high if they show one "
                f"thing. Keep them together with group={named}; where they may part, group=False says so."
            )


_said: set[str] = set()


def say_once(message: str) -> None:
    """Logs each message once, since the same table is split again and again."""
    if message not in _said:
        _said.add(message)
        logger.warning(message)

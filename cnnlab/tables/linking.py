"""Which rows belong together: one file listed twice, copies of one picture, images of one patient."""

import logging
import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cnnlab._common import require_column, require_columns

logger = logging.getLogger("cnnlab")
COPIES = "group"  # the column of `audit.scan`: equal for images that show the same picture
Group = str | Sequence[str] | bool | None


def linked_groups(table: pd.DataFrame, group: Group = None) -> NDArray[np.int64]:
    """Numbers the rows so that all rows which must stay on one side of a split share a number.

    Rows are linked where they name the same file, where they share a value in any column of `group`, and where
    `audit.scan` has found copies of one picture. Links add up: if a patient's image has a copy among another
    patient's, the images of both stay together.

    Args:
        table: With the column path.
        group: A column, or several. None uses the column group, which `audit.scan` gives, where there is one; its
            copies also stay together beside other columns. False links nothing but rows of the same file.

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
    paths = table["path"].astype(str)
    if paths.str.contains(r"(?:^|/)\.|//|\\").any() or paths.str.startswith("/").nunique() > 1:
        paths = paths.map(os.path.abspath)  # which takes long, and without asking the disk for each
    keys = [pd.factorize(paths)[0]]
    for column in columns:
        require_column(table, column, caller="tables.linked_groups")
        values = table[column].astype(object)
        values = values.where(values.astype(str).str.strip() != "", None)  # a blank names nobody
        keys.append(pd.factorize(values, use_na_sentinel=True)[0])
        missing = int((keys[-1] < 0).sum())
        if missing:
            say_once(f"{missing} of {len(table)} rows have no {column!r}; each counts as a group of its own.")
    # A graph of rows and of values: each row is tied to its values, and what hangs together is one group.
    ties, count = [], len(table)
    for codes in keys:
        rows = np.flatnonzero(codes >= 0)
        ties.append((rows, codes[rows] + count))
        count += int(codes.max(initial=-1)) + 1
    first, second = (np.concatenate(side) for side in zip(*ties, strict=True))
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    component = connected_components(graph, directed=False)[1][: len(table)]
    return pd.factorize(component)[0].astype(np.int64)


def group_columns(table: pd.DataFrame, group: Group) -> list[str]:
    """The columns that link rows; says so where a column is used that nobody named."""
    if group is None:
        if COPIES not in table:
            return []
        say_once("Rows of equal `group` stay together, because the table has that column; group=False turns it off.")
        return [COPIES]
    if group is True:
        raise TypeError("`group` expects a column, several columns, or False. Received: True.")
    columns = [] if not group else [group] if isinstance(group, str) else list(group)
    found_by_scan = COPIES in table and pd.api.types.is_integer_dtype(table[COPIES].dtype)
    if columns and found_by_scan and COPIES not in columns:
        say_once(f"Copies of one picture (column `group`) stay together beside rows of equal {' or '.join(columns)}.")
        columns.append(COPIES)
    return columns


_said: set[str] = set()


def say_once(message: str) -> None:
    """Logs each message once, since the same table is divided again and again."""
    if message not in _said:
        _said.add(message)
        logger.warning(message)

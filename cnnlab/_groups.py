"""Which rows belong together: linked by equal values, or found to be copies by `audit.scan`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cnnlab._common import COPIES


def connected(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers rows from 0 up, so that rows linked by an equal code in any key are one; a code below 0 links nothing.

    >>> connected([np.array([0, 0, 1, -1]), np.array([5, 6, 6, -1])]).tolist()
    [0, 0, 0, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ties, count = [], len(keys[0])  # a graph of rows and of values: each row is tied to its values
    for codes in keys:
        rows = np.flatnonzero(codes >= 0)
        ties.append((rows, codes[rows] + count))
        count += int(codes.max(initial=-1)) + 1
    graph = coo_array((np.ones(sum(len(rows) for rows, _ in ties), bool), np.hstack(ties)), shape=(count, count))
    return pd.factorize(connected_components(graph, directed=False)[1][: len(keys[0])])[0].astype(np.int64)


def found_by_scan(table: pd.DataFrame) -> bool:
    """Whether the column of copies is that of one `audit.scan`, with whole numbers, missing ones or not.

    Of each group all images but one have a note that says whose copy they are. So numbers of a person's own are known,
    and those of two scans, put together, which count from 0 both.
    """
    if COPIES not in table:
        return False
    numbers = pd.to_numeric(table[COPIES], errors="coerce").dropna()
    whole = len(numbers) == table[COPIES].notna().sum() and bool((numbers % 1 == 0).all())
    if not whole or pd.api.types.is_string_dtype(table[COPIES].dropna().infer_objects().dtype):
        return False
    if "note" not in table:
        return True
    copied = table["note"].astype(str).str.contains("copy of ", regex=False).to_numpy()
    first = numbers.to_numpy()[~copied[table[COPIES].notna()]]
    return len(np.unique(first)) == len(first)

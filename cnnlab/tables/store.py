"""A table on disk that comes back the same, and a hash that proves how it was divided."""

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from cnnlab._common import atomic_path, require_columns


def fingerprint(table: pd.DataFrame) -> str:
    """A hash of what the table holds and how it is divided, to prove later that a split is the same.

    Covers each file's bytes with its label and, where present, split and fold; neither the order of the rows nor where
    the files lie.

    Args:
        table: With the columns path and label.

    Returns:
        64 hexadecimal digits (SHA-256).

    Raises:
        FileNotFoundError: If a file is gone.

    Example:
        >>> import tempfile
        >>> from cnnlab import samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=2))
        ...     tables.fingerprint(table) == tables.fingerprint(table[::-1])
        True
    """
    require_columns(table, "path", "label", caller="tables.fingerprint")
    lines = []
    facts = table[[column for column in ("label", "split", "fold") if column in table]].astype(str)
    for path, row in zip(table["path"], facts.itertuples(index=False), strict=True):
        with Path(path).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()} {tuple(row)!r}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def save(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes a table as CSV, with its categories and types in a small JSON file beside it.

    The CSV is plain and opens anywhere; `tables.read` brings back the same table. Written whole or not at all.

    Args:
        table: Any table of this package.
        path: Where to, ending in .csv; an older file of that name is replaced.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> from cnnlab import tables
        >>> table = pd.DataFrame({"path": ["1.png"], "label": pd.Categorical(["b"], categories=["b", "a"])})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tables.save(table, folder + "/table.csv")
        ...     tables.read(folder + "/table.csv")["label"].cat.categories.tolist()
        ['b', 'a']
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise ValueError(f"`tables.save` writes CSV and expects a path ending in .csv. Received: {str(path)!r}.")
    columns = {}
    for column in table.columns:
        kind = table[column].dtype
        if isinstance(kind, pd.CategoricalDtype):
            columns[column] = {"categories": kind.categories.tolist(), "ordered": bool(kind.ordered)}
        else:
            columns[column] = {"dtype": "str" if pd.api.types.is_string_dtype(kind) else str(kind)}
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    with atomic_path(_sidecar(path)) as temporary:
        temporary.write_text(json.dumps(columns, ensure_ascii=False, indent=1), encoding="utf-8")


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads a table that `tables.save` wrote, categories and types included.

    A CSV without its JSON file is read as it is, with `label` (and `predicted`) made Categorical in alphabetical order.

    Args:
        path: The CSV file.

    Raises:
        FileNotFoundError: If there is none.

    Example:
        See `tables.save`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a CSV file that `tables.save` wrote. There is none at {str(path)!r}.")
    if not _sidecar(path).is_file():
        table = read_csv(path, {"path", "label"})
        return table.astype({column: "category" for column in ("label", "predicted") if column in table})
    columns = json.loads(_sidecar(path).read_text(encoding="utf-8"))
    words = {column for column, kind in columns.items() if kind.get("dtype") == "str"}
    words |= {name for name, kind in columns.items() if all(isinstance(c, str) for c in kind.get("categories", [0]))}
    table = read_csv(path, words)
    for column, kind in columns.items():
        if column not in table:
            continue
        if "categories" in kind:
            known = table[column].where(table[column].isin(kind["categories"]))  # an empty cell is a missing value
            table[column] = pd.Categorical(known, categories=kind["categories"], ordered=kind["ordered"])
        else:
            table[column] = table[column].astype(kind["dtype"])
    return table


def read_csv(path: Path, text: Collection[str]) -> pd.DataFrame:
    """Reads a CSV in which the columns `text` are words whatever they look like: a class may be called "NA" or "01"."""
    table = pd.read_csv(path)
    words = [str(column) for column in table if column in text]
    if words:
        table[words] = pd.read_csv(path, usecols=words, dtype="str", keep_default_na=False)[words]
    return table


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".csv.json")

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


def save(table: pd.DataFrame, path: str | os.PathLike[str], *, prove: bool = False) -> None:
    """Writes a table as CSV, with its categories and types in a small JSON file beside it.

    The CSV is plain and opens anywhere; `tables.read` brings back the same table. Written whole or not at all.

    Args:
        table: Any table of this package.
        path: Where to, ending in .csv; an older file of that name is replaced.
        prove: Keep the table's `fingerprint` beside it, for `tables.read(path, verify=True)`. Reads every image once.

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
    proof = fingerprint(table) if prove else ""
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
        facts = {"columns": columns} | ({"fingerprint": proof} if prove else {})
        temporary.write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")


def read(path: str | os.PathLike[str], *, verify: bool = False) -> pd.DataFrame:
    """Reads a table that `tables.save` wrote, categories and types included.

    A CSV without its JSON file is read as it is, with `label` (and `predicted`) made Categorical in alphabetical order.

    Args:
        path: The CSV file.
        verify: Whether to prove that these are the images, labels and split that were saved, by the fingerprint which
            `tables.save(…, prove=True)` kept.

    Raises:
        FileNotFoundError: If there is none; with `verify`, also if an image is gone.
        ValueError: With `verify`, if an image, a label or the split has changed, or no fingerprint was kept.

    Example:
        See `tables.save`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a CSV file that `tables.save` wrote. There is none at {str(path)!r}.")
    facts = json.loads(_sidecar(path).read_text(encoding="utf-8")) if _sidecar(path).is_file() else {}
    table = _typed(path, facts.get("columns"))
    if verify:
        _require_proof(table, path, facts.get("fingerprint"))
    return table


def _require_proof(table: pd.DataFrame, path: Path, kept: str | None) -> None:
    if kept is None:
        raise ValueError(
            f"Expected a fingerprint beside {str(path)!r}. Save the table with `tables.save(table, path, prove=True)`."
        )
    found = fingerprint(table)
    if found != kept:
        raise ValueError(
            f"Expected the images, labels and split that were saved as {str(path)!r}, fingerprint {kept[:12]}…. "
            f"Received fingerprint {found[:12]}…: an image, a label or the split has changed since."
        )


def _typed(path: Path, columns: dict[str, dict] | None) -> pd.DataFrame:
    """The CSV with the types that `columns` tells; label and predicted Categorical where nothing is told."""
    if columns is None:
        table = read_csv(path, {"path", "label"})
        return table.astype({column: "category" for column in ("label", "predicted") if column in table})
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

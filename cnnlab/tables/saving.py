"""A table on disk that comes back the same, and a hash that proves how it was split."""

import hashlib
import json
import os
import re
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_integer_dtype, is_string_dtype

from cnnlab._common import atomic_paths, did_you_mean, locked, read_json, require_columns
from cnnlab._csv import LARGEST, read_csv, write_csv
from cnnlab.tables.csv_files import typed_columns
from cnnlab.tables.layout import locate

TYPES = re.compile(
    r"str|string|object|bool(ean)?|[uU]?[iI]nt(8|16|32|64)|[fF]loat(16|32|64)|datetime64\[(s|ms|us|ns)(, [\w/+:-]+)?\]"
    r"|timedelta64\[(s|ms|us|ns)\]"
)
# With which text begins that a spreadsheet runs; after apostrophes as well, so that one more can be taken off again.
FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def fingerprint(table: pd.DataFrame) -> str:
    """A hash of what the table holds and how it is split, to prove later that a split is the same.

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
    facts = table[[column for column in ("label", "split", "fold") if column in table]].astype(str)
    rows = zip(table["path"], facts.itertuples(index=False), strict=True)
    lines = [f"{_digest(Path(path))} {tuple(row)!r}" for path, row in rows]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def save(table: pd.DataFrame, path: str | os.PathLike[str], *, prove: bool = False, spreadsheet: bool = False) -> None:
    """Writes a table as CSV, with its categories and types in a small JSON file next to it.

    The CSV is plain and opens anywhere; `tables.read` brings back the same table, with row numbers from 0. Both files
    are written before either takes its name, and until the CSV has, `tables.read` gives the table that was there.

    Args:
        table: Any table of this package.
        path: Where to, ending in .csv; an older file of that name is replaced.
        prove: Keep the table's `fingerprint` with it, for `tables.read(path, verify=True)`. Reads every image once.
        spreadsheet: Write an apostrophe before text that a spreadsheet would run as a formula, because it begins with
            =, +, - or @; `tables.read` takes it off again.

    Raises:
        ValueError: If a column, or an index with names of its own, would not come back the same. Nothing is written.

    Source:
        OWASP, "CSV Injection", for `spreadsheet`.

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
    path = Path(path).expanduser()
    if path.suffix.lower() != ".csv":
        raise ValueError(f"`tables.save` writes CSV and expects a path ending in .csv. Received: {str(path)!r}.")
    table = _with_plain_paths(table)
    facts: dict[str, Any] = {"columns": _described(table)}
    if prove:
        facts["fingerprint"] = fingerprint(table)
    if spreadsheet:
        _require_harmless_names(table)
        for name, kind in facts["columns"].items():
            kind["formulas"] = "categories" in kind or is_string_dtype(table[name])
    with locked(path), atomic_paths(_sidecar(path), path) as (sidecar, csv):
        missing = {name: kind["missing"] for name, kind in facts["columns"].items() if kind.get("missing")}
        filled = {name: table[name].astype(object).where(table[name].notna(), word) for name, word in missing.items()}
        written = table.assign(**filled)
        texts = [name for name, kind in facts["columns"].items() if kind.get("formulas")]
        written = written.assign(**{name: written[name].map(_harmless) for name in texts})
        write_csv(written, csv)
        _require_same(csv, facts["columns"], table)
        # Between the two renames the old CSV lies beside the new facts: keep those of the old one until the next time.
        facts["csv"] = _digest(csv)
        if path.is_file():
            with suppress(ValueError):  # damaged, and of no use to the old CSV either
                facts["earlier"] = _facts(path) | {"csv": _digest(path)}
        sidecar.write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")


def _harmless(cell: object) -> object:
    """A cell that a spreadsheet takes for text."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def _require_harmless_names(table: pd.DataFrame) -> None:
    risky = [name for name in table if FORMULA.match(str(name))]
    if risky:
        raise ValueError(
            f"`tables.save(spreadsheet=True)` expects columns whose names no spreadsheet runs as a formula. Received: "
            f"{risky[0]!r}. Rename it: `table.rename(columns={{{risky[0]!r}: …}})`."
        )


def _with_plain_paths(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `pathlib.Path` as text; refuses what a CSV has no place for."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"`tables.save` expects a table (pandas DataFrame). Received: {type(table).__name__}.")
    strange = [name for name in table.columns if not isinstance(name, str)]
    if strange or not table.columns.is_unique or "" in table.columns:
        raise ValueError(
            f"`tables.save` expects columns with names that are text and occur once. Received: {list(table.columns)}."
        )
    if table.index.name is not None or not is_integer_dtype(table.index.dtype):
        raise ValueError(
            "`tables.save` keeps columns, not the index, and the index of this table is more than row numbers. "
            "Use `table.reset_index()`."
        )
    plain = {}
    for name in table:
        cells = table[name].tolist() if table[name].dtype == object else []
        if any(isinstance(cell, os.PathLike) for cell in cells):
            texts = [str(cell) if isinstance(cell, os.PathLike) else cell for cell in cells]
            plain[str(name)] = pd.Series(texts, table.index, dtype=object)
    return table.assign(**plain).reset_index(drop=True)


def _described(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """For each column its type or categories, and how a missing text is written where "" is a text of its own."""
    columns: dict[str, dict[str, Any]] = {}
    for name in map(str, table):
        kind, words = table[name].dtype, None
        columns[name] = {"dtype": str(kind)}
        if isinstance(kind, pd.CategoricalDtype):
            words = set(map(str, kind.categories))
            columns[name] = {"categories": kind.categories.tolist(), "ordered": bool(kind.ordered)}
        elif table[name].isna().any() and is_string_dtype(table[name]):
            words = set(table[name].dropna())
        if words is not None:
            candidates = ("", *(f"missing {number}" for number in range(len(words) + 1)))
            columns[name]["missing"] = next(word for word in candidates if word not in words)
    return columns


def _require_same(csv: Path, columns: dict[str, dict[str, Any]], table: pd.DataFrame) -> None:
    """Refuses to save what reading does not give back."""
    cells = _cells(csv, columns)
    for name, kind in columns.items():
        try:
            found = _column(cells[name], json.loads(json.dumps(_checked(kind))))
            same = found.dtype == table[name].dtype and found.equals(table[name])
        except (ValueError, TypeError, KeyError, OverflowError):
            same = False
        if not same:
            raise ValueError(
                f"`tables.save` expects columns of text, numbers, times or categories, which a CSV gives back exactly. "
                f"Column {name!r} ({table[name].dtype}) would not come back the same. Nothing was written. Change it, "
                f"for example with `table.astype({{{name!r}: 'str'}})`, or leave it out."
            )


def read(
    path: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None, verify: bool = False
) -> pd.DataFrame:
    """Reads a table that `tables.save` wrote, categories and types included.

    A CSV without its JSON file is read as by `tables.from_csv`, with `label` (and `predicted`) made Categorical in
    alphabetical order.

    Args:
        path: The CSV file.
        folder: Where the images lie now, if they or the table have moved: the folder that takes the place of the
            leading folders of the saved paths.
        verify: Whether to prove that these are the images, labels and split that were saved, by the fingerprint which
            `tables.save(…, prove=True)` kept.

    Raises:
        FileNotFoundError: If there is none, or no image in `folder`; with `verify`, also if an image is gone.
        ValueError: If a cell was edited to what its column does not know, such as a new class. With `verify`, if an
            image, a label or the split has changed, or no fingerprint was kept.

    Example:
        See `tables.save`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"Expected a CSV file that `tables.save` wrote. There is none at {str(path)!r}.")
    facts = _facts(path)
    table = _typed(path, facts["columns"]) if "columns" in facts else _untyped(path)
    if folder is not None:
        require_columns(table, "path", caller="tables.read")
        paths, missing = locate(table["path"].tolist(), Path(folder).expanduser())
        if missing:
            words = f"{len(missing)} of {len(paths)} images are not in {str(folder)!r}, such as {missing[0]!r}."
            if len(missing) == len(paths):
                raise FileNotFoundError(words)
            warnings.warn(words, stacklevel=2)
        table = table.assign(path=pd.Series(paths, index=table.index, dtype=table["path"].dtype))
    if verify:
        _require_fingerprint(table, path, facts.get("fingerprint"))
    return table


def _require_fingerprint(table: pd.DataFrame, path: Path, kept: str | None) -> None:
    if kept is None:
        raise ValueError(
            f"Expected a fingerprint next to {str(path)!r}. Save the table with `tables.save(table, path, prove=True)`."
        )
    found = fingerprint(table)
    if found != kept:
        raise ValueError(
            f"Expected the images, labels and split that were saved as {str(path)!r}, fingerprint {kept[:12]}…. "
            f"Received fingerprint {found[:12]}…: an image, a label or the split has changed since."
        )


def _facts(path: Path) -> dict[str, Any]:
    """What the JSON file next to a CSV says about it; {} where there is none."""
    if path.stat().st_size > LARGEST:  # its digest would take minutes
        raise ValueError(f"Expected a table of at most {LARGEST:,} bytes. {str(path)!r} has {path.stat().st_size:,}.")
    sidecar = _sidecar(path)
    if not sidecar.exists():
        return {}
    try:
        facts = read_json(sidecar, limit=2**27)
        if not isinstance(facts, dict):
            raise ValueError("no object")
        earlier = facts.pop("earlier", None)
        if isinstance(earlier, dict) and earlier.get("csv") == _digest(path) != facts.get("csv"):
            facts = earlier
        return (
            {"columns": {str(name): _checked(kind) for name, kind in facts["columns"].items()}}
            | {key: str(facts[key]) for key in ("fingerprint", "csv") if key in facts}
            if "columns" in facts
            else {}
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Expected the types of the columns of {path.name!r} in {str(sidecar)!r}, as `tables.save` wrote them. It "
            f"is damaged ({error}). Move it elsewhere to read the CSV without it."
        ) from None


def _checked(kind: dict[str, Any]) -> dict[str, Any]:
    """The description of one column, if it is one: the file may come from a stranger."""
    if "categories" in kind:
        names, plain = kind["categories"], isinstance(kind["ordered"], bool)
        plain = plain and isinstance(names, list) and all(isinstance(name, str | int | float) for name in names)
    else:
        plain = TYPES.fullmatch(kind["dtype"]) is not None
    plain = plain and isinstance(kind.get("formulas", False), bool)
    if not plain or not isinstance(kind.get("missing", ""), str):
        raise ValueError(f"{kind!r:.80} describes no column")
    return kind


def _untyped(path: Path) -> pd.DataFrame:
    table = read_csv(path, wanted=["path"])
    words = [name for name in ("path", "label", "predicted") if name in table]
    others = typed_columns(table.drop(columns=words))
    kept = {*words, *others}
    texts = table[words].apply(lambda cells: cells.str.strip())
    table = texts.where(texts != "").join(others)[[name for name in table if name in kept]]
    return table.astype({name: "category" for name in words if name != "path"})


def _cells(path: Path, columns: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """The CSV as text, and as numbers what pandas reads as exact and much faster than `_column`."""
    floats = {name: kind["dtype"] for name, kind in columns.items() if kind.get("dtype") in ("float32", "float64")}
    return read_csv(path, wanted=list(columns), dtypes=floats)


def _typed(path: Path, columns: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """The CSV with the types in `columns`; a column that was added since is read as `tables.from_csv` would."""
    cells = _cells(path, columns)
    added = typed_columns(cells[[name for name in cells if name not in columns]])
    series = {}
    for name in [name for name in map(str, cells) if name in columns or name in added]:
        try:
            series[name] = _column(cells[name], columns[name]) if name in columns else added[name]
        except (ValueError, TypeError, OverflowError) as error:
            kind = columns[name].get("dtype", "category")
            raise ValueError(f"Column {name!r} of {str(path)!r} should hold {kind}: {error}") from None
    return pd.DataFrame(series)


def _column(cells: pd.Series, kind: dict[str, Any]) -> pd.Series:
    """Cells of text as the type that a column had when it was saved."""
    if kind.get("formulas"):
        cells = cells.where(~cells.str.match(f"'{FORMULA.pattern}"), cells.str[1:])
    if "categories" in kind:
        names = {str(name): name for name in kind["categories"]}
        unknown = cells[~cells.isin([*names, kind.get("missing", "")])]
        if len(unknown):
            hint = did_you_mean(unknown.iloc[0], names, count=1)
            raise ValueError(
                f"{len(unknown)} cells are none of its classes, such as {unknown.iloc[0]!r}.{hint} Correct them; for a "
                "new class, move the .json file elsewhere and use `tables.from_csv`."
            )
        values = pd.Categorical(cells.map(names).astype(object), categories=kind["categories"], ordered=kind["ordered"])
        return pd.Series(values, index=cells.index)
    dtype = kind["dtype"]
    if dtype.startswith("float") and cells.dtype.kind == "f":
        return cells.astype(dtype)
    if dtype.startswith(("str", "object")):
        return cells.astype(object).where(cells != kind.get("missing"), None).astype(dtype)
    if dtype in ("bool", "boolean"):
        if not cells.isin(["True", "False", *([""] if dtype == "boolean" else [])]).all():
            raise ValueError("a cell is neither True nor False")
        return cells.map({"True": True, "False": False}).astype(dtype)
    if dtype.startswith("datetime"):
        return pd.to_datetime(cells.where(cells != ""), format="ISO8601", utc="," in dtype).astype(dtype)
    if dtype.startswith("timedelta"):
        return pd.to_timedelta(cells.where(cells != "")).astype(dtype)
    if dtype.startswith(("Int", "UInt")):  # pandas would go through floats, which are exact to 2**53 only
        whole = [None if cell == "" else int(cell) for cell in cells]
        return pd.Series(pd.array(whole, dtype=dtype), index=cells.index)
    return cells.where(cells != "").astype(dtype)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_suffix(".csv.json")

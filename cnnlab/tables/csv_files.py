"""From a CSV to a table with one row per image: labels, numbers and words as the person meant them."""

import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from pandas.api.types import is_numeric_dtype

from cnnlab._common import require_column
from cnnlab._csv import read_csv
from cnnlab.tables.layout import SPLITS, locate, split_of

# "007" and "1e5" are names, 7 and 1.5e-07 are numbers: Python and spreadsheets write exponents with a sign.
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]\d+)?")

# Letters of other alphabets that nobody can tell from Latin ones.
LATIN = str.maketrans("асеорхуіАВСЕНКМОРТХοΑΒΕΗΙΚΜΝΟΡΤΧ", "aceopxyiABCEHKMOPTXoABEHIKMNOPTX")


def from_csv(
    csv: str | os.PathLike[str],
    *,
    path: str = "path",
    label: str | Sequence[str] = "label",
    folder: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    r"""Reads a CSV with one row per image into a table; every other column is kept.

    Text stays text: a site may be called "NA" or "007". Blanks around it are taken away, and a blank cell is a missing
    value. Commas, semicolons and tabs, UTF-8, UTF-16 and Windows-1252 are understood.

    Args:
        csv: The file.
        path: Its column of image paths; becomes `path`. Endings may be missing, slashes may be those of Windows,
            numbers may have become "7.0", and paths of another machine are found again below `folder`.
        label: Its column of class names; becomes the Categorical `label`, classes in alphabetical order. Or several
            columns, one a class, of which each row has a 1 in one and 0 in the others; classes in that order.
        folder: What relative paths start from; the CSV's own folder where None.

    Returns:
        Columns path (str), label (Categorical) and those of the CSV; a column split with names such as "Train" and
        "valid" becomes train, val and test. A column that would have the name of another is renamed `…_in_csv`.

    Raises:
        FileNotFoundError: If the CSV does not exist, or not one of its images does.
        ValueError: If a column or a label is missing, a row has several labels, or there are fewer than two classes.

    Warns:
        UserWarning: Counting images that are not there; naming classes that differ in capitals, blanks or accents only;
            counting rows that name an image once more.

    Example:
        >>> from cnnlab import tables
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in "ab":
        ...         _ = Path(folder, name + ".png").write_bytes(b"")
        ...     _ = Path(folder, "images.csv").write_text("file,kind,site\na.png,cat,1\nb.png,dog,2\n")
        ...     tables.from_csv(Path(folder, "images.csv"), path="file", label="kind")["label"].tolist()
        ['cat', 'dog']
    """
    csv = Path(csv).expanduser()
    columns = [label] if isinstance(label, str) else list(label)
    table = _rows_of(csv, path, *columns)
    words = _single_labels(table[label], csv) if isinstance(label, str) else _one_hot(table[columns], csv)
    paths = _images_of(table[path].tolist(), csv, Path(folder).expanduser() if folder is not None else csv.parent)
    labels = labels_of(
        words, str(csv), hint="Add rows of another class.", order=None if isinstance(label, str) else columns
    )
    two = words.groupby(paths).nunique()
    if (two > 1).any():
        warnings.warn(
            f"{int((two > 1).sum())} images of {str(csv)!r} have several rows with different labels, such as "
            f"{two.idxmax()!r}. Correct them: at most one is right.",
            stacklevel=2,
        )
    elif again := len(paths) - len(two):
        warnings.warn(
            f"{again} of the {len(paths)} rows of {str(csv)!r} are about an image of an earlier row, as where each row "
            "is a box. Every row counts as an image: `table.drop_duplicates('path')` leaves one of each.",
            stacklevel=2,
        )
    others = typed_columns(table.drop(columns=list({path, *columns})))
    others = others.rename(columns={name: f"{name}_in_csv" for name in ("path", "label") if name in others})
    _warn_of_unused_splits(others, csv)
    return pd.concat([pd.DataFrame({"path": pd.Series(paths, dtype="str"), "label": labels}), others], axis=1)


def _rows_of(csv: Path, *columns: str) -> pd.DataFrame:
    """The rows that are not blank, every cell as text; blanks in a header such as "path, label" are taken away."""
    if not csv.is_file():
        raise FileNotFoundError(f"Expected a CSV file with one row per image. There is none at {str(csv)!r}.")
    table = read_csv(csv, wanted=columns)
    plain = [name if name in columns else name.strip() for name in map(str, table)]
    table.columns = plain if len(set(plain)) == len(plain) else table.columns
    for column in columns:
        require_column(table, column, caller="tables.from_csv")
    table = table[(table.apply(lambda cells: cells.str.strip()) != "").any(axis=1)].reset_index(drop=True)
    if not len(table):
        raise ValueError(f"Expected a row for each image in {str(csv)!r}; it has no rows.")
    return table


def _images_of(names: list[str], csv: Path, start: Path) -> list[str]:
    """The path of each image; says which are not there."""
    paths, missing = locate(names, start)
    if len(missing) == len(paths):
        raise FileNotFoundError(
            f"None of the {len(paths)} images named in {str(csv)!r} exists, such as {paths[0]!r}. Pass "
            "`folder=`: where the paths in the CSV start from."
        )
    if missing:
        words = f"{len(missing)} of the {len(paths)} images named in {str(csv)!r} are not there"
        warnings.warn(f"{words}, such as {missing[0]!r}.", stacklevel=3)
    return paths


def labels_of(words: pd.Series, source: str, *, hint: str, order: Sequence[str] | None = None) -> pd.Series:
    """Class names as a Categorical of two classes or more; warns of names that only look the same."""
    counts = words.value_counts()
    if len(counts) < 2:
        raise ValueError(
            f"Expected at least two classes, since there is nothing to tell apart in one. {source!r} has only "
            f"{counts.index[0]!r} with {counts.iloc[0]} images. {hint}"
        )
    alike: dict[str, list[str]] = {}
    for name in sorted(counts.index):
        alike.setdefault(_look_of(name), []).append(name)
    pairs = []
    for names in alike.values():
        looks_equal = len({_visible(name, "NFC") for name in names}) < len(names)
        if len(names) > 1:
            pairs.append(" and ".join(map(ascii if looks_equal else repr, names)))
    if pairs:
        warnings.warn(
            f"Classes of {source!r} that look alike: {', '.join(pairs)}. If they are one class, give it one name.",
            stacklevel=3,
        )
    return pd.Series(pd.Categorical(words, categories=pd.Index(order or sorted(counts.index))), index=words.index)


def _look_of(name: str) -> str:
    """The same for names that are easily taken for each other; "1", "01" and "1.0" are one number."""
    plain = _visible(name, "NFKC").casefold().strip()
    number = re.fullmatch(r"-?\d+(\.\d+)?", plain, re.ASCII)
    return f"{float(plain):.15g}" if number else re.sub(r"[\s_-]+", " ", plain).strip()


def _visible(name: str, form: Literal["NFC", "NFKC"]) -> str:
    """Without characters that are not shown, and with Cyrillic and Greek letters as the Latin ones they look like."""
    letters = unicodedata.normalize(form, name)
    return "".join(letter for letter in letters if unicodedata.category(letter) != "Cf").translate(LATIN)


def _one_hot(table: pd.DataFrame, csv: Path) -> pd.Series:
    """The name of the column that holds the row's only 1."""
    names = ", ".join(map(str, table))
    marks = table.apply(
        lambda cells: pd.to_numeric(
            cells.str.strip().str.lower().replace({"": "0", "true": "1", "false": "0"}), errors="coerce"
        )
    )
    strange = ~marks.isin([0, 1])
    if strange.any(axis=None):
        column = strange.any().idxmax()
        raise ValueError(
            f"Expected 0 or 1 in the columns {names} of {str(csv)!r}, which `label=` names. Column "
            f"{column!r} holds {table.loc[strange[column], column].iloc[0]!r}. Is it one of the classes?"
        )
    count = marks.sum(axis=1)
    if (count != 1).any():
        none, several = int((count == 0).sum()), int((count > 1).sum())
        raise ValueError(
            f"Expected one label in each row of {str(csv)!r}, a single 1 in the columns {names}. {several} rows "
            f"have several and {none} have none. cnnlab learns one label for each image: leave these rows out, or "
            'train one network for each column, with label="…".'
        )
    return marks.idxmax(axis=1)


def _single_labels(cells: pd.Series, csv: Path) -> pd.Series:
    """The labels of a column; refuses blanks, and cells of several, which would make each combination a class."""
    words = cells.str.strip()
    empty = int((words == "").sum())
    if empty:
        raise ValueError(
            f"Expected a label in every row of {str(csv)!r}; {empty} of {len(words)} rows have no {cells.name!r}. Fill "
            "them in, or drop these rows."
        )
    names = set(words)
    parts = {name: tuple(part for part in re.split(r"[\s,;|/+&\[\]'\"]+", name) if part) for name in names}
    orders: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for one in parts.values():
        orders.setdefault(tuple(sorted(one)), set()).add(one)
    lists = {name for name in names if re.search(r"[;|]|^\[.*,.*\]$", name)}
    often = Counter(part for name in lists for part in parts[name])
    joined = Counter(part.strip() for name in names if "," in name for part in name.split(","))
    alone = names | {one[0] for one in parts.values() if len(one) == 1}  # as in "['cat']"
    several = set()
    for name, one in parts.items():
        known = [part in alone for part in one]
        listed = (re.search("[,;|]", name) and any(known)) or (name in lists and any(often[part] > 1 for part in one))
        combined = "," in name and all(joined[part.strip()] > 1 for part in name.split(","))  # "red, round"
        if len(one) > 1 and (all(known) or listed or combined or len(orders[tuple(sorted(one))]) > 1):
            several.add(name)
    if several:
        rows = int(words.isin(several).sum())
        raise ValueError(
            f"Expected one label in each row of {str(csv)!r}. {rows} of {len(words)} rows hold several, such as "
            f"{min(several)!r}. cnnlab learns one label for each image: leave these rows out, choose one label for "
            "each, or, if a combination is a class of its own, write it as one word."
        )
    return words


def typed_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of text as what they plainly are: numbers, splits, or text in which a blank is a missing value."""
    columns = {}
    for name in table:
        cells = table[name].str.strip()
        blank = cells == ""
        if blank.all() and str(name).startswith("Unnamed:"):
            continue  # a separator at the end of every line
        columns[name] = _splits(cells) if name == "split" else _numbers(cells).where(~blank)
    return pd.DataFrame(columns, index=table.index)


def _numbers(cells: pd.Series) -> pd.Series:
    """The numbers in `cells` where all are plain ones and no two spellings become the same, else `cells`."""
    filled = cells[cells != ""]
    if not len(filled) or not filled.map(lambda cell: NUMBER.fullmatch(cell) is not None).all():
        return cells
    whole = filled.str.fullmatch(r"-?\d+").all()
    # A whole number of more digits is an id; beside missing values pandas keeps 15 digits only.
    if whole and filled.str.len().max() > (18 if len(filled) == len(cells) else 15):
        return cells
    numbers = filled.astype("int64" if whole else "float64")
    return numbers.reindex(cells.index) if numbers.nunique() == filled.nunique() else cells


def _splits(cells: pd.Series) -> pd.Series:
    """A column of splits as train, val and test, as far as every name means one."""
    meant = cells.map({name: split_of(name) for name in cells.unique()})
    unknown = cells[(meant == "") & (cells != "")]
    if len(unknown) == int((cells != "").sum()):
        return _numbers(cells).where(cells != "")  # a column of the person's own
    if len(unknown):
        raise ValueError(
            f"Expected names of {', '.join(SPLITS)} in the column `split`. {len(unknown)} of {len(cells)} rows have "
            f"{some(unknown.unique())}. Rename these, or the column."
        )
    return meant.where(meant != "")


def _warn_of_unused_splits(table: pd.DataFrame, csv: Path) -> None:
    """Says so where a column such as "Set" or "usage" splits the images, which only one called split does here."""
    if "split" in table:
        return
    names = {name: cells.dropna().unique() for name, cells in table.items() if not is_numeric_dtype(cells.dtype)}
    meant = {name: set(map(split_of, map(str, few))) for name, few in names.items() if len(few) <= 20}
    found = [name for name, splits in meant.items() if len(splits) > 1 and splits <= set(SPLITS)]
    if found:
        warnings.warn(
            f"Column {found[0]!r} of {str(csv)!r} names train, val or test for each image, and is not used. To keep "
            f"what is ready-made: `table.rename(columns={{{found[0]!r}: 'split'}})`.",
            stacklevel=3,
        )


def some(names: Iterable[str], count: int = 3) -> str:
    """The first few of `names`, in quotes."""
    names = list(names)
    return ", ".join(repr(name) for name in names[:count]) + (" …" if count < len(names) else "")

"""CSV files as spreadsheet programs and people write them, with text that stays text."""

import csv
import io
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from cnnlab._common import read_bytes

SEPARATORS = ",;\t"
NOT_TEXT = {  # first bytes, and what to do
    b"PK\x03\x04": "a workbook or a ZIP archive: save its sheet as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save its sheet as CSV",
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"PAR1": "a Parquet file: write it as CSV, for example with `pandas.read_parquet(…).to_csv(…, index=False)`",
}
LARGEST = 2**30  # bytes


def read_csv(
    path: str | os.PathLike[str], *, wanted: Collection[str] = (), dtypes: Mapping[str, str] | None = None
) -> pd.DataFrame:
    r"""Reads a CSV in which every cell is text, whatever it looks like, and "" where it is blank.

    Understands UTF-8 with and without a mark, UTF-16 and Windows-1252, and commas, semicolons and tabs; where several
    of them are possible, the columns `wanted` decide. In columns that have one of `dtypes`, a blank is a missing value.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.csv").write_bytes("id;Käfer\r\n007;NA\r\n".encode("cp1252"))
        ...     with warnings.catch_warnings(action="ignore"):
        ...         read_csv(folder + "/a.csv").to_dict("records")
        [{'id': '007', 'Käfer': 'NA'}]
    """
    text = _decoded(read_bytes(path, limit=LARGEST), path)
    first, _, rest = text.partition("\n")
    separator = None
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:  # what Excel writes to be sure
        text, separator = rest, first.strip()[4]
    headers = {one: _header(text, one) for one in separator or SEPARATORS}
    separator, header = max(headers.items(), key=lambda item: (set(wanted) <= set(item[1]), len(item[1])))
    if not header:
        return pd.DataFrame()
    double = sorted({name for name in header if name and header.count(name) > 1})
    if double:
        raise ValueError(f"Expected one column of each name. {str(path)!r} has several called {double[0]!r}.")
    kinds: dict[str, str] = defaultdict(lambda: "str")
    kinds.update(dtypes or {})
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            return pd.read_csv(
                io.StringIO(text),
                sep=separator,
                dtype=kinds,
                keep_default_na=False,
                na_values={name: [""] for name in dtypes or {}},
                index_col=False,
            )
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ValueError(
            f"Expected rows that fit the header {', '.join(header)} of {str(path)!r}: {error}. Is a text with "
            f"{separator!r} in it not in quotes, or a number no number?"
        ) from error


def _decoded(data: bytes, path: str | os.PathLike[str]) -> str:
    what = next((what for start, what in NOT_TEXT.items() if data.startswith(start)), None)
    if what:
        raise ValueError(f"Expected a CSV file, which is text. {str(path)!r} is {what}.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in data[:2]:
        encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
    try:
        text = data.decode("cp1252" if encoding == "utf-8-sig" else "ascii")
    except UnicodeDecodeError:
        raise ValueError(
            f"Expected text in the encoding UTF-8, UTF-16 or Windows-1252. {str(path)!r} is none of these ({reason}). "
            "Save it again as UTF-8."
        ) from None
    word = next((word for word in re.split(r"[\s,;]+", text) if not word.isascii()), "")
    warnings.warn(
        f"{str(path)!r} is not in UTF-8 and was read as Windows-1252, as spreadsheet programs save it. Does {word!r} "
        "look right? If not, save the file again as UTF-8.",
        stacklevel=5,
    )
    return text


def _header(text: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text[:100_000], newline=""), delimiter=separator), [])
    except csv.Error:
        return []


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Writes text and numbers so that `read_csv` gives them back exactly; the index is left out."""
    try:
        texts = [table[column].astype("str") for column in table if not is_numeric_dtype(table[column].dtype)]
        # Python's csv leaves a lone carriage return without quotes, and every reader then sees a new row.
        tricky = any(
            text.str.contains("\r", regex=False).any() for text in [*texts, pd.Series(list(table), dtype="str")]
        )
        quoting = csv.QUOTE_NONNUMERIC if tricky else csv.QUOTE_MINIMAL
        table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8", quoting=quoting)  # type: ignore[call-overload]
    except UnicodeEncodeError as error:
        around = error.object[max(0, error.start - 30) : error.end + 30]
        raise ValueError(
            f"Expected text that can be written as UTF-8. Received {around!r}, probably a file name in an older "
            "encoding. Rename the file, or leave its row out."
        ) from None

"""From a folder of class folders, or a CSV, to a table with one row per image."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cnnlab._common import require_column
from cnnlab.tables.store import read_csv

IMAGE_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff")
SPLIT_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
METADATA = "metadata.csv"
CLUTTER = {"thumbs.db", "desktop.ini", METADATA, "about.txt", "readme.md", "readme.txt", "license", "license.txt"}


def from_folder(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads a folder with one subfolder a class into a table with one row per image.

    Where the folder holds `train` / `val` / `test` subfolders instead (in any case, also "training", "valid",
    "validation", "testing"), these become the column `split` and the classes are looked for inside. A `metadata.csv`
    with a column `file_name` (paths relative to the folder) adds its other columns, such as camera or patient.
    Images may lie deeper inside a class folder; hidden files are passed over; other files are counted in a warning.

    Args:
        folder: The folder; symbolic links inside are followed once.

    Returns:
        Columns path (str), label (Categorical, classes in alphabetical order) and, for ready-made splits, split; sorted
        by path. Files are not opened: `audit.scan` does that.

    Raises:
        FileNotFoundError: If the folder does not exist.
        NotADirectoryError: If it is a file.
        ValueError: If it holds no image, images outside class folders, or fewer than two classes.

    Source:
        The layout of `keras.utils.image_dataset_from_directory`, and the `metadata.csv` of the Hugging Face image
        folder.

    Example:
        >>> import tempfile
        >>> from cnnlab import samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=2))
        >>> len(table), table["label"].cat.categories.tolist()[:3]
        (12, ['crack', 'good', 'inclusion'])
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"Expected a folder with one subfolder per class. There is nothing at {str(folder)!r}.")
    if not folder.is_dir():
        raise NotADirectoryError(f"Expected a folder with one subfolder per class. {str(folder)!r} is a file.")
    parts = {entry: SPLIT_OF[entry.name.lower()] for entry in _subfolders(folder) if entry.name.lower() in SPLIT_OF}
    if parts and len(parts) == len(_subfolders(folder)):
        tables = [_class_folders(entry).assign(split=split) for entry, split in parts.items()]
        table = pd.concat([part for part in tables if len(part)] or tables, ignore_index=True)
    else:
        table = _class_folders(folder)
    if not len(table):
        raise ValueError(
            f"Expected images in subfolders of {str(folder)!r}, one subfolder per class. There is none with an ending "
            f"of {', '.join(IMAGE_ENDINGS)}."
        )
    table = table.sort_values("path", ignore_index=True)
    table["label"] = pd.Categorical(table["label"], categories=sorted(table["label"].unique()))
    _require_two_classes(table, str(folder))
    return _with_metadata(table, folder)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _class_folders(folder: Path) -> pd.DataFrame:
    """One row per image below the class folders of `folder`; says how many files it passed over."""
    rows, other = [], []
    loose = [entry for entry in folder.iterdir() if _is_image(entry)]
    for entry in _subfolders(folder):
        for path in _files(entry):
            if _is_image(path):
                rows.append({"path": str(path), "label": entry.name})
            elif not path.name.startswith(".") and path.name.lower() not in CLUTTER:
                other.append(path)
    if loose and not rows:
        raise ValueError(
            f"Expected one subfolder per class in {str(folder)!r}. Its {len(loose)} images (such as {loose[0].name!r}) "
            "lie in the folder itself. Sort them into subfolders named after their classes, or use `tables.from_csv`."
        )
    passed_over = other + loose
    if passed_over:
        warnings.warn(
            f"{len(passed_over)} of the files in {str(folder)!r} are no images in a class folder and were passed over, "
            f"such as {passed_over[0].name!r}.",
            stacklevel=3,
        )
    return pd.DataFrame(rows, columns=["path", "label"], dtype=str)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".") and not path.is_dir()


def _files(folder: Path) -> Iterator[Path]:
    """All files below `folder`, each real folder once, so that a loop of links ends."""
    # The folders above count as seen: a link back up would bring the other classes under this one's name.
    above = (parent.stat() for parent in folder.resolve().parents)
    seen = {(status.st_dev, status.st_ino) for status in above}
    for root, folders, files in os.walk(folder, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root) / name for name in sorted(files))


def _require_two_classes(table: pd.DataFrame, source: str) -> None:
    counts = table["label"].value_counts()
    if len(counts) < 2:
        raise ValueError(
            f"Expected at least two classes, since there is nothing to tell apart in one. {source!r} has only "
            f"{counts.index[0]!r} with {counts.iloc[0]} images. Add a subfolder for another class."
        )


def _with_metadata(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    path = folder / METADATA
    if not path.is_file():
        return table
    metadata = pd.read_csv(path)
    if "file_name" not in metadata:
        return table  # a file of the person's own that happens to have this name
    taken = [column for column in metadata if column in table.columns or column == "file_name"]
    keys = [str(folder / str(name)) for name in metadata["file_name"]]
    extra = metadata.drop(columns=taken).set_axis(keys)
    extra = extra[~extra.index.duplicated()]
    return table.join(extra, on="path")


def from_csv(
    csv: str | os.PathLike[str],
    *,
    path: str = "path",
    label: str = "label",
    folder: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    r"""Reads a CSV with one row per image into a table; every other column is kept.

    Args:
        csv: The file.
        path: Its column of image paths; becomes `path`.
        label: Its column of class names; becomes the Categorical `label`, classes in alphabetical order.
        folder: What relative paths start from; the CSV's own folder where None.

    Raises:
        FileNotFoundError: If the CSV does not exist, or not one of its images does.
        ValueError: If a column or a label is missing, or there are fewer than two classes.

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
    csv = Path(csv)
    if not csv.is_file():
        raise FileNotFoundError(f"Expected a CSV file with one row per image. There is none at {str(csv)!r}.")
    table = read_csv(csv, {path, label})
    for column in (path, label):
        require_column(table, column, caller="tables.from_csv")
    empty = int((table[label] == "").sum())
    if not len(table) or empty:
        what = f"{empty} of {len(table)} rows have no {label!r}" if len(table) else "it has no rows"
        raise ValueError(f"Expected a label in every row of {str(csv)!r}; {what}. Fill them in, or drop these rows.")
    start = Path(folder) if folder is not None else csv.parent
    paths = [str(start / name) for name in table[path]]
    if not any(Path(name).exists() for name in paths):
        raise FileNotFoundError(
            f"None of the {len(paths)} images named in {str(csv)!r} exists, such as {paths[0]!r}. Pass "
            "`folder=`: where the paths in the CSV start from."
        )
    table = table.rename(columns={path: "path", label: "label"}).assign(path=paths)
    table["label"] = pd.Categorical(table["label"], categories=sorted(table["label"].unique()))
    _require_two_classes(table, str(csv))
    return table

"""From a folder of class folders to a table with one row per image."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cnnlab import images
from cnnlab._csv import read_csv
from cnnlab.tables.csv_files import from_csv, labels_of, some, typed_columns
from cnnlab.tables.layout import IMAGE_ENDINGS, SPLITS, folders_of_classes, is_image, locate, split_of, subfolders, walk

METADATA = "metadata.csv"
CLUTTER = {"thumbs.db", "desktop.ini", METADATA, "about.txt", "readme.md", "readme.txt", "license", "license.txt"}
# Images all the same, so that a class of nothing else would vanish.
OTHER_IMAGES = (*images.ENDINGS, ".cr2", ".cr3", ".nef", ".arw", ".dng", ".psd", ".svg", ".jxl", ".tga", ".exr")


def from_folder(folder: str | os.PathLike[str], *, labelled: bool = True) -> pd.DataFrame:
    """Reads a folder with one subfolder a class into a table with one row per image.

    Where the folder holds subfolders such as `train`, `val` and `test` ("training_set", "images_valid", … in any case),
    and class folders are in them, these become the column `split`. Where images lie deeper inside a class folder, as in
    class/patient/image.png, the column `subfolder` names the patient. A `metadata.csv` with a column `file_name` (paths
    relative to its folder) adds its other columns, such as camera or patient; where images lie next to it without class
    folders, in the folder or in its ready-made splits, its column `label` names their classes. Hidden files and what
    servers and archives leave behind are passed over; other files are counted in a warning.

    Args:
        folder: The folder; symbolic links inside are followed once.
        labelled: False for images of which nobody knows the class yet, for `experiments.predict` or `widgets.relabel`:
            all images in the folder and below, without the column label.

    Returns:
        Columns path (str), label (Categorical, classes in alphabetical order) and, for ready-made splits, split; sorted
        by path. Files are not opened: `audit.scan` does that.

    Raises:
        FileNotFoundError: If the folder does not exist.
        NotADirectoryError: If it is a file.
        ValueError: If it holds no image, images outside class folders, a class without a readable image, or fewer than
            two classes; or if it is not clear which folders are splits.

    Source:
        The layout of `keras.utils.image_dataset_from_directory`, and the `metadata.csv` and names of splits of the
        Hugging Face image folder.

    Example:
        >>> import tempfile
        >>> from cnnlab import samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=2))
        >>> len(table), table["label"].cat.categories.tolist()[:3]
        (12, ['crack', 'good', 'inclusion'])
    """
    folder = Path(folder).expanduser()
    if not folder.exists():
        raise FileNotFoundError(f"Expected a folder with one subfolder per class. There is nothing at {str(folder)!r}.")
    if not folder.is_dir():
        raise NotADirectoryError(f"Expected a folder with one subfolder per class. {str(folder)!r} is a file.")
    _warn_of_unread(folder)
    if listed := _labelled_by_metadata(folder) if labelled else []:
        return _from_metadata(folder, listed)
    found = _Found()
    bases = folders_of_classes(folder) if labelled else {"": folder}
    for split, base in bases.items():
        found.collect(base, split or None, labelled=labelled)
    found.warn(folder)
    if not found.rows:
        where = f"in subfolders of {str(folder)!r}, one subfolder per class" if labelled else f"in {str(folder)!r}"
        raise ValueError(f"Expected images {where}. There is none with an ending of {', '.join(IMAGE_ENDINGS)}.")
    table = pd.DataFrame(found.rows, columns=["path", "label", "split", "subfolder", "below"], dtype="str")
    table = table.sort_values("path", ignore_index=True)
    inner, below = table["subfolder"].map(split_of, na_action="ignore"), table.pop("below")
    if set(bases) == {""} and inner.isin(SPLITS).all() and inner.nunique() > 1:  # class/train/image.png
        table = table.assign(split=inner, subfolder=below)
    elif labelled:
        _warn_of_other_splits(table, inner.where(inner.isin(SPLITS[1:]), below.map(split_of, na_action="ignore")))
    unused = [column for column in ("split", "subfolder") if not table[column].notna().any()]
    table = table.drop(columns=unused + ([] if labelled else ["label"]))
    if labelled:
        table["label"] = labels_of(table["label"], str(folder), hint=_hint(folder))
        if set(bases) == {""}:
            _warn_of_parts(table, folder)
    splits = [] if labelled else [entry for entry in subfolders(folder) if split_of(entry.name)]
    above = [base.parent for base in bases.values() if base != folder]
    places = dict.fromkeys([folder, *splits, *above, *bases.values()])
    return _with_metadata(table, [place for place in places if (place / METADATA).is_file()])


def _warn_of_unread(folder: Path) -> None:
    """Says how the other spellings of the Hugging Face image folder's metadata become the file that is read."""
    for name, reader in (("metadata.jsonl", "read_json({!r}, lines=True)"), ("metadata.parquet", "read_parquet({!r})")):
        for unread in sorted((*folder.glob(name), *folder.glob(f"*/{name}"))):
            if not (read := unread.with_name(METADATA)).exists():
                warnings.warn(
                    f"{str(unread)!r} is not read. `pandas.{reader.format(str(unread))}.to_csv({str(read)!r}, "
                    "index=False)` makes the file that is.",
                    stacklevel=3,
                )


def _labelled_by_metadata(folder: Path) -> list[Path]:
    """The folder, or its splits, where images lie without class folders next to a `metadata.csv` with their labels."""

    def is_labelled(place: Path) -> bool:
        if not (place / METADATA).is_file() or not any(is_image(entry.name) for entry in place.iterdir()):
            return False
        loose = not any(is_image(path.name) for inner in subfolders(place) for path in walk(inner))
        return loose and {"file_name", "label"} <= set(read_csv(place / METADATA, wanted=["file_name"]))

    splits = [entry for entry in subfolders(folder) if split_of(entry.name)]
    return [place for place in (folder, *splits) if is_labelled(place)]


def _from_metadata(folder: Path, places: Sequence[Path]) -> pd.DataFrame:
    """A table of what each `metadata.csv` names; says which images it does not."""
    parts = [from_csv(place / METADATA, path="file_name", label="label") for place in places]
    if places[0] != folder:
        parts = [part.assign(split=split_of(place.name)) for place, part in zip(places, parts, strict=True)]
    table = pd.concat([part.assign(label=part["label"].astype("str")) for part in parts]).sort_values("path")
    table = table.assign(label=labels_of(table["label"], str(folder), hint="Add images of another class."))
    known = set(table["path"])
    lost = [path for path in walk(folder) if is_image(path.name) and str(path) not in known]
    if lost:
        warnings.warn(
            f"{len(lost)} images in {str(folder)!r} have no label in a {METADATA} next to them and were passed over, "
            f"such as {lost[0].name!r}.",
            stacklevel=3,
        )
    return table.reset_index(drop=True)


def _hint(folder: Path) -> str:
    """What to do where there is only one class: perhaps an archive was unpacked into folders of its own."""
    inner = folder
    while len(inside := subfolders(inner)) == 1:
        (inner,) = inside
    deeper = f" Or pass {str(inner)!r}, if its folders are the classes." if inner != folder and len(inside) > 1 else ""
    return f"Add a subfolder for another class.{deeper}"


def _warn_of_parts(table: pd.DataFrame, folder: Path) -> None:
    """Says so where the folders may be parts, such as folds or sites, each with the same classes inside."""
    if "subfolder" not in table or table["subfolder"].isna().any():
        return
    inside = table.groupby("label", observed=True)["subfolder"].agg(frozenset)
    if inside.nunique() == 1 and len(inside.iloc[0]) > 1:
        warnings.warn(
            f"All class folders in {str(folder)!r} ({some(inside.index)}) hold the same folders, "
            f"{some(sorted(inside.iloc[0]))}. If those are the classes, read each part on its own: "
            "`pd.concat([tables.from_folder(part) for part in parts], ignore_index=True)`.",
            stacklevel=3,
        )


def _warn_of_other_splits(table: pd.DataFrame, meant: pd.Series) -> None:
    """Says so where some images lie in a folder such as "test" inside a class folder, which makes no split."""
    rows = table["path"][meant.isin(SPLITS[1:])]
    if len(rows):
        warnings.warn(
            f"{len(rows)} of {len(table)} images lie in folders named val or test inside a class folder, such as "
            f"{rows.iloc[0]!r}. As not all images do, these were not taken for ready-made splits. If they are, move "
            "the folders up: test/class/image.png.",
            stacklevel=3,
        )


class _Found:
    """The images of a folder, and what was passed over, so that nothing vanishes without a word."""

    def __init__(self) -> None:
        self.rows: list[tuple[str | None, ...]] = []  # path, label, split, subfolder, the folder below that
        self.other: list[Path] = []
        self.unreadable: list[str] = []
        self.without_image: list[str] = []

    def collect(self, base: Path, split: str | None, *, labelled: bool) -> None:
        """Adds the images below the class folders of `base`, or all below `base` where there are no labels."""
        loose = [entry for entry in base.iterdir() if labelled and is_image(entry.name) and not entry.is_dir()]
        before = len(self.rows)
        for entry in subfolders(base) if labelled else [base]:
            self._collect_class(entry, split)
        if loose and len(self.rows) == before:
            raise ValueError(
                f"Expected one subfolder per class in {str(base)!r}. Its {len(loose)} images (such as "
                f"{loose[0].name!r}) lie in the folder itself. Sort them into subfolders named after their classes, or "
                "use `tables.from_csv`. If nobody knows the classes yet: `tables.from_folder(…, labelled=False)` for "
                "`experiments.predict`, or `serving.Predictor`."
            )
        self.other += loose

    def _collect_class(self, folder: Path, split: str | None) -> None:
        other, closed, before = [], len(self.unreadable), len(self.rows)
        for path in walk(folder, lambda error: self.unreadable.append(str(error.filename))):
            deeper = (*path.relative_to(folder).parts[:-1], None, None)
            if is_image(path.name) and _is_utf8(path):
                self.rows.append((str(path), folder.name, split, *deeper[:2]))
            elif not path.name.startswith(".") and path.name.lower() not in CLUTTER:
                other.append(path)
        self.other += other
        if len(self.rows) > before or not (other or len(self.unreadable) > closed):
            return
        lost = [path for path in other if path.suffix.lower() in OTHER_IMAGES]
        if lost or len(self.unreadable) > closed:
            what, hint = "a closed folder", "Change its permissions"
            if lost:
                what = f"{len(lost)} files such as {lost[0].name!r} that cannot be read here"
                hint = images.needs_extra(lost[0].suffix) or "Convert them to PNG or JPEG"
                hint = hint if _is_utf8(lost[0]) else "Rename what is not UTF-8"
            raise ValueError(
                f"Expected images that can be read in every class. Class {folder.name!r} has only {what}. {hint}, or "
                "move the folder elsewhere."
            )
        self.without_image.append(folder.name)

    def warn(self, folder: Path) -> None:
        """Says what was passed over."""
        if self.unreadable:
            warnings.warn(f"Folders that may not be read were passed over: {some(self.unreadable)}.", stacklevel=3)
        if self.other:
            nothing = f" No class comes of {some(self.without_image)}." if self.without_image else ""
            warnings.warn(
                f"{len(self.other)} of the files in {str(folder)!r} are not images in a class folder, or have a name "
                f"that is not UTF-8, and were passed over, such as {self.other[0].name!r}.{nothing}",
                stacklevel=3,
            )


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
        return True
    except UnicodeEncodeError:
        return False


def _with_metadata(table: pd.DataFrame, places: Sequence[Path]) -> pd.DataFrame:
    """Adds the columns of each `metadata.csv` to the rows that it names, and says what does not fit."""
    found = []
    for place in places:
        cells = read_csv(place / METADATA, wanted=["file_name"])
        if "file_name" in cells:  # else a file of the person's own that happens to have this name
            found.append(cells.set_axis(locate(cells["file_name"].tolist(), place)[0]).drop(columns="file_name"))
    if not found:
        return table
    cells = pd.concat(found).fillna("")
    double, known = cells.index.duplicated(), cells.index.isin(table["path"])
    nameless = ~table["path"].isin(cells.index)
    for which, what in (
        (cells.index[~known], "rows name no image of the table"),
        (table["path"][nameless], f"of {len(table)} images have no row"),
        (cells.index[double], "rows name an image once more and were passed over"),
    ):
        if len(which):
            words = f"{METADATA} in {some(map(str, places), 1)}: {len(which)} {what}, such as {some(which, 1)}."
            warnings.warn(words, stacklevel=3)
    columns = typed_columns(cells[~double]).reindex(table["path"]).set_axis(table.index)
    for name in columns.columns.intersection(table.columns):
        other = columns[name].notna() & table[name].notna() & (columns[name].astype(str) != table[name].astype(str))
        if other.any():
            warnings.warn(
                f"{METADATA} gives {int(other.sum())} images another {name} than their folder, such as "
                f"{table['path'][other].iloc[0]!r}. The folder counts.",
                stacklevel=3,
            )
    return table.join(columns[columns.columns.difference([*table.columns, "label"], sort=False)])

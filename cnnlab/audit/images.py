"""Looks at every image of a table: what is wrong with the file, what is odd, and which images are the same picture."""

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnnlab._common import require_columns
from cnnlab._groups import found_by_scan
from cnnlab.audit import copies
from cnnlab.audit.files import Facts, read_all
from cnnlab.images.levels import as_text, common_levels

TINY = 8  # pixels along the shorter side
TINIEST = 4  # too few even for a set of tiny images
SMALL, SMALL_SHARE = 64, 0.25  # worth a look: shorter than this, and than this share of the table's median
DRAWN_OUT = 2.0  # times as drawn out as the table's median
DARK, BRIGHT = 50, 205  # grey levels that even the brightest (darkest) part does not reach
EMPTY = 12  # grey levels between the darkest and the brightest part of a picture that shows next to nothing
BLURRED, BLURRED_SHARE = 0.65, 0.75  # sharpness, and share of the table's median
CONFLICT = "same picture as "
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's "L"


def scan(table: pd.DataFrame) -> pd.DataFrame:
    """Reads every image once and says what is wrong with it, what is odd about it, and which are the same picture.

    Problems are: files that are missing, empty, cut off, damaged, not images, or too large to decode; images that are
    blank or tiny; the same picture under two labels. Notes are: a wrong file ending, animation, alpha, palette, CMYK,
    16 bits, a rotation in EXIF; very dark, very bright, almost empty, blurred, small or drawn-out images; and copies:
    the same bytes, or the same picture resized, recompressed, mirrored, brightened or cropped by some percent.

    Args:
        table: With the column path, and label where there are labels.

    Returns:
        A copy with three or four more columns, which replace those of an earlier scan (a group or note of your own is
        kept as group_before and note_before):
        problem (str): why not to train on the image, or "". Train on `table[table["problem"] == ""]`.
        note (str): what is worth knowing, or "".
        group (int): equal for images that show the same picture; `tables.split(group="group")` keeps them on one side.
        levels (str), only where there are deep images (16-bit, 32-bit, float): the values that become black and white,
        the same for the whole set, such as "0-4095"; `pipelines.load` uses it.

    Raises:
        KeyError: If there is no column path.

    Source:
        Blur after F. Crété-Roffet et al., "The blur effect: perception and estimation with a new no-reference
        perceptual blur metric" (2007): how much of the finest structure is left against what a blur takes.

    Example:
        >>> import tempfile
        >>> from cnnlab import audit, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     parts = samples.inspection(folder + "/parts", per_class=4, plant={"broken": 0.05, "copies": 0.05})
        ...     table = audit.scan(tables.from_folder(parts))
        >>> table["problem"][table["problem"] != ""].tolist()
        ['not an image']
        >>> int(table["group"].duplicated().sum())
        1
    """
    require_columns(table, "path", caller="audit.scan")
    table = _with_own_columns_kept(table)
    paths = [str(path) for path in table["path"]]
    facts = read_all(paths)
    exact, group = _same_pictures(facts)
    problems, notes = _problems(facts), _notes(facts)
    if "label" in table:
        conflicts = label_conflicts(table.assign(group=group))
        problems = [problem or conflict for problem, conflict in zip(problems, conflicts, strict=True)]
    for numbers, words in ((exact, "copy of"), (group, "near copy of")):
        _, first = np.unique(numbers, return_index=True)
        for row, original in enumerate(first[numbers]):
            if original != row and not any("copy of " in note for note in notes[row]):
                notes[row].append(f"{words} {paths[original]}")
    texts = {"problem": problems, "note": ["; ".join(parts) for parts in notes]}
    common = common_levels(facts.table["levels"].dropna().tolist(), facts.table["window"].dropna().tolist())
    if common is not None:
        texts["levels"] = [as_text(common)] * len(table)
    columns = {name: pd.Series(values, index=table.index, dtype=str) for name, values in texts.items()}
    return table.drop(columns="levels", errors="ignore").assign(**columns, group=group)


def _with_own_columns_kept(table: pd.DataFrame) -> pd.DataFrame:
    """A group or note that no earlier scan gave under another name, since losing a person's groups lets them leak."""
    scanned = "problem" in table and found_by_scan(table)
    own = {} if scanned else {name: f"{name}_before" for name in ("group", "note") if name in table}
    if not own:
        return table
    words = f"{' and '.join(own)} of the table is now {' and '.join(own.values())}."
    if "group" in own:
        words += " group='group_before' in `tables.split` keeps its rows together, and copies, too."
    warnings.warn(f"`audit.scan` gives columns of its own; {words}", stacklevel=3)
    return table.drop(columns=list(own.values()), errors="ignore").rename(columns=own)


def usable(table: pd.DataFrame, *, least: int = 3) -> pd.DataFrame:
    """Keeps the images that a network can learn from: without a problem, and of classes large enough to be split.

    Args:
        table: From `scan`, with the columns path, label and problem.
        least: Fewest images of a class; of 3, one is to learn from, one to stop by and one to test on.

    Returns:
        A copy without the other rows, whose `label` has no other classes.

    Raises:
        KeyError: If a column is missing.
        ValueError: If fewer than two classes are left.

    Warns:
        UserWarning: Naming the first images and classes that are left out, and why.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import audit
        >>> table = pd.DataFrame({"path": list("abcd"), "label": pd.Categorical(list("xxyy")), "problem": ""})
        >>> len(audit.usable(table, least=2))
        4
    """
    require_columns(table, "path", "label", "problem", caller="audit.usable")
    bad = table[table["problem"] != ""]
    if len(bad):
        named = "".join(f"\n  {path}: {problem}" for path, problem in bad[["path", "problem"]].head(5).to_numpy())
        more = f"\n  and {len(bad) - 5} more" if len(bad) > 5 else ""
        warnings.warn(f"{len(bad)} of {len(table)} images left out:{named}{more}", stacklevel=2)
    table = table[table["problem"] == ""].copy()
    counts = table["label"].value_counts()
    small = counts[counts < least]
    if len(small):
        named = ", ".join(f"{name!r} ({count})" for name, count in small.head(10).items())
        left = "1 class" if len(small) == 1 else f"{len(small)} classes"
        warnings.warn(f"{left} left out, as each needs {least} readable images: {named}.", stacklevel=2)
    if len(counts) - len(small) < 2:
        few = "".join(f"; {name!r} has {count}" for name, count in small.head(10).items())
        raise ValueError(
            f"`audit.usable` expects at least two classes with {least} readable images each. Received "
            f"{len(counts) - len(small)}{few}. Add images, or another class."
        )
    table = table[~table["label"].isin(small.index)]
    return table.assign(label=table["label"].cat.remove_unused_categories())


def leaks(table: pd.DataFrame) -> pd.DataFrame:
    """Finds pictures with a copy in another split: there the model would be tested on what it has memorized.

    Args:
        table: With the columns path and split, such as `tables.from_folder` gives for ready-made splits; it is scanned
            first where it has no column group of one scan of all its rows.

    Returns:
        One row for each image with a copy in another split: path, split, other (path of the first such copy),
        other_split; in the order of the table. No rows where nothing leaks.

    Raises:
        KeyError: If there is no column path or split.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import audit
        >>> table = pd.DataFrame({"path": ["1.png", "2.png", "3.png"], "split": ["train", "test", "test"]})
        >>> audit.leaks(table.assign(group=[0, 0, 1]))[["path", "other"]].values.tolist()
        [['1.png', '2.png'], ['2.png', '1.png']]
    """
    require_columns(table, "path", "split", caller="audit.leaks")
    if not found_by_scan(table):
        table = scan(table)
    rows = table[["path", "split", "group"]].astype({"split": object}).dropna()
    rows = rows[rows.groupby("group")["split"].transform("nunique") > 1]
    first_in = rows.drop_duplicates(["group", "split"])
    # Beside every row the first image of each other split that its group has, of which the first is kept.
    rows = rows.assign(row=np.arange(len(rows)))
    pairs = rows.merge(first_in, on="group", suffixes=("", "_other"))
    pairs = pairs[pairs["split"] != pairs["split_other"]].drop_duplicates("row").sort_values("row")
    names = {"path_other": "other", "split_other": "other_split"}
    return pairs.rename(columns=names)[["path", "split", "other", "other_split"]].reset_index(drop=True)


def _same_pictures(facts: Facts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two group numbers for each image: of the same bytes, and of the same picture; unreadable ones stand alone."""
    rows = np.flatnonzero(facts.shown)
    first, second = (rows[part] for part in copies.same_value(facts.table["digest"].to_numpy()[rows]))
    near = copies.near_copies(facts.thumbnails)
    both = [np.concatenate(pair) for pair in zip((first, second), near, strict=True)]
    return copies.groups(len(facts.shown), first, second), copies.groups(len(facts.shown), *both)


def label_conflicts(table: pd.DataFrame) -> list[str]:
    """For each row "same picture as … labelled …" where a member of its group has another label, else ""."""
    rows = table[["path", "label", "group"]].astype({"label": object}).reset_index(drop=True).dropna()
    rows = rows[rows.groupby("group")["label"].transform("nunique") > 1]
    conflicts = [""] * len(table)
    for _, members in rows.groupby("group"):
        for row, label in members["label"].items():
            other = members[members["label"] != label].iloc[0]
            conflicts[int(row)] = f"{CONFLICT}{other['path']}, which is labelled {other['label']!r}"  # type: ignore[call-overload]
    return conflicts


def _problems(facts: Facts) -> list[str]:
    """Of each file by itself, and tiny ones; a set of tiny images has a right to be so."""
    side = facts.thumbnails.side
    least = TINY if facts.shown.any() and np.median(side[facts.shown]) >= 2 * TINY else TINIEST
    tiny = (facts.table["problem"] == "") & facts.shown & (side < least)
    return facts.table["problem"].mask(tiny, "tiny: " + _sizes(facts)).tolist()


def _sizes(facts: Facts) -> pd.Series:
    return facts.table["width"].astype(str) + " × " + facts.table["height"].astype(str) + " pixels"


def _notes(facts: Facts) -> list[list[str]]:
    """What is odd about each image, by itself or among the others."""
    notes = [list(parts) for parts in facts.table["notes"]]
    if not facts.shown.any():
        return notes
    side, sharpness = facts.thumbnails.side, facts.table["sharpness"].to_numpy()
    shape = facts.table[["width", "height"]].max(axis=1).to_numpy() / np.maximum(side, 1)
    light = facts.thumbnails.colour.astype(np.float32) @ GREY
    darkest, brightest = light.min(axis=(1, 2)), light.max(axis=(1, 2))
    usual_side, usual_shape, usual_sharpness = (np.median(of[facts.shown]) for of in (side, shape, sharpness))
    good = facts.shown & (facts.table["problem"] == "").to_numpy()
    sizes = _sizes(facts)
    for words, odd in {
        "small: {}": side < min(SMALL, SMALL_SHARE * usual_side),
        "unusual shape: {}": shape > DRAWN_OUT * usual_shape,
        "very dark": brightest < DARK,
        "very bright": darkest > BRIGHT,
        "almost empty": brightest - darkest < EMPTY,
        "blurred": sharpness < min(BLURRED, BLURRED_SHARE * usual_sharpness),
    }.items():
        for row in np.flatnonzero(odd & good):
            notes[row].append(words.format(sizes[row]))
    return notes

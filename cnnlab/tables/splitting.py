"""Splits and folds: stratified, and never a group on two sides."""

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from cnnlab._common import is_number, is_whole, require_column, require_columns, require_seed
from cnnlab.tables.layout import SPLITS, split_of
from cnnlab.tables.linking import Group, group_columns, linked_groups, say_once


def split(
    table: pd.DataFrame, *, val: float, test: float, group: Group = None, seed: int, keep: bool | None = None
) -> pd.DataFrame:
    """Splits a table into train, val and test: stratified by class, and never a group on two sides.

    Each class gets its share in each part within one image, and at least one image where that is possible.
    Rows of one file always stay together; so do rows of equal value in the columns `group`: copies of one picture
    (`audit.scan` gives that column), or the images of one patient, camera or day. Groups that are too large to fit make
    the shares less exact.

    Args:
        table: With the columns path and label.
        val: Share for validation, 0 to 1.
        test: Share for the test, 0 to 1; `val` + `test` below 1.
        group: A column whose equal values must stay on one side, or several, as in `tables.linked_groups`: None uses
            the column group where there is one, False none.
        seed: The same seed gives the same split. Required, so that nobody splits by accident twice in two ways.
        keep: Where the table has a ready-made `split`, whether its val and test stay what they are; a missing val or
            test is taken out of the train rows, as that share of them. None keeps them and says so; False splits again.

    Returns:
        A copy with the Categorical column `split`: train, val or test.

    Raises:
        ValueError: If a share is out of range, or no training rows would remain.
        KeyError: If there is no such group column.

    Warns:
        UserWarning: Naming each class that is missing from a part because it is too small, and counting the rows that
            had to follow their group into a ready-made val or test.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import tables
        >>> table = pd.DataFrame({"path": [f"{i}.png" for i in range(20)], "label": ["a", "b"] * 10})
        >>> table = table.astype({"label": "category"})
        >>> tables.split(table, val=0.2, test=0.2, seed=0)["split"].value_counts().to_dict()
        {'train': 12, 'val': 4, 'test': 4}
    """
    require_columns(table, "path", "label", caller="tables.split")
    for name, share in (("val", val), ("test", test)):
        if not is_number(share) or share >= 1:
            raise ValueError(
                f"`{name}` expects a share from 0 to below 1. Received: {share!r}. For example {name}=0.15."
            )
    if val + test >= 1:
        raise ValueError(
            f"`val` + `test` must stay below 1 so that training rows remain. Received: val={val}, test={test}. "
            "Lower one of them, for example val=0.15."
        )
    require_seed(seed, caller="tables.split")
    shares = {"train": 1 - val - test, "val": val, "test": test}
    groups = linked_groups(table, group)
    sides = _ready_made(table, groups, keep)
    ready = [name for name in ("val", "test") if (sides == name).any()]
    if ready:
        missing = {name: share for name, share in shares.items() if name not in ("train", *ready)}
        shares = {"train": 1 - sum(missing.values())} | missing
    free = sides == "train"
    if free.any():
        part = _class_codes(table)[free]
        chosen = _allocate(part, groups[free], list(shares.values()), np.random.default_rng(seed))
        sides[free] = np.array(list(shares), dtype=object)[chosen]
    result = table.assign(split=pd.Categorical(sides, categories=SPLITS))
    _warn_missing(result, groups, [name for name in SPLITS if shares.get(name, 0) > 0 or name in ready])
    return result


def _class_codes(table: pd.DataFrame) -> NDArray[np.int64]:
    """Numbers of the classes; rows without a label are spread evenly like a class of their own."""
    codes = table["label"].cat.codes.to_numpy(dtype=np.int64)
    return np.where(codes < 0, len(table["label"].cat.categories), codes)


def _ready_made(table: pd.DataFrame, groups: NDArray[np.int64], keep: bool | None) -> NDArray[np.object_]:
    """The side of each row that is kept, "train" for all that are to be split."""
    sides = np.full(len(table), "train", dtype=object)
    if keep is True:
        require_column(table, "split", caller="tables.split")
    if keep is False or "split" not in table:
        return sides
    names = table["split"].astype(object).where(table["split"].notna(), "").astype(str).str.strip()
    meant = names.map({name: split_of(name) for name in names.unique()})
    unknown = names[(names != "") & (meant == "")]
    if len(unknown):
        raise ValueError(
            f"`tables.split` expects {', '.join(SPLITS)} in the column `split`, to keep what is ready-made. Received: "
            f"{unknown.iloc[0]!r}. Rename the column, or replace it with keep=False."
        )
    rank = meant.map({"train": 0, "val": 1, "test": 2}).fillna(0).to_numpy(dtype=np.int64)
    if rank.any() and keep is None:
        kept = " and ".join(f"{(rank == number).sum()} rows of {SPLITS[number]}" for number in (1, 2) if number in rank)
        say_once(f"The table has a ready-made `split`: {kept} stay as they are. Split again with keep=False.")
    strictest = np.zeros(groups.max(initial=-1) + 1, dtype=np.int64)
    np.maximum.at(strictest, groups, rank)
    moved = strictest[groups] > rank
    if len(table) and (strictest[groups] > 0).all():
        raise ValueError(
            "Expected training rows that share no group and no file with the ready-made val and test. There are "
            "none. Name another `group`, or split again with keep=False."
        )
    if moved.any():
        warnings.warn(
            f"{int(moved.sum())} rows share a group or a file with the ready-made val or test and were moved there, so "
            "that nothing is tested on what was trained on. To keep the ready-made test as it is, drop these rows "
            "first: `audit.leaks` names copies.",
            stacklevel=3,
        )
    return np.array(SPLITS, dtype=object)[strictest[groups]]


def _allocate(labels: np.ndarray, groups: np.ndarray, shares: list[float], rng: np.random.Generator) -> np.ndarray:
    """Puts each row on a side so that each class comes as near to its shares as whole groups allow.

    Groups of several rows go first, the largest first, where they overflow least; single rows then fill exactly
    what is missing. Without groups the result is within one image of exact in every class.
    """
    counts = np.bincount(labels[labels >= 0], minlength=int(labels.max(initial=0)) + 1)
    missing = np.stack([_whole(count, shares) for count in counts], axis=1)  # side × class
    sides = np.full(len(labels), -1)
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group_of, kind="stable"), np.cumsum(sizes)[:-1])
    several = np.flatnonzero(sizes > 1)
    several = several[np.argsort(-(sizes[several] + rng.random(len(several))))]
    for index in several:
        rows = members[index]
        wanted = np.bincount(labels[rows], minlength=len(counts))
        overflow = np.maximum(wanted - missing, 0).sum(axis=1)
        room = (missing * (wanted > 0)).sum(axis=1)
        side = int(np.lexsort((-room, overflow))[0])
        sides[rows] = side
        missing[side] -= wanted
    single = np.flatnonzero(sides < 0)
    for label in np.unique(labels[single]):
        rows = rng.permutation(single[labels[single] == label])
        sides[rows] = _fill(missing[:, label], len(rows))
    return sides


def _whole(count: int, shares: list[float]) -> np.ndarray:
    """Splits `count` images by `shares` into whole numbers: largest remainder, one at least where that stays near."""
    exact = count * np.array(shares) / sum(shares)
    whole = np.floor(exact + 1e-9).astype(int)
    by_remainder = np.argsort(-(exact - whole), kind="stable")
    whole[by_remainder[: count - whole.sum()]] += 1
    for side in np.flatnonzero((np.array(shares) > 0) & (whole == 0)):
        spare = np.where(whole > 1, whole - exact, -np.inf)
        if spare.max() >= 0:  # else a side would end up more than one image away from exact
            whole[np.argmax(spare)] -= 1
            whole[side] += 1
    return whole


def _fill(missing: np.ndarray, count: int) -> np.ndarray:
    """Sides for `count` single rows: what is missing first; where groups took too much, the rest shrinks alike."""
    room = np.maximum(missing, 0)
    room = _whole(count, list(room)) if room.sum() else np.eye(1, len(missing), dtype=int)[0] * count
    return np.repeat(np.arange(len(missing)), room)


def _warn_missing(table: pd.DataFrame, groups: NDArray[np.int64], parts: list[str]) -> None:
    counts = pd.crosstab(table["label"], table["split"], dropna=False)
    counts = counts[counts.index.notna()]
    present = counts[counts.sum(axis=1) > 0]
    together = pd.Series(groups).groupby(table["label"].to_numpy()).nunique()
    lacking = [
        f"{label!r} ({present.loc[label].sum()} images"
        + (f" in {together[label]} groups)" if together[label] < present.loc[label].sum() else ")")
        for label in present.index
        if (present.loc[label, parts] == 0).any()
    ]
    if lacking:
        warnings.warn(
            f"Not in each of {', '.join(parts)}: the classes {', '.join(lacking)}. Scores of these classes mean "
            "little; collect more images, or merge classes.",
            stacklevel=3,
        )


def folds(table: pd.DataFrame, *, count: int = 5, group: Group = None, seed: int) -> pd.DataFrame:
    """Numbers the folds for cross-validation: stratified by class, and never a group in two folds.

    Args:
        table: With the columns path and label.
        count: How many folds, 2 or more.
        group: A column whose equal values must stay in one fold, or several, as in `tables.linked_groups`: None uses
            the column group where there is one, False none. Rows of one file always stay together.
        seed: The same seed gives the same folds.

    Returns:
        A copy with the integer column `fold`, 0 to count - 1: the fold in which the row is held out.

    Raises:
        ValueError: If a class has fewer images, or fewer groups, than there are folds.
        KeyError: If there is no such group column.

    Source:
        `sklearn.model_selection.StratifiedKFold` and `StratifiedGroupKFold`.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import tables
        >>> table = pd.DataFrame({"path": [f"{i}.png" for i in range(6)], "label": ["a", "b"] * 3})
        >>> tables.folds(table.astype({"label": "category"}), count=3, seed=0)["fold"].value_counts().tolist()
        [2, 2, 2]
    """
    require_columns(table, "path", "label", caller="tables.folds")
    if not is_whole(count, least=2):
        raise ValueError(
            f"`count` expects 2 folds or more, so that something is held out each time. Received: {count!r}."
        )
    require_seed(seed, caller="tables.folds")
    groups = linked_groups(table, group)
    alone = len(np.unique(groups)) == len(groups)
    available = pd.Series(groups).groupby(table["label"].to_numpy()).nunique()
    if not len(available) or available.min() < count:
        smallest = repr(available.idxmin()) if len(available) else "a table without rows"
        fewest = int(available.min()) if len(available) else 0
        columns = " and ".join(map(repr, group_columns(table, group))) or "equal files"
        unit = "images" if alone else f"groups of {columns}"
        fewer = f"Use fewer folds (count={fewest}), or collect more." if fewest > 1 else "Collect more, or drop it."
        raise ValueError(
            f"Expected at least {count} {unit} in each class, one for each fold. {smallest} has {fewest}. {fewer}"
        )
    parts = _held_out(table, groups, count, seed)
    if not _hold_all(table, parts):
        warnings.warn(
            "Some folds have no image of some class to test on, as its groups are too uneven. Use fewer folds.",
            stacklevel=2,
        )
    fold = np.empty(len(table), dtype=int)
    for number, held_out in enumerate(parts):
        fold[held_out] = number
    return table.assign(fold=fold)


def _held_out(table: pd.DataFrame, groups: NDArray[np.int64], count: int, seed: int) -> list[NDArray[np.int64]]:
    labels = _class_codes(table)
    with warnings.catch_warnings(action="ignore"):  # of too few rows without a label, which are in no score anyway
        if len(np.unique(groups)) == len(groups):
            splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
            return [part for _, part in splitter.split(labels, labels)]
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        parts = [part for _, part in splitter.split(labels, labels, groups)]
    if _hold_all(table, parts):
        return parts
    # It is greedy, and may leave all of a class in one fold; dealt like the parts of a split, that is rare.
    sides = _allocate(labels, groups, [1 / count] * count, np.random.default_rng(seed))
    dealt = [np.flatnonzero(sides == side) for side in range(count)]
    return dealt if _hold_all(table, dealt) else parts


def _hold_all(table: pd.DataFrame, parts: list[NDArray[np.int64]]) -> bool:
    """Whether each part has an image of each class that there is."""
    codes = table["label"].cat.codes.to_numpy()
    return all(len(np.setdiff1d(codes[codes >= 0], codes[part])) == 0 for part in parts)


def class_weights(table: pd.DataFrame) -> dict[int, float]:
    """Weights that make every class count alike in the loss: for `model.fit(class_weight=…)`.

    Args:
        table: The training rows, with the Categorical column label.

    Returns:
        Class index → rows / (classes × rows of the class); classes without rows get 0.

    Source:
        `sklearn.utils.class_weight.compute_class_weight("balanced")`.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import tables
        >>> table = pd.DataFrame({"path": list("abcd"), "label": pd.Categorical(["x", "x", "x", "y"])})
        >>> tables.class_weights(table)
        {0: 0.666..., 1: 2.0}
    """
    from sklearn.utils.class_weight import compute_class_weight

    require_columns(table, "label", caller="tables.class_weights")
    codes = table["label"].cat.codes.to_numpy()
    present = np.unique(codes[codes >= 0])
    if not len(present):
        raise ValueError("`tables.class_weights` expects at least one row with a label. Received none.")
    weights = dict.fromkeys(range(len(table["label"].cat.categories)), 0.0)
    balanced = compute_class_weight("balanced", classes=present, y=codes[codes >= 0])
    return weights | {int(code): float(weight) for code, weight in zip(present, balanced, strict=True)}

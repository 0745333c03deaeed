"""Splits and folds: stratified, and never a group on two sides."""

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from cnnlab._common import require_column, require_columns

SPLITS = ("train", "val", "test")


def split(
    table: pd.DataFrame, *, val: float, test: float, group: str | None = None, seed: int, keep: bool = False
) -> pd.DataFrame:
    """Divides a table into train, val and test: stratified by class, and never a group on two sides.

    Each class gets its share in each part within one image, and at least one image where that is possible.
    With `group`, rows of equal value stay together: copies of one picture (`audit.scan` gives that column), or the
    images of one patient, camera or day. Groups that are too large to fit make the shares less exact.

    Args:
        table: With the columns path and label.
        val: Share for validation, 0 to 1.
        test: Share for the test, 0 to 1; `val` + `test` below 1.
        group: A column whose equal values must stay on one side; missing values are groups of their own.
        seed: The same seed gives the same split. Required, so that nobody splits by accident twice in two ways.
        keep: Where the table has a ready-made `split`, keep its rows on their sides and take only a missing
            val or test out of its train rows, as that share of them.

    Returns:
        A copy with the Categorical column `split`: train, val or test.

    Raises:
        ValueError: If a share is out of range, or no training rows would remain.
        KeyError: If there is no such group column.

    Warns:
        UserWarning: Naming each class that is missing from a part because it is too small.

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
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ValueError(
                f"`{name}` expects a share from 0 to below 1. Received: {share!r}. For example {name}=0.15."
            )
    if val + test >= 1:
        raise ValueError(
            f"`val` + `test` must stay below 1 so that training rows remain. Received: val={val}, test={test}. "
            "Lower one of them, for example val=0.15."
        )
    shares = {"train": 1 - val - test, "val": val, "test": test}
    groups = _group_codes(table, group, caller="tables.split")
    sides = np.full(len(table), "train", dtype=object)
    free = np.ones(len(table), bool)
    if keep:
        require_column(table, "split", caller="tables.split")
        sides = table["split"].astype(object).to_numpy(copy=True)
        unknown = sorted({str(side) for side in sides} - set(SPLITS))
        if unknown:
            raise ValueError(
                f"`keep=True` expects {', '.join(SPLITS)} in the column `split`. Received: {unknown[0]!r}."
            )
        free = sides == "train"
        missing = {name: share for name, share in shares.items() if name != "train" and name not in set(sides)}
        shares = {"train": 1 - sum(missing.values())} | missing
    if free.any():
        part = table.loc[free, "label"].cat.codes.to_numpy()
        chosen = _allocate(part, groups[free], list(shares.values()), np.random.default_rng(seed))
        sides[free] = np.array(list(shares), dtype=object)[chosen]
    result = table.assign(split=pd.Categorical(sides, categories=SPLITS))
    _warn_missing(result, [name for name, share in shares.items() if share > 0])
    return result


def _group_codes(table: pd.DataFrame, group: str | None, *, caller: str) -> np.ndarray:
    """An integer for each row; rows of one group share it, a missing value is a group of its own."""
    if group is None:
        return np.arange(len(table))
    require_column(table, group, caller=caller)
    codes, names = pd.factorize(table[group], use_na_sentinel=True)
    alone = codes < 0
    codes[alone] = len(names) + np.arange(int(alone.sum()))
    return codes


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
    """Divides `count` images by `shares` into whole numbers: largest remainder, one at least where that stays near."""
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


def _warn_missing(table: pd.DataFrame, parts: list[str]) -> None:
    counts = pd.crosstab(table["label"], table["split"], dropna=False)
    present = counts[counts.sum(axis=1) > 0]
    lacking = [
        f"{label!r} ({present.loc[label].sum()} images)"
        for label in present.index
        if (present.loc[label, parts] == 0).any()
    ]
    if lacking:
        warnings.warn(
            f"Too small to be in each of {', '.join(parts)}: the classes {', '.join(lacking)}. Scores of these classes "
            "mean little; collect more images, or merge classes.",
            stacklevel=3,
        )


def folds(table: pd.DataFrame, *, count: int = 5, group: str | None = None, seed: int) -> pd.DataFrame:
    """Deals a table into folds for cross-validation: stratified by class, and never a group in two folds.

    Args:
        table: With the columns path and label.
        count: How many folds, 2 or more.
        group: A column whose equal values must stay in one fold; missing values are groups of their own.
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
    if isinstance(count, bool) or not isinstance(count, int) or count < 2:
        raise ValueError(
            f"`count` expects 2 folds or more, so that something is held out each time. Received: {count!r}."
        )
    groups = _group_codes(table, group, caller="tables.folds")
    labels = table["label"].cat.codes.to_numpy()
    available = pd.Series(groups).groupby(table["label"].to_numpy()).nunique()
    if not len(available) or available.min() < count:
        smallest = repr(available.idxmin()) if len(available) else "a table without rows"
        fewest = int(available.min()) if len(available) else 0
        unit = "images" if group is None else f"groups of {group!r}"
        raise ValueError(
            f"Expected at least {count} {unit} in each class, one for each fold. {smallest} has {fewest}. "
            f"Use fewer folds (count={max(fewest, 2)}), or collect more."
        )
    if group is None:
        parts = StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels)
    else:
        parts = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups)
    fold = np.empty(len(table), dtype=int)
    for number, (_, held_out) in enumerate(parts):
        fold[held_out] = number
    return table.assign(fold=fold)


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

"""Whether something other than the subject gives the class away: a network would learn that instead."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cnnlab._common import require_columns
from cnnlab.audit.files import Facts, read_all

FOLDS, TREES = 5, 50
SHUFFLES = 1000
FEWEST = 5  # images of a class, to learn from some and try on others
EVEN = 0.05  # above what chance explains, as balanced accuracy: less than this is of no use to a network either


def shortcuts(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Tries to tell the classes apart without looking at the subject: by file size, format, resolution, border, colour.

    Where that succeeds, a network can succeed the same way, and fail on tomorrow's images. Whether it is a flaw is for
    you to judge: ripe tomatoes are red for good reasons, but they are not JPEGs of better quality.

    Args:
        table: With the columns path and label; a column group keeps copies on one side.
        seed: Decides folds and trees.

    Returns:
        One row per trait, the most telling first: trait, score (balanced accuracy on held-out images, 0 to 1), chance
        (the same with shuffled labels), chance_high (which chance exceeds in 1 of 40 tries), telling (whether
        score is above that by more than 0.05), images. Unreadable images are left out.

    Raises:
        ValueError: If fewer than two classes have 5 readable images.

    Source:
        R. Geirhos et al., "Shortcut learning in deep neural networks" (2020); extremely randomised trees
        of scikit-learn.

    Example:
        >>> import tempfile
        >>> from cnnlab import audit, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=6, size=32))
        ...     audit.shortcuts(table).set_index("trait").loc["format", "telling"]
        np.False_
    """
    require_columns(table, "path", "label", caller="audit.shortcuts")
    facts = read_all([str(path) for path in table["path"]])
    codes = table["label"].cat.codes.to_numpy()
    chosen = facts.shown & (codes >= 0)
    counts = np.bincount(codes[chosen], minlength=len(table["label"].cat.categories))
    chosen &= np.isin(codes, np.flatnonzero(counts >= FEWEST))
    if len(np.unique(codes[chosen])) < 2:
        found = ", ".join(f"{name} {n}" for name, n in zip(table["label"].cat.categories, counts, strict=True))
        raise ValueError(
            f"`audit.shortcuts` expects two or more classes with at least {FEWEST} readable images each. "
            f"Received: {found}."
        )
    alone = np.arange(len(table))
    named = pd.factorize(table["group"].astype(str))[0] + len(table) if "group" in table else alone
    group = np.where(table["group"].isna(), alone, named) if "group" in table else alone
    folds = min(FOLDS, len(np.unique(group[chosen])))
    if folds < 2:
        raise ValueError("`audit.shortcuts` expects images of two or more groups. Received: all are of one `group`.")
    rows = []
    for trait, values in _traits(facts).items():
        rows.append({"trait": trait, **_judge(values[chosen], codes[chosen], group[chosen], folds, seed)})
    return pd.DataFrame(rows).sort_values("score", ascending=False, ignore_index=True)


def _traits(facts: Facts) -> dict[str, NDArray[np.float64]]:
    """What each trait knows of an image: numbers of shape (images, any)."""
    width, height = (facts.table[side].to_numpy(np.float64) for side in ("width", "height"))
    colour = facts.thumbnails.colour.astype(np.float64)
    rim = np.concatenate([colour[:, 0], colour[:, -1], colour[:, 1:-1, 0], colour[:, 1:-1, -1]], axis=1)
    return {
        "file size": facts.table["bytes"].to_numpy(np.float64)[:, None],
        "format": pd.get_dummies(facts.table["format"]).to_numpy(np.float64),
        "resolution": np.stack([width, height, width / np.maximum(height, 1)], axis=1),
        "border": np.concatenate([rim.mean(axis=1), rim.std(axis=1)], axis=1),
        "colour": np.concatenate([colour.mean(axis=(1, 2)), colour.std(axis=(1, 2))], axis=1),
    }


def _judge(values: NDArray[np.float64], codes: NDArray, group: NDArray, folds: int, seed: int) -> dict[str, object]:
    """Balanced accuracy of a forest on held-out images, against the same answers with shuffled labels."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    _, codes = np.unique(codes, return_inverse=True)
    forest = ExtraTreesClassifier(TREES, min_samples_leaf=3, class_weight="balanced", random_state=seed)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    answers = cross_val_predict(forest, values, codes, groups=group, cv=splitter)
    rng = np.random.default_rng(seed)
    by_chance = [_balanced_accuracy(rng.permutation(codes), answers) for _ in range(SHUFFLES)]
    score, high = _balanced_accuracy(codes, answers), float(np.quantile(by_chance, 0.975))
    return {
        "score": score,
        "chance": float(np.mean(by_chance)),
        "chance_high": high,
        "telling": score > high + EVEN,
        "images": len(codes),
    }


def _balanced_accuracy(codes: NDArray, answers: NDArray) -> float:
    """Mean recall; scikit-learn's own takes a hundred times as long, and is called a thousand times."""
    return float(np.mean(np.bincount(codes, weights=codes == answers) / np.bincount(codes)))

"""The words people type first: scores, per class, confusion, baselines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cnnlab.metrics.limits import class_limits, sampling, score_limits
from cnnlab.metrics.table import Outcome, outcome, scored
from cnnlab.metrics.values import Counts, divide, from_counts, values


def scores(
    predictions: pd.DataFrame,
    *,
    by: str | Sequence[str] | None = None,
    group: str | None = None,
    bootstrap: int = 0,
    top: int = 3,
    seed: int = 0,
) -> pd.DataFrame:
    """Measures how good the predictions are, each score with the interval that chance leaves open.

    Args:
        predictions: A table with label and predicted, and, for some scores, confidence and p_<class>, such as
            `experiments.predict` and `experiments.cross_validate` give.
        by: Column or columns to score apart: `"camera"`.
        group: Column that says which images belong together (a patient, a burst of shots). Groups are then
            resampled as a whole, since their images are no independent witnesses.
        bootstrap: Resamples for the intervals; 1000 is usual, 0 leaves `low` and `high` empty.
        top: `top_<top>_accuracy` asks whether the label is among so many likeliest classes.
        seed: Same seed, same intervals.

    Returns:
        One row per score with the columns metric, value, low, high; in front of them the columns of `by` and `images`.

    Raises:
        KeyError: If a column is missing.
        ValueError: If no row has a label and a prediction, or a value is impossible.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["cat", "dog"] * 50)
        >>> predictions = pd.DataFrame({"label": label, "predicted": ["cat"] * 10 + list(label[10:])})
        >>> metrics.scores(predictions, bootstrap=1000).round(2).head(1)
             metric  value  low  high
        0  accuracy   0.95 0.89  0.98
    """
    keys = [by] if isinstance(by, str) else list(by or [])
    table = scored(predictions, *keys, *([group] if group else []), caller="metrics.scores")
    if not keys:
        return _scores(table, group, bootstrap, top, seed)
    parts = []
    for names, part in table.groupby(keys, observed=True, sort=True):
        found = _scores(part, group, bootstrap, top, seed)
        front: dict[str, Any] = {**dict(zip(keys, names, strict=True)), "images": len(part)}
        parts.append(found.assign(**front)[[*front, *found.columns]])
    return pd.concat(parts, ignore_index=True)


def _scores(table: pd.DataFrame, group: str | None, bootstrap: int, top: int, seed: int) -> pd.DataFrame:
    seen = outcome(table, caller="metrics.scores")
    found = values(seen, top=top)
    limits = {}
    if bootstrap:
        limits = score_limits(seen, found, sampling(table, group, count=bootstrap, seed=seed), top=top)
    rows = [(name, value, *limits.get(name, (np.nan, np.nan))) for name, value in found.items()]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


def per_class(
    predictions: pd.DataFrame, *, group: str | None = None, bootstrap: int = 0, seed: int = 0
) -> pd.DataFrame:
    """Measures each class for itself, where a good average can hide a class that is never found.

    Args:
        predictions: A table with label and predicted.
        group: Column that says which images belong together; see `scores`.
        bootstrap: Resamples for the intervals; 0 leaves them out.
        seed: Same seed, same intervals.

    Returns:
        One row per class, in the order of the categories, index `class`: precision (of the images called so, how many
        are), recall (of the images that are, how many are called so), f1, support (images of the class). With
        `bootstrap` also <score>_low and <score>_high. A class that is neither label nor prediction has nan.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["cat", "cat", "dog", "dog"])
        >>> metrics.per_class(pd.DataFrame({"label": label, "predicted": label[[0, 2, 2, 2]]})).round(2)
               precision  recall   f1  support
        class
        cat         1.00     0.5 0.67        2
        dog         0.67     1.0 0.80        2
    """
    table = scored(predictions, *([group] if group else []), caller="metrics.per_class")
    seen = outcome(table, caller="metrics.per_class")
    counts = Counts.of(seen)
    present = counts.present[0]
    limits = {}
    if bootstrap:
        limits = class_limits(seen, counts, sampling(table, group, count=bootstrap, seed=seed))
    found = pd.DataFrame(index=pd.Index(seen.classes, name="class"))
    for name in ("precision", "recall", "f1"):
        found[name] = np.where(present, getattr(counts, name)[0], np.nan)
        if bootstrap:
            found[f"{name}_low"], found[f"{name}_high"] = limits[name]
    return found.assign(support=counts.support[0].astype(int))


def confusion(predictions: pd.DataFrame, *, normalize: str | None = None) -> pd.DataFrame:
    """Counts what was taken for what: rows are the labels, columns the predictions.

    Args:
        predictions: A table with label and predicted.
        normalize: None counts images; `"row"` gives shares of each label's images (its diagonal is recall), `"column"`
            shares of each prediction's images (its diagonal is precision), `"all"` shares of all images.

    Returns:
        Square, one row and one column per class. A row or column without images is nan once divided.

    Raises:
        ValueError: If `normalize` is another word.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["cat", "cat", "dog", "dog"])
        >>> metrics.confusion(pd.DataFrame({"label": label, "predicted": label[[0, 2, 2, 2]]}))
        predicted  cat  dog
        label
        cat          1    1
        dog          0    2
    """
    table = scored(predictions, caller="metrics.confusion")
    seen = outcome(table, caller="metrics.confusion")
    count = len(seen.classes)
    cells = np.bincount(seen.true * count + seen.predicted, minlength=count**2).reshape(count, count)
    whole = {"row": cells.sum(axis=1, keepdims=True), "column": cells.sum(axis=0, keepdims=True), "all": cells.sum()}
    if normalize is not None and normalize not in whole:
        raise ValueError(f"`normalize` expects None, 'row', 'column' or 'all'. Received: normalize={normalize!r}.")
    shown = cells if normalize is None else divide(cells, whole[normalize], np.nan)
    return pd.DataFrame(shown, pd.Index(seen.classes, name="label"), pd.Index(seen.classes, name="predicted"))


def baselines(predictions: pd.DataFrame, *, top: int = 3) -> pd.DataFrame:
    """Scores two models that never look at an image: what a number must beat before it means anything.

    `majority` always answers the most frequent label; `guess` draws answers with the labels' own frequencies, and what
    stands here is what it reaches on average, not one lucky draw. Asked for probabilities, both state the frequencies.

    Args:
        predictions: A table with label and predicted; only the labels are used.
        top: As in `scores`.

    Returns:
        One row per score with the columns metric, majority, guess.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["ok"] * 9 + ["crack"])
        >>> metrics.baselines(pd.DataFrame({"label": label, "predicted": label})).head(2)
                      metric  majority  guess
        0           accuracy       0.9   0.82
        1  balanced_accuracy       0.5   0.50
    """
    seen = outcome(scored(predictions, caller="metrics.baselines"), caller="metrics.baselines")
    count, images = len(seen.classes), len(seen)
    support = np.bincount(seen.true, minlength=count).astype(float)
    share = support / images
    likeliest = int(share.argmax())
    constant = Outcome(
        seen.classes,
        seen.true,
        np.full(images, likeliest),
        None if seen.confidence is None else np.full(images, share[likeliest]),
        None if seen.probability is None else np.tile(share, (images, 1)),
    )
    majority = values(constant, top=top)
    guessed = from_counts(Counts(support[None], support[None], (support * share)[None]))
    guess = majority | {name: float(value[0]) for name, value in guessed.items()}
    names = list(majority)
    return pd.DataFrame(
        {
            "metric": names,
            "majority": [majority[name] for name in names],
            "guess": [guess[name] for name in names],
        }
    )

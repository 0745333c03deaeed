"""Reads a prediction table once: class numbers of label and prediction, the matrix of probabilities, all checked."""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnlab._common import ColumnError, require_columns
from cnnlab._groups import connected

Group = str | Sequence[str] | bool | None  # which column or columns say that images belong together
FEW = 10  # groups: with fewer, intervals over them are rough


@dataclass(frozen=True)
class Outcome:
    """What happened to each image, as arrays of one length; None where the table does not say."""

    classes: tuple[Hashable, ...]  # names, in the order of the label's categories
    true: np.ndarray  # class number of the label
    predicted: np.ndarray  # class number of the prediction
    confidence: np.ndarray | None  # 0 to 1
    probability: np.ndarray | None  # shape (images, classes), rows adding up to about 1

    def __len__(self) -> int:
        return len(self.true)


def scored(predictions: pd.DataFrame, *further: str, caller: str) -> pd.DataFrame:
    """The rows that have label, prediction and all of `further`; says how many have not, refuses a table of none."""
    require_columns(predictions, "label", "predicted", *further, caller=caller)
    filled = predictions[["label", "predicted", *further]].notna()
    whole = filled.all(axis=1)
    if not whole.any():
        raise ValueError(
            f"`{caller}` expects rows that have {', '.join(['label', 'predicted', *further])}. Received "
            f"{len(predictions)} rows, none of which has all. `experiments.predict(model, table)` makes such a table."
        )
    if not whole.all():
        empty = filled.columns[~filled.all()].tolist()
        warnings.warn(
            f"`{caller}` leaves out {(~whole).sum()} of {len(whole)} rows, because {' or '.join(empty)} is empty "
            f"there. Look at them: `predictions[predictions[{empty[0]!r}].isna()]`.",
            UserWarning,
            stacklevel=3,
        )
    return predictions[whole.to_numpy()]


def outcome(predictions: pd.DataFrame, *, caller: str) -> Outcome:
    """Turns a table (of whole rows, see `scored`) into arrays; refuses predictions and probabilities that cannot be."""
    classes = predictions["label"].cat.categories
    return Outcome(
        tuple(classes),
        predictions["label"].cat.codes.to_numpy().astype(np.intp),
        _codes(predictions["predicted"], classes, caller),
        _confidence(predictions, caller),
        probabilities(predictions, classes, caller=caller),
    )


def require_class(positive: Hashable, classes: Sequence[Hashable] | pd.Index, *, caller: str) -> None:
    """Refuses what is not a class."""
    if positive not in classes:
        raise ValueError(
            f"`{caller}` expects `positive` to be one of the classes {_some(classes)}. Received: {positive!r}."
        )


def required_probability(probability: np.ndarray | None, *, caller: str) -> np.ndarray:
    """Refuses a table without probabilities."""
    if probability is None:
        raise ValueError(
            f"`{caller}` expects the columns p_<class>, such as `experiments.predict` gives. Received none."
        )
    return probability


def by_columns(by: str | Sequence[str] | None, results: Sequence[str], *, caller: str) -> list[str]:
    """The columns to score apart by, none of which may be called as a column of the result is."""
    keys = [by] if isinstance(by, str) else list(by or [])
    taken = [name for name in keys if name in results]
    if taken:
        raise ValueError(
            f"`{caller}` names columns of its result {', '.join(results)}, so that `by` cannot be one of these. "
            f"Received: by={by!r}. Rename the column: "
            f"`predictions.rename(columns={{{taken[0]!r}: {f'{taken[0]} of image'!r}}})`."
        )
    return keys


def units_of(table: pd.DataFrame, group: Group, *, keys: Sequence[str] = (), caller: str) -> np.ndarray:
    """Of each row, the number of what is drawn as a whole: the row itself, or its group.

    Args:
        table: The rows that are scored.
        group: A column whose equal values belong together, or several: rows linked by any of them do. None takes the
            column `group` where the table has one, False takes none. A missing value is a group of its own.
        keys: Columns to score apart by; one of these is not a default.
        caller: The public function, for messages.
    """
    rows = np.arange(len(table))
    if group is None or group is True:
        group = "group" if "group" in table and "group" not in keys else None
    names = [group] if isinstance(group, str) else list(group or [])
    if not names:
        return rows
    require_columns(table, *names, caller=caller)
    units = connected([pd.factorize(table[name])[0] for name in names])
    count = int(units.max()) + 1
    if count < FEW and is_grouped(units):
        warnings.warn(
            f"`{caller}` has {count} group{'s' * (count != 1)} of {' and '.join(map(repr, names))} to draw from: "
            f"intervals over fewer than {FEW} are rough, and over one there are none. `group=False` takes images as "
            "independent of each other.",
            UserWarning,
            stacklevel=4,
        )
    return units


def is_grouped(units: np.ndarray) -> bool:
    """Whether any unit has several rows."""
    return len(units) > int(units.max()) + 1


def _codes(predicted: pd.Series, classes: pd.Index, caller: str) -> np.ndarray:
    """Class numbers of the predictions; text that names a class is as good as a Categorical."""
    codes = classes.get_indexer(pd.Index(predicted.astype(object)))
    if (codes < 0).any():
        strange = sorted({str(name) for name in predicted[codes < 0]})[:5]
        raise ValueError(
            f"`{caller}` expects `predicted` to hold classes of `label`: {_some(classes)}. "
            f"Received also: {', '.join(map(repr, strange))}. Were the table and the model made from other folders?"
        )
    return codes


def _confidence(predictions: pd.DataFrame, caller: str) -> np.ndarray | None:
    if "confidence" not in predictions:
        return None
    values = predictions["confidence"].to_numpy(dtype=float)
    if not ((values >= 0) & (values <= 1 + 1e-6)).all():
        raise ValueError(
            f"`{caller}` expects `confidence` from 0 to 1. Received values from {np.min(values):.3g} to "
            f"{np.max(values):.3g} (nan: not known)."
        )
    return np.minimum(values, 1.0)


def classes_of(predictions: pd.DataFrame, *, caller: str) -> pd.Index:
    """The classes of predictions, with or without labels: categories of either column, or what has a p_<class>."""
    require_columns(predictions, caller=caller)
    for column in ("label", "predicted"):
        dtype = predictions[column].dtype if column in predictions else None
        if isinstance(dtype, pd.CategoricalDtype) and len(dtype.categories):
            return dtype.categories
    return pd.Index([str(name)[2:] for name in predictions if str(name).startswith("p_")])


def known_probabilities(
    predictions: pd.DataFrame, positive: Hashable | None = None, *, caller: str
) -> tuple[pd.Index, np.ndarray, np.ndarray]:
    """The classes, the matrix of p_<class>, nan where a row has none, and which rows have them."""
    classes = classes_of(predictions, caller=caller)
    if positive is not None:
        require_class(positive, classes, caller=caller)
    names = [f"p_{name}" for name in classes]
    known = predictions[[name for name in names if name in predictions]].notna().all(axis=1).to_numpy()
    found = probabilities(predictions[known], classes, caller=caller)
    matrix = np.full((len(predictions), len(classes)), np.nan)
    matrix[known] = required_probability(found, caller=caller)
    return classes, matrix, known


def with_calls(
    predictions: pd.DataFrame, classes: pd.Index, positive: Hashable, called: np.ndarray, matrix: np.ndarray
) -> pd.DataFrame:
    """A copy that predicts `positive` where `called`, else the likeliest other class; nothing where `matrix` is nan."""
    place, rows = list(classes).index(positive), np.arange(len(predictions))
    known = ~np.isnan(matrix).any(axis=1)
    others = np.where(np.arange(len(classes)) == place, -1, np.nan_to_num(matrix))
    codes = np.where(known, np.where(called, place, others.argmax(axis=1)), -1)
    confidence = np.where(known, matrix[rows, codes], np.nan)
    return predictions.assign(predicted=pd.Categorical.from_codes(codes, categories=classes), confidence=confidence)


def probabilities(predictions: pd.DataFrame, classes: pd.Index, *, caller: str) -> np.ndarray | None:
    """The `p_<class>` columns as a matrix, rows adding up to 1; None where the table has none."""
    names = [f"p_{name}" for name in classes]
    missing = [name for name in names if name not in predictions.columns]
    if len(missing) == len(names):
        return None
    if missing:
        raise ColumnError(
            f"`{caller}` expects one column of probabilities for each class. Missing: {_some(missing)}. "
            "Keep all of them, or drop all of them."
        )
    matrix = predictions[names].to_numpy(dtype=float)
    totals = matrix.sum(axis=1)
    if not ((matrix >= -1e-6).all() and (np.abs(totals - 1) <= 0.01).all()):
        worst = int(np.argmax(np.where(np.isnan(totals), np.inf, np.abs(totals - 1))))
        raise ValueError(
            f"`{caller}` expects the columns p_<class> to be probabilities that add up to 1 in each row. Received, for "
            f"example, {np.round(matrix[worst, :5], 3).tolist()} with the sum {totals[worst]:.3g}. "
            "Does the model end in a softmax?"
        )
    return np.clip(matrix, 0.0, 1.0)  # not divided by their sum: rounding would part what is tied


def _some(names: Sequence[Hashable] | pd.Index) -> str:
    """The first few of many names."""
    text = ", ".join(str(name) for name in names[:8])
    return text if len(names) <= 8 else f"{text} and {len(names) - 8} more"

"""Reads a prediction table once: class numbers of label and prediction, the matrix of probabilities, all checked."""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cnnlab._common import require_columns


@dataclass(frozen=True)
class Outcome:
    """What happened to each image, as arrays of one length.

    Attributes:
        classes: Names, in the order of the label's categories.
        true: Class number of the label, 0 to K-1.
        predicted: Class number of the prediction.
        confidence: In 0-1, or None where the table has none.
        probability: Shape (images, K), rows adding up to about 1, or None where the table has none.
    """

    classes: tuple[Hashable, ...]
    true: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray | None
    probability: np.ndarray | None

    def __len__(self) -> int:
        return len(self.true)

    def rows(self, chosen: np.ndarray) -> "Outcome":
        """The same for some rows: a mask or positions."""
        return Outcome(
            self.classes,
            self.true[chosen],
            self.predicted[chosen],
            None if self.confidence is None else self.confidence[chosen],
            None if self.probability is None else self.probability[chosen],
        )


def scored(predictions: pd.DataFrame, *further: str, caller: str) -> pd.DataFrame:
    """The rows that have both a label and a prediction; says how many have not.

    Args:
        predictions: A prediction table.
        further: Other columns that the caller needs; rows where one is empty are left out, too.
        caller: The public function, for messages.

    Raises:
        KeyError: If label, predicted or one of `further` is missing.
        ValueError: If nothing remains.
    """
    require_columns(predictions, "label", "predicted", *further, caller=caller)
    whole = predictions[["label", "predicted", *further]].notna().all(axis=1)
    if not whole.any():
        raise ValueError(
            f"`{caller}` expects rows that have a label and a prediction. Received {len(predictions)} rows, none of "
            "which has both. `experiments.predict(model, table)` makes such a table."
        )
    if not whole.all():
        warnings.warn(
            f"`{caller}` leaves out {(~whole).sum()} of {len(whole)} rows, because "
            f"{' or '.join(['label', 'predicted', *further])} is empty there. "
            "Look at them: `predictions[predictions['predicted'].isna()]`.",
            UserWarning,
            stacklevel=3,
        )
    return predictions[whole.to_numpy()]


def outcome(predictions: pd.DataFrame, *, caller: str) -> Outcome:
    """Turns a table (of whole rows, see `scored`) into arrays.

    Raises:
        ValueError: If a prediction is no class of the label, or a probability is impossible.
        KeyError: If some classes have a probability column and others have none.
    """
    classes = predictions["label"].cat.categories
    return Outcome(
        tuple(classes),
        predictions["label"].cat.codes.to_numpy().astype(np.intp),
        _codes(predictions["predicted"], classes, caller),
        _confidence(predictions, caller),
        probabilities(predictions, caller=caller),
    )


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


def probabilities(predictions: pd.DataFrame, *, caller: str) -> np.ndarray | None:
    """The `p_<class>` columns as a matrix, rows adding up to 1; None where the table has none.

    Raises:
        KeyError: If some classes have their column and others have not.
        ValueError: If a value is no probability or a row does not add up to 1.
    """
    names = [f"p_{name}" for name in predictions["label"].cat.categories]
    missing = [name for name in names if name not in predictions.columns]
    if len(missing) == len(names):
        return None
    if missing:
        raise KeyError(
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

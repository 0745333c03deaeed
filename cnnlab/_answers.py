"""From a network's probabilities to the columns that `metrics` and `plots` read; shared by all that predict."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

TINY = float(np.finfo(np.float32).tiny)  # of a probability, before its logarithm


def scaled_by_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, classes) whose logits are divided by a temperature.

    >>> scaled_by_temperature(np.array([[0.9, 0.1]]), 2.0).round(2).tolist()
    [[0.75, 0.25]]
    """
    if temperature == 1:
        return probabilities
    logits = np.log(np.maximum(probabilities.astype(float), TINY)) / temperature
    result = np.exp(logits - logits.max(axis=1, keepdims=True))
    return result / result.sum(axis=1, keepdims=True)


def with_probabilities(
    table: pd.DataFrame,
    probabilities: np.ndarray,
    classes: Sequence[str] | None = None,
    *,
    called: np.ndarray | None = None,
) -> pd.DataFrame:
    """A prediction table: `table` with predicted, confidence and `p_<class>`; rows without numbers get no prediction.

    `classes` names them where the table has no label; `called` has the class of each row, by default the likeliest.
    """
    names = table["label"].cat.categories if classes is None else pd.Index(list(classes))
    known = ~np.isnan(probabilities).any(axis=1)
    filled = np.nan_to_num(probabilities)
    best = np.where(known, filled.argmax(axis=1) if called is None else called, -1)
    columns: dict[str, Any] = {
        "predicted": pd.Categorical.from_codes(best, categories=names),
        "confidence": np.where(known, filled[np.arange(len(best)), best], np.nan).astype(float),
    }
    chance = pd.DataFrame(probabilities.astype(float), table.index, [f"p_{name}" for name in names])
    plain = table.drop(columns=[*columns, *chance], errors="ignore").assign(**columns)
    return pd.concat([plain, chance], axis=1)  # column by column, pandas warns from a hundred classes on

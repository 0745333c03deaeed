"""Scores of an export as people use it."""

import os

import pandas as pd

from cnnlab._common import require_columns
from cnnlab.serving.predictor import Predictor


def validate(
    export: Predictor | str | os.PathLike[str],
    table: pd.DataFrame,
    *,
    by: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores an export on labelled images as it answers: its own file, preparation, temperature and threshold.

    Args:
        export: What `serving.export` wrote, or a `Predictor` of it.
        table: With path and label, images that the model has not learned from.
        by: As for `metrics.scores`.
        bootstrap: As for `metrics.scores`.
        seed: As for `metrics.scores`.

    Returns:
        What `metrics.scores` gives: metric, value, low, high.

    Raises:
        ValueError: If the table has other classes than the export.

    Example:
        >>> validate("runs/first/export", test)  # doctest: +SKIP
    """
    from cnnlab import metrics

    require_columns(table, "path", "label", caller="serving.validate")
    predictor = export if isinstance(export, Predictor) else Predictor(export)
    strange = [str(name) for name in table["label"].cat.categories if str(name) not in predictor.classes]
    if strange:
        raise ValueError(
            f"`serving.validate` expects the export's classes, {', '.join(predictor.classes[:20])}. Received also: "
            f"{', '.join(strange[:10])}."
        )
    predictions = predictor.table(table)
    return metrics.scores(predictions[predictions["predicted"].notna()], by=by, bootstrap=bootstrap, seed=seed)

"""What happens when the threshold moves: ROC, precision and recall, and choosing one for a stated purpose."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import sklearn.metrics

from cnnlab.metrics.formulas import divide
from cnnlab.metrics.predictions import (
    known_probabilities,
    outcome,
    require_class,
    required_probability,
    scored,
    with_calls,
)


def roc(predictions: pd.DataFrame) -> pd.DataFrame:
    """Traces, for each class against the rest, how many are found as more false alarms are allowed.

    Args:
        predictions: A table with label, predicted and p_<class>.

    Returns:
        Columns class, threshold, false_positive_rate, true_positive_rate, area (of the whole class), images (of the
        class), others (images of the other classes); thresholds fall. A class without images, or without others, has
        no curve.

    Raises:
        ValueError: If the table has no probabilities.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["cat", "cat", "dog"])
        >>> table = pd.DataFrame({"label": label, "predicted": label,
        ...                       "p_cat": [0.9, 0.6, 0.2], "p_dog": [0.1, 0.4, 0.8]})
        >>> metrics.roc(table)["area"].unique().tolist()
        [1.0]
    """
    parts = []
    for facts, positive, score in _each_class(predictions, caller="metrics.roc"):
        alarms, found, levels = sklearn.metrics.roc_curve(positive, score, drop_intermediate=False)
        rates = {"threshold": levels, "false_positive_rate": alarms, "true_positive_rate": found}
        area = sklearn.metrics.roc_auc_score(positive, score)
        parts.append(pd.DataFrame({"class": facts["class"], **rates, "area": area}).assign(**facts))
    return pd.concat(parts, ignore_index=True)


def precision_recall(predictions: pd.DataFrame) -> pd.DataFrame:
    """Traces, for each class against the rest, what finding more of it costs in precision.

    Args:
        predictions: A table with label, predicted and p_<class>.

    Returns:
        Columns class, threshold, recall, precision, area (average precision), share (of the images that are the class:
        the precision of calling everything so), images (of the class), others (images of the other classes);
        thresholds fall. A class without images, or without others, has no curve.

    Raises:
        ValueError: If the table has no probabilities.
    """
    parts = []
    for facts, positive, score in _each_class(predictions, caller="metrics.precision_recall"):
        precision, recall, levels = sklearn.metrics.precision_recall_curve(positive, score)
        rates = {"threshold": np.append(levels, np.inf), "recall": recall, "precision": precision}
        areas = {"area": sklearn.metrics.average_precision_score(positive, score), "share": positive.mean()}
        curve = pd.DataFrame({"class": facts["class"], **rates, **areas}).assign(**facts)
        parts.append(curve[::-1])
    return pd.concat(parts, ignore_index=True)


def _each_class(predictions: pd.DataFrame, *, caller: str) -> Iterator[tuple[dict[str, Any], np.ndarray, np.ndarray]]:
    """Name and images of each class that has some, and others; which images are it, and how likely each is."""
    seen = outcome(scored(predictions, caller=caller), caller=caller)
    chance = required_probability(seen.probability, caller=caller)
    sizes = np.bincount(seen.true, minlength=len(seen.classes))
    if sizes.max() == len(seen):
        raise ValueError(f"`{caller}` expects images of at least two classes. Received one class only.")
    for number in np.flatnonzero(sizes):
        facts = {"class": seen.classes[number], "images": sizes[number], "others": len(seen) - sizes[number]}
        yield facts, seen.true == number, chance[:, number]


def thresholds(
    predictions: pd.DataFrame, positive: str, *, miss_cost: float = 1.0, false_alarm_cost: float = 1.0
) -> pd.DataFrame:
    """Lists what each threshold on one class would do: an image is called `positive` from that probability up.

    Args:
        predictions: A table with label, predicted and p_<class>.
        positive: The class that matters: the defect, the tumour.
        miss_cost: What overlooking one costs, in any unit.
        false_alarm_cost: What one false alarm costs, in the same unit.

    Returns:
        Columns threshold, precision, recall, f1, false_positive_rate, flagged, misses, false_alarms (images), cost (of
        all mistakes); thresholds fall from inf, which flags nothing.

    Raises:
        ValueError: If `positive` is not a class, or has no images, or there are no probabilities, or a cost is below 0.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["ok", "ok", "crack", "crack"])
        >>> table = pd.DataFrame({"label": label, "predicted": label,
        ...                       "p_ok": [0.9, 0.6, 0.7, 0.2], "p_crack": [0.1, 0.4, 0.3, 0.8]})
        >>> metrics.thresholds(table, "crack", miss_cost=10)[["threshold", "recall", "false_alarms", "cost"]]
           threshold  recall  false_alarms  cost
        0        inf     0.0             0  20.0
        1        0.8     0.5             0  10.0
        2        0.4     0.5             1  11.0
        3        0.3     1.0             1   1.0
        4        0.1     1.0             2   2.0
    """
    caller = "metrics.thresholds"
    if not (0 <= miss_cost < np.inf and 0 <= false_alarm_cost < np.inf):
        raise ValueError(
            f"Costs expect numbers from 0 up. Received: miss_cost={miss_cost}, false_alarm_cost={false_alarm_cost}."
        )
    seen = outcome(scored(predictions, caller=caller), caller=caller)
    require_class(positive, seen.classes, caller=caller)
    chance, number = required_probability(seen.probability, caller=caller), seen.classes.index(positive)
    is_class = seen.true == number
    positives, negatives = int(is_class.sum()), int((~is_class).sum())
    if not positives:
        raise ValueError(f"`{caller}` expects images of {positive!r}. Received none among {len(seen)} rows.")
    _, alarms, _, hits, levels = sklearn.metrics.confusion_matrix_at_thresholds(is_class, chance[:, number])
    alarms, hits = (np.append(0, counts).astype(int) for counts in (alarms, hits))  # at first nothing is flagged
    return pd.DataFrame(
        {
            "threshold": np.append(np.inf, levels),
            "precision": divide(hits, hits + alarms, np.nan),
            "recall": hits / positives,
            "f1": divide(2 * hits, positives + hits + alarms),
            "false_positive_rate": divide(alarms, np.array(negatives), np.nan),
            "flagged": hits + alarms,
            "misses": positives - hits,
            "false_alarms": alarms,
            "cost": miss_cost * (positives - hits) + false_alarm_cost * alarms,
        }
    )


def choose_threshold(
    validation: pd.DataFrame,
    positive: str,
    *,
    recall: float | None = None,
    precision: float | None = None,
    miss_cost: float | None = None,
    false_alarm_cost: float | None = None,
) -> float:
    """Chooses the threshold for a stated purpose: a recall to reach, a precision to keep, or the least cost.

    Choose on validation images, then `apply_threshold` to the test images: a threshold chosen and scored on the same
    images looks better than it is.

    Args:
        validation: Predictions with p_<class>.
        positive: The class that matters.
        recall: Find at least this share of it, with as few alarms as possible.
        precision: Of the images flagged, at least this share must be right; find as many as possible.
        miss_cost: What overlooking one costs; the threshold with the least total cost is taken.
        false_alarm_cost: What one false alarm costs, in the same unit; 1 where None. Only with `miss_cost`.

    Returns:
        The threshold, for `apply_threshold`; inf means: never call it.

    Raises:
        ValueError: If not exactly one purpose is stated, or it cannot be reached.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["ok", "ok", "crack", "crack"])
        >>> table = pd.DataFrame({"label": label, "predicted": label,
        ...                       "p_ok": [0.9, 0.6, 0.7, 0.2], "p_crack": [0.1, 0.4, 0.3, 0.8]})
        >>> metrics.choose_threshold(table, "crack", recall=0.9)
        0.3
        >>> metrics.choose_threshold(table, "crack", miss_cost=0.5)
        0.8
    """
    stated = {"recall": recall, "precision": precision, "miss_cost": miss_cost}
    purpose = {name: value for name, value in stated.items() if value is not None}
    if len(purpose) != 1:
        raise ValueError(
            "`metrics.choose_threshold` expects one purpose: recall=…, precision=… or miss_cost=…. "
            f"Received: {', '.join(purpose) or 'none'}."
        )
    ((name, share),) = purpose.items()
    if false_alarm_cost is not None and miss_cost is None:
        raise ValueError(
            "`false_alarm_cost` is weighed against `miss_cost`; a recall or a precision to keep leaves nothing to "
            f"weigh. Received: {name}={share}, false_alarm_cost={false_alarm_cost}. Give both costs, or neither."
        )
    if miss_cost is None and not 0 < share <= 1:
        raise ValueError(f"`{name}` expects a share above 0 and up to 1. Received: {name}={share}.")
    costs = {} if miss_cost is None else {"miss_cost": miss_cost}
    costs |= {} if false_alarm_cost is None else {"false_alarm_cost": false_alarm_cost}
    table = thresholds(validation, positive, **costs)
    falling = table["threshold"].to_numpy()
    if recall is not None:
        return float(falling[np.argmax(table["recall"].to_numpy() >= recall - 1e-12)])
    if precision is None:
        return float(falling[table["cost"].argmin()])
    reached = np.flatnonzero(table["precision"].to_numpy() >= precision - 1e-12)
    if not len(reached):
        raise ValueError(
            f"No threshold on {positive!r} reaches a precision of {precision}; the best is "
            f"{table['precision'].max():.3f}. Ask for less, or improve the model."
        )
    return float(falling[reached[-1]])


def apply_threshold(predictions: pd.DataFrame, positive: str, threshold: float) -> pd.DataFrame:
    """Calls an image `positive` from a probability of `threshold` up, and otherwise the likeliest of the other classes.

    Args:
        predictions: A table with p_<class>, labelled or not.
        positive: The class that matters.
        threshold: From `choose_threshold`: a probability, 0 to 1, or inf, which calls nothing so.

    Returns:
        A copy with new `predicted` and `confidence` (the probability of what is predicted).

    Raises:
        ValueError: If `positive` is not a class, the threshold no probability, or there are no probabilities.

    Example:
        >>> import pandas as pd
        >>> from cnnlab import metrics
        >>> label = pd.Categorical(["ok", "crack"])
        >>> table = pd.DataFrame({"label": label, "p_ok": [0.9, 0.7], "p_crack": [0.1, 0.3]})
        >>> metrics.apply_threshold(table, "crack", 0.3)["predicted"].tolist()
        ['ok', 'crack']
    """
    if not (0 <= threshold <= 1 or threshold == np.inf):
        raise ValueError(
            f"`threshold` expects a probability from 0 to 1, or inf. Received: threshold={threshold}"
            f"{f'; did you mean {threshold / 100:g}?' if 1 < threshold <= 100 else '.'}"
        )
    classes, matrix, _ = known_probabilities(predictions, positive, caller="metrics.apply_threshold")
    called = matrix[:, list(classes).index(positive)] >= threshold
    return with_calls(predictions, classes, positive, called, matrix)

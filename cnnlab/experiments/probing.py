"""How far a frozen pretrained network gets without training: logistic regression on its features, fold by fold."""

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from cnnlab import tables
from cnnlab._answers import TINY, with_probabilities
from cnnlab._common import in_threads, require_columns
from cnnlab.experiments.frozen_features import features
from cnnlab.experiments.runner import checked_rows
from cnnlab.tables.linking import Group

C_TIMES_FEATURES = (1.0, 10.0, 100.0, 1000.0)  # from much to little regularisation, whatever the number of features
INNER_FOLDS = 3


def linear_probe(
    table: pd.DataFrame,
    network: str | keras.Model = "EfficientNetLite0",
    *,
    test: pd.DataFrame | None = None,
    folds: int = 5,
    group: Group = None,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Predicts each image by logistic regression on what a frozen network sees: a baseline in seconds.

    The figure that a trained network has to beat, and what `audit.label_issues` can start from before anything is
    trained. Features are standardised, and the strength of regularisation is chosen by the log loss of an inner
    cross-validation, both on training rows alone and with groups kept together. A network by name is asked for its
    features and for those of its finer maps (`pyramid=True` of `experiments.features`).

    Args:
        table: With the columns path and label; a column `split` is not looked at.
        network: A name of `models.table()`, with its ImageNet weights, or a keras.Model, as in `experiments.features`.
        test: Other rows. One probe then learns from the whole table and predicts these, as a trained network would;
            they need no label. Nothing is split into folds.
        folds: How many, 2 or more.
        group: A column whose equal values stay in one fold, or several, as in `tables.linked_groups`: None uses the
            column group where there is one, False none.
        image_size: Height and width in pixels for a network by name; those that it was trained on where None.
        seed: Decides the folds, the inner ones as well.

    Returns:
        A prediction table as `experiments.predict` gives, in the order and with the index of the table, with the column
        fold where there are any: each row is predicted by the probe that has not seen it. Images that cannot be read
        teach nothing and have no prediction.

    Raises:
        ValueError: If a class is smaller than the number of folds, labels are missing, or the readable training images
            show one class only.
        TypeError: If `network` is neither a name nor a keras.Model.
        FileNotFoundError: If the weights of this name are neither here nor to be fetched.

    Source:
        G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier probes" (2016);
        `sklearn.linear_model.LogisticRegression`.

    Example:
        >>> import tempfile
        >>> from cnnlab import experiments, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=4, size=32))
        ...     predictions = experiments.linear_probe(table, folds=2, image_size=(64, 64))
        >>> predictions["fold"].value_counts().tolist()
        [12, 12]
    """
    rows, whole, fold = _rows_and_folds(table, test, folds=folds, group=group, seed=seed)
    seen = features(network, whole, image_size=image_size, pyramid=isinstance(network, str))
    known, names = np.isfinite(seen).all(axis=1), rows["label"].cat.categories
    found = np.full((len(whole), len(names)), np.nan)

    def predict(number: int) -> None:
        learned, held_out = known & (fold != number), known & (fold == number)
        if held_out.any():
            probe = _fitted(seen[learned], rows[learned[: len(rows)]], group=group, seed=seed)
            found[held_out] = _probabilities(probe, seen[held_out], len(names))

    with threadpool_limits(1):  # the same numbers on any number of cores; folds share these
        in_threads(predict, np.unique(fold[fold >= 0]))
    asked = whole.set_axis(table.index) if test is None else test
    return with_probabilities(asked, found[fold >= 0], None if "label" in asked else list(names))


def _rows_and_folds(
    table: pd.DataFrame, test: pd.DataFrame | None, *, folds: int, group: Group, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Rows to learn from, these and all others, and the fold in which each of all is predicted, -1 where in none."""
    caller = "experiments.linear_probe"
    rows = checked_rows(table, caller=caller, seed=seed)
    missing, names = int(rows["label"].isna().sum()), list(rows["label"].cat.categories)
    if missing:
        raise ValueError(
            f"`{caller}` expects a label in every row that it learns from. Received {missing} rows without. Drop them, "
            "for example with table.dropna(subset=['label']), or pass them as `test`."
        )
    if test is None:
        rows = tables.folds(rows, count=folds, group=group, seed=seed)
        return rows, rows, rows["fold"].to_numpy()
    require_columns(test, "path", *(["label"] if "label" in test else []), caller=f"{caller}(test=…)")
    if "label" in test and list(test["label"].cat.categories) != names:
        raise ValueError(
            f"`{caller}` expects `test` with the classes of the table, in their order: {names}. Received "
            f"{list(test['label'].cat.categories)}. Use `test['label'].cat.set_categories([...])`."
        )
    whole = pd.concat([rows[["path"]], test[["path"]]])
    return rows, whole, np.repeat([-1, 0], [len(rows), len(test)])


def _fitted(seen: np.ndarray, rows: pd.DataFrame, *, group: Group, seed: int) -> Pipeline:
    """A probe of all these rows, regularised as predicts best from one inner part to another."""
    codes = rows["label"].cat.codes.to_numpy()
    if len(np.unique(codes)) < 2:
        raise ValueError(
            "`experiments.linear_probe` expects readable training images of two classes or more. Received "
            f"{len(codes)} of {rows['label'].nunique()}. `audit.scan` says what is wrong with the others."
        )
    strengths = [c / seen.shape[1] for c in C_TIMES_FEATURES]
    fewest = pd.Series(tables.linked_groups(rows, group)).groupby(codes).nunique().min()
    if fewest < 2:  # a class that is in one inner part only
        return _probe(strengths[1]).fit(seen, codes)
    inner = tables.folds(rows, count=int(min(INNER_FOLDS, fewest)), group=group, seed=seed)["fold"].to_numpy()
    probes, losses = [_probe() for _ in np.unique(inner)], [np.inf]
    for strength in strengths:
        loss = 0.0
        for number, probe in enumerate(probes):
            held_out = inner == number
            probe.set_params(logisticregression__C=strength).fit(seen[~held_out], codes[~held_out])
            found = _probabilities(probe, seen[held_out], codes.max() + 1)
            loss -= np.log(np.maximum(found[np.arange(len(found)), codes[held_out]], TINY)).sum()
        losses.append(loss)
        if loss > min(losses):
            break  # less and less regularisation only makes it worse
    return _probe(strengths[int(np.argmin(losses)) - 1]).fit(seen, codes)


def _probe(strength: float = 1.0) -> Pipeline:
    # From one strength to the next, the fit goes on from where it is.
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000, warm_start=True))


def _probabilities(probe: Pipeline, seen: np.ndarray, classes: int) -> np.ndarray:
    """Of all classes, 0 for those that the probe has not met."""
    found = np.zeros((len(seen), classes))
    found[:, probe.classes_] = probe.predict_proba(seen)
    return found

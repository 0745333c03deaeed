"""Which labels are probably wrong, from predictions by networks that have not seen the images."""

import warnings

import numpy as np
import pandas as pd

from cnnlab._common import require_columns

COLUMNS = ["path", "label", "suggested", "suspicion"]


def label_issues(predictions: pd.DataFrame) -> pd.DataFrame:
    """Ranks the images whose label is probably wrong, each with the label that the networks suggest.

    Needs predictions by networks that were not trained on the image, such as `experiments.linear_probe` gives in
    seconds, and `experiments.cross_validate` by training: a network that has memorized a wrong label does not object
    to it. Look at the images before you believe it: `widgets.relabel`, or `plots.images`.

    Args:
        predictions: A prediction table with `p_<class>` columns; several rows of one image (repeats) are averaged.

    Returns:
        path, label, suggested (Categorical like label), suspicion (0 to 1: one less the probability of the label, as
        the networks see it); only suspects, worst first. The index is that of `predictions`.

    Raises:
        KeyError: If a column of probabilities is missing.
        ValueError: If there are fewer than two classes with images.

    Warns:
        UserWarning: If the rows look as if they were predicted by a network that trained on them.

    Source:
        C. Northcutt, L. Jiang, I. Chuang, "Confident learning: estimating uncertainty in dataset labels" (2021), with
        `cleanlab.filter.find_label_issues`.

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from cnnlab import audit
        >>> label = pd.Categorical(["cat"] * 10 + ["dog"] * 10)
        >>> p_dog = np.r_[np.full(9, 0.1), 0.95, np.full(10, 0.9)]  # the tenth cat looks like a dog
        >>> paths = [f"{number}.jpg" for number in range(20)]
        >>> table = pd.DataFrame({"path": paths, "label": label, "p_cat": 1 - p_dog, "p_dog": p_dog})
        >>> audit.label_issues(table)[["path", "label", "suggested"]].values.tolist()
        [['9.jpg', 'cat', 'dog']]
    """
    table, labels, probability = _read(predictions, "audit.label_issues")
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of classes with one image or none, in which there is nothing to find
        suspects = find_label_issues(labels, probability, n_jobs=1)
    suspects &= probability.argmax(axis=1) != labels
    suspicion = 1 - get_label_quality_scores(labels, probability, method="self_confidence")
    order = np.flatnonzero(suspects)[np.argsort(-suspicion[suspects], kind="stable")]
    categories = table["label"].cat.categories
    suggested = pd.Categorical.from_codes(probability.argmax(axis=1), categories=categories)
    return table.assign(suggested=suggested, suspicion=suspicion).iloc[order][COLUMNS]


def label_noise(predictions: pd.DataFrame) -> pd.DataFrame:
    """Estimates for each class how many of its labels are wrong, and how many of its images are filed elsewhere.

    Args:
        predictions: As for `label_issues`.

    Returns:
        One row per class: label, images, wrong (share of the images so labelled that show another class, 0 to 1, NaN
        where there are none), missing (share of the images of the class that carry another label, 0 to 1), suspects
        (rows of `label_issues`).

    Raises:
        KeyError: If a column of probabilities is missing.

    Source:
        `cleanlab.dataset.rank_classes_by_label_quality`.

    Example:
        >>> import numpy as np
        >>> import pandas as pd
        >>> from cnnlab import audit
        >>> label = pd.Categorical(["cat"] * 10 + ["dog"] * 10)
        >>> p_dog = np.r_[np.full(9, 0.1), 0.95, np.full(10, 0.9)]
        >>> paths = [f"{number}.jpg" for number in range(20)]
        >>> table = pd.DataFrame({"path": paths, "label": label, "p_cat": 1 - p_dog, "p_dog": p_dog})
        >>> audit.label_noise(table)[["label", "images", "wrong", "suspects"]].round(3).values.tolist()
        [['cat', 10, 0.1, 1], ['dog', 10, 0.0, 0]]
    """
    table, labels, probability = _read(predictions, "audit.label_noise")
    from cleanlab.dataset import rank_classes_by_label_quality

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of classes without images; and `_read` has said once what it warns of
        found = rank_classes_by_label_quality(labels=labels, pred_probs=probability)
        suspects = label_issues(predictions)["label"].value_counts()
    found = found.set_index("Class Index").sort_index()
    categories = table["label"].cat.categories
    images = np.bincount(labels, minlength=len(categories))
    return pd.DataFrame(
        {
            "label": pd.Categorical(categories, categories=categories),
            "images": images,
            "wrong": found["Label Noise"].reindex(range(len(categories))).where(images > 0).to_numpy(),
            "missing": found["Inverse Label Noise"].reindex(range(len(categories))).to_numpy(),
            "suspects": suspects.reindex(categories, fill_value=0).to_numpy(),
        }
    )


def _read(predictions: pd.DataFrame, caller: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """One row per image and label that has probabilities, as table, class numbers and matrix."""
    require_columns(predictions, "path", "label", caller=caller)
    columns = [f"p_{name}" for name in predictions["label"].cat.categories]
    require_columns(predictions, *columns, caller=caller)
    if "fold" not in predictions and "split" in predictions and (predictions["split"] == "train").any():
        warnings.warn(
            f"`{caller}` expects predictions by networks that were not trained on these images. Received rows of the "
            "split 'train'. Use the predictions of `experiments.cross_validate(build, table, …)`.",
            UserWarning,
            stacklevel=3,
        )
    table = predictions[predictions[["label", *columns]].notna().all(axis=1)]
    if table["path"].duplicated().any():  # an image may have two labels, by two people
        means = table.groupby("path", sort=False)[columns].mean()
        table = table.drop_duplicates(["path", "label"])
        table = table.assign(**{column: means.loc[table["path"], column].to_numpy() for column in columns})
    labels = table["label"].cat.codes.to_numpy().astype(np.int64)
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"`{caller}` expects predictions of images of two or more classes. Received {len(table)} images with "
            f"label and probabilities, of {len(np.unique(labels))}."
        )
    probability = table[columns].to_numpy(np.float64)
    return table, labels, probability / probability.sum(axis=1, keepdims=True)

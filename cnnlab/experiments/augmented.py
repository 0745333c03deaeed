"""Test-time augmentation: asks the network about several views of each image and takes the mean of its answers."""

from dataclasses import replace

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import augment, models, pipelines
from cnnlab._answers import with_probabilities
from cnnlab._common import progress
from cnnlab.experiments.predicting import predict
from cnnlab.images.colours import luma
from cnnlab.images.sizing import Resize


def predict_augmented(
    model: keras.Model,
    table: pd.DataFrame,
    policy: augment.Policy,
    *,
    views: int = 8,
    seed: int = 0,
    batch_size: int = 64,
    resize: Resize | None = None,
) -> pd.DataFrame:
    """Predicts every image of a table from the untouched image and several augmented views of it.

    Costs `views` + 1 times as much as `experiments.predict`, and often gains what a somewhat larger network would. Use
    a policy no stronger than the one of the training, and decide on validation images whether it pays.

    Args:
        model: Carries its class names, as those of `cnnlab.models` do.
        table: With the column path; the order of its rows is kept.
        policy: What may happen to an image; operations that mix images have no meaning here.
        views: Augmented views of each image, 1 or more.
        seed: Decides the views.
        batch_size: Images at a time.
        resize: Another resize mode than the model's, for a trial.

    Returns:
        A prediction table, as `experiments.predict` gives.

    Raises:
        ValueError: If the table's classes are not the model's, `views` is below 1, or the policy mixes images.

    Example:
        >>> import tempfile
        >>> from cnnlab import augment, experiments, models, samples, tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = tables.from_folder(samples.inspection(folder + "/parts", per_class=1, size=32))
        ...     model = models.small_cnn(image_size=(32, 32), classes=table["label"].cat.categories, filters=(4,))
        ...     seen = experiments.predict_augmented(model, table, augment.Policy(flip="both"), views=2)
        >>> bool(seen["confidence"].between(0, 1).all())
        True
    """
    if not isinstance(policy, augment.Policy) or views < 1 or policy.mixes:
        raise ValueError(
            "`experiments.predict_augmented` expects `views` of 1 or more and an augment.Policy without `mixup` and "
            f"`cutmix`. Received: views={views}, {policy!r}."
        )
    plain = predict(model, table, batch_size=batch_size, resize=resize)
    prepared = models.preparation(model)
    colour = replace(prepared, channels=3, resize=resize or prepared.resize)  # in which policies work
    columns = [f"p_{name}" for name in models.class_names(model)]
    readable = np.flatnonzero(plain["predicted"].notna().to_numpy())
    total = plain[columns].to_numpy(np.float64, copy=True)
    rows = table.iloc[readable]
    if len(rows):
        rows = rows.assign(label=pd.Categorical(["any"] * len(rows)))
        data = pipelines.load(rows, like=colour, batch_size=batch_size, cache=False)
        place = 0
        for images, _ in progress(data.as_numpy_iterator(), label="views", total=len(data), unit="batch"):
            here = readable[place : place + len(images)]
            for view in range(views):
                changed = policy.apply(images, policy.sample(here, seed=seed, epoch=view))
                changed = luma(changed) if prepared.channels == 1 else changed
                total[here] += models.class_probabilities(model, model.predict_on_batch(changed))
            place += len(images)
    found = (total / (views + 1)).astype(np.float32)
    return with_probabilities(table, found, None if "label" in table else models.class_names(model))

import keras
import numpy as np
import pytest

from cnnlab import augment, experiments, models, pipelines


def test_it_is_the_mean_over_the_image_and_its_views(digits_model, digits):
    rows = digits[digits["split"] == "test"].head(40)
    policy = augment.Policy(shift=0.1, rotate=10)
    seen = experiments.predict_augmented(digits_model, rows, policy, views=3, seed=5, batch_size=16)
    images = np.concatenate([i for i, _ in pipelines.load(rows, image_size=(8, 8)).as_numpy_iterator()])
    answers = [digits_model.predict(images, verbose=0)]
    for view in range(3):
        drawn = policy.sample(np.arange(40), seed=5, epoch=view)
        answers.append(digits_model.predict(policy.apply(images, drawn), verbose=0))
    np.testing.assert_allclose(seen.filter(like="p_").to_numpy(), np.mean(answers, axis=0), atol=1e-5)
    assert seen.index.equals(rows.index)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_prepared_as_the_model_says(digits, channels):
    """A policy that does nothing gives what `predict` gives, of a grey network with one sigmoid as well."""
    rows = digits[digits["label"].isin(["0", "1"])].head(10)
    rows = rows.assign(label=rows["label"].cat.set_categories(["0", "1"]))
    shape = [keras.Input((12, 6, channels)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    network = keras.Sequential([*shape, keras.layers.Dense(1, activation="sigmoid")])
    model = models.with_classes(network, ["0", "1"], resize="pad")
    plain = experiments.predict(model, rows)
    seen = experiments.predict_augmented(model, rows.drop(columns="label"), augment.Policy(), views=2)
    np.testing.assert_allclose(seen.filter(like="p_"), plain.filter(like="p_"), atol=1e-6)


def test_impossible_views_are_refused(digits_model, digits):
    with pytest.raises(ValueError, match="views"):
        experiments.predict_augmented(digits_model, digits, augment.Policy(flip="both"), views=0)
    with pytest.raises(ValueError, match="mixup"):
        experiments.predict_augmented(digits_model, digits, augment.Policy(mixup=0.2))

import numpy as np
import pytest

from cnnlab import augment, experiments, pipelines


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


def test_impossible_views_are_refused(digits_model, digits):
    with pytest.raises(ValueError, match="views"):
        experiments.predict_augmented(digits_model, digits, augment.Policy(flip="both"), views=0)
    with pytest.raises(ValueError, match="mixup"):
        experiments.predict_augmented(digits_model, digits, augment.Policy(mixup=0.2))

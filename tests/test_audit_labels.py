"""Wrong labels from out-of-fold predictions, against planted truth and cleanlab's own answers."""

import numpy as np
import pandas as pd
import pytest
from cleanlab.count import estimate_joint
from cleanlab.filter import find_label_issues

from cnnlab import audit


def predictions_of(labels, classes, seed=0, strength=4.0, **columns):
    """Predictions by an imaginary network that mostly sees the truth `labels`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), len(classes)))
    logits[np.arange(len(labels)), labels] += strength
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = pd.DataFrame(
        {
            "path": [f"{number}.png" for number in range(len(labels))],
            "label": pd.Categorical.from_codes(labels, categories=classes),
        }
    )
    return table.assign(**{f"p_{name}": probability[:, code] for code, name in enumerate(classes)}, **columns)


@pytest.fixture
def noisy():
    """1,000 images of four classes, 50 of them with a wrong label; and which."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 1000)
    table = predictions_of(truth, ["a", "b", "c", "d"])
    wrong = rng.permutation(1000)[:50]
    codes = truth.copy()
    codes[wrong] = (truth[wrong] + rng.integers(1, 4, 50)) % 4
    table["label"] = pd.Categorical.from_codes(codes, dtype=table["label"].dtype)
    return table, wrong, truth


def test_planted_wrong_labels_are_found_and_put_right(noisy):
    table, wrong, truth = noisy
    suspects = audit.label_issues(table)
    found = set(suspects.index) & set(wrong)
    assert len(found) >= 0.8 * len(wrong)
    assert len(found) >= 0.6 * len(suspects)
    right = suspects.loc[sorted(found), "suggested"].cat.codes == truth[sorted(found)]
    assert right.mean() > 0.9
    assert suspects["suspicion"].is_monotonic_decreasing
    assert suspects.columns.tolist() == ["path", "label", "suggested", "suspicion"]
    assert suspects["suggested"].dtype == table["label"].dtype


def test_suspects_are_cleanlabs(noisy):
    table, _, _ = noisy
    labels, probability = table["label"].cat.codes.to_numpy().astype(int), table.filter(like="p_").to_numpy()
    suspects = audit.label_issues(table)
    assert sorted(suspects.index) == np.flatnonzero(find_label_issues(labels, probability)).tolist()
    expected = 1 - probability[suspects.index, labels[suspects.index]]
    np.testing.assert_allclose(suspects["suspicion"], expected, atol=1e-6)


def test_noise_of_each_class_is_cleanlabs(noisy):
    table, wrong, _ = noisy
    labels, probability = table["label"].cat.codes.to_numpy().astype(int), table.filter(like="p_").to_numpy()
    joint = estimate_joint(labels, probability)
    noise = audit.label_noise(table)
    np.testing.assert_allclose(noise["wrong"], 1 - joint.diagonal() / joint.sum(axis=1))
    np.testing.assert_allclose(noise["missing"], 1 - joint.diagonal() / joint.sum(axis=0))
    assert (noise["wrong"] * noise["images"]).sum() == pytest.approx(len(wrong), rel=0.3)
    assert noise["suspects"].sum() == len(audit.label_issues(table))


def test_repeats_are_averaged():
    table = predictions_of(np.repeat([0, 1], 20), ["a", "b"], fold=0)
    again = predictions_of(np.repeat([0, 1], 20), ["a", "b"], seed=1, fold=0)
    for part in (table, again):
        part.loc[3, ["p_a", "p_b"]] = 0.02, 0.98
    both = audit.label_issues(pd.concat([table, again], ignore_index=True))
    assert both["path"].tolist() == ["3.png"]
    assert both["suspicion"].tolist() == pytest.approx([0.98])


def test_classes_without_images_and_images_without_answer():
    table = predictions_of(np.repeat([0, 2], 30), ["a", "b", "c"])
    table.loc[[0, 1], "p_a"] = np.nan
    table.loc[2, "label"] = np.nan
    noise = audit.label_noise(table)
    assert noise["images"].tolist() == [27, 0, 30]
    assert noise["wrong"].isna().tolist() == [False, True, False]
    assert audit.label_issues(table)["path"].isin(["0.png", "1.png", "2.png"]).sum() == 0


def test_predictions_on_training_rows_are_warned_of():
    table = predictions_of(np.repeat([0, 1], 20), ["a", "b"], split="train")
    with pytest.warns(UserWarning, match="not trained on these images"):
        audit.label_issues(table)
    audit.label_issues(table.assign(fold=0))


def test_what_is_missing_is_named():
    table = predictions_of(np.repeat([0, 1], 20), ["a", "b"])
    with pytest.raises(KeyError, match="'p_b'"):
        audit.label_issues(table.drop(columns="p_b"))
    with pytest.raises(ValueError, match="two or more classes"):
        audit.label_noise(table[:20])


def test_an_image_with_two_labels_is_asked_about_both():
    """By two people, in any order of the rows."""
    table = predictions_of(np.arange(100) % 2, ["cat", "dog"], strength=8)
    other = table.iloc[[0]].assign(label=pd.Categorical(["dog"], ["cat", "dog"]))
    for rows in ([table, other], [other, table]):
        found = audit.label_issues(pd.concat(rows, ignore_index=True))
        assert (found["path"].tolist(), found["label"].tolist()) == (["0.png"], ["dog"])

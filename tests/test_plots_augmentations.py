"""The figure of a policy: a line of draws, then a line per operation with what was drawn."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import augment, plots


@pytest.fixture
def table(tmp_path):
    rows = []
    for number in range(7):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)).save(path)
        rows.append((str(path), "ab"[number % 2]))
    return pd.DataFrame(rows, columns=["path", "label"]).astype({"label": "category"})


def titles(ax):
    return [cell.get_title() for cell in ax.child_axes]


def test_a_line_of_draws_then_a_line_per_operation(table):
    policy = augment.Policy(flip="both", rotate=10, noise=5, erase=0.3)
    ax = plots.augmentations(table, policy, columns=5, size=24, row=1)
    found = titles(ax)
    assert found[:5] == ["b", "draw 1", "draw 2", "draw 3", "draw 4"]
    assert len(found) == 5 * 5
    assert found[5] == "flip as is" and found[9] == "flip both ways"
    assert found[10] == "rotate −10°" and found[14] == "rotate +10°"
    assert found[15] == "noise σ = 0.1" and found[19] in ("noise σ = 4.9", "noise σ = 5.0")


def test_the_first_picture_is_the_image_and_the_draws_differ(table):
    ax = plots.augmentations(table, augment.Policy(rotate=30), columns=3, size=24)
    shown = [np.asarray(cell.images[0].get_array()) for cell in ax.child_axes]
    with Image.open(table["path"][0]) as file:
        middle = file.crop((5, 0, 35, 30)).resize((24, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(shown[0], np.asarray(middle))
    assert not np.array_equal(shown[1], shown[2])


def test_mixers_show_the_parts_of_the_labels(table):
    ax = plots.augmentations(table, augment.Policy(mixup=1.0), columns=4, size=24)
    assert all(title.startswith("mixup ") and " % " in title for title in titles(ax)[4:])


def test_the_axes_given_are_drawn_on(table):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert plots.augmentations(table, augment.Policy(), size=24, ax=ax) is ax
    assert len(ax.child_axes) == 6
    with pytest.raises(ValueError, match="`row` must be from 0 to 6"):
        plots.augmentations(table, augment.light, row=7)


@pytest.mark.parametrize("operation", [name for name in augment.settings.RANGES if name not in ("mixup", "cutmix")])
def test_every_operation_has_words(operation):
    policy = augment.Policy(**{operation: 0.3})
    texts = policy.describe(policy.sample(4, seed=0))
    assert len(texts) == 4 and all(text.startswith(operation + " ") and len(text) < 24 for text in texts)

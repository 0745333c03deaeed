"""The views with sliders: what they compute, that they follow their controls, and the picture elsewhere."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.signal import correlate2d

from cnnlab import augment, metrics, plots, widgets
from cnnlab.exercises.answers import made_predictions


def picture(view):
    return np.asarray(Image.open(io.BytesIO(view._picture.value)).convert("RGB"))


@pytest.fixture
def views(parts):
    return {
        "policy": widgets.policy_sliders(parts, augment.Policy(rotate=10), size=32),
        "kernel": widgets.convolution(np.random.default_rng(0).integers(0, 256, (12, 9))),
        "threshold": widgets.threshold(made_predictions(seed=0), "crack", miss_cost=5),
    }


@pytest.mark.parametrize("name", ["policy", "kernel", "threshold"])
def test_without_a_person_only_the_picture_is_left(views, name, monkeypatch):
    view = views[name]
    quiet = view._repr_mimebundle_()
    assert set(quiet) == {"text/plain", "image/png"}
    monkeypatch.setattr("cnnlab.widgets.exploring.is_quiet", lambda: False)
    assert {"application/vnd.jupyter.widget-view+json", "image/png"} <= set(view._repr_mimebundle_())


def test_policy_sliders_make_the_policy_they_show(views):
    view = views["policy"]
    before = picture(view)
    assert view.policy == augment.Policy(rotate=10)
    view.sliders["noise"].value = 8
    view.flip.value = "both"
    assert view.policy == augment.Policy(rotate=10, noise=8, flip="both")
    assert "augment.Policy(flip=&#x27;both&#x27;, rotate=10.0, noise=8.0)" in view._words.value
    assert picture(view).shape != before.shape  # a line more for each operation
    view.row.value = 3
    view.sliders["rotate"].value = 0
    assert view.policy == augment.Policy(noise=8, flip="both")


def test_policy_sliders_keep_what_has_no_slider(parts):
    policy = augment.Policy(rotate=170, mixup=0.3, hue=0.1, fill="nearest")
    assert widgets.policy_sliders(parts, policy, size=16).policy == policy
    with pytest.raises(ValueError, match="rows of the table"):
        widgets.policy_sliders(parts, row=len(parts))


def test_convolution_computes_what_scipy_does(views):
    view = views["kernel"]
    assert np.allclose(view.result, correlate2d(view.image, view.kernel, mode="valid"))
    before = picture(view)
    view.known.value = "spot"
    assert view.kernel[1, 1] == 8
    view.boxes[0].value = -3.5
    assert np.allclose(view.result, correlate2d(view.image, view.kernel, mode="valid"))
    view.row.value = view.row.max
    view.column.value = view.column.max
    assert (view.row.max, view.column.max) == (9, 6)
    assert not np.array_equal(picture(view), before)


def test_convolution_takes_files_colours_and_large_images(parts):
    assert widgets.convolution(parts["path"].iloc[0]).image.shape == (32, 32)
    assert max(widgets.convolution(np.zeros((300, 200, 3)), np.ones((5, 5))).image.shape) <= 64
    for image, kernel, words in [
        (np.zeros(5), None, "`image` expects the shape"),
        (np.zeros((8, 8)), np.ones((2, 3)), "`kernel` expects"),
        (np.zeros((2, 2)), None, "at least as large"),
    ]:
        with pytest.raises(ValueError, match=words):
            widgets.convolution(image, kernel)
    with pytest.raises(ValueError, match="a place of the map"):
        plots.convolution(np.zeros((5, 5)), np.ones((3, 3)), np.zeros((3, 3)), at=(3, 0))


def test_threshold_starts_at_the_least_cost_and_tells_what_each_does(views):
    view = views["threshold"]
    predictions = view.predictions
    assert view.value == metrics.choose_threshold(predictions, "crack", miss_cost=5)
    cracks = predictions["label"] == "crack"
    for value in (0.0, 0.3, 0.7, 1.0):
        view.slider.value = value
        called = predictions["p_crack"] >= value
        missed, alarms = int((cracks & ~called).sum()), int((called & ~cracks).sum())
        words = f"{called.sum()} of 60 images flagged · {missed} of {cracks.sum()} missed · {alarms} false alarms"
        assert view._words.value.startswith(f"{words} · cost {5 * missed + alarms}")
    with pytest.raises(ValueError, match="one of the classes"):
        widgets.threshold(predictions, "dent")
    with pytest.raises(ValueError, match="p_<class>"):
        widgets.threshold(pd.DataFrame({"label": predictions["label"], "predicted": predictions["predicted"]}), "crack")

"""Policies: what is sampled, and that both engines do to pixels what a slow, plain reference does."""

import dataclasses

import cv2
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlab import augment
from cnnlab.augment import pixels, sampling
from cnnlab.augment.settings import MIXERS, RANGES
from cnnlab.images import sizing

SIZE = (60, 80)
SINGLE = {
    "flip": "both",
    "rotate": 40,
    "zoom": 0.3,
    "shift": 0.2,
    "shear": 20,
    "crop": 0.6,
    "brightness": 0.3,
    "contrast": 0.5,
    "saturation": 0.8,
    "hue": 0.5,
    "grayscale": 0.5,
    "blur": 2.0,
    "noise": 20,
    "erase": 0.4,
}
ISSUE = augment.Policy(
    flip="horizontal", rotate=10, zoom=0.1, shift=0.1, brightness=0.1, contrast=0.1, saturation=0.1, noise=4
)


@pytest.fixture(scope="module")
def images():
    """Smooth coloured patches with a few hard edges: real enough for interpolation to matter."""
    rng = np.random.default_rng(5)
    noise = rng.uniform(0, 255, (6, *SIZE, 3))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 3, 3, 0)) * 4 - 380
    smooth[:, 20:40, 30:50] = rng.uniform(0, 255, (6, 1, 1, 3))
    return np.clip(smooth, 0, 255).astype(np.uint8)


# The reference: one image, one step at a time, forward matrices inverted by numpy, floats throughout.


def moved(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def reference(image, policy, p):
    height, width = image.shape[:2]
    out = image.astype(float)
    if policy.moves or policy.flip:
        out = resampled(out, policy, p, height, width)
    if p.get("blur", 0) > 0.2:
        sigma = p["blur"]
        out = scipy.ndimage.gaussian_filter(out, (sigma, sigma, 0), mode="mirror", radius=int(np.ceil(3 * policy.blur)))
    out = out + p.get("brightness", 0)
    out = (out - 127.5) * p.get("contrast", 1) + 127.5
    grey = out @ [0.299, 0.587, 0.114]
    out = grey[..., None] + (out - grey[..., None]) * p.get("saturation", 1)
    if "hue" in p:
        axis = np.ones(3) / np.sqrt(3)
        rotation = scipy.spatial.transform.Rotation.from_rotvec(axis * 2 * np.pi * p["hue"]).as_matrix()
        out = out @ rotation.T
    if p.get("grayscale"):
        out = np.repeat((out @ [0.299, 0.587, 0.114])[..., None], 3, axis=-1)
    if "noise" in p:
        out = np.clip(out, 0, 255) if {"saturation", "hue", "grayscale"} & set(policy.operations) else out
        bank = pixels.noise_bank(image.size)[int(p["noise_at"]) :][: image.size].reshape(image.shape)
        out = out + (bank - 128.0) / 31 * p["noise"]
    out = np.clip(out, 0, 255)
    if "erase_x" in p:
        left, top = round(p["erase_x"] * width), round(p["erase_y"] * height)
        right, bottom = (p["erase_x"] + p["erase_width"]) * width, (p["erase_y"] + p["erase_height"]) * height
        out[top : round(bottom), left : round(right)] = 127
    return out


def resampled(image, policy, p, height, width):
    center = moved((width - 1) / 2, (height - 1) / 2)
    crop_width, crop_height = p.get("crop_width", 1), p.get("crop_height", 1)
    crop_center = moved(p.get("crop_x", 0.5) * width - 0.5, p.get("crop_y", 0.5) * height - 0.5)
    angle, shear = np.radians(p.get("rotate", 0)), np.tan(np.radians(p.get("shear", 0)))
    steps = [
        np.linalg.inv(crop_center),
        np.diag([1 / crop_width, 1 / crop_height, 1]),
        np.diag([1 - 2 * p.get("flip_x", 0), 1 - 2 * p.get("flip_y", 0), 1]),
        # counter-clockwise as seen, with y pointing down
        np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]),
        np.array([[1, -shear, 0], [0, 1, 0], [0, 0, 1]]),
        np.diag([p.get("zoom", 1), p.get("zoom", 1), 1]),
        center,
        moved(p.get("shift_x", 0) * width, p.get("shift_y", 0) * height),
    ]
    forward = np.eye(3)
    for step in steps:
        forward = step @ forward
    back = np.linalg.inv(forward)
    rows_columns = back[[1, 0]][:, [1, 0, 2]]
    mode = {"reflect": "reflect", "nearest": "nearest", "constant": "grid-constant"}[policy.fill]
    channels = [
        scipy.ndimage.affine_transform(image[..., c], rows_columns[:, :2], rows_columns[:, 2], order=1, mode=mode)
        for c in range(3)
    ]
    return np.stack(channels, axis=-1)


def far(policy, images, seed=0):
    """Mean distance of each engine from the reference, in grey levels."""
    sampled = policy.sample(len(images), seed=seed)
    one = [{name: values[index] for name, values in sampled.items()} for index in range(len(images))]
    expected = np.stack([reference(image, policy, p) for image, p in zip(images, one, strict=True)])
    fast = policy.apply(images, sampled)
    layer = np.asarray(policy.layer().apply(images, sampled))
    return np.abs(fast - expected).mean(), np.abs(layer - expected).mean()


def test_every_operation_is_tried_and_does_something(images):
    assert set(SINGLE) == {"flip", *RANGES} - set(MIXERS)
    assert {f"pick_{operation}" for operation in SINGLE} <= set(sampling.COLUMNS)
    for operation, value in SINGLE.items():
        policy = augment.Policy(**{operation: value})
        changed = policy.apply(images, policy.sample(len(images), seed=0))
        assert (changed != images).mean() > 0.01, operation


@pytest.mark.parametrize(
    ("operation", "fill"),
    [(operation, "reflect") for operation in SINGLE]
    + [(operation, fill) for operation in ("rotate", "zoom", "shift", "shear") for fill in ("nearest", "constant")],
)
def test_each_operation_is_what_the_reference_does(images, operation, fill):
    policy = augment.Policy(**{operation: SINGLE[operation]}, fill=fill)
    fast, layer = far(policy, images)
    assert fast <= 0.6  # rounding to whole grey levels alone is 0.25 on average
    assert layer <= 0.3


@pytest.mark.parametrize("policy", [ISSUE, augment.light, augment.medium, augment.strong, augment.rand(8)], ids=repr)
def test_policies_differ_from_the_reference_by_a_grey_level_at_most(images, policy):
    for seed in range(3):
        fast, layer = far(policy, images, seed)
        assert fast <= 1.0
        assert layer <= 0.6


def test_doing_nothing_returns_the_images(images):
    nothing = augment.Policy()
    np.testing.assert_array_equal(nothing.apply(images, nothing.sample(6, seed=0)), images)
    assert nothing.operations == ()
    whole = augment.Policy(rotate=1e-9)
    np.testing.assert_array_equal(whole.apply(images, whole.sample(6, seed=0)), images)
    layer = nothing.layer()
    np.testing.assert_array_equal(layer(images, training=True), images)


def test_the_layer_works_in_training_only_and_is_seeded(images):
    policy = ISSUE
    layer = policy.layer(seed=3)
    np.testing.assert_array_equal(layer(images, training=False), images)
    first, second = (np.asarray(layer(images, training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    again = policy.layer(seed=3)
    np.testing.assert_array_equal(again(images, training=True), first)
    assert first.dtype == np.float32 and first.min() >= 0 and first.max() <= 255


def test_a_model_with_the_layer_trains_saves_and_reloads(images, tmp_path):
    import keras

    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            augment.strong.layer(seed=0),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3),
        ]
    )
    model.compile("sgd", "mse")
    model.fit(images, np.zeros((6, 3)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].policy == augment.strong
    np.testing.assert_array_equal(loaded(images), model(images))


def test_the_layer_runs_inside_a_dataset(images):
    import tensorflow as tf

    layer = ISSUE.layer(seed=0)
    dataset = tf.data.Dataset.from_tensor_slices(images).batch(4).map(lambda batch: layer(batch, training=True))
    assert [batch.shape for batch in dataset.as_numpy_iterator()] == [(4, *SIZE, 3), (2, *SIZE, 3)]


# What is sampled


@given(
    rows=st.lists(st.integers(0, 10**6), min_size=1, max_size=20),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
)
def test_draws_depend_on_seed_epoch_and_row_alone(rows, seed, epoch):
    rows = np.array(rows)
    together = sampling.uniforms(seed, epoch, rows)
    assert together.shape == (len(rows), len(sampling.COLUMNS))
    assert (together >= 0).all() and (together < 1).all()
    for index in (0, -1):
        np.testing.assert_array_equal(sampling.uniforms(seed, epoch, rows[[index]])[0], together[index])
    for other in (
        sampling.uniforms(seed + 1, epoch, rows),
        sampling.uniforms(seed, epoch + 1, rows),
        sampling.uniforms(seed, epoch, rows + 1),
        sampling.uniforms(seed, epoch, rows, 1),
    ):
        assert (other != together).all()


def test_the_numbers_are_uniform_and_uncorrelated():
    numbers = sampling.uniforms(0, 0, np.arange(20_000))
    for column in range(numbers.shape[1]):
        assert scipy.stats.kstest(numbers[:, column], "uniform").pvalue > 1e-5
    correlation = np.corrcoef(numbers, rowvar=False) - np.eye(numbers.shape[1])
    assert np.abs(correlation).max() < 5 / np.sqrt(len(numbers))
    epochs = np.stack([sampling.uniforms(0, epoch, np.arange(20_000))[:, 2] for epoch in range(4)])
    assert np.abs(np.corrcoef(epochs) - np.eye(4)).max() < 5 / np.sqrt(20_000)


def test_the_former_name_still_works():
    policy = augment.Policy(rotate=10)
    with pytest.warns(DeprecationWarning, match="is now `policy.sample`"):
        former = policy.draw(3, seed=0, epoch=2)
    np.testing.assert_array_equal(former["rotate"], policy.sample(3, seed=0, epoch=2)["rotate"])


def test_switching_an_operation_on_leaves_the_others_alone():
    alone, more = augment.Policy(rotate=10), augment.Policy(rotate=10, flip="horizontal", crop=0.5, noise=3)
    np.testing.assert_array_equal(alone.sample(9, seed=1)["rotate"], more.sample(9, seed=1)["rotate"])


@pytest.mark.parametrize(
    ("policy", "name", "low", "high"),
    [
        (augment.Policy(rotate=10), "rotate", -10, 10),
        (augment.Policy(zoom=0.2), "zoom", 0.8, 1.2),
        (augment.Policy(shift=0.1), "shift_x", -0.1, 0.1),
        (augment.Policy(shift=0.1), "shift_y", -0.1, 0.1),
        (augment.Policy(shear=5), "shear", -5, 5),
        (augment.Policy(brightness=0.2), "brightness", -51, 51),
        (augment.Policy(contrast=0.3), "contrast", 0.7, 1.3),
        (augment.Policy(saturation=0.3), "saturation", 0.7, 1.3),
        (augment.Policy(hue=0.1), "hue", -0.1, 0.1),
        (augment.Policy(blur=2), "blur", 0, 2),
        (augment.Policy(noise=6), "noise", -6, 6),
    ],
)
def test_parameters_fill_their_range(policy, name, low, high):
    sampled = policy.sample(5000, seed=0)[name]
    assert low <= sampled.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < sampled.max() <= high


def test_chances_are_what_they_say():
    sampled = augment.Policy(flip="both", grayscale=0.25).sample(8000, seed=0)
    assert sampled["flip_x"].mean() == pytest.approx(0.5, abs=0.03)
    assert sampled["flip_y"].mean() == pytest.approx(0.5, abs=0.03)
    assert np.corrcoef(sampled["flip_x"], sampled["flip_y"])[0, 1] == pytest.approx(0, abs=0.05)
    assert sampled["grayscale"].mean() == pytest.approx(0.25, abs=0.03)
    assert "flip_y" not in augment.Policy(flip="horizontal").sample(3, seed=0)
    assert "flip_x" not in augment.Policy(flip="vertical").sample(3, seed=0)


def test_crops_stay_inside_and_keep_the_area_promised():
    sampled = augment.Policy(crop=0.7).sample(4000, seed=0)
    for side, at in (("crop_width", "crop_x"), ("crop_height", "crop_y")):
        assert (sampled[at] - sampled[side] / 2 >= -1e-9).all()
        assert (sampled[at] + sampled[side] / 2 <= 1 + 1e-9).all()
    area = sampled["crop_width"] * sampled["crop_height"]
    assert 0.3 * 0.75 <= area.min() < 0.35 and area.max() > 0.9
    magnification = augment.Policy(crop=0.7).magnification
    assert magnification >= max(1 / sampled["crop_width"].min(), 1 / sampled["crop_height"].min())


def test_erased_rectangles_have_the_area_promised():
    sampled = augment.Policy(erase=0.3).sample(4000, seed=0)
    area = sampled["erase_width"] * sampled["erase_height"]
    assert area.max() <= 0.3 + 1e-9 and area.mean() == pytest.approx(0.15, abs=0.01)
    assert (sampled["erase_x"] + sampled["erase_width"] <= 1 + 1e-9).all()


def test_noise_has_the_standard_deviation_drawn():
    policy = augment.Policy(noise=20)
    grey = np.full((40, 64, 64, 3), 128, np.uint8)
    sampled = policy.sample(40, seed=0)
    spread = policy.apply(grey, sampled).astype(float).std(axis=(1, 2, 3))
    np.testing.assert_allclose(spread, np.sqrt(sampled["noise"] ** 2 + 1 / 12), atol=0.35)
    assert np.abs(policy.apply(grey, sampled).astype(float).mean() - 128) < 0.1


def test_a_few_operations_are_picked_per_image():
    policy = augment.rand(5, count=2)
    sampled = policy.sample(3000, seed=0)
    neutral = {"zoom": 1, "contrast": 1, "saturation": 1}
    groups = {"flip": ["flip_x"], "shift": ["shift_x", "shift_y"], "erase": ["erase_width"]}
    active = np.zeros(3000)
    for operation in policy.operations:
        changed = [sampled[name] != neutral.get(name, 0) for name in groups.get(operation, [operation])]
        active += np.any(changed, axis=0)
    # a flip that is picked still tosses its coin
    assert (
        active.max() == 2
        and active.min() >= 1
        and active.mean() == pytest.approx(2 - 1 / len(policy.operations), abs=0.05)
    )


# Mixing


@pytest.mark.parametrize(
    "policy", [augment.Policy(mixup=0.4), augment.Policy(cutmix=1.0), augment.Policy(mixup=1, cutmix=1)]
)
def test_labels_are_mixed_by_the_share_of_the_pixels(policy):
    values = np.array([0, 50, 100, 150, 200, 250], np.uint8)
    batch = np.broadcast_to(values[:, None, None, None], (6, 30, 40, 3)).copy()
    labels = np.eye(6, dtype=np.float32)
    mixed, soft = policy.mix(batch, labels, policy.sample(6, seed=2))
    assert mixed.dtype == np.uint8 and soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    # constant images: the mean level is the labels' mean of levels, however they were mixed
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), soft @ values, atol=0.6)
    assert (soft.max(axis=1) < 1).any()


def test_mixup_shares_follow_the_beta_distribution():
    shares = augment.Policy(mixup=0.4).sample(4000, seed=0)["mix_up"]
    assert scipy.stats.kstest(shares, scipy.stats.beta(0.4, 0.4).cdf).pvalue > 1e-4
    both = augment.Policy(mixup=0.4, cutmix=1.0).sample(4000, seed=0)
    assert ((both["mix_up"] > 0) != (both["mix_cut"] > 0)).all()


def test_without_mixers_nothing_is_mixed(images):
    labels = np.eye(6, dtype=np.float32)
    assert ISSUE.mix(images, labels, ISSUE.sample(6, seed=0)) == (images, labels)
    with pytest.raises(ValueError, match="does not see the labels"):
        augment.Policy(mixup=0.2).layer()


# The description


def test_a_policy_reads_well_and_combines():
    policy = augment.Policy(flip="horizontal", rotate=10)
    assert repr(policy) == "Policy(flip='horizontal', rotate=10)"
    assert repr(augment.Policy()) == "Policy()"
    assert policy | augment.Policy(rotate=5, noise=4) == augment.Policy(flip="horizontal", rotate=5, noise=4)
    assert policy.only("rotate") == augment.Policy(rotate=10)
    assert augment.Policy(**policy.settings) == policy
    assert hash(policy) == hash(augment.Policy(flip="horizontal", rotate=10))
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.rotate = 3
    with pytest.raises(TypeError, match="unsupported operand"):
        policy | {"noise": 4}
    with pytest.raises(ValueError, match="flip, rotate"):
        policy.only("noise")


@settings(max_examples=30)
@given(st.fixed_dictionaries({}, optional={name: st.floats(0, 0.5) for name in list(SINGLE)[1:]}))
def test_combining_with_nothing_changes_nothing(values):
    policy = augment.Policy(**values)
    assert policy | augment.Policy() == policy == augment.Policy() | policy
    assert eval(repr(policy), {"Policy": augment.Policy}) == policy


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"rotate": "left"}, TypeError, "`rotate` must be a number from 0 to 180"),
        ({"rotate": True}, TypeError, "`rotate` must be a number"),
        ({"zoom": 2}, ValueError, "`zoom` must be between 0 .off. and 0.9"),
        ({"noise": -1}, ValueError, "noise=-1"),
        ({"hue": float("nan")}, ValueError, "hue=nan"),
        ({"flip": "sideways"}, ValueError, "`flip` must be one of None, 'horizontal', 'vertical', 'both'"),
        ({"fill": "blue"}, ValueError, "`fill` must be one of 'reflect'"),
        ({"pick": 0}, ValueError, "`pick` must be a whole number"),
        ({"pick": 1.5}, ValueError, "`pick` must be a whole number"),
    ],
)
def test_impossible_policies_are_refused_in_words(arguments, error, words):
    with pytest.raises(error, match=words):
        augment.Policy(**arguments)


def test_limits_themselves_are_allowed():
    for name, (largest, _, _) in augment.settings.RANGES.items():
        assert getattr(augment.Policy(**{name: largest}), name) == largest


def test_rand_scales_with_its_magnitude():
    assert augment.rand(0).operations == ()
    assert augment.rand(10).rotate == 30 and augment.rand(5).rotate == 15
    for wrong in (11, -1, "high", True):
        with pytest.raises(ValueError, match="`magnitude` must be a number from 0 to 10"):
            augment.rand(wrong)


def test_images_of_another_kind_are_refused(images):
    sampled = ISSUE.sample(6, seed=0)
    with pytest.raises(ValueError, match="float64 of shape"):
        ISSUE.apply(images / 255, sampled)
    with pytest.raises(ValueError, match="of shape"):
        ISSUE.apply(images[0], sampled)


# The check


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    import cv2
    import pandas as pd
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("digits")
    data = load_digits()
    rows = []
    for number, (image, label) in enumerate(zip(data.images, data.target, strict=True)):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), (image * 15.9).astype(np.uint8))
        rows.append((str(path), str(label)))
    return pd.DataFrame(rows, columns=["path", "label"]).astype({"label": "category"})


def test_mirrored_and_turned_digits_are_found_out(digits):
    policy = augment.Policy(flip="horizontal", rotate=10, brightness=0.1)
    with pytest.warns(UserWarning, match="flip='horizontal' costs") as caught:
        result = augment.check(policy, digits).set_index("operation")
    assert "rotate" not in str(caught[0].message)
    assert result["verdict"].to_dict() == {
        "flip": "likely changes labels",
        "rotate": "no harm seen",
        "brightness": "no harm seen",
    }
    assert (result["low"] <= result["change"]).all() and (result["change"] <= result["high"]).all()
    np.testing.assert_allclose(result["accuracy_with"] - result["accuracy"], result["change"])
    with pytest.warns(UserWarning, match="rotate=180 costs"):
        turned = augment.check(augment.Policy(rotate=180), digits, images=1000)
    assert turned["change"][0] < -0.03


def test_what_costs_the_linear_model_and_helps_the_curved_one_is_called_neither_harmful_nor_harmless(digits):
    shifted = augment.check(augment.Policy(shift=0.1), digits).iloc[0]
    assert shifted["high"] < 0
    assert shifted["verdict"] == "helps a stronger model"


def test_the_check_says_when_it_cannot_tell(digits):
    import pandas as pd

    rng = np.random.default_rng(0)
    guess = digits.head(120).assign(label=pd.Categorical(rng.choice(["a", "b"], 120)))
    result = augment.check(augment.Policy(flip="horizontal", mixup=0.2), guess)
    assert result["operation"].tolist() == ["flip"]
    assert result["verdict"][0].startswith("cannot tell")
    with pytest.raises(
        ValueError, match=r"two classes with at least 3 readable images each. Received: 5 readable of 5"
    ):
        augment.check(augment.light, digits[digits["label"] == "3"].head(5))
    lost = digits.head(9).assign(path="nowhere.png")
    with pytest.raises(ValueError, match="0 readable of 9"):
        augment.check(augment.light, lost)


# Large images


def test_a_strongly_reduced_image_does_not_flicker():
    """Lines one pixel wide become an even grey, where a plain warp that steps over four pixels picks some of them."""
    policy = augment.Policy(rotate=1e-9)
    lines = np.zeros((401, 403, 3), np.uint8)
    lines[:, ::2] = 255
    step = 401 / 90
    base = np.array([[step, 0, (step - 1) / 2], [0, step, (step - 1) / 2]])
    out = np.empty((90, 90, 3), np.uint8)
    policy.transform(policy.sample(1, seed=0), (90, 90))(0, lines, out, base=base)
    assert out.mean() == pytest.approx(127.5, abs=3) and out.std() < 3


@pytest.mark.parametrize("step", [1.9, 2.0, 3.0, 4.5])
def test_reducing_first_keeps_everything_in_place(step):
    y, x = np.mgrid[:300, :300]
    ramp = np.stack([x * 0.8, y * 0.8, (x + y) * 0.4], axis=-1).astype(np.uint8)
    base = np.array([[step, 0, 7.3], [0, step, 11.8]])
    size = int(250 / step)
    policy = augment.Policy(rotate=1e-9)
    out = np.empty((size, size, 3), np.uint8)
    policy.transform(policy.sample(1, seed=0), (size, size))(0, ramp, out, base=base)
    to_x, to_y = np.meshgrid(np.arange(size), np.arange(size))
    np.testing.assert_allclose(out[..., 0], np.clip((to_x * step + 7.3) * 0.8, 0, 240), atol=1.6)
    np.testing.assert_allclose(out[..., 1], np.clip((to_y * step + 11.8) * 0.8, 0, 240), atol=1.6)


def test_a_sliver_is_not_reduced_to_nothing():
    sliver = np.full((1, 500, 3), 9, np.uint8)
    matrix = np.array([[10.0, 0, 0], [0, 10.0, 0]])
    assert pixels.shrink(sliver, matrix, 10.0)[0] is sliver


@pytest.mark.parametrize("size", [(300, 1200), (1000, 260), (640, 480)])
def test_a_policy_that_does_nothing_shows_the_pixels_of_evaluation(size):
    """Steps that differ along x and y must not be averaged over blocks of one size."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (30, 40, 3), np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    policy = augment.Policy(rotate=1e-6)
    for target in ((64, 64), (40, 100)):
        out = np.empty((*target, 3), np.uint8)
        base = sizing.base_matrix(size, target, "stretch")
        policy.transform(policy.sample(1, seed=0), target)(0, image, out, base=base)
        expected = sizing.resize(image, target, "stretch")
        assert np.abs(out.astype(int) - expected).mean() < 2.5

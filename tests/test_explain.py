"""What `explain` says of a network, against perturbed pixels, TensorFlow's own profiler and published counts."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from cnnlab import explain, models


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype("float32")


def explained():
    """A network whose every weight matters."""
    model = models.small_cnn(image_size=(16, 12), classes=["a", "b", "c"], filters=(4, 6), dropout=0.0)
    rng = np.random.default_rng(0)
    model.set_weights([np.abs(rng.normal(0.1, 0.3, weight.shape)) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def functional():
    return explained()


@pytest.fixture(scope="module")
def sequential(functional):
    """The same network, its layers in a row, as beginners build it."""
    model = keras.Sequential([keras.Input((16, 12, 3)), *(layer for layer in functional.layers[1:])])
    return keras.models.clone_model(model), functional


@pytest.fixture(scope="module")
def nested(functional):
    """The same network, its body nested inside, as transfer learning builds it."""
    body = keras.Model(functional.input, functional.get_layer("relu_2").output, name="body")
    inputs = keras.Input((16, 12, 3))
    x = body(inputs)
    for layer in functional.layers[functional.layers.index(functional.get_layer("relu_2")) + 1 :]:
        x = layer(x)
    return keras.Model(inputs, x)


# --- the class in question ---


@pytest.mark.parametrize("explanation", [explain.grad_cam, explain.occlusion])
def test_a_number_that_is_another_classs_name_is_refused(explanation):
    model = models.small_cnn(image_size=(16, 12), classes=["1", "2", "0"], filters=(4,))
    image = pixels(16, 12, 3)
    for wanted in (1, np.int64(1), [1]):
        with pytest.raises(ValueError, match="Say '1' or the number 0: which is meant"):
            explanation(model, image, target=wanted)
    model = models.small_cnn(image_size=(16, 12), classes=["1", "2", "3"], filters=(4,))
    np.testing.assert_array_equal(explanation(model, image, target="1"), explanation(model, image, target=0))
    with pytest.raises(ValueError, match="expects `target` to be one of"):
        explanation(model, image, target=1.5)


# --- receptive fields ---


def support(model, layer):
    """Edges of the pixels that move the middle of a map, found by changing one pixel after another."""
    height, width = model.input_shape[1:3]
    inner = keras.Model(model.input, model.get_layer(layer).output)
    base = np.ones((1, height, width, 1), "float32")
    changed = np.repeat(base, height * width, axis=0)
    changed[np.arange(height * width), np.arange(height * width) // width, np.arange(height * width) % width] += 50
    maps = np.asarray(inner(np.concatenate([base, changed])))
    middle = maps[:, maps.shape[1] // 2, maps.shape[2] // 2].sum(axis=-1)
    seen = (np.abs(middle[1:] - middle[0]) > 1e-6 * np.abs(middle[0])).reshape(height, width)
    down, across = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    return down[0], across[0], down[-1] + 1, across[-1] + 1


WINDOWS = {
    "conv": lambda size, stride, padding: layers.Conv2D(1, size, strides=stride, padding=padding),
    "wide": lambda size, stride, padding: layers.Conv2D(1, size, dilation_rate=2, padding=padding),
    "depthwise": lambda size, stride, padding: layers.DepthwiseConv2D(size, strides=stride, padding=padding),
    "separable": lambda size, stride, padding: layers.SeparableConv2D(1, size, strides=stride, padding=padding),
    "max": lambda size, stride, padding: layers.MaxPooling2D(size, strides=stride, padding=padding),
    "mean": lambda size, stride, padding: layers.AveragePooling2D(size, strides=stride, padding=padding),
    "pad": lambda size, stride, padding: layers.ZeroPadding2D(((stride, size), (0, size))),
    "crop": lambda size, stride, padding: layers.Cropping2D(((1, 0), (0, stride))),
    "relu": lambda size, stride, padding: layers.ReLU(),
    "norm": lambda size, stride, padding: layers.BatchNormalization(),
}
ONE = st.tuples(
    st.sampled_from(sorted(WINDOWS)), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["same", "valid"])
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(ONE, min_size=1, max_size=4), st.integers(24, 31), st.integers(24, 31))
def test_receptive_fields_are_the_pixels_that_matter(windows, height, width):
    inputs = x = keras.Input((height, width, 1))
    for kind, size, stride, padding in windows:
        layer = WINDOWS[kind](size, stride, padding)
        if min(x.shape[1:3]) < 9:
            break
        x = layer(x)
    model = keras.Model(inputs, x)
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    for row in explain.receptive_fields(model).itertuples():
        try:
            top, left, bottom, right = support(model, row.layer)
        except IndexError:  # the place sees nothing but padding
            assert row.bottom <= 0 or row.top >= height or row.right <= 0 or row.left >= width
            continue
        for low, high, row_low, row_high, side in (
            (top, bottom, row.top, row.bottom, height),
            (left, right, row.left, row.right, width),
        ):
            assert max(row_low, 0) <= low < high <= min(row_high, side)
            if not any(kind == "wide" or (size < stride) for kind, size, stride, _ in windows) or (
                row_low >= 0 and row_high <= side
            ):  # windows with gaps may leave out the pixel at the image's rim
                assert (low, high) == (max(row_low, 0), min(row_high, side))


def test_branches_see_what_either_sees():
    inputs = keras.Input((20, 20, 1))
    one = layers.Conv2D(1, 1, strides=2, name="one")(inputs)
    other = layers.Conv2D(1, 5, strides=2, padding="same", name="other")(inputs)
    model = keras.Model(inputs, layers.Conv2D(1, 3, padding="same", name="end")(layers.Add(name="sum")([one, other])))
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    fields = explain.receptive_fields(model).set_index("layer")
    assert fields["field_height"].to_dict() == {"one": 1, "other": 5, "sum": 5, "end": 9}
    assert tuple(fields.loc["end", ["top", "left", "bottom", "right"]]) == support(model, "end")


def test_layers_that_mix_all_places_see_the_whole_image():
    inputs = keras.Input((20, 24, 3))
    x = layers.Conv2D(4, 3, padding="same", name="conv")(inputs)
    squeezed = layers.Reshape((1, 1, 4), name="reshape")(layers.GlobalAveragePooling2D(name="pool")(x))
    x = layers.Multiply(name="excite")([x, layers.Dense(4, name="dense")(squeezed)])
    x = layers.Conv2D(4, 3, name="after")(x)
    model = keras.Model(inputs, layers.UpSampling2D(name="up")(x))
    fields = explain.receptive_fields(model).set_index("layer")
    assert fields.loc["conv", "field_height"] == 3
    for layer in ("pool", "reshape", "dense", "excite", "after"):
        assert tuple(fields.loc[layer, ["field_height", "field_width"]]) == (20, 24), layer
    assert fields.loc["up"].isna()[["field_height", "top", "right"]].all()


def test_nested_and_sequential_models_have_the_same_fields(functional, nested, sequential):
    expected = explain.receptive_fields(functional).set_index("layer")["field_height"]
    inside = explain.receptive_fields(nested)
    assert "body/conv_2" in set(inside["layer"])
    assert inside["field_height"].tolist() == expected.tolist()
    assert explain.receptive_fields(sequential[0])["field_height"].tolist() == expected.tolist()


def test_published_receptive_fields():
    """Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, 2019: VGG-16 212, MobileNet 315."""
    vgg = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    assert explain.receptive_fields(vgg)["field_height"].iloc[-1] == 212
    mobile = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(224, 224, 3))
    assert explain.receptive_fields(mobile)["field_height"].iloc[-1] == 315


# --- costs ---


def profiled(model):
    """Multiply-adds as TensorFlow's profiler counts them in the graph."""
    import tensorflow as tf

    run = tf.function(lambda x: model(x, training=False))
    graph = run.get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    found = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    wanted = {"Conv2D", "DepthwiseConv2dNative", "MatMul"}
    total, waiting = 0, [found]
    while waiting:
        node = waiting.pop()
        waiting += list(node.children)
        total += node.float_ops if node.name in wanted else 0
    return total // 2


def test_multiply_adds_are_those_of_the_profiler():
    inputs = keras.Input((17, 23, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(inputs)
    x = layers.DepthwiseConv2D(5, depth_multiplier=2)(x)
    x = layers.SeparableConv2D(6, 3, padding="same")(x)
    x = layers.Conv2D(4, (1, 3))(layers.BatchNormalization()(x))
    x = layers.Dense(7)(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert explain.summary(model)["multiply_adds"].sum() == profiled(model)


@pytest.mark.parametrize(("name", "millions"), [("MobileNet", 569), ("MobileNetV2", 300)])
def test_published_multiply_adds(name, millions):
    """The counts of the papers: Howard et al., 2017, and Sandler et al., 2018."""
    model = getattr(keras.applications, name)(weights=None)
    table = explain.summary(model)
    assert round(table["multiply_adds"].sum() / 1e6) in (millions, millions + 1)
    assert table["parameters"].sum() == model.count_params()


def test_summary_counts_weights_once_and_what_learns(nested):
    model = models.pretrained("MobileNet", image_size=(32, 32), classes=["a", "b"], weights=None, alpha=0.25)
    models.unfreeze(model, share=0.2)
    table = explain.summary(model)
    assert table["parameters"].sum() == model.count_params()
    assert table["trainable"].sum() == sum(np.prod(weight.shape) for weight in model.trainable_weights)
    shared = layers.Dense(3)
    inputs = keras.Input((4, 4, 3))
    twice = keras.Model(inputs, shared(shared(inputs)))
    table = explain.summary(twice)
    assert table["parameters"].tolist() == [12, 0]
    assert table["multiply_adds"].tolist() == [144, 144]
    assert explain.summary(nested)["layer"].iloc[0] == "body/rescaling"


def test_open_image_sizes_are_said_to_be_open():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3)])
    table = explain.summary(model)
    assert table["output"].tolist() == ["? × ? × 2"]
    assert table["multiply_adds"].isna().all()
    with pytest.raises(ValueError, match="fixed image size"):
        explain.receptive_fields(model)


# --- filters and feature maps ---


def test_filters_are_the_layers_weights(functional, nested):
    kernel = functional.get_layer("conv_2").get_weights()[0]
    for model in (functional, nested):
        np.testing.assert_array_equal(explain.filters(model, "conv_2")[3, :, :, 1], kernel[:, :, 1, 3])
    assert explain.filters(functional).shape == (4, 3, 3, 3)
    depthwise = keras.Sequential([keras.Input((8, 8, 3)), layers.DepthwiseConv2D(5, depth_multiplier=2, name="deep")])
    kernel = depthwise.get_layer("deep").get_weights()[0]
    np.testing.assert_array_equal(explain.filters(depthwise)[3, :, :, 0], kernel[:, :, 1, 1])
    wide = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2DTranspose(5, 2, name="wide")])
    np.testing.assert_array_equal(
        explain.filters(wide)[4, :, :, 1], wide.get_layer("wide").get_weights()[0][:, :, 4, 1]
    )
    with pytest.raises(ValueError, match=r"name of a convolution.*Dense"):
        explain.filters(functional, "probabilities")
    with pytest.raises(ValueError, match=r"Received: 'conv_9', which none has"):
        explain.filters(functional, "conv_9")
    with pytest.raises(ValueError, match="model without one"):
        explain.filters(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))


def test_filters_of_a_separable_convolution_are_those_of_the_ordinary_one():
    model = keras.Sequential([keras.Input((8, 9, 3)), layers.SeparableConv2D(4, (3, 2), depth_multiplier=2)])
    image = pixels(8, 9, 3)
    kernel = explain.filters(model)
    assert kernel.shape == (4, 3, 2, 3)
    same = keras.ops.conv(image[None], kernel.transpose(1, 2, 3, 0))
    np.testing.assert_allclose(np.asarray(same), np.asarray(model(image[None])), rtol=1e-3, atol=1e-2)
    name = model.layers[0].name
    maps = explain.feature_maps(model, image)
    assert list(maps) == [name]
    np.testing.assert_allclose(maps[name], np.asarray(model(image[None]))[0], atol=1e-4)


def test_feature_maps_are_what_the_layers_pass_on(functional, nested):
    image = pixels(16, 12, 3)
    for layer in ("conv_1", "relu_1", "pool_1", "relu_2"):
        expected = np.asarray(keras.Model(functional.input, functional.get_layer(layer).output)(image[None]))[0]
        for model in (functional, nested):
            np.testing.assert_allclose(explain.feature_maps(model, image, layers=[layer])[layer], expected, atol=1e-6)
    assert list(explain.feature_maps(nested, image)) == ["relu_1", "relu_2"]
    with pytest.raises(ValueError, match="'probabilities' passes"):
        explain.feature_maps(functional, image, layers=["probabilities"])
    with pytest.raises(ValueError, match="Received 2 images"):
        explain.feature_maps(functional, pixels(2, 16, 12, 3))


# --- Grad-CAM and occlusion ---


def textbook_grad_cam(model, images, layer, target):
    """A tape from the maps of one layer of a row of layers to the score of a class, and weighted maps."""
    import tensorflow as tf

    scores = model.get_layer("probabilities")
    maps = tf.convert_to_tensor(np.asarray(keras.Model(model.input, model.get_layer(layer).output)(images)))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        rest = maps
        for step in model.layers[model.layers.index(model.get_layer(layer)) + 1 :]:
            if step is scores:
                rest = rest @ scores.kernel + scores.bias
                break
            rest = step(rest, training=False) if isinstance(step, layers.BatchNormalization) else step(rest)
        score = tf.reduce_sum(rest[:, target])
    slopes = np.asarray(tape.gradient(score, maps)).mean(axis=(1, 2), keepdims=True)
    return heat_of(np.asarray(maps), slopes, images.shape[1:3])


def heat_of(maps, weights, size):
    """Weighted maps, what speaks against left out, enlarged, the strongest place of each image 1."""
    import tensorflow as tf

    heat = np.maximum((maps * weights).sum(axis=-1), 0)
    heat = np.asarray(tf.image.resize(heat[..., None], size))[..., 0]
    return heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-30)


@pytest.mark.parametrize("layer", ["relu_1", "pool_1", "conv_2", "relu_2"])
@pytest.mark.parametrize("target", ["a", "c"])
def test_grad_cam_is_the_textbooks(functional, layer, target):
    images = pixels(3, 16, 12, 3)
    expected = textbook_grad_cam(functional, images, layer, "abc".index(target))
    np.testing.assert_allclose(explain.grad_cam(functional, images, target=target, layer=layer), expected, atol=1e-4)


def test_grad_cam_is_the_same_however_the_model_is_built(functional, sequential, nested):
    images = pixels(2, 16, 12, 3)
    expected = explain.grad_cam(functional, images, target=[0, 2])
    assert expected.max() == pytest.approx(1)
    row, model = sequential[0], sequential[1]
    row.set_weights(model.get_weights())

    np.testing.assert_allclose(explain.grad_cam(row, images, target=[0, 2]), expected, atol=1e-5)
    np.testing.assert_allclose(explain.grad_cam(nested, images, target=[0, 2]), expected, atol=1e-5)
    one = explain.grad_cam(functional, images[1], target="c")
    np.testing.assert_allclose(one, expected[1], atol=1e-5)


class Own(keras.Model):
    """A network in Python code of its own, around layers or networks that were built before."""

    def __init__(self, *inside):
        super().__init__()
        self.inside = list(inside)

    def call(self, images, training=None):
        images = keras.ops.add(images, 0.0)
        for part in self.inside:
            images = part(images)
        return images


@pytest.mark.parametrize("parts", ["whole", "layers"])
def test_a_subclassed_model_is_explained_like_its_layers(functional, parts):
    images = pixels(2, 16, 12, 3)
    model = Own(functional) if parts == "whole" else Own(*functional.layers[1:])
    nodes = [len(layer._inbound_nodes) for layer in functional.layers]
    found = explain.grad_cam(model, images, target=[0, 2])
    np.testing.assert_allclose(found, explain.grad_cam(functional, images, target=[0, 2]), atol=1e-5)
    maps, expected = (explain.feature_maps(one, images[0]) for one in (model, functional))
    assert list(maps) == list(expected)
    np.testing.assert_allclose(maps["relu_2"], expected["relu_2"], atol=1e-6)
    tables = [explain.summary(one)[["kind", "parameters", "multiply_adds"]] for one in (functional, model)]
    assert tables[1]["kind"].iloc[0] == "Add"
    assert tables[1].iloc[1:].reset_index(drop=True).equals(tables[0])
    sizes = explain.receptive_fields(model)["field_height"]
    assert sizes.iloc[1:].tolist() == explain.receptive_fields(functional)["field_height"].tolist()
    assert [len(layer._inbound_nodes) for layer in functional.layers] == nodes


def test_a_subclassed_network_nested_in_another_is_looked_into(functional):
    images = pixels(2, 16, 12, 3)
    layers_of = functional.layers[1:]
    for inside, outside in ((layers_of[:4], layers_of[4:]), (layers_of[4:], [])):
        body, inputs = Own(*inside), keras.Input((16, 12, 3))
        x = inputs
        for part in [body, *outside] if outside else [*layers_of[:4], body]:
            x = part(x)
        found = explain.grad_cam(keras.Model(inputs, x), images, target=[0, 2], layer="relu_1")
        expected = explain.grad_cam(functional, images, target=[0, 2], layer="relu_1")
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_network_that_keras_cannot_follow_is_refused_in_words(functional):
    import tensorflow as tf

    class Raw(Own):
        def call(self, images):
            return tf.nn.softmax(self.inside[0](images))

    with pytest.raises(TypeError, match=r"applies only Keras layers and `keras.ops`.*Received Raw"):
        explain.grad_cam(Raw(functional), pixels(16, 12, 3))
    inputs = [keras.Input((16, 12, 3)), keras.Input((16, 12, 3))]
    with pytest.raises(TypeError, match=r"one input, the image\. Received 'pair', which has 2"):
        explain.summary(keras.Model(inputs, layers.Add()(inputs), name="pair"))
    both = keras.Model(functional.input, [functional.output, functional.get_layer("relu_2").output], name="both")
    for explained in (explain.grad_cam, explain.occlusion):
        with pytest.raises(ValueError, match=r"one output, a number for each class. 'both' gives 2"):
            explained(both, pixels(16, 12, 3))
    assert list(explain.feature_maps(both, pixels(16, 12, 3))) == ["relu_1", "relu_2"]


HEADS = {
    "softmax layer": lambda: [layers.Softmax()],
    "activation": lambda: [layers.Activation("softmax")],
    "dropout after": lambda: [layers.Activation("softmax"), layers.Dropout(0.3, name="after"), layers.Identity()],
    "float32 activation": lambda: [layers.Activation("linear"), layers.Activation("softmax", dtype="float32")],
    "operation": lambda: [keras.ops.softmax],
    "several sigmoids": lambda: [layers.Activation("sigmoid")],
    "no softmax": lambda: [],
}


@pytest.mark.parametrize("head", HEADS)
def test_the_score_is_that_before_the_softmax_however_the_model_ends(functional, head):
    images = pixels(2, 16, 12, 3)
    last = functional.get_layer("probabilities")
    scores = layers.Dense(3, name="scores")
    x = scores(last.input)
    for layer in HEADS[head]():
        x = layer(x)
    model = keras.Model(functional.input, x)
    scores.set_weights(last.get_weights())
    for target in (0, 2):
        expected = textbook_grad_cam(functional, images, "relu_2", target)
        assert expected.max() > 0
        np.testing.assert_allclose(explain.grad_cam(model, images, target=target), expected, atol=1e-4)


@pytest.mark.parametrize("apart", [False, True])
def test_one_sigmoid_speaks_for_the_second_class_and_against_the_first(functional, apart):
    import tensorflow as tf

    images = pixels(4, 16, 12, 3)
    last = functional.get_layer("probabilities")
    dense = layers.Dense(1, activation=None if apart else "sigmoid", name="one")
    x = dense(last.input)
    model = keras.Model(functional.input, layers.Activation("sigmoid")(x) if apart else x)
    kernel = np.random.default_rng(1).normal(size=dense.kernel.shape)
    features = np.asarray(keras.Model(model.input, last.input)(images))
    dense.set_weights([kernel, -np.median(features @ kernel, axis=0)])  # half of the images are either class
    maps = tf.convert_to_tensor(np.asarray(keras.Model(model.input, functional.get_layer("relu_2").output)(images)))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        score = tf.reduce_sum(functional.get_layer("global_pool")(maps) @ dense.kernel)
    slopes = np.asarray(tape.gradient(score, maps)).mean(axis=(1, 2), keepdims=True)
    against, speaks = (heat_of(np.asarray(maps), sign * slopes, (16, 12)) for sign in (-1, 1))
    np.testing.assert_allclose(explain.grad_cam(model, images, target=1), speaks, atol=1e-4)
    np.testing.assert_allclose(explain.grad_cam(model, images, target=0), against, atol=1e-4)
    second = np.asarray(model(images))[:, 0] >= 0.5
    assert 0 < second.sum() < 4
    expected = np.where(second[:, None, None], speaks, against)
    np.testing.assert_allclose(explain.grad_cam(model, images), expected, atol=1e-4)
    lost = explain.occlusion(model, images[0], target=1, patch=8)
    np.testing.assert_allclose(lost, -explain.occlusion(model, images[0], target=0, patch=8), atol=1e-6)
    with pytest.raises(ValueError, match="a class number from 0 to 1"):
        explain.grad_cam(model, images, target=2)


@pytest.fixture(scope="module")
def spots():
    """Bright squares on noise, and a network that answers "spot" by a large mean in any 4×4 window."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (6, 32, 32, 1)).astype("float32")
    corners = rng.integers(2, 24, (6, 2))
    for image, (top, left) in zip(images, corners, strict=True):
        image[top : top + 6, left : left + 6] = 250
    inputs = keras.Input((32, 32, 1))
    x = layers.Conv2D(2, 5, padding="same", activation="relu", name="conv")(inputs)
    x = layers.GlobalMaxPooling2D()(x)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax", name="probabilities")(x))
    kernel = np.ones((5, 5, 1, 2), "float32") / 25 * [1, -1]
    dense = np.array([[0.05, -0.05], [0, 0]], "float32")
    model.set_weights([kernel, np.array([-120.0, 255.0]), dense, np.array([-2.0, 2.0])])
    return model, images, corners


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_the_heat_is_where_the_reason_is(spots, method):
    model, images, corners = spots
    assert (np.asarray(model(images)).argmax(axis=1) == 0).all()
    heat = getattr(explain, method)(model, images)
    for one, (top, left) in zip(heat, corners, strict=True):
        row, column = np.unravel_index(one.argmax(), one.shape)
        assert top - 1 <= row <= top + 6
        assert left - 1 <= column <= left + 6
        inside = one[top : top + 6, left : left + 6].mean()
        assert inside > 4 * (one.sum() - 36 * inside) / (one.size - 36)


def test_nothing_speaks_for_a_class_that_only_loses(spots):
    model, images, _ = spots
    assert (explain.grad_cam(model, images, target=1) == 0).all()
    assert (explain.grad_cam(model, images, target=0).max(axis=(1, 2)) == 1).all()


def test_occlusion_is_the_loss_in_probability(functional):
    image = pixels(16, 12, 3)
    heat = explain.occlusion(functional, image, target="b", patch=5, stride=3, fill=100, batch_size=3)
    lost, times = np.zeros((16, 12)), np.zeros((16, 12))
    whole = np.asarray(functional(image[None]))[0, 1]
    for top in (0, 3, 6, 9, 11):
        for left in (0, 3, 6, 7):
            covered = image.copy()
            covered[top : top + 5, left : left + 5] = 100
            lost[top : top + 5, left : left + 5] += whole - np.asarray(functional(covered[None]))[0, 1]
            times[top : top + 5, left : left + 5] += 1
    np.testing.assert_allclose(heat, lost / times, atol=1e-5)


def test_looking_leaves_the_model_as_it_was(functional):
    image = pixels(16, 12, 3)
    weights = [weight.copy() for weight in functional.get_weights()]
    before = np.asarray(functional(image[None]))
    nodes = [len(layer._inbound_nodes) for layer in functional.layers]
    explain.feature_maps(functional, image)
    explain.grad_cam(functional, image)
    explain.occlusion(functional, image, patch=8)
    with pytest.raises(ValueError, match="passes on an array"):
        explain.grad_cam(functional, image, layer="global_pool")
    np.testing.assert_array_equal(np.asarray(functional(image[None])), before)
    for weight, expected in zip(functional.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert [len(layer._inbound_nodes) for layer in functional.layers] == nodes
    assert all("call" not in vars(layer) for layer in functional.layers)
    assert functional.get_layer("probabilities").activation is keras.activations.softmax


def test_the_model_is_itself_while_it_is_explained(functional):
    """A layer inside looks around whenever it runs: nothing may be patched for others to see, not for a moment."""
    seen = []

    class Watching(layers.Layer):
        def call(self, x):
            seen.append(all("call" not in vars(layer) for layer in functional.layers))
            seen.append(last.activation is keras.activations.softmax)
            return x

    watching, last = Watching(), layers.Dense(3, activation="softmax")
    x = watching(functional.get_layer("relu_2").output)
    model = keras.Model(functional.input, last(layers.GlobalAveragePooling2D()(x)), name="watched")
    seen.clear()
    explain.grad_cam(model, pixels(16, 12, 3))
    explain.grad_cam(model, pixels(16, 12, 3), layer="relu_1")
    explain.feature_maps(model, pixels(16, 12, 3), layers=[watching.name])
    assert len(seen) >= 6
    assert all(seen)


def test_pretrained_networks_are_explained(tmp_path):
    for name in ("MobileNetV2", "VGG16", "EfficientNetB0"):
        model = models.pretrained(name, image_size=(64, 48), classes=["a", "b"], weights=None)
        image = pixels(64, 48, 3)
        heat = explain.grad_cam(model, image, target="b")
        # behind a global mean pooling and one dense layer, Grad-CAM is the class activation map of Zhou et al., 2016
        maps = np.asarray(keras.Model(model.input, model.get_layer("global_pool").input)(image[None]))
        kernel = model.get_layer("probabilities").get_weights()[0]
        np.testing.assert_allclose(heat, heat_of(maps, kernel[:, 1], (64, 48))[0], atol=1e-3)
        assert explain.summary(model)["parameters"].sum() == model.count_params()
        assert len(explain.receptive_fields(model)) == len(explain.summary(model))
        keras.backend.clear_session()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"images": np.zeros((8, 8, 3))}, r"size \(16, 12, 3\)"),
        ({"images": np.zeros((16, 12))}, r"Received an array of shape \(16, 12\)"),
        ({"images": np.full((16, 12, 3), 0.5)}, "Do not divide by 255"),
        ({"images": np.full((16, 12, 3), -1.0)}, "raw pixels 0-255"),
        ({"images": np.full((16, 12, 3), 4095.0)}, "raw pixels 0-255"),
        ({"target": "d"}, "one of .'a', 'b', 'c'."),
        ({"target": 3}, "Received: 3"),
        ({"target": [0, 1]}, "one for each image"),
        ({"layer": "conv_7"}, "such as conv_1"),
    ],
)
def test_what_cannot_be_explained_is_refused(functional, arguments, words):
    with pytest.raises(ValueError, match=words):
        explain.grad_cam(functional, **{"images": pixels(16, 12, 3)} | arguments)


@pytest.mark.parametrize("arguments", [{"patch": 0}, {"patch": 13}, {"patch": 4, "stride": 5}])
def test_squares_that_do_not_fit_are_refused(functional, arguments):
    with pytest.raises(ValueError, match="`patch` from 1 to 12"):
        explain.occlusion(functional, pixels(16, 12, 3), **arguments)


def test_models_that_keras_cannot_see_through_are_refused():
    class Own(keras.Model):
        def call(self, images):
            return images

    with pytest.raises(TypeError, match="Functional or Sequential"):
        explain.summary(Own())


def test_a_network_of_half_precision_throughout_is_explained():
    keras.config.set_floatx("float16")
    try:
        model = keras.Sequential(
            [
                keras.Input((16, 16, 3)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Conv2D(4, 3, activation="relu"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        heat = explain.grad_cam(model, pixels(16, 16, 3), target=1)
    finally:
        keras.config.set_floatx("float32")
    same = keras.models.clone_model(model, clone_function=lambda layer: _in_float32(layer))
    same.set_weights(model.get_weights())
    np.testing.assert_allclose(heat, explain.grad_cam(same, pixels(16, 16, 3), target=1), atol=0.02)


def _in_float32(layer):
    return type(layer).from_config(layer.get_config() | {"dtype": "float32"})


def test_paths_are_refused_with_what_to_do(functional):
    with pytest.raises(TypeError, match=r"expects pixels, such as `images.prepare\(path"):
        explain.grad_cam(functional, "picture.png")

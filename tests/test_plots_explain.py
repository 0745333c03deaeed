import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from cnnlab import explain, models, plots


@pytest.fixture(scope="module")
def model():
    return models.small_cnn(image_size=(16, 12), classes=["a", "b"], filters=(4, 6))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (16, 12, 3)).astype("float32")


def shown(cell):
    return np.asarray(cell.images[0].get_array(), dtype=float)


def test_filters_are_drawn_around_grey():
    weights = np.zeros((40, 3, 3, 1))
    weights[0, 0, 0], weights[0, 1, 1] = 2, -1
    ax = plots.filters(weights, count=10)
    assert len(ax.child_axes) == 10
    first = shown(ax.child_axes[0])
    assert (first[0, 0], first[1, 1], first[2, 2]) == (255, 63, 127)
    assert (shown(ax.child_axes[1]) == 127).all()
    assert ax.get_title(loc="left") == "10 of 40 filters, 3 × 3"
    assert shown(plots.filters(np.ones((2, 3, 3, 3))).child_axes[0]).shape == (3, 3, 3)
    assert shown(plots.filters(np.ones((2, 3, 3, 8))).child_axes[0]).shape == (3, 3)
    with pytest.raises(ValueError, match=r"Received shape \(3, 3\)"):
        plots.filters(np.ones((3, 3)))


def test_feature_maps_show_the_strongest_first(model, image):
    maps = explain.feature_maps(model, image)
    ax = plots.feature_maps(maps, image=image, count=5)
    assert len(ax.child_axes) == 2 * 6
    order = np.argsort(-maps["relu_1"].max(axis=(0, 1)))
    titles = [cell.get_title() for cell in ax.child_axes]
    assert titles[1] == f"relu_1, 16 × 12\nfeature {order[0]}"
    assert titles[2:5] == [f"feature {one}" for one in order[1:4]]
    assert titles[5] == ""
    strongest = maps["relu_1"][..., order[0]]
    np.testing.assert_allclose(shown(ax.child_axes[1]), 255 * strongest / strongest.max(), atol=1)
    with pytest.raises(ValueError, match="at least one layer"):
        plots.feature_maps({})


def test_receptive_fields_are_drawn_where_the_table_says(model, image):
    fields = explain.receptive_fields(model)
    ax = plots.receptive_field(fields, image)
    boxes = {box.get_label(): box for box in ax.patches if isinstance(box, Rectangle)}
    for row in fields[fields["kind"] == "Conv2D"].itertuples():
        box = boxes[f"{row.layer}: {row.field_height} × {row.field_width}"]
        assert box.get_xy() == (row.left - 0.5, row.top - 0.5)
        assert (box.get_width(), box.get_height()) == (row.right - row.left, row.bottom - row.top)
    given = plt.figure().gca()
    assert plots.receptive_field(fields, image, layers=["pool_1"], ax=given) is given
    with pytest.raises(ValueError, match="Received: conv_7"):
        plots.receptive_field(fields, image, layers=["conv_7"])
    with pytest.raises(ValueError, match="without"):
        plots.receptive_field(fields[:0], image)


def test_deep_networks_show_some_of_their_layers():
    deep = models.residual_cnn(image_size=(32, 32), classes=["a", "b"], filters=(4, 8, 8))
    ax = plots.receptive_field(explain.receptive_fields(deep), np.zeros((32, 32, 3)))
    assert len(ax.patches) == 7


def test_all_layers_that_are_asked_for_are_drawn():
    deep = models.residual_cnn(image_size=(32, 32), classes=["a", "b"], filters=(4, 8, 8))
    fields = explain.receptive_fields(deep)
    names = fields.loc[fields["kind"] == "Conv2D", "layer"].tolist()
    assert len(names) > 7
    boxes = plots.receptive_field(fields, np.zeros((32, 32, 3)), layers=names).patches
    assert len(boxes) == len({(box.get_edgecolor(), box.get_linestyle()) for box in boxes}) == len(names)


def test_a_colour_means_the_same_number_in_every_image():
    images = np.full((3, 8, 8, 3), 100.0)
    heat = np.zeros((3, 8, 8))
    heat[0, 0, 0], heat[0, 1, 1], heat[1, 0, 0], heat[2, 0, 0] = 0.5, 0.1, 0.1, -0.1
    pictures = [shown(cell) for cell in plots.heatmap(images, heat, columns=3).child_axes[3:]]
    assert (pictures[0][1, 1] == pictures[1][0, 0]).all()  # 0.1, though it is the strongest of its image
    assert not (pictures[0][0, 0] == pictures[1][0, 0]).all()
    assert pictures[1][0, 0, 0] > pictures[1][0, 0, 2]  # red speaks for the class, in an image without blue, too
    assert pictures[2][0, 0, 2] > pictures[2][0, 0, 0]
    alone = [shown(plots.heatmap(images[:1], part[None]).child_axes[1]) for part in (heat[0], 2 * heat[0])]
    assert (alone[0] == alone[1]).all()


def test_titles_of_heat_maps_keep_their_lines(image):
    ax = plots.heatmap(image, np.zeros((16, 12)), titles=["inclusion\n→ inclusion"])
    assert ax.child_axes[0].get_title() == "inclusion\n→ inclusion"


def test_heat_lies_over_the_images(image):
    images = np.stack([image] * 3)
    heat = np.zeros((3, 16, 12))
    heat[0, 2, 3] = 1
    heat[2, 4, 5] = -0.5
    ax = plots.heatmap(images, heat, titles=["x", "y", "z"], columns=2)
    assert [cell.get_title() for cell in ax.child_axes] == ["x", "y", "", "", "z", "", "", ""]
    hot, cold = shown(ax.child_axes[2]), shown(ax.child_axes[6])
    grey = np.repeat(image.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1)
    assert (hot[0, 0] == grey[0, 0]).all()
    assert not (hot[2, 3] == grey[2, 3]).all()
    assert cold[4, 5, 2] > cold[4, 5, 0]  # blue: speaks against
    assert len(plots.heatmap(image, heat[0]).child_axes) == 2
    with pytest.raises(ValueError, match="4 titles"):
        plots.heatmap(images, heat, titles=list("abcd"))
    with pytest.raises(ValueError, match="height and width"):
        plots.heatmap(images, heat[:, 1:])


def test_heat_that_is_no_number_spoils_no_other_picture(recwarn):
    from cnnlab.plots.explain import _laid_over

    heat = np.stack([np.full((8, 8), np.nan), np.linspace(0, 1, 64).reshape(8, 8)])
    images = np.full((2, 8, 8, 3), 200.0)
    np.testing.assert_array_equal(_laid_over(images, heat)[1], _laid_over(images[1:], heat[1:])[0])
    assert (_laid_over(images, heat)[0] == 200).all() and not recwarn

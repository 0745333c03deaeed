import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnlab import plots
from cnnlab.plots import style

STRANGE = ["$x_1$", "two\nlines", "猫の写真", "<b>&amp;</b>", "a" * 80, "naïve ∞ ✓ \U0001f600"]


@pytest.fixture
def predictions(parts):
    table = parts.head(12).copy()
    guess = np.where(np.arange(12) % 3 == 0, "stain", table["label"].astype(str))
    table["predicted"] = pd.Categorical(guess, categories=table["label"].cat.categories)
    table["confidence"] = np.linspace(0.3, 0.96, 12)
    return table


def titles(ax):
    return [cell.get_title() for cell in ax.child_axes]


def test_images_take_turns_through_the_classes(parts):
    ax = plots.images(parts, count=7)
    classes = parts["label"].cat.categories.tolist()
    assert titles(ax) == [*classes, classes[0]]


def test_images_are_drawn_on_the_axes_given(parts):
    ax = plt.figure().gca()
    assert plots.images(parts, count=3, ax=ax) is ax
    assert len(ax.child_axes) == 3
    with pytest.raises(ValueError, match="without rows"):
        plots.images(parts[:0])


def test_worst_shows_the_surest_mistakes_first(predictions):
    wrong = predictions[predictions["label"].astype(str) != predictions["predicted"].astype(str)]
    expected = wrong.sort_values("confidence", ascending=False)
    found = titles(plots.worst(predictions))
    assert found == [f"{row.label} → stain\n{row.confidence:.0%} certain" for row in expected.itertuples()]
    right = predictions.assign(predicted=predictions["label"])
    assert plots.worst(right).texts[0].get_text() == "no mistakes in 12 images"


def test_uncertain_shows_the_least_certain_first(predictions):
    found = titles(plots.uncertain(predictions, count=2))
    assert [title.splitlines()[-1] for title in found] == ["30% certain", "36% certain"]


def test_rows_without_a_prediction_are_left_out(predictions):
    predictions.loc[predictions.index[0], ["predicted", "confidence"]] = None
    assert len(plots.uncertain(predictions).child_axes) == 11


def test_titles_say_what_is_known(predictions):
    """With and without label, prediction and confidence, in the table and in a single row."""
    table = predictions.head(3).copy().astype({"label": object, "predicted": object})
    table["label"] = ["a", "a", "a"]
    table["predicted"], table["confidence"] = ["b", "a", None], [0.5, 0.75, np.nan]
    table = table.astype({"label": pd.CategoricalDtype(["a", "b"]), "predicted": pd.CategoricalDtype(["a", "b"])})
    ax = plots.images(table)
    assert titles(ax) == ["a → b\n50% certain", "a\n75% certain", "a → —"]
    assert [cell.title.get_color() for cell in ax.child_axes] == [style.RED, style.GREEN, "#000000"]
    assert titles(plots.images(table.drop(columns="confidence"))) == ["a → b", "a", "a → —"]
    assert titles(plots.images(table.drop(columns="label"))) == ["b\n50% certain", "a\n75% certain", "—"]
    assert titles(plots.images(table[["path"]])) == ["", "", ""]
    table.loc[table.index[1], "label"] = None
    ax = plots.images(table)
    assert sorted(titles(ax)) == ["a → b\n50% certain", "a → —", "— → a\n75% certain"]
    assert [cell.title.get_color() for cell in ax.child_axes if cell.get_title()[0] == "—"] == ["#000000"]
    assert len(plots.worst(table).child_axes) == 1


def test_deep_images_are_shown_by_one_scale_for_all(tmp_path):
    for number, value in enumerate((0, 2000, 4000)):
        Image.fromarray(np.full((40, 40), value, np.uint16)).save(tmp_path / f"{number}.png")
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    table = pd.DataFrame({"path": paths, "label": pd.Categorical(["a"] * 3), "levels": "0-4000"})
    shown = [int(np.asarray(cell.images[0].get_array())[0, 0, 0]) for cell in plots.images(table).child_axes]
    assert shown == [0, 127, 255] or shown == [0, 128, 255]


def test_class_counts_say_what_has_no_label_or_no_split(parts):
    table = parts.copy()
    table.loc[table.index[:3], "label"] = None
    table.loc[table.index[3:5], "split"] = None
    ax = plots.class_counts(table)
    assert "n = 120, 3 without label" in ax.get_xlabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train", "val", "test", "no split"]
    assert sum(bar.get_width() for bar in ax.patches) == 117


def test_class_counts_are_the_tables(parts):
    ax = plots.class_counts(parts)
    counts = pd.crosstab(parts["label"], parts["split"])
    widths = np.array([bar.get_width() for bar in ax.patches]).reshape(3, -1)
    np.testing.assert_array_equal(widths, counts[["train", "val", "test"]].to_numpy().T)
    assert "n = 120" in ax.get_xlabel()


def test_history_draws_what_keras_returns():
    table = pd.DataFrame({"loss": [3, 2, 1.0], "val_loss": [3, 1.5, 2.0], "accuracy": [0.1, 0.5, 0.9]})
    axes = plots.history(table)
    assert [ax.get_ylabel() for ax in axes] == ["loss", "accuracy"]
    np.testing.assert_array_equal(axes[0].lines[1].get_ydata(), table["val_loss"])
    assert axes[0].get_legend().get_texts()[1].get_text() == "validation (best 1.500, epoch 2)"
    assert len(axes[1].lines) == 1
    falling = pd.DataFrame({"mae": [3, 2.0, 1], "val_mae": [3, 1.5, 2.0]})
    assert "best 1.500, epoch 2" in plots.history(falling, metrics=["mae"])[0].get_legend().get_texts()[1].get_text()
    given = plt.figure().subplots(1, 1)
    assert plots.history(table, metrics=["loss"], axes=[given])[0] is given
    with pytest.raises(ValueError, match="Received: 'f1'"):
        plots.history(table, metrics=["f1"])


def test_strange_names_draw_without_a_warning(tmp_path):
    table = pd.DataFrame({"path": ["none.png"] * len(STRANGE), "label": pd.Categorical(STRANGE)})
    for draw in (plots.images, plots.class_counts):
        draw(table).figure.savefig(tmp_path / "figure.png")


def test_a_file_that_is_no_image_is_a_grey_tile(tmp_path):
    (tmp_path / "1.png").write_bytes(b"no")
    assert (style.thumbnail(str(tmp_path / "1.png")) == 200).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_thumbnails_of_every_kind(tmp_path, mode):
    pixels = np.full((300, 200), 40_000, np.uint16) if mode == "I;16" else None
    image = Image.fromarray(pixels) if mode == "I;16" else Image.new(mode, (200, 300))
    path = tmp_path / ("1.tif" if mode in ("CMYK", "I;16") else "1.png")
    image.save(path)
    result = style.thumbnail(str(path))
    assert result.shape == (160, 107, 3)
    if mode == "I;16":
        assert abs(int(result[0, 0, 0]) - 40_000 // 256) <= 1


def test_drawing_leaves_the_global_style_alone(parts):
    before = plt.rcParams.copy()
    plots.images(parts, count=2)
    plots.class_counts(parts)
    assert plt.rcParams == before


def test_a_history_with_gaps_is_refused_in_words():
    with pytest.raises(ValueError, match="Received 4 epochs and 2 of 'val_loss', as after `validation_freq=`"):
        plots.history({"loss": [4, 3, 2, 1], "val_loss": [3, 2]}, metrics=["loss"])

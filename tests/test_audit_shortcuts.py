"""Whether something beside the subject gives the class away: planted shortcuts, and none."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

from cnnlab import audit, samples, tables
from cnnlab.audit.shortcuts import _balanced_accuracy


@pytest.fixture(scope="module")
def pictures():
    """60 noise pictures that say nothing about a class."""
    rng = np.random.default_rng(0)
    soft = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((48, 48)) for _ in range(60)]
    return [image.convert("RGB") for image in soft]


def written(folder, pictures, save):
    rows = []
    for number, image in enumerate(pictures):
        label = "ab"[number % 2]
        rows.append({"path": str(save(image, label, folder / f"{number:02d}")), "label": label})
    return pd.DataFrame(rows).astype({"label": "category"})


def same(image, label, path):
    image.save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def as_jpeg(image, label, path):
    path = path.with_suffix(".jpg" if label == "a" else ".png")
    image.save(path)
    return path


def larger(image, label, path):
    path = path.with_suffix(".png")
    image.resize((48, 48) if label == "a" else (60, 48)).save(path)
    return path


def framed(image, label, path):
    frame = Image.new("RGB", (48, 48), "white" if label == "a" else "black")
    frame.paste(image.crop((0, 0, 40, 40)), (4, 4))
    frame.save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def tinted(image, label, path):
    values = np.asarray(image) * np.array([1.0, 1.0, 1.0 if label == "a" else 0.5])
    Image.fromarray(values.astype(np.uint8)).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def compressed(image, label, path):
    path = path.with_suffix(".jpg")
    image.save(path, quality=95 if label == "a" else 40)
    return path


@pytest.mark.parametrize(
    ("save", "trait", "silent"),
    [
        (as_jpeg, "format", {"resolution", "border", "colour"}),
        (larger, "resolution", {"format"}),
        (framed, "border", {"format", "resolution"}),
        (tinted, "colour", {"format", "resolution"}),
        (compressed, "file size", {"format", "resolution", "border", "colour"}),
    ],
)
def test_a_planted_shortcut_is_named(pictures, tmp_path, save, trait, silent):
    found = audit.shortcuts(written(tmp_path, pictures, save)).set_index("trait")
    assert found.loc[trait, "telling"]
    assert found.loc[trait, "score"] > 0.95
    assert not found.loc[sorted(silent), "telling"].any()
    assert found["score"].is_monotonic_decreasing


def test_nothing_is_found_where_there_is_nothing(pictures, tmp_path):
    table = written(tmp_path, pictures, same)
    found = audit.shortcuts(table)
    assert not found["telling"].any()
    assert found["chance"].tolist() == pytest.approx([0.5] * 5, abs=0.02)
    assert (found["chance_high"] > found["chance"]).sum() >= 3
    pd.testing.assert_frame_equal(found, audit.shortcuts(table))


def test_the_rendered_parts_have_no_shortcut(tmp_path):
    table = tables.from_folder(samples.inspection(tmp_path / "parts", per_class=40, size=48))
    found = audit.shortcuts(table).set_index("trait")
    assert not found.loc[["format", "resolution"], "telling"].any()


def test_unreadable_images_and_small_classes_are_left_out(pictures, tmp_path):
    table = written(tmp_path, pictures, same)
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = pd.DataFrame({"path": [str(tmp_path / "broken.png"), table["path"][0]], "label": ["a", "rare"]})
    table = pd.concat([table.astype({"label": str}), rows], ignore_index=True).astype({"label": "category"})
    assert audit.shortcuts(table)["images"].tolist() == [60] * 5
    with pytest.raises(ValueError, match="Received: a 0, b 0, rare 1"):
        audit.shortcuts(table[60:])


def test_balanced_accuracy_is_scikit_learns():
    rng = np.random.default_rng(0)
    truth, answers = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    assert _balanced_accuracy(truth, answers) == pytest.approx(balanced_accuracy_score(truth, answers))


def test_groups_of_any_kind_are_kept_together(pictures, tmp_path):
    table = written(tmp_path, pictures, same)
    patients = [f"p{number // 20}" for number in range(60)]
    assert len(audit.shortcuts(table.assign(group=patients))) == 5  # of three patients, no five folds
    assert len(audit.shortcuts(table.assign(group=[None, *range(59)]))) == 5
    with pytest.raises(ValueError, match="two or more groups"):
        audit.shortcuts(table.assign(group="one"))

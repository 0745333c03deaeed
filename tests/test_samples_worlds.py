"""The drawn worlds of medicine and surveillance: shares, groups and events are as promised, and so is what is hard."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cnnlab import samples, tables

DARK = ("V", "VI")


def digest(folder):
    """One number for every file below a folder, names included."""
    found = hashlib.sha256()
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:16]


def pixels(table, size):
    read = (cv2.resize(cv2.imread(path), size, interpolation=cv2.INTER_AREA) for path in table["path"])
    return np.array([image.ravel() / 255 for image in read])


def linear(strength):
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200, class_weight="balanced"))


@pytest.fixture(scope="module")
def moles(tmp_path_factory):
    return tables.from_folder(samples.lesions(tmp_path_factory.mktemp("worlds") / "moles", patients=180, size=32))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return samples.surveillance(tmp_path_factory.mktemp("worlds") / "video", days=2, minutes=10)


@pytest.mark.parametrize(
    ("draw", "known"),
    [
        (lambda folder: samples.lesions(folder, patients=3, size=32, seed=1), "88b15be2e91d5f40"),
        (lambda folder: samples.surveillance(folder, days=1, minutes=4, seed=1), "e31124aa1055c82e"),
    ],
)
def test_the_same_seed_gives_the_same_files_everywhere(tmp_path, draw, known):
    """A change of these numbers changes people's pictures: raise the VERSION of the world with it."""
    assert digest(draw(tmp_path / "first")) == digest(draw(tmp_path / "second")) == known
    assert "drawings" in (tmp_path / "first" / "README.md").read_text()


def test_shares_of_classes_and_tones_are_as_asked(moles):
    patients = moles.drop_duplicates("patient")
    assert len(patients) == 180
    assert patients["label"].value_counts().to_dict() == {"benign": 160, "malignant": 20}
    dark = patients["tone"].isin(DARK).groupby(patients["label"], observed=True).sum()
    assert dark.to_dict() == {"benign": round(0.12 * 160), "malignant": round(0.12 * 20)}
    assert set(patients["tone"]) == {"I", "II", "III", "IV", "V", "VI"}


def test_a_patient_has_two_to_six_pictures_of_one_mole_skin_and_device(moles):
    by_patient = moles.groupby("patient")
    assert by_patient.size().between(2, 6).all()
    assert set(by_patient.size()) == {2, 3, 4, 5, 6}
    assert (by_patient[["label", "tone", "device"]].nunique() == 1).all(axis=None)
    assert len({Path(path).read_bytes() for path in moles["path"]}) == len(moles)  # each held differently


def test_neither_the_patient_nor_the_name_tells_the_class(moles):
    number = moles["patient"].str[1:].astype(int)
    order = moles["path"].map(lambda path: int(Path(path).stem[-5:]))
    for told in (number, order):
        assert 0.35 < roc_auc_score(moles["label"] == "malignant", told) < 0.65


def test_a_nearest_neighbour_shows_the_leak_through_patients(moles):
    """The nearest picture is often one of the same patient: what a split by picture rewards."""
    known = pixels(moles, (16, 16))
    distance = euclidean_distances(known - known.mean(axis=1, keepdims=True))
    label, patient = moles["label"].to_numpy(str), moles["patient"].to_numpy()
    np.fill_diagonal(distance, np.inf)
    leaking = balanced_accuracy_score(label, label[distance.argmin(axis=1)])
    distance[patient[:, None] == patient] = np.inf
    honest = balanced_accuracy_score(label, label[distance.argmin(axis=1)])
    assert leaking - honest >= 0.08


def test_a_mole_stands_out_less_on_dark_skin(moles):
    def contrast(path):
        image = cv2.imread(path, cv2.IMREAD_GRAYSCALE).astype(float)
        return image[:6].mean() - image[12:20, 12:20].mean()

    seen = moles["path"].map(contrast).groupby(moles["tone"]).mean()
    assert seen[["V", "VI"]].max() < 0.6 * seen[["I", "II", "III"]].min()


def test_events_are_in_the_frames_and_nowhere_else(video):
    frames = tables.from_folder(video).sort_values("seconds")
    assert frames["seconds"].tolist() == list(range(0, 2 * 10 * 60, 2))
    expected = pd.Series("normal", frames["seconds"])
    for event in samples.truth(video).itertuples():
        expected[(expected.index >= event.begin) & (expected.index < event.end)] = event.label
    assert (expected.to_numpy() == frames["label"].to_numpy(str)).all()


def test_days_lights_and_clocks_agree(video):
    frames, truth = tables.from_folder(video).sort_values("seconds"), samples.truth(video)
    assert frames.groupby("day").size().tolist() == [300, 300]
    assert frames["light"].value_counts().to_dict() == {"day": 300, "night": 300}
    time = pd.to_datetime(frames["time"])
    assert time.is_monotonic_increasing
    assert ((time.dt.hour < 18) == (frames["light"] == "day")).all()
    assert (time.dt.date.astype(str).str[-2:].astype(int) == frames["day"]).all()
    assert (truth["end"] > truth["begin"]).all()
    assert (truth["begin"].to_numpy()[1:] - truth["end"].to_numpy()[:-1] >= 28).all()
    assert (truth["day"] == truth["begin"] // 600 + 1).all()
    assert truth["event"].tolist() == list(range(1, len(truth) + 1))


def test_each_event_lasts_as_long_as_it_should(tmp_path):
    truth = samples.truth(samples.surveillance(tmp_path / "video", days=2, minutes=20, seed=3))
    lasted = (truth["end"] - truth["begin"]).groupby(truth["label"])
    assert lasted.min().between([50, 24, 40], [90, 44, 80]).all()  # bag, climbing, lying
    assert lasted.max().between([50, 24, 40], [90, 44, 80]).all()


@pytest.mark.parametrize(
    ("world", "arguments", "words"),
    [
        ("lesions", {"patients": 1}, "patients=1"),
        ("lesions", {"size": 31}, "size=31"),
        ("lesions", {"imbalance": 0.5}, "imbalance=0.5"),
        ("lesions", {"imbalance": float("nan")}, "imbalance=nan"),
        ("lesions", {"patients": "many"}, "'many'"),
        ("lesions", {"dark": 1.2}, "from 0 to 1"),
        ("lesions", {"dark": None}, "from 0 to 1"),
        ("surveillance", {"days": 0}, "days=0"),
        ("surveillance", {"days": 1.5}, "days=1.5"),
        ("surveillance", {"minutes": 3}, "minutes=3"),
        ("surveillance", {"days": np.True_}, "whole `days`"),
        *((world, {"seed": seed}, f"expects a whole number from 0 as `seed`.*{seed}")
          for world in ("lesions", "surveillance", "inspection") for seed in (None, 1.5, True, -1)),
    ],
)  # fmt: skip
def test_impossible_worlds_are_refused(tmp_path, world, arguments, words):
    with pytest.raises(TypeError if "seed" in arguments else ValueError, match=words):
        getattr(samples, world)(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("world", "arguments"),
    [
        ("lesions", {"patients": np.int8(3), "size": np.int64(32), "imbalance": np.float32(2), "dark": np.float32(0)}),
        ("surveillance", {"days": np.uint8(1), "minutes": np.int8(4)}),
        ("inspection", {"per_class": np.int64(1), "size": np.int8(32), "plant": {"copies": np.float32(0.25)}}),
    ],
)
def test_numpys_numbers_make_the_same_world(tmp_path, world, arguments):
    drawn = getattr(samples, world)(tmp_path / "world", seed=np.int64(1), **arguments)
    own = {name: value.item() if name != "plant" else {"copies": 0.25} for name, value in arguments.items()}
    made = {path: path.stat().st_mtime_ns for path in drawn.rglob("*.*")}
    assert getattr(samples, world)(tmp_path / "world", seed=1, **own) == drawn  # which refuses other arguments
    assert {path: path.stat().st_mtime_ns for path in drawn.rglob("*.*")} == made


@pytest.mark.parametrize("world", ["lesions", "surveillance"])
def test_what_is_there_is_never_overwritten(tmp_path, world):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(FileExistsError, match="nothing of yours is mixed"):
        getattr(samples, world)(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def malignant(table):
    return (table["label"] == "malignant").to_numpy()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_hard_about_the_moles(tmp_path):
    """Pixels do not tell, patients leak, dark skin is harder, and pictures of it help."""
    from cnnlab import experiments

    clinics = {
        "train": {"patients": 300, "seed": 0},
        "judge": {"patients": 250, "dark": 0.5, "imbalance": 3, "seed": 1},
        "more": {"patients": 150, "dark": 1.0, "seed": 2},
    }
    table = {
        name: tables.from_folder(samples.lesions(tmp_path / name, **arguments)) for name, arguments in clinics.items()
    }
    seen = {
        name: experiments.features("EfficientNetLite0", one, image_size=(96, 96), cache=False)
        for name, one in table.items()
    }
    train, judge = table["train"], table["judge"]
    flat = linear(0.003).fit(pixels(train, (24, 24)), malignant(train))
    of_pixels = roc_auc_score(malignant(judge), flat.decision_function(pixels(judge, (24, 24))))
    probe = linear(0.01).fit(seen["train"], malignant(train))
    assert of_pixels < 0.7 < roc_auc_score(malignant(judge), probe.decision_function(seen["judge"]))

    gained = []
    for seed in range(3):
        honest, leaking = (
            _balanced_accuracy(train, seen["train"], tables.folds(train, count=4, group=group, seed=seed)["fold"])
            for group in ("patient", False)
        )
        gained.append(leaking - honest)
    assert np.mean(gained) >= 0.08

    richer = linear(0.002).fit(
        np.concatenate([seen["train"], seen["more"]]), np.concatenate([malignant(train), malignant(table["more"])])
    )
    is_dark = judge["tone"].isin(DARK).to_numpy()
    recall = {}
    for name, model in {"plain": probe, "richer": richer}.items():
        score = model.decision_function(seen["judge"])
        called = score >= np.quantile(score[~malignant(judge)], 0.9)
        recall[name] = [called[malignant(judge) & part].mean() for part in (~is_dark, is_dark)]
    assert recall["plain"][1] < recall["plain"][0] - 0.1
    assert recall["richer"][1] > recall["plain"][1] + 0.1


def _balanced_accuracy(table, seen, fold):
    called = np.zeros(len(table), bool)
    for number in fold.unique():
        held_out = (fold == number).to_numpy()
        called[held_out] = linear(0.01).fit(seen[~held_out], malignant(table)[~held_out]).predict(seen[held_out])
    return balanced_accuracy_score(malignant(table), called)


def test_pixels_do_not_tell_what_happens_on_another_day(tmp_path):
    frames = tables.from_folder(samples.surveillance(tmp_path / "video", days=3, minutes=14, seed=1))
    train, test = frames[frames["day"] < 3], frames[frames["day"] == 3]
    called = linear(0.003).fit(pixels(train, (24, 16)), train["label"]).predict(pixels(test, (24, 16)))
    assert balanced_accuracy_score(test["label"], called) < 0.45  # a guess has 0.25

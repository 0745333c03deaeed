"""Right answers pass (the solutions), and the wrong ones that learners really give are told what is off."""

import functools
import importlib.metadata
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cnnlab import augment, exercises, metrics
from cnnlab.exercises.catalogue import chapters, find
from cnnlab.exercises.catalogue import names as names_of

SOLUTIONS = Path(__file__).parent.parent / "notebooks" / "solutions"


def code_of(chapter):
    cells = json.loads((SOLUTIONS / f"{chapter}_solutions.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("chapter", chapters())
def test_the_solutions_are_right(chapter, tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "solutions")
    names = {}
    for source in code_of(chapter):
        exec(compile(source, chapter, "exec"), names)
    said = capsys.readouterr().out
    assert said.count("Right!") == len(names_of(chapter)), said
    assert "Not yet" not in said
    assert not (tmp_path / "runs" / "exercises.json").exists()


@pytest.mark.parametrize("chapter", chapters())
def test_the_solutions_ran(chapter):
    cells = json.loads((SOLUTIONS / f"{chapter}_solutions.ipynb").read_text(encoding="utf-8"))["cells"]
    said = ["".join(output.get("text", [])) for cell in cells for output in cell.get("outputs", []) if "text" in output]
    assert sum("Right!" in words for words in said) == len(names_of(chapter))
    assert not any("/tmp/" in words or "Warning" in words for words in said)


def wrong_rows(predictions):
    return predictions[predictions["label"].astype(str) != predictions["predicted"].astype(str)]


def sorted_files(predictions, folder, *, by="predicted", number=True, move=False, fail=False):
    for place, row in enumerate(predictions.itertuples()):
        target = Path(folder, str(getattr(row, by)))
        if not fail:
            target.mkdir(parents=True, exist_ok=True)
        name = f"{place}_" * number + Path(row.path).name
        (shutil.move if move else shutil.copy)(row.path, target / name)


def recall_by_camera(predictions):
    cracks = predictions[predictions["label"] == "crack"]
    return (cracks["predicted"] == "crack").groupby(cracks["camera"]).mean()


def right_by_camera(predictions):
    right = predictions["label"].astype(str) == predictions["predicted"].astype(str)
    return right.groupby(predictions["camera"]).mean()


def field(layers, *, late=False):
    seen = step = 1
    for kernel, stride in layers:
        seen += (kernel - 1) * (step * stride if late else step)
        step *= stride
    return seen


def test_the_receptive_field_asked_for_is_the_one_keras_has():
    import keras

    from cnnlab import explain
    from cnnlab.exercises.nb02 import NETWORKS, _seen

    for layers in NETWORKS:
        inputs = x = keras.Input((64, 64, 1))
        for kernel, stride in layers:
            x = keras.layers.Conv2D(1, kernel, strides=stride)(x)
        fields = explain.receptive_fields(keras.Model(inputs, x))
        assert fields["field_height"].iloc[-1] == _seen(list(layers)) == field(layers)


def truth(name):
    return find(name).judge.keywords["truth"]


def test_the_numbers_that_count_as_right_are_those_of_the_libraries():
    import keras
    from sklearn.metrics import balanced_accuracy_score, precision_score

    from cnnlab.exercises import nb05

    after = keras.layers.Conv2D(8, 3, strides=2, padding="valid").compute_output_shape((None, 64, 64, 3))
    assert exercises.judge("02.1", keras.layers.MaxPooling2D(2).compute_output_shape(after)[1]).right
    pictures, shares = np.repeat(np.arange(500), 2), []
    for seed in range(40):
        order = np.random.default_rng(seed).permutation(pictures)
        shares.append(np.isin(order[:200], order[200:]).mean())
    assert np.mean(shares) == pytest.approx(truth("03.1"), abs=0.01)
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=3)
    stopping.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    stopping.model.stop_training = False
    stopping.on_train_begin()
    for epoch, loss in enumerate(nb05.LOSSES):
        stopping.on_epoch_end(epoch, {"val_loss": loss})
        if stopping.model.stop_training:
            break
    assert (epoch + 1, stopping.best_epoch + 1) == (nb05.STOPPED, nb05.KEPT)
    head = keras.Sequential([keras.Input((7, 7, 1280)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(6)])
    assert exercises.judge("07.1", head.count_params()).right
    label, called = [1] * 10 + [0] * 90, [1] * 8 + [0] * 2 + [1] * 12 + [0] * 78
    assert precision_score(label, called) == truth("08.1")
    layer = keras.layers.Dense(2, dtype="mixed_float16")
    layer.build((None, 2))
    assert exercises.judge("09.1", str(layer.kernel.dtype)).right
    assert exercises.judge("10.1", balanced_accuracy_score([0] * 950 + [1] * 50, [0] * 1000)).right
    frames, free, used = np.arange(60 * 30) / 30, 0.0, 0
    for came, newer in zip(frames, [*frames[1:], np.inf], strict=True):
        if max(free, came) < newer:  # still the newest when the model is free
            used, free = used + 1, max(free, came) + 0.05
    assert 1 - used / len(frames) == pytest.approx(truth("11.1"), abs=0.002)
    quiet = metrics.events(*(pd.DataFrame({name: [] for name in ("seconds", "begin", "end")}),) * 2, hours=3)
    assert quiet.set_index("metric").loc["false_alarms_per_hour", "high"] == pytest.approx(truth("11.4"))


def split_table(**columns):
    rows = {"path": list("abcdefgh"), "label": pd.Categorical(list("xyxyxyxy")), "camera": list("AABBAABB")}
    rows |= {"split": ["train"] * 4 + ["test"] * 4, "group": range(8), "problem": ""}
    return pd.DataFrame(rows | columns)


def best_row(results):
    return results.loc[results["val_accuracy"].idxmax()]


def worst_setting(results):
    return by_rule(results.assign(val_accuracy=-results["val_accuracy"]), "mean")


def by_rule(results, rule):
    scores = results.groupby(["learning_rate", "batch_size"])["val_accuracy"].agg(rule)
    return dict(zip(scores.index.names, scores.idxmax(), strict=True))


def network(name):
    import keras

    inputs = keras.Input((16, 16, 3))
    if name == "activation inside":
        x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Conv2D(4, 3, activation="relu")(x)
        return keras.Model(inputs, keras.layers.BatchNormalization()(x))
    x = inputs
    for _ in range(2):
        x = keras.layers.Conv2D(4, 3)(x)
        x = keras.layers.Activation("relu")(x)
        x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, x)


@functools.cache
def pretrained(classes, awake):
    from cnnlab import models

    model = models.pretrained("MobileNetV2", image_size=(96, 96), classes=list("abcdef")[:classes], weights=None)
    if awake == "all":
        models.backbone(model).trainable = True
        for layer in models.backbone(model).layers:
            layer.trainable = True
    if awake == "no head":
        models.unfreeze(model, share=0.3)
        model.get_layer("probabilities").trainable = False
    if awake == "first convolution":
        models.backbone(model).trainable = True
        convolutions = [layer for layer in models.backbone(model).layers if layer.weights]
        for layer in convolutions[1:]:
            layer.trainable = False
    if awake == "none":
        models.backbone(model).trainable = False
    return model


def listed(rows, file, *, index=False):
    rows[["path", "predicted", "confidence"]].to_csv(file, index=index)
    return file


def diagnosis(history, guessing, first="loss", best="val_loss"):
    if history[first][-1] > 0.8 * guessing:
        return "underfitting"
    return "overfitting" if history["val_loss"][-1] > 1.1 * min(history[best]) else "good fit"


def paired_by(a, b, ddof=1, root=np.sqrt, steps=lambda n: stats.t.ppf(0.975, n - 1)):
    differences = np.subtract(a, b)
    reach = steps(len(a)) * differences.std(ddof=ddof) / root(len(a))
    return differences.mean(), differences.mean() - reach, differences.mean() + reach


def schedule(name):
    import keras

    from cnnlab import training

    return {
        "epochs": lambda: training.one_cycle(0.003, steps=20),
        "peak": lambda: training.one_cycle(0.03, steps=600),
        "falling": lambda: keras.optimizers.schedules.CosineDecay(0.003, 600),
        "long": lambda: training.one_cycle(0.003, steps=6000),
    }[name]()


def dataset(name, parts):
    from cnnlab import pipelines

    policy = augment.Policy(brightness=0.2) if name == "augmented" else None
    rows = parts.head(6) if name == "six images" else parts
    return parts, pipelines.load(rows, image_size=(16, 16), training=name != "unshuffled", augment=policy, seed=0)


MEDIUM = augment.Policy(rotate=10, zoom=0.1, shift=0.1, shear=5)


def alarmed(table, labels=("benign",)):
    table = table[table["label"].isin(labels)]
    return (table["predicted"] == "malignant").groupby(table["skin"]).mean()


WRONG = [
    ("00.1", 0.25, "not average out as fast"),
    ("00.1", 2, "narrower"),
    ("00.1", "half", "Expected a number"),
    ("00.2", "train_data", "Expected two things"),
    ("00.2", (split_table(), "train_data"), "Expected a dataset"),
    ("00.3", lambda p, n: p.nlargest(n, "confidence"), "right answers"),
    ("00.3", lambda p, n: wrong_rows(p).head(n), "not the ones"),
    ("00.3", lambda p, n: wrong_rows(p).sort_values("confidence").head(n), "not the ones"),
    ("00.3", lambda p, n: wrong_rows(p).sort_values("confidence", ascending=False), "Asked for 3 rows"),
    ("00.3", lambda p: wrong_rows(p), "raised TypeError"),
    ("00.3", lambda p, n: wrong_rows(p).nlargest(n, "confidence").iloc[::-1], "should come first"),
    ("00.4", (0.75, 0.9), "other way round"),
    ("00.4", (0.9, 0.6), "A recall of 0.6 is off"),
    ("00.4", (0.9, 0.9), "divide by all images that show"),
    ("00.4", ("60 %", "75 %"), "right or wrong"),
    ("00.4", 0.9, "Expected two numbers"),
    ("00.5", lambda p, folder: sorted_files(p, folder, move=True), "never move"),
    ("00.5", lambda p, folder: None, "holds no file"),
    ("00.5", lambda p, folder: sorted_files(p, folder, by="label"), "do not have"),
    ("00.5", lambda p, folder: sorted_files(p, folder, number=False), "may use one file name"),
    ("00.5", lambda p, folder: sorted_files(p.head(11), folder), "12 images went in, 11 came out"),
    ("00.5", lambda p, folder: [sorted_files(p, f"{folder}/{name}") for name in "ab"], "into one folder"),
    ("00.5", lambda p, folder: sorted_files(p.assign(predicted="crack"), folder), "named after its predicted"),
    ("00.5", lambda p, folder: sorted_files(p, f"{folder}/missing/../missing", fail=True), "raised FileNotFoundError"),
    ("01.1", "a", "harmless"),
    ("01.1", "C", "harmless"),
    ("01.1", "(a)", "Line a is harmless"),
    ("01.1", "d", "Expected one of"),
    ("01.1", 2, "Received an int"),
    ("01.3", "nowhere.csv", "file not found: 'nowhere.csv'"),
    ("01.4", 470, "of the broken machine"),
    ("01.4", 524, "One too old"),
    ("01.4", 535, "not the oldest"),
    ("01.4", 550, "not the oldest"),
    ("01.4", 580, "CUDA 13"),
    ("01.5", "nowhere.txt", "file not found: 'nowhere.txt'"),
    ("02.1", 16, "padding"),
    ("02.1", 15.5, "Half a pixel"),
    ("02.1", 31, "after the convolution"),
    ("02.2", [[-1, 0, 1]] * 3, "does not answer to an edge between dark above"),
    ("02.2", [[1, 1, 1], [0, 0, 0], [-1, -1, -1]], "wrong sign"),
    ("02.2", [[-1, -1, -1], [0, 0, 0], [2, 2, 2]], "flat surface"),
    ("02.2", [[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], "dark left"),
    ("02.2", [-1, 0, 1], "shape (3, 3)"),
    ("02.3", lambda layers: 1 + sum(kernel - 1 for kernel, _ in layers), "forgets the strides"),
    ("02.3", lambda layers: field(layers, late=True), "for the layers after it"),
    ("02.3", lambda layers: field(layers) - 1, "one too few"),
    ("02.3", lambda layers: np.prod([kernel for kernel, _ in layers]), "pixels in a row matter"),
    ("02.3", 7, "Expected a function"),
    ("02.4", 22, "the opposite edge"),
    ("02.4", 0, "filters make more"),
    ("02.4", 32, "There are 32 filters"),
    ("02.5", lambda scores, label: np.exp(scores[label]) / np.exp(scores).sum(), "negative logarithm is missing"),
    ("02.5", lambda scores, label: np.log(np.exp(scores[label]) / np.exp(scores).sum()), "wrong sign"),
    ("02.5", lambda scores, label: -np.log2(np.exp(scores[label]) / np.exp(scores).sum()), "base 2"),
    ("02.5", lambda scores, label: np.log(np.exp(scores).sum()) - max(scores), "loss of the likeliest"),
    ("02.5", lambda scores, label: -np.log(np.exp(scores[label]) / np.exp(scores).sum()), "subtract the largest"),
    ("02.5", lambda scores, label: math.log(sum(map(math.exp, scores))) - scores[label], "subtract the largest"),
    ("03.1", "20%", "share of the images that are in the test set"),
    ("03.1", 0.5, "like a coin"),
    ("03.1", 1, "both copies"),
    ("03.2", split_table(), "is in 2 splits"),
    ("03.2", split_table(camera=1), "camera '1' is in 2 splits"),
    ("03.2", split_table(camera=list("AAAABBBB")), "lead to no files"),
    ("03.2", split_table().drop(columns="camera"), "lacks the column 'camera'"),
    ("03.3", lambda t: t[t["group"].isin(t.loc[t["split"] == "train", "group"])], "Training rows"),
    ("03.3", lambda t: t[t["path"].duplicated()], "finds nothing"),
    (
        "03.3",
        lambda t: t[(t["split"] == "test") & t["group"].isin(t.loc[t["split"] == "train", "group"])],
        "think of val",
    ),
    ("03.3", lambda t: t[(t["split"] != "train") & t["group"].duplicated(keep=False)], "have no copy in"),
    ("03.4", 40, "the list is longer"),
    ("03.4", 150, "not all fifty"),
    ("03.4", 50, "on the list or not"),
    ("03.4", 13, "divide by it"),
    ("03.5", "nowhere.csv", "file not found: 'nowhere.csv'"),
    ("04.1", ["hue"], "Right so far, but 1 more"),
    ("04.1", [], "2 more of them would"),
    ("04.1", ["hue", "grayscale", "rotate"], "rotate: a tomato"),
    ("04.1", "mirror", "Expected one of"),
    ("04.2", augment.Policy(brightness=0.2, noise=6), "the rest should stay"),
    ("04.2", MEDIUM | augment.Policy(brightness=0.2, noise=6 / 255), "grey levels of 255"),
    ("04.2", MEDIUM | augment.Policy(brightness=0.02, noise=6), "not by a fifth"),
    ("04.2", MEDIUM | augment.Policy(brightness=0.2), "no noise"),
    ("04.2", {"noise": 6}, "Expected an `augment.Policy`"),
    ("04.3", augment.Policy(flip="horizontal", rotate=5, brightness=0.2), "point another way"),
    ("04.3", augment.Policy(rotate=180, brightness=0.2), "point another way"),
    ("04.3", augment.strong, "point another way"),
    ("04.3", augment.Policy(flip="vertical", rotate=5, brightness=0.2), "stand on their head"),
    ("04.3", augment.Policy(rotate=1e-6, brightness=1e-6), "one light only"),
    ("04.3", augment.Policy(rotate=1e-6, brightness=0.2), "never moves"),
    ("04.3", augment.Policy(rotate=5, brightness=1.0), "far too much"),
    ("04.3", augment.Policy(rotate=5, brightness=0.2, noise=128), "far too much"),
    ("04.3", augment.Policy(rotate=5, brightness=0.2, erase=0.9), "point another way"),
    ("04.3", augment.Policy(rotate=5, brightness=0.2, hue=0.5), "another colour"),
    ("04.3", augment.Policy(), "nothing at all"),
    ("04.3", augment.Policy(rotate=5), "one light only"),
    ("04.3", augment.Policy(brightness=0.2), "never moves"),
    ("04.4", 300, "drawn again every time"),
    ("04.4", 40, "a single image"),
    ("04.4", 340, "multiply"),
    ("04.5", lambda runs: runs.groupby("policy")["test"].mean().idxmax(), "must have no say"),
    ("04.5", lambda runs: runs.groupby("policy")["train"].mean().idxmax(), "it learned from"),
    ("04.5", lambda runs: runs.groupby("policy")["val"].max().idxmax(), "luckiest seed"),
    ("04.5", lambda runs: runs.groupby("policy")["val"].min().idxmax(), "unluckiest seed"),
    ("04.5", lambda runs: (runs["val"] - runs["train"]).groupby(runs["policy"]).mean().idxmax(), "smallest gap"),
    ("04.5", lambda runs: runs.loc[runs["val"].idxmax()], "Expected the name of a policy"),
    ("04.5", lambda runs: "mirror", "Received 'mirror'"),
    ("05.1", (10, 9), "patience has ended"),
    ("05.1", (8, 8), "not the best ones"),
    ("05.1", (7, 4), "counted from 0"),
    ("05.1", (6, 3), "not the best one"),
    ("05.1", (7, 5), "does not stop after epoch 7"),
    ("05.1", 8, "Expected two numbers"),
    ("05.1", "8, 5", "Expected two numbers"),
    ("05.2", lambda: schedule("epochs"), "Call the function first"),
    ("05.2", 0.003, "Expected a Keras learning-rate schedule"),
    ("05.4", ["overfitting", "underfitting", "good fit"], "cannot have memorized"),
    ("05.4", ["underfitting", "good fit", "overfitting"], "almost doubled"),
    ("05.4", ["underfitting", "overfitting", "underfitting"], "far below guessing"),
    ("05.4", ["underfitting", "overfitting"], "for A, B and C"),
    ("05.4", ["underfit", "overfit", "good"], "Expected one of"),
    ("05.5", lambda history, guessing: diagnosis(history, guessing, first="val_loss"), "it says 'underfitting'"),
    ("05.5", lambda history, guessing: diagnosis(history, guessing, best="loss"), "by the rule it is 'good fit'"),
    ("05.5", lambda history, guessing: diagnosis(history, 2), "by the rule it is"),
    ("05.5", lambda history, guessing: "good fit", "by the rule it is"),
    ("05.5", lambda history: "good fit", "raised TypeError"),
    ("06.1", 0.01, "strays further"),
    ("06.1", 0, "picked the best"),
    ("06.1", 0.2, "not the sum"),
    ("06.2", {"learning_rate": np.linspace(1e-4, 1e-2, 5)}, "Equal steps"),
    ("06.2", {"learning_rate": [1e-4, 1e-3, 1e-2]}, "five learning rates"),
    ("06.2", {"learning_rate": [1e-4, 2e-4, 1e-3, 5e-3, 1e-2]}, "should be alike"),
    ("06.2", {"learning_rate": np.geomspace(1e-5, 1e-2, 5)}, "not from"),
    ("06.2", np.geomspace(1e-4, 1e-2, 5), "a dictionary"),
    ("06.3", lambda r: dict(best_row(r)), "best single fold"),
    ("06.3", lambda r: worst_setting(r), "not the highest"),
    ("06.3", lambda r: by_rule(r, "median"), "the highest median"),
    ("06.3", lambda r: by_rule(r, "min"), "the highest worst fold"),
    ("06.3", lambda r: r["val_accuracy"].max(), "a dictionary"),
    ("06.4", 0.0125, "other way round"),
    ("06.4", 0.1, "square-root rule"),
    ("06.4", 0.05, "same rate"),
    ("06.5", lambda a, b: paired_by(b, a), "wrong sign"),
    ("06.5", lambda a, b: paired_by(a, b, steps=lambda n: 1.96), "Student's t"),
    ("06.5", lambda a, b: paired_by(a, b, ddof=0), "ddof=1"),
    ("06.5", lambda a, b: paired_by(a, b, root=lambda n: 1), "spread of single seeds"),
    ("06.5", lambda a, b: paired_by(a, b, steps=lambda n: 1), "one standard error"),
    ("06.5", lambda a, b: [np.mean(a) - np.mean(b), *stats.ttest_ind(a, b).confidence_interval()], "pair them"),
    ("06.5", lambda a, b: (np.subtract(a, b).mean(), -0.1, 0.1), "as far down as up"),
    ("06.5", lambda a, b: np.mean(a) - np.mean(b), "shape (3,)"),
    ("07.1", 7680, "added at the end"),
    ("07.1", 1280, "there are six"),
    ("07.1", 7 * 7 * 1280 * 6, "mean over the 7"),
    ("07.3", lambda x, y, new: np.full(len(new), "good"), "It is right in"),
    ("07.3", lambda x, y, new: np.zeros(len(new)), "is not a class name"),
    ("07.3", lambda x, y, new: y, "returned 200 answers"),
    ("07.3", lambda x, y, new: np.zeros((len(new), 3)), "probabilities"),
    ("08.1", 0.8, "recall"),
    ("08.1", "80 %", "recall"),
    ("08.1", 40, "As a share it is 0.4"),
    ("08.1", 0.86, "accuracy"),
    ("08.1", 0.6, "false alarms"),
    ("08.2", lambda v: 0.5, "are found"),
    ("08.2", lambda v: 0.0, "false alarms where"),
    ("08.2", 0.5, "Expected a function"),
    ("08.3", lambda p: (p["label"].astype(str) == p["predicted"].astype(str)).mean(), "micro F1"),
    ("08.3", lambda p: 0.5, "where scikit-learn has"),
    ("09.1", "float16", "would vanish"),
    ("09.1", "half", "Expected one of"),
    ("09.3", lambda step: 1e-3 * min(step / 100, (1000 - step) / 900), "straight line"),
    ("09.3", lambda step: 1e-3, "should begin at zero"),
    ("09.3", lambda step: 1e-3 * 0.5 * (1 + np.cos(np.pi * step / 1000)), "should begin at zero"),
    ("10.1", "95%", "plain accuracy"),
    ("10.1", 0, "take the mean"),
    ("10.2", {"good": 0.9, "crack": 0.075, "pit": 0.025}, "needs the larger one"),
    ("10.2", {"good": 1, "crack": 12, "pit": 36}, "on average"),
    ("10.2", {"good": 1, "crack": 2, "pit": 3}, "as many times more"),
    ("10.2", {0: 1, 1: 12, 2: 36}, "Expected the classes"),
    ("10.3", lambda p: right_by_camera(p).max() - right_by_camera(p).min(), "gap in accuracy"),
    ("10.3", lambda p: recall_by_camera(p).min() - recall_by_camera(p).max(), "wrong sign"),
    ("10.3", lambda p: recall_by_camera(p).min(), "worst camera"),
    ("10.3", lambda p: recall_by_camera(p).std(), "best camera finds"),
    ("11.1", 2 / 3, "looked at"),
    ("11.1", 0.5, "not as long as two"),
    ("11.1", 10, "which share"),
    ("11.2", np.median, "median"),
    ("11.2", np.mean, "mean"),
    ("11.2", max, "slowest"),
    ("11.2", lambda times: np.percentile(times, 0.95), "numpy has"),
    ("11.2", lambda times: np.percentile(times, 5), "other end"),
    ("08.4", 0.75, "how often it is right"),
    ("08.4", -0.15, "wrong sign"),
    (
        "08.5",
        lambda t: t.loc[t["split"] == "train", "patient"].isin(t.loc[t["split"] == "test", "patient"]).mean(),
        "training rows",
    ),
    (
        "08.5",
        lambda t: t.loc[t["split"] == "test", "patient"].isin(t.loc[t["split"] != "test", "patient"]).mean(),
        "not for training",
    ),
    ("08.5", lambda t: 0.0, "of the test rows are"),
    ("10.4", 0, "equalized odds"),
    ("10.4", 50, "so many people"),
    ("10.5", lambda a, b: 0.2, "Expected a dictionary"),
    ("10.5", lambda a, b: {"dark": 0.2}, "Expected the skins"),
    ("10.5", lambda a, b: alarmed(a) - alarmed(b), "wrong sign"),
    (
        "10.5",
        lambda a, b: alarmed(b, ("benign", "malignant")) - alarmed(a, ("benign", "malignant")),
        "malignant rows, too",
    ),
    ("11.4", 0, "quiet hours, too"),
    ("11.4", 1.0, "rule of three"),
    ("11.4", 3.69, "all three hours"),
    ("11.5", lambda alarms, events: len(alarms), "two numbers"),
    ("11.5", lambda alarms, events: (sum(any(b <= a <= e for b, e in events) for a in alarms), 0), "counts once"),
    ("11.5", lambda alarms, events: (sum(any(b < a < e for a in alarms) for b, e in events), 0), "events found where"),
    ("11.3", lambda labels, last: labels, "A vote counts"),
    ("11.3", lambda labels, last: labels[last:], "shorter past"),
    ("11.3", lambda labels, last: max(set(labels), key=labels.count), "a list of names"),
    ("12.1", 100, "reaches about 0.06"),
    ("12.1", 2401, "one half"),
    ("12.1", 225, "one standard deviation"),
    ("12.2", split_table(), "no split val"),
    ("12.2", split_table(problem=["", "broken"] * 4), "have a problem"),
    (
        "12.2",
        split_table(
            split=["train", "train", "val", "val", "test", "test", "test", "test"], group=[0, 1, 0, 1, 4, 5, 6, 7]
        ),
        "in more than one split",
    ),
    ("12.3", lambda p: p, "lacks the column"),
    ("07.4", 50, "there are six"),
    ("07.4", 360, "needs some, too"),
    ("07.4", 5, "in hours"),
    ("07.5", lambda runs: [10, 20, 50], "chance alone"),
    ("07.5", lambda runs: sorted(runs["images"].unique().tolist()), "chance alone"),
    ("07.5", lambda runs: [10, 50, 150], "is worse"),
    ("07.5", lambda runs: [10], "seed by seed"),
    ("07.5", lambda runs: [50, 10], "It gives [50, 10]"),
    ("07.5", lambda runs: 10, "a list of numbers of images"),
    ("09.4", 6.25, "second group"),
    ("09.4", 0.064, "the other way round"),
    ("09.4", 1.2, "not added up"),
    ("09.5", lambda a, b, share: [share * x + (1 - share) * y for x, y in zip(a, b, strict=True)], "as far from"),
    ("09.5", lambda a, b, share: a, "not on the line"),
    ("09.5", lambda a, b, share: a[0], "shape"),
    ("09.5", lambda a, b, share: [(x + y) / 2 for x, y in zip(a, b, strict=True)], "not on the line"),
    ("09.5", lambda a, b, share: [np.add(x, share * (y - x), out=x) for x, y in zip(a, b, strict=True)], "It changed"),
    ("12.4", 0.85, "luckiest"),
    ("12.4", 0.95, "So much luck"),
    ("12.5", lambda p, share, file: None, "return the path"),
    ("12.5", lambda p, share, file: file, "write the file that was asked for"),
    (
        "12.5",
        lambda p, share, file: listed(p.nlargest(int(np.ceil(share * len(p))), "confidence"), file),
        "lowest confidence",
    ),
    ("12.5", lambda p, share, file: listed(p.nsmallest(int(share * len(p)), "confidence"), file), "The file has"),
    ("12.5", lambda p, share, file: listed(p.nsmallest(5, "confidence").iloc[::-1], file), "should come first"),
    ("12.5", lambda p, share, file: listed(p, file, index=True), "Expected the columns"),
]


@pytest.mark.parametrize(("name", "answer", "words"), WRONG, ids=[f"{row[0]}-{row[2]}" for row in WRONG])
def test_a_wrong_answer_is_told_what_is_off(name, answer, words):
    verdict = exercises.judge(name, answer)
    assert not verdict.right
    assert words.lower() in " ".join(verdict.words.split()).lower()
    assert "could not be read" not in verdict.words


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("05.2", lambda: schedule("epochs"), "is over long before"),
        ("05.2", lambda: schedule("peak"), "not 0.003"),
        ("05.2", lambda: schedule("falling"), "begins at full height"),
        ("05.2", lambda: schedule("long"), "Its peak is"),
        ("05.3", lambda: network("activation inside"), "activation inside"),
        ("05.3", lambda: network("afterwards"), "not BatchNormalization"),
        ("07.2", lambda: pretrained(3, "all"), "still learn"),
        ("07.2", lambda: pretrained(2, "none"), "not 3"),
        ("07.2", lambda: pretrained(3, "first convolution"), "belongs to the backbone"),
        ("09.2", lambda: pretrained(2, "none"), "still frozen"),
        ("09.2", lambda: pretrained(3, "all"), "only the last ones should"),
        ("09.2", lambda: pretrained(3, "no head"), "Its head does not learn"),
    ],
)
def test_a_wrong_model_or_schedule_is_told_what_is_off(name, make, words):
    verdict = exercises.judge(name, make())
    assert not verdict.right
    assert words in " ".join(verdict.words.split())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("augmented", "still changes"),
        ("unshuffled", "same order"),
        ("six images", "Its 6 images are not those of your table"),
    ],
)
def test_a_wrong_dataset_is_told_what_is_off(name, words, parts):
    verdict = exercises.judge("00.2", dataset(name, parts[parts["split"] == "train"]))
    assert not verdict.right
    assert words in " ".join(verdict.words.split())


def test_rows_that_lost_their_camera_or_label_are_found(parts):
    from cnnlab import tables

    good = tables.split(parts.drop(columns="split"), val=0, test=0.5, group="camera", seed=0)
    assert exercises.judge("03.2", good).right
    mixed = good["label"].sample(frac=1, random_state=0).to_numpy()
    for wrong, words in (
        (good.assign(label=mixed), "`label` is not that of the image"),
        (good.assign(camera=good["split"].astype(str)), "`camera` is not that of the image"),
    ):
        verdict = exercises.judge("03.2", wrong)
        assert not verdict.right
        assert words in " ".join(verdict.words.split())


def test_a_table_whose_labels_left_their_images_is_not_ready(parts):
    ready = parts.assign(problem="", group=range(len(parts)))
    assert exercises.judge("12.2", ready).right
    mixed = ready.assign(label=ready["label"].sample(frac=1, random_state=0).array)
    gone = ready.assign(path=[f"{number}.png" for number in range(len(ready))])
    for wrong, words in ((mixed, "`label` is not that of the image"), (gone, "lead to no files")):
        verdict = exercises.judge("12.2", wrong)
        assert not verdict.right
        assert words in " ".join(verdict.words.split())


@pytest.mark.parametrize("answer", [(0.9, 0.75), ["90 %", "75 %"], np.array([0.9, 0.75]).tolist()])
def test_precision_and_recall_are_read_in_every_form(answer):
    assert exercises.judge("00.4", answer).right


@pytest.mark.parametrize(("name", "answer"), [("00.1", "50%"), ("03.1", "80 %"), ("08.1", "40%"), ("10.1", "50 %")])
def test_a_per_cent_is_a_hundredth_in_every_exercise(name, answer):
    assert exercises.judge(name, answer).right


def test_a_report_with_a_nameless_column_or_without_a_part(tmp_path):
    from cnnlab import doctor

    report = doctor.report(fast=True)
    report.to_csv(tmp_path / "a.csv")
    report[report["area"] != "python"].to_csv(tmp_path / "b.csv", index=False)
    report.to_csv(tmp_path / "c.csv", index=False, sep=";")
    wrong = {"a.csv": "nameless first column", "b.csv": "nothing about python", "c.csv": "Semicolons separate"}
    for file, words in wrong.items():
        assert words in " ".join(exercises.judge("01.3", tmp_path / file).words.split())
    assert "fast report" in exercises.judge("01.2", report).words


def test_the_oldest_driver_is_the_one_that_the_doctor_takes():
    from cnnlab.doctor._gpu import OLDEST_DRIVERS

    assert truth("01.4") == OLDEST_DRIVERS[12]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("keras==", "keras>="), "leaves the version open"),
        (lambda text: text.replace("numpy==", "numpy==1.0+"), "is installed here"),
        (lambda text: text.replace("tensorflow==", "tensorflow-cpu=="), "no line that begins with tensorflow"),
        (lambda text: text.replace("numpy==", "numpy # "), "leaves the version open"),
    ],
)
def test_requirements_that_leave_something_open_are_refused(change, words, tmp_path):
    names = ("tensorflow", "keras", "numpy")
    text = "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in names)
    file = tmp_path / "requirements.txt"
    file.write_text(f"pandas\n{text.replace('numpy==', 'numpy == ')}# the end\n")
    assert exercises.judge("01.5", file).right
    file.write_text(change(text))
    verdict = exercises.judge("01.5", file)
    assert not verdict.right
    assert words in " ".join(verdict.words.split())


def test_a_table_that_is_not_ready_to_train_on_is_refused(parts, tmp_path):
    from cnnlab import tables

    ready = parts.assign(problem="", group=range(len(parts)))
    classes = ready["label"].cat.categories
    copied = ready["group"].where(ready["split"] == "train", 0).where(ready.index != ready.index[0], 0)
    cases = {
        "": ready,
        "Expected train, val and test": ready.assign(split=ready["split"].replace({"val": "train"})),
        "have a problem": ready.assign(problem=["not an image"] + [""] * (len(ready) - 1)),
        "have a copy in another split": ready.assign(group=copied),
        "has no image of": ready[(ready["split"] != "test") | (ready["label"] != classes[0])],
        "lacks the column 'group'": ready.drop(columns="group"),
    }
    for number, (words, table) in enumerate(cases.items()):
        tables.save(table, tmp_path / f"{number}.csv")
        verdict = exercises.judge("03.5", tmp_path / f"{number}.csv")
        assert verdict.right == (not words), verdict.words
        assert words in " ".join(verdict.words.split())
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert not exercises.judge("03.5", tmp_path / "other.csv").right

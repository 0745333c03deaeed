"""Damaged folders of strangers, opened as people open them: python tests/fuzz/folders.py --minutes 5 --seed 0.

Exports, runs with checkpoints, saved tables, decisions, searches, cross-validations and weights. Each opening must end
in a result or in a sentence of this package, within 5 seconds and 1 GiB, and must change nothing outside the folder.
Prints one line. A case is made again from its number: --only 17.
"""

import argparse
import json
import linecache
import logging
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from damage import damage, snapshot
from images import Taken
from PIL import Image

import cnnlab

HERE = Path(__file__).resolve().parent
PACKAGE = Path(cnnlab.__file__).parent
SECONDS, WAITS, HANGS = 5, 30, 60  # others may keep the machine busy: the first are a processor's
MEGABYTES = 1024  # more than the process had before
SIZE = (8, 8)
IMAGE = np.full((8, 8, 3), 120, np.uint8)


def few_images(folder, count=8):
    """A table of tiny images of two classes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")
    paths = [str(folder / f"{number}.png") for number in range(count)]
    return pd.DataFrame({"path": paths, "label": pd.Categorical(["cat", "dog"] * (count // 2))})


def build(hp=None):
    from cnnlab import models

    model = models.small_cnn(image_size=SIZE, classes=["cat", "dog"], filters=(2,))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    if hp is not None:
        model.optimizer.learning_rate = hp["learning_rate"]
    return model


def untrained(self, run):
    """Stands in for the trainings of experiments: what is asked is what a folder may do, not what a network learns."""
    from cnnlab._answers import with_probabilities
    from cnnlab.experiments.runner import Trained, collect
    from cnnlab.experiments.training_run import Outcome

    test, model = run.rows.test, build()
    model.optimizer.build(model.trainable_variables)
    predictions = with_probabilities(test, np.eye(2)[test["label"].cat.codes])
    return Trained(collect(Outcome(pd.DataFrame([{"epoch": 0, "loss": 1.0}]), predictions, {}), 0.0), model)


class Kinds:
    """Whole folders of each kind, and what people do with one. `quick` leaves out what takes seconds to make."""

    def __init__(self, place, *, quick=False):
        self.place = place
        self.table = few_images(place / "photos")
        self.names = ["export", "run", "table", "decisions", "search", "validation"]
        for name in self.names:
            getattr(self, f"make_{name}")(place / "whole" / name)
        if not quick:
            self.names += ["own_export", "weights"]
            self.make_own_export(place / "whole" / "own_export")
            self.make_search(place / "whole" / "weights")

    def open(self, name, folder, rng):
        getattr(self, f"open_{name}")(folder, rng)

    def make_export(self, folder):
        shutil.copytree(HERE.parent / "exports_0_1_0" / "colour", folder)

    def open_export(self, folder, rng):
        from cnnlab import serving

        formats = (None, None, "litert", "keras", "onnx")
        format = formats[int(rng.integers(len(formats)))]
        predictor = serving.Predictor(folder, format=format)
        answer = predictor(IMAGE)
        assert isinstance(answer.label, str) and 0 <= answer.confidence <= 1, answer
        if rng.random() < 0.3:
            assert len(predictor.table(self.table)) == len(self.table)
            predictor.network()
        if rng.random() < 0.2:
            label = pd.Categorical(predictor.classes[:1], categories=predictor.classes)
            serving.card(folder, pd.DataFrame({"label": label, "predicted": label}))

    def make_own_export(self, folder):
        from cnnlab import serving

        model = build()
        serving.export(model, folder, formats=["keras", "litert", "onnx"], check=self.table)
        serving.Predictor(folder).fit_novelty(self.table, self.table, false_alarms=0.5)

    open_own_export = open_export

    def fit(self, folder, make, epochs):
        import keras

        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=True)
        callbacks = [
            *make(folder, tensorboard=False, patience=5, monitor="loss"),
            keras.callbacks.ReduceLROnPlateau("loss"),
        ]
        pixels = np.linspace(0, 1, 24, dtype="float32").reshape(8, 3)
        model.fit(pixels, np.arange(8) % 2, epochs=epochs, verbose=0, callbacks=callbacks)

    def make_run(self, folder):
        from cnnlab import training

        self.fit(folder, training.callbacks, 2)

    def open_run(self, folder, rng):
        from cnnlab import training

        self.fit(folder, training.resume, 3)

    def make_table(self, folder):
        from cnnlab import tables

        folder.mkdir(parents=True)
        days = pd.date_range("2026-01-01", periods=8)
        more = {"score": np.linspace(0, 1, 8), "right": [True, False] * 4, "day": days, "site": ["NA", None] * 4}
        tables.save(self.table.assign(**more), folder / "t.csv")

    def open_table(self, folder, rng):
        from cnnlab import tables

        read = (tables.read, tables.from_csv, lambda path: tables.read(path, folder=self.place / "photos"))
        table = read[int(rng.integers(3))](folder / "t.csv")
        assert isinstance(table, pd.DataFrame)
        if {"path", "label"} <= set(table) and rng.random() < 0.5:
            tables.save(table, folder / "t.csv")

    def make_decisions(self, folder):
        from cnnlab import audit

        folder.mkdir(parents=True)
        for number, path in enumerate(self.table["path"][:4]):
            action = ("exclude", "keep", "relabel")[number % 3]
            label = "cat" if action == "relabel" else None
            audit.decide(self.table, path, action, label=label, reason="why", file=folder / "decisions.csv")

    def open_decisions(self, folder, rng):
        from cnnlab import audit

        file = folder / "decisions.csv"
        kind = int(rng.integers(4))
        if kind == 0:
            assert isinstance(audit.decisions(file), pd.DataFrame)
        elif kind == 1:
            assert len(audit.apply(self.table, file)) <= len(self.table)
        elif kind == 2:
            audit.decide(self.table, self.table["path"].iloc[5], "exclude", file=file)
        else:
            audit.undo(file)

    def search(self, folder):
        from cnnlab import experiments

        grid = {"learning_rate": [1e-3, 1e-2]}
        return experiments.grid_search(
            build, grid, self.table, folds=2, image_size=SIZE, epochs=1, seed=0, folder=folder
        )

    def make_search(self, folder):
        self.search(folder)

    def open_search(self, folder, rng):
        found = self.search(folder)
        for name in ("results", "ranking", "best", "histories", "predictions"):
            value = getattr(found, name)
            if callable(value):
                value()
        repr(found)

    def open_weights(self, folder, rng):
        from cnnlab.experiments.tuning import load_weights

        for path in sorted(folder.glob("*/weights.npz")):
            load_weights(build(), path)

    def make_validation(self, folder):
        self.open_validation(folder, None)

    def open_validation(self, folder, rng):
        from cnnlab import experiments

        found = experiments.cross_validate(build, self.table, folds=2, image_size=SIZE, epochs=1, seed=0, folder=folder)
        assert len(found.scores) == 2


def is_sentence(error):
    """Whether it was raised on purpose in this package, with words."""
    if not isinstance(error, ValueError | OSError) or " " not in str(error):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    lines = linecache.getlines(last.filename)[: last.lineno]
    return Path(last.filename).is_relative_to(PACKAGE) and any(line.strip().startswith("raise") for line in lines[-8:])


def case(kinds, number, seed):
    """Damages and opens one folder; what was wrong, or ""."""
    rng = np.random.default_rng([seed, number])
    name = kinds.names[number % len(kinds.names)]
    place = kinds.place / "case"
    shutil.copytree(kinds.place / "whole" / name, place / name)
    (place / "outside").mkdir()
    (place / "outside" / "mine.csv").write_text("path,label\na.png,cat\n")
    (place / "outside" / "empty").touch()
    damage(place / name, rng)
    before = snapshot(kinds.place, besides=place), snapshot(place, besides=place / name)
    wrong, refused, began, whole = [], "", time.process_time(), time.monotonic()
    with Taken() as taken, warnings.catch_warnings(action="ignore"):
        try:
            kinds.open(name, place / name, rng)
        except Exception as error:
            refused = str(error)
            if not is_sentence(error):
                lines = traceback.format_exception(error)
                wrong.append("".join(lines[-12:])[-3000:])
    seconds, memory = time.process_time() - began, taken.megabytes
    if seconds > SECONDS or time.monotonic() - whole > WAITS:
        wrong.append(f"took {time.monotonic() - whole:.1f} s, {seconds:.1f} s of them of a processor")
    if memory > MEGABYTES:
        wrong.append(f"took {memory} MB")
    after = snapshot(kinds.place, besides=place), snapshot(place, besides=place / name)
    for one, two in zip(before, after, strict=True):
        wrong += [f"changed outside: {key}" for key in {*one, *two} if one.get(key) != two.get(key)]
    shutil.rmtree(place)
    row = {"number": number, "kind": name, "wrong": "; ".join(wrong), "refused": refused[:1000]}
    return row | {"seconds": seconds, "memory": memory}


def worker(options):
    """Cases one after the other until the time is over; a line before and after each, as it may end the process."""
    from cnnlab.experiments.runner import Runner

    logging.disable()
    Runner.train = untrained
    with tempfile.TemporaryDirectory() as place, options.log.open("a") as log:
        kinds = Kinds(Path(place))
        number = options.first if options.only is None else options.only
        while time.time() < options.until:
            print(json.dumps({"number": number, "begun": time.time()}), file=log, flush=True)
            print(json.dumps(case(kinds, number, options.seed)), file=log, flush=True)
            number += 1
            if options.only is not None:
                break


def run(minutes, seed, only=None):
    """Keeps a worker going, whatever ends it; the findings, and a summary."""
    until, found, first = time.time() + 60 * minutes, [], 0
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        while time.time() < until - 20 * (first > 0):
            log.write_text("")
            command = [sys.executable, __file__, "--worker", str(log), "--first", str(first), "--seed", str(seed)]
            command += ["--until", str(until)] + ([] if only is None else ["--only", str(only)])
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace")
            problem = _watched(process, log)
            rows = [json.loads(line) for line in log.read_text().splitlines()]
            found += [row for row in rows if "kind" in row]
            if problem:
                number = rows[-1]["number"] if rows else first
                found.append({"number": number, "kind": "?", "wrong": problem, "seconds": 0.0, "memory": 0})
                if not rows:
                    break
                first = number + 1
            else:
                break
    wrong = [row for row in found if row["wrong"]]
    summary = {
        "folders": len(found),
        "refused": sum(bool(row.get("refused")) for row in found),
        "slowest": round(max((row["seconds"] for row in found), default=0), 2),
        "memory": max((row["memory"] for row in found), default=0),
        "wrong": len(wrong),
    }
    return wrong, summary


def _watched(process, log):
    """Waits for a worker; how it ended, if not well."""
    while True:
        try:
            _, errors = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            lines = log.read_text().splitlines()
            last = json.loads(lines[-1]) if lines and lines[-1].endswith("}") else {}
            if time.time() - last.get("begun", time.time()) > HANGS:
                process.kill()
                process.communicate()
                return f"hangs for more than {HANGS} s"
        else:
            return f"ended with {process.returncode}: {errors[-2000:]}" if process.returncode else ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--worker", dest="log", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.log is not None:
        worker(options)
        return
    wrong, summary = run(options.minutes, options.seed, options.only)
    for row in wrong[:20]:
        print(row)
    print(json.dumps(summary))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

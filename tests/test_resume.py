"""A run that was interrupted ends as if it had not been: weights, history and best model, bit by bit."""

import collections
import errno
import itertools
import json
import os
import pathlib
import shutil

import keras
import numpy as np
import pandas as pd
import pytest

from cnnlab import augment, models, pipelines, training
from cnnlab._upstream import build_before_tracing
from cnnlab.training import checkpoint as checkpoints
from cnnlab.training.callback_state import Memory, plain, restored
from cnnlab.training.callbacks import OPTIONS
from cnnlab.training.running import Budget, DiskFullError, disk_watched

EPOCHS = 4


class Power(keras.callbacks.Callback):
    """Fails before a step, counted over all epochs from 0."""

    def __init__(self, step):
        super().__init__()
        self.step, self.done = step, itertools.count()  # no plain value, which would be remembered

    def on_train_batch_begin(self, batch, logs=None):
        if next(self.done) == self.step:
            raise ConnectionAbortedError("power failure")


@pytest.fixture(scope="module")
def rows(digits):
    return digits.groupby("label", observed=True).head(15)


def build(steps_per_execution=1, optimizer=None, *, ahead=True):
    """A network of plain Keras; built before its first step, as `training.compile` has it, or by that step."""
    keras.utils.set_random_seed(3)
    model = models.small_cnn(image_size=(8, 8), classes=list("0123456789"), filters=(8,), dropout=0.3)
    model.compile(
        optimizer or keras.optimizers.AdamW(0.01),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=steps_per_execution,
        jit_compile=False,
    )
    if ahead:
        build_before_tracing(model)
    return model


def stepwise(**options):
    """The same without a graph, which costs more than a few steps."""
    model = build(**options)
    model.run_eagerly = True
    return model


def data_of(rows, **options):
    policy = augment.Policy(rotate=15, shift=0.1)
    options = {"image_size": (8, 8), "batch_size": 16, "training": True, "augment": policy, "seed": 5} | options
    return pipelines.load(rows, **options)


def train(
    rows, folder, *, resume=False, fail_at=None, every_step=True, epochs=EPOCHS, model=None, patience=3, plateau=True
):
    model = build() if model is None else model
    make = training.resume if resume else training.callbacks
    callbacks = make(folder, patience=patience, tensorboard=False)
    if every_step:
        callbacks[0].budget.share = 1e9
    if plateau:
        callbacks.append(keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=1.0))
    if fail_at is not None:
        callbacks.append(Power(fail_at))
    validation = pipelines.load(rows.tail(40), image_size=(8, 8), batch_size=16)
    history = model.fit(
        data_of(rows), validation_data=validation, epochs=epochs, verbose=0, callbacks=callbacks, shuffle=False
    )
    return model, history.history


def bits(model):
    arrays = checkpoints.taken_from(model, {}).arrays
    return [value.tobytes() for name, value in arrays.items() if not name.startswith("metric")]


def best_bits(folder):
    model = keras.models.load_model(folder / "best.keras")  # a file holds no generators; they are drawn anew
    return [np.asarray(value).tobytes() for value in [*model.get_weights(), *model.optimizer.variables]]


def csv_of(folder):
    return pd.read_csv(folder / "history.csv").drop(columns="seconds")


def assert_same(folder, model, history, whole):
    whole_folder, whole_model, whole_history = whole
    assert history == whole_history
    assert bits(model) == bits(whole_model)
    assert best_bits(folder) == best_bits(whole_folder)
    pd.testing.assert_frame_equal(csv_of(folder), csv_of(whole_folder), check_exact=True)


@pytest.fixture(scope="module")
def whole(rows, tmp_path_factory):
    """The run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    model, history = train(rows, folder)
    assert len(history["loss"]) == EPOCHS
    assert len(set(history["learning_rate"])) > 1, "the plateau should have something to remember"
    return folder, model, history


@pytest.mark.parametrize(
    "fail_at", [[10, 3], *(pytest.param([step], marks=pytest.mark.slow) for step in (13, 39))], ids=str
)
def test_an_interrupted_run_ends_like_the_whole_one(rows, whole, tmp_path, fail_at):
    """10 steps an epoch: within one, at its end and soon again, before the last step."""
    for attempt, step in enumerate(fail_at):
        with pytest.raises(ConnectionAbortedError):
            train(rows, tmp_path, resume=attempt > 0, fail_at=step, model=build(ahead=False))
    model, history = train(rows, tmp_path, resume=True, model=build(ahead=False))
    assert_same(tmp_path, model, history, whole)


def test_checkpoints_between_epochs_only_are_exact_too(rows, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("cnnlab.training.resuming.Checkpoints._can_stop_within", lambda self: False)
    with pytest.raises(ConnectionAbortedError):
        train(rows, tmp_path, fail_at=27)
    assert checkpoints.read(tmp_path, build()).facts["step"] == 0
    assert_same(tmp_path, *train(rows, tmp_path, resume=True), whole)


@pytest.mark.slow  # five at a time: test_steps_per_epoch_resume_exactly_too
def test_several_steps_an_execution_are_exact_too(rows, tmp_path):
    model, history = train(rows, tmp_path / "whole", model=build(4))
    with pytest.raises(ConnectionAbortedError):
        train(rows, tmp_path / "cut", model=build(4), fail_at=5)  # 3 executions an epoch
    found = checkpoints.read(tmp_path / "cut", build()).facts
    assert (found["epoch"], found["step"]) == (1, 8)
    model_2, history_2 = train(rows, tmp_path / "cut", model=build(4), resume=True)
    assert_same(tmp_path / "cut", model_2, history_2, (tmp_path / "whole", model, history))


@pytest.mark.parametrize("fail_at", [18, 19])
def test_a_schedule_of_the_whole_run_is_not_over_for_one_that_goes_on_within_an_epoch(rows, tmp_path, caplog, fail_at):
    def cycle():
        return stepwise(optimizer=keras.optimizers.AdamW(training.one_cycle(0.01, steps=20)))

    options = {"epochs": 2, "plateau": False}  # of 10 steps
    with pytest.raises(ConnectionAbortedError):
        train(rows, tmp_path, fail_at=fail_at, model=cycle(), **options)
    _, history = train(rows, tmp_path, resume=True, model=cycle(), **options)
    assert len(history["loss"]) == 2
    assert "over after" not in caplog.text


def test_a_run_that_is_over_stays_over(rows, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    model, history = train(rows, tmp_path, resume=True)
    assert_same(tmp_path, model, history, whole)
    assert json.loads((tmp_path / "run.json").read_text())["resumed"]
    model.fit(data_of(rows), epochs=1, verbose=0)  # an ordinary fit afterwards begins at its beginning


def test_early_stopping_stays_stopped(rows, tmp_path):
    whole = train(rows, tmp_path, epochs=30, patience=1)
    assert len(whole[1]["loss"]) < 30
    model, history = train(rows, tmp_path, epochs=30, patience=1, resume=True)
    assert history == whole[1]
    assert bits(model) == bits(whole[0])


def test_more_epochs_go_on_from_the_last_one(rows, whole, tmp_path):
    train(rows, tmp_path, epochs=2)
    assert_same(tmp_path, *train(rows, tmp_path, resume=True), whole)


def test_a_moving_average_of_the_weights_is_exact_too(rows, tmp_path):
    def averaged(folder, **options):
        model = stepwise(optimizer=keras.optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.9))
        return bits(train(rows, folder, model=model, epochs=2, **options)[0])

    whole = averaged(tmp_path / "whole")
    with pytest.raises(ConnectionAbortedError):
        averaged(tmp_path / "cut", fail_at=13)
    assert averaged(tmp_path / "cut", resume=True) == whole
    assert averaged(tmp_path / "cut", resume=True) == whole


def test_the_random_state_goes_on(rows, tmp_path):
    """Keras's global generator, Python's and numpy's: here they blur the weights after every epoch."""

    class Shaker(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            noise = np.random.normal() + __import__("random").random() + float(keras.random.normal(()))  # noqa: NPY002
            logs["noise"] = noise

    def run(folder, **options):
        model = stepwise()
        make = training.resume if options.pop("resume", False) else training.callbacks
        callbacks = [*make(folder, tensorboard=False, monitor="loss"), Shaker(), Power(options.pop("fail_at", 99))]
        callbacks[0].budget.share = 1e9
        return model.fit(data_of(rows), epochs=2, verbose=0, callbacks=callbacks).history["noise"]

    expected = run(tmp_path / "whole")
    with pytest.raises(ConnectionAbortedError):
        run(tmp_path / "cut", fail_at=14)
    assert run(tmp_path / "cut", resume=True) == expected


def test_a_cell_with_resume_begins_where_there_is_nothing(rows, whole, tmp_path):
    assert_same(tmp_path, *train(rows, tmp_path, resume=True), whole)


def test_options_are_those_of_the_run(rows, tmp_path):
    train(rows, tmp_path, epochs=1, patience=7, model=stepwise())
    kinds = {type(callback).__name__: callback for callback in training.resume(tmp_path)}
    assert kinds["EarlyStopping"].patience == 7
    assert "TensorBoard" not in kinds
    assert set(OPTIONS) <= set(json.loads((tmp_path / "run.json").read_text()))
    with pytest.raises(TypeError, match="'patient'"):
        training.resume(tmp_path, patient=3)


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage", [cut_in_half, pytest.param(os.unlink, marks=pytest.mark.slow)], ids=lambda damage: damage.__name__
)
def test_the_checkpoint_before_is_used_where_the_latest_is_damaged(rows, whole, tmp_path, damage, caplog):
    with pytest.raises(ConnectionAbortedError):
        train(rows, tmp_path, fail_at=25)
    latest = tmp_path / "checkpoint" / "latest.ckpt"
    facts = checkpoints.read(tmp_path, build()).facts
    damage(latest)
    before = checkpoints.read(tmp_path, build()).facts
    assert (before["epoch"], before["step"]) < (facts["epoch"], facts["step"])
    assert ("damaged" in caplog.text) == (damage is not os.unlink)
    assert_same(tmp_path, *train(rows, tmp_path, resume=True), whole)


def test_only_damaged_checkpoints_are_refused_in_words(rows, tmp_path):
    train(rows, tmp_path, epochs=1, model=stepwise())
    for path in (tmp_path / "checkpoint").iterdir():
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(ValueError, match="Expected a whole checkpoint"):
        train(rows, tmp_path, resume=True, model=stepwise())


def test_a_full_disk_stops_with_a_sentence_and_leaves_the_last_good_checkpoint(rows, whole, tmp_path, monkeypatch):
    plain = checkpoints.os.fsync
    count = 0

    def full(descriptor):
        nonlocal count
        count += 1
        if count == 18:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(descriptor)

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(DiskFullError, match="is full, so training stopped") as caught:
        train(rows, tmp_path)
    assert "training.resume" in str(caught.value)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == {"latest.ckpt", "previous.ckpt"}
    assert_same(tmp_path, *train(rows, tmp_path, resume=True), whole)


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), disk_watched(tmp_path, ""):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(DiskFullError), disk_watched(tmp_path, ""):
        raise RuntimeError("Unable to flush file (errno = 28, error message = 'No space left on device')")


def test_another_model_or_other_data_is_refused_in_words(rows, tmp_path):
    train(rows, tmp_path, epochs=1, model=stepwise())
    wide = models.small_cnn(image_size=(8, 8), classes=list("0123456789"), filters=(9,))
    training.compile(wide)
    with pytest.raises(ValueError, match="expects the same model"):
        train(rows, tmp_path, resume=True, model=wide)
    with pytest.raises(ValueError, match="expects the same optimizer"):
        train(rows, tmp_path, resume=True, model=build(optimizer=keras.optimizers.SGD(0.1)))
    with pytest.raises(ValueError, match="images was 150, is 140"):
        train(rows.head(140), tmp_path, resume=True)


def layered(activation="relu", *, told=True, **options):
    """A network of plain Keras whose weights have the same shapes whatever the options."""
    layers = [
        keras.layers.Conv2D(4, 3, activation=activation, **options),
        keras.layers.RandomCrop(4, 4),  # draws a seed of its own
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers] if told else layers)
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    return model


def go(folder, data, model, *, epochs, resume=True):
    callbacks = (training.resume if resume else training.callbacks)(folder, tensorboard=False)
    return model.fit(data, epochs=epochs, verbose=0, callbacks=callbacks)


def as_before(folder, *names):
    """The checkpoints as they were written before they held these facts."""
    for path in (folder / "checkpoint").iterdir():
        arrays = dict(np.load(path))
        facts = json.loads(arrays["facts"].tobytes())
        for name in names:
            facts.pop(name, None)
            facts["data"].pop(name, None)
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        with path.open("wb") as file:
            np.savez(file, **arrays)


@pytest.mark.parametrize("told", [True, False], ids=["told its size", "built by the first images"])
def test_another_network_of_the_same_shapes_is_refused(rows, tmp_path, told):
    go(tmp_path, data_of(rows.head(32)), layered(told=told), epochs=1, resume=False)
    for other in ({"activation": "tanh"}, {"kernel_regularizer": "l2"}, {"dilation_rate": 2}):
        with pytest.raises(ValueError, match="expects the same network"):
            go(tmp_path, data_of(rows.head(32)), layered(told=told, **other), epochs=2)
    assert go(tmp_path, data_of(rows.head(32)), layered(told=told), epochs=2).epoch == [0, 1]


def test_a_network_that_training_changes_goes_on(rows, tmp_path):
    class Changes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[0].trainable = False
            self.model.layers[0].activation = keras.activations.tanh

    callbacks = [*training.callbacks(tmp_path, tensorboard=False), Changes()]
    layered().fit(data_of(rows.head(32)), epochs=2, verbose=0, callbacks=callbacks)
    assert go(tmp_path, data_of(rows.head(32)), layered(), epochs=3).epoch == [0, 1, 2]


def brighter(by):
    def brighten(image):
        return (image * by).astype("uint8")

    return brighten


def test_the_same_function_of_an_image_goes_on_wherever_it_is_in_memory(rows, tmp_path):
    go(tmp_path, data_of(rows.head(32), augment=brighter(1.0)), layered(), epochs=1, resume=False)
    with pytest.raises(ValueError, match=r"expects the same data.*code of augment"):
        go(tmp_path, data_of(rows.head(32), augment=brighter(0.5)), layered(), epochs=2)
    assert go(tmp_path, data_of(rows.head(32), augment=brighter(1.0)), layered(), epochs=2).epoch == [0, 1]


def test_a_moved_folder_goes_on_and_other_pictures_of_the_same_names_are_said(rows, tmp_path, caplog):
    def moved(name, change):
        table = rows.head(32).copy()
        for path in table["path"]:
            copy = tmp_path / name / pathlib.Path(path).relative_to("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(change(pathlib.Path(path).read_bytes()))
        return data_of(table.assign(path=[str(tmp_path / name / path.lstrip("/")) for path in table["path"]]))

    run = tmp_path / "run"
    go(run, data_of(rows.head(32)), layered(), epochs=1, resume=False)
    go(run, moved("same", lambda data: data), layered(), epochs=2)
    assert "other sizes" not in caplog.text
    go(run, moved("other", lambda data: data + b" "), layered(), epochs=3)
    assert caplog.text.count("files of other sizes") == 1


def test_a_checkpoint_that_says_nothing_of_layers_code_and_sizes_goes_on(rows, tmp_path, caplog):
    data = data_of(rows.head(32))
    validation = data_of(rows.tail(8), training=False, augment=None)
    for model, epochs, make in ((layered(), 1, training.callbacks), (layered("tanh"), 2, training.resume)):
        callbacks = make(tmp_path, tensorboard=False)
        history = model.fit(data, validation_data=validation, epochs=epochs, verbose=0, callbacks=callbacks)
        as_before(tmp_path, "network", "code of augment", "file sizes")
    assert history.epoch == [0, 1] and "sizes" not in caplog.text


def test_data_of_unknown_order_goes_on_with_a_warning(rows, tmp_path, caplog):
    for make in (training.callbacks, training.resume):
        model = stepwise()
        data = data_of(rows).take(3)
        model.fit(data, epochs=2, verbose=0, callbacks=make(tmp_path, tensorboard=False))
    assert "not exactly" in caplog.text


def test_a_seed_that_nobody_named_is_kept(rows, tmp_path):
    first = data_of(rows, seed=None)
    callbacks = training.callbacks(tmp_path, tensorboard=False)
    stepwise().fit(first, epochs=1, verbose=0, callbacks=callbacks)
    again = data_of(rows, seed=None)
    stepwise().fit(again, epochs=2, verbose=0, callbacks=training.resume(tmp_path))
    assert again._cnnlab_source.seed == first._cnnlab_source.seed


def test_missing_callbacks_are_named(rows, tmp_path, caplog):
    train(rows, tmp_path, epochs=2, model=stepwise())
    validation = pipelines.load(rows.tail(40), image_size=(8, 8), batch_size=16)
    again = training.resume(tmp_path, patience=None, monitor="loss")
    stepwise().fit(data_of(rows), validation_data=validation, epochs=3, verbose=0, callbacks=again)
    assert "ReduceLROnPlateau" in caplog.text


def test_an_interrupted_resumed_epoch_leaves_the_model_usable(rows, tmp_path):
    with pytest.raises(ConnectionAbortedError):
        train(rows, tmp_path, fail_at=5, model=stepwise())
    model = stepwise()
    with pytest.raises(ConnectionAbortedError):
        train(rows, tmp_path, fail_at=2, resume=True, model=model)
    before = bits(model)
    history = model.fit(data_of(rows), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    assert bits(model) != before


class Gathers(keras.callbacks.Callback):
    """Somebody's own callback with whatever may be gathered."""

    def __init__(self):
        super().__init__()
        self.told, self.file, self.flag, self.nothing = 9, "mine.csv", False, None
        self.by_class, self.counter, self.last = {}, collections.Counter(), collections.deque(maxlen=3)
        self.seen, self.pair, self.array, self.path = set(), (), np.zeros(2), pathlib.Path("mine")


def test_memory_is_what_training_changed():
    stopping, own, model = keras.callbacks.EarlyStopping(patience=5), Gathers(), build()
    memory = Memory([stopping, own], model)
    stopping.wait, stopping.best, stopping.best_weights = 3, 0.1 + 0.2, model.get_weights()
    own.by_class, own.flag, own.nothing = {0: [1, 2.5], 3: {"a": None}}, True, 4.5
    own.counter.update("aab")
    own.last.extend([1, 2, 3, 4])
    own.seen, own.pair, own.array = {1, 2}, (1, (2,)), np.array([1.0, np.nan])
    taken, arrays = memory.taken()
    assert set(taken["EarlyStopping 0"]) == {"wait", "best", "best_weights", "best_epoch", "monitor"} - {"best_epoch"}
    assert "told" not in taken["Gathers 0"]
    taken = json.loads(json.dumps(taken))
    other, again = keras.callbacks.EarlyStopping(patience=9), Gathers()
    again.told = 1
    assert Memory([other, again], model).give_back(taken, arrays) == []
    assert (other.wait, other.best, other.patience) == (3, 0.1 + 0.2, 9)
    for value, expected in zip(other.best_weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, expected)
    for name in ("by_class", "flag", "nothing", "counter", "seen", "pair"):
        assert getattr(again, name) == getattr(own, name), name
        assert type(getattr(again, name)) is type(getattr(own, name)), name
    assert list(again.last) == [2, 3, 4]
    np.testing.assert_array_equal(again.array, own.array)
    assert (again.told, again.file) == (1, "mine.csv")
    missing = Memory([], model).give_back(json.loads(json.dumps(taken)), arrays)
    assert missing == ["EarlyStopping is missing now", "Gathers is missing now"]


def test_plain_values_survive_and_others_are_refused():
    value = {"a": [1, 2.5, None, True, float("inf")], 0: {2.5: np.array([[1, 2]], np.int64)}, None: (1, {2})}
    arrays = {}
    again = restored(json.loads(json.dumps(plain(value, arrays))), arrays)
    np.testing.assert_equal(again, value)
    for refused in (object(), "text", ["text"], {(1, 2): 3}, np.array(["text"])):
        with pytest.raises(TypeError):
            plain(refused, {})
    for made_up in (
        "text",
        {"array": "callback_7"},
        {"list": 3},
        {"dict": [[[1], 2]]},
        {"evil": []},
        {"list": ["text"]},
    ):
        with pytest.raises((ValueError, TypeError)):
            restored(made_up, {})


def test_a_budget_allows_as_much_as_it_says(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("cnnlab.training.running.time.perf_counter", lambda: now[0])
    budget = Budget(0.01)
    assert budget.allows()
    with budget.spent():
        now[0] += 0.5
    now[0] += 49.9
    assert not budget.allows()
    now[0] += 0.2
    assert budget.allows()


@pytest.mark.parametrize(
    ("before", "after"),
    [(4, 3), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((8, 1), (1, 8), (3, 8)))],
)
def test_other_steps_an_execution_do_the_same_steps(rows, tmp_path, before, after):
    """10 steps an epoch, stopped in the second one."""
    whole = train(rows, tmp_path / "whole", model=build(), epochs=2)
    with pytest.raises(ConnectionAbortedError):
        train(rows, tmp_path / "cut", model=build(before), epochs=2, fail_at=-(-10 // before) + 5 // before + 1)
    assert checkpoints.read(tmp_path / "cut", build()).facts["step"] > 0
    model, history = train(rows, tmp_path / "cut", model=build(after), epochs=2, resume=True)
    assert int(model.optimizer.iterations) == 20
    np.testing.assert_allclose(history["loss"], whole[1]["loss"], rtol=1e-5)
    for one, other in zip(model.get_weights(), whole[0].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("steps", [pytest.param(4, marks=pytest.mark.slow), 25])
def test_steps_per_epoch_resume_exactly_too(rows, tmp_path, steps):
    """10 batches in a pass: an epoch begins within one."""

    def run(folder, make, fail_at=None):
        keras.utils.set_random_seed(3)
        model = models.small_cnn(image_size=(8, 8), classes=list("0123456789"), filters=(4,), dropout=0.3)
        training.compile(model, learning_rate=0.01)
        callbacks = [*make(folder, tensorboard=False), *([Power(fail_at)] if fail_at else [])]
        callbacks[0].budget.share = 1e9
        history = model.fit(data_of(rows), epochs=3, steps_per_epoch=steps, verbose=0, callbacks=callbacks)
        assert int(model.optimizer.iterations) == 3 * steps
        return model, history.history

    whole, expected = run(tmp_path / "whole", training.callbacks)
    executions = {4: 1, 25: 5}[steps]  # 4 steps at a time, 5 at a time
    with pytest.raises(ConnectionAbortedError):
        run(tmp_path / "cut", training.callbacks, fail_at=executions + max(1, executions // 2))
    model, history = run(tmp_path / "cut", training.resume)
    assert history == expected
    assert bits(model) == bits(whole)


def arrays():
    images = np.stack([np.full((8, 8, 3), number % 10 * 25.0) for number in range(20)])
    return {"x": images, "y": np.arange(20) % 10}


def own_loss(true, predicted):
    return 2 * keras.losses.sparse_categorical_crossentropy(true, predicted)


OTHERWISE = {
    "sample_weight": {"sample_weight": np.linspace(0, 1, 20)},
    "validation data": {"validation_data": (arrays()["x"], np.zeros(20, int))},
    "loss": {},
    "precision": {},
}


@pytest.mark.parametrize("what", list(OTHERWISE))
def test_what_else_decides_a_run_is_refused_when_it_is_another(tmp_path, what):
    options = {"sample_weight": np.ones(20), "validation_data": tuple(arrays().values()), "verbose": 0}
    callbacks = training.callbacks(tmp_path, patience=3, tensorboard=False)
    stepwise().fit(**arrays(), epochs=1, callbacks=callbacks, **options)
    keras.config.set_dtype_policy("mixed_bfloat16" if what == "precision" else "float32")
    try:
        model = stepwise()
    finally:
        keras.config.set_dtype_policy("float32")
    if what == "loss":
        model.compile(keras.optimizers.AdamW(0.01), loss=own_loss, metrics=["accuracy"], run_eagerly=True)
    with pytest.raises(ValueError, match=f"expects the same .*{what} was"):
        model.fit(**arrays(), epochs=2, callbacks=training.resume(tmp_path), **options | OTHERWISE[what])
    stepwise().fit(**arrays(), epochs=2, callbacks=training.resume(tmp_path), **options)


def test_a_network_that_is_not_built_yet_is_trained_and_goes_on_exactly(rows, tmp_path):
    def unbuilt():
        keras.utils.set_random_seed(3)
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dropout(0.3)]
        model = keras.Sequential([*layers, keras.layers.Dense(10, activation="softmax")])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
        return model

    whole, part = unbuilt(), unbuilt()
    train(rows, tmp_path / "whole", model=whole)
    with pytest.raises(ConnectionAbortedError):
        train(rows, tmp_path / "part", model=part, fail_at=13)
    resumed = unbuilt()
    train(rows, tmp_path / "part", model=resumed, resume=True)
    assert bits(resumed) == bits(whole)


def test_another_seed_of_the_data_is_said_to_have_no_effect(rows, tmp_path, caplog):
    stepwise().fit(data_of(rows), epochs=1, verbose=0, callbacks=training.callbacks(tmp_path, tensorboard=False))
    again = data_of(rows, seed=6)
    stepwise().fit(again, epochs=2, verbose=0, callbacks=training.resume(tmp_path))
    assert again._cnnlab_source.seed == 5 and "goes on with the seed of its data, 5, not with 6" in caplog.text


def halved(optimizer=None):
    """In mixed_float16, where Keras puts an optimizer into one that scales the loss."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = stepwise(optimizer=optimizer)
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    return model


def scheduled(peak):
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(peak, 90))


def in_groups(*rules):
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(rules[0], {".*bias": rules[-1]}))


def fit_halved(rows, folder, model, *, make=training.resume, fail_at=99, epochs=2):
    callbacks = [*make(folder, tensorboard=False, monitor="loss"), Power(fail_at)]
    callbacks[0].budget.share = 1e9
    model.fit(data_of(rows.head(48)), epochs=epochs, verbose=0, callbacks=callbacks)
    return model


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: keras.optimizers.AdamW(0.01), id="one", marks=pytest.mark.slow),
        pytest.param(lambda: in_groups(keras.optimizers.SGD(0.01), keras.optimizers.AdamW(0.01)), id="several"),
    ],
)
def test_an_interrupted_run_in_half_precision_ends_like_the_whole_one(rows, tmp_path, make):
    whole = fit_halved(rows, tmp_path / "whole", halved(make()))
    with pytest.raises(ConnectionAbortedError):
        fit_halved(rows, tmp_path / "cut", halved(make()), fail_at=4)  # of 6 steps
    assert bits(fit_halved(rows, tmp_path / "cut", halved(make()))) == bits(whole)


@pytest.mark.parametrize(
    ("one", "other", "changed"),
    [
        (keras.optimizers.SGD(0.01), keras.optimizers.Adam(0.01), "optimizer 1 was SGD, is Adam"),
        (keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.02), "learning_rate 1 was"),
        (
            in_groups(keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01, nesterov=True)),
            in_groups(keras.optimizers.SGD(0.01), keras.optimizers.SGD(0.01)),
            "nesterov 2 was True, is False",
        ),
    ],
    ids=["kind", "rate", "one of several"],
)
def test_another_optimizer_within_is_refused(rows, tmp_path, one, other, changed):
    fit_halved(rows, tmp_path, halved(one), make=training.callbacks, epochs=1)
    with pytest.raises(ValueError, match=f"expects the same optimizer .*{changed}"):
        fit_halved(rows, tmp_path, halved(other))


def test_in_half_precision_too_a_run_may_go_on_with_another_schedule_and_its_own_lowered_rate(rows, tmp_path, caplog):
    fit_halved(rows, tmp_path / "a", halved(scheduled(0.1)), make=training.callbacks, epochs=1)
    fit_halved(rows, tmp_path / "a", halved(scheduled(0.2)))
    assert "another learning-rate schedule" in caplog.text
    model = fit_halved(rows, tmp_path / "b", halved(), make=training.callbacks, epochs=1)
    model.optimizer.learning_rate = 0.005  # as `training.plateau` does
    fit_halved(rows, tmp_path / "b", model)

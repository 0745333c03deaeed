import contextlib
import signal
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest

from cnnlab import models, widgets
from cnnlab.widgets import monitoring


@pytest.fixture
def small():
    model = models.small_cnn(image_size=(8, 8), classes=["a", "b"], filters=(4,), dropout=0.0)
    model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


@pytest.fixture
def pictures():
    labels = np.arange(64) % 2
    return np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3)).astype("uint8"), labels


def fit(model, pictures, *callbacks, epochs=3):
    return model.fit(
        *pictures, validation_data=pictures, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )


class Shown:
    """Stands in for a display in a notebook."""

    def __init__(self):
        self.pictures = []

    def __call__(self, picture, display_id=None):
        self.pictures.append(getattr(picture, "data", picture))
        return self

    def update(self, picture):
        self.pictures.append(picture.data)


@pytest.fixture
def notebook(monkeypatch):
    shown = Shown()
    monkeypatch.setenv("CNNLAB_QUIET", "0")
    monkeypatch.setattr(monitoring, "is_quiet", lambda: False)
    monkeypatch.setattr(monitoring, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", shown)
    return shown


def test_live_curves_and_a_final_picture(small, pictures, notebook, monkeypatch):
    monkeypatch.setattr(monitoring, "PAUSE", 0)
    monkeypatch.setattr(monitoring, "SHARE", 1e9)
    fit(small, pictures, widgets.monitor())
    texts = [picture for picture in notebook.pictures if isinstance(picture, str)]
    assert "starting" in texts[0]
    assert any("left" in text and "epoch 2 of 3" in text for text in texts)
    assert "3 epochs, done" in texts[-1]
    assert texts[-1].count("<polyline") == 4  # loss and accuracy, training and validation
    assert len(texts[-1]) < 5_000


def test_drawing_is_throttled(small, pictures, notebook):
    fit(small, pictures, widgets.monitor(), epochs=10)
    assert len(notebook.pictures) <= 15


def test_headless_runs_show_the_final_curves_and_nothing_else(small, pictures, notebook, monkeypatch, capsys):
    monkeypatch.setattr(monitoring, "is_quiet", lambda: True)
    history = fit(small, pictures, widgets.monitor())
    assert len(notebook.pictures) == 1
    assert "3 epochs, done" in notebook.pictures[0]
    assert len(history.epoch) == 3
    assert capsys.readouterr().out == ""


def test_without_a_notebook_nothing_is_shown(small, pictures, capsys):
    fit(small, pictures, widgets.monitor())
    assert capsys.readouterr().out == ""


class Later(keras.callbacks.Callback):
    """Does something in the second epoch, after worsening the weights."""

    def __init__(self, action):
        super().__init__()
        self.action, self.kept = action, None

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.kept = self.model.get_weights()

    def on_train_batch_begin(self, batch, logs=None):
        if self.params["epochs"] and self.kept is not None:
            self.model.set_weights([weight * 50 for weight in self.kept])
            self.action()


@pytest.mark.parametrize("how", ["button", "interrupt"])
def test_stopping_ends_cleanly_with_the_best_weights(small, pictures, notebook, how):
    panel = widgets.monitor()
    before = signal.getsignal(signal.SIGINT)

    def press():
        thread = threading.Thread(target=panel.button.click)  # JupyterLab's clicks come in another thread
        thread.start()
        thread.join()

    later = Later(press if how == "button" else lambda: signal.raise_signal(signal.SIGINT))
    history = fit(small, pictures, later, panel, epochs=50)
    assert len(history.epoch) == 2
    assert "val_loss" in history.history
    for one, other in zip(small.get_weights(), later.kept, strict=True):
        np.testing.assert_array_equal(one, other)
    assert "stopped, best weights are back" in notebook.pictures[-1]
    assert signal.getsignal(signal.SIGINT) == before
    assert len(fit(small, pictures, panel, epochs=2).epoch) == 2  # may be used again


def test_an_interruption_after_a_crash_is_an_ordinary_one(small, pictures):
    def fail():
        raise ConnectionAbortedError

    before = signal.getsignal(signal.SIGINT)
    try:
        for usual in (signal.default_int_handler, signal.SIG_IGN):  # a shell's background jobs ignore it
            signal.signal(signal.SIGINT, usual)
            with pytest.raises(ConnectionAbortedError):
                fit(small, pictures, widgets.monitor(), Later(fail))
            with contextlib.nullcontext() if usual is signal.SIG_IGN else pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) == usual
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_nan_does_not_break_the_picture():
    rows = [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": float("inf")}, {"epoch": 3, "loss": 1.0}]
    assert "<svg" in monitoring.curves(rows, "loss")
    assert monitoring.curves(rows, "accuracy") == ""


def test_no_metrics_are_refused():
    with pytest.raises(ValueError, match="metrics"):
        widgets.monitor(metrics=())


def test_a_number_that_training_does_not_report_is_refused(small, pictures):
    with pytest.raises(ValueError, match=r"watch.*accuracy, loss.*val_acuracy"):
        fit(small, pictures, widgets.monitor(watch="val_acuracy"), epochs=1)


def test_importing_widgets_loads_no_widget():
    code = "import sys, cnnlab.widgets; print('ipywidgets' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"

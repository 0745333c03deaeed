"""Training that can be watched and stopped: live curves, time left and a button, as a plain Keras callback."""

import html
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, ClassVar

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._common import is_quiet
from cnnlab._upstream import fit_around
from cnnlab.plots.style import BLUE, GREY, ORANGE
from cnnlab.training.best import Watched, numbers
from cnnlab.training.callback_state import Fields
from cnnlab.training.running import Budget

SHARE = 0.003  # of the time may go into drawing
PAUSE = 0.5  # seconds between two drawings, at least
WIDTH, HEIGHT, MARGIN = 320, 170, 36  # of one set of curves, pixels


def monitor(
    *, metrics: tuple[str, ...] = ("loss", "accuracy"), watch: str = "val_loss", mode: str = "auto"
) -> "Monitor":
    """A callback that draws the curves while the model trains, says how long it will take, and has a stop button.

    The button (or the notebook's own ■, or Ctrl-C) ends training cleanly: after the step in hand, with validation, all
    callbacks' ends and the best weights so far put back; `history` is complete. Pressed a second time, ■ interrupts as
    it always does. Where nobody watches (a report, a script), nothing is drawn but the final curves.

    Args:
        metrics: Which curves, training and validation in one.
        watch: Which number tells the best weights after a stop.
        mode: "min" or "max" for a number whose direction Keras does not know.

    Returns:
        A callback for `model.fit(callbacks=[…, widgets.monitor()], verbose=0)`.

    Raises:
        ValueError: If `metrics` is empty; after the first epoch, if training reports no number called `watch`.

    Example:
        >>> from cnnlab import widgets
        >>> widgets.monitor().metrics
        ('loss', 'accuracy')
    """
    if not metrics or isinstance(metrics, str):
        raise ValueError(f"`metrics` expects one name or more, such as ('loss', 'accuracy'). Received: {metrics!r}.")
    return Monitor(tuple(metrics), Watched(watch, mode, argument="watch"))


class Monitor(keras.callbacks.Callback):
    """What `monitor` returns."""

    remembered: ClassVar[Fields] = {"rows": "rows", "best": "number", "best_weights": "weights"}

    def __init__(self, metrics: tuple[str, ...], watched: Watched) -> None:
        super().__init__()
        self.metrics, self.watched, self.monitor = metrics, watched, watched.name
        self.rows: list[dict[str, float]] = []
        self.best: float | None = None
        self.best_weights: list[Any] | None = None
        self.asked = threading.Event()
        self.panel: Any = None
        self.button: Any = None

    def stop(self, *_: Any) -> None:
        """Ends training after the step in hand, as the button does; may be called from any thread."""
        self.asked.set()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Shows the button and the empty panel, where somebody watches."""
        self.rows, self.best, self.best_weights = [], None, None
        self.first: int | None = None
        self.asked.clear()
        self.began = self.drawn = time.perf_counter()
        self.budget = Budget(SHARE)
        self.watched.begin(self)
        self.monitor = self.watched.name
        self._earlier: Any = None
        if threading.current_thread() is threading.main_thread():
            self._earlier = signal.signal(signal.SIGINT, self._interrupted)
        if not is_quiet() and _in_notebook():
            self._show_button()
            self._draw(0.0)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Notes where training begins, which after a resume is not epoch 0."""
        if self.first is None:
            self.first, self.began = epoch, time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the button; moves the bar now and then."""
        self._look(batch / (self.params.get("steps") or batch + 1))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds a point to the curves and remembers the best weights."""
        self.rows.append({"epoch": epoch + 1, **numbers(logs)})
        value = self.watched.value(logs)
        if self.watched.better(value, self.best):
            self.best, self.best_weights = value, self.model.get_weights()
        self._look(1.0)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the best weights back after a stop, and leaves the final curves."""
        self._release_interrupts()
        if self.asked.is_set() and self.best_weights is not None:
            self.model.set_weights(self.best_weights)
        self.best_weights = None
        if self.button is not None:
            self.button.close()
        if _in_notebook() and self.rows:
            self._draw(1.0, final=True)
        self.panel = self.button = None

    def _look(self, share: float) -> None:
        """Stops if asked to, and draws if that is cheap; `share` of the current epoch is done."""
        if self.asked.is_set():
            self.model.stop_training = True
        if self.panel is not None and time.perf_counter() - self.drawn >= PAUSE and self.budget.allows():
            with self.budget.spent():
                self._draw(share)

    # Stopping

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """The first interruption within `fit` asks to stop; any other one does what it did before."""
        self._release_interrupts()
        if fit_around(self).arguments:
            self.asked.set()
        else:
            signal.raise_signal(number)

    def _release_interrupts(self) -> None:
        if self._earlier is not None:
            signal.signal(signal.SIGINT, self._earlier)
            self._earlier = None

    def _show_button(self) -> None:
        import ipywidgets
        from IPython.display import display

        self.button = ipywidgets.Button(description="Stop", icon="stop", tooltip="End training, keep the best weights")
        self.button.on_click(self.stop)
        display(self.button)
        # ipykernel 7.4 hands a click to the thread that made the button, which trains; without this note of its own
        # it goes where the browser sends it, to a thread beside the training
        vars(self.button.comm).pop("_reply_subshell_id", None)

    # Drawing

    def _draw(self, share: float, *, final: bool = False) -> None:
        """Replaces the last drawing."""
        from IPython.display import HTML, display

        picture = HTML(self.picture(share, final=final))
        if self.panel is None:
            self.panel = display(picture, display_id=True)
        else:
            self.panel.update(picture)
        self.drawn = time.perf_counter()

    def picture(self, share: float, *, final: bool = False) -> str:
        """The panel as HTML with SVG inside: a few kilobytes however many epochs there are."""
        epochs, first = int(self.params.get("epochs") or 1), self.first or 0
        done = len(self.rows) + (share if share < 1 else 0)
        filled = 100 if final else 100 * min((first + done) / epochs, 1)
        bar = (
            f'<div style="background:#e8e8e8;width:{WIDTH}px;height:6px;margin:4px 0">'
            f'<div style="background:{BLUE};width:{filled:.1f}%;height:6px"></div></div>'
        )
        text = html.escape(self._words(done, first, epochs, final))
        return f"<div>{text}{bar}{''.join(curves(self.rows, name) for name in self.metrics)}</div>"

    def _words(self, done: float, first: int, epochs: int, final: bool) -> str:
        passed = time.perf_counter() - self.began
        latest = self.rows[-1] if self.rows else {}
        names = [key for name in self.metrics for key in (name, f"val_{name}") if key in latest]
        if final:
            how = "stopped, best weights are back" if self.asked.is_set() else "done"
            words = [f"{len(self.rows)} epochs, {how}", f"{clock(passed)} in all"]
        else:
            left = f"about {clock(passed / done * max(epochs - first - done, 0))} left" if done > 0 else "starting"
            words = [f"epoch {min(first + int(done) + 1, epochs)} of {epochs}", left]
        return " · ".join([*words, *(f"{name} {latest[name]:.3f}" for name in names)])


def curves(rows: list[dict[str, float]], metric: str) -> str:
    """Training and validation curve of one metric as SVG."""
    lines = {
        color: np.array([(row["epoch"], row[name]) for row in rows if not np.isnan(row.get(name, np.nan))])
        for name, color in ((metric, BLUE), (f"val_{metric}", ORANGE))
    }
    values = [value for line in lines.values() for _, value in line if np.isfinite(value)]
    if not values:
        return ""
    low, high = min(values), max(values)
    start, end = rows[0]["epoch"], rows[-1]["epoch"]
    right, bottom = WIDTH - MARGIN, HEIGHT - MARGIN
    parts = [
        f'<path d="M{MARGIN},{0.5 * MARGIN} V{bottom} H{right}" fill="none" stroke="{GREY}"/>',
        f'<text x="{MARGIN - 4}" y="{bottom}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{MARGIN - 4}" y="{0.6 * MARGIN + 4}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{MARGIN}" y="{bottom + 14}" text-anchor="middle">{start:g}</text>',
        f'<text x="{right}" y="{bottom + 14}" text-anchor="middle">{end:g}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">epoch</text>',
        f'<text x="{WIDTH / 2}" y="12" text-anchor="middle"><tspan fill="{BLUE}">training {html.escape(metric)}</tspan>'
        f' <tspan fill="{ORANGE}" dx="6">validation</tspan></text>',
    ]
    for color, line in lines.items():
        epochs, heights = line.reshape(-1, 2).T
        x = np.interp(epochs, [start, max(end, start + 1)], [MARGIN, right])
        y = np.interp(heights, [low, np.nextafter(high, np.inf)], [bottom, 0.6 * MARGIN])  # infinity at the top
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in zip(x, y, strict=True))
        if len(line) == 1:
            parts.append(f'<circle cx="{x[0]:.1f}" cy="{y[0]:.1f}" r="2.5" fill="{color}"/>')
        elif path:
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8"/>')
    style = f'width="{WIDTH}" height="{HEIGHT}" style="font:11px sans-serif" fill="#333"'
    return f"<svg xmlns='http://www.w3.org/2000/svg' {style}>{''.join(parts)}</svg>"


def clock(seconds: float) -> str:
    """Seconds as people say them: 8 s, 3 min 20 s, 2 h 5 min.

    >>> clock(8), clock(200), clock(7500)
    ('8 s', '3 min 20 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _in_notebook() -> bool:
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython

    return get_ipython() is not None

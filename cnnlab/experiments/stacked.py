"""Many small heads on the same features, trained side by side as one program.

One head is too little work for a processor: starting a step costs more than computing it. Here the weights of all heads
are stacked, so that one matrix product serves all of them, and one of Keras's own optimizers, whose rules work number
by number, updates all of them, each at its own learning rate.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab.experiments.heads import Head
from cnnlab.pipelines.order import epoch_length, epoch_rows

MOST = 30_000_000  # numbers in the stacked weights, or in a stacked batch


@dataclass
class Run:
    """One training: which head, on which rows, how.

    Attributes:
        name: Which trial and fold it belongs to.
        head: What is trained.
        seed: Decides weights, order and dropout.
        train, watched, held_out: Rows of the features; `watched` is empty where nothing stops the training early.
        batch_size, epochs, patience, balance: As in `cross_validate`.
    """

    name: tuple[Any, int]
    head: Head
    seed: int
    train: np.ndarray
    watched: np.ndarray
    held_out: np.ndarray
    batch_size: int
    epochs: int
    patience: int | None = None
    balance: Any = None

    def program(self, codes: np.ndarray) -> tuple[Any, ...]:
        """Equal for runs that make the same number of equal steps."""
        images = epoch_length(codes[self.train], training=True, balance=self.balance, shard=(0, 1))
        return (self.head.program, self.batch_size, self.epochs, self.patience, -(-images // self.batch_size))

    def rows_of(self, epoch: int, codes: np.ndarray) -> np.ndarray:
        """The rows that an epoch shows, in the order in which `pipelines.load` would show them."""
        order = epoch_rows(
            codes[self.train], epoch=epoch, seed=self.seed, training=True, balance=self.balance, shard=(0, 1)
        )
        return self.train[order[:, 0]]


class Trained(NamedTuple):
    """What one run gives.

    Attributes:
        history: One row per epoch, as Keras's own.
        probabilities: Of the held-out rows, shape (rows, classes).
        weights: Kernel and bias of each dense layer.
        seconds: Its share of the time of its program.
    """

    history: pd.DataFrame
    probabilities: np.ndarray
    weights: list[np.ndarray]
    seconds: float


def train(runs: Sequence[Run], features: np.ndarray, codes: np.ndarray) -> list[Trained]:
    """Trains all runs, those that make equal steps side by side.

    Args:
        runs: In any order.
        features: float32, of shape (rows, features).
        codes: Class of each row.

    Returns:
        One result for each run, in order. It does not depend on which others ran beside it.
    """
    programs: dict[Any, list[int]] = {}
    for number, run in enumerate(runs):
        programs.setdefault(run.program(codes), []).append(number)
    results: list[Trained | None] = [None] * len(runs)
    for members in programs.values():
        each = sum(size[0] * size[1] for _, _, size, _ in runs[members[0]].head.steps)
        each = max(each, runs[members[0]].batch_size * features.shape[1])
        at_once = max(1, MOST // each)
        for start in range(0, len(members), at_once):
            part = members[start : start + at_once]
            for number, result in zip(part, _Stack([runs[i] for i in part], features, codes).train(), strict=True):
                results[number] = result
    return [result for result in results if result is not None]


class PerHead(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each head, of shape (heads, 1, 1), from one rate or schedule for each."""

    def __init__(self, rates: Sequence[Any]) -> None:
        self.rates = [rate if callable(rate) else float(rate) for rate in rates]

    def __call__(self, step: Any) -> Any:
        """The rates at a step."""
        found: dict[int, Any] = {}
        for rate in self.rates:
            if id(rate) not in found:
                value = rate(step) if callable(rate) else rate
                found[id(rate)] = keras.ops.cast(value, "float32")
        return keras.ops.reshape(keras.ops.stack([found[id(rate)] for rate in self.rates]), (-1, 1, 1))

    def get_config(self) -> dict[str, Any]:
        """The rates."""
        return {"rates": self.rates}


class _Stack:
    """Runs that make equal steps: one more axis, in front, counts the heads."""

    def __init__(self, runs: list[Run], features: np.ndarray, codes: np.ndarray) -> None:
        import tensorflow as tf

        self.runs, self.codes, self.steps = runs, codes, runs[0].head.steps
        self.features, self.labels = tf.constant(features), tf.constant(codes, tf.int32)
        # Heads of one fold see the same images in the same order, with the same draws of dropout.
        keys = [(run.seed, run.train.tobytes()) for run in runs]
        places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        self.streams = [runs[keys.index(key)] for key in places]
        self.stream_of = tf.constant([places[key] for key in keys])
        drawn: dict[Any, np.ndarray] = {}
        stacked = zip(*(run.head.weights(run.seed, drawn) for run in runs), strict=True)
        self.variables = [
            keras.Variable(np.stack(values).reshape(len(runs), -1, values[0].shape[-1])) for values in stacked
        ]
        self.rates = [
            tf.constant(rates, tf.float32)[:, None, None]
            for rates in zip(*(run.head.rates for run in runs), strict=True)
        ]
        # Dropout in front of all else makes the same of the same images at the same rate: once for all such heads.
        self.dropped = bool(self.steps) and self.steps[0].kind == "dropout"
        fronts = [
            (places[key], run.head.rates[0] if self.dropped else 0.0) for key, run in zip(keys, runs, strict=True)
        ]
        first = {front: place for place, front in enumerate(dict.fromkeys(fronts))}
        self.front_stream = tf.constant([stream for stream, _ in first])
        self.front_rate = tf.constant([rate for _, rate in first], tf.float32)[:, None, None]
        self.front_of = tf.constant([first[front] for front in fronts])
        self.optimizer = self._optimizer()
        self.step = tf.Variable(0, dtype=tf.int32)
        batch = (len(self.streams), runs[0].batch_size)
        signature = [tf.TensorSpec((None, *batch), tf.int32), tf.TensorSpec((None, *batch), tf.float32)]
        self.learn, self.judge = (
            tf.function(partial(self._over, step), input_signature=signature, autograph=False)
            for step in (self._learn, self._judge)
        )

    def _optimizer(self) -> Any:
        rules = [run.head.optimizer for run in self.runs]
        config = {key: value for key, value in rules[0].get_config().items() if key not in ("name", "weight_decay")}
        optimizer = type(rules[0])(**config | {"learning_rate": PerHead([_rate(rule) for rule in rules])})
        decays = [float(rule.weight_decay or 0) for rule in rules]
        optimizer.weight_decay = np.reshape(decays, (-1, 1, 1)).astype(np.float32) if any(decays) else None
        optimizer.build(self.variables)
        return optimizer

    def _forward(self, weights: list[Any], x: Any, uniform: Any = None) -> Any:
        """Logits of shape (heads, batch, classes); with `uniform`, which draws, dropout is on, but for the first."""
        index = dropout = 0
        for number, step in enumerate(self.steps):
            if step.kind == "dropout":
                if uniform is not None and number > 0:
                    rate = self.rates[dropout]
                    kept = keras.ops.cast(uniform(dropout, x.shape[-1]) >= rate, "float32")
                    x = x * kept / (1 - rate)
                dropout += 1
                continue
            if step.kind == "dense":
                x = keras.ops.matmul(x, weights[index])
                index += 1
                if step.bias:
                    x = x + weights[index]
                    index += 1
            x = keras.activations.get(step.activation)(x)
        return x

    def _batch(self, rows: Any, draws: Any = None) -> tuple[Any, Any]:
        """Features (heads, batch, features) and labels (heads, batch) of rows (streams, batch).

        With `draws`, which gives random numbers for each stream, a dropout in front of all else is done already.
        """
        import tensorflow as tf

        x, y = tf.gather(self.features, rows), tf.gather(self.labels, rows)
        x = tf.gather(x, self.front_stream)
        if draws is not None and self.dropped:
            kept = tf.cast(tf.gather(draws(0, x.shape[-1]), self.front_stream) >= self.front_rate, tf.float32)
            x = x * kept / (1 - self.front_rate)
        return tf.gather(x, self.front_of), tf.gather(y, self.stream_of)

    def _learn(self, rows: Any, counted: Any) -> tuple[Any, Any]:
        """One step. Rows, and which of them count, of shape (streams, batch); gives sums of loss and hits per head."""
        import tensorflow as tf

        def draws(layer: int, width: int) -> Any:
            return tf.stack(
                [
                    tf.random.stateless_uniform((rows.shape[1], width), seed=[run.seed * 16 + layer, self.step])
                    for run in self.streams
                ]
            )

        def uniform(layer: int, width: int) -> Any:
            return tf.gather(draws(layer, width), self.stream_of)

        x, y = self._batch(rows, draws)
        share = tf.gather(counted, self.stream_of)
        values = [variable.value for variable in self.variables]
        with tf.GradientTape() as tape:
            logits = self._forward(values, x, uniform)
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits) * share
            total = tf.reduce_sum(tf.reduce_sum(each, axis=1) / tf.reduce_sum(share, axis=1))
        self.optimizer.apply(tape.gradient(total, values), self.variables)
        self.step.assign_add(1)
        return tf.reduce_sum(each, axis=1), _hits(logits, y, share)

    def _judge(self, rows: Any, counted: Any) -> tuple[Any, Any]:
        """As `_learn`, on rows that are not learned from."""
        import tensorflow as tf

        x, y = self._batch(rows)
        share = tf.gather(counted, self.stream_of)
        logits = self._forward([variable.value for variable in self.variables], x)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits) * share
        return tf.reduce_sum(each, axis=1), _hits(logits, y, share)

    def _over(self, step: Any, batches: Any, counted: Any) -> tuple[Any, Any]:
        """Sums of loss and hits per head over all batches of an epoch, in one call: a step is shorter than a call."""
        import tensorflow as tf

        def body(index: Any, loss: Any, hits: Any) -> tuple[Any, Any, Any]:
            more = step(batches[index], counted[index])
            return index + 1, loss + more[0], hits + more[1]

        nothing = tf.zeros(len(self.runs))
        start = (tf.constant(0), nothing, nothing)
        _, loss, hits = tf.while_loop(lambda index, *_: index < tf.shape(batches)[0], body, start)
        return loss, hits

    def _pass(self, step: Any, rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """One pass over the rows of each stream: mean loss and accuracy of each head."""
        padded, counted = _padded(rows, self.runs[0].batch_size)
        images = counted.sum(axis=(0, 2))[self.stream_of.numpy()]
        loss, hits = (sums.numpy() / images for sums in step(padded, counted))
        return loss, hits

    def train(self) -> list[Trained]:
        """All epochs, with early stopping where it is asked for, and the predictions of the held-out rows."""
        began = time.perf_counter()
        patience = self.runs[0].patience
        stop = _Patience(len(self.runs), patience)
        logs: list[dict[str, np.ndarray]] = []
        for epoch in range(self.runs[0].epochs):
            loss, accuracy = self._pass(self.learn, [run.rows_of(epoch, self.codes) for run in self.streams])
            logs.append({"accuracy": accuracy, "loss": loss})
            if patience is not None:
                loss, accuracy = self._pass(self.judge, [run.watched for run in self.streams])
                logs[-1] |= {"val_accuracy": accuracy, "val_loss": loss}
                if stop.after(epoch, logs[-1]["val_loss"], self._values()):
                    break
        values = self._values() if stop.values is None else stop.values
        results = []
        for number, run in enumerate(self.runs):
            weights = [value[number] for value in values]
            logits = self._forward([weight[None] for weight in weights], self.features.numpy()[None, run.held_out])
            probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0]
            flat = [weight if shape == 2 else weight[0] for weight, shape in zip(weights, self._ranks(), strict=True)]
            last = len(logs) if stop.ended[number] < 0 else int(stop.ended[number]) + 1
            rows = [{"epoch": epoch} | {key: float(log[key][number]) for key in log} for epoch, log in enumerate(logs)]
            results.append(Trained(pd.DataFrame(rows[:last]), probabilities, flat, 0.0))
        seconds = (time.perf_counter() - began) / len(self.runs)
        return [result._replace(seconds=seconds) for result in results]

    def _values(self) -> list[np.ndarray]:
        return [keras.ops.convert_to_numpy(variable) for variable in self.variables]

    def _ranks(self) -> list[int]:
        """2 for each kernel, 1 for each bias, in order."""
        return [rank for step in self.steps if step.kind == "dense" for rank in ((2, 1) if step.bias else (2,))]


class _Patience:
    """`keras.callbacks.EarlyStopping(restore_best_weights=True)` for many heads at once."""

    def __init__(self, heads: int, patience: int | None) -> None:
        self.patience = patience
        self.best = np.full(heads, np.inf)
        self.wait = np.zeros(heads, int)
        self.ended = np.full(heads, -1)  # the epoch after which a head stopped
        self.values: list[np.ndarray] | None = None

    def after(self, epoch: int, loss: np.ndarray, values: list[np.ndarray]) -> bool:
        """Takes note of an epoch; whether all heads have stopped."""
        running = self.ended < 0
        better = running & (loss < self.best)
        if self.values is None:
            self.values = [value.copy() for value in values]
        for kept, value in zip(self.values, values, strict=True):
            kept[better] = value[better]
        self.best = np.where(better, loss, self.best)
        self.wait = np.where(better, 0, self.wait + 1)
        self.ended[running & (self.wait >= (self.patience or 0)) & (epoch > 0)] = epoch
        return bool((self.ended >= 0).all())


def _padded(rows: list[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each stream in batches: (steps, streams, batch), and which of them count, 1 or 0."""
    steps = max(-(-len(part) // size) for part in rows)
    padded = np.zeros((len(rows), steps * size), np.int32)
    counted = np.zeros((len(rows), steps * size), np.float32)
    for stream, part in enumerate(rows):
        padded[stream, : len(part)], counted[stream, : len(part)] = part, 1
    shape = (len(rows), steps, size)
    return padded.reshape(shape).swapaxes(0, 1), counted.reshape(shape).swapaxes(0, 1)


def _hits(logits: Any, y: Any, share: Any) -> Any:
    import tensorflow as tf

    right = tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), y)
    return tf.reduce_sum(tf.cast(right, tf.float32) * share, axis=1)


def _rate(rule: Any) -> Any:
    rate = rule._learning_rate  # the public property evaluates a schedule at step 0
    return rate if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) else float(rule.learning_rate)

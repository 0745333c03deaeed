"""Many small heads on the same features, trained side by side as one program.

One head is too little work for a processor: starting a step costs more than computing it. Here the weights of all heads
are stacked, so that one matrix product serves all of them, and one of Keras's own optimizers, whose rules work number
by number, updates all of them, each at its own learning rate. What cannot be done exactly like this is left to Keras:
see `plain_head`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab.experiments.fingerprint import compiled_with
from cnnlab.pipelines.order import epoch_length, epoch_rows

RULES = ("SGD", "RMSprop", "Adam", "AdamW", "Nadam", "Adagrad", "Lion")  # each number by itself
OFF = ("clipnorm", "global_clipnorm", "clipvalue", "use_ema", "gradient_accumulation_steps", "loss_scale_factor")
OWN = ("learning_rate", "weight_decay", "name")  # what may differ between heads of one program
EXTRAS = ("kernel_regularizer", "bias_regularizer", "kernel_constraint", "bias_constraint", "lora_rank")
MOST = 30_000_000  # numbers in the stacked weights, or in a stacked batch


class Head(NamedTuple):
    """A compiled head of dense layers, dropouts and activations in a row, the last of which gives logits.

    Attributes:
        layers: In order.
        activations: Of each layer; "" of a dropout, "linear" of the last.
        optimizer: As compiled.
        logs: What its history holds: loss, and accuracy if it was compiled with it.
    """

    layers: list[Any]
    activations: list[str]
    optimizer: Any
    logs: tuple[str, ...]

    @property
    def rates(self) -> list[float]:
        """Of the dropouts, in order."""
        return [float(layer.rate) for layer in self.layers if isinstance(layer, keras.layers.Dropout)]

    @property
    def variables(self) -> list[Any]:
        """Kernel and bias of each dense layer."""
        return [variable for layer in self.layers for variable in layer.trainable_variables]

    def program(self) -> str:
        """Equal for heads that can be trained by one program."""
        config = {key: value for key, value in self.optimizer.get_config().items() if key not in OWN}
        shapes = [tuple(variable.shape) for variable in self.variables]
        return repr((self.activations, shapes, self.logs, type(self.optimizer).__name__, sorted(config.items())))

    def initial(self, seed: int | None) -> list[np.ndarray]:
        """New weights by the layers' own initializers; with None, those that they gave."""
        values = []
        for number, layer in enumerate(self.layers):
            for variable in layer.trainable_variables:
                rule = layer.bias_initializer if len(variable.shape) == 1 else layer.kernel_initializer
                config = rule.get_config()
                if seed is not None and config.get("seed", 0) is None:
                    rule = type(rule).from_config(config | {"seed": seed * 100 + number})
                values.append(keras.ops.convert_to_numpy(rule(tuple(variable.shape), dtype="float32")))
        return values

    def assign(self, weights: list[np.ndarray]) -> None:
        """Gives the layers, which are those of the whole network, these weights."""
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)


class HeadRun(NamedTuple):
    """One training of a head: its rows of the features; `val` is empty where nothing stops the training early."""

    head: Head
    seed: int
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    batch_size: int = 32
    epochs: int = 1
    patience: int | None = None
    balance: Any = None

    def program(self, codes: np.ndarray) -> tuple[Any, ...]:
        """Equal for runs that make the same number of equal steps."""
        images = epoch_length(codes[self.train], training=True, balance=self.balance, shard=(0, 1))
        return (self.head.program(), self.batch_size, self.epochs, self.patience, -(-images // self.batch_size))

    def rows_of(self, epoch: int, codes: np.ndarray) -> np.ndarray:
        """The rows that an epoch shows, in the order in which `pipelines.load` would show them."""
        how: dict[str, Any] = {"seed": self.seed, "training": True, "balance": self.balance, "shard": (0, 1)}
        return self.train[epoch_rows(codes[self.train], epoch=epoch, **how)[:, 0]]


class TrainedHead(NamedTuple):
    """History as Keras's own, probabilities of the test rows, and the weights of the dense layers."""

    history: pd.DataFrame
    probabilities: np.ndarray
    weights: list[np.ndarray]


def plain_head(head: keras.Model, *, compiled_as: keras.Model) -> Head | None:
    """What `head`, of the compiled network `compiled_as`, consists of; None where Keras must train it.

    It must be dense layers, dropouts and activations in a row up to a softmax, in float32, without regularizers, with
    the weights that their initializers gave; the loss sparse_categorical_crossentropy, no metric but accuracy, and an
    optimizer of Keras's that treats each number by itself. Dropout draws other numbers than Keras's, of the same kind.
    """
    given = compiled_with(compiled_as)
    rule, metrics = given["optimizer"], given["metrics"]
    plain = given["loss"] == "sparse_categorical_crossentropy" and metrics in (None, ["accuracy"])
    plain &= not given["loss_weights"] and not given["weighted_metrics"] and keras.backend.backend() == "tensorflow"
    plain &= type(rule).__name__ in RULES and type(rule).__module__.startswith("keras.") and int(rule.iterations) == 0
    plain &= not any(rule.get_config().get(key) for key in OFF)
    plain &= not any("exclude" in name and value for name, value in vars(rule).items())
    layers = _in_a_row(head) if plain and len(head.input_shape) == 2 else []
    while layers and isinstance(layers[-1], keras.layers.Dropout) and layers[-1].rate == 0:
        layers = layers[:-1]  # such as the one that carries the class names
    activations = [_activation(layer) for layer in layers]
    names = [name for name in activations if name is not None]
    if len(names) < len(activations) or names[-1:] != ["softmax"] or names.count("softmax") > 1:
        return None
    found = Head(layers, [*names[:-1], "linear"], rule, ("accuracy", "loss") if metrics else ("loss",))
    values = [keras.ops.convert_to_numpy(variable) for variable in found.variables]
    same = all(np.array_equal(value, given) for value, given in zip(values, found.initial(None), strict=True))
    return found if same and values else None


def _in_a_row(model: keras.Model) -> list[Any]:
    """The layers, each of which takes what the one before gives; empty where they form anything else."""
    nodes = [node for depth in model._nodes_by_depth.values() for node in depth if not node.is_input]
    by_source = {id(node.input_tensors[0]): node for node in nodes if len(node.input_tensors) == 1}
    tensor, row = model.inputs[0], []
    while id(tensor) in by_source:
        node = by_source[id(tensor)]
        row.append(node.operation)
        tensor = node.output_tensors[0]
    return row if len(row) == len(nodes) == len({id(layer) for layer in row}) else []


def _activation(layer: Any) -> str | None:
    """The activation of a layer that can be stacked, "" of a dropout; None of a layer that cannot."""
    if type(layer) is keras.layers.Dropout:
        return "" if layer.noise_shape is None and layer.seed is None else None
    if type(layer) not in (keras.layers.Dense, keras.layers.Activation) or layer.dtype_policy.name != "float32":
        return None
    extras = [getattr(layer, name, None) for name in ("activity_regularizer", *EXTRAS)]
    name = keras.activations.serialize(layer.activation)
    return name if isinstance(name, str) and layer.trainable and not any(e is not None for e in extras) else None


def train_heads(runs: Sequence[HeadRun], features: np.ndarray, codes: np.ndarray) -> list[TrainedHead]:
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
    results: dict[int, TrainedHead] = {}
    for members in programs.values():
        head, batch = runs[members[0]].head, runs[members[0]].batch_size
        at_once = max(1, MOST // max(batch * features.shape[1], *(int(np.prod(v.shape)) for v in head.variables)))
        for start in range(0, len(members), at_once):
            part = members[start : start + at_once]
            results |= dict(zip(part, _Stack([runs[i] for i in part], features, codes).train(), strict=True))
    return [results[number] for number in range(len(runs))]


class PerHead(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each head, of shape (heads, 1, 1), from the optimizer of each."""

    def __init__(self, rules: Sequence[Any]) -> None:
        # The public property evaluates a schedule at step 0.
        self.rates = [r._learning_rate if callable(r._learning_rate) else float(r.learning_rate) for r in rules]

    def __call__(self, step: Any) -> Any:
        """The rates at a step."""
        values = [keras.ops.cast(rate(step) if callable(rate) else rate, "float32") for rate in self.rates]
        return keras.ops.reshape(keras.ops.stack(values), (-1, 1, 1))


class _Stack:
    """Runs that make equal steps: one more axis, in front, counts the heads."""

    def __init__(self, runs: list[HeadRun], features: np.ndarray, codes: np.ndarray) -> None:
        import tensorflow as tf

        self.runs, self.head, self.codes = runs, runs[0].head, codes
        self.features, self.labels, self.step = tf.constant(features), tf.constant(codes, tf.int32), tf.Variable(0)
        # Heads of one fold see the same images in the same order, with the same draws of dropout.
        keys = [(run.seed, run.train.tobytes()) for run in runs]
        self.folds = [runs[keys.index(key)] for key in dict.fromkeys(keys)]
        self.fold_of = np.array([list(dict.fromkeys(keys)).index(key) for key in keys])
        initial = zip(*(run.head.initial(run.seed) for run in runs), strict=True)
        self.variables = [keras.Variable(np.stack([np.atleast_2d(value) for value in values])) for values in initial]
        self.rates = np.array([run.head.rates for run in runs], np.float32).T[:, :, None, None]
        rules = [run.head.optimizer for run in runs]
        config = {key: value for key, value in rules[0].get_config().items() if key not in ("name", "weight_decay")}
        self.optimizer = type(rules[0])(**config | {"learning_rate": PerHead(rules)})
        decays = np.array([float(rule.weight_decay or 0) for rule in rules], np.float32).reshape(-1, 1, 1)
        self.optimizer.weight_decay = decays if decays.any() else None
        self.optimizer.build(self.variables)
        shape = (None, len(self.folds), runs[0].batch_size)
        self.learn, self.judge = (
            tf.function(
                partial(self._epoch, learn),
                input_signature=[tf.TensorSpec(shape, tf.int32), tf.TensorSpec(shape, tf.float32)],
                autograph=False,
            )
            for learn in (True, False)
        )

    def _forward(self, weights: list[Any], x: Any, uniform: Any = None) -> Any:
        """Logits of shape (heads, batch, classes); with `uniform`, which gives numbers for each head, dropout is on."""
        left, dropout = list(weights), 0
        for layer, activation in zip(self.head.layers, self.head.activations, strict=True):
            if not activation:
                if uniform is not None:
                    rate = self.rates[dropout]
                    x = x * keras.ops.cast(uniform(dropout, x.shape[-1]) >= rate, "float32") / (1 - rate)
                dropout += 1
                continue
            for number, _ in enumerate(layer.trainable_variables):
                x = x + left.pop(0) if number else keras.ops.matmul(x, left.pop(0))
            x = keras.activations.get(activation)(x)
        return x

    def _step(self, learn: bool, rows: Any, counted: Any) -> tuple[Any, Any]:
        """Sums of loss and hits per head over the rows of a batch, (folds, batch), that count."""
        import tensorflow as tf

        def uniform(layer: int, width: int) -> Any:
            seeds = [run.seed * 16 + layer for run in self.folds]
            numbers = [tf.random.stateless_uniform((rows.shape[1], width), seed=[seed, self.step]) for seed in seeds]
            return tf.gather(tf.stack(numbers), self.fold_of)

        x, y, share = (
            tf.gather(part, self.fold_of)
            for part in (tf.gather(self.features, rows), tf.gather(self.labels, rows), counted)
        )
        weights = [variable.value for variable in self.variables]
        with tf.GradientTape() as tape:
            logits = self._forward(weights, x, uniform if learn else None)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits) * share
            mean = tf.reduce_sum(tf.reduce_sum(loss, axis=1) / tf.reduce_sum(share, axis=1))
        if learn:
            self.optimizer.apply(tape.gradient(mean, weights), self.variables)
            self.step.assign_add(1)
        hits = tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), y), tf.float32) * share
        return tf.reduce_sum(loss, axis=1), tf.reduce_sum(hits, axis=1)

    def _epoch(self, learn: bool, batches: Any, counted: Any) -> tuple[Any, Any]:
        """`_step` over all batches in one call: a step is shorter than a call."""
        import tensorflow as tf

        def body(index: Any, *sums: Any) -> tuple[Any, ...]:
            loss, hits = self._step(learn, batches[index], counted[index])
            return index + 1, sums[0] + loss, sums[1] + hits

        start = (tf.constant(0), tf.zeros(len(self.runs)), tf.zeros(len(self.runs)))
        return tf.while_loop(lambda index, *_: index < tf.shape(batches)[0], body, start)[1:]

    def _pass(self, epoch: Any, rows: list[np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
        """Mean loss and accuracy of each head over the rows of each fold."""
        size = self.runs[0].batch_size
        steps = max(-(-len(part) // size) for part in rows)
        padded = np.zeros((2, len(rows), steps * size), np.int32)  # rows, and whether they count
        for fold, part in enumerate(rows):
            padded[:, fold, : len(part)] = part, np.ones_like(part)
        batches, counted = padded.reshape(2, len(rows), steps, size).swapaxes(1, 2)
        images = np.array([len(rows[fold]) for fold in self.fold_of])
        loss, hits = epoch(batches, counted.astype(np.float32))
        return {f"{prefix}accuracy": hits.numpy() / images, f"{prefix}loss": loss.numpy() / images}

    def train(self) -> list[TrainedHead]:
        """All epochs, each head up to its early stop, and the predictions of the test rows."""
        epochs, patience, heads = self.runs[0].epochs, self.runs[0].patience, len(self.runs)
        best, wait, ended = np.full(heads, np.inf), np.zeros(heads, int), np.full(heads, epochs)
        logs: list[dict[str, np.ndarray]] = []
        kept: list[np.ndarray] = []
        for epoch in range(epochs):
            logs.append(self._pass(self.learn, [run.rows_of(epoch, self.codes) for run in self.folds]))
            if patience is None:
                continue
            logs[-1] |= self._pass(self.judge, [run.val for run in self.folds], "val_")
            loss, running = logs[-1]["val_loss"], ended > epoch  # as keras.callbacks.EarlyStopping does
            better = running & (loss < best)
            kept = kept or self._weights()
            for old, new in zip(kept, self._weights(), strict=True):
                old[better] = new[better]
            best, wait = np.where(better, loss, best), np.where(better, 0, wait + 1)
            ended[running & (wait >= patience) & (epoch > 0)] = epoch + 1
            if (ended <= epoch + 1).all():
                break
        final = kept or self._weights()
        return [self._result(number, [w[number] for w in final], logs[: ended[number]]) for number in range(heads)]

    def _weights(self) -> list[np.ndarray]:
        return [np.array(keras.ops.convert_to_numpy(variable)) for variable in self.variables]

    def _result(self, number: int, weights: list[np.ndarray], logs: list[dict[str, np.ndarray]]) -> TrainedHead:
        run = self.runs[number]
        logits = self._forward([weight[None] for weight in weights], self.features.numpy()[None, run.test])
        names = [name for name in logs[0] if name.removeprefix("val_") in run.head.logs]
        rows = [{"epoch": epoch} | {name: float(log[name][number]) for name in names} for epoch, log in enumerate(logs)]
        shaped = [weight.reshape(v.shape) for weight, v in zip(weights, run.head.variables, strict=True)]
        return TrainedHead(pd.DataFrame(rows), keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0], shaped)

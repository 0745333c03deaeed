"""Many small heads on the same features, trained side by side as one program; see `plain_head` for which.

One head is too little work for a processor: starting a step costs more than computing it. Here the weights of all heads
are stacked, so that one matrix product serves all of them, and one of Keras's own optimizers updates all of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import _upstream
from cnnlab._answers import with_probabilities
from cnnlab.experiments.training_run import Outcome, TrainingRun, epoch_order, readable_rows

RULES = ("SGD", "RMSprop", "Adam", "AdamW", "Nadam", "Adagrad", "Lion")  # optimizers that treat each number by itself
OFF = ("clipnorm", "global_clipnorm", "clipvalue", "use_ema", "gradient_accumulation_steps", "loss_scale_factor")
OWN = ("learning_rate", "weight_decay", "name")  # settings of an optimizer that may differ between heads of one program
EXTRAS = ("activity_regularizer", "kernel_regularizer", "bias_regularizer", "kernel_constraint", "bias_constraint")
SOFTMAX = keras.activations.softmax
MOST = 30_000_000  # numbers in the stacked weights, or in a stacked batch


class Head(NamedTuple):
    """Dense layers, dropouts and activations in a row, an optimizer as compiled, and what the history holds."""

    layers: list[Any]
    optimizer: Any
    logs: tuple[str, ...]

    @property
    def variables(self) -> list[Any]:
        """Kernel and bias of each dense layer."""
        return [variable for layer in self.layers for variable in layer.trainable_variables]

    def program(self) -> str:
        """Equal for heads that can be trained by one program."""
        config = {key: value for key, value in self.optimizer.get_config().items() if key not in OWN}
        layers = [(type(layer), getattr(layer, "activation", None)) for layer in self.layers]
        shapes = [tuple(variable.shape) for variable in self.variables]
        return repr((layers, shapes, self.logs, type(self.optimizer), sorted(config.items())))

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


def plain_head(head: keras.Model, *, compiled_as: keras.Model) -> Head | None:
    """What `head`, of the compiled network `compiled_as`, consists of; None where Keras must train it.

    It must be dense layers, dropouts and activations in a row up to a softmax, in float32, without regularizers, with
    the weights that their initializers gave; the loss sparse_categorical_crossentropy, no metric but accuracy, and an
    optimizer of Keras's that treats each number by itself. Dropout draws other numbers than Keras's, of the same kind.
    """
    given = _upstream.compiled_with(compiled_as)
    rule, metrics = given["optimizer"], given["metrics"]
    plain = given["loss"] == "sparse_categorical_crossentropy" and metrics in (None, ["accuracy"])
    plain &= not given["loss_weights"] and not given["weighted_metrics"] and keras.backend.backend() == "tensorflow"
    plain &= type(rule).__name__ in RULES and type(rule).__module__.startswith("keras.") and int(rule.iterations) == 0
    plain &= not any(rule.get_config().get(key) for key in OFF)
    plain &= not any("exclude" in name and value for name, value in vars(rule).items())
    layers: list[Any] = []
    tensor = head.inputs[0]
    for call in _upstream.calls_of(head) if plain and len(head.input_shape) == 2 else []:
        if len(call.input_tensors) != 1 or call.input_tensors[0] is not tensor or call.operation in layers:
            return None
        layers, tensor = [*layers, call.operation], call.output_tensors[0]
    while layers and isinstance(layers[-1], keras.layers.Dropout) and layers[-1].rate == 0:
        layers.pop()  # such as the one that carries the class names
    if not layers or not all(map(_is_plain, layers)) or getattr(layers[-1], "activation", None) is not SOFTMAX:
        return None
    found = Head(layers, rule, ("accuracy", "loss") if metrics else ("loss",))
    values = map(keras.ops.convert_to_numpy, found.variables)
    return found if all(map(np.array_equal, values, found.initial(None))) else None


def _is_plain(layer: Any) -> bool:
    """Whether a layer can be stacked."""
    if type(layer) is keras.layers.Dropout:
        return layer.noise_shape is None and layer.seed is None
    return (
        type(layer) in (keras.layers.Dense, keras.layers.Activation)
        and layer.dtype_policy.name == "float32"
        and layer.trainable
        and isinstance(keras.activations.serialize(layer.activation), str)
        and all(getattr(layer, name, None) is None for name in (*EXTRAS, "lora_rank"))
    )


def train_heads(
    runs: Sequence[tuple[TrainingRun, Head]], features: np.ndarray, codes: np.ndarray
) -> list[tuple[Outcome, list[np.ndarray]]]:
    """Outcome and weights of each run; side by side where they make equal steps, which changes no result."""
    programs: dict[Any, list[int]] = {}
    for number, (run, head) in enumerate(runs):
        recipe, rows = run.recipe, readable_rows(run.rows.train, features)
        steps = -(-len(epoch_order(run, rows, codes, 0)) // recipe.batch_size)
        key = (head.program(), recipe.batch_size, recipe.epochs, recipe.patience, steps)
        programs.setdefault(key, []).append(number)
    results: dict[int, tuple[Outcome, list[np.ndarray]]] = {}
    for (_, batch_size, *_), members in programs.items():
        sizes = [int(np.prod(variable.shape)) for variable in runs[members[0]][1].variables]
        at_once = max(1, MOST // max(batch_size * features.shape[1], *sizes))
        for start in range(0, len(members), at_once):
            part = members[start : start + at_once]
            results |= zip(part, _Stack([runs[i] for i in part], features, codes).train(), strict=True)
    return [results[number] for number in range(len(runs))]


class _Stack:
    """Runs that make equal steps: one more axis, in front, counts the heads."""

    def __init__(self, runs: list[tuple[TrainingRun, Head]], features: np.ndarray, codes: np.ndarray) -> None:
        import tensorflow as tf

        self.runs, self.heads = [run for run, _ in runs], [head for _, head in runs]
        self.rows = [[readable_rows(part, features) for part in run.rows] for run in self.runs]
        self.codes, self.features, self.labels = codes, tf.constant(features), tf.constant(codes, tf.int32)
        self.seeds, self.seed_of = np.unique([run.seed for run in self.runs], return_inverse=True)
        dropouts = [[layer for layer in head.layers if isinstance(layer, keras.layers.Dropout)] for head in self.heads]
        self.dropout = np.array([[layer.rate for layer in layers] for layers in dropouts], np.float32)
        initial = zip(*(head.initial(run.seed) for run, head in runs), strict=True)
        self.variables = [keras.Variable(np.stack([np.atleast_2d(value) for value in values])) for values in initial]
        self.optimizer = self._optimizer([head.optimizer for head in self.heads])
        self.epoch = tf.function(self._epoch, autograph=False)

    def _optimizer(self, rules: list[Any]) -> Any:
        """One for all heads, with the learning rate and the weight decay of each, of shape (heads, 1, 1)."""

        def rates() -> Any:
            now = [rate(result.iterations) if callable(rate) else rate for rate in given]
            return keras.ops.reshape(keras.ops.stack([keras.ops.cast(rate, "float32") for rate in now]), (-1, 1, 1))

        given = [next(iter(_upstream.schedules_of(rule)), None) or float(rule.learning_rate) for rule in rules]
        config = {key: value for key, value in rules[0].get_config().items() if key not in OWN}
        result = type(rules[0])(rates, **config)
        decays = np.array([rule.weight_decay or 0 for rule in rules], np.float32).reshape(-1, 1, 1)
        result.weight_decay = decays if decays.any() else None
        result.build(self.variables)
        return result

    def _forward(self, weights: Sequence[Any], x: Any, noise: Callable[..., Any] | None = None) -> Any:
        """Probabilities of shape (heads, batch, classes); with `noise`, uniform numbers for a layer, dropout is on."""
        left, dropouts = iter(weights), 0
        for layer in self.heads[0].layers:
            if isinstance(layer, keras.layers.Dropout):
                if noise is not None:
                    rate = self.dropout[:, dropouts, None, None]
                    x = x * keras.ops.cast(noise(dropouts, x.shape[1:]) >= rate, "float32") / (1 - rate)
                dropouts += 1
                continue
            for number, _ in enumerate(layer.trainable_variables):
                x = x + next(left) if number else keras.ops.matmul(x, next(left))
            x = layer.activation(x)
        return x

    def _epoch(self, learn: bool, batches: Any, counted: Any) -> tuple[Any, Any]:
        """Sums of loss and hits of each head over batches of rows, (steps, heads, batch), where they count."""
        import tensorflow as tf

        def noise(layer: int, shape: Any) -> Any:
            seeds = [(seed * 16 + layer, tf.cast(self.optimizer.iterations, tf.int64)) for seed in self.seeds]
            return tf.gather(tf.stack([tf.random.stateless_uniform(shape, seed) for seed in seeds]), self.seed_of)

        def step(index: Any, loss: Any, hits: Any) -> tuple[Any, Any, Any]:
            rows, share = batches[index], counted[index]
            y, values = tf.gather(self.labels, rows), [variable.value for variable in self.variables]
            with tf.GradientTape() as tape:
                p = self._forward(values, tf.gather(self.features, rows), noise if learn else None)
                losses = keras.losses.sparse_categorical_crossentropy(y, p) * share
                mean = tf.reduce_sum(tf.reduce_sum(losses, axis=1) / tf.reduce_sum(share, axis=1))
            if learn:
                self.optimizer.apply(tape.gradient(mean, values), self.variables)
            right = tf.cast(tf.equal(tf.argmax(p, axis=-1, output_type=tf.int32), y), tf.float32)
            return index + 1, loss + tf.reduce_sum(losses, axis=1), hits + tf.reduce_sum(right * share, axis=1)

        zeros = tf.zeros(len(self.runs))
        return tf.while_loop(lambda index, *_: index < tf.shape(batches)[0], step, (tf.constant(0), zeros, zeros))[1:]

    def _pass(self, rows: list[np.ndarray], *, learn: bool) -> dict[str, np.ndarray]:
        """Mean loss and accuracy of each head over its rows."""
        size, images = self.runs[0].recipe.batch_size, np.array([len(part) for part in rows])
        padded = np.zeros((2, len(rows), -(-images.max() // size) * size), np.int32)  # rows, and whether they count
        for head, part in enumerate(rows):
            padded[:, head, : len(part)] = part, np.ones_like(part)
        batches, counted = padded.reshape(2, len(rows), -1, size).swapaxes(1, 2)
        loss, hits = self.epoch(learn, batches, counted.astype(np.float32))
        prefix = "" if learn else "val_"
        return {f"{prefix}accuracy": hits.numpy() / images, f"{prefix}loss": loss.numpy() / images}

    def train(self) -> list[tuple[Outcome, list[np.ndarray]]]:
        """All epochs, each head up to its early stop, and the predictions of the test rows."""
        epochs, patience, heads = self.runs[0].recipe.epochs, self.runs[0].recipe.patience, len(self.runs)
        best, wait, ended = np.full(heads, np.inf), np.zeros(heads, int), np.full(heads, epochs)
        logs: list[dict[str, np.ndarray]] = []
        kept = self._weights()
        for epoch in range(epochs):
            pairs = zip(self.runs, self.rows, strict=True)
            logs.append(self._pass([epoch_order(run, rows[0], self.codes, epoch) for run, rows in pairs], learn=True))
            if patience is not None:  # as keras.callbacks.EarlyStopping does
                logs[-1] |= self._pass([rows[1] for rows in self.rows], learn=False)
                loss, running = logs[-1]["val_loss"], ended > epoch
                better = running & (loss < best)
                new = (better | (epoch == 0))[:, None, None]
                kept = [np.where(new, *pair) for pair in zip(self._weights(), kept, strict=True)]
                best, wait = np.where(better, loss, best), np.where(better, 0, wait + 1)
                ended[running & (wait >= patience) & (epoch > 0)] = epoch + 1
                if (ended <= epoch + 1).all():
                    break
        kept = self._weights() if patience is None else kept
        return [self._result(number, [w[number] for w in kept], logs[: ended[number]]) for number in range(heads)]

    def _weights(self) -> list[np.ndarray]:
        return [np.array(variable) for variable in self.variables]

    def _result(
        self, number: int, weights: list[np.ndarray], logs: list[dict[str, np.ndarray]]
    ) -> tuple[Outcome, list[np.ndarray]]:
        run, head = self.runs[number], self.heads[number]
        test = run.rows.test.index.to_numpy()
        p = self._forward([weight[None] for weight in weights], self.features.numpy()[None, test]).numpy()[0]
        names = [name for name in logs[0] if name.removeprefix("val_") in head.logs]
        rows = [{"epoch": epoch} | {name: float(log[name][number]) for name in names} for epoch, log in enumerate(logs)]
        known, scores = self.rows[number][2], {}
        if run.recipe.objective and len(known):
            chance = p[np.isin(test, known)][np.arange(len(known)), self.codes[known]]
            scores = {"loss": float(-np.log(np.maximum(chance, 1e-7)).mean())}
        shaped = [weight.reshape(v.shape) for weight, v in zip(weights, head.variables, strict=True)]
        return Outcome(pd.DataFrame(rows), with_probabilities(run.rows.test, p), scores), shaped

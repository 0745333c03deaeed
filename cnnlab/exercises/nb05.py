"""Exercises of 05_training: when training stops, a schedule, batch normalisation in its place."""

from typing import Any

import numpy as np

from cnnlab.exercises.asking import Off, array, exercise, expect, kind_of, model

LOSSES = (0.90, 0.61, 0.50, 0.55, 0.48, 0.49, 0.52, 0.51, 0.40, 0.60)
STOPPED, KEPT = 8, 5  # with a patience of 3; epochs count from 1


@exercise
def predict(answer: Any) -> None:
    """`val_loss` goes 0.90, 0.61, 0.50, 0.55, 0.48, 0.49, 0.52, 0.51, 0.40, 0.60, and `patience=3`. After which epoch
    does training stop, and of which epoch are the weights kept? Two numbers; the first epoch is 1.

    Answer: two whole numbers: last epoch, kept epoch
    Hint: Walk along the losses and count: how many epochs since the best one so far?
    Hint: Each new best sets the count back to zero; the third epoch without one is the last.
    Hint: The best loss before the first row of three without improvement is 0.48.
    Right: Patience is a bet: with one epoch more, this training would have seen 0.40.
    """
    found = array(answer, shape=(2,), what="The answer").astype(int)
    mistakes = {
        (STOPPED - 1, KEPT - 1): "You counted from 0; people, and the figures here, count epochs from 1.",
        (KEPT, STOPPED): "The right numbers; first the last epoch, then the epoch that is kept.",
        (STOPPED, STOPPED): "The right end; but the weights of the last epoch are not the best ones.",
        (len(LOSSES), 9): "By epoch 9 nobody is there any more: patience has ended before.",
    }
    given = (int(found[0]), int(found[1]))
    expect(given not in mistakes, mistakes.get(given, ""))
    expect(given[1] == KEPT, f"Epoch {given[1]} is not the best one that was seen until training stopped.")
    expect(given[0] == STOPPED, f"It does not stop after epoch {given[0]}; count the epochs since the best one.")


def _values(answer: Any, steps: int) -> np.ndarray:
    import keras

    if not isinstance(answer, keras.optimizers.schedules.LearningRateSchedule):
        if callable(answer):
            raise Off("Expected the schedule itself. Call the function first, and hand in what it returns.")
        raise Off(f"Expected a Keras learning-rate schedule. Received {kind_of(answer)}.")
    return np.array([float(keras.ops.convert_to_numpy(answer(step))) for step in np.linspace(0, steps, 101)])


@exercise
def change(answer: Any) -> None:
    """Change the schedule: 600 steps, a peak of 0.003, low at the start and near zero at the end. Hand in the schedule.

    Answer: a learning-rate schedule
    Hint: `training.one_cycle` makes such a schedule; look at its arguments.
    Hint: Steps are batches, not epochs: how many of them does it need to know of?
    Hint: `training.one_cycle(…, steps=…)`: the peak, and 600.
    Right: Warm up, go fast, come to rest: it is the schedule that most of these notebooks use.
    """
    import cnnlab._quiet  # noqa: F401

    values = _values(answer, 600)
    peak = float(values.max())
    expect(np.ptp(values) > 0, f"It stays at {peak:g} all the time.")
    expect(abs(peak - 0.003) < 0.0001, f"Its peak is {peak:.4g}, not 0.003.")
    expect(values[0] < 0.5 * peak, "It begins at full height: a fresh network should warm up first.")
    expect(
        values[-1] < 0.1 * peak,
        f"After 600 steps it is still at {values[-1] / peak:.0%} of the peak: it was made for more steps than 600.",
    )
    late = values[np.linspace(0, 600, 101) > 480]
    expect(late.max() > 0.01 * peak, "It is over long before step 600: it was made for fewer steps.")


@exercise
def build(answer: Any) -> str:
    """Build a network of at least two convolutions in which batch normalisation stands between each convolution and its
    activation. Hand in the model.

    Answer: a Keras model
    Hint: Three layers in a row: convolution, normalisation, activation.
    Hint: A convolution with `activation="relu"` inside leaves no room in between.
    Hint: `Conv2D(16, 3, use_bias=False)`, then `BatchNormalization()`, then `Activation("relu")`.
    Right: Normalise first, then cut off below zero, and every layer gets numbers of a known size.
    """
    import keras

    network = model(answer)
    layers = network.layers
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    expect(len(convolutions) >= 2, f"It has {len(convolutions)} convolutional layers; two or more are asked for.")
    for convolution in convolutions:
        linear = keras.activations.get("linear")
        expect(
            convolution.activation == linear,
            f"{convolution.name!r} has its activation inside, so batch normalisation comes after it.",
        )
        after = _next(network, convolution)
        expect(
            isinstance(after, keras.layers.BatchNormalization),
            f"After {convolution.name!r} comes {type(after).__name__}, not BatchNormalization.",
        )
        expect(
            isinstance(_next(network, after), (keras.layers.Activation, keras.layers.ReLU)),
            f"After {after.name!r} comes {type(_next(network, after)).__name__}, not an activation.",
        )
    spare = [convolution.name for convolution in convolutions if convolution.use_bias]
    return f"(The bias of {', '.join(spare)} is idle: the normalisation takes it away again.)" if spare else ""


def _next(network: Any, layer: Any) -> Any:
    """The layer that takes this one's output."""
    output = layer.output
    return next((other for other in network.layers if other is not layer and _takes(other, output)), None)


def _takes(layer: Any, tensor: Any) -> bool:
    inputs = layer.input if isinstance(layer.input, (list, tuple)) else [layer.input]
    return any(one is tensor for one in inputs)

"""Judges 05_training: when training stops, a schedule, batch normalisation in its place, what curves say."""

from typing import Any

import numpy as np

from cnnlab.exercises.answers import Off, array, call, choice, expect, expect_type

LOSSES = (0.90, 0.61, 0.50, 0.55, 0.48, 0.49, 0.52, 0.51, 0.40, 0.60)
STOPPED, KEPT = 8, 5  # with a patience of 3; epochs count from 1
FITS = ("underfitting", "good fit", "overfitting")


def predict(answer: Any) -> None:
    """The last epoch, and the one whose weights are kept."""
    expect(np.shape(answer) == (2,), "Expected two numbers: the last epoch, and the one whose weights are kept.")
    last, kept = array(answer, what="The answer").astype(int).tolist()
    mistakes = {
        (STOPPED - 1, KEPT - 1): "You counted from 0; people, and the figures here, count epochs from 1.",
        (KEPT, STOPPED): "The right numbers; first the last epoch, then the epoch that is kept.",
        (STOPPED, STOPPED): "The right end; but the weights of the last epoch are not the best ones.",
        (len(LOSSES), 9): "By epoch 9 nobody is there any more: patience has ended before.",
    }
    expect((last, kept) not in mistakes, mistakes.get((last, kept), ""))
    expect(kept == KEPT, f"Epoch {kept} is not the best one that was seen until training stopped.")
    expect(last == STOPPED, f"It does not stop after epoch {last}; count the epochs since the best one.")


def change(answer: Any) -> None:
    """A schedule of 600 steps that rises to 0.003 and falls to near zero."""
    import cnnlab._quiet  # noqa: F401, I001
    import keras

    is_schedule = isinstance(answer, keras.optimizers.schedules.LearningRateSchedule)
    if callable(answer) and not is_schedule:
        raise Off("Expected the schedule itself. Call the function first, and hand in what it returns.")
    expect_type(answer, keras.optimizers.schedules.LearningRateSchedule, "a Keras learning-rate schedule")
    steps = np.linspace(0, 600, 101)
    values = np.array([float(keras.ops.convert_to_numpy(answer(step))) for step in steps])
    peak = float(values.max())
    expect(np.ptp(values) > 0, f"It stays at {peak:g} all the time.")
    expect(abs(peak - 0.003) < 0.0001, f"Its peak is {peak:.4g}, not 0.003.")
    expect(values[0] < 0.5 * peak, "It begins at full height: a fresh network should warm up first.")
    words = f"After 600 steps it is still at {values[-1] / peak:.0%} of the peak: it was made for more steps than 600."
    expect(values[-1] < 0.1 * peak, words)
    late = values[steps > 480].max()
    expect(late > 0.01 * peak, "It is over long before step 600: it was made for fewer steps.")


def build(answer: Any) -> str:
    """A network whose convolutions are followed by batch normalisation, then by their activation."""
    import keras

    expect_type(answer, keras.Model, "a `keras.Model`")
    convolutions = [layer for layer in answer.layers if isinstance(layer, keras.layers.Conv2D)]
    expect(len(convolutions) >= 2, f"It has {len(convolutions)} convolutional layers; two or more are asked for.")
    for layer in convolutions:
        words = f"{layer.name!r} has its activation inside, so batch normalisation comes after it."
        expect(layer.activation == keras.activations.get("linear"), words)
        after = _next(answer, layer)
        words = f"After {layer.name!r} comes {type(after).__name__}, not BatchNormalization."
        expect(isinstance(after, keras.layers.BatchNormalization), words)
        last = _next(answer, after)
        words = f"After {after.name!r} comes {type(last).__name__}, not an activation."
        expect(isinstance(last, (keras.layers.Activation, keras.layers.ReLU)), words)
    spare = [layer.name for layer in convolutions if layer.use_bias]
    return f"(The bias of {', '.join(spare)} is idle: the normalisation takes it away again.)" if spare else ""


def _next(network: Any, layer: Any) -> Any:
    """The layer that takes this one's output."""
    for other in network.layers:
        inputs = other.input if isinstance(other.input, (list, tuple)) else [other.input]
        if other is not layer and any(one is layer.output for one in inputs):
            return other
    return None


def diagnose_curves(answer: Any) -> None:
    """The three networks by name: A learned nothing, B memorized, C fits."""
    expect_type(answer, (list, tuple), f"a list of three out of {', '.join(map(repr, FITS))}")
    expect(len(answer) == 3, f"Expected three words, for A, B and C. Received {len(answer)}.")
    a, b, c = (choice(word, FITS) for word in answer)
    words = (
        "A is hardly better than guessing, on its own training images, too: it did not learn them, so it cannot have "
    )
    expect(a == "underfitting", f"{words}memorized them.")
    words = "B knows its training images nearly perfectly, and its validation loss has almost doubled since epoch 7."
    expect(b == "overfitting", words)
    words = "C: the two losses are near each other, far below guessing, and the validation loss is at its lowest."
    expect(c == "good fit", words)


# What a history shows, as (loss, val_loss), where guessing costs 2: each mistake meets one that it gets wrong.
CURVES = {
    ((1.9, 1.8, 1.7), (1.9, 1.85, 1.8)): "underfitting",
    ((1.95, 1.9, 1.85), (1.5, 1.6, 1.9)): "underfitting",
    ((1.2, 0.5, 0.1), (1.3, 0.8, 0.9)): "overfitting",
    ((1.2, 0.3, 0.01), (1.8, 1.75, 1.8)): "good fit",
    ((1.2, 0.5, 0.2), (1.2, 0.52, 0.25)): "good fit",
    ((1.9, 0.9, 0.5), (1.8, 0.6, 0.65)): "good fit",
}


def diagnose(answer: Any) -> None:
    """A function that names the fit that the curves of a history show."""
    for (loss, val_loss), truth in CURVES.items():
        for scale in (1.0, 0.5):
            history = {"loss": [scale * one for one in loss], "val_loss": [scale * one for one in val_loss]}
            found = choice(call(answer, {name: list(values) for name, values in history.items()}, 2 * scale), FITS)
            expect(
                found == truth,
                f"With the losses {history['loss']}, the validation losses {history['val_loss']} and guessing at "
                f"{2 * scale:g} it says {found!r}; by the rule it is {truth!r}.",
            )

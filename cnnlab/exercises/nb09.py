"""Exercises of 09_fine_tuning: mixed precision, unfreezing safely, a schedule of one's own."""

import functools
from typing import Any

import numpy as np

from cnnlab.exercises.asking import call, choice, exercise, expect, layers_in_order, model, number

STEPS, WARM, PEAK = 1000, 100, 1e-3


@exercise
def predict(answer: Any) -> None:
    """Under the policy `mixed_float16` the layers calculate in float16. In which type are their weights kept? Guess,
    then look at `layer.kernel.dtype`.

    Answer: a word such as 'float16'
    Hint: A weight of 1 gets an update of 0.0001. How many digits does float16 have?
    Hint: Small updates must not get lost, so the weights need more digits than the calculation.
    Hint: It is the type that Keras uses without any policy, too.
    Right: Fast where digits do not matter, exact where they add up: hence “mixed”.
    """
    options = ["float16", "float32", "float64", "bfloat16"]
    chosen = choice(answer, options)
    words = {
        "float16": "The layers calculate in float16; but an update of a millionth would vanish in a weight so kept.",
        "float64": "No: that would be more exact than without mixed precision.",
        "bfloat16": "That belongs to the policy mixed_bfloat16, and the weights are not kept in it either.",
    }
    expect(chosen == "float32", words.get(chosen, ""))


@exercise
def change(answer: Any) -> str:
    """Take `models.pretrained(…, weights=None)` and let only its last layers learn, with every batch normalisation at
    rest. Hand in the model.

    Answer: a Keras model
    Hint: `models.unfreeze` does it for a share of the layers.
    Hint: A batch normalisation whose `trainable` is False stays in inference mode.
    Hint: `models.unfreeze(model, share=0.3)`.
    Right: That is the safe way: remember to compile again after it.
    """
    import keras

    network = model(answer)
    layers = layers_in_order(network)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    convolutions = [layer for layer in layers if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D))]
    expect(norms and len(convolutions) > 10, "It is no pretrained network with batch normalisation.")
    learning = [layer for layer in convolutions if layer.trainable_weights]
    expect(learning, "No convolution of it learns: it is still frozen.")
    share = len(learning) / len(convolutions)
    expect(share < 0.9, f"{share:.0%} of its convolutions learn; only the last ones should.")
    awake = [layer.name for layer in norms if layer.trainable]
    expect(
        not awake,
        f"{len(awake)} batch normalisations are awake, such as {awake[:1]}: with small batches they forget what they "
        "know.",
    )
    first = next(place for place, layer in enumerate(convolutions) if layer.trainable_weights)
    heads = [layer for layer in layers if isinstance(layer, keras.layers.Dense)]
    expect(all(layer.trainable_weights for layer in heads), "Its head does not learn.")
    expect(first > 0 and len(learning) == len(convolutions) - first, "The layers that learn should be the last ones.")
    return f"{len(learning)} of {len(convolutions)} convolutions learn, and {len(norms)} normalisations rest."


@functools.cache
def _reference() -> Any:
    import cnnlab._quiet  # noqa: F401, I001
    import keras

    return keras.optimizers.schedules.CosineDecay(0.0, STEPS - WARM, warmup_target=PEAK, warmup_steps=WARM)


@exercise
def build(answer: Any) -> None:
    """Write `rate(step)` for 1000 steps: from zero straight up to 0.001 at step 100, then down to zero along half a
    cosine.

    Answer: a function of a step
    Hint: Two parts: one before step 100, one after.
    Hint: The way down, with p from 0 to 1: half of one plus the cosine of pi times p.
    Hint: p is `(step - 100) / (1000 - 100)`; the way up is `step / 100`; both times the peak.
    Right: It is Keras's own `CosineDecay` with warm-up, step for step.
    """
    at = {step: number(call(answer, step)) for step in (0, 25, 50, 100, 325, 550, 775, 1000)}
    expect(at[0] < 0.05 * PEAK, f"At step 0 it is {at[0]:g}; the warm-up should begin at zero.")
    expect(abs(at[100] - PEAK) < 0.01 * PEAK, f"At step {WARM} it is {at[100]:g}; the peak {PEAK} should be there.")
    expect(abs(at[50] - PEAK / 2) < 0.02 * PEAK, f"Half-way up it is {at[50]:g}; a straight line would be {PEAK / 2}.")
    expect(abs(at[1000]) < 0.01 * PEAK, f"At the last step it is {at[1000]:g}; it should be zero.")
    truth = {step: float(np.asarray(_reference()(step))) for step in at}
    worst = max(at, key=lambda step: abs(at[step] - truth[step]))
    straight = PEAK * (1 - (325 - WARM) / (STEPS - WARM))
    expect(abs(at[325] - straight) > 0.01 * PEAK, "It falls in a straight line; a cosine falls slowly, fast, slowly.")
    expect(
        abs(at[worst] - truth[worst]) < 0.01 * PEAK,
        f"At step {worst} it is {at[worst]:.3g}, and Keras's CosineDecay with warm-up {truth[worst]:.3g}.",
    )

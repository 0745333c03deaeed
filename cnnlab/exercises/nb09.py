"""Judges 09_fine_tuning: mixed precision, unfreezing safely, a schedule of one's own, an average of weights."""

from typing import Any

import numpy as np

from cnnlab.exercises.answers import array, call, choice, expect, expect_type, layers_in_order, number

STEPS, WARM, PEAK = 1000, 100, 1e-3


def predict(answer: Any) -> None:
    """The type of the weights under mixed precision."""
    chosen = choice(answer, ["float16", "float32", "float64", "bfloat16"])
    words = {
        "float16": "The layers calculate in float16; but an update of a millionth would vanish in a weight so kept.",
        "float64": "No: that would be more exact than without mixed precision.",
        "bfloat16": "That belongs to the policy mixed_bfloat16, and the weights are not kept in it either.",
    }
    expect(chosen == "float32", words.get(chosen, ""))


def change(answer: Any) -> str:
    """A pretrained network whose last convolutions learn, with every batch normalisation at rest."""
    import cnnlab._quiet  # noqa: F401, I001
    from keras import layers

    kinds = (layers.BatchNormalization, (layers.Conv2D, layers.DepthwiseConv2D), layers.Dense)
    norms, convolutions, heads = ([one for one in layers_in_order(answer) if isinstance(one, kind)] for kind in kinds)
    expect(norms and len(convolutions) > 10, "It is not a pretrained network with batch normalisation.")
    learning = [layer for layer in convolutions if layer.trainable_weights]
    expect(learning, "No convolution of it learns: it is still frozen.")
    share = len(learning) / len(convolutions)
    expect(share < 0.9, f"{share:.0%} of its convolutions learn; only the last ones should.")
    awake = [layer.name for layer in norms if layer.trainable]
    words = (
        f"{len(awake)} batch normalisations are awake, such as {awake[:1]}: with small batches they forget what they "
    )
    expect(not awake, f"{words}know.")
    expect(all(layer.trainable_weights for layer in heads), "Its head does not learn.")
    expect(learning == convolutions[-len(learning) :], "The layers that learn should be the last ones.")
    return f"{len(learning)} of {len(convolutions)} convolutions learn, and {len(norms)} normalisations rest."


def build(answer: Any) -> None:
    """A function that is Keras's `CosineDecay` with warm-up, step for step."""
    import cnnlab._quiet  # noqa: F401, I001
    import keras

    at = {step: number(call(answer, step)) for step in (0, 25, 50, 100, 325, 550, 775, 1000)}
    expect(at[0] < 0.05 * PEAK, f"At step 0 it is {at[0]:g}; the warm-up should begin at zero.")
    expect(abs(at[100] - PEAK) < 0.01 * PEAK, f"At step {WARM} it is {at[100]:g}; the peak {PEAK} should be there.")
    expect(abs(at[50] - PEAK / 2) < 0.02 * PEAK, f"Half-way up it is {at[50]:g}; a straight line would be {PEAK / 2}.")
    expect(abs(at[1000]) < 0.01 * PEAK, f"At the last step it is {at[1000]:g}; it should be zero.")
    straight = PEAK * (1 - (325 - WARM) / (STEPS - WARM))
    expect(abs(at[325] - straight) > 0.01 * PEAK, "It falls in a straight line; a cosine falls slowly, fast, slowly.")
    keras_rate = keras.optimizers.schedules.CosineDecay(0.0, STEPS - WARM, warmup_target=PEAK, warmup_steps=WARM)
    truth = {step: float(np.asarray(keras_rate(step))) for step in at}
    worst = max(at, key=lambda step: abs(at[step] - truth[step]))
    words = f"At step {worst} it is {at[worst]:.3g}, and Keras's CosineDecay with warm-up {truth[worst]:.3g}."
    expect(abs(at[worst] - truth[worst]) < 0.01 * PEAK, words)


def average(answer: Any) -> None:
    """A function that gives the weights on the line between two lists of arrays."""
    rng = np.random.default_rng(0)
    before, after = ([rng.normal(size=shape).astype("float32") for shape in ((3, 3, 1, 2), (2,))] for _ in range(2))
    kept = [one.copy() for one in (*before, *after)]
    for share in (0.25, 0.0, 1.0):
        found = call(answer, before, after, share)
        expect(all(map(np.array_equal, kept, (*before, *after))), "It changed the weights that it was given.")
        expect_type(found, (list, tuple), "a list of arrays")
        expect(len(found) == 2, f"For 2 arrays it returned {len(found)}.")
        for one, start, end in zip(found, before, after, strict=True):
            value = array(one, shape=start.shape)
            swapped = np.allclose(value, share * start + (1 - share) * end, atol=1e-5)
            right = np.allclose(value, (1 - share) * start + share * end, atol=1e-5)
            expect(right or not swapped, f"At share {share:g} it is as far from `before` as it should be from `after`.")
            expect(right, f"At share {share:g} the result is not on the line between the two.")

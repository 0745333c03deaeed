"""Judges 02_cnn_basics: sizes, kernels, how far a layer sees, a network that has learned, a loss."""

import functools
import math
from typing import Any

import numpy as np

from cnnlab.exercises.answers import Off, array, call, equal_number, expect, number

NETWORKS = (
    [(3, 1)],
    [(3, 1), (3, 1)],
    [(3, 1), (2, 2), (3, 1)],
    [(3, 1), (2, 2), (3, 1), (2, 2), (3, 1)],
    [(7, 2), (3, 2), (1, 1), (3, 1)],
)


def change(answer: Any) -> None:
    """A kernel that answers to dark above bright, and neither to left and right nor to a flat surface."""
    kernel = array(answer, shape=(3, 3), what="The kernel")
    step = np.zeros((9, 9))
    step[5:] = 255.0
    images = np.stack([np.full((9, 9), 200.0), step.T, step])
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    flat, across, down = np.einsum("nabij,ij->nab", windows, kernel)
    small = 1e-6 * np.abs(kernel).sum() * 255
    expect(np.abs(down).max() > small, "It does not answer to an edge between dark above and bright below.")
    expect(np.abs(flat).max() <= small, "It answers to a flat surface: its numbers should add up to zero.")
    words = "It answers to an edge between dark left and bright right, which it should not see."
    expect(np.abs(across).max() <= small, words)
    expect(down.max() > small, "It answers with the wrong sign: dark above bright should give a positive number.")


def _seen(layers: list[tuple[int, int]]) -> int:
    """How many inputs in a row one output depends on, found by following it back from layer to layer."""
    first = last = 0
    for kernel, stride in reversed(layers):
        first, last = first * stride, last * stride + kernel - 1
    return last - first + 1


def build(answer: Any) -> None:
    """A function that gives the receptive field of some layers."""
    for layers in NETWORKS:
        truth, step, late = _seen(layers), 1, 1
        for kernel, stride in layers:
            step *= stride
            late += (kernel - 1) * step
        plain = 1 + sum(kernel - 1 for kernel, _ in layers)
        mistakes: dict[float, str] = {
            plain: "forgets the strides: after a pooling, one step in the map is two pixels",
            late: "uses a layer's own stride for that layer; it counts for the layers after it",
            truth - 1: "gives one too few: a single pixel sees itself",
        }
        mistakes = {wrong: f"For {layers} it {words}." for wrong, words in mistakes.items()}
        words = f" for {layers}, where {truth} pixels in a row matter."
        equal_number(call(answer, list(layers)), truth, mistakes=mistakes, words=words)


@functools.cache
def _answers() -> np.ndarray:
    """What each first kernel of EfficientNetLite0 makes of an edge between dark left and bright right."""
    from cnnlab import explain, models

    network = models.pretrained("EfficientNetLite0", image_size=(96, 96), classes=["a", "b"])
    return (explain.filters(network).mean(axis=-1) * [-1, 0, 1]).sum(axis=(1, 2))


def strongest(answer: Any) -> str:
    """The number of the kernel that answers most strongly to such an edge."""
    chosen = number(answer)
    expect(chosen in range(32), f"There are 32 filters, 0 to 31. Received: {chosen:g}.")
    found = _answers()
    chosen, best = int(chosen), int(found.argmax())
    words = f"Filter {chosen} makes {found[chosen]:.2f} of it; {(found > found[chosen]).sum()} filters make more."
    if chosen == found.argmin():
        words = f"Filter {chosen} makes {found[chosen]:.2f} of it: it answers most strongly to the opposite edge."
    expect(chosen == best, words)
    return f"Its sum is {found[best]:.2f}, that of the runner-up {np.sort(found)[-2]:.2f}."


def loss(answer: Any) -> None:
    """A function that gives the cross-entropy of one row of scores."""
    for scores, label in (([2.0, 1.0, 0.1], 0), ([0.0] * 4, 3), ([-1.0, 1.0, 2.0], 0), ([1000.0, 998.0, 3.0], 1)):
        values = np.array(scores)
        shares = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
        truth = -math.log(shares[label])
        cure = "subtract the largest score first, which changes no probability."
        try:
            with np.errstate(all="ignore"):
                found = call(answer, values, label)
        except Off as off:
            expect(not isinstance(off.__cause__, OverflowError), f"For {scores} the exponentials are too large: {cure}")
            raise
        endless = isinstance(found, (float, np.floating)) and not np.isfinite(found)
        expect(not endless, f"For {scores} it gives {found}: {cure}")
        mistakes = {
            -truth: "It has the wrong sign: a loss falls as the probability rises.",
            float(shares[label]): "That is the probability; its negative logarithm is missing.",
            truth / math.log(2): "That is the logarithm to base 2; Keras takes the natural one.",
            -math.log(shares.max()): "That is the loss of the likeliest class; take that of `label`.",
        }
        equal_number(
            found, truth, within=1e-5, mistakes=mistakes, words=f" for {scores} and class {label}, not {truth:.4f}."
        )

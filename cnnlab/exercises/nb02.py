"""Exercises of 02_cnn_basics: sizes, kernels, how far a layer sees."""

import functools
from typing import Any

import numpy as np

from cnnlab.exercises.asking import array, call, equal_number, exercise, expect, number


@functools.cache
def _height() -> int:
    import cnnlab._quiet  # noqa: F401, I001
    import keras

    after = keras.layers.Conv2D(8, 3, strides=2, padding="valid").compute_output_shape((None, 64, 64, 3))
    return int(keras.layers.MaxPooling2D(2).compute_output_shape(after)[1])


@exercise(
    question='An image of 64 × 64 pixels goes through `Conv2D(8, 3, strides=2, padding="valid")` and then '
    "`MaxPooling2D(2)`. How high is the result? Calculate before you try.",
    answer="a whole number",
    hints=(
        "Count the places where the kernel fits in: first without, then with the stride.",
        "A kernel of 3 fits in 62 places of 64; with a stride of 2 every second of them is used.",
        "The convolution leaves 31 rows. Pooling takes them in pairs and drops what is left over.",
    ),
    right="You can now read a `model.summary()` and know why its numbers are so.",
)
def predict(answer: Any) -> str:
    mistakes = {
        16: '16 would be right with `padding="same"`; with "valid" the kernel must lie inside the image.',
        15.5: "Half a pixel does not exist: what does pooling do with a row that is left over?",
        31: "That is the height after the convolution. The pooling comes yet.",
        30: "Count the pooling as well as the convolution's stride, each once.",
        32: "Stride 2 alone halves; the kernel's size and the pooling count, too.",
    }
    equal_number(answer, _height(), mistakes=mistakes)
    return f"Keras says {_height()}, too."


def _responses(kernel: np.ndarray, image: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(image, kernel.shape)
    return np.einsum("abij,ij->ab", windows, kernel)


@exercise(
    question="Change the kernel so that it answers to edges between dark above and bright below (with a positive "
    "number), but neither to edges between left and right nor to a flat surface. Hand in the 3 × 3 numbers.",
    answer="3 × 3 numbers",
    hints=(
        "Below minus above: which rows should count as plus, which as minus?",
        "Along a row nothing may change, else edges between left and right are seen.",
        "Take the kernel for edges between left and right, and exchange its rows with its columns.",
    ),
    right="Networks find such kernels by themselves; you have seen some of them among the first filters.",
)
def change(answer: Any) -> None:
    kernel = array(answer, shape=(3, 3), what="The kernel")
    step = np.zeros((9, 9))
    step[5:] = 255.0
    flat, across, down = (_responses(kernel, image) for image in (np.full((9, 9), 200.0), step.T, step))
    small = 1e-6 * np.abs(kernel).sum() * 255
    expect(np.abs(down).max() > small, "It does not answer to an edge between dark above and bright below.")
    expect(np.abs(flat).max() <= small, "It answers to a flat surface: its numbers should add up to zero.")
    expect(
        np.abs(across).max() <= small,
        "It answers to an edge between dark left and bright right, which it should not see.",
    )
    expect(down.max() > small, "It answers with the wrong sign: dark above bright should give a positive number.")


def _seen(layers: list[tuple[int, int]]) -> int:
    """How many inputs in a row one output depends on, found by following it back from layer to layer."""
    first = last = 0
    for kernel, stride in reversed(layers):
        first, last = first * stride, last * stride + kernel - 1
    return last - first + 1


NETWORKS = (
    [(3, 1)],
    [(3, 1), (3, 1)],
    [(3, 1), (2, 2), (3, 1)],
    [(3, 1), (2, 2), (3, 1), (2, 2), (3, 1)],
    [(7, 2), (3, 2), (1, 1), (3, 1)],
)


@exercise(
    question="Write `field(layers)`: how many pixels in a row a place of the last map sees. `layers` is a list of "
    "pairs (kernel, stride) such as `[(3, 1), (2, 2), (3, 1)]`: convolution, pooling, convolution.",
    answer="a function of a list of pairs",
    hints=(
        "Start with one pixel, and go through the layers in order. What does a kernel of 3 add at first?",
        "Each layer adds (kernel - 1) × step, where step is how far apart two places of its input are in pixels.",
        "After each layer multiply the step by its stride; the first step is 1, and the field starts at 1.",
    ),
    right="Compare it with the largest thing in your images: what no place sees whole must be judged from parts.",
)
def build(answer: Any) -> None:
    for layers in NETWORKS:
        found, truth = number(call(answer, list(layers))), _seen(list(layers))
        without = 1 + sum(kernel - 1 for kernel, _ in layers)
        step, late = 1, 1
        for kernel, stride in layers:
            step *= stride
            late += (kernel - 1) * step
        words = f"For {layers} it gives {found:g}"
        expect(
            found == truth or found != without,
            f"{words}: that forgets the strides. After a pooling, one step in the map is two pixels.",
        )
        expect(
            found == truth or found != late,
            f"{words}: a layer's own stride counts for the layers after it, not for itself.",
        )
        expect(found == truth or found != truth - 1, f"{words}, one too few: a single pixel sees itself.")
        expect(found == truth, f"{words}, where {truth} pixels in a row matter.")

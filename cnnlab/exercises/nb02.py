"""Exercises of 02_cnn_basics: sizes, kernels, how far a layer sees."""

from typing import Any

import numpy as np

from cnnlab.exercises.asking import array, call, equal_number, exercise, expect

HEIGHT = 15  # 31 rows after the convolution, in pairs


@exercise
def predict(answer: Any) -> None:
    """An image of 64 × 64 pixels goes through `Conv2D(8, 3, strides=2, padding="valid")` and then `MaxPooling2D(2)`.
    How high is the result? Calculate before you try.

    Answer: a whole number
    Hint: Count the places where the kernel fits in: first without, then with the stride.
    Hint: A kernel of 3 fits in 62 places of 64; with a stride of 2 every second of them is used.
    Hint: The convolution leaves 31 rows. Pooling takes them in pairs and drops what is left over.
    Right: You can now read a `model.summary()` and know why its numbers are so.
    """
    mistakes = {
        16: '16 would be right with `padding="same"`; with "valid" the kernel must lie inside the image.',
        15.5: "Half a pixel does not exist: what does pooling do with a row that is left over?",
        31: "That is the height after the convolution. The pooling comes yet.",
        30: "Count the pooling as well as the convolution's stride, each once.",
        32: "Stride 2 alone halves; the kernel's size and the pooling count, too.",
    }
    equal_number(answer, HEIGHT, mistakes=mistakes)


def _responses(kernel: np.ndarray, image: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(image, kernel.shape)
    return np.einsum("abij,ij->ab", windows, kernel)


@exercise
def change(answer: Any) -> None:
    """Change the kernel so that it answers to edges between dark above and bright below (with a positive number), but
    neither to edges between left and right nor to a flat surface. Hand in the 3 × 3 numbers.

    Answer: 3 × 3 numbers
    Hint: Below minus above: which rows should count as plus, which as minus?
    Hint: Along a row nothing may change, else edges between left and right are seen.
    Hint: Take the kernel for edges between left and right, and exchange its rows with its columns.
    Right: Networks find such kernels by themselves; you have seen some of them among the first filters.
    """
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


@exercise
def build(answer: Any) -> None:
    """Write `field(layers)`: how many pixels in a row a place of the last map sees. `layers` is a list of pairs
    (kernel, stride) such as `[(3, 1), (2, 2), (3, 1)]`: convolution, pooling, convolution.

    Answer: a function of a list of pairs
    Hint: Start with one pixel, and go through the layers in order. What does a kernel of 3 add at first?
    Hint: Each layer adds (kernel - 1) × step, where step is how far apart two places of its input are in pixels.
    Hint: After each layer multiply the step by its stride; the first step is 1, and the field starts at 1.
    Right: Compare it with the largest thing in your images: what no place sees whole must be judged from parts.
    """
    for layers in NETWORKS:
        truth, step, late = _seen(list(layers)), 1, 1
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

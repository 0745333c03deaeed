"""Exercises of 02_cnn_basics: sizes, kernels, a convolution by hand."""

import functools
from typing import Any

import numpy as np

from cnnlab.exercises.asking import Exercise, array, call, equal_number, expect


@functools.cache
def _height() -> int:
    import cnnlab._quiet  # noqa: F401, I001
    import keras

    after = keras.layers.Conv2D(8, 3, strides=2, padding="valid").compute_output_shape((None, 64, 64, 3))
    return int(keras.layers.MaxPooling2D(2).compute_output_shape(after)[1])


def _size(answer: Any) -> str:
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


def _horizontal(answer: Any) -> None:
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


def _convolve(answer: Any) -> None:
    rng = np.random.default_rng(0)
    for height, width, size in ((5, 8, 3), (6, 6, 3), (7, 6, 5), (4, 9, 1)):
        image, kernel = rng.normal(size=(height, width)), rng.normal(size=(size, size))
        truth = _responses(kernel, image)
        found = array(call(answer, image.copy(), kernel.copy()))
        expect(
            found.shape != image.shape or size == 1,
            f"A {height}×{width} image gave {found.shape}, as large as itself, though the kernel should stay inside.",
        )
        expect(
            found.shape == truth.shape,
            f"A {height}×{width} image and a {size}×{size} kernel should give {truth.shape}. Received {found.shape}.",
        )
        flipped = _responses(kernel[::-1, ::-1], image)
        expect(
            size == 1 or not np.allclose(found, flipped),
            "It turns the kernel around first, as mathematics does. A convolutional layer does not.",
        )
        expect(
            np.allclose(found, truth), "The size is right, the numbers are not; try an image that is 1 in one place."
        )


EXERCISES = (
    Exercise(
        question='An image of 64 × 64 pixels goes through `Conv2D(8, 3, strides=2, padding="valid")` and then '
        "`MaxPooling2D(2)`. How high is the result? Calculate before you try.",
        answer="a whole number",
        hints=(
            "Count the places where the kernel fits in: first without, then with the stride.",
            "A kernel of 3 fits in 62 places of 64; with a stride of 2 every second of them is used.",
            "The convolution leaves 31 rows. Pooling takes them in pairs and drops what is left over.",
        ),
        right="You can now read a `model.summary()` and know why its numbers are so.",
        judge=_size,
    ),
    Exercise(
        question="Change the kernel so that it answers to edges between dark above and bright below (with a positive "
        "number), but neither to edges between left and right nor to a flat surface. Hand in the 3 × 3 numbers.",
        answer="3 × 3 numbers",
        hints=(
            "Below minus above: which rows should count as plus, which as minus?",
            "Along a row nothing may change, else edges between left and right are seen.",
            "Take the kernel for edges between left and right, and exchange its rows with its columns.",
        ),
        right="Networks find such kernels by themselves; you have seen some of them among the first filters.",
        judge=_horizontal,
    ),
    Exercise(
        question="Write `convolve(image, kernel)` in numpy: two-dimensional arrays in, and out what a layer with "
        '`padding="valid"` would give. Two loops are fine.',
        answer="a function of an image and a kernel",
        hints=(
            "How many rows of places are there where the kernel fits into the image?",
            "At each place: cut out a window as large as the kernel, multiply number by number, add up.",
            "`result[y, x] = (image[y:y + k, x:x + k] * kernel).sum()`, for all y and x where the window fits.",
        ),
        right="That is the whole secret of a convolutional layer; everything else is learned.",
        judge=_convolve,
    ),
)

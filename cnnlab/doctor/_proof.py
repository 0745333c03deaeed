"""Trains on every device and checks the numbers: runs in a process of its own, so that a crash ends that one alone.

Prints one line of JSON before and after each step: where the lines end, the process ended.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

MARK = "@cnnlab "


def emit(**fact: object) -> None:
    """Prints one fact at once."""
    sys.stdout.write(f"\n{MARK}{json.dumps(fact)}\n")
    sys.stdout.flush()


def import_modules(names: list[str]) -> bool:
    """Imports each module and says how that went; whether all succeeded."""
    good = True
    for name in names:
        emit(stage="import", module=name)
        start = time.perf_counter()
        try:
            module = importlib.import_module(name)
        except BaseException as error:  # SystemExit, too: what a module raises at import is what is asked for
            good = False
            emit(stage="broken", module=name, error=f"{type(error).__name__}: {error}"[:2000])
            continue
        version = str(getattr(module, "__version__", ""))
        emit(stage="imported", module=name, version=version, seconds=time.perf_counter() - start)
    return good


def reference_convolution(images: Any, kernel: Any) -> Any:
    """A 3×3 convolution with zero padding in plain numpy, float64: (n, h, w, c), (3, 3, c, f) → (n, h, w, f)."""
    import numpy as np

    return np.einsum("nhwcij,ijcf->nhwf", patches_of(images), kernel.astype("float64"))


def patches_of(images: Any) -> Any:
    """Every 3×3 neighbourhood, zero padded: (n, h, w, c, 3, 3)."""
    import numpy as np

    padded = np.pad(images.astype("float64"), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))


def difference(one: Any, other: Any) -> float:
    """The largest difference relative to the largest value."""
    import numpy as np

    return float(np.max(np.abs(one - other)) / max(float(np.max(np.abs(other))), 1e-12))


def check_convolution(device: str) -> None:
    """Compares a convolution and its gradient with numpy."""
    import keras
    import numpy as np

    random = np.random.default_rng(0)
    images = random.normal(size=(4, 24, 20, 3)).astype("float32")
    kernel = random.normal(size=(3, 3, 3, 8)).astype("float32")
    target = random.normal(size=(4, 24, 20, 8)).astype("float32")
    with keras.device(device):
        layer = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)
        model = keras.Sequential([keras.Input((24, 20, 3)), layer])
        layer.set_weights([kernel])
        forward = keras.ops.convert_to_numpy(model(images))
        model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
        model.train_on_batch(images, target)
        step = kernel - layer.get_weights()[0]  # learning rate 1: the step is the gradient
        place = str(getattr(layer.kernel.value, "device", ""))
    expected = reference_convolution(images, kernel)
    gradient = np.einsum("nhwcij,nhwf->ijcf", patches_of(images), (expected - target) * 2 / target.size)
    # The step is read off as a difference of weights near 1, so it carries their rounding (6e-8 each).
    errors = {"error": difference(forward, expected), "gradient_error": difference(step, gradient)}
    emit(stage="convolved", device=device, place=place, **errors)


def train(device: str, steps: int) -> tuple[list[float], Any]:
    """Trains a tiny network from fixed weights on fixed batches: the losses and the weights."""
    import keras
    import numpy as np

    random, labels = np.random.default_rng(1), np.arange(96) % 3
    row, column = np.mgrid[:16, :16] // 2 % 2  # stripes across, stripes down, and a checkerboard, all noisy
    patterns = np.stack([row, column, row ^ column]).astype("float32")[labels, ..., None]
    images = patterns + random.normal(scale=0.5, size=patterns.shape).astype("float32")
    layers = keras.layers
    with keras.device(device):
        model = keras.Sequential(
            [
                keras.Input((16, 16, 1)),
                layers.Conv2D(8, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(),
                layers.Conv2D(16, 3, padding="same", activation="relu"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(3),
            ]
        )
        shapes = [weight.shape for weight in model.get_weights()]
        scales = [np.sqrt(2 / max(np.prod(shape[:-1]), 1)) * (len(shape) > 1) for shape in shapes]
        model.set_weights([random.normal(size=shape) * scale for shape, scale in zip(shapes, scales)])  # noqa: B905
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss=loss)
        losses = []
        for step in range(steps):
            batch = slice(step % 3 * 32, step % 3 * 32 + 32)
            model.reset_metrics()  # so that the loss is that of this batch alone
            losses.append(float(np.ravel(model.train_on_batch(images[batch], labels[batch]))[0]))
        return losses, np.concatenate([weights.ravel() for weights in model.get_weights()])


def prove(devices: list[str], steps: int = 30) -> None:
    """The convolution and the training on each device, the first of which is the processor."""
    reference = None
    for device in devices:
        try:
            emit(stage="convolution", device=device)
            check_convolution(device)
            emit(stage="training", device=device)
            start = time.perf_counter()
            losses, weights = train(device, steps)
            seconds = time.perf_counter() - start
            reference = weights if reference is None else reference
            learned = {"first": losses[0], "last": sum(losses[-3:]) / 3, "difference": difference(weights, reference)}
            emit(stage="trained", device=device, steps=steps, seconds=seconds, **learned)
        except Exception as error:
            emit(stage="failed", device=device, error=f"{type(error).__name__}: {error}"[:2000])


def find_devices() -> list[str]:
    """The processor and each visible card, in Keras's names; says what they are."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        cards = [str(device.device_kind) for device in jax.devices() if device.platform == "gpu"]
        jax.config.update("jax_default_matmul_precision", "highest")
    else:
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(card) for card in found]
        cards = [str(detail.get("device_name", "GPU")) for detail in details]
        tf.config.experimental.enable_tensor_float_32_execution(False)  # its 10-bit products hide small errors
    emit(stage="devices", cards=cards)
    return ["cpu:0", *(f"gpu:{number}" for number in range(len(cards)))]


def main() -> None:
    """Imports and proves; the argument is JSON: {"modules": […]}."""
    if import_modules(json.loads(sys.argv[-1])["modules"]):
        import keras

        keras.config.set_floatx("float32")
        keras.config.set_image_data_format("channels_last")
        prove(find_devices())
    emit(stage="end")


if __name__ == "__main__":
    main()

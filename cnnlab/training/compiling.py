"""`model.compile` with the arguments that fit the labels and this hardware, and the precision that it gains by."""

import functools
import inspect
import math
import re
import time
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

from cnnlab._common import is_whole
from cnnlab._upstream import build_before_tracing, optimizers_in, schedules_of
from cnnlab.models.losses import saved_plainly
from cnnlab.training.batches import require_known_classes, source_of, suitable_loss
from cnnlab.training.state import random_state_kept

# Below this many multiply-adds a batch, starting a step costs as much as computing it on a CPU.
CHEAP_STEP = 1.5e9
HALVES = ("mixed_bfloat16", "mixed_float16")
WORTH_IT = 1.3  # times as fast as float32, for half precision on a CPU
COUNTS = ("steps_per_epoch", "validation_steps", "steps")


def compile(
    model: keras.Model,
    *,
    learning_rate: Any = None,
    optimizer: str | keras.optimizers.Optimizer = "adamw",
    data: Any = None,
    label_smoothing: float = 0.0,
    **arguments: Any,
) -> keras.Model:
    """Fills in `model.compile`'s own arguments for classification on this hardware, and prints its choice in one line.

    Loss: the cross-entropy that fits the network's last layer (softmax, one sigmoid, or none) and the labels: class
    numbers, or shares where `data` yields them (mixup, cutmix). On a CPU, small networks run several steps at a time
    and without XLA, which is what is faster there; `steps_per_epoch` and the like are kept to all the same. On a GPU or
    TPU each step is one execution, compiled with XLA; the precision is the network's own (`training.precision`), and
    JAX copies the next batch to the device meanwhile. The model is saved so that plain Keras loads it. Anything given
    in `arguments` wins.

    Args:
        model: Uncompiled or compiled; it is compiled anew.
        learning_rate: A number, a `keras.optimizers.schedules` object, or None for the optimizer's default.
        optimizer: A name Keras knows, or an optimizer object (then `learning_rate` must stay None).
        data: The training data; only the shapes of its images and labels are looked at.
        label_smoothing: Share of each label spread over all classes, 0 to below 1; labels may stay integers.
        **arguments: What else the optimizer takes (weight_decay, clipnorm, use_ema …) goes to it; the rest is passed on
            to `model.compile` (metrics, steps_per_execution, jit_compile …).

    Returns:
        The model, compiled.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If `label_smoothing` or `learning_rate` is out of range, an optimizer object meets arguments for
            an optimizer, or no loss fits the network.

    Example:
        >>> from cnnlab import models, training
        >>> model = models.small_cnn(image_size=(16, 16), classes=["cat", "dog"])
        >>> _ = training.compile(model, learning_rate=0.01)
        AdamW · learning rate 0.01 · sparse_categorical_crossentropy · 16 steps an execution · CPU
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`training.compile` expects a Keras model. Received: {type(model).__name__}.")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"`label_smoothing` expects a share from 0 to below 1. Received: {label_smoothing!r}.")
    if isinstance(learning_rate, int | float | np.number) and not 0 < learning_rate < math.inf:
        raise ValueError(f"`learning_rate` expects a number above 0, such as 0.001. Received: {learning_rate!r}.")
    rule = _optimizer(optimizer, learning_rate, arguments)
    fitting = {"metrics": ["accuracy"]} if "loss" in arguments else suitable_loss(model, data, label_smoothing)
    on_gpu = on_accelerator()
    chosen = {
        "optimizer": rule,
        **fitting,
        "jit_compile": worth_compiling(),
        "steps_per_execution": 1 if on_gpu else _steps_per_execution(model),
    } | arguments
    model.compile(**chosen)
    count_exactly(model)
    build_before_tracing(model)
    saved_plainly(model)
    loss_name = chosen["loss"] if isinstance(chosen["loss"], str) else getattr(chosen["loss"], "name", "own loss")
    print(  # noqa: T201  (the one line that says what was chosen)
        f"{type(rule).__name__} · learning rate {_describe(rule)} · {loss_name} · "
        f"{chosen['steps_per_execution']} steps an execution · {'GPU' if on_gpu else 'CPU'}{_in_precision(model)}"
    )
    return model


def _optimizer(optimizer: Any, learning_rate: Any, arguments: dict[str, Any]) -> keras.optimizers.Optimizer:
    """The optimizer, set up with the learning rate and those of the arguments that it takes: these are taken out."""
    rule = keras.optimizers.get(optimizer)
    taken = set(inspect.signature(type(rule).__init__).parameters) - {"self", "kwargs", "name", "learning_rate"}
    settings = {} if learning_rate is None else {"learning_rate": learning_rate}
    settings |= {name: arguments.pop(name) for name in list(arguments) if name in taken}
    if settings and rule is optimizer:
        given = ", ".join(settings)
        raise ValueError(
            f"`{given}` expects an optimizer by name. Received an optimizer object, which has its own: "
            f"pass keras.optimizers.{type(optimizer).__name__}({given}=…) alone."
        )
    return type(rule)(**settings) if settings else rule


def _describe(rule: keras.optimizers.Optimizer) -> str:
    for rate in schedules_of(rule):
        peak = getattr(rate, "warmup_target", None) or getattr(rate, "initial_learning_rate", None)
        return f"{getattr(rate, 'name', type(rate).__name__)} up to {peak:.3g}" if peak else type(rate).__name__
    rates = [one.learning_rate for one in optimizers_in(rule) if hasattr(one, "learning_rate")]  # several have none
    return " and ".join(dict.fromkeys(f"{float(rate):.3g}" for rate in rates))


def precision(name: str = "auto") -> str:
    """Sets the precision in which networks calculate that are built from now on; their weights stay in float32.

    "auto" takes half precision where this hardware gains by it: bfloat16 on a TPU and on NVIDIA's cards since Ampere
    (compute capability 8.0), float16 on older ones with tensor cores (7.0). A CPU that multiplies bfloat16 (AMX) is
    tried for a second or two with ordinary convolutions; depthwise ones, as in MobileNet, may gain nothing there. What
    is measured may differ between two sessions, so name the precision where results are to be repeated. On other
    hardware half precision is slower, and "auto" sets float32.

    Args:
        name: "auto", or what `keras.config.set_dtype_policy` takes: "float32", "mixed_bfloat16", "mixed_float16".

    Returns:
        What was set.

    Raises:
        ValueError: If `name` is none of these.

    Example:
        >>> from cnnlab import models, training
        >>> training.precision("mixed_bfloat16")
        'mixed_bfloat16'
        >>> models.small_cnn(image_size=(16, 16), classes=["cat", "dog"]).layers[-1].compute_dtype
        'float32'
        >>> training.precision("float32")
        'float32'
    """
    if name not in ("auto", "float32", *HALVES):
        raise ValueError(
            f'`training.precision` expects "auto", "float32", "mixed_bfloat16" or "mixed_float16". Received: {name!r}.'
        )
    if name == "auto":
        name = _accelerators_precision() if on_accelerator() else _processors_precision()
    keras.config.set_dtype_policy(name)
    return name


def _accelerators_precision() -> str:
    """What the tensor cores of all cards multiply."""
    levels: list[str] = []
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.list_physical_devices("TPU"):
            return HALVES[0]
        details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
        levels = [".".join(map(str, each.get("compute_capability", ()))) for each in details]
    elif keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() == "tpu":
            return HALVES[0]
        levels = [str(getattr(device, "compute_capability", "")) for device in jax.devices()]
    numbers = [re.fullmatch(r"(\d+)\.\d+", level) for level in levels]  # AMD's cards have names
    oldest = min((int(each[1]) if each else 0 for each in numbers), default=0)
    return HALVES[0] if oldest >= 8 else HALVES[1] if oldest == 7 else "float32"


def _processors_precision() -> str:
    """Half precision only where this processor has instructions for it and convolutions become faster by them."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "float32"
    if "amx_bf16" not in flags:
        return "float32"
    return HALVES[0] if _step_seconds("float32") > WORTH_IT * _step_seconds(HALVES[0]) else "float32"


@random_state_kept()
def _step_seconds(policy: str) -> float:
    """The fastest of a few training steps of ordinary convolutions."""
    layers = [keras.layers.Conv2D(64, 3, padding="same", activation="relu", dtype=policy) for _ in range(2)]
    model = keras.Sequential([keras.Input((32, 32, 64)), *layers, keras.layers.GlobalAveragePooling2D(dtype="float32")])
    model.compile("sgd", "mse", jit_compile=worth_compiling())
    images, times = np.random.default_rng(0).random((8, 32, 32, 64), np.float32), []
    for _ in range(4):
        began = time.perf_counter()
        model.train_on_batch(images, np.zeros((8, 64), np.float32))
        times.append(time.perf_counter() - began)
    return min(times[1:])


def _in_precision(model: keras.Model) -> str:
    """The precision, where it is not float32 on a CPU."""
    name = model.dtype_policy.name
    if name != "float32":
        return f" in {name}"
    slow = on_accelerator() and _accelerators_precision() != "float32"
    return ' in float32, slower than what `training.precision("auto")` sets for networks built after it' if slow else ""


def on_accelerator() -> bool:
    """Whether Keras computes on something else than the processor."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))
    return any(not name.startswith("cpu") for name in keras.distribution.list_devices())


def worth_compiling() -> Any:
    """`jit_compile`: XLA only where it helps."""
    return "auto" if on_accelerator() or keras.backend.backend() == "jax" else False


def _steps_per_execution(model: keras.Model) -> int:
    """Many steps at a time where a step is over in a moment, one where it is long enough to want the progress bar."""
    work = 0.0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.built:
            kernel = layer.kernel.shape
            output = getattr(layer, "output", None)  # not known in a subclassed network
            height, width = (None, None) if output is None else output.shape[1:3]
            work += 32 * int(keras.ops.prod(kernel)) * height * width if height and width else CHEAP_STEP
        elif not isinstance(layer, keras.layers.Layer) or hasattr(layer, "layers"):
            work += CHEAP_STEP  # a whole network inside: never cheap
    return 16 if work < CHEAP_STEP else 1


def count_exactly(model: keras.Model) -> None:
    """Makes `fit`, `evaluate` and `predict` of this model do the steps that are asked for, on its own classes.

    Keras rounds them up to whole executions, and goes through data that end within an epoch only once more. A model
    whose `steps_per_execution` was chosen here must not do less, or more, than the person wrote.
    """
    for name in ("fit", "evaluate", "predict"):
        setattr(model, name, _exact(model, name))


def _exact(model: keras.Model, name: str) -> Any:
    plain = getattr(type(model), name)
    signature = inspect.signature(plain)

    @functools.wraps(plain)
    def method(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(model, *args, **kwargs)
        given = bound.arguments
        if name != "predict":
            require_known_classes(model, given)
        counts = [given[key] for key in COUNTS if is_whole(given.get(key))]
        if given.get("steps_per_epoch") and "x" in given:
            endless = _endless(given["x"])
            given["x"] = given["x"] if endless is None else endless
            counts += [1] if endless is None else []  # what may end within an execution is taken step by step
        before = model.steps_per_execution
        # As many steps at a time as all counts are multiples of.
        _execute(model, max(steps for steps in range(1, before + 1) if all(count % steps == 0 for count in counts)))
        try:
            return plain(*bound.args, **bound.kwargs)
        finally:
            _execute(model, before)

    method.__signature__ = inspect.signature(plain.__get__(model))  # type: ignore[attr-defined]
    return method


def _execute(model: keras.Model, steps: int) -> None:
    if model.steps_per_execution != steps:
        model.steps_per_execution = steps
        model.train_function = model.test_function = model.predict_function = None


def _endless(data: Any) -> Any:
    """The dataset, begun again whenever it ends; None for what is not a TensorFlow dataset."""
    if not hasattr(data, "element_spec") or not hasattr(data, "cardinality") or not hasattr(data, "repeat"):
        return None
    import tensorflow as tf

    if int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
        return data
    repeated = data.repeat()
    if source_of(data) is not None:
        repeated._cnnlab_source, repeated._cnnlab_begun_again = source_of(data), True
    return repeated

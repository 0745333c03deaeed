"""What callbacks remember while training, as plain values that can be kept in a file and given back.

A file may come from anybody. So only known fields of known callbacks are given back, each of the type it must have; of
callbacks that people wrote themselves, numbers, arrays and containers of them, into attributes that are there. Text is
never taken from a file, as it may name one.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

LEFT_OUT = ("_model", "params", "model", "remembered")
Arrays = dict[str, np.ndarray]
CONTAINERS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "deque": deque}
KEYS = bool | int | float | str | None


def plain(value: Any, arrays: Arrays) -> Any:
    """A value as JSON keeps it; arrays are put into `arrays`, and their name stands where they were.

    Raises:
        TypeError: If it holds anything but numbers, arrays, and lists, tuples, sets, deques or dicts of them.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        name = f"callback_{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    for kind, container in CONTAINERS.items():
        if isinstance(value, container):
            return {kind: [plain(item, arrays) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, KEYS) for key in value):
        return {"dict": [[key, plain(item, arrays)] for key, item in value.items()]}
    raise TypeError(type(value).__name__)


def restored(value: Any, arrays: Arrays) -> Any:
    """The value that `plain` took apart.

    Raises:
        ValueError: If it is none.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((kind, content),) = value.items()
        if kind == "array" and isinstance(content, str) and content in arrays:
            return arrays[content].copy()
        if kind in CONTAINERS and isinstance(content, list):
            return CONTAINERS[kind](restored(item, arrays) for item in content)
        if kind == "dict" and isinstance(content, list) and all(map(_is_item, content)):
            return {key: restored(item, arrays) for key, item in content}
    raise ValueError("not a value that a checkpoint keeps")


def _is_item(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], KEYS)


# What a remembered field may be. Each says whether a value is right for a model.


def count(value: Any, model: keras.Model) -> bool:
    """A whole number from 0."""
    return type(value) is int and 0 <= value < 2**53


def number(value: Any, model: keras.Model) -> bool:
    """A number, or None while there was none."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def weights(value: Any, model: keras.Model) -> bool:
    """A value for each weight of the model, or None."""
    return value is None or _fits(value, model.weights)


def variables(value: Any, model: keras.Model) -> bool:
    """A value for each variable of model and optimizer, or None."""
    return value is None or _fits(value, [*model.variables, *model.optimizer.variables])


def _fits(values: Any, wanted: Sequence[Any]) -> bool:
    shapes = [np.shape(value) for value in values] if isinstance(values, list) else None
    return shapes == [tuple(one.shape) for one in wanted]


def rows(value: Any, model: keras.Model) -> bool:
    """A list of dicts of numbers."""
    return isinstance(value, list) and all(isinstance(row, dict) and _named_numbers(row.items()) for row in value)


def history(value: Any, model: keras.Model) -> bool:
    """A dict of lists of numbers or arrays."""
    if not isinstance(value, dict) or not all(isinstance(values, list) for values in value.values()):
        return False
    return _named_numbers((key, one) for key, values in value.items() for one in values)


def _named_numbers(pairs: Any) -> bool:
    return all(
        isinstance(key, str) and key.isprintable() and isinstance(value, int | float | np.ndarray | np.generic)
        for key, value in pairs
    )


def epochs(value: Any, model: keras.Model) -> bool:
    """A list of whole numbers from 0."""
    return isinstance(value, list) and all(count(one, model) for one in value)


Rule = Callable[[Any, keras.Model], bool]
BUILT_IN: dict[type, dict[str, Rule]] = {
    keras.callbacks.EarlyStopping: {"wait": count, "best": number, "best_epoch": count, "best_weights": weights},
    keras.callbacks.ReduceLROnPlateau: {"wait": count, "best": number, "cooldown_counter": count},
    keras.callbacks.ModelCheckpoint: {"best": number, "epochs_since_last_save": count},
    keras.callbacks.History: {"history": history, "epoch": epochs},
}


def fields_of(callback: keras.callbacks.Callback) -> dict[str, Rule] | None:
    """What a callback of Keras or of this package remembers; None for one that somebody wrote."""
    known: dict[str, Rule] = {}
    built_in = False
    for kind in type(callback).__mro__:
        known |= BUILT_IN.get(kind, {}) | vars(kind).get("remembered", {})
        ours = kind.__module__.startswith(("keras.", "cnnlab."))
        built_in = built_in or (ours and kind is not keras.callbacks.Callback)
    return known if built_in else None


class Memory:
    """What callbacks have learned from training, unlike what they were told.

    Args:
        callbacks: As they are when training begins.
        model: Which they watch.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], model: keras.Model) -> None:
        kinds = [type(callback).__name__ for callback in callbacks]
        names = [f"{kind} {kinds[:index].count(kind)}" for index, kind in enumerate(kinds)]
        self.named, self.model = dict(zip(names, callbacks, strict=True)), model
        self.at_first = {
            name: {key: _signature(value) for key, value in vars(one).items()}
            for name, one in self.named.items()
            if fields_of(one) is None
        }

    def taken(self) -> tuple[dict[str, Any], Arrays]:
        """What they remember, by callback and attribute, and the arrays therein."""
        arrays: Arrays = {}
        memory: dict[str, Any] = {}
        for name, callback in self.named.items():
            known, first = fields_of(callback), self.at_first.get(name, {})
            memory[name] = {}
            for key, value in vars(callback).items():
                wanted = key in known if known is not None else _signature(value) != first.get(key)
                if wanted and key not in LEFT_OUT:
                    with suppress(TypeError):
                        memory[name][key] = plain(value, arrays)
            if isinstance(getattr(callback, "monitor", None), str):
                memory[name]["monitor"] = callback.monitor
        return memory, arrays

    def give_back(self, memory: dict[str, Any], arrays: Arrays) -> list[str]:
        """Makes the callbacks remember.

        Returns:
            What could not be given back, in words.

        Raises:
            ValueError: If a known callback would remember what it cannot have learned.
        """
        left = []
        for name, attributes in memory.items():
            callback = self.named.get(name)
            if callback is None:
                if attributes:
                    left.append(f"{name.rsplit(' ', 1)[0]} is missing now")
                continue
            watched = attributes.pop("monitor", None)
            if watched is not None and watched != getattr(callback, "monitor", None):
                left.append(f"{type(callback).__name__} watches another number now")
                continue
            known = fields_of(callback)
            for key, value in attributes.items():
                if key not in vars(callback) or (known is not None and key not in known) or key in LEFT_OUT:
                    continue
                again = restored(value, arrays)
                if known is not None and not known[key](again, self.model):
                    raise ValueError(f"{key!r} of {type(callback).__name__} is no value it can have")
                _put_into(callback, key, again, exact=known is not None)
        return left


def _put_into(callback: keras.callbacks.Callback, key: str, value: Any, *, exact: bool) -> None:
    """Sets an attribute; of a callback that somebody wrote only where the value is of the kind that is there."""
    now = vars(callback)[key]
    if isinstance(now, dict) and isinstance(value, dict):
        now.clear()  # it may be a defaultdict or a Counter
        now.update(value)
    elif exact or now is None or _kind(now) == _kind(value):
        setattr(callback, key, value)


def _signature(value: Any) -> Any:
    """Equal for equal values; None for what is not kept."""
    arrays: Arrays = {}
    try:
        structure = plain(value, arrays)
    except TypeError:
        return None
    return repr(structure), [(one.dtype.str, one.shape, one.tobytes()) for one in arrays.values()]


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float | np.ndarray | np.generic) else type(value).__name__

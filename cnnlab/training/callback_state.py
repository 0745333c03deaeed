"""What callbacks remember while training, as plain values that can be kept in a file and given back.

A file may come from anybody. So only known fields of known callbacks are given back, each of the type it must have; of
callbacks that people wrote themselves, numbers, arrays and containers of them, into attributes that are there. Text is
never taken from a file, as it may name one.
"""

from collections import deque
from collections.abc import Iterable, Sequence
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

    TypeError for anything but numbers, arrays, and lists, tuples, sets, deques or dicts of them.
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
    """The value that `plain` took apart; ValueError if it is none."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict) and len(value) == 1:
        ((kind, content),) = value.items()
        if kind == "array" and isinstance(content, str) and content in arrays:
            return arrays[content].copy()
        if kind in CONTAINERS and isinstance(content, list):
            return CONTAINERS[kind](restored(item, arrays) for item in content)
        items = kind == "dict" and isinstance(content, list)
        if items and all(isinstance(one, list) and len(one) == 2 and isinstance(one[0], KEYS) for one in content):
            return {key: restored(item, arrays) for key, item in content}
    raise ValueError("not a value that a checkpoint keeps")


# What a field may hold, as `is_possible` knows it.
Fields = dict[str, str]
BUILT_IN: dict[type, Fields] = {
    keras.callbacks.EarlyStopping: {
        "wait": "count", "best": "number", "best_epoch": "count", "best_weights": "weights"
    },
    keras.callbacks.ReduceLROnPlateau: {"wait": "count", "best": "number", "cooldown_counter": "count"},
    keras.callbacks.ModelCheckpoint: {"best": "number", "epochs_since_last_save": "count"},
    keras.callbacks.History: {"history": "history", "epoch": "epochs"},
}  # fmt: skip


def is_possible(kind: str, value: Any, model: keras.Model) -> bool:
    """Whether training can have made a field of this kind hold that value."""
    match kind, value:
        case "count", int():
            return not isinstance(value, bool) and 0 <= value < 2**53
        case "number", None | int() | float():
            return not isinstance(value, bool)
        case "weights" | "variables", None:
            return True
        case "weights" | "variables", list():
            variables = model.weights if kind == "weights" else [*model.variables, *model.optimizer.variables]
            return list(map(np.shape, value)) == [tuple(one.shape) for one in variables]
        case "epochs", list():
            return all(is_possible("count", epoch, model) for epoch in value)
        case "rows", list():
            return all(isinstance(row, dict) and _named_numbers(row.items()) for row in value)
        case "history", dict():
            lists = all(isinstance(values, list) for values in value.values())
            return lists and _named_numbers((key, one) for key, values in value.items() for one in values)
    return False


def _named_numbers(pairs: Iterable[tuple[Any, Any]]) -> bool:
    return all(
        isinstance(key, str) and key.isprintable() and isinstance(value, int | float | np.ndarray | np.generic)
        for key, value in pairs
    )


def fields_of(callback: keras.callbacks.Callback) -> Fields | None:
    """What a callback of Keras, tqdm or this package remembers; None for one that somebody wrote."""
    known: Fields = {}
    built_in = False
    for kind in type(callback).__mro__:
        known |= BUILT_IN.get(kind, {}) | vars(kind).get("remembered", {})
        built_in |= kind.__module__.startswith(("keras.", "tqdm.", "cnnlab.")) and kind is not keras.callbacks.Callback
    return known if built_in else None


class Memory:
    """What callbacks learn from training, unlike what they have been told when it begins."""

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
        """Makes the callbacks remember; says what could not be given back.

        ValueError if a known callback would remember what it cannot have learned.
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
                if known is not None and not is_possible(known[key], again, self.model):
                    raise ValueError(f"{key!r} of {type(callback).__name__} is not a value it can have")
                _put_into(callback, key, again, exact=known is not None)
        return left


def _put_into(callback: keras.callbacks.Callback, key: str, value: Any, *, exact: bool) -> None:
    """Sets an attribute; of a callback that somebody wrote only where the value has the type of what is there."""
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

"""What callbacks remember while training, as plain values that can be kept and given back."""

from collections.abc import Sequence
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np

LEFT_OUT = (
    "_model",
    "params",
    "model",
    "min_delta",
)  # Keras turns the last one's sign when it begins; told, not learned
Arrays = dict[str, np.ndarray]


class NotPlainError(TypeError):
    """A value that is no number, text, array, or list or dict of them."""


def plain(value: Any, arrays: Arrays) -> Any:
    """A value as JSON keeps it; arrays are put into `arrays`, and their name stands where they were.

    Raises:
        NotPlainError: If it cannot be.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        name = f"callback_{len(arrays)}"
        arrays[name] = np.asarray(value)
        return {"array": name}
    if isinstance(value, list | tuple):
        return [plain(item, arrays) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: plain(item, arrays) for key, item in value.items()}}
    raise NotPlainError(type(value).__name__)


def restored(value: Any, arrays: Arrays) -> Any:
    """The value that `plain` took apart."""
    if isinstance(value, list):
        return [restored(item, arrays) for item in value]
    if isinstance(value, dict):
        if "array" in value:
            return arrays[value["array"]].copy()
        return {key: restored(item, arrays) for key, item in value["dict"].items()}
    return value


def equal(one: Any, other: Any) -> bool:
    """Whether two values made of plain ones are the same."""
    if isinstance(one, np.ndarray | np.generic) or isinstance(other, np.ndarray | np.generic):
        return np.array_equal(one, other, equal_nan=np.asarray(one).dtype.kind == "f")
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return bool(one == other) or (one != one and other != other)


class Memory:
    """Which attributes of callbacks training has changed: what they remember, unlike what they were told.

    Args:
        callbacks: As they are when training begins.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        self.named = list(zip(_names(callbacks), callbacks, strict=True))
        self.at_first = {name: {key: _copy(value) for key, value in _plain_ones(one)} for name, one in self.named}

    def taken(self) -> tuple[dict[str, Any], Arrays]:
        """What has changed since, by callback and attribute, and the arrays therein."""
        arrays: Arrays = {}
        memory: dict[str, Any] = {}
        for name, callback in self.named:
            first = self.at_first[name]
            memory[name] = {
                key: plain(value, arrays)
                for key, value in _plain_ones(callback)
                if key not in first or not equal(value, first[key])
            }
        return memory, arrays

    def give_back(self, memory: dict[str, Any], arrays: Arrays) -> list[str]:
        """Makes the callbacks remember.

        Returns:
            Names of the callbacks that remembered something and are not here.
        """
        here = dict(self.named)
        for name, attributes in memory.items():
            if name in here:
                for key, value in attributes.items():
                    setattr(here[name], key, restored(value, arrays))
        return [name for name, attributes in memory.items() if attributes and name not in here]


def _names(callbacks: Sequence[keras.callbacks.Callback]) -> list[str]:
    kinds = [type(callback).__name__ for callback in callbacks]
    return [f"{kind} {kinds[:index].count(kind)}" for index, kind in enumerate(kinds)]


def _plain_ones(callback: keras.callbacks.Callback) -> list[tuple[str, Any]]:
    kept = []
    for key, value in vars(callback).items():
        if key in LEFT_OUT:
            continue
        try:
            plain(value, {})
        except NotPlainError:
            continue
        kept.append((key, value))
    return kept


def _copy(value: Any) -> Any:
    """A copy of lists and dicts; numbers, text and arrays are not changed in place."""
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value

"""Arguments that the builders of networks share, checked."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras

Parameters = ParamSpec("Parameters")
Built = TypeVar("Built")


def channels_last(build: Callable[Parameters, Built]) -> Callable[Parameters, Built]:
    """Builds with channels last whatever `keras.config` says, since that is how images come; layers remember it."""

    @wraps(build)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Built:
        before = keras.config.image_data_format()
        keras.config.set_image_data_format("channels_last")
        try:
            return build(*args, **kwargs)
        finally:
            keras.config.set_image_data_format(before)

    return wrapped


def checked_classes(classes: Sequence[str], *, caller: str) -> list[str]:
    """The class names as a list of text; refuses a count, one class, or a name that occurs twice.

    Raises:
        TypeError: If `classes` is no sequence of names.
        ValueError: If there are fewer than two, or two are equal.
    """
    if isinstance(classes, str | int) or not hasattr(classes, "__iter__"):
        raise TypeError(
            f"`{caller}` expects `classes` to be the names of the classes, such as "
            f"`table['label'].cat.categories`. Received: {classes!r}."
        )
    names = [str(name) for name in classes]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"`{caller}` expects at least two classes of different names. Received: {names}.")
    return names


def checked_share(value: float, *, argument: str, caller: str, one: bool = False) -> float:
    """A share of 0 to below 1; or of 0 to 1, where `one`.

    Raises:
        ValueError: Otherwise.
    """
    if isinstance(value, int | float) and 0 <= value <= 1 and (one or value < 1):
        return float(value)
    raise ValueError(f"`{caller}` expects `{argument}` from 0 to {'1' if one else 'below 1'}. Received: {value!r}.")

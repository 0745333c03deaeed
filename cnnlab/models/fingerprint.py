"""What a result depends on, as text that is equal in the next session exactly when it is the same."""

import dis
import functools
import hashlib
import inspect
import json
import re
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import _upstream
from cnnlab._common import in_threads
from cnnlab.images import read_file

DEEP = 20  # levels of objects within objects that are looked at
LONG = 200  # characters; what is longer is told apart by its hash
CHANGING = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "remove", "clear"}  # methods
STORING = ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_ATTR")


class Seen(NamedTuple):
    """Where a description is: the objects around, by id, and those that were described, each with its text."""

    around: tuple[int, ...]
    known: dict[int, tuple[Any, str]]


def describe(value: Any) -> str:
    """A setting as text: plain values as they are written, objects by what they hold, functions by their code.

    Example:
        >>> describe({"rate": 0.5, "sizes": (8, 16)})
        "{'rate': 0.5, 'sizes': (8, 16)}"
    """
    return _short(_text(value, Seen((), {})))


def network_facts(model: keras.Model) -> dict[str, str]:
    """What decides how a network learns, by name: layers, frozen weights, own code, optimizer, loss, metrics."""
    given = _upstream.compiled_with(model)
    try:
        compiled = model.get_compile_config() or {}
    except Exception:  # an object of somebody's own that cannot be written down: its code is looked at
        compiled = {"optimizer": model.optimizer.get_config(), "loss": _text(model.loss, Seen((), {}))}
    things = [*_upstream.layers_within(model), *keras.tree.flatten(given)]
    return {
        "the network's layers": layers_digest(model),
        "the network's frozen weights": weights_digest(model.non_trainable_weights),
        "the network's own code": own_code(things),
        **{f"the network's {name}": _short(_plain_json(compiled.get(name))) for name in given},
    }


def layers_digest(model: keras.Layer, *, trainable: bool = True) -> str:
    """A hash of a network's layers and how they are joined, whatever their names.

    If `trainable`, also of which may learn, and of the seeds that layers were given.
    """
    config = _config_of(model)
    if not config or not (isinstance(model, keras.Sequential) or hasattr(model, "input_shape")):
        inside = _upstream.layers_within(model)[1:]
        config = [config, [(type(layer).__name__, _config_of(layer)) for layer in inside]]
        config.append([tuple(variable.shape) for variable in model.weights])
    # Keras numbers the layers it makes, and writes down where the code of a lambda was, and the number of images by
    # which a network was built that was not told.
    text = re.sub(r'(?<=(?:batch|input)_shape": \[)\d+', "null", _plain_json(config))
    ignored = r'_\d+"|"code": "[^"]*"' + ("" if trainable else r'|"trainable": (true|false),?|"seed": \d+')
    return _hash(re.sub(ignored, '"', text))


def _config_of(layer: keras.Layer) -> Any:
    try:
        return layer.get_config()
    except (NotImplementedError, TypeError, AttributeError):  # a class of somebody's own
        return None


def own_code(things: Iterable[Any], seen: Seen | None = None) -> str:
    """The code that is no library's of layers, losses and the like, and of functions and objects that they hold."""
    held = [part for thing in things for part in (thing, *getattr(thing, "__dict__", {}).values())]
    kinds = {id(kind): kind for kind in (part if _is_code(part) else type(part) for part in held)}.values()  # once each
    own = {_text(kind, seen or Seen((), {})) for kind in kinds if not _from_library(inspect.unwrap(kind))}
    return _short("\n".join(sorted(own)))


def weights_digest(variables: Any) -> str:
    """A hash of the values of variables."""
    found = hashlib.blake2b(digest_size=16)
    for variable in variables:
        values = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        found.update(f"{values.shape} {values.dtype}".encode())
        found.update(values.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def table_facts(table: pd.DataFrame, groups: list[str]) -> dict[str, str]:
    """Of a table: its rows (path, label, groups) and classes in order, and what its files hold."""
    rows = table[["path", "label", *groups]].astype(str)
    names = [str(name) for name in table["label"].cat.categories]
    files = in_threads(_hash_of_file, rows["path"])
    return {"table": _hash(f"{hash_table(rows)} {names}"), "files": _hash(f"{files}")}


def hash_table(table: pd.DataFrame) -> str:
    """A hash of the rows of a table, whatever its index."""
    return _hash(pd.util.hash_pandas_object(table.astype(str), index=False).to_numpy().tobytes())


def _hash_of_file(path: str) -> str:
    try:
        return _hash(read_file(path))
    except (OSError, ValueError):
        return ""


def _is_code(thing: Any) -> bool:
    kinds = type | types.FunctionType | types.MethodType | functools.partial
    return isinstance(thing, kinds) or "__wrapped__" in getattr(thing, "__dict__", ())  # lru_cache, tf.function


def _tells(value: Any) -> bool:
    """Whether what an object of a library holds decides what it does, though its own words may not show it."""
    if isinstance(value, list | tuple):
        return any(map(_tells, value))
    return callable(value) and not isinstance(value, keras.Layer)


def _text(value: Any, seen: Seen) -> str:
    if value is None or isinstance(value, bool | int | float | str | bytes | Path | range | np.generic):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if id(value) in seen.around or len(seen.around) > DEEP:
        return type(value).__name__
    if id(value) not in seen.known:
        seen.known[id(value)] = value, _text_of_parts(value, Seen((*seen.around, id(value)), seen.known))
    return seen.known[id(value)][1]


def _text_of_parts(value: Any, inside: Seen) -> str:
    if isinstance(value, pd.DataFrame | pd.Series | pd.Index):
        return f"table {hash_table(value.to_frame() if not isinstance(value, pd.DataFrame) else value)}"
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {_hash(repr(value.tolist()) if value.dtype == object else value.tobytes())}"
    if _is_code(value):
        return _code(value, inside)
    if isinstance(value, types.ModuleType):
        file = None if _from_library(value) else getattr(value, "__file__", None)
        return f"{value.__name__} {_hash_of_file(file)}" if file else value.__name__
    own = "" if _from_library(type(value)) else f" {_text(type(value), inside)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(k, inside)}: {_text(v, inside)}" for k, v in value.items()) + "}" + own
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(_text(item, inside) for item in value)) + "}" + own
    if isinstance(value, list | tuple):
        items = ", ".join(_text(item, inside) for item in value)
        return (f"[{items}]" if isinstance(value, list) else f"({items})") + own
    if isinstance(value, keras.Layer):
        code = own_code(_upstream.layers_within(value), inside)
        return f"{type(value).__name__} {layers_digest(value)} {weights_digest(value.weights)} {code}"
    return _object(value, inside) + own


def _object(value: Any, inside: Seen) -> str:
    """An object by class and contents; one of a library by its words, if they say more than where it is in memory."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if hasattr(value, "get_config"):
        try:
            return f"{name} {_plain_json(value.get_config())} {own_code([value], inside)}"
        except Exception:  # configuration that is not there yet
            return f"{name} {own_code([value], inside)}"
    words = "" if kind.__repr__ is object.__repr__ else repr(value)
    words = "" if " at 0x" in words else words
    contents = dict(getattr(value, "__dict__", {}))
    if _from_library(kind):
        plain = () if words else (bool, int, float, str, tuple, type(None))
        contents = {k: v for k, v in contents.items() if isinstance(v, plain) or _tells(v)}
        return f"{words or name} {_text(contents, inside)}" if contents or not words else words
    slots = [k for part in kind.__mro__ for k, v in vars(part).items() if isinstance(v, types.MemberDescriptorType)]
    return f"{name} {words} {_text(contents | {k: getattr(value, k, None) for k in slots}, inside)}"


def _code(thing: Any, seen: Seen) -> str:
    """A function or class by its code, and by the plain values around it that it reads."""
    if isinstance(thing, functools.partial):
        return f"partial {_text((thing.func, thing.args, thing.keywords), seen)}"
    if isinstance(thing, type):
        if _from_library(thing):
            return f"{thing.__module__}.{thing.__qualname__}"
        parts = {
            f"{part.__qualname__}.{name}": getattr(value, "__func__", None) or getattr(value, "fget", value)
            for part in thing.__mro__
            if not _from_library(part)
            for name, value in vars(part).items()
            if not name.startswith("__") or _is_code(value)  # __doc__, __dict__ and the like
        }
        return _text(parts, seen)
    owner = getattr(thing, "__self__", None)
    function = getattr(thing, "__func__", thing)
    around = [None if isinstance(owner, type) else owner, getattr(function, "__wrapped__", None)]
    words = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    if hasattr(function, "__code__") and not _from_library(function):
        words = _bytes_of(function.__code__)
        around.append(_around(function))
    return " ".join([words, *(_text(part, seen) for part in around if part is not None)])


def _around(function: Any) -> dict[str, Any]:
    """The defaults of a function and what it reads from outside, without what it changes: counters, lists it fills."""
    changed, names = set(), set()
    for code in _codes(function.__code__):
        names |= {*code.co_names, *code.co_freevars}
        changed |= _changed_names(code)
    outside = {name: function.__globals__[name] for name in names if name in function.__globals__}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            outside[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    kept = {name: value for name, value in outside.items() if name not in changed}
    for name, value in outside.items():
        if isinstance(value, types.ModuleType) and not _from_library(value):  # of somebody's own: what is read of it
            kept |= {f"{name}.{part}": vars(value)[part] for part in names & vars(value).keys() - changed}
            kept[name] = value
    return {"defaults": (function.__defaults__, function.__kwdefaults__), **dict(sorted(kept.items()))}


def _changed_names(code: types.CodeType) -> set[str]:
    """Names from outside that code sets, or whose contents it changes: `count += 1`, `seen.append(x)`, `found[k] = v`.

    Where Python keeps no places in the source (-X no_debug_ranges), each name counts as changed if any is.
    """
    steps = list(dis.get_instructions(code))
    outer = [step for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_DEREF", "LOAD_NAME")]
    changed = {step.argval for step in steps if step.opname in ("STORE_GLOBAL", "STORE_DEREF")}
    for step in steps:
        if step.opname in STORING or (step.opname.startswith("LOAD_") and step.argval in CHANGING):
            # What a call gives back is another object: `settings.copy().pop("rate")` changes no settings.
            calls = [other for other in steps if other.opname.startswith("CALL") and _begins(other, step)]
            changed |= {other.argval for other in outer if _begins(other, step) and not calls}
    return changed


def _begins(part: dis.Instruction, whole: dis.Instruction) -> bool:
    """Whether the expression that an instruction works on begins with another one, by their places in the source."""
    one, other = part.positions, whole.positions
    if one is None or other is None or None in (*one, *other):
        return not part.opname.startswith("CALL")
    return (other[0], other[2]) == (one[0], one[2]) and (one[1], one[3]) <= (other[1], other[3])


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _bytes_of(code: types.CodeType) -> str:
    plain = [[value for value in part.co_consts if not hasattr(value, "co_code")] for part in _codes(code)]
    parts = zip(_codes(code), plain, strict=True)
    texts = [(part.co_code, part.co_names, part.co_varnames, values) for part, values in parts]
    return _hash(_text(texts, Seen((), {})))  # unlike its `repr`, the same whatever the order of a set


def _from_library(thing: Any) -> bool:
    """Whether it comes with Python or was installed, so that its name says what it is."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    # Where a function was written; its `__module__` is that of the one that it wraps.
    written = getattr(thing, "__globals__", {}).get("__name__") if isinstance(thing, types.FunctionType) else None
    place = thing.__name__ if isinstance(thing, types.ModuleType) else written or getattr(thing, "__module__", None)
    root = (place or "builtins").partition(".")[0]
    if root == "__main__":
        return False
    if root == "cnnlab" or root in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(root), "__file__", None) or ""
    return "site-packages" in Path(file).parts or "dist-packages" in Path(file).parts


def _plain_json(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", json.dumps(value, default=str, sort_keys=True))


def _short(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:40]} … ({_hash(text)})"


def _hash(content: str | bytes) -> str:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=16).hexdigest()

"""What a result depends on, as text that is equal in the next session exactly when it is the same."""

import dis
import functools
import hashlib
import inspect
import json
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnnlab import _quiet  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from cnnlab import _upstream
from cnnlab._common import in_threads
from cnnlab.images import read_file

DEEP = 6  # levels of objects within objects that are looked at
LONG = 200  # characters; what is longer is told apart by its hash
CHANGING = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "remove", "clear"}  # methods
STORING = ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_ATTR")


def describe(value: Any) -> str:
    """A setting as text: plain values as they are written, objects by what they hold, functions by their code.

    Example:
        >>> describe({"rate": 0.5, "sizes": (8, 16)})
        "{'rate': 0.5, 'sizes': (8, 16)}"
    """
    return _short(_text(value, ()))


def network_facts(model: keras.Model) -> dict[str, str]:
    """What decides how a network learns, by name: layers, frozen weights, own code, optimizer, loss, metrics."""
    given = _upstream.compiled_with(model)
    try:
        compiled = model.get_compile_config() or {}
    except Exception:  # an object of somebody's own that cannot be written down: its code is looked at
        compiled = {"optimizer": model.optimizer.get_config(), "loss": _text(model.loss, ())}
    things = [*_upstream.layers_within(model), *keras.tree.flatten(given)]
    kinds = {thing if _is_code(thing) else type(thing) for thing in things}
    own_code = sorted(_code(kind, ()) for kind in kinds if not _from_library(kind))
    return {
        "the network's layers": layers_digest(model),
        "the network's frozen weights": weights_digest(model.non_trainable_weights),
        "the network's own code": _short(repr(own_code)),
        **{f"the network's {name}": _short(_plain_json(compiled.get(name))) for name in given},
    }


def layers_digest(model: keras.Model, *, trainable: bool = True) -> str:
    """A hash of a network's layers, how they are joined and, if `trainable`, which may learn, whatever their names."""
    try:
        config: Any = model.get_config()
    except (NotImplementedError, TypeError, AttributeError):  # a class of somebody's own
        config = None
    if not config or not (isinstance(model, keras.Sequential) or hasattr(model, "input_shape")):
        config = [config, [(type(layer).__name__, layer.get_config()) for layer in model.layers]]
        config.append([tuple(variable.shape) for variable in model.weights])
    ignored = r'_\d+"' if trainable else r'_\d+"|"trainable": (true|false),?'  # Keras numbers the layers it makes
    return _hash(re.sub(ignored, '"', _plain_json(config)))


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
    return isinstance(thing, type | types.FunctionType | types.MethodType | functools.partial)


def _text(value: Any, seen: tuple[int, ...]) -> str:
    if value is None or isinstance(value, bool | int | float | str | bytes | Path | range | np.generic):
        return repr(value.item() if isinstance(value, np.generic) else value)
    if id(value) in seen or len(seen) > DEEP:
        return type(value).__name__
    inside = (*seen, id(value))
    if isinstance(value, pd.DataFrame | pd.Series | pd.Index):
        return f"table {hash_table(value.to_frame() if not isinstance(value, pd.DataFrame) else value)}"
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {_hash(repr(value.tolist()) if value.dtype == object else value.tobytes())}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(k, inside)}: {_text(v, inside)}" for k, v in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(_text(item, inside) for item in value)) + "}"
    if isinstance(value, list | tuple):
        return ("[{}]" if isinstance(value, list) else "({})").format(", ".join(_text(item, inside) for item in value))
    if isinstance(value, keras.Model):
        return f"{layers_digest(value)} {weights_digest(value.weights)}"
    if isinstance(value, types.ModuleType):
        return value.__name__
    if _is_code(value):
        return _code(value, inside)
    return _object(value, inside)


def _object(value: Any, inside: tuple[int, ...]) -> str:
    """An object by its own words, if they say more than where it lies in memory; else by class and contents."""
    kind = type(value)
    words = "" if kind.__repr__ is object.__repr__ else repr(value)
    if words and " at 0x" not in words:
        return words
    name = f"{kind.__module__}.{kind.__qualname__}"
    if hasattr(value, "get_config"):
        try:
            return f"{name} {_plain_json(value.get_config())} {'' if _from_library(kind) else _code(kind, inside)}"
        except Exception:  # configuration that is not there yet
            return name
    contents = getattr(value, "__dict__", {})
    if _from_library(kind):
        plain = {k: v for k, v in contents.items() if v is None or isinstance(v, bool | int | float | str | tuple)}
        return f"{name} {_text(plain, inside)}"
    return f"{name} {_text(contents, inside)} {_code(kind, inside)}"


def _code(thing: Any, seen: tuple[int, ...]) -> str:
    """A function or class by its code, and by the plain values around it that it reads."""
    if isinstance(thing, functools.partial):
        return f"partial {_text((thing.func, thing.args, thing.keywords), seen)}"
    if isinstance(thing, type):
        if _from_library(thing):
            return f"{thing.__module__}.{thing.__qualname__}"
        own = [part for part in thing.__mro__ if not _from_library(part)]
        methods = {
            f"{part.__qualname__}.{name}": getattr(value, "__func__", None) or getattr(value, "fget", value)
            for part in own
            for name, value in vars(part).items()
            if not name.startswith("__") or name in ("__init__", "__call__")
        }
        return _text(methods, seen)
    owner = getattr(thing, "__self__", None)
    function = inspect.unwrap(getattr(thing, "__func__", thing))
    code = getattr(function, "__code__", None)
    if code is None or _from_library(function):
        return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
    around = _around(function)
    bound = "" if owner is None or isinstance(owner, type) else _text(owner, seen)
    return f"{_bytes_of(code)} {_text(around, seen)} {bound}"


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
    kept = {name: value for name, value in sorted(outside.items()) if name not in changed}
    return {"defaults": (function.__defaults__, function.__kwdefaults__), **kept}


def _changed_names(code: types.CodeType) -> set[str]:
    """Names from outside that code sets, or whose contents it changes: `count += 1`, `seen.append(x)`, `found[k] = v`.

    Where Python keeps no places in the source (-X no_debug_ranges), each name counts as changed if any is.
    """
    steps = list(dis.get_instructions(code))
    outer = [step for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_DEREF", "LOAD_NAME")]
    changed = {step.argval for step in steps if step.opname in ("STORE_GLOBAL", "STORE_DEREF")}
    for step in steps:
        if step.opname in STORING or (step.opname.startswith("LOAD_") and step.argval in CHANGING):
            changed |= {other.argval for other in outer if _lies_in(other, step)}
    return changed


def _lies_in(part: dis.Instruction, whole: dis.Instruction) -> bool:
    """Whether an instruction belongs to the expression that another one works on, by their places in the source."""
    one, other = part.positions, whole.positions
    if one is None or other is None or None in (*one, *other):
        return True
    return (other[0], other[2]) <= (one[0], one[2]) and (one[1], one[3]) <= (other[1], other[3])


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _bytes_of(code: types.CodeType) -> str:
    plain = [[value for value in part.co_consts if not hasattr(value, "co_code")] for part in _codes(code)]
    parts = zip(_codes(code), plain, strict=True)
    return _hash(repr([(part.co_code, part.co_names, part.co_varnames, values) for part, values in parts]))


def _from_library(thing: Any) -> bool:
    """Whether it comes with Python or was installed, so that its name says what it is."""
    root = (getattr(thing, "__module__", None) or "builtins").partition(".")[0]
    if root == "cnnlab" or (root in sys.stdlib_module_names and root != "__main__"):
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

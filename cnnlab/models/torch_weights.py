"""Reads the tensors of a file that `torch.save` wrote, without torch and without running anything it asks for."""

import io
import math
import pickle
import pickletools
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAX_BYTES = 256 * 2**20  # of a file; everything that is read comes out of these bytes, so memory stays a small multiple
MAX_INDEX = 1_000_000  # of a pickle's memo: its table is as long as the largest index, however short the file
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of torch's older format, before it became a ZIP archive
STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "DoubleStorage": np.dtype("<f8"),
    "LongStorage": np.dtype("<i8"),
}
# Enough for dictionaries of tensors; all other ways to call a class (INST, OBJ, NEWOBJ, STACK_GLOBAL, EXT1 …) are out.
OPCODES = frozenset(
    {"PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"}
    | {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS"}
    | {"SETITEM", "SETITEMS", "BINPUT", "BINGET", "LONG_BINPUT", "LONG_BINGET"}
    | {"GLOBAL", "REDUCE", "BUILD", "BINPERSID"}
)


class Storage(NamedTuple):
    """A run of numbers that tensors point into."""

    key: str
    dtype: np.dtype[Any]
    length: int


class Tensor(NamedTuple):
    """Where a tensor lies in its storage, counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Knows two functions and the names of storages; everything else a pickle could ask for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it asks for {module[:60]}.{name[:60]}, which is no part of a table of weights")

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key, _, count, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str) or view is not None:
            raise pickle.UnpicklingError("one of its storages is of an unknown kind")
        return Storage(key, dtype, _whole(count))


def read_tensors(path: Path, *, data: bytes | None = None) -> dict[str, np.ndarray]:
    """Reads the table of weights in a file of torch's older format (before 1.6).

    Only a pickle of named tensors is understood. The opcodes are checked before a single one runs, classes are never
    looked up, and no size that the file claims is believed: each is compared with the bytes that are there.

    Args:
        path: The file.
        data: Its bytes, where they have been read already.

    Returns:
        Name to array, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, too large, or holds anything else.

    Source:
        The format as `torch.serialization._legacy_save` writes it.
    """
    if data is None:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} is larger than {MAX_BYTES // 2**20} MB; such files of weights are not read.")
        data = path.read_bytes()
    try:
        stream = io.BytesIO(data)
        if _unpickled(stream) != MAGIC or _unpickled(stream) != PROTOCOL:
            raise pickle.UnpicklingError("it does not begin as such a file does")
        _unpickled(stream)  # how long an int and a long were on the machine that wrote it
        tensors = _unpickled(stream)
        storages = _read_storages(stream, tensors, _unpickled(stream))
        return {name: _array(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}
    except (pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError) as error:
        raise ValueError(_refusal(path, error)) from error
    except (struct.error, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(_refusal(path, error)) from error


def _refusal(path: Path, error: Exception) -> str:
    words = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{path} is damaged, or no file of weights in torch's older format: {words}. Install its package again."


def _unpickled(stream: io.BytesIO) -> Any:
    """The next pickle of the stream, its opcodes checked first."""
    began = stream.tell()
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name not in OPCODES:
            raise pickle.UnpicklingError(f"its pickle uses {opcode.name}, which a table of weights does not need")
        if opcode.name == "LONG_BINPUT" and argument > MAX_INDEX:  # type: ignore[operator]
            raise pickle.UnpicklingError("its pickle counts further than it has room")
    ended = stream.tell()
    stream.seek(began)
    return _Unpickler(io.BytesIO(stream.read(ended - began))).load()


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """Stands in for torch's function of the same signature: notes where the numbers are."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise pickle.UnpicklingError("one of its tensors is of an unknown kind")
    return Tensor(storage, _whole(offset), tuple(map(_whole, shape)), tuple(map(_whole, stride)))


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_BYTES:
        raise pickle.UnpicklingError("one of its sizes is out of range")
    return value


def _read_storages(stream: io.BytesIO, tensors: Any, keys: Any) -> dict[str, np.ndarray]:
    """The numbers of every storage, which follow the pickles in the order of `keys`."""
    if not isinstance(tensors, dict) or not isinstance(keys, list):
        raise pickle.UnpicklingError("it holds something else than a table of tensors")
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()):
        raise pickle.UnpicklingError("it holds something else than named tensors")
    known = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    storages = {}
    for key in keys:
        storage = known[key]
        (count,) = struct.unpack("<q", stream.read(8))
        if count != storage.length:
            raise pickle.UnpicklingError(f"storage {key[:40]} has {count} numbers where {storage.length} are declared")
        storages[key] = np.frombuffer(stream.read(count * storage.dtype.itemsize), storage.dtype, count)
    if stream.read(1):
        raise pickle.UnpicklingError("bytes follow its last storage")
    return storages


def _array(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    count, last = math.prod(tensor.shape), tensor.offset
    last += sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride, strict=True))
    if not 0 < count <= len(numbers) or last >= len(numbers):
        raise pickle.UnpicklingError("one of its tensors does not fit its storage")
    steps = [step * numbers.itemsize for step in tensor.stride]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps, writeable=False)

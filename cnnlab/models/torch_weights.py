"""Reads the tensors of a file that `torch.save` wrote, without torch and without running anything it asks for."""

import io
import pickle
import pickletools
import struct
from collections import OrderedDict
from typing import Any

import numpy as np

STORAGES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
MOST_STEPS = 50_000  # of one pickle; the largest table here takes 14,000, and Python nests no deeper than its stack


class _Rebuild:
    """Stands in for torch's function: a view of a storage that is still to be filled. A pickle cannot change it."""

    __slots__ = ()

    def __call__(
        self, storage: np.ndarray, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> np.ndarray:
        size = storage.itemsize
        return np.ndarray(shape, storage.dtype, storage, offset * size, [step * size for step in stride])  # type: ignore


class _Unpickler(pickle.Unpickler):
    """Knows two functions and the names of storages; everything else a pickle could ask for is refused."""

    def __init__(self, stream: io.BytesIO, storages: dict[str, np.ndarray]) -> None:
        super().__init__(stream)
        self.storages, self.largest = storages, len(stream.getbuffer())

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if module == "torch" and name in STORAGES:
            return name
        raise ValueError(f"it asks for {module}.{name}, which does not belong in a table of weights")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, kind, key, _, count, _ = pid
        if key not in self.storages:
            claimed = count * STORAGES[kind].itemsize + sum(storage.nbytes for storage in self.storages.values())
            if claimed > self.largest:
                raise ValueError("its tensors would be larger than the file")
            self.storages[key] = np.empty(count, STORAGES[kind])
        return self.storages[key]


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The named tensors of a file in torch's older format (before 1.6), in its order.

    No class of the file's choice is looked up, and no size is believed that the file is too small for.

    Raises:
        pickle.UnpicklingError: If it is damaged, or holds anything but tensors.

    Source:
        The format as `torch.serialization._legacy_save` writes it: pickles of a magic number, the protocol, the system,
        the tensors, and the keys of their storages; then each storage, its length first.
    """
    try:
        return _tensors(io.BytesIO(data))
    except Exception as error:  # a damaged pickle raises whatever the calls that it asks for raise
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
        raise pickle.UnpicklingError(
            f"Expected a table of weights as torch writes it. This file is damaged or something else: {reason}. "
            "Fetch it again from where it was published."
        ) from error


def _tensors(stream: io.BytesIO) -> dict[str, np.ndarray]:
    storages: dict[str, np.ndarray] = {}
    *_, tensors, keys = [_unpickled(stream, storages) for _ in range(5)]
    if sorted(keys) != sorted(storages):
        raise ValueError("its list of storages is not that of its tensors")
    for key in keys:
        storage = storages[key]
        (count,) = struct.unpack("<q", stream.read(8))
        if count != storage.size:
            raise ValueError(f"storage {key} has {count} numbers instead of {storage.size}")
        storage[:] = np.frombuffer(stream.read(storage.nbytes), storage.dtype, count)
    if not all(isinstance(name, str) and isinstance(value, np.ndarray) for name, value in tensors.items()):
        raise ValueError("it holds something else than named tensors")
    return dict(tensors)


def _unpickled(stream: io.BytesIO, storages: dict[str, np.ndarray]) -> Any:
    """The next pickle, once all its steps have been looked at: Python's own reader takes room for what they claim."""
    start = stream.tell()
    for number, (step, argument, _) in enumerate(pickletools.genops(stream)):
        if number > MOST_STEPS or ("PUT" in step.name and int(argument or 0) > MOST_STEPS):
            raise ValueError("it is more than a table of weights")
    stream.seek(start)
    return _Unpickler(stream, storages).load()

"""Reads the tensors of a file that `torch.save` wrote, without torch and without running anything it asks for."""

import io
import pickle
import struct
from collections import OrderedDict
from typing import Any

import numpy as np

STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Unpickler(pickle.Unpickler):
    """Knows two functions and the names of storages; everything else a pickle could ask for is refused."""

    def __init__(self, stream: io.BytesIO, storages: dict[str, np.ndarray]) -> None:
        super().__init__(stream)
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"It asks for {module}.{name}, which does not belong in a table of weights.")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, count, _ = pid
        return self.storages.setdefault(key, np.empty(count, dtype))


def _tensor(storage: np.ndarray, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    """Stands in for torch's function: a view of a storage that is still to be filled."""
    size = storage.itemsize
    return np.ndarray(shape, storage.dtype, storage, offset * size, [step * size for step in stride])  # type: ignore


def read_tensors(data: bytes) -> dict[str, np.ndarray]:
    """The named tensors of a file in torch's older format (before 1.6), in its order.

    No class of the file's choice is looked up, but its sizes are believed: check where the file comes from before.

    Raises:
        pickle.UnpicklingError: If it holds anything but tensors.

    Source:
        The format as `torch.serialization._legacy_save` writes it: pickles of a magic number, the protocol, the system,
        the tensors, and the keys of their storages; then each storage, its length first.
    """
    stream, storages = io.BytesIO(data), dict[str, np.ndarray]()
    *_, tensors, keys = [_Unpickler(stream, storages).load() for _ in range(5)]
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        storages[key][:] = np.frombuffer(stream.read(count * storages[key].itemsize), storages[key].dtype)
    return tensors

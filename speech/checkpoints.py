"""PyTorch checkpoints read without PyTorch: tensors as numpy arrays, plain values as they are, and nothing else.

A checkpoint is a zip archive of a pickle, which names classes and functions to call, and of the tensors' bytes. Here no name of
the pickle is ever looked up. Tensors are rebuilt by this module, the few other names that checkpoints of pyannote.audio hold
stand for inert objects, and any further name refuses the file. The format: `torch/serialization.py`, `torch/_utils.py`.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stenoflow.errors import ChecksumMismatch

Tensors = dict[str, NDArray[Any]]

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
_INERT = re.compile(
    r"torch\.torch_version\.TorchVersion|typing\.Any|collections\.defaultdict"
    r"|pyannote\.audio\.core\.(task|model)\.[A-Z]\w+|omegaconf\.(base|nodes|listconfig|dictconfig)\.[A-Z]\w+"
    r"|(pytorch_lightning|lightning\.pytorch)\.callbacks\.[\w.]*\.[A-Z]\w+"
    r"|builtins\.(int|float|bool|str|bytes|list|tuple|dict|set)"
)
"""Classes that checkpoints of pyannote.audio hold beside tensors."""


class Inert(dict[Any, Any]):
    """Stands for an object of a class that is not imported: what it was made from, its items and its attributes."""

    args: tuple[Any, ...]
    attributes: dict[str, Any]

    def __new__(cls, *args: Any) -> Inert:
        made = super().__new__(cls)
        made.args, made.attributes = args, {}
        return made

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}

    def append(self, item: Any) -> None:
        self[len(self)] = item


def read_checkpoint(path: Path) -> Any:
    """What was given to `torch.save`, with arrays in the place of tensors and `Inert` in that of other objects.

    Raises ChecksumMismatch for a file that is damaged, or that would run something if PyTorch loaded it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            [pickled] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            with archive.open(pickled) as file:
                return _Reader(file, archive, pickled.removesuffix("data.pkl")).load()
    except _ForeignName as error:
        raise ChecksumMismatch(
            f"The weights {path.name} would execute {error} when loaded, which weights never need; delete {path.parent} and download them again."
        ) from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its next byte happens to mean
        raise ChecksumMismatch(f"The weights {path.name} are damaged; delete {path.parent} to download them again.") from error


class _ForeignName(Exception):
    """A name that weights have no use for."""


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._prefix = prefix
        self._storages: dict[str, NDArray[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return name
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if _INERT.fullmatch(f"{module}.{name}"):
            return Inert
        raise _ForeignName(f"{module}.{name}")

    def persistent_load(self, saved_id: Any) -> NDArray[Any]:
        kind, storage, key, _, count = saved_id
        if kind != "storage":
            raise pickle.UnpicklingError(f"an unknown kind of storage: {kind!r}")
        if key not in self._storages:
            info = self._archive.getinfo(f"{self._prefix}data/{key}")
            dtype = np.dtype(_DTYPES[storage])
            if info.compress_type != zipfile.ZIP_STORED or info.file_size < count * dtype.itemsize:
                raise pickle.UnpicklingError(f"a storage of {info.file_size} bytes for {count} numbers")
            self._storages[key] = np.frombuffer(self._archive.read(info), dtype, count)
        return self._storages[key]


def _tensor(storage: NDArray[Any], offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> NDArray[Any]:
    """`torch._utils._rebuild_tensor_v2`: a view of a storage, copied."""
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min(offset, *size, *stride, 0) < 0 or (0 not in size and last >= len(storage)):
        raise pickle.UnpicklingError("a tensor beyond its storage")
    strides = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()

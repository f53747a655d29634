"""Read the tensors of a file that torch.save wrote, without torch and without unpickling.

Such a file is a zip with a pickle ``<name>/data.pkl`` and one raw file a storage,
``<name>/data/<key>``; before torch 1.6 it was five pickles in a row and the storages behind them.
The pickle may name an OrderedDict, the storage classes and the two functions that rebuild a
tensor; anything else is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import FileFormatError
from eventsim.models.importers.archive import Archive
from eventsim.models.importers.inert_numpy import ordered_dict
from eventsim.models.importers.inert_pickle import read, read_at
from eventsim.models.importers.inert_values import Name, Rules

MAX_BYTES = 2**30
MAX_PICKLE_BYTES = 2**26

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

# BFloat16 is the upper half of a float32.
STORAGES: MappingProxyType[str, np.dtype[Any]] = MappingProxyType(
    {
        "FloatStorage": np.dtype("<f4"),
        "DoubleStorage": np.dtype("<f8"),
        "HalfStorage": np.dtype("<f2"),
        "BFloat16Storage": np.dtype("<u2"),
        "LongStorage": np.dtype("<i8"),
        "IntStorage": np.dtype("<i4"),
        "ShortStorage": np.dtype("<i2"),
        "CharStorage": np.dtype("i1"),
        "ByteStorage": np.dtype("u1"),
        "BoolStorage": np.dtype("?"),
    }
)

Tensor: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class _Storage:
    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class _TensorRecord:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """Return the tensors of a state dict that torch.save wrote.

    Parameters
    ----------
    data : bytes
        The file's content.
    where : str
        The file, for error messages.

    Returns
    -------
    dict of str to array
        By name, in the order of the file, read-only, in the machine's byte order; values that are
        not tensors are left out.

    Raises
    ------
    FileFormatError
        If the file is damaged, names anything but tensors, or describes a tensor that its storage
        does not hold.
    """
    if not data.startswith(b"PK"):
        return _read_legacy(data, where)
    with Archive(data, where) as archive:
        pickles = [n for n in archive.names if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise FileFormatError("holds no torch data.pkl; save the agent again", where=where)
        root = pickles[0].removesuffix("data.pkl")
        content = archive.read(pickles[0], MAX_PICKLE_BYTES)
        records = _records(read(content, where, _RULES), where)
        little = True
        if f"{root}byteorder" in archive:
            named = archive.read(f"{root}byteorder", 16)
            if named not in (b"little", b"big"):
                raise FileFormatError("names an unknown byte order; save it again", where=where)
            little = named == b"little"

        def content_of(storage: _Storage) -> bytes:
            return archive.read(f"{root}data/{storage.key}", MAX_BYTES)

        return _materialise(records, content_of, little, where)


def _read_legacy(data: bytes, where: str) -> dict[str, Tensor]:
    magic, position = read_at(data, 0, where, _RULES)
    if magic != LEGACY_MAGIC:
        raise FileFormatError("is not a file that torch.save wrote", where=where)
    protocol, position = read_at(data, position, where, _RULES)
    system, position = read_at(data, position, where, _RULES)
    if protocol != LEGACY_PROTOCOL or not isinstance(system, dict):
        raise FileFormatError("is of an unknown torch version; save it again", where=where)
    little = bool(system.get("little_endian", True))
    state, position = read_at(data, position, where, _RULES)
    keys, position = read_at(data, position, where, _RULES)
    records = _records(state, where)
    kinds = {r.storage.key: r.storage.kind for r in records.values()}
    if not isinstance(keys, list) or not all(isinstance(k, str) and k in kinds for k in keys):
        raise FileFormatError("lists storages that no tensor uses; save it again", where=where)
    contents: dict[str, bytes] = {}
    for key in keys:
        # A 64-bit count of elements, then the elements.
        count = int.from_bytes(
            data[position : position + 8], "little" if little else "big", signed=True
        )
        position += 8
        n_bytes = count * STORAGES[kinds[key]].itemsize
        if count < 0 or position + n_bytes > len(data):
            raise FileFormatError("is cut off; save or download it again", where=where)
        contents[key] = data[position : position + n_bytes]
        position += n_bytes

    def content_of(storage: _Storage) -> bytes:
        if storage.key not in contents:
            raise FileFormatError("lacks a tensor's storage; save it again", where=where)
        return contents[storage.key]

    return _materialise(records, content_of, little, where)


def _records(state: Any, where: str) -> dict[str, _TensorRecord]:
    if not isinstance(state, dict):
        raise FileFormatError("does not hold a dict of tensors", where=where)
    return {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, _TensorRecord)
    }


def _materialise(
    records: dict[str, _TensorRecord],
    content_of: Callable[[_Storage], bytes],
    little: bool,
    where: str,
) -> dict[str, Tensor]:
    flat: dict[tuple[str, str], Tensor] = {}
    for record in records.values():
        storage = record.storage
        if (storage.key, storage.kind) not in flat:
            content = content_of(storage)
            stored = STORAGES[storage.kind].newbyteorder("<" if little else ">")
            if len(content) != storage.count * stored.itemsize:
                raise FileFormatError(
                    f"says that a tensor's storage has {storage.count} values, but holds "
                    f"{len(content)} bytes for it; save or download it again",
                    where=where,
                )
            values = np.frombuffer(content, stored)
            if storage.kind == "BFloat16Storage":
                values = (values.astype(np.uint32) << 16).view(np.float32)
            flat[storage.key, storage.kind] = values.astype(values.dtype.newbyteorder("="))
    return {
        name: _view(flat[r.storage.key, r.storage.kind], r, f"{where}, tensor '{name}'")
        for name, r in records.items()
    }


def _view(flat: Tensor, record: _TensorRecord, where: str) -> Tensor:
    steps = zip(record.size, record.stride, strict=True)
    last = record.offset + sum((n - 1) * step for n, step in steps)
    count = math.prod(record.size)
    # A view never holds more values than its storage: no stride of 0 blows a small file up.
    if count and (last >= len(flat) or count > len(flat)):
        raise FileFormatError("reaches beyond its storage; save or download it again", where=where)
    if count == 0:
        return np.zeros(record.size, flat.dtype)
    view = np.lib.stride_tricks.as_strided(
        flat[record.offset :],
        record.size,
        [step * flat.itemsize for step in record.stride],
        writeable=False,
    )
    return view


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**40


def _persistent(identifier: Any) -> _Storage:
    # ("storage", class, key, device, count), and in old files a view that torch no longer writes.
    if not (isinstance(identifier, tuple) and len(identifier) in (5, 6)):
        raise ValueError("not a storage")
    marker, kind, key, _, count, *view = identifier
    if marker != "storage" or not isinstance(kind, Name) or kind.attribute not in STORAGES:
        raise ValueError("not a storage")
    if not isinstance(key, str) or not _natural(count) or any(v is not None for v in view):
        raise ValueError("not a storage")
    return _Storage(kind.attribute, key, count)


def _rebuild_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *unused: Any
) -> _TensorRecord:
    shapes = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
    if not (isinstance(storage, _Storage) and _natural(offset) and shapes):
        raise ValueError("not a tensor")
    if len(size) > 8 or not all(_natural(n) for n in (*size, *stride)):
        raise ValueError("not a tensor")
    return _TensorRecord(storage, offset, size, stride)


def _rebuild_parameter(tensor: Any, *unused: Any) -> _TensorRecord:
    if not isinstance(tensor, _TensorRecord):
        raise ValueError("not a parameter")
    return tensor


_RULES = Rules(
    {
        ("collections", "OrderedDict"): ordered_dict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    },
    admit=lambda name: name.module == "torch" and name.attribute in STORAGES,
    persistent=_persistent,
)

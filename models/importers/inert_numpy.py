"""What an inert pickle may build: numeric NumPy arrays and scalars, and plain containers."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from eventsim.models.importers.inert_values import Builder, MalformedError, Name, Rules, atom


class _DType:
    """``numpy.dtype(code, align, copy)``, whose byte order comes with the state."""

    def __init__(self, code: Any, *unused: Any) -> None:
        self.code = code
        self.order = "="

    def set_state(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "|", "=")):
            raise MalformedError("gives a NumPy type that it does not describe")
        if any(part is not None for part in state[2:5]):
            self.code = None  # a structured type
        self.order = state[1]

    def dtype(self) -> np.dtype[Any]:
        if not isinstance(self.code, str) or not re.fullmatch(r"[biuf][1248]", self.code):
            raise MalformedError("holds a NumPy array of something other than plain numbers")
        return np.dtype(self.order + self.code)


def _dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, _DType):
        raise MalformedError("gives a NumPy array without its type")
    return value.dtype()


def _shape(value: Any) -> tuple[int, ...]:
    shape = value if isinstance(value, tuple) else (value,)
    if len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise MalformedError("gives a NumPy array an impossible shape")
    return shape


def _raw(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    if not isinstance(value, bytes | bytearray):
        raise MalformedError("gives a NumPy array without its bytes")
    if len(value) != math.prod(shape) * dtype.itemsize:
        raise MalformedError("gives a NumPy array too few or too many bytes")
    return bytes(value)


def _empty_array(kind: Any = None, *unused: Any) -> Any:
    if not isinstance(kind, Name) or kind.attribute != "ndarray":
        raise MalformedError("holds an array of a kind other than numpy.ndarray")
    return np.empty(0, np.uint8)


def _set_array(array: np.ndarray[Any, Any], state: Any) -> None:
    if not (isinstance(state, tuple) and len(state) == 5):
        raise MalformedError("describes a NumPy array wrongly")
    shape, dtype = _shape(state[1]), _dtype(state[2])
    # In place, since the memo and containers hold the array already.
    values = (1, shape, dtype, bool(state[3]), _raw(state[4], shape, dtype))
    array.__setstate__(values)  # type: ignore[arg-type]  # NumPy takes a Python bool only


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any = "C") -> Any:
    shape, kind = _shape(shape), _dtype(dtype)
    if order not in ("C", "F"):
        raise MalformedError("orders a NumPy array in an unknown way")
    return np.frombuffer(_raw(buffer, shape, kind), kind).reshape(shape, order=order)


def _scalar(dtype: Any, raw: Any) -> Any:
    kind = _dtype(dtype)
    return np.frombuffer(_raw(raw, (1,), kind), kind)[0]


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    # How protocol 2 writes bytes.
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise MalformedError("encodes text in an unknown way")
    return text.encode("latin-1")


def _items(values: tuple[Any, ...]) -> Any:
    if len(values) > 1 or not all(isinstance(v, list | tuple | set) for v in values):
        raise MalformedError("builds a container from something else")
    return values[0] if values else ()


def ordered_dict(*values: Any) -> dict[Any, Any]:
    """``collections.OrderedDict(pairs)`` as a plain dict."""
    pairs = [tuple(pair) if isinstance(pair, list) else pair for pair in _items(values)]
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise MalformedError("builds a dict from something other than pairs")
    return {atom(key): value for key, value in pairs}


def _set(*values: Any) -> set[Any]:
    return {atom(item) for item in _items(values)}


def _frozenset(*values: Any) -> frozenset[Any]:
    return frozenset(_set(*values))


def _bytes(*values: Any) -> bytes:
    if len(values) > 1 or not all(isinstance(v, bytes | bytearray) for v in values):
        raise MalformedError("builds bytes from something else")
    return bytes(values[0]) if values else b""


def _set_state(target: Any, state: Any) -> None:
    if isinstance(target, _DType):
        target.set_state(state)
    elif isinstance(target, np.ndarray):
        _set_array(target, state)
    else:
        raise MalformedError("sets the state of an object that has none")


_CONTAINERS: dict[tuple[str, str], Builder] = {
    ("collections", "OrderedDict"): ordered_dict,
    ("_codecs", "encode"): _encode,
    **{
        (module, name): builder
        for module in ("builtins", "__builtin__")
        for name, builder in (
            ("set", _set),
            ("frozenset", _frozenset),
            ("bytes", _bytes),
            ("bytearray", _bytes),
        )
    },
}

NUMPY = Rules(
    {
        **_CONTAINERS,
        ("numpy", "dtype"): _DType,
        **{
            (f"numpy.{core}.{module}", name): builder
            for core in ("core", "_core")
            for module, name, builder in (
                ("multiarray", "_reconstruct", _empty_array),
                ("_multiarray_umath", "_reconstruct", _empty_array),
                ("multiarray", "scalar", _scalar),
                ("_multiarray_umath", "scalar", _scalar),
                ("numeric", "_frombuffer", _from_buffer),
            )
        },
    },
    set_state=_set_state,
)
"""Numeric NumPy arrays, NumPy scalars and plain containers; every other name stays inert."""


def dtype_name(value: Any) -> str | None:
    """Return the name, such as ``"float32"``, of a NumPy type that `read` found, if it is one."""
    if isinstance(value, _DType):
        return value.dtype().name
    if isinstance(value, Name) and value.module == "numpy":
        try:
            return np.dtype(value.attribute).name
        except TypeError:
            return None
    if isinstance(value, str) and re.fullmatch(r"(float|u?int)\d+|bool", value):
        return value
    return None

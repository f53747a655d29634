"""A feed-forward network as an ONNX model, written as bytes, for `eventsim.bench`.

Only what a chain of dense layers needs: Gemm, an activation, float32 initialisers. Field numbers
are those of onnx.proto3 (ONNX IR version 8, operator set 13).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Operators by the names of `eventsim.neurons`; identity needs none.
OPERATORS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "identity": ""}


def onnx_model(
    weights: Sequence[NDArray[Any]],
    biases: Sequence[NDArray[Any]],
    activations: Sequence[str],
) -> bytes:
    """Return the model ``x[1, n] -> y[1, m]``, each layer f(W x + b).

    Parameters
    ----------
    weights : sequence of array of shape (n_out, n_in)
    biases : sequence of array of shape (n_out,)
    activations : sequence of str
        One a layer, keys of `OPERATORS`.

    Raises
    ------
    KeyError
        If an activation is none of `OPERATORS`.
    """
    nodes, tensors = [], []
    value = "x"
    for k, (w, b, f) in enumerate(zip(weights, biases, activations, strict=True)):
        tensors += [_tensor(f"w{k}", w), _tensor(f"b{k}", b)]
        trans = _text(1, "transB") + _integer(3, 1) + _integer(20, 2)
        nodes.append(_node("Gemm", [value, f"w{k}", f"b{k}"], f"u{k}") + _bytes(5, trans))
        value = f"u{k}"
        if OPERATORS[f]:
            nodes.append(_node(OPERATORS[f], [value], f"a{k}"))
            value = f"a{k}"
    graph = b"".join(_bytes(1, node) for node in nodes) + _text(2, "network")
    graph += b"".join(_bytes(5, tensor) for tensor in tensors)
    graph += _bytes(11, _value("x", np.shape(weights[0])[1]))
    graph += _bytes(12, _value(value, np.shape(weights[-1])[0]))
    return _integer(1, 8) + _bytes(7, graph) + _bytes(8, _integer(2, 13))


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    return b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, operator)


def _tensor(name: str, array: NDArray[Any]) -> bytes:
    data = np.ascontiguousarray(array, "<f4")
    dims = b"".join(_integer(1, n) for n in data.shape)
    return dims + _integer(2, 1) + _text(8, name) + _bytes(9, data.tobytes())


def _value(name: str, size: int) -> bytes:
    dims = b"".join(_bytes(1, _integer(1, n)) for n in (1, size))
    return _text(1, name) + _bytes(2, _bytes(1, _integer(1, 1) + _bytes(2, dims)))


def _varint(n: int) -> bytes:
    out = b""
    while n > 0x7F:
        out += struct.pack("B", n & 0x7F | 0x80)
        n >>= 7
    return out + struct.pack("B", n)


def _integer(field: int, n: int) -> bytes:
    return _varint(field << 3) + _varint(n)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())

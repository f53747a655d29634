"""A hint to the processor that a cache line will be read soon.

It changes no value. Where Numba is switched off (NUMBA_DISABLE_JIT=1) it does nothing.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

_READ_KEEP_DATA = (0, 3, 1)  # for reading, into all levels of the cache, data


def _emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    place = builder.bitcast(builder.gep(array.data, [arguments[1]]), cgutils.voidptr_t)
    word = ir.IntType(32)
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, word, word, word]),
        "llvm.prefetch.p0",
    )
    builder.call(function, [place, *(word(v) for v in _READ_KEEP_DATA)])
    return context.get_dummy_value()


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the line of ``array[index]``; the index may lie beyond the array's end."""
    if isinstance(array, types.Array) and isinstance(index, types.Integer):
        return types.void(array, types.uint64), _emit
    return None


def _nothing(array: Any, index: int) -> None:
    """Stand in where kernels run as plain Python."""


prefetch: Any = _nothing if config.DISABLE_JIT else intrinsic(_prefetch)

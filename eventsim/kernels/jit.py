"""How the kernels of the fast engines are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a kernel that allocates nothing and returns no array.

    Without Numba's reference counts ("nrt") a call costs a quarter, from Python and from kernel to
    kernel; the arrays belong to the caller. Division follows NumPy, as the test for a zero divisor
    would keep loops from being vectorised. Other threads run meanwhile.
    """
    options: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False}
    return njit(error_model="numpy", **options)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a kernel into those that call it.

    An array is passed as seven words, so that a call with some of them costs more than a short
    loop; LLVM by itself inlines none of these functions.
    """
    options: dict[str, Any] = {"cache": True, "nogil": True, "_nrt": False, "forceinline": True}
    return njit(error_model="numpy", **options)(function)

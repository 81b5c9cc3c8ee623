"""Compilation of the codec's CPU kernels by Numba, an optional package (`pip install transframer[fast]`).

Numba compiles a kernel when it is first called, some seconds for all of them, and keeps the machine code
beside the source file or in the user's cache folder, so that later processes only load it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function of NumPy arrays and scalars to machine code; it releases the GIL while it runs.

    Sums of products may be fused (`contract`): all of the kernels' are exact in the type they are taken in.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    function = inspect.unwrap(function)  # the tests wrap every function of the package in type checks
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # neither folder can be written
        return numba.njit(function, **options)

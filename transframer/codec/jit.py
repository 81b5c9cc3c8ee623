"""Compilation of the codec's CPU kernels by Numba, an optional package (`pip install transframer[fast]`).

Numba compiles when a module of kernels is first imported, a few seconds each, and keeps the machine code
beside the source file or in the user's cache folder, so that later processes only load it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba

# Sums of products may be fused (`contract`): all of the kernels' are exact in the type they are taken in.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

_REORDERED: dict[str, Any] = {**_OPTIONS, "fastmath": {"contract", "reassoc", "nsz", "arcp"}}


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function that kernels call, as part of each of them."""
    return numba.njit(_plain(function), **_OPTIONS)


def reordered(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `compiled`, and sums may be reordered, as those of a matrix product may; infinities still count."""
    return numba.njit(_plain(function), **_REORDERED)


def kernel(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compiles a function of NumPy arrays and scalars that Python calls; it releases the GIL while it runs.

    Args:
        signature: the types of its result and arguments. One only, and given here: where processes compiled
            for different types at once, Numba's cache would mix them up.
    """

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(signature, cache=True, **_OPTIONS)(_plain(function))
        except RuntimeError:  # neither folder can be written
            return numba.njit(signature, **_OPTIONS)(_plain(function))

    return decorated


def lazy_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `kernel` of `reordered` sums, compiled when first called; for named tuples of arrays, which have no
    short signature. Its callers give it one set of types only.

    Numba looks machine code up by the kernel's own file: after an edit of a function that a kernel takes
    from another file, touch the kernel's file.
    """
    try:
        return numba.njit(_plain(function), cache=True, **_REORDERED)
    except RuntimeError:
        return numba.njit(_plain(function), **_REORDERED)


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return inspect.unwrap(function)  # the tests wrap every function of the package in type checks

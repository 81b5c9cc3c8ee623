"""Compilation of the codec's CPU kernels by Numba, an optional package (`pip install transframer[fast]`).

Numba compiles when a module of kernels is first imported, a few seconds each, and keeps the machine code
beside the source file or in the user's cache folder, so that later processes only load it.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.core.dispatcher import Dispatcher
from numba.extending import intrinsic

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
            return numba.njit(signature, cache=True, **_OPTIONS)(_keyed(_plain(function)))
        except RuntimeError:  # neither folder can be written
            return numba.njit(signature, **_OPTIONS)(_plain(function))

    return decorated


def lazy_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """As `kernel` of `reordered` sums, compiled when first called; for named tuples of arrays, which have no
    short signature. Its callers give it one set of types only.
    """
    try:
        return numba.njit(_keyed(_plain(function)), cache=True, **_REORDERED)
    except RuntimeError:
        return numba.njit(_plain(function), **_REORDERED)


@intrinsic
def prefetch(typing_context, array, index):
    """Has the memory of an element, by its index in a contiguous array, brought near before it is read.

    Only a hint: the index may lie outside of the array.
    """
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    name, signature = "llvm.prefetch.p0", ir.FunctionType(ir.VoidType(), [byte, number, number, number])

    def code(context, builder, types_of, arguments):
        data = context.make_array(types_of.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        hint = builder.module.globals.get(name) or ir.Function(builder.module, signature, name)
        to_read, to_second_cache, of_data = (ir.Constant(number, value) for value in (0, 2, 1))
        builder.call(hint, [address, to_read, to_second_cache, of_data])
        return context.get_dummy_value()

    return types.void(array, index), code


def _keyed(function: FunctionType) -> FunctionType:
    """The same function, which Numba's cache also knows by what it calls in other files.

    The cache tells versions of a function apart by its own file, its bytecode and its closure. Machine code
    of one whose helpers have changed since would be found, and run. So the closure gets a digest of the files
    that the helpers, the compiler's options and the codec's constants are from.
    """
    digest = hashlib.sha256()
    here = Path(__file__)
    options_and_constants = {str(here), str(here.with_name("layout.py"))}
    for file in sorted(_helper_files(function.__globals__, options_and_constants)):
        digest.update(Path(file).read_bytes())
    code = function.__code__
    names = (*code.co_freevars, "_helpers")
    cells = (*(function.__closure__ or ()), CellType(digest.hexdigest()))
    keyed = FunctionType(
        code.replace(co_freevars=names), function.__globals__, function.__name__, function.__defaults__, cells
    )
    keyed.__module__, keyed.__qualname__ = function.__module__, function.__qualname__
    keyed.__doc__ = function.__doc__
    return keyed


def _helper_files(names: dict[str, Any], found: set[str]) -> set[str]:
    """The files of all compiled functions that a module's names, and their modules' names in turn, hold."""
    for value in list(names.values()):
        if isinstance(value, Dispatcher):
            file = inspect.getfile(value.py_func)
            if file not in found:
                found.add(file)
                _helper_files(value.py_func.__globals__, found)
    return found


def _plain(function: Callable[..., Any]) -> Any:
    return inspect.unwrap(function)  # the tests wrap every function of the package in type checks

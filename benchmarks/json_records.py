"""Results as strict JSON and back, by the types of their fields."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any


def strict(value: Any) -> Any:
    """JSON values of any nesting, in which numbers that JSON lacks are the strings "nan", "inf" and "-inf".

    >>> strict({"a": [1.5, float("nan")], "b": (None, float("-inf"))})
    {'a': [1.5, 'nan'], 'b': [None, '-inf']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return value


def read(kind: Any, value: Any) -> Any:
    """The inverse of `strict(dataclasses.asdict(...))`.

    Args:
        kind: a dataclass, `list[...]`, `dict[str, ...]`, `... | None` or a plain type.
        value: what JSON gave; entries that a dataclass does not have are left out, and fields that are
            missing get their defaults.

    Raises:
        KeyError, TypeError, ValueError: the value is not of this kind.

    >>> read(dict[str, list[float]], {"a": [1, "nan"]})
    {'a': [1.0, nan]}
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (some,) = (part for part in inner if part is not types.NoneType)
        return None if value is None else read(some, value)
    if origin is list:
        return [read(inner[0], item) for item in value]
    if origin is dict:
        return {key: read(inner[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [item.name for item in dataclasses.fields(kind) if item.name in value]
        return kind(**{name: read(hints[name], value[name]) for name in names})  # type: ignore[operator]
    return float(value) if kind is float else value

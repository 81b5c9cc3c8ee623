"""Which settings somebody gave, and which were left at their defaults, where the values cannot tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_GIVEN = "_given"


def note_given(config: Any, names: Iterable[str]) -> None:
    """Notes the fields of a config that the command line or its YAML file named; copies do not keep it."""
    object.__setattr__(config, _GIVEN, frozenset(names))  # configs are frozen


def was_given(config: Any, name: str, default: Any) -> bool:
    """Whether somebody gave this field: as noted; of a config made in code, whether it is not the default."""
    noted = getattr(config, _GIVEN, None)
    return getattr(config, name) != default if noted is None else name in noted

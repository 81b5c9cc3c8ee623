"""Text files."""

from __future__ import annotations

from pathlib import Path

from transframer.errors import DataError


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a text file.

    Raises:
        DataError: the file is missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot be read: {reason}", file=path, expected=expected) from error

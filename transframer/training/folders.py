"""Folders that are on disk whole or not at all, and that know whether a byte of them has changed since."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transframer import __version__
from transframer.errors import CheckpointError

MANIFEST = "manifest.json"
FORMAT = 1
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_PARTIAL, _REPLACED = ".partial-", ".replaced-"


class FormatError(CheckpointError):
    """A folder that is whole, in a format that this version of the code does not read."""


def commit(folder: Path, write: Callable[[Path], None], facts: Mapping[str, Any] | None = None) -> None:
    """Writes a folder under another name, with the hashes of its files, and renames it when all is on disk.

    Args:
        folder: the final name; a folder of that name is replaced.
        write: writes the files into the empty folder it is given.
        facts: further entries of the manifest.

    Raises:
        CheckpointError: where the disk is full or refuses; what was there before is untouched, and no
            half-written folder stays behind.
    """
    partial = folder.with_name(_PARTIAL + folder.name)
    replaced = folder.with_name(_REPLACED + folder.name)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        files = {path.name: _digest(path) for path in sorted(partial.iterdir())}
        manifest = {"format": FORMAT, "code_version": __version__, **(facts or {}), "files": files}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        for path in (*partial.iterdir(), partial):
            _sync(path)
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            folder.rename(replaced)
        partial.rename(folder)
        _sync(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except Exception as error:
        failure = _what_the_disk_said(error)
        if failure is None:
            raise
        raise disk_error(failure, folder) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose files are all as they were written.

    Raises:
        CheckpointError: names the file that is missing or differs.
        FormatError: for a folder of another format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        version, files = manifest["format"], manifest["files"]
    except FileNotFoundError as error:
        raise CheckpointError("missing", file=path, expected="the manifest of a whole folder") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError("unreadable", file=path, expected="the manifest of a whole folder") from error
    if version != FORMAT:
        raise FormatError(
            f"format {version}, written by transframer {manifest.get('code_version', 'unknown')}",
            file=path,
            expected=f"format {FORMAT}, which transframer {__version__} reads",
            next_step="use the version of transframer that wrote it",
        )
    for name, digest in files.items():
        try:
            found = _digest(folder / name)
        except OSError as error:
            raise CheckpointError("missing or unreadable", file=folder / name) from error
        if found != digest:
            raise CheckpointError("damaged: its SHA-256 is not the one in the manifest", file=folder / name)
    return manifest


def recover(parent: Path) -> None:
    """Clears up after a process killed while it wrote: drops halves, restores what they were to replace."""
    for path in parent.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in parent.glob(f"{_REPLACED}*"):
        folder = path.with_name(path.name.removeprefix(_REPLACED))
        if folder.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(folder)


def disk_error(error: OSError, file: Path) -> CheckpointError:
    """What a user can do about a write that failed."""
    if error.errno in DISK_FULL:
        return CheckpointError(
            "the disk is full; what was saved before is untouched",
            file=file,
            next_step="free some space, then continue with --resume",
        )
    return CheckpointError(f"cannot be written: {error.strerror or error}", file=file)


def _what_the_disk_said(error: BaseException | None) -> OSError | None:
    """The OSError behind an error: torch and safetensors raise errors of their own when a write fails."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        if "No space left on device" in str(error):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        error = error.__cause__ or error.__context__
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The machine a speed was measured on: hardware, versions, commit, and how fast it reads and multiplies."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from transframer.benchmarks.protocol import code_version, device_name
from transframer.benchmarks.timing import Clock, Spread, in_turns, rates

LARGE_BYTES = 2**29  # far beyond the last-level cache
_MATRIX = {"cpu": 1024, "cuda": 8192}
_PACKAGES = ("torch", "numpy", "numba", "transformers", "x-transformers", "simplejpeg", "scipy", "Pillow")


def described(clock: Clock) -> dict[str, Any]:
    """Hardware, versions, commit and time, as JSON values."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "caches": _caches(),
        "device": device_name(clock.device),
        "threads": clock.threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": ".".join(map(str, sys.version_info[:3])),
        "packages": versions(),
        "code": code_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """The versions of those of these packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def processor_name() -> str:
    """The processor as its system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def bandwidth(size_bytes: int, clock: Clock, rounds: int) -> Spread:
    """Bytes per second at which a matrix of fp32 of this size is read.

    The fastest of three ways counts in each round: a sum, and products with vectors of two lengths, which is
    what drawing one token at a time does.

    Args:
        size_bytes: of the matrix; one far larger than the caches gives the bandwidth of the memory.
    """
    works: dict[str, tuple[int, Callable[[], object]]] = {}
    for columns in (1024, 4096):
        rows = max(1, size_bytes // (4 * columns))
        matrix = torch.ones(rows, columns, device=clock.device)
        vector = torch.ones(columns, device=clock.device)
        size = 4 * rows * columns
        works[f"{columns} columns"] = size, partial(torch.mv, matrix, vector)
        works["sum"] = size, matrix.sum
    laps = in_turns({name: work for name, (_, work) in works.items()}, clock, rounds, least_s=0.1)
    by_way = [rates(works[name][0], laps[name], clock) for name in works]
    return Spread.of([max(ways) for ways in zip(*by_way, strict=True)])


def matrix_rate(clock: Clock, rounds: int, dtype: torch.dtype = torch.float32) -> Spread:
    """Floating-point operations per second of a product of two large square matrices."""
    size = _MATRIX.get(clock.device.type, 1024)
    left, right = (torch.randn(size, size, device=clock.device, dtype=dtype) for _ in range(2))
    laps = in_turns({"product": lambda: left @ right}, clock, rounds)
    return Spread.of(rates(2 * size**3, laps["product"], clock))


def _caches() -> dict[str, str]:
    """The sizes of the first core's caches by level, as far as the system tells."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        found[f"L{level} {kind.lower()}"] = size
    return found

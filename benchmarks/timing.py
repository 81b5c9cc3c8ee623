"""Timing several pieces of work in turns, by the wall clock and by the processor's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Spread:
    """The median of several measurements with the smallest and the largest, where these were kept."""

    median: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of these values.

        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.0, high=3.0)
        """
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Clock:
    """Which clock rates and ratios go by.

    On one thread of a processor it is the time the process itself used, which other programs do not slow
    down as they do the wall clock; on several threads, and on an accelerator, it is the wall clock.
    """

    device: torch.device
    threads: int

    @property
    def by_processor(self) -> bool:
        """Whether the processor's time counts."""
        return self.device.type == "cpu" and self.threads == 1

    @property
    def name(self) -> str:
        """For the report."""
        return "processor time" if self.by_processor else "wall clock"

    def timed(self, work: Callable[[], object]) -> Lap:
        """How long a piece of work takes, the accelerator's part included."""
        self._wait()
        wall, used = time.perf_counter(), time.process_time()
        work()
        self._wait()
        return Lap(time.perf_counter() - wall, time.process_time() - used)

    def seconds(self, lap: Lap) -> float:
        """The time that counts."""
        return max(lap.processor_s if self.by_processor else lap.wall_s, 1e-9)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Lap:
    """The time of one piece of work."""

    wall_s: float
    processor_s: float

    def __add__(self, other: Lap) -> Lap:
        return Lap(self.wall_s + other.wall_s, self.processor_s + other.processor_s)

    def __sub__(self, other: Lap) -> Lap:
        return Lap(self.wall_s - other.wall_s, self.processor_s - other.processor_s)


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        part: the part of the benchmark.
        what: what is done, on which size.
        who: "ours" or a peer.
        unit: of the rate.
        rate: by the clock that counts, over the rounds.
        wall: the same by the wall clock, where it was read.
        ratio: ours over this peer's, round by round; None for ours.
        facts: further numbers and words, such as parameters and limits.
    """

    part: str
    what: str
    who: str
    unit: str
    rate: Spread
    wall: Spread | None = None
    ratio: Spread | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def in_turns(
    works: Mapping[str, Callable[[], object]],
    clock: Clock,
    rounds: int,
    *,
    least_s: float = 0.2,
    warm_up: bool = True,
) -> dict[str, list[Lap]]:
    """Times each piece of work once in every round, starting each round with another one.

    Args:
        works: by name.
        clock: what to wait for.
        rounds: how many.
        least_s: of wall-clock time: shorter work is repeated that long, and the time divided.
        warm_up: whether each is first done once without being timed.
    """
    names = list(works)
    if warm_up:
        for work in works.values():
            work()
    laps: dict[str, list[Lap]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in (*names[turn % len(names) :], *names[: turn % len(names)]):
            laps[name].append(_repeated(works[name], clock, least_s))
    return laps


def _repeated(work: Callable[[], object], clock: Clock, least_s: float) -> Lap:
    total, calls = clock.timed(work), 1
    while total.wall_s < least_s:
        total, calls = total + clock.timed(work), calls + 1
    return Lap(total.wall_s / calls, total.processor_s / calls)


def rates(amount: float | int, laps: Sequence[Lap], clock: Clock) -> list[float]:
    """Amount per second of each round, by the clock that counts."""
    return [amount / clock.seconds(lap) for lap in laps]


def row(
    part: str,
    what: str,
    who: str,
    unit: str,
    amount: float | int,
    laps: Sequence[Lap],
    clock: Clock,
    *,
    ours: Sequence[float] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Row:
    """The line of one piece of work.

    Args:
        amount: how much of the unit was done in each round.
        ours: our rates of the same rounds, for the ratio.
    """
    own = rates(amount, laps, clock)
    wall = [amount / max(lap.wall_s, 1e-9) for lap in laps]
    ratio = None if ours is None else Spread.of([a / b for a, b in zip(ours, own, strict=True)])
    return Row(part, what, who, unit, Spread.of(own), Spread.of(wall), ratio, dict(facts or {}))

"""The settings of sampling that commands share; imports no torch, so that the command line can read it."""

from __future__ import annotations

from typing import NamedTuple

from transframer.errors import ConfigError


class Sampling(NamedTuple):
    """How many frames are drawn for a query, and at which temperature."""

    samples_per_query: int
    temperature: float


def sampling_in_force(
    temperature: float | None, top_p: float, samples_per_query: int | None, draws: int
) -> Sampling:
    """What is asked for; where nothing is, as many draws as the task wants, and one at temperature 0.

    Args:
        draws: of the task, see `Task.draws`.

    Raises:
        ConfigError: as of `temperature_in_force`.

    >>> sampling_in_force(None, 1.0, None, 16)
    Sampling(samples_per_query=16, temperature=1.0)
    >>> sampling_in_force(0.0, 1.0, None, 16)
    Sampling(samples_per_query=1, temperature=0.0)
    """
    count = samples_per_query
    if count is None:
        count = 1 if temperature == 0 else draws
    return Sampling(count, temperature_in_force(temperature, top_p, count))


def temperature_in_force(temperature: float | None, top_p: float, samples_per_query: int) -> float:
    """The temperature of sampling: as given, else 0 (an estimate) for one sample per query, 1 for several.

    Raises:
        ConfigError: a setting out of range, or several samples at temperature 0, which would all be the same.

    >>> temperature_in_force(None, 1.0, 1), temperature_in_force(None, 1.0, 8)
    (0.0, 1.0)
    """
    if samples_per_query < 1:
        raise ConfigError(str(samples_per_query), field="samples_per_query", expected="at least 1")
    if not 0 < top_p <= 1:
        raise ConfigError(str(top_p), field="top_p", expected="above 0, at most 1")
    if temperature is None:
        return float(samples_per_query > 1)
    if not 0 <= temperature < float("inf"):
        raise ConfigError(str(temperature), field="temperature", expected="0 or above")
    if temperature == 0 and samples_per_query > 1:
        raise ConfigError(
            f"{samples_per_query} samples per query at temperature 0 are all the same frame",
            field="temperature",
            expected="above 0",
            next_step="leave --temperature out, or set --samples-per-query 1",
        )
    return temperature

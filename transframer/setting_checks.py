"""Checks of settings that several commands have; imports nothing heavy."""

from __future__ import annotations

from transframer.errors import ConfigError


def check_seed(seed: int) -> None:
    """Refuses a seed that random generators do not take.

    Raises:
        ConfigError: it is not 0 to 2^63 - 1.
    """
    if not 0 <= seed < 2**63:
        raise ConfigError(str(seed), field="seed", expected="0 to 2^63 - 1")


def check_augmentation(crop: float, color: float) -> None:
    """Refuses what an `Augmentation` cannot do.

    Raises:
        ConfigError: crop is not above 0 and at most 1; color is not 0 to 1.
    """
    if not 0 < crop <= 1:
        raise ConfigError(str(crop), field="crop", expected="more than 0, at most 1")
    if not 0 <= color <= 1:
        raise ConfigError(str(color), field="color", expected="0 to 1")


def check_size_px(size_px: int | None) -> None:
    """Refuses a size of frames that the model cannot have; None is left for others to decide.

    Raises:
        ConfigError: it is no positive multiple of 16.
    """
    if size_px is not None and (size_px < 16 or size_px % 16):
        raise ConfigError(str(size_px), field="size_px", expected="a multiple of 16")

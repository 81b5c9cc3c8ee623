"""Counter-based random numbers: equal on any machine, for any batch and in any order of scenes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

SPLITS = ("train", "validation", "test")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _shifted(x: Tensor, bits: int) -> Tensor:
    # int64 shifts are arithmetic; the mask makes them logical, as the generator is defined on uint64
    return (x >> bits) & ((1 << (64 - bits)) - 1)


_GOLDEN, _MIX_1, _MIX_2 = (_signed(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def splitmix64(x: Int[Tensor, ...]) -> Int[Tensor, ...]:
    """The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), a bijection of 64-bit words.

    Args:
        x: int64, read as uint64.
    """
    x = x + _GOLDEN
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


def scene_keys(seed: int, split: str, indices: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """One 64-bit key per scene. For one seed, no two (split, index) share a key: the map is a bijection.

    Args:
        seed: any integer.
        split: one of `SPLITS`.
        indices: scene numbers, 0 <= index < 2**60.
    """
    start = splitmix64(torch.tensor(_signed(seed % (1 << 64)), device=indices.device))
    return splitmix64((indices.long() * 4 + SPLITS.index(split)) ^ start)


class Draws:
    """Random draws for a batch of scenes, in the order of the program.

    The n-th number of a scene is a function of its key and n. All are hashed at once, since a batch of a few
    scenes would otherwise mostly wait for small operations.

    Args:
        keys: one key per scene.
        capacity: how many numbers a scene can draw.
    """

    def __init__(self, keys: Int[Tensor, " b"], capacity: int = 256) -> None:
        counters = torch.arange(capacity, device=keys.device)
        words = splitmix64(splitmix64(keys)[:, None] + counters)
        self._units = _shifted(words, 11).double() * 2.0**-53
        self._used = 0

    def uniform(self, low: int | float, high: int | float, *shape: int) -> Float[Tensor, "b ..."]:
        """Uniform float64 in [low, high), of shape (b, *shape)."""
        start = self._used
        self._used += int(torch.Size(shape).numel())
        unit = self._units[:, start : self._used]
        return (low + (high - low) * unit).view(len(unit), *shape)

    def choice(self, count: int, *shape: int) -> Int[Tensor, "b ..."]:
        """Uniform integers in [0, count), of shape (b, *shape)."""
        return self.uniform(0, count, *shape).long()

    def signed(self, low: int | float, high: int | float, *shape: int) -> Float[Tensor, "b ..."]:
        """A magnitude in [low, high) with a random sign, of shape (b, *shape)."""
        signed = self.uniform(low - high, high - low, *shape)
        return signed + signed.sign() * low

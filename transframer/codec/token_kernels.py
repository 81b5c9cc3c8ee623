"""Compiled kernels: grids to triples and back."""

from __future__ import annotations

import numpy as np

from transframer.codec.jit import compiled, kernel

_LOW = np.uint64(0x7FFF7FFF7FFF7FFF)
_ONES = np.uint64(0x0001000100010001)
_LANE = np.uint64(0xFFFF)


@compiled
def _count(words):
    """How many of the cells, four of int16 to a word, are not 0; at most 65535 words, what a lane counts."""
    lanes = np.uint64(0)
    for j in range(len(words)):
        lanes += ((((words[j] & _LOW) + _LOW) | words[j]) >> np.uint64(15)) & _ONES
    low = (lanes & _LANE) + (lanes >> np.uint64(16) & _LANE)
    return low + (lanes >> np.uint64(32) & _LANE) + (lanes >> np.uint64(48))


@kernel("void(uint64[:,:,::1], int64[::1])")
def count_nonzero(words, lengths):
    """How many cells of each grid, b channels words, are not 0."""
    for i in range(len(words)):
        total = np.uint64(0)
        for channel in range(words.shape[1]):
            for start in range(0, words.shape[2], 65535):
                total += _count(words[i, channel, start : start + 65535])
        lengths[i] = total


@kernel("void(uint64[:,:,::1], int64, int64[::1], int64[::1], int64[::1])")
def find_nonzero(words, n, channel, position, value):
    """Writes the triples of each grid, b channels words, `n` apart; the outputs have room for b n + 1.

    Every cell of a word that is not 0 is written, and overwritten by what comes next if it is 0 itself:
    faster than a branch for each.
    """
    for i in range(len(words)):
        at = np.uint64(i * n)
        for c in range(words.shape[1]):
            row, start = words[i, c], at
            for j in range(len(row)):
                word = np.int64(row[j])
                if word != 0:
                    position[at], value[at] = 4 * j, (word << 48) >> 48
                    at += np.uint64(word & 0xFFFF != 0)
                    position[at], value[at] = 4 * j + 1, (word << 32) >> 48
                    at += np.uint64(word & 0xFFFF0000 != 0)
                    position[at], value[at] = 4 * j + 2, (word << 16) >> 48
                    at += np.uint64(word & 0xFFFF00000000 != 0)
                    position[at], value[at] = 4 * j + 3, word >> 48
                    at += np.uint64(word >> 48 != 0)
            channel[start:at] = c
        for k in range(at, (i + 1) * n):
            channel[k], position[k], value[k] = 0, 0, 0


@kernel("boolean(int64[:,::1], int64[:,::1], int64[:,::1], int64[::1], int16[:,:,::1])")
def scatter(channel, position, value, length, cells):
    """Adds triples, b l, to cells, b channels positions (int16); False if one lies outside."""
    _, channels, positions = cells.shape
    for i in range(len(cells)):
        for k in range(length[i]):
            c, p = channel[i, k], position[i, k]
            if c < 0 or c >= channels or p < 0 or p >= positions:
                return False
            cells[i, c, p] += value[i, k]
    return True

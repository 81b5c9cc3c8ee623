"""Compiled kernel: the data of a baseline JPEG file, straight into a grid (ITU-T T.81, Annex F)."""

from __future__ import annotations

import numpy as np

from transframer.codec.jit import compiled, kernel

_FAST = 9  # bits of a code that are looked up at once
TRUNCATED, DAMAGED, STRAY = -1, -2, -3


@kernel("Tuple((int64[:,::1], int64[:,:,::1], boolean))(int64[:,::1], uint8[:,::1])")
def code_tables(huffman, symbols):
    """Look-up tables of Huffman codes, and whether they are codes at all.

    Args:
        huffman: how many codes of each length less 1: tables x 16.
        symbols: of the codes: tables x 256.

    Returns:
        By the first 9 bits, 256 times the length plus the symbol, 0 where the code is longer: tables x 512.
        By length, one more than the last code, and what makes a code its symbol's index: tables x 2 x 17.
    """
    fast = np.zeros((len(huffman), 1 << _FAST), np.int64)
    long = np.zeros((len(huffman), 2, 17), np.int64)
    for table in range(len(huffman)):
        code, n = 0, 0
        for length in range(1, 17):
            long[table, 1, length] = n - code
            for _ in range(huffman[table, length - 1]):
                if length <= _FAST:
                    first = code << (_FAST - length)
                    entry = 256 * length + symbols[table, n]
                    fast[table, first : first + (1 << (_FAST - length))] = entry
                code, n = code + 1, n + 1
            long[table, 0, length] = code
            if code > 1 << length:
                return fast, long, False
            code <<= 1
    return fast, long, True


@compiled
def _fill(data, position, bits, n):
    """Reads bytes until there are more than 48 bits: position, bits, how many, and how many were made up."""
    made_up = 0
    while n <= 48:
        byte = 0
        if position < len(data) and data[position] != 0xFF:
            byte = np.int64(data[position])
            position += 1
        elif position + 1 < len(data) and data[position + 1] == 0:
            byte = 0xFF
            position += 2
        else:
            made_up += 8  # a marker, or the end
        bits = (bits << 8) | byte
        n += 8
    return position, bits, n, made_up


@compiled
def _symbol(bits, n, fast, long, symbols):
    """The next symbol and the length of its code, 0 if there is none."""
    peek = (bits >> (n - 16)) & 0xFFFF
    entry = fast[peek >> (16 - _FAST)]
    if entry:
        return entry & 255, entry >> 8
    for length in range(_FAST + 1, 17):
        code = peek >> (16 - length)
        if code < long[0, length]:
            return np.int64(symbols[code + long[1, length]]), length
    return np.int64(0), 0


@compiled
def _value(bits, n, size):
    """The signed value of the next `size` bits (T.81, figure F.12)."""
    value = (bits >> (n - size)) & ((1 << size) - 1)
    return value if value >> (size - 1) else value - (1 << size) + 1


@compiled
def _store(cells, channel, y, x, value, scale):
    cells[channel, y, x] = np.int16(min(max(np.rint(value * scale), -32768.0), 32767.0))


@kernel(
    "int64(Array(uint8, 1, 'C', readonly=True), int64, int64[:,::1], int64[:,:,::1], uint8[:,::1], "
    "int64[:,::1], int64, int64[::1], float64[:,::1], int64[:,::1], int16[:,:,::1])"
)
def decode_scan(data, position, fast, long, symbols, components, restart, mcus, scale, channel, cells):
    """Decodes the one scan of a file into cells of zeros, 192 gy gx; the position after it, or an error.

    Args:
        data: the file; the scan starts at `position`.
        fast, long: of the Huffman codes, DC's 4 and AC's 4, by `code_tables`; and their `symbols`, 8 x 256.
        components: blocks in a unit across, down; DC and AC table; cells between blocks: n x 5.
        restart: units between restart markers, 0 for none.
        mcus: units down and across.
        scale: what coefficients are multiplied by, and their `channel`: n x 64, zigzag order.
    """
    last = np.zeros(len(components), np.int64)
    bits, n, made_up = np.int64(0), 0, 0
    for unit in range(mcus[0] * mcus[1]):
        if restart and unit and unit % restart == 0:
            # what is left of the last byte is padding, and then comes the marker
            if n - made_up >= 8 or n < made_up or position + 1 >= len(data) or data[position] != 0xFF:
                return DAMAGED
            while position + 2 < len(data) and data[position + 1] == 0xFF:  # markers may begin with several
                position += 1
            if data[position + 1] != 0xD0 + (unit // restart - 1) % 8:
                return DAMAGED
            position, bits, n, made_up = position + 2, np.int64(0), 0, 0
            last[:] = 0
        row, column = unit // mcus[1], unit % mcus[1]
        for c in range(len(components)):
            across, down, dc, ac, step = components[c]
            ac += 4
            for block in range(across * down):
                y, x = step * (row * down + block // across), step * (column * across + block % across)
                position, bits, n, more = _fill(data, position, bits, n)
                made_up += more
                size, length = _symbol(bits, n, fast[dc], long[dc], symbols[dc])
                if length == 0 or size > 11:
                    return DAMAGED
                n -= length
                if size:
                    last[c] += _value(bits, n, size)
                    n -= size
                if last[c]:
                    _store(cells, channel[c, 0], y, x, last[c], scale[c, 0])
                bits &= (1 << n) - 1
                k = 1
                while k < 64:
                    if n < 32:
                        position, bits, n, more = _fill(data, position, bits, n)
                        made_up += more
                    symbol, length = _symbol(bits, n, fast[ac], long[ac], symbols[ac])
                    if length == 0:
                        return DAMAGED
                    n -= length
                    run, size = symbol >> 4, symbol & 15
                    if size == 0 and run < 15:
                        break
                    k += run
                    if k > 63:
                        return DAMAGED
                    if size:
                        _store(cells, channel[c, k], y, x, _value(bits, n, size), scale[c, k])
                        n -= size
                    bits &= (1 << n) - 1
                    k += 1
                bits &= (1 << n) - 1
        if n < made_up:
            return TRUNCATED
    if n - made_up >= 8:
        return STRAY
    return position

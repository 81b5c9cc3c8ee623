"""Compiled kernels: grids of quantised coefficients to images, with libjpeg's arithmetic bit for bit.

The inverse of `encode_kernels`, and laid out like it: 16 blocks side by side, in fp64, where it is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from transframer.codec.dct import INTEGER_DCT
from transframer.codec.encode_kernels import LANES, ROW, RUN
from transframer.codec.jit import compiled, kernel

_F = np.float32
_HALF = _F(0.5)
_R_CR, _B_CB = _F(91881 / 65536), _F(116130 / 65536)  # jdcolor.c
_G_CB, _G_CR = _F(-22554 / 65536), _F(-46802 / 65536)

# The transpose of the forward DCT; columns first (11 bits dropped), then rows (18, with the factor of 8).
_FIRST: Any = [[weight / 2**11 for weight in row] for row in INTEGER_DCT]
_SECOND: Any = [[weight / 2**18 for weight in row] for row in INTEGER_DCT]
((A0, *_), (A10, A11, A12, A13), (A20, A21, *_), (A30, A31, A32, A33), *_) = _FIRST
(*_, (A50, A51, A52, A53), (A60, A61, *_), (A70, A71, A72, A73)) = _FIRST
((B0, *_), (B10, B11, B12, B13), (B20, B21, *_), (B30, B31, B32, B33), *_) = _SECOND
(*_, (B50, B51, B52, B53), (B60, B61, *_), (B70, B71, B72, B73)) = _SECOND


@compiled
def _load(grid, channels, row, column, rows, columns, step, coefficients):
    """Gathers a rectangle of blocks, of planes side by side, from every `step`-th cell: into 64 x ROW."""
    width = grid.shape[2] // step
    for plane in range(channels.shape[0]):
        low, high = max(column, plane * width), min(column + columns, (plane + 1) * width)
        if low >= high:
            continue
        for f in range(64):
            cells = grid[channels[plane, f]]
            for y in range(rows):
                start = f * ROW + y * columns - column
                to = coefficients[start + low : start + high]
                source = cells[step * (row + y), step * (low - plane * width) :]
                if step == 1:
                    for x in range(high - low):
                        to[x] = source[x]
                else:
                    for x in range(high - low):
                        to[x] = source[2 * x]


@compiled
def _columns(coefficients, first, steps, out):
    """First pass: dequantises the blocks from `first` of 64 x ROW, and transforms their columns."""
    for c in range(8):
        block, to = coefficients[c * ROW + first :], out[c * LANES :]
        q0, q1, q2, q3 = steps[c], steps[8 + c], steps[16 + c], steps[24 + c]
        q4, q5, q6, q7 = steps[32 + c], steps[40 + c], steps[48 + c], steps[56 + c]
        for k in range(LANES):
            x0, x1 = block[k] * q0, block[8 * ROW + k] * q1
            x2, x3 = block[16 * ROW + k] * q2, block[24 * ROW + k] * q3
            x4, x5 = block[32 * ROW + k] * q4, block[40 * ROW + k] * q5
            x6, x7 = block[48 * ROW + k] * q6, block[56 * ROW + k] * q7
            t0, t1 = (x0 + x4) * A0 + 0.5, (x0 - x4) * A0 + 0.5
            u0, u1 = x2 * A20 + x6 * A60, x2 * A21 + x6 * A61
            e0, e3, e1, e2 = t0 + u0, t0 - u0, t1 + u1, t1 - u1
            o0 = x1 * A10 + x3 * A30 + x5 * A50 + x7 * A70
            o1 = x1 * A11 + x3 * A31 + x5 * A51 + x7 * A71
            o2 = x1 * A12 + x3 * A32 + x5 * A52 + x7 * A72
            o3 = x1 * A13 + x3 * A33 + x5 * A53 + x7 * A73
            to[k], to[56 * LANES + k] = np.floor(e0 + o0), np.floor(e0 - o0)
            to[8 * LANES + k], to[48 * LANES + k] = np.floor(e1 + o1), np.floor(e1 - o1)
            to[16 * LANES + k], to[40 * LANES + k] = np.floor(e2 + o2), np.floor(e2 - o2)
            to[24 * LANES + k], to[32 * LANES + k] = np.floor(e3 + o3), np.floor(e3 - o3)


@compiled
def _pixel(value):
    """One of 8 bits, from a plane centred on 0 that is to be rounded down."""
    return np.uint32(np.int32(min(max(np.floor(value), 0.0), 255.0)))


@compiled
def _rows(blocks, lane, count, words, row, column):
    """Second pass: `count` lanes of blocks to pixels of a plane, four to a word."""
    for r in range(8):
        block = blocks[8 * r * LANES + lane :]
        to = words[8 * row + r, 2 * column : 2 * (column + count)]
        for k in range(count):
            x0, x1, x2, x3 = block[k], block[LANES + k], block[2 * LANES + k], block[3 * LANES + k]
            x4, x5, x6 = block[4 * LANES + k], block[5 * LANES + k], block[6 * LANES + k]
            x7 = block[7 * LANES + k]
            t0, t1 = (x0 + x4) * B0 + 128.5, (x0 - x4) * B0 + 128.5
            u0, u1 = x2 * B20 + x6 * B60, x2 * B21 + x6 * B61
            e0, e3, e1, e2 = t0 + u0, t0 - u0, t1 + u1, t1 - u1
            o0 = x1 * B10 + x3 * B30 + x5 * B50 + x7 * B70
            o1 = x1 * B11 + x3 * B31 + x5 * B51 + x7 * B71
            o2 = x1 * B12 + x3 * B32 + x5 * B52 + x7 * B72
            o3 = x1 * B13 + x3 * B33 + x5 * B53 + x7 * B73
            p0, p1, p2, p3 = _pixel(e0 + o0), _pixel(e1 + o1), _pixel(e2 + o2), _pixel(e3 + o3)
            p4, p5, p6, p7 = _pixel(e3 - o3), _pixel(e2 - o2), _pixel(e1 - o1), _pixel(e0 - o0)
            to[2 * k] = p0 | p1 << np.uint32(8) | p2 << np.uint32(16) | p3 << np.uint32(24)
            to[2 * k + 1] = p4 | p5 << np.uint32(8) | p6 << np.uint32(16) | p7 << np.uint32(24)


@compiled
def _double(near, far, sums, out):
    """libjpeg's triangle filter for one row (jdsample.c): near, far n -> out 2n, centred on 0."""
    n = len(near)
    for x in range(n):
        sums[1 + x] = _F(3) * _F(near[x]) + _F(far[x])
    sums[0], sums[n + 1] = sums[1], sums[n]
    for x in range(n):
        here = _F(3) * sums[1 + x]
        out[2 * x] = np.floor((here + sums[x] + _F(8)) * _F(1 / 16)) - _F(128)
        out[2 * x + 1] = np.floor((here + sums[x + 2] + _F(7)) * _F(1 / 16)) - _F(128)


@compiled
def _byte(value):
    return np.uint8(np.int32(min(max(value, _F(0)), _F(255))))


@compiled
def _colours(luma, cb, cr, red, green, blue):
    for x in range(len(red)):
        y = _F(luma[x])
        red[x] = _byte(y + np.floor(_R_CR * cr[x] + _HALF))
        green[x] = _byte(y + np.floor(_G_CB * cb[x] + _G_CR * cr[x] + _HALF))
        blue[x] = _byte(y + np.floor(_B_CB * cb[x] + _HALF))


@compiled
def _image(planes, halved, chroma, sums, image):
    """Planes 3 ph pw to an image 3 h w; halved chroma is in the second, Cb and Cr side by side."""
    _, height, width = image.shape
    bottom, columns = (height - 1) // 2, (width + 1) // 2  # what pads does not bleed into the image
    for row in range(height):
        near = row // 2
        far = min(max(near + (1 if row % 2 else -1), 0), bottom)
        for plane in range(2):
            if halved:
                left = plane * (planes.shape[2] // 2)
                right = left + columns
                _double(planes[1, near, left:right], planes[1, far, left:right], sums, chroma[plane])
            else:
                for x in range(width):
                    chroma[plane, x] = _F(planes[1 + plane, row, x]) - _F(128)
        _colours(planes[0, row], chroma[0], chroma[1], image[0, row], image[1, row], image[2, row])


@kernel("void(int16[:,:,:,::1], boolean[::1], float64[:,:,::1], int64[:,::1], uint8[:,:,:,::1])")
def decode(grids, halved, steps, channels, images):
    """Decodes grids b 192 gy gx (int16) into images b 3 h w (uint8).

    Args:
        halved: whether chroma is halved, one per image.
        steps: of quantisation: b 2 64, raster order.
        channels: of the grid, 3 64: planes, then frequencies in raster order.
    """
    gy, gx = grids.shape[2:]
    planes = np.empty((3, 8 * gy, 8 * gx), np.uint8)
    chroma, sums = np.empty((2, 8 * gx), _F), np.empty(4 * gx + 2, _F)
    lanes, coefficients = np.empty(64 * LANES), np.zeros(64 * ROW, np.int16)
    plane_words = planes.view(np.uint32)
    for i in range(len(grids)):
        for part in range(2 if halved[i] else 3):
            words, step, of = plane_words[part], 1, channels[part : part + 1]
            if part and halved[i]:
                words, step, of = plane_words[1, : 4 * gy], 2, channels[1:]
            height, width = words.shape[0] // 8, words.shape[1] // 2
            columns = min(width, RUN)  # in rectangles of at most RUN blocks
            for row in range(0, height, RUN // columns):
                for column in range(0, width, columns):
                    down, across = min(RUN // columns, height - row), min(columns, width - column)
                    _load(grids[i], of, row, column, down, across, step, coefficients)
                    y, x = 0, 0
                    for first in range(0, down * across, LANES):
                        _columns(coefficients, first, steps[i, min(part, 1)], lanes)
                        lane = 0
                        while lane < LANES and y < down:
                            count = min(across - x, LANES - lane)
                            _rows(lanes, lane, count, words, row + y, column + x)
                            lane += count
                            x += count
                            if x == across:
                                x, y = 0, y + 1
        _image(planes, halved[i], chroma, sums, images[i])

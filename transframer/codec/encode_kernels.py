"""Compiled kernels: images to grids of quantised coefficients, with libjpeg's arithmetic bit for bit.

Blocks are transformed side by side, 16 at a time, so that the compiler can use vector instructions. The first
pass of the integer DCT is exact in fp32 (its sums stay below 2^24), the second in fp64.

The loops are written so that the compiler vectorises them: contiguous arrays (a slice of any but the first
axis is not), strides that are constants, one loop over the lanes for each 8 points, and no arithmetic on
integers, which Numba widens to 64 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from transframer.codec.dct import INTEGER_DCT
from transframer.codec.jit import compiled, kernel

LANES = 16
BAND_PIXELS = 2**15  # of an image, brought to planes at a time: they stay in the cache
RUN = 512  # blocks whose coefficients are gathered before they go to the grid, so that writes are long
ROW = RUN + LANES

_F = np.float32
_HALF, _QUARTER = _F(0.5), _F(0.25)
_LOW, _SHIFT = np.uint32(0xFFFF), np.uint32(16)
_BIAS, _TWO_BIASES = _F(1024), _F(2048)  # added to planes, so that two pixels can share a word
_YR, _YG, _YB = _F(19595 / 65536), _F(38470 / 65536), _F(7471 / 65536)
_BR, _BG, _RG, _RB = _F(-11059 / 65536), _F(-21709 / 65536), _F(-27439 / 65536), _F(-5329 / 65536)
_DOWN = _F(32767 / 65536)  # halves go downwards in chroma

# The integer DCT of the two passes, which drop 11 and 15 bits: frequency, then pixel.
_ROWS: Any = [[_F(weight / 2**11) for weight in row] for row in INTEGER_DCT]
_COLUMNS: Any = [[np.float64(weight / 2**15) for weight in row] for row in INTEGER_DCT]
((R0, *_), (R10, R11, R12, R13), (R20, R21, *_), (R30, R31, R32, R33), *_) = _ROWS
(*_, (R50, R51, R52, R53), (R60, R61, *_), (R70, R71, R72, R73)) = _ROWS
((C0, *_), (C10, C11, C12, C13), (C20, C21, *_), (C30, C31, C32, C33), *_) = _COLUMNS
(*_, (C50, C51, C52, C53), (C60, C61, *_), (C70, C71, C72, C73)) = _COLUMNS


@compiled
def _planes(image, top, level, luma, cb, cr):
    """Whole Y, Cb, Cr, plus a bias: image 3 h w, from row `top` -> planes ph pw (int16), edges replicated."""
    height, width = image.shape[1:]
    up = _HALF - level
    for row in range(luma.shape[0]):
        source = min(top + row, height - 1)
        red, green, blue = image[0, source], image[1, source], image[2, source]
        to_luma, to_cb, to_cr = luma[row], cb[row], cr[row]
        for x in range(width):
            r, g, b = _F(red[x]), _F(green[x]), _F(blue[x])
            to_luma[x] = np.int16(np.int32(np.floor(_YR * r + _YG * g + _YB * b + up) + _BIAS))
            to_cb[x] = np.int16(np.int32(np.floor(_BR * r + _BG * g + _HALF * b + _DOWN) + _BIAS))
            to_cr[x] = np.int16(np.int32(np.floor(_HALF * r + _RG * g + _RB * b + _DOWN) + _BIAS))
        for x in range(width, luma.shape[1]):
            to_luma[x], to_cb[x], to_cr[x] = to_luma[width - 1], to_cb[width - 1], to_cr[width - 1]


@compiled
def _halve(plane, rows, column, halved):
    """Averages 2x2 pixels of a plane ph pw into columns from `column` of halved, ph/2 pw (int16).

    What lies beyond `rows` of the plane pads it: libjpeg extends downwards only after halving.
    """
    for row in range(halved.shape[0]):
        source = 2 * min(row, (rows + 1) // 2 - 1)
        top, bottom, line = plane[source], plane[source + 1], halved[row, column:]
        for x in range(plane.shape[1] // 2):
            total = _F(top[2 * x]) + _F(bottom[2 * x]) + _F(top[2 * x + 1]) + _F(bottom[2 * x + 1])
            bias = _QUARTER + _QUARTER * _F(np.int32(x) & np.int32(1))  # jcsample.c: 1/4, 1/2, 1/4, ...
            line[x] = np.int16(np.int32(total * _QUARTER + bias))


@compiled
def _rows(words, row, column, count, lane, out):
    """First pass: `count` blocks of a plane, from a row and column of blocks, into lanes of `out`."""
    for r in range(8):
        word = words[8 * row + r, 4 * column : 4 * (column + count)]
        to = out[8 * r * LANES + lane :]
        for k in range(count):
            w0, w1, w2, w3 = word[4 * k], word[4 * k + 1], word[4 * k + 2], word[4 * k + 3]
            p0, p1 = _F(np.int32(w0 & _LOW)), _F(np.int32(w0 >> _SHIFT))
            p2, p3 = _F(np.int32(w1 & _LOW)), _F(np.int32(w1 >> _SHIFT))
            p4, p5 = _F(np.int32(w2 & _LOW)), _F(np.int32(w2 >> _SHIFT))
            p6, p7 = _F(np.int32(w3 & _LOW)), _F(np.int32(w3 >> _SHIFT))
            s0, s1 = p0 + p7 - _TWO_BIASES, p1 + p6 - _TWO_BIASES
            s2, s3 = p2 + p5 - _TWO_BIASES, p3 + p4 - _TWO_BIASES
            d0, d1, d2, d3 = p0 - p7, p1 - p6, p2 - p5, p3 - p4
            to[k] = (s0 + s1 + s2 + s3) * R0  # whole already, as the fifth
            to[LANES + k] = np.floor(d0 * R10 + d1 * R11 + d2 * R12 + d3 * R13 + _HALF)
            to[2 * LANES + k] = np.floor((s0 - s3) * R20 + (s1 - s2) * R21 + _HALF)
            to[3 * LANES + k] = np.floor(d0 * R30 + d1 * R31 + d2 * R32 + d3 * R33 + _HALF)
            to[4 * LANES + k] = (s0 - s1 - s2 + s3) * R0
            to[5 * LANES + k] = np.floor(d0 * R50 + d1 * R51 + d2 * R52 + d3 * R53 + _HALF)
            to[6 * LANES + k] = np.floor((s0 - s3) * R60 + (s1 - s2) * R61 + _HALF)
            to[7 * LANES + k] = np.floor(d0 * R70 + d1 * R71 + d2 * R72 + d3 * R73 + _HALF)


@compiled
def _quantised(coefficient, scale):
    return np.int16(np.int32(np.rint(np.floor(coefficient + 0.5) * scale)))


@compiled
def _columns(blocks, scale, first, out):
    """Second pass, and quantisation: the lanes of `blocks` into columns from `first` of `out`, 64 x ROW."""
    for c in range(8):
        block, to = blocks[c * LANES :], out[c * ROW + first :]
        q0, q1, q2, q3 = scale[c], scale[8 + c], scale[16 + c], scale[24 + c]
        q4, q5, q6, q7 = scale[32 + c], scale[40 + c], scale[48 + c], scale[56 + c]
        for k in range(LANES):
            p0, p1, p2, p3 = block[k], block[8 * LANES + k], block[16 * LANES + k], block[24 * LANES + k]
            p4, p5, p6 = block[32 * LANES + k], block[40 * LANES + k], block[48 * LANES + k]
            p7 = block[56 * LANES + k]
            s0, s1, s2, s3 = (
                np.float64(p0 + p7),
                np.float64(p1 + p6),
                np.float64(p2 + p5),
                np.float64(p3 + p4),
            )
            d0, d1, d2, d3 = (
                np.float64(p0 - p7),
                np.float64(p1 - p6),
                np.float64(p2 - p5),
                np.float64(p3 - p4),
            )
            to[k] = _quantised((s0 + s1 + s2 + s3) * C0, q0)
            to[8 * ROW + k] = _quantised(d0 * C10 + d1 * C11 + d2 * C12 + d3 * C13, q1)
            to[16 * ROW + k] = _quantised((s0 - s3) * C20 + (s1 - s2) * C21, q2)
            to[24 * ROW + k] = _quantised(d0 * C30 + d1 * C31 + d2 * C32 + d3 * C33, q3)
            to[32 * ROW + k] = _quantised((s0 - s1 - s2 + s3) * C0, q4)
            to[40 * ROW + k] = _quantised(d0 * C50 + d1 * C51 + d2 * C52 + d3 * C53, q5)
            to[48 * ROW + k] = _quantised((s0 - s3) * C60 + (s1 - s2) * C61, q6)
            to[56 * ROW + k] = _quantised(d0 * C70 + d1 * C71 + d2 * C72 + d3 * C73, q7)


@compiled
def _store(coefficients, channels, grid, row, column, rows, columns, step):
    """Writes a rectangle of blocks, 64 x ROW, of planes that lie side by side, to every `step`-th cell."""
    width = grid.shape[2] // step
    for plane in range(channels.shape[0]):
        low, high = max(column, plane * width), min(column + columns, (plane + 1) * width)
        if low >= high:
            continue
        for f in range(64):
            cells = grid[channels[plane, f]]
            for y in range(rows):
                start = f * ROW + y * columns - column
                source = coefficients[start + low : start + high]
                to = cells[step * (row + y), step * (low - plane * width) :]
                if step == 1:
                    for x in range(high - low):
                        to[x] = source[x]
                else:
                    for x in range(high - low):
                        to[2 * x] = source[x]


@kernel(
    "void(uint8[:,:,:,::1], float32[:,:,:,::1], boolean, float32[::1], boolean[::1], float64[:,:,::1], "
    "int64[:,::1], int16[:,:,:,::1])"
)
def encode(images, residuals, whole, level, halve, scale, channels, grids):
    """Codes images b 3 h w, or residuals of that shape, into grids of zeros, b 192 gy gx.

    Args:
        whole: whether to code the images and not the residuals.
        level: taken off luma, one per image.
        halve: whether chroma is halved, one per image.
        scale: what coefficients, 8 times the orthonormal DCT's, are multiplied by: b 2 64, raster order.
        channels: of the grid, 3 64: planes, then frequencies in raster order.
    """
    gy, gx = grids.shape[2:]
    band = min(gy, 2 * max(1, BAND_PIXELS // (128 * gx)))
    lanes, coefficients = np.zeros(64 * LANES, _F), np.empty(64 * ROW, np.int16)
    planes = np.empty((3, 8 * band, 8 * gx), np.int16)
    side = np.empty((4 * band, 8 * gx), np.int16)  # halved chroma, Cb and Cr side by side
    plane_words, side_words = planes.view(np.uint32), side.view(np.uint32)
    height_px = images.shape[2] if whole else residuals.shape[2]
    for i in range(len(grids)):
        for top in range(0, gy, band):
            n = 8 * min(band, gy - top)  # rows of pixels
            luma, cb, cr = planes[0, :n], planes[1, :n], planes[2, :n]
            if whole:
                _planes(images[i], 8 * top, level[i], luma, cb, cr)
            else:
                _planes(residuals[i], 8 * top, level[i], luma, cb, cr)
            if halve[i]:
                for plane in range(2):
                    rows = height_px - 8 * top
                    _halve(planes[1 + plane, :n], rows, 4 * gx * plane, side[: n // 2])
            for part in range(2 if halve[i] else 3):
                words, step, of = plane_words[part, :n], 1, channels[part : part + 1]
                if part and halve[i]:
                    words, step, of = side_words[: n // 2], 2, channels[1:]
                height, width = words.shape[0] // 8, words.shape[1] // 4
                columns = min(width, RUN)  # in rectangles of at most RUN blocks
                for row in range(0, height, RUN // columns):
                    for column in range(0, width, columns):
                        down, across = min(RUN // columns, height - row), min(columns, width - column)
                        y, x = 0, 0
                        for first in range(0, down * across, LANES):
                            lane = 0
                            while lane < LANES and y < down:
                                count = min(across - x, LANES - lane)
                                _rows(words, row + y, column + x, count, lane, lanes)
                                lane += count
                                x += count
                                if x == across:
                                    x, y = 0, y + 1
                            _columns(lanes, scale[i, min(part, 1)], first, coefficients)
                        _store(coefficients, of, grids[i], top // step + row, column, down, across, step)

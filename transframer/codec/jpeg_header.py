"""What a JPEG file says of itself before its data: sizes, sampling and tables (ITU-T T.81, Annex B)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from transframer.errors import DataError

MAX_PIXELS = 64_000_000  # checked before anything is decoded, as for other images
_SCAN = 0xDA
_SHORT = 4096  # bytes; longer headers hold what differs from file to file
_FRAMES = {0xC0, 0xC1, 0xC2}  # of DCT coefficients, Huffman-coded: baseline, extended, progressive
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_MATTER = _FRAMES | _OTHER_FRAMES | {0xC4, 0xDB, 0xDD, 0xEE, _SCAN}
_FACTORS = {(1, 1), (2, 1), (1, 2), (2, 2)}


@dataclass(frozen=True, eq=False)
class Header:
    """The header of a JPEG file, up to its first scan; files that agree in it share one object.

    Attributes:
        size: height and width, pixels.
        components: of each, grey or Y, Cb and Cr: blocks in a unit across and down, quantisation table,
            DC and AC Huffman table.
        tables: quantisation steps, by table: 4 x 64, zigzag order.
        huffman: how many Huffman codes have each length less 1: (DC, AC) x 4 x 16.
        symbols: of these codes: (DC, AC) x 4 x 256.
        restart: units between restart markers, 0 for none.
        baseline: whether there is one scan, that holds everything, in the order of the components.
    """

    size: tuple[int, int]
    components: list[tuple[int, int, int, int, int]]
    tables: np.ndarray
    huffman: np.ndarray
    symbols: np.ndarray
    restart: int
    baseline: bool


def read_header(data: bytes, name: str) -> tuple[Header, int]:
    """The header of a JPEG file that holds a grey or a YCbCr image, and where its first scan starts.

    Args:
        data: the whole file.
        name: of the file, for errors.

    Raises:
        DataError: it is no such file, or truncated.
    """
    try:
        header, scan = _first(data)
        if data.rfind(b"\xff\xd9", scan) < 0:
            raise DataError(
                "a truncated JPEG file: no end marker", expected="all of it", next_step="replace the file"
            )
    except (IndexError, ValueError):
        raise DataError(
            "a JPEG file whose header is damaged or cut off",
            file=name,
            expected="a whole file",
            next_step="replace the file",
        ) from None
    except DataError as error:
        raise DataError(error.found, file=name, expected=error.expected, next_step=error.next_step) from None
    return header, scan


def _first(data: bytes) -> tuple[Header, int]:
    """The header, found by its bytes where a file has begun with the same ones before."""
    at = data.find(b"\xff\xda", 0, _SHORT)  # unless these bytes are part of a segment, a thumbnail's say
    if at > 0:
        with suppress(IndexError, ValueError):
            return _known(data[: at + 2 + int.from_bytes(data[at + 2 : at + 4])])
    return _read(data)


def _read(data: bytes) -> tuple[Header, int]:
    segments, scan = _segments(data)
    return _parsed(segments), scan


_known = lru_cache(256)(_read)


def _segments(data: bytes) -> tuple[tuple[tuple[int, bytes], ...], int]:
    """Marker and contents of the segments that matter, up to the first scan's, and where that starts."""
    if data[:2] != b"\xff\xd8":
        found = "an empty file" if not data else f"not a JPEG file: starts with {data[:4]!r}"
        raise DataError(found, expected="the bytes FF D8")
    segments, marker, at = [], 0, 2
    while marker != _SCAN:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at] != 0xFF or marker in (0xD8, 0xD9) or not at + 4 <= end <= len(data):
            raise ValueError
        if marker in _MATTER:
            segments.append((marker, data[at + 4 : end]))
        at = end
    return tuple(segments), at


@lru_cache(256)  # the files of one data set share most headers
def _parsed(segments: tuple[tuple[int, bytes], ...]) -> Header:
    tables = np.zeros((4, 64))
    huffman, symbols = np.zeros((2, 4, 16), np.int64), np.zeros((2, 4, 256), np.uint8)
    frame, kind, restart, adobe = b"", 0, 0, -1
    for marker, segment in segments:
        if marker in _FRAMES:
            if frame:
                raise ValueError
            frame, kind = segment, marker
        elif marker in _OTHER_FRAMES:
            raise DataError("a lossless or arithmetic-coded JPEG file", expected="baseline or progressive")
        elif marker == 0xDB:
            _quantisation(segment, tables)
        elif marker == 0xC4:
            _huffman(segment, huffman, symbols)
        elif marker == 0xDD:
            restart = int.from_bytes(segment[:2])
        elif marker == 0xEE and segment[:5] == b"Adobe":
            adobe = segment[11]
    scan = segments[-1][1]
    size, components = _frame(frame, scan, adobe)
    for _, _, table, _, _ in components:
        if not tables[table].all():
            raise ValueError
    order = [scan[1 + 2 * i] for i in range(scan[0])]
    baseline = kind != 0xC2 and order == [frame[6 + 3 * i] for i in range(frame[5])]
    return Header(size, components, tables, huffman, symbols, restart, baseline)


def _frame(frame: bytes, scan: bytes, adobe: int) -> tuple[tuple[int, int], list]:
    """Size and components, from the segments of the frame and of the first scan."""
    precision, height, width = frame[0], int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    if precision != 8:
        raise DataError(f"a JPEG file of {precision} bits", expected="8 bits")
    if not height or not width or height * width > MAX_PIXELS:
        raise DataError(f"an image of {height} x {width} pixels", expected=f"1 to {MAX_PIXELS} pixels")
    parts = [frame[6 + 3 * i : 9 + 3 * i] for i in range(frame[5])]
    ids = bytes(part[0] for part in parts)
    if len(parts) not in (1, 3) or (len(parts) == 3 and (adobe == 0 or ids == b"RGB")):
        colours = {3: "RGB", 4: "CMYK or YCCK"}.get(len(parts), f"{len(parts)} components")
        next_step = "convert it, or read it with load_image and code its pixels"
        raise DataError(f"a JPEG file of {colours}", expected="grey or YCbCr", next_step=next_step)
    huffman = {scan[1 + 2 * i]: scan[2 + 2 * i] for i in range(scan[0])}
    tables = [huffman.get(component, 0) for component in ids]
    components = [
        (part[1] >> 4, part[1] & 15, part[2] & 3, table >> 4 & 3, table & 3)
        for part, table in zip(parts, tables, strict=True)
    ]
    factors = [component[:2] for component in components]
    if len(parts) == 3 and (factors[0] not in _FACTORS or factors[1:] != [(1, 1), (1, 1)]):
        raise DataError(f"chroma sampled {factors}", expected="4:4:4, 4:2:2, 4:4:0 or 4:2:0")
    return (height, width), components


def _quantisation(segment: bytes, tables: np.ndarray) -> None:
    at = 0
    while at < len(segment):
        wide, table = segment[at] >> 4, segment[at] & 15
        n = 128 if wide else 64
        tables[table] = np.frombuffer(segment[at + 1 : at + 1 + n], ">u2" if wide else "u1")
        at += 1 + n


def _huffman(segment: bytes, huffman: np.ndarray, symbols: np.ndarray) -> None:
    at = 0
    while at < len(segment):
        kind, table = segment[at] >> 4, segment[at] & 15
        counts = np.frombuffer(segment[at + 1 : at + 17], "u1")
        n = int(counts.sum())
        huffman[kind, table] = counts
        symbols[kind, table, :n] = np.frombuffer(segment[at + 17 : at + 17 + n], "u1")
        at += 17 + n

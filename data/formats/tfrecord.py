"""TensorFlow's records, read without it: TFRecord files, and the features of `tf.train.Example`.

A record is a little-endian uint64 length, its masked CRC-32C (uint32), the bytes, and their masked CRC-32C.
An Example is a protocol buffer: Example{1: Features{1: map<string, Feature>}}, where a Feature is one of
{1: BytesList, 2: FloatList, 3: Int64List}, each with its values as field 1.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt32

from transframer.errors import DataError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_POLYNOMIAL = np.uint32(0x82F63B78)  # Castagnoli's, reflected
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers
Feature = list[bytes] | list[float] | list[int]


class TFRecordFile:
    """The records of a file by number. No file stays open between calls, and it can be pickled."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """Offset and length of each record, from the headers alone."""
        places: list[tuple[int, int]] = []
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                at = 0
                while at < size:
                    header = file.read(_HEADER.size)
                    if len(header) < _HEADER.size:
                        raise self._damaged(len(places), "is cut off")
                    length, checksum = _HEADER.unpack(header)
                    if checksum != masked_crc32c(header[:8]):
                        raise self._damaged(len(places), "has a length of the wrong checksum")
                    places.append((at + _HEADER.size, length))
                    at += _HEADER.size + length + _FOOTER.size
                    if at > size:
                        raise self._damaged(len(places) - 1, "is cut off")
                    file.seek(at)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", file=self.path) from error
        return places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, number: int) -> bytes:
        """A record by number, from 0.

        Raises:
            DataError: the file is missing, truncated, no TFRecord file, or the record's checksum is wrong.
        """
        offset, length = self._places[number]
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                data, footer = file.read(length), file.read(_FOOTER.size)
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", file=self.path) from error
        if len(data) + len(footer) < length + _FOOTER.size:
            raise self._damaged(number, "is cut off")
        if _FOOTER.unpack(footer)[0] != masked_crc32c(data):
            raise self._damaged(number, "has a wrong checksum")
        return data

    def _damaged(self, number: int, how: str) -> DataError:
        return DataError(
            f"record {number} {how}",
            file=self.path,
            expected="a TFRecord file",
            next_step="the file is truncated or damaged: copy it again",
        )


def read_example(data: bytes, names: Collection[str]) -> dict[str, Feature]:
    """Those of the features of a serialised `tf.train.Example` that are asked for.

    Raises:
        ValueError: the bytes are no such message.
    """
    wanted = {name.encode(): name for name in names}
    found: dict[str, Feature] = {}
    for field, features in _fields(memoryview(data)):
        for entry_field, entry in _fields(_message(features)) if field == 1 else ():
            pair = dict(_fields(_message(entry))) if entry_field == 1 else {}
            name = wanted.get(bytes(_message(pair.get(1, memoryview(b"")))))
            if name is not None and 2 in pair:
                found[name] = _feature(_message(pair[2]))
    return found


def _feature(data: memoryview) -> Feature:
    for kind, values in _fields(data):
        entries = [entry for field, entry in _fields(_message(values)) if field == 1]
        if kind == 1:
            return [bytes(_message(entry)) for entry in entries]
        if kind == 2:  # packed in one entry, or one entry a value
            return np.frombuffer(b"".join(bytes(_message(entry)) for entry in entries), "<f4").tolist()
        if kind == 3:
            numbers = [
                n for entry in entries for n in ([entry] if isinstance(entry, int) else _varints(entry))
            ]
            return [number - 2**64 if number >= 2**63 else number for number in numbers]
    return []


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if wire == _BYTES:
            length, at = _varint(data, at)
        if length is None or at + length > len(data):
            raise ValueError("not a protocol buffer")
        yield field, data[at : at + length]
        at += length


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and the place after it."""
    value = 0
    for place in range(10):
        if at + place >= len(data):
            break
        value |= (data[at + place] & 127) << 7 * place
        if data[at + place] < 128:
            return value, at + place + 1
    raise ValueError("not a protocol buffer")


def masked_crc32c(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated by 15 bits, plus a constant.

    >>> hex(masked_crc32c(b"123456789"))  # the CRC-32C is 0xe3069283
    '0xc78ab0e5'
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (RFC 3720), some 20 MB/s: as many parts as a part has bytes, side by side, then put together.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    table = _table()
    if len(data) < 4:
        crc = 0xFFFFFFFF
        for byte in data:
            crc = crc >> 8 ^ int(table[(crc ^ byte) & 255])
        return crc ^ 0xFFFFFFFF
    values = np.frombuffer(data, np.uint8).copy()
    values[:4] ^= 255  # the same as a register that starts with ones
    side = int(np.ceil(len(values) ** 0.5))
    # A register of zeros does not change over leading zeros, so the first part may be filled up with them.
    parts = np.pad(values, (side * side - len(values), 0)).reshape(side, side)
    crcs = np.zeros(side, np.uint32)
    for column in parts.T:
        crcs = crcs >> np.uint32(8) ^ table[(crcs ^ column) & np.uint32(255)]
    # Over `side` zero bytes each bit of a register becomes what its own table entry says, and bits add up.
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for _ in range(side):
        bits = bits >> np.uint32(8) ^ table[bits & np.uint32(255)]
    shifted = [int(bit) for bit in bits]
    total = 0
    for crc in crcs.tolist():
        moved = 0
        for place, bit in enumerate(shifted):
            if total >> place & 1:
                moved ^= bit
        total = moved ^ crc
    return total ^ 0xFFFFFFFF


@cache
def _table() -> UInt32[np.ndarray, " 256"]:
    """What each byte does to the register."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & np.uint32(1), table >> np.uint32(1) ^ _POLYNOMIAL, table >> np.uint32(1))
    return table.astype(np.uint32)

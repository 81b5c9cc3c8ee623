import pickle
import struct

import numpy as np
import pytest

from transframer.data.formats.tfrecord import TFRecordFile, crc32c, masked_crc32c, read_example
from transframer.errors import DataError


def slow_crc32c(data):
    """Bit by bit, as RFC 3720 defines it."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def framed(*records):
    """A TFRecord file, written here and not by the code that reads it."""

    def masked(data):
        crc = slow_crc32c(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    return b"".join(
        struct.pack("<Q", len(data)) + masked(struct.pack("<Q", len(data))) + data + masked(data)
        for data in records
    )


def varint(value):
    value %= 2**64
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def message(*fields):
    """Length-delimited fields (number, bytes)."""
    return b"".join(varint(number << 3 | 2) + varint(len(data)) + data for number, data in fields)


def example(**features):
    def feature(values):
        if isinstance(values[0], bytes):
            return message((1, message(*((1, value) for value in values))))
        if isinstance(values[0], float):
            return message((2, message((1, struct.pack(f"<{len(values)}f", *values)))))
        return message((3, message((1, b"".join(map(varint, values))))))

    entries = ((1, message((1, name.encode()), (2, feature(values)))) for name, values in features.items())
    return message((1, message(*entries)))


def test_crc32c_of_the_standard():
    """The examples of RFC 3720, B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_crc32c_of_every_length():
    random = np.random.default_rng(0)
    for length in [*range(70), 255, 256, 257, 1000]:
        data = random.bytes(length)
        assert crc32c(data) == slow_crc32c(data), length


def test_records_by_number(tmp_path):
    records = [b"first", b"", bytes(1000), b"last"]
    (tmp_path / "a.tfrecords").write_bytes(framed(*records))
    file = pickle.loads(pickle.dumps(TFRecordFile(tmp_path / "a.tfrecords")))
    assert len(file) == 4
    assert [file.read(number) for number in (3, 0, 2, 1)] == [b"last", b"first", bytes(1000), b""]


def test_known_bytes_of_tensorflow():
    """A record of "abc": length and data checksums as TensorFlow writes them, computed by the slow CRC."""
    content = framed(b"abc")
    assert content[:8] == b"\x03" + bytes(7)
    assert struct.unpack("<I", content[8:12])[0] == masked_crc32c(content[:8])
    assert len(content) == 8 + 4 + 3 + 4


def test_features_of_an_example():
    data = example(a=[b"xyz", b""], b=[1.5, -2.0], c=[1, -1, 2**62, 300], d=[b"not asked for"])
    assert read_example(data, ["a", "b", "c", "none"]) == {
        "a": [b"xyz", b""],
        "b": [1.5, -2.0],
        "c": [1, -1, 2**62, 300],
    }


def test_values_that_are_not_packed():
    """Old writers give each number its own entry."""
    floats = b"".join(varint(1 << 3 | 5) + struct.pack("<f", value) for value in (0.5, 4.0))
    integers = b"".join(varint(1 << 3 | 0) + varint(value) for value in (7, -3))
    entries = [(b"f", message((2, floats))), (b"i", message((3, integers)))]
    data = message((1, message(*((1, message((1, name), (2, feature))) for name, feature in entries))))
    assert read_example(data, ["f", "i"]) == {"f": [0.5, 4.0], "i": [7, -3]}


@pytest.mark.parametrize("cut", [1, 5, 11, 12, 14, 16, 18, 20, 30])
def test_truncated_file(tmp_path, cut):
    content = framed(b"abc", b"defghij")
    (tmp_path / "a.tfrecords").write_bytes(content[:cut])
    with pytest.raises(DataError, match=r"a\.tfrecords: record \d is cut off"):
        len(TFRecordFile(tmp_path / "a.tfrecords"))


def test_every_flipped_bit_is_found(tmp_path):
    content = framed(b"abc", b"defghij")
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 4
        (tmp_path / "a.tfrecords").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.tfrecords"):
            [TFRecordFile(tmp_path / "a.tfrecords").read(number) for number in (0, 1)]


def test_no_example_and_no_file(tmp_path):
    whole = example(a=[b"abcdef"])
    for cut in range(1, len(whole)):
        with pytest.raises(ValueError, match="protocol buffer"):
            read_example(whole[:cut], ["a"])
    with pytest.raises(DataError, match="none"):
        len(TFRecordFile(tmp_path / "none.tfrecords"))

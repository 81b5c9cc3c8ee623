import struct

import pytest
import torch

from transframer.data.formats.flo import read_flo, write_flo
from transframer.errors import DataError


def test_bytes_are_as_the_format_says(tmp_path):
    path = tmp_path / "a.flo"
    write_flo(path, torch.tensor([[[1.0, 2.0]], [[-3.0, 4.5]]]))  # u row, v row
    assert path.read_bytes() == struct.pack("<fii4f", 202021.25, 2, 1, 1.0, -3.0, 2.0, 4.5)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 48)])
def test_round_trip_is_exact(tmp_path, size):
    flow = torch.randn(2, *size) * 50
    write_flo(tmp_path / "a.flo", flow)
    assert torch.equal(read_flo(tmp_path / "a.flo"), flow)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PIEH",
        b"RIFF" + bytes(20),
        struct.pack("<4sii", b"PIEH", 3, 2) + bytes(40),  # 8 bytes short
        struct.pack("<4sii", b"PIEH", 3, 2) + bytes(56),  # 8 bytes long
        struct.pack("<4sii", b"PIEH", 2**30, 2**30),  # would be eight exabytes
        struct.pack("<4sii", b"PIEH", -3, -2) + bytes(48),
    ],
)
def test_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "bad.flo"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.flo"):
        read_flo(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"none\.flo"):
        read_flo(tmp_path / "none.flo")
    with pytest.raises(DataError, match=r"cannot be written"):
        write_flo(tmp_path / "no folder" / "a.flo", torch.zeros(2, 3, 4))

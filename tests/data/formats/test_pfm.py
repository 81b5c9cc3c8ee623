import struct

import pytest
import torch

from transframer.data.formats.pfm import read_pfm, write_pfm
from transframer.errors import DataError


@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip_is_exact(tmp_path, channels):
    values = torch.randn(channels, 5, 7)
    values[0, 1, 2] = torch.inf  # Middlebury's mark of an unknown disparity
    write_pfm(tmp_path / "a.pfm", values)
    assert torch.equal(read_pfm(tmp_path / "a.pfm"), values)


def test_bottom_row_first_in_either_byte_order(tmp_path):
    for order, scale in (("<", b"-1.0"), (">", b"1.0")):
        (tmp_path / "a.pfm").write_bytes(b"Pf\n1 2\n" + scale + b"\n" + struct.pack(order + "2f", 10.0, 20.0))
        assert read_pfm(tmp_path / "a.pfm").tolist() == [[[20.0], [10.0]]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P6\n1 1\n255\n" + bytes(3),
        b"Pf\n2 2\n-1.0\n" + bytes(15),
        b"Pf\n2 2\n-1.0\n" + bytes(17),
        b"Pf\n0 0\n-1\n",
    ],
)
def test_damaged_file_is_named(tmp_path, content):
    (tmp_path / "bad.pfm").write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.pfm"):
        read_pfm(tmp_path / "bad.pfm")


def test_wrong_channels(tmp_path):
    with pytest.raises(DataError, match="2 channels"):
        write_pfm(tmp_path / "a.pfm", torch.zeros(2, 3, 4))
    assert not list(tmp_path.iterdir())

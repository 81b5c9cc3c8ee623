import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.data.formats.png16 import read_depth_png, read_kitti_flow, write_depth_png, write_kitti_flow
from transframer.errors import DataError


def test_depth_keeps_millimetres_and_unknown(tmp_path):
    depth = torch.tensor([[0.0, 0.0004, 1.2344, 65.535, 1000.0, float("inf"), float("nan"), -1.0]])
    write_depth_png(tmp_path / "d.png", depth)
    assert np.asarray(Image.open(tmp_path / "d.png")).tolist() == [[0, 1, 1234, 65535, 65535, 0, 0, 0]]
    assert torch.allclose(
        read_depth_png(tmp_path / "d.png"), torch.tensor([[0, 0.001, 1.234, 65.535, 65.535, 0, 0, 0]])
    )


def test_depth_in_kitti_units(tmp_path):
    write_depth_png(tmp_path / "d.png", torch.tensor([[80.5]]), units_per_m=256.0)
    assert np.asarray(Image.open(tmp_path / "d.png")).item() == 80.5 * 256
    assert read_depth_png(tmp_path / "d.png", units_per_m=256.0).item() == 80.5


def test_an_8_bit_image_is_no_depth(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "d.png")
    with pytest.raises(DataError, match=r"d\.png"):
        read_depth_png(tmp_path / "d.png")


def test_flow_round_trip(tmp_path):
    flow = torch.rand(2, 9, 13) * 1000 - 500
    valid = torch.rand(9, 13) > 0.3
    write_kitti_flow(tmp_path / "f.png", flow, valid)
    found, found_valid = read_kitti_flow(tmp_path / "f.png")
    assert torch.equal(found_valid, valid)
    assert (found - flow)[:, valid].abs().max() <= 1 / 128 + 1e-4
    assert not found[:, ~valid].any()


def test_flow_beyond_range_is_clamped(tmp_path):
    write_kitti_flow(tmp_path / "f.png", torch.full((2, 2, 2), 1e6))
    assert read_kitti_flow(tmp_path / "f.png")[0].unique().tolist() == [(65535 - 2**15) / 64]


@pytest.mark.parametrize("filter_type", range(5))
def test_flow_png_of_any_row_filter(tmp_path, filter_type):
    """PNG's five row filters, applied here by the letter of RFC 2083, section 6."""
    samples = torch.randint(0, 65536, (6, 5, 3), generator=torch.Generator().manual_seed(filter_type)).numpy()
    samples[..., 2] = 1
    raw = samples.astype(">u2").reshape(6, -1).view(np.uint8).astype(int)
    above = np.vstack([np.zeros((1, 30), int), raw[:-1]])
    left, upper_left = (np.hstack([np.zeros((6, 6), int), rows[:, :-6]]) for rows in (raw, above))
    guess = left + above - upper_left
    distances = np.stack([abs(guess - left), abs(guess - above), abs(guess - upper_left)])
    paeth = np.choose(distances.argmin(0), [left, above, upper_left])
    predicted = [np.zeros_like(raw), left, above, (left + above) // 2, paeth][filter_type]
    rows = np.hstack([np.full((6, 1), filter_type), (raw - predicted) % 256]).astype(np.uint8)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in [
        (b"IHDR", struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    ]:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    (tmp_path / "f.png").write_bytes(content)
    flow, valid = read_kitti_flow(tmp_path / "f.png")
    expected = (samples[..., :2].astype(float) - 2**15) / 64
    assert valid.all()
    assert np.array_equal(flow.permute(1, 2, 0).numpy(), expected)


def test_flow_in_8_bits_or_truncated_is_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "eight.png")
    with pytest.raises(DataError, match=r"eight\.png"):
        read_kitti_flow(tmp_path / "eight.png")
    write_kitti_flow(tmp_path / "cut.png", torch.randn(2, 40, 40))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-900])
    with pytest.raises(DataError, match=r"cut\.png"):
        read_kitti_flow(tmp_path / "cut.png")

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from transframer.data.formats.images import (
    image_size,
    load_image,
    resize_flow,
    resize_image,
    resize_nearest,
    save_png,
)
from transframer.errors import DataError


def pixels(path):
    return load_image(path).permute(1, 2, 0).numpy()


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff", "bmp"])
def test_lossless_formats_are_exact(tmp_path, rgb, suffix):
    Image.fromarray(rgb).save(tmp_path / f"a.{suffix}", lossless=True)
    assert np.array_equal(pixels(tmp_path / f"a.{suffix}"), rgb)


def test_save_png_round_trip(tmp_path, rgb):
    image = torch.from_numpy(rgb).permute(2, 0, 1)
    save_png(tmp_path / "a.png", image)
    assert torch.equal(load_image(tmp_path / "a.png"), image)
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_orientation(tmp_path, rgb, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(pixels(tmp_path / "a.png"), np.rot90(rgb, turn))
    assert image_size(tmp_path / "a.png") == np.rot90(rgb, turn).shape[:2]
    Image.fromarray(rgb).save(tmp_path / "a.tif", exif=exif)
    assert np.array_equal(pixels(tmp_path / "a.tif"), np.rot90(rgb, turn))
    assert image_size(tmp_path / "a.tif") == np.rot90(rgb, turn).shape[:2]


@pytest.mark.parametrize("size", [(64, 64), (50, 37)])
def test_jpeg_files_are_read_as_pillow_reads_them(tmp_path, size):
    """By the codec's kernels where they can, and by Pillow where not (progressive, turned)."""
    smooth = F.interpolate(torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(0)), size)
    picture = Image.fromarray((255 * smooth[0]).byte().permute(1, 2, 0).numpy())
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({}, {"quality": 95}, {"subsampling": "4:4:4"}, {"progressive": True}, {"exif": exif}):
        picture.save(tmp_path / "a.jpg", **options)
        with Image.open(tmp_path / "a.jpg") as opened:
            expected = np.array(opened.convert("RGB"))
        if "exif" in options:
            expected = np.rot90(expected, -1)
        assert np.array_equal(pixels(tmp_path / "a.jpg"), expected)
        data = io.BytesIO((tmp_path / "a.jpg").read_bytes())
        assert np.array_equal(pixels(data), expected)


@pytest.mark.parametrize("name", ["a\0.jpg", "none.jpg", "folder.jpg"])
def test_jpeg_files_that_cannot_be_opened_are_named(tmp_path, name):
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(DataError):
        load_image(tmp_path / name)


def test_a_huge_file_is_not_read_as_a_whole(tmp_path):
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.write(b"\xff\xd8")
        file.truncate(2**40)  # sparse
    with pytest.raises(DataError, match="not an image"):
        load_image(tmp_path / "huge.jpg", max_pixels=1000)


def test_transparency_over_white(tmp_path):
    rgba = np.array([[[200, 100, 0, 0], [200, 100, 0, 255], [200, 100, 0, 128]]], dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    found = pixels(tmp_path / "a.png")[0].astype(int)
    assert found[0].tolist() == [255, 255, 255]
    assert found[1].tolist() == [200, 100, 0]
    assert abs(found[2] - (np.array([200, 100, 0]) * 128 + 255 * 127) / 255).max() <= 1


def test_palette_grey_bilevel_and_cmyk(tmp_path):
    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), mode="P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "p.png")
    assert pixels(tmp_path / "p.png").tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    palette.save(tmp_path / "t.png", transparency=1)
    assert pixels(tmp_path / "t.png").tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    Image.fromarray(np.array([[0, 77]], dtype=np.uint8)).save(tmp_path / "g.png")
    assert pixels(tmp_path / "g.png").tolist() == [[[0] * 3, [77] * 3]]
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1").save(tmp_path / "b.png")
    assert pixels(tmp_path / "b.png").tolist() == [[[0] * 3, [255] * 3]]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    assert abs(pixels(tmp_path / "c.jpg").astype(int) - [255, 0, 0]).max() <= 3


def test_16_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert pixels(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def huge_png(path, side):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize("side", [8_001, 15_000, 2**31 - 1])
def test_enormous_image_is_refused_by_its_header(tmp_path, side):
    huge_png(tmp_path / "huge.png", side)
    with pytest.raises(DataError, match=r"huge\.png") as error:
        load_image(tmp_path / "huge.png")
    assert "pixels" in str(error.value)


def test_the_cap_can_be_set(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", max_pixels=54).shape == (3, 6, 9)
    with pytest.raises(DataError, match="9 x 6"):
        load_image(tmp_path / "a.png", max_pixels=53)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "gif", "bmp"])
def test_truncated_at_any_point_raises_our_error_or_reads(tmp_path, suffix):
    noise = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole.{suffix}")
    content = (tmp_path / f"whole.{suffix}").read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for length in [*range(0, 200, 7), *range(200, len(content) // 2, 211)]:
        cut.write_bytes(content[:length])
        with pytest.raises(DataError, match=rf"cut\.{suffix}"):
            load_image(cut)


def test_flipped_bits_raise_nothing_but_our_error(tmp_path):
    random = np.random.default_rng(2)
    for suffix in ("png", "jpg", "webp"):
        Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp_path / f"a.{suffix}")
        content = (tmp_path / f"a.{suffix}").read_bytes()
        for position in random.integers(0, len(content), 60):
            damaged = bytearray(content)
            damaged[position] ^= 1 << int(random.integers(8))
            (tmp_path / f"b.{suffix}").write_bytes(damaged)
            try:
                assert load_image(tmp_path / f"b.{suffix}", max_pixels=10_000).dtype == torch.uint8
            except DataError as error:
                assert f"b.{suffix}" in str(error)  # noqa: PT017


def test_missing_file_folder_and_text(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    for name in ("none.png", "text.png", ""):
        with pytest.raises(DataError, match=name or str(tmp_path)):
            load_image(tmp_path / name)


def test_nothing_is_left_of_a_failed_write(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        save_png(tmp_path / "none" / "a.png", torch.zeros(3, 4, 4, dtype=torch.uint8))
    assert not list(tmp_path.iterdir())


def test_resize_image_agrees_with_pillow():
    image = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (3, 50, 31), dtype=np.uint8))
    found = resize_image(image, (17, 40)).permute(1, 2, 0).numpy().astype(int)
    expected = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((40, 17), Image.Resampling.BICUBIC)
    assert abs(found - np.asarray(expected)).max() <= 1


def test_resize_nearest_takes_the_centre_and_mixes_nothing():
    labels = torch.tensor([[1, 9, 2, 8], [3, 7, 4, 6]])
    assert (
        resize_nearest(labels, (4, 8)).tolist()
        == [[1, 1, 9, 9, 2, 2, 8, 8]] * 2 + [[3, 3, 7, 7, 4, 4, 6, 6]] * 2
    )
    assert resize_nearest(torch.arange(9).view(3, 3), (1, 1)).item() == 4
    big = torch.randint(0, 5, (13, 21))
    expected = F.interpolate(big[None, None].float(), (64, 9), mode="nearest-exact")[0, 0].long()
    assert torch.equal(resize_nearest(big, (64, 9)), expected)


def test_resize_flow_scales_vectors():
    flow = torch.stack([torch.full((4, 8), 3.0), torch.full((4, 8), -2.0)])
    found = resize_flow(flow, (8, 4))
    assert torch.allclose(found[0], torch.full((8, 4), 1.5))
    assert torch.allclose(found[1], torch.full((8, 4), -4.0))

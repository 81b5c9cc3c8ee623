import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.codec import (
    check_tokens,
    compiled,
    grid_from_image,
    grid_from_jpeg,
    grid_size,
    image_from_jpeg,
    jpeg_size,
    legal_mask,
    tokens_from_grid,
)
from transframer.errors import DataError
from transframer.frames import CodecSettings

SAMPLINGS = ("4:2:0", "4:4:4")
SIZES = ((64, 64), (100, 150), (49, 33), (16, 41))


@pytest.fixture(params=["kernel", "pyjpegio"])
def route(request, monkeypatch):
    """Both ways to read a file."""
    if request.param == "kernel":
        pytest.importorskip("numba")
    else:
        pytest.importorskip("jpegio")
        found = compiled.kernels
        monkeypatch.setattr(compiled, "kernels", lambda name: None if name == "jpeg" else found(name))


def jpeg(image: torch.Tensor, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def pixels(file: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(file)).convert("RGB"))).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subsampling", SAMPLINGS)
def test_a_file_in_our_tables_is_read_as_libjpeg_wrote_it(size, subsampling, photograph, libjpeg, route):
    for quality in (20, 75, 95):
        file = libjpeg(photograph("coffee", size), quality, subsampling)
        grid = grid_from_jpeg(file.path, CodecSettings(quality, subsampling))
        assert grid.dtype == torch.int16
        assert grid.shape == (192, *grid_size(size))
        assert not file.differences(grid).any()
        assert jpeg_size(file.path) == size


@pytest.mark.parametrize("theirs", ["4:2:0", "4:2:2", "4:4:4", "L", "progressive", "restart"])
@pytest.mark.parametrize("subsampling", SAMPLINGS)
def test_coefficients_are_those_of_the_decoded_pixels(theirs, subsampling, photograph, route):
    options = {"progressive": {"progressive": True}, "restart": {"restart_marker_blocks": 3}}.get(theirs, {})
    if theirs[0] == "4":
        options = {"subsampling": theirs}
    for quality, ours, near in ((75, 75, 0.995), (90, 50, 0.999), (50, 85, 0.99)):
        for name, size in (("astronaut", (64, 64)), ("rocket", (100, 150)), ("coffee", (256, 256))):
            image = photograph(name, size)
            file = jpeg(image, "L" if theirs == "L" else "RGB", quality=quality, **options)
            chosen = CodecSettings(ours, subsampling)
            grid = grid_from_jpeg(file, chosen)
            difference = (grid.int() - grid_from_image(pixels(file), [chosen])[0].int()).abs()
            assert (difference <= 1).float().mean() >= near
            kept = grid[legal_mask(grid_size(size), subsampling).view_as(grid)].count_nonzero()
            assert kept == grid.count_nonzero()
            check_tokens(tokens_from_grid(grid[None]), [chosen], grid_size(size))


def test_both_routes_agree(photograph, monkeypatch):
    pytest.importorskip("numba")
    pytest.importorskip("jpegio")
    for size in (*SIZES, (7, 7), (1, 1)):
        file = jpeg(photograph("chelsea", size), quality=80, subsampling="4:2:0")
        for chosen in (CodecSettings(80), CodecSettings(43)):
            grid = grid_from_jpeg(file, chosen)
            with monkeypatch.context() as patch:
                patch.setattr(compiled, "kernels", lambda name: None)
                assert torch.equal(grid_from_jpeg(file, chosen), grid)


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_files_are_refused(progressive, photograph, route):
    file = jpeg(photograph("coffee", (40, 40)), progressive=progressive)
    for n in (*range(0, len(file) - 2, 37), len(file) - 2):
        with pytest.raises(DataError) as error:
            grid_from_jpeg(file[:n], CodecSettings())
        assert len(str(error.value).splitlines()) <= 3


def test_markers_may_begin_with_fill_bytes(photograph):
    image = photograph("coffee", (48, 48))
    file = jpeg(image, restart_marker_blocks=2)
    scan = file.index(b"\xff\xda")
    filled = re.sub(rb"\xff[\xd0-\xd7]", lambda marker: b"\xff\xff" + marker[0], file[scan:])
    assert len(filled) > len(file) - scan
    plain, same = (grid_from_jpeg(data, CodecSettings()) for data in (file, file[:scan] + filled))
    assert torch.equal(plain, same)


def test_data_cut_short_before_the_end_marker_are_refused(photograph):
    pytest.importorskip("numba")
    for options in ({}, {"restart_marker_blocks": 2}):
        file = jpeg(photograph("coffee", (40, 40)), **options)
        for n in range(file.index(b"\xff\xda") + 20, len(file) - 3, 11):
            with pytest.raises(DataError, match=r"truncated|damaged"):
                grid_from_jpeg(file[:n] + b"\xff\xd9", CodecSettings())


def test_flipped_bits_give_a_grid_or_an_error(photograph, route):
    file = jpeg(photograph("coffee", (40, 40)))
    generator = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(file)
        damaged[generator.integers(2, len(file))] ^= 1 << generator.integers(8)
        try:
            assert grid_from_jpeg(bytes(damaged), CodecSettings()).shape[0] == 192
        except DataError as error:
            assert len(str(error).splitlines()) <= 3  # noqa: PT017


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n", "not a JPEG file"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "damaged or cut off"),
        (jpeg(torch.zeros(3, 16, 16, dtype=torch.uint8), "CMYK"), "CMYK"),
        (jpeg(torch.zeros(3, 16, 16, dtype=torch.uint8), keep_rgb=True), "of RGB"),
    ],
)
def test_other_files_are_refused(file, message):
    with pytest.raises(DataError, match=message):
        grid_from_jpeg(file, CodecSettings())


def test_a_missing_file_and_a_reference_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read") as error:
        grid_from_jpeg(tmp_path / "none.jpg", CodecSettings())
    assert "none.jpg" in str(error.value)
    with pytest.raises(DataError, match="reference"):
        grid_from_jpeg(b"", CodecSettings(reference=(1.0,)))


def test_pixels_that_would_fill_the_memory_are_refused(photograph):
    file = jpeg(photograph("coffee", (16, 16)))
    at = file.index(b"\xff\xc0") + 5
    with pytest.raises(DataError, match="60000 x 60000"):
        grid_from_jpeg(file[:at] + (60000).to_bytes(2) * 2 + file[at + 4 :], CodecSettings())


def test_without_the_packages_the_error_says_which(photograph, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jpegio", None)
    file = jpeg(photograph("coffee", (16, 16)), progressive=True)
    with pytest.raises(DataError, match=r"transframer\[jpeg\]"):
        grid_from_jpeg(file, CodecSettings())


@pytest.mark.parametrize("theirs", ["4:2:0", "4:4:4", "L", "restart", "optimised"])
def test_pixels_are_those_that_libjpeg_decodes(theirs, photograph):
    pytest.importorskip("numba")
    options = {"restart": {"restart_marker_blocks": 3}, "optimised": {"optimize": True}}.get(theirs, {})
    if theirs[0] == "4":
        options = {"subsampling": theirs}
    for quality in (5, 50, 75, 98):
        for size in (*SIZES, (7, 7), (9, 5), (40, 6), (18, 130)):
            image = photograph("astronaut", size)
            file = jpeg(image, "L" if theirs == "L" else "RGB", quality=quality, **options)
            decoded = image_from_jpeg(file, "a.jpg", 10**6)
            assert decoded is not None
            assert torch.equal(decoded, pixels(file)[0])


def test_pixels_of_other_files_are_left_to_others(photograph):
    image = photograph("coffee", (32, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    good, restarts = jpeg(image), jpeg(image, restart_marker_blocks=2)
    tables = good.index(b"\xff\xc4")
    others = {
        "turned": jpeg(image, exif=exif),
        "turned by XMP": jpeg(image, xmp=xmp),
        "narrow": jpeg(image[..., :4]),
        "restarts out of order": restarts.replace(b"\xff\xd1", b"\xff\xd5"),
        "without Huffman tables": good[:tables] + good[good.index(b"\xff\xda") :],
        "two frames": good[:tables] + good[good.index(b"\xff\xc0") : tables] + good[tables:],
        "progressive": jpeg(image, progressive=True),
        "sampled 4:2:2": jpeg(image, subsampling="4:2:2"),
        "CMYK": jpeg(image, "CMYK"),
        "RGB": jpeg(image, keep_rgb=True),
        "without an end": good[: len(good) // 2],
        "with stray data": good[:-2] + bytes(9) + good[-2:],
        "empty": b"",
        "no JPEG": b"\x89PNG\r\n\x1a\n",
    }
    for what, file in others.items():
        assert image_from_jpeg(file, "a.jpg", 10**6) is None, what
    assert image_from_jpeg(good, "a.jpg", 32 * 48 - 1) is None, "too large"
    pytest.importorskip("numba")
    assert image_from_jpeg(good, "a.jpg", 32 * 48) is not None


def test_pixels_that_libjpeg_would_make_up_are_an_error(photograph):
    pytest.importorskip("numba")
    good = jpeg(photograph("coffee", (64, 64)), quality=90)
    with pytest.raises(DataError, match=r"a.jpg: a truncated JPEG file"):
        image_from_jpeg(good[: len(good) // 2] + b"\xff\xd9", "a.jpg", 10**6)


def test_a_header_seen_before_is_that_of_the_file(photograph):
    """Files that begin alike share a header, whatever else holds its last marker: a thumbnail, a comment."""
    plain = jpeg(photograph("coffee", (32, 48)), quality=60)
    larger = jpeg(photograph("rocket", (48, 32)), quality=60)
    thumbnail = b"\xff\xe2" + (2 + len(larger)).to_bytes(2) + larger
    comment = b"\xff\xfe\x00\x08\xff\xda\x00\x04ab"
    long = b"\xff\xfe" + (2 + 9000).to_bytes(2) + bytes(9000)
    chosen = CodecSettings(60)
    expected = grid_from_jpeg(plain, chosen)
    for inserted in (b"", thumbnail, comment, long, thumbnail + comment):
        file = plain[:2] + inserted + plain[2:]
        for _ in range(2):
            assert jpeg_size(file) == (32, 48)
            assert torch.equal(grid_from_jpeg(file, chosen), expected)
    assert jpeg_size(larger) == (48, 32)

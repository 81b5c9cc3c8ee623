"""A toy autoencoder of two codebooks: the upper bits of red (4 codes) and of green (2 codes); no blue."""

import dataclasses
import io
import math
from typing import TypedDict

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.benchmarks.autoencoder import QUALITIES, at_rate, autoencoder_report, jpeg_point, scan_bytes
from transframer.benchmarks.parts import RatePoint
from transframer.benchmarks.report import html_report
from transframer.benchmarks.results import TaskResult
from transframer.benchmarks.tables import codec_rows, markdown
from transframer.data.world import World
from transframer.errors import ConfigError
from transframer.task import Clip
from transframer.tasks.image_quality import psnr, ssim


class Bits(torch.nn.Module):
    codebook_sizes = [4, 2]  # noqa: RUF012

    def bits_per_image(self, height, width):
        return height * width * 3.0

    def encode_indices(self, images):
        return torch.stack([images[:, 0] // 64, images[:, 1] // 128], -1).long()

    def decode_indices(self, indices):
        red, green = indices[..., 0] * 64 + 32, indices[..., 1] * 128 + 64
        return torch.stack([red, green, torch.zeros_like(red)], 1).byte()


class Grey(Bits):
    """One codebook, whose codes have no axis of codebooks."""

    codebook_sizes = [16]  # noqa: RUF012

    def bits_per_image(self, height, width):
        return height * width * 4.0

    def encode_indices(self, images):
        return images.float().mean(1).long() // 16

    def decode_indices(self, indices):
        return (indices * 16 + 8).byte()[:, None].expand(-1, 3, -1, -1)


class Images(TypedDict):
    images: torch.Tensor


@pytest.fixture
def predictor(toy_predictor):
    def make(autoencoder):
        toy_predictor.autoencoder = autoencoder
        return toy_predictor

    return make


def photo(seed, side=32):
    return World("test", seed, side).samples([0], Images, Clip())[0]["images"][0]


def test_use_and_rates_are_the_ones_worked_out_by_hand(predictor):
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[0, :8] = 200  # code 3 in half of the pixels, 0 in the others
    image[1] = 130  # code 1 throughout
    found = autoencoder_report(predictor(Bits()), [image, image])
    red, green = found.codebooks
    assert (red.codes, red.used, red.perplexity) == (4, 0.5, pytest.approx(2))
    assert (green.codes, green.used, green.perplexity) == (2, 0.5, 1)
    assert found.nominal_bits == 256 * 3
    assert found.entropy_bits == pytest.approx(256)  # one bit of red, none of green
    restored = torch.stack(
        [torch.where(image[0] > 0, 224, 32), torch.full((16, 16), 192), torch.zeros(16, 16)]
    ).byte()
    assert found.psnr == pytest.approx(psnr(restored, image))
    assert found.ssim == pytest.approx(ssim(restored, image))
    assert found.images == 2


def test_images_of_several_sizes_count_by_their_own_rates(predictor):
    images = [photo(0, 16), photo(1, 16), photo(2, 32)]
    found = autoencoder_report(predictor(Grey()), images)
    assert found.nominal_bits == 4 * (256 + 256 + 1024) / 3
    (book,) = found.codebooks
    counts = np.bincount(np.concatenate([(i.float().mean(0) // 16).flatten() for i in images]).astype(int))
    share = counts[counts > 0] / counts.sum()
    assert book.perplexity == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert found.entropy_bits == pytest.approx(-(share * np.log2(share)).sum() * 1536 / 3)


def test_codes_that_do_not_fit_the_codebooks_are_an_error(predictor):
    class Three(Bits):
        codebook_sizes = [4, 2, 2]  # noqa: RUF012

    with pytest.raises(ConfigError, match=r"codes of shape \(1, 16, 16, 2\)"):
        autoencoder_report(predictor(Three()), [photo(0, 16)])


@pytest.mark.parametrize(("side", "expected"), [(16, 2), (32, 6), (64, 24)])
def test_a_grey_jpeg_has_two_bits_a_block(side, expected):
    """Every block is the code of "no difference" and that of "end of block", a bit each with fitted tables.

    In 4:2:0, 16 x 16 pixels have four blocks of luma and one of each chroma: 12 bits, padded to 2 bytes.
    """
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (128, 128, 128)).save(
        buffer, "JPEG", quality=50, optimize=True, subsampling="4:2:0"
    )
    assert scan_bytes(buffer.getvalue()) == expected
    grey = torch.full((3, side, side), 128, dtype=torch.uint8)
    point = jpeg_point([grey, grey], 50)
    assert (point.quality, point.bits, point.psnr, point.ssim) == (50, 8 * expected, 60, 1)


def test_a_comment_in_the_file_is_not_counted():
    buffers = [io.BytesIO(), io.BytesIO()]
    picture = Image.fromarray(photo(0).permute(1, 2, 0).numpy())
    for buffer, comment in zip(buffers, (b"", b"\xff\xda" * 40), strict=True):
        picture.save(buffer, "JPEG", quality=80, comment=comment)
    plain, commented = (buffer.getvalue() for buffer in buffers)
    assert len(commented) > len(plain)
    assert scan_bytes(commented) == scan_bytes(plain)


def test_jpeg_is_read_off_between_the_qualities_around_the_rate(predictor):
    images = [photo(seed) for seed in range(3)]
    found = autoencoder_report(predictor(Bits()), images)
    assert [point.quality for point in found.jpeg] == list(QUALITIES)
    assert all(a.bits < b.bits for a, b in zip(found.jpeg, found.jpeg[1:], strict=False))
    below = [point for point in found.jpeg if point.bits <= found.nominal_bits][-1]
    above = next(point for point in found.jpeg if point.bits > found.nominal_bits)
    weight = math.log(found.nominal_bits / below.bits) / math.log(above.bits / below.bits)
    assert found.jpeg_psnr == pytest.approx((1 - weight) * below.psnr + weight * above.psnr)
    assert found.jpeg_ssim == pytest.approx((1 - weight) * below.ssim + weight * above.ssim)


def test_a_rate_that_jpeg_does_not_have_is_none_and_said(predictor):
    class Cheap(Bits):
        def bits_per_image(self, height, width):
            return 8.0

    found = autoencoder_report(predictor(Cheap()), [photo(0)])
    assert (found.jpeg_psnr, found.jpeg_ssim) == (None, None)
    assert "no equal rate" in codec_rows(found)[-1][0]
    points = [RatePoint(1, 100.0, 20.0, 0.5), RatePoint(2, 100.0, 20.0, 0.5), RatePoint(3, 200.0, 30.0, 0.6)]
    assert at_rate(points, 99.0) is at_rate(points, 201.0) is None
    assert at_rate(points, 200.0) == (30.0, 0.6)


def test_many_images_are_thinned_evenly(predictor, monkeypatch):
    monkeypatch.setattr("transframer.benchmarks.autoencoder.MOST_IMAGES", 2)
    dark, bright = (torch.full((3, 16, 16), level, dtype=torch.uint8) for level in (0, 255))
    found = autoencoder_report(predictor(Grey()), [dark, dark, bright, bright])
    assert found.images == 2
    assert found.codebooks[0].perplexity == pytest.approx(2)


def test_a_benchmark_measures_it_on_its_targets_and_shows_it(predictor, toy_benchmark, tmp_path):
    (result,) = toy_benchmark(predictor=predictor(Grey()))
    found = result.autoencoder
    # Targets are flat, of 20, 22, ... 34 levels: codes 1 (20 to 30) and 2 (32, 34).
    assert found.images == 8
    assert found.codebooks[0].used == 2 / 16
    assert found.nominal_bits == 1024
    assert "Pillow" in result.protocol["jpeg"]
    assert TaskResult.from_json(result.to_json()) == result
    assert "## Autoencoder on 8 targets of toy_doubling" in markdown([result], "command")
    assert "autoencoder, codes at their entropy" in html_report([result], "command", tmp_path)
    plain = dataclasses.replace(result, autoencoder=None)
    assert "autoencoder" not in html_report([plain], "command", tmp_path)

import io

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from transframer.codec import (
    channel_plane,
    channel_zigzag,
    dct_from_image,
    grid_from_image,
    grid_size,
    image_from_grid,
    legal_mask,
    quantisation,
)
from transframer.codec.layout import ZIGZAG
from transframer.errors import DataError
from transframer.frames import CodecSettings

NAMES = ("astronaut", "coffee", "chelsea", "rocket")
SIZES = ((64, 64), (75, 117), (46, 33), (128, 128))


@st.composite
def images(draw):
    """Constant, noisy, saturated and striped images of any size from 1 x 1."""
    height, width = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    noise = torch.randint(0, 256, (3, height, width), generator=generator)
    kind = draw(st.sampled_from(["constant", "noise", "saturated", "stripes"]))
    if kind == "constant":
        noise = noise[:, :1, :1].expand(3, height, width)
    elif kind == "saturated":
        noise = (noise > 127) * 255
    elif kind == "stripes":
        noise = noise[:, :, :1].expand(3, height, width)
    return noise.to(torch.uint8)


any_settings = st.builds(
    CodecSettings, quality=st.integers(1, 100), subsampling=st.sampled_from(["4:2:0", "4:4:4"])
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_photographs_are_coded_and_decoded_as_by_libjpeg(name, subsampling, photograph, libjpeg):
    for size in SIZES:
        image = photograph(name, size)
        for quality in (10, 35, 50, 75, 95, 100):
            chosen = [CodecSettings(quality, subsampling)]
            grid = grid_from_image(image[None], chosen)
            file = libjpeg(image, quality, subsampling)
            differences = file.differences(grid[0])
            assert (differences == 0).float().mean() >= 0.9999
            assert differences.abs().max() <= 1
            decoded = image_from_grid(grid, chosen, size)[0]
            assert (decoded.int() - file.pixels().int()).abs().float().mean() < 0.5


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(image=images(), chosen=any_settings)
def test_any_image_is_coded_and_decoded_as_by_libjpeg(image, chosen, libjpeg):
    size = tuple(image.shape[1:])
    grid = grid_from_image(image[None], [chosen])
    file = libjpeg(image, chosen.quality, chosen.subsampling)
    differences = file.differences(grid[0])
    assert (differences == 0).float().mean() >= 0.999
    assert differences.abs().max() <= 1
    assert not grid.flatten(2)[0, ~legal_mask(grid_size(size), chosen.subsampling)].any()
    if min(size) > 4:  # narrower chroma is not filtered by libjpeg
        decoded = image_from_grid(grid, [chosen], size)[0]
        assert (decoded.int() - file.pixels().int()).abs().float().mean() < 1


def test_quantisation_equals_the_tables_pillow_writes():
    image = Image.new("RGB", (16, 16))
    ours = quantisation(torch.arange(1, 101))
    for quality in range(1, 101):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        tables = Image.open(file).quantization  # in raster order
        for channel in range(192):
            row, column = ZIGZAG[int(channel_zigzag[channel])]
            table = tables[min(1, int(channel_plane[channel]))]
            assert ours[quality - 1, channel] == table[8 * row + column]


def test_dct_agrees_with_scipy_in_fp64(photograph):
    image = photograph("coffee", (32, 48))
    ours = dct_from_image(image[None], torch.tensor([False]))[0]
    red, green, blue = image.double().numpy()
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = (luma - 128, (blue - luma) / 1.772, (red - luma) / 1.402)
    for channel in range(192):
        plane = planes[int(channel_plane[channel])]
        blocks = plane.reshape(4, 8, 6, 8).transpose(0, 2, 1, 3)
        theirs = dctn(blocks, axes=(2, 3), norm="ortho")[:, :, *ZIGZAG[int(channel_zigzag[channel])]]
        assert torch.allclose(ours[channel].double(), torch.tensor(theirs), atol=0.02)


def test_dct_is_linear_but_for_the_level_shift():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 3, 23, 17, generator=generator) * 255
    halve = torch.tensor([True])
    mixed = dct_from_image(0.25 * a + 0.75 * b, halve)
    assert torch.allclose(mixed, 0.25 * dct_from_image(a, halve) + 0.75 * dct_from_image(b, halve), atol=1e-2)


def test_mixed_settings_in_a_batch_equal_one_by_one():
    generator = torch.Generator().manual_seed(0)
    batch = torch.randint(0, 256, (6, 3, 40, 24), generator=generator, dtype=torch.uint8)
    reference = torch.rand(6, 3, 40, 24, generator=generator) * 255
    chosen = [
        CodecSettings(quality, subsampling, weights)
        for quality, subsampling, weights in zip(
            (5, 50, 95, 20, 100, 1),
            ("4:2:0", "4:4:4") * 3,
            (None, (1.0,), None, None, (1.0,), None),
            strict=True,
        )
    ]
    grid = grid_from_image(batch, chosen, reference)
    decoded = image_from_grid(grid, chosen, (40, 24), reference)
    halve = torch.tensor([setting.subsampling == "4:2:0" for setting in chosen])
    dct = dct_from_image(batch, halve)
    for i, setting in enumerate(chosen):
        one = slice(i, i + 1)
        assert torch.equal(grid[one], grid_from_image(batch[one], [setting], reference[one]))
        assert torch.equal(decoded[one], image_from_grid(grid[one], [setting], (40, 24), reference[one]))
        assert torch.allclose(dct[one], dct_from_image(batch[one], halve[one]), atol=1e-3)


def test_large_batches_are_coded_in_pieces_without_a_seam(photograph):
    image = photograph("rocket", (64, 64))
    chosen = CodecSettings(60)
    grid = grid_from_image(image.expand(40, 3, 64, 64), [chosen] * 40)
    assert torch.equal(grid, grid_from_image(image[None], [chosen]).expand_as(grid))


def test_an_image_that_equals_its_reference_costs_nothing(photograph):
    image = photograph("coffee", (30, 50))[None]
    chosen = [CodecSettings(90, "4:2:0", (1.0,))]
    grid = grid_from_image(image, chosen, image.float())
    assert not grid.any()
    assert torch.equal(image_from_grid(grid, chosen, (30, 50), image.float()), image)


@pytest.mark.parametrize("name", NAMES)
def test_a_residual_decodes_to_the_image(name, photograph):
    image, reference = photograph(name, (50, 66))[None], photograph("chelsea", (50, 66))[None].float() * 0.5
    chosen = [CodecSettings(100, "4:4:4", (0.5,))]
    grid = grid_from_image(image, chosen, reference)
    decoded = image_from_grid(grid, chosen, (50, 66), reference)
    assert (decoded.int() - image.int()).abs().float().mean() < 1
    difference = dct_from_image(image, torch.tensor([False])) - dct_from_image(
        reference, torch.tensor([False])
    )
    assert (grid - difference).abs().max() < 4  # steps of 1, planes rounded to whole grey levels


def test_a_missing_reference_is_refused():
    with pytest.raises(DataError, match="no reference image"):
        grid_from_image(torch.zeros(1, 3, 16, 16), [CodecSettings(reference=(1.0,))])


def test_settings_for_fewer_images_are_refused():
    """Kernels would read beyond them."""
    images, one = torch.zeros(3, 3, 16, 16, dtype=torch.uint8), [CodecSettings(50)]
    grid = grid_from_image(images, one * 3)
    for call in (
        lambda: grid_from_image(images, one),
        lambda: image_from_grid(grid, one * 4, (16, 16)),
    ):
        with pytest.raises(DataError, match=r"codec settings for \d of 3 images"):
            call()


def test_autocast_and_inference_mode_leave_the_codec_alone(photograph):
    image = photograph("astronaut", (64, 64))[None]
    chosen = [CodecSettings(100)]
    grid = grid_from_image(image, chosen)
    decoded = image_from_grid(grid, chosen, (64, 64))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(grid_from_image(image, chosen), grid)
        assert torch.equal(image_from_grid(grid, chosen, (64, 64)), decoded)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_a_gpu_codes_as_a_cpu_does_with_tf32_on(subsampling, photograph, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    images = torch.stack([photograph(name, (75, 117)) for name in NAMES])
    chosen = [CodecSettings(quality, subsampling) for quality in (10, 50, 90, 100)]
    grid = grid_from_image(images, chosen)
    on_gpu = grid_from_image(images.cuda(), chosen)
    assert (on_gpu.cpu() == grid).float().mean() >= 0.9999
    assert (on_gpu.cpu() - grid).abs().max() <= 1
    decoded = image_from_grid(grid.cuda(), chosen, (75, 117)).cpu().int()
    assert (decoded - image_from_grid(grid, chosen, (75, 117)).int()).abs().max() <= 1

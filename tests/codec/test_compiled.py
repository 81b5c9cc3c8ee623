import sys

import pytest
import torch

from transframer.codec import (
    compiled,
    grid_from_image,
    grid_from_tokens,
    image_from_grid,
    tokens_from_grid,
)
from transframer.codec.tokens import Tokens
from transframer.frames import CodecSettings

pytest.importorskip("numba")

# beyond a band of the encoder, and wider than a run of blocks
SIZES = ((1, 1), (16, 16), (33, 50), (129, 140), (20, 4200))


@pytest.fixture
def in_torch(monkeypatch):
    """Runs a function without the kernels."""

    def run(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "kernels", lambda name: None)
            return function(*args)

    return run


@pytest.mark.parametrize("size", SIZES)
def test_kernels_code_as_pytorch_does(size, in_torch):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (4, 3, *size), generator=generator, dtype=torch.uint8)
    smooth = (torch.arange(size[1]) % 256).expand(4, 3, *size).to(torch.uint8)
    chosen = [CodecSettings(q, s) for q, s in ((5, "4:2:0"), (40, "4:4:4"), (85, "4:2:0"), (95, "4:4:4"))]
    for images in (noise, smooth, noise.float(), noise.transpose(2, 3).contiguous().transpose(2, 3)):
        grid = grid_from_image(images, chosen)
        assert torch.equal(compiled.encode(images, chosen), grid)
        assert (grid != in_torch(grid_from_image, images, chosen)).float().mean() < 1e-5
        decoded = image_from_grid(grid, chosen, size)
        assert torch.equal(compiled.decode(grid, chosen, size), decoded)
        difference = (decoded.int() - in_torch(image_from_grid, grid, chosen, size).int()).abs()
        assert difference.max() <= 3
        assert difference.float().mean() < 0.3


def test_kernels_code_residuals_as_pytorch_does(photograph, in_torch):
    image, reference = photograph("coffee", (50, 70))[None], photograph("chelsea", (50, 70))[None].float()
    for weight in (1.0, 0.5):
        chosen = [CodecSettings(90, "4:4:4", (weight,))]
        grid = grid_from_image(image, chosen, reference * weight)
        assert torch.equal(grid, in_torch(grid_from_image, image, chosen, reference * weight))


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
@pytest.mark.parametrize("quality", [10, 50, 90, 100])
def test_kernels_decode_as_libjpeg_does(subsampling, quality, photograph, libjpeg):
    for name, size in (("astronaut", (64, 64)), ("coffee", (75, 117)), ("rocket", (46, 33))):
        image, chosen = photograph(name, size), [CodecSettings(quality, subsampling)]
        file = libjpeg(image, quality, subsampling)
        assert torch.equal(
            image_from_grid(grid_from_image(image[None], chosen), chosen, size)[0], file.pixels()
        )


def test_kernels_find_the_triples_that_pytorch_does(photograph, in_torch):
    images = torch.stack([photograph(name, (48, 80)) for name in ("astronaut", "coffee", "rocket")])
    grid = grid_from_image(images, [CodecSettings(q) for q in (10, 50, 90)])
    for given in (grid, grid[1:], grid.transpose(2, 3), torch.zeros_like(grid)):
        tokens = tokens_from_grid(given, 20)
        for ours, theirs in zip(tokens, in_torch(tokens_from_grid, given, 20), strict=True):
            assert torch.equal(ours, theirs)
        size = tuple(given.shape[2:])
        assert torch.equal(grid_from_tokens(tokens, size), given.clamp(-20, 20))
        assert torch.equal(in_torch(grid_from_tokens, tokens, size), given.clamp(-20, 20))


def test_a_triple_outside_the_grid_writes_nowhere():
    column = torch.tensor([[0, 3]])
    tokens = Tokens(column, torch.tensor([[0, 10**6]]), column, torch.tensor([2]))
    with pytest.raises((RuntimeError, IndexError)):
        grid_from_tokens(tokens, (2, 2))


def test_numba_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("jit", "encode_kernels", "decode_kernels", "token_kernels"):
        monkeypatch.delitem(sys.modules, f"transframer.codec.{name}", raising=False)
    compiled.kernels.cache_clear()
    try:
        chosen, grey = [CodecSettings(50)], torch.full((1, 3, 16, 16), 132, dtype=torch.uint8)
        tokens = tokens_from_grid(grid_from_image(grey, chosen))
        assert compiled.kernels("encode") is None
        assert torch.equal(image_from_grid(grid_from_tokens(tokens, (2, 2)), chosen, (16, 16)), grey)
    finally:
        compiled.kernels.cache_clear()


def test_what_kernels_cannot_take_is_left_to_pytorch():
    chosen = [CodecSettings(50)]
    grey = torch.full((1, 3, 20, 20), 100, dtype=torch.uint8)
    grid = grid_from_image(grey, chosen)
    assert compiled.encode(grey.double(), chosen) is None
    assert torch.equal(grid_from_image(grey.double(), chosen), grid)
    assert compiled.decode(grid.int(), chosen, (20, 20)) is None
    assert torch.equal(image_from_grid(grid.int(), chosen, (20, 20)), grey)
    assert compiled.find_nonzero(grid.int()) is None

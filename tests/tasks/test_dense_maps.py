import pytest
import torch

from transframer.tasks.dense_maps import fill_unknown, follow_edges


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (64, 64)])
def test_dense_maps_keeps_what_is_known_and_stays_between(size):
    generator = torch.Generator().manual_seed(0)
    values, known = torch.rand(2, *size, generator=generator), torch.rand(size, generator=generator) > 0.7
    known[0, 0] = True
    filled = fill_unknown(torch.where(known, values, torch.nan), known)
    assert torch.equal(filled[:, known], values[:, known])
    for channel, original in zip(filled, values, strict=True):
        assert original[known].min() - 1e-6 <= channel.min()
        assert channel.max() <= original[known].max() + 1e-6


def test_dense_maps_with_nothing_known():
    assert (
        fill_unknown(torch.full((1, 3, 4), torch.nan), torch.zeros(3, 4).bool(), default=7.0).unique().item()
        == 7
    )


def test_filling_is_smooth_between_what_is_known():
    values = torch.linspace(0, 1, 32).expand(1, 32, 32).clone()
    known = torch.ones(32, 32, dtype=torch.bool)
    known[:, 9:23] = False
    steps = fill_unknown(values, known)[0].diff(dim=1)
    assert steps.max() < 0.25  # one step across the hole would be 0.45


def test_edges_agree_with_a_loop():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 60, (3, 7, 6), generator=generator).byte()
    values = torch.randn(2, 7, 6, generator=generator)
    found = follow_edges(values, image, radius_px=2, sigma_px=1.3, sigma_greys=17.0)
    for y, x in ((3, 3), (0, 0), (6, 2)):
        total, weights = torch.zeros(2), 0.0
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                v, u = min(max(y + dy, 0), 6), min(max(x + dx, 0), 5)
                contrast = (image[:, v, u].float() - image[:, y, x].float()).square().sum()
                weight = torch.exp(-contrast / (2 * 17.0**2) - (dx**2 + dy**2) / (2 * 1.3**2))
                total, weights = total + weight * values[:, v, u], weights + weight
        assert torch.allclose(found[:, y, x], total / weights, atol=1e-5)


def test_a_blurred_edge_moves_back_to_the_images():
    truth = torch.zeros(1, 16, 16)
    truth[..., 8:] = 1
    image = (truth * 200).byte().expand(3, 16, 16)
    blurred = torch.nn.functional.avg_pool2d(truth[None], 5, 1, 2, count_include_pad=False)[0]
    sharpened = follow_edges(blurred, image)
    assert (sharpened - truth).abs().max() < 0.7 * (blurred - truth).abs().max()
    assert torch.allclose(follow_edges(truth, image), truth, atol=1e-6)

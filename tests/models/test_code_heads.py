import pytest
import torch

from transframer.models.code_heads import CategoricalHead, RegressionHead
from transframer.models.codebook import Codebooks

from .videos import CONFIG

WIDTH = CONFIG.groups * CONFIG.code_width


def books():
    made = Codebooks(CONFIG.groups, CONFIG.codes, CONFIG.code_width, 0.99, 0.0)
    made.vectors.copy_(torch.randn(made.vectors.shape, generator=torch.Generator().manual_seed(2)))
    return made


def head(cls):
    torch.manual_seed(0)
    made = cls(CONFIG)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize("cls", [CategoricalHead, RegressionHead])
def test_the_probabilities_of_all_codes_of_a_cell_sum_to_one(cls):
    made, codebooks = head(cls), books()
    features, latest = torch.randn(1, CONFIG.width), torch.randn(1, WIDTH)
    k = CONFIG.codes
    codes = torch.cartesian_prod(torch.arange(k), torch.arange(k))
    _, nats = made.scored(features.expand(k * k, -1), latest.expand(k * k, -1), codes, codebooks)
    assert (-nats.double()).exp().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("cls", [CategoricalHead, RegressionHead])
def test_draws_follow_the_probabilities_that_are_scored(cls):
    made, codebooks = head(cls), books()
    features, latest = torch.randn(1, CONFIG.width), torch.randn(1, WIDTH)
    k, n = CONFIG.codes, 20_000
    uniform = torch.rand(n, 2, generator=torch.Generator().manual_seed(0))
    codes, nats = made.drawn(features.expand(n, -1), latest.expand(n, -1), codebooks, 1.0, 1.0, uniform)
    _, scored = made.scored(features.expand(n, -1), latest.expand(n, -1), codes, codebooks)
    assert torch.allclose(nats, scored, atol=1e-4)
    pairs = torch.cartesian_prod(torch.arange(k), torch.arange(k))
    expected = (
        n
        * (
            -made.scored(features.expand(k * k, -1), latest.expand(k * k, -1), pairs, codebooks)[1].double()
        ).exp()
    )
    seen = torch.bincount(codes[:, 0] * k + codes[:, 1], minlength=k * k).double()
    frequent = expected > 5
    chi_square = ((seen - expected).square() / expected)[frequent].sum().item()
    degrees = int(frequent.sum()) - 1
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5

    greedy, _ = made.drawn(features, latest, codebooks, 0.0, 1.0, torch.zeros(1, 2))
    first = made.logits(features, latest, greedy, 0, codebooks).argmax()
    assert greedy[0, 0] == first


def test_the_regressions_scale_moves_no_prediction_and_its_mean_is_least_squares():
    made, codebooks = head(RegressionHead), books()
    features, codes = torch.randn(50, CONFIG.width), torch.randint(8, (50, 2))
    latest = torch.randn(50, WIDTH)
    loss, nats = made.scored(features, latest, codes, codebooks)
    gradient = torch.autograd.grad(loss.sum(), made.change.weight, retain_graph=True)[0]
    target = codebooks.vectors_of(codes)
    error = torch.stack(
        [
            0.5 * (a - b).square().sum(1) / codebooks.vectors[g].var(0).mean()
            for g, (a, b) in enumerate(
                zip((latest + made.change(features)).chunk(2, 1), target.chunk(2, 1), strict=True)
            )
        ]
    ).sum()
    assert torch.allclose(gradient, torch.autograd.grad(error, made.change.weight)[0], atol=1e-4)
    scale = torch.autograd.grad(loss.sum(), made.log_precision)[0]
    nats = made.scored(features.detach(), latest, codes, codebooks)[1]
    assert torch.allclose(scale, torch.autograd.grad(nats.sum(), made.log_precision)[0], atol=1e-4)


def test_the_expected_vector_is_the_mean_over_the_codes():
    made, codebooks = head(CategoricalHead), books()
    features, latest = torch.randn(3, CONFIG.width), torch.randn(3, WIDTH)
    codes, _ = made.drawn(features, latest, codebooks, 0.0, 1.0, torch.zeros(3, 2))
    expected = made.expected(features, latest, codes, codebooks)
    second = made.logits(features, latest, codes, 1, codebooks).softmax(-1)
    by_hand = sum(second[1, k] * codebooks.vectors[1, k] for k in range(CONFIG.codes))
    assert torch.allclose(expected[1, CONFIG.code_width :], by_hand, atol=1e-6)


@pytest.mark.parametrize("cls", [CategoricalHead, RegressionHead])
def test_it_begins_by_repeating_the_latest_frame(cls):
    torch.manual_seed(0)
    made, codebooks = cls(CONFIG), books()
    codes = torch.randint(8, (20, 2))
    drawn, _ = made.drawn(
        torch.randn(20, CONFIG.width), codebooks.vectors_of(codes), codebooks, 0.0, 1.0, torch.zeros(20, 2)
    )
    assert torch.equal(drawn, codes)

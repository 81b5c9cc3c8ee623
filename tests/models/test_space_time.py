from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from transframer.models.code_heads import CategoricalHead, RegressionHead
from transframer.models.space_time import (
    GaussianLayer,
    SpaceTimeTransformer,
    TimeCache,
    kl_of_normals,
    rotated,
)

from .videos import CONFIG

B, T, G = 2, 5, 3  # videos, frames, cells along a side
CHANNELS = CONFIG.groups * CONFIG.code_width


def model(**changes):
    """In double precision, every weight random, so that no path is closed by a zero."""
    torch.manual_seed(0)
    made = SpaceTimeTransformer(replace(CONFIG, **changes)).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return made


def inputs(made, t=T):
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(B, t + 1, G, G, CHANNELS, generator=generator, dtype=torch.float64)
    times = torch.arange(t + 1, dtype=torch.float64).repeat(B, 1) - 3
    noise = torch.randn(made.noise_shape(B, t, G * G), generator=generator, dtype=torch.float64)
    return vectors, times, noise


def features(made, vectors, times, noise, posterior=True, **more):
    targets = vectors[:, 1:] if posterior else None
    return made(vectors[:, :-1], times[:, :-1], times[:, 1:], noise, targets=targets, **more)


def states(made, *arguments, **more):
    """What every layer passes on, and the features."""
    seen = []
    hooks = [layer.register_forward_hook(lambda _, __, out: seen.append(out[0])) for layer in made.layers]
    out, divergence = features(made, *arguments, **more)
    for hook in hooks:
        hook.remove()
    return [*seen, out, divergence.closed_form, divergence.log_ratio]


@pytest.mark.parametrize("whole", [0, 1, 2])
@pytest.mark.parametrize("posterior", [False, True])
@pytest.mark.parametrize("frame", range(T + 1))
def test_no_layer_sees_the_future(frame, posterior, whole):
    made = model(whole_frame_layers=whole)
    vectors, times, noise = inputs(made)
    changed = vectors.clone()
    changed[:, frame, 1, 1] += 1.0
    # What frame t says of frame t + 1 may know t; in training its latents know t + 1 as well.
    first = max(0, frame - 1) if posterior else frame
    for name, before, after in zip(
        ("layer 1", "layer 2", "features", "kl", "log ratio"),
        states(made, vectors, times, noise, posterior),
        states(made, changed, times, noise, posterior),
        strict=True,
    ):
        assert torch.equal(before[:, :first], after[:, :first]), name
        if first < T and (posterior or name not in ("kl", "log ratio")):
            differ = (before != after).flatten(2).any(-1) if before.ndim > 2 else before != after
            assert differ[:, first:].all(), f"{name}: every later frame hears of it"


@pytest.mark.parametrize("head", [CategoricalHead, RegressionHead])
def test_no_head_mixes_cells_or_sees_the_code_it_predicts(head):
    from transframer.models.codebook import Codebooks

    torch.manual_seed(0)
    made, books = head(CONFIG), Codebooks(2, 8, 4, 0.99, 0.0)
    books.vectors.normal_()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, codes, latest = torch.randn(6, CONFIG.width), torch.randint(8, (6, 2)), torch.randn(6, CHANNELS)
    for group in range(2):
        before = made.logits(x, latest, codes, group, books)
        other = codes.clone()
        other[:, group:] = (other[:, group:] + 1) % 8
        assert torch.equal(before, made.logits(x, latest, other, group, books))
        moved = x.clone()
        moved[3] += 1
        rows = (made.logits(moved, latest, codes, group, books) != before).any(1)
        assert rows.nonzero().flatten().tolist() == [3]


def test_frames_one_by_one_with_a_cache_as_all_at_once():
    made = model()
    vectors, times, noise = inputs(made)
    whole, _ = features(made, vectors, times, noise, posterior=False)
    cache, parts = TimeCache(window=T), []
    for t in range(T):
        out, _ = made(
            vectors[:, t : t + 1], times[:, t : t + 1], times[:, t + 1 : t + 2], noise[:, :, t : t + 1],
            cache=cache,
        )  # fmt: skip
        parts.append(out)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-12)
    cache = TimeCache(window=T)
    first, _ = made(vectors[:, :3], times[:, :3], times[:, 1:4], noise[:, :, :3], cache=cache)
    second, _ = made(vectors[:, 3:5], times[:, 3:5], times[:, 4:6], noise[:, :, 3:], cache=cache)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-12)
    broken = TimeCache(window=T)
    made(vectors[:, :1], times[:, :1], times[:, 1:2], noise[:, :, :1], cache=broken)
    broken.keys[0] = broken.keys[0].flip(0)
    out, _ = made(vectors[:, 1:2], times[:, 1:2], times[:, 2:3], noise[:, :, 1:2], cache=broken)
    assert not torch.allclose(out, whole[:, 1:2], atol=1e-6), "the cache matters"


def test_a_window_forgets_the_same_way_in_parts_and_at_once():
    made = model(layers=1)
    vectors, times, noise = inputs(made)
    at_once, _ = features(made, vectors, times, noise, posterior=False, cache=TimeCache(window=2))
    cache, parts = TimeCache(window=2), []
    for t in range(T):
        out, _ = made(
            vectors[:, t : t + 1], times[:, t : t + 1], times[:, t + 1 : t + 2], noise[:, :, t : t + 1],
            cache=cache,
        )  # fmt: skip
        parts.append(out)
        assert cache.keys[0].shape[2] <= 2
    assert torch.allclose(torch.cat(parts, 1), at_once, atol=1e-12)
    last, _ = made(vectors[:, 3:5], times[:, 3:5], times[:, 4:6], noise[:, :, 3:])
    assert torch.allclose(at_once[:, 4], last[:, 1], atol=1e-12), "two frames are all that is seen"


def test_only_differences_of_times_matter():
    made = model()
    vectors, times, noise = inputs(made)
    one, _ = features(made, vectors, times, noise)
    two, _ = features(made, vectors, times + 40, noise)
    assert torch.allclose(one, two, atol=1e-9)
    other, _ = features(made, vectors, times * 0.5, noise)
    assert not torch.allclose(one, other, atol=1e-3)
    x, angle = torch.randn(1, 1, 1, 8), torch.rand(1, 1, 1, 4)
    assert torch.allclose(rotated(x, angle).norm(), x.norm())


def test_the_kl_of_normals_is_that_of_torch():
    torch.manual_seed(0)
    m1, v1, m2, v2 = torch.randn(4, 100, dtype=torch.float64)
    expected = kl_divergence(Normal(m1, (v1 / 2).exp()), Normal(m2, (v2 / 2).exp()))
    assert torch.allclose(kl_of_normals(m1, v1, m2, v2), expected)
    assert (kl_of_normals(m1, v1, m1, v1) == 0).all()


@pytest.mark.parametrize("whole", [False, True])
def test_the_divergence_is_of_the_distributions_that_were_drawn_from(whole):
    torch.manual_seed(0)
    layer = GaussianLayer(8, 3, whole).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, target = torch.randn(2, 1, 4, 8, dtype=torch.float64), torch.randn(2, 1, 4, 8, dtype=torch.float64)
    known = torch.ones(2, 1, dtype=torch.bool)
    draws = 4000
    noise = torch.randn(2, draws, 4, 3, dtype=torch.float64)
    many = layer(
        x.expand(2, draws, 4, 8), target.expand(2, draws, 4, 8), known.expand(2, draws), noise, (2, 2)
    )[1]
    error = many.log_ratio.std(1) / draws**0.5
    assert ((many.log_ratio.mean(1) - many.closed_form[:, 0]).abs() < 4 * error).all()
    assert (many.closed_form > 0).all()
    none = layer(x, target, ~known, noise[:, :1], (2, 2))[1]
    assert none.closed_form.abs().sum() == none.log_ratio.abs().sum() == 0


def test_where_the_next_frame_is_unknown_the_prior_is_drawn_from():
    made = model()
    vectors, times, noise = inputs(made)
    known = torch.zeros(B, T, dtype=torch.bool)
    prior, _ = features(made, vectors, times, noise, posterior=False)
    masked, _ = features(made, vectors, times, noise, known=known)
    assert torch.equal(prior, masked)
    known[:, :2] = True
    mixed, _ = features(made, vectors, times, noise, known=known)
    posterior, _ = features(made, vectors, times, noise)
    assert torch.equal(mixed[:, :2], posterior[:, :2])
    assert not torch.equal(mixed[:, 2:], posterior[:, 2:])


def test_dropout_drops_in_training_alone():
    made = model(dropout=0.3, latent_width=0)
    vectors, times, _ = inputs(made)
    noise = torch.zeros(made.noise_shape(B, T, G * G), dtype=torch.float64)
    still = [features(made, vectors, times, noise)[0] for _ in range(2)]
    assert torch.equal(*still)
    made.train()
    seeded = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        seeded.append(features(made, vectors, times, noise)[0])
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.equal(seeded[0], seeded[2])
    seeded[2].sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())

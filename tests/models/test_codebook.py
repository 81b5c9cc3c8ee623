import math

import pytest
import torch

from transframer.models.codebook import Codebooks


def books(groups=1, codes=4, width=2, decay=0.9, revive_below=0.0):
    made = Codebooks(groups, codes, width, decay, revive_below)
    made.ready.fill_(True)
    return made


def generator():
    return torch.Generator().manual_seed(0)


def test_the_nearest_vector_of_each_part():
    made = books(groups=2)
    made.vectors.copy_(torch.randn(made.vectors.shape, generator=generator()))
    latents = torch.randn(50, 4, generator=generator())
    codes = made.codes_of(latents)
    for group in range(2):
        distance = torch.cdist(latents[:, 2 * group : 2 * group + 2], made.vectors[group])
        assert torch.equal(codes[:, group], distance.argmin(1))
    vectors = made.vectors_of(codes)
    assert torch.equal(vectors[7, 2:], made.vectors[1, codes[7, 1]])
    assert made.vectors_of(codes.view(5, 10, 2)).shape == (5, 10, 4)


def test_a_vector_is_the_moving_average_of_what_it_codes():
    made = books(codes=2, width=1, decay=0.9)
    made.vectors.copy_(torch.tensor([[[0.0], [10.0]]]))
    made.sums.copy_(made.vectors)
    latents = torch.tensor([[1.0], [3.0], [11.0]])
    made.follow(latents, made.codes_of(latents), generator())
    # counts .9 * 1 + .1 * (2, 1), sums .9 * (0, 10) + .1 * (4, 11)
    assert made.counts.tolist() == [[pytest.approx(1.1), pytest.approx(1.0)]]
    assert made.vectors.flatten().tolist() == [
        pytest.approx(0.4 / 1.1, rel=1e-4),
        pytest.approx(10.1, rel=1e-4),
    ]


def test_vectors_settle_on_the_means_of_clusters():
    made = books(codes=2, width=1, decay=0.5)
    made.vectors.copy_(torch.tensor([[[-1.0], [1.0]]]))
    for step in range(40):
        noise = 0.1 * torch.randn(200, 1, generator=torch.Generator().manual_seed(step))
        latents = torch.cat([noise[:100] - 5, noise[100:] + 7])
        made.follow(latents, made.codes_of(latents), generator())
    assert made.vectors.flatten().tolist() == [pytest.approx(-5, abs=0.05), pytest.approx(7, abs=0.05)]


def test_unused_vectors_are_revived_as_latents_of_the_batch_and_used_ones_stay():
    made = books(codes=3, width=1, decay=0.9, revive_below=0.1)
    made.vectors.copy_(torch.tensor([[[0.0], [100.0], [200.0]]]))
    made.sums.copy_(made.vectors)
    latents = torch.tensor([[-1.0], [1.0]]).repeat(50, 1)
    for step in range(200):
        made.follow(latents, made.codes_of(latents), torch.Generator().manual_seed(step))
    used = made.codes_of(latents).unique()
    assert len(used) == 2, "one vector at -1, one at 1"
    assert made.vectors[0, used].flatten().sort().values.tolist() == pytest.approx([-1, 1], abs=1e-3)

    made = books(codes=3, width=1, decay=0.9, revive_below=0.0)
    made.vectors.copy_(torch.tensor([[[0.0], [100.0], [200.0]]]))
    made.sums.copy_(made.vectors)
    for step in range(200):
        made.follow(latents, made.codes_of(latents), torch.Generator().manual_seed(step))
    assert len(made.codes_of(latents).unique()) == 1, "without revival the others are never found"


def test_the_first_batch_gives_the_first_vectors_once():
    made = Codebooks(2, 16, 3, 0.99, 0.03)
    latents = torch.randn(10, 6, generator=generator())
    made.prepare(latents, generator())
    assert made.ready
    distance = torch.cdist(made.vectors[0], latents[:, :3]).min(1).values
    assert distance.max() < 0.1
    assert len(made.vectors[0].unique(dim=0)) == 16, "no two are alike, though there are fewer latents"
    before = made.vectors.clone()
    made.prepare(latents + 5, generator())
    assert torch.equal(made.vectors, before)
    use = torch.bincount(made.codes_of(latents)[:, 0], minlength=16)
    assert math.isclose(int(use.sum()), 10)

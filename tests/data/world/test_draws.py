import torch

from transframer.data.world.draws import SPLITS, Draws, scene_keys, splitmix64


def test_splitmix64_gives_the_published_sequence():
    # the first outputs for the seed 0, as in Vigna's splitmix64.c
    state = torch.tensor([0, 0x9E3779B97F4A7C15 - (1 << 64), 2 * 0x9E3779B97F4A7C15 % (1 << 64)])
    words = [word % (1 << 64) for word in splitmix64(state).tolist()]
    assert words == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_no_two_scenes_of_a_seed_share_a_key():
    indices = torch.arange(20_000)
    keys = torch.cat([scene_keys(3, split, indices) for split in SPLITS])
    assert len(keys.unique()) == 3 * 20_000


def test_seeds_differ():
    indices = torch.arange(1000)
    assert not set(scene_keys(0, "train", indices).tolist()) & set(scene_keys(1, "train", indices).tolist())


def test_draws_are_uniform_and_independent():
    draw = Draws(scene_keys(0, "train", torch.arange(20_000)))
    a, b = draw.uniform(-1, 3), draw.uniform(0, 1)
    assert a.min() >= -1
    assert a.max() < 3
    assert abs(a.mean() - 1) < 0.03
    assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.03
    assert (draw.choice(4).bincount() / 20_000 - 0.25).abs().max() < 0.02
    signed = draw.signed(0.5, 1.0)
    assert ((signed.abs() >= 0.5) & (signed.abs() < 1)).all()
    assert abs((signed > 0).double().mean() - 0.5) < 0.02

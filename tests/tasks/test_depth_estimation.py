import math

import numpy as np
import pytest
import torch
from PIL import Image

from transframer.codec import round_trips, token_count
from transframer.errors import DataError
from transframer.tasks.depth_estimation import DepthEstimation

TASK = DepthEstimation()


def sample(depth):
    """With an image whose neighbouring pixels are so unlike each other that no depth flows between them."""
    row, column = torch.meshgrid(*(torch.arange(side) % 5 for side in depth.shape), indexing="ij")
    colour = 5 * row + column
    image = torch.stack([colour % 3, colour // 3 % 3, colour // 9]) * 127
    return {"images": image.byte()[None], "depth_m": depth}


def ramp(low=1.5, high=19.0, size=64):
    return torch.logspace(math.log10(low), math.log10(high), size).flip(0)[:, None].repeat(1, size)


def test_grey_alone_is_a_precise_label():
    """Before the codec, the only error is half a grey level of 1 / sqrt(depth)."""
    depth = ramp()
    episode = TASK.format(sample(depth))
    found = TASK.decode(episode.target, episode)
    half_a_level = 0.5 / 255 * (TASK.min_depth_m**-0.5 - TASK.max_depth_m**-0.5)
    assert (found**-0.5 - depth**-0.5).abs().max() <= half_a_level + 1e-5
    assert ((found - depth).abs() / depth).mean() < 0.01


def test_out_of_range_is_clamped():
    depth = torch.full((16, 16), 1e4)
    depth[:8] = 1e-3
    episode = TASK.format(sample(depth))
    found = TASK.decode(episode.target, episode)
    assert torch.allclose(found[:8], torch.tensor(TASK.min_depth_m), rtol=1e-3)
    assert torch.allclose(found[8:], torch.tensor(TASK.max_depth_m), rtol=1e-3)


def test_metrics_by_hand():
    truth = torch.tensor([[2.0, 4.0, 0.0, TASK.max_depth_m * 2]])
    prediction = torch.tensor([[3.0, 4.4, 7.0, 1.0]])  # only the first two are judged
    scores = TASK.score(prediction, sample(truth))
    assert scores.abs_rel == pytest.approx((0.5 + 0.1) / 2)
    assert scores.delta1 == 0.5
    assert scores.rmse == pytest.approx(math.sqrt((1 + 0.16) / 2))
    perfect = TASK.score(truth, sample(truth))
    summary = TASK.summarise([scores, perfect])
    assert summary["abs_rel"] == pytest.approx(0.15)
    assert summary["delta1"] == 0.75


def test_unknown_depth_is_never_judged():
    depth = torch.zeros(32, 32)
    depth[0, 0] = float("nan")
    nothing = TASK.score(torch.ones(32, 32), sample(depth))
    assert math.isnan(TASK.summarise([nothing])["abs_rel"])
    assert math.isnan(TASK.summarise([])["rmse"])
    known = TASK.score(ramp(), sample(ramp()))
    assert TASK.summarise([nothing, known])["abs_rel"] == 0


def test_unknown_pixels_cost_few_tokens_and_spoil_nothing():
    depth = ramp()
    hole = depth.clone()
    hole[10:30, 20:50] = 0
    hole[40:, 60:] = float("inf")
    whole, holed = TASK.format(sample(depth)), TASK.format(sample(hole))
    assert token_count([holed]) <= 1.25 * token_count([whole])
    found = TASK.decode(round_trips([holed])[0], holed)
    assert TASK.score(found, sample(hole)).abs_rel < TASK.round_trip_bound


def test_combine_is_the_median_and_ignores_one_wild_sample():
    maps = [torch.full((4, 4), value) for value in (2.0, 2.2, 19.0)]
    assert torch.allclose(TASK.combine(maps), torch.tensor(2.2))
    assert torch.allclose(TASK.combine(maps[1:]), torch.tensor(math.sqrt(2.2 * 19)))


def test_floor_is_the_median_per_pixel():
    depths = [
        torch.tensor([[2.0, 0.0, 0.0]]),
        torch.tensor([[3.0, 5.0, 0.0]]),
        torch.tensor([[9.0, 7.0, 0.0]]),
    ]
    floor = TASK.floor([sample(depth) for depth in depths])
    found = floor(TASK.format(sample(depths[0])))
    assert found.tolist() == [[3.0, 5.0, 5.0]]
    assert floor(TASK.format(sample(torch.zeros(2, 6)))).shape == (2, 6)


def test_without_label():
    episode = TASK.format({"images": torch.zeros(1, 3, 16, 16, dtype=torch.uint8)})
    assert episode.target is None
    with pytest.raises(DataError, match="depth_m"):
        TASK.truth({"images": episode.context[0].image[None]})


def test_files(tmp_path):
    png, npy = TASK.write(ramp(), tmp_path / "photo.v2", (100, 80))
    assert (png.name, npy.name) == ("photo.v2.png", "photo.v2.npy")
    depth = np.load(npy)
    assert depth.dtype == np.float32
    assert depth.shape == (100, 80)
    assert abs(np.asarray(Image.open(png)) / 1000 - depth).max() <= 0.0005 + 1e-5
    assert len(list(tmp_path.iterdir())) == 2


def test_picture_shows_near_red_far_blue_unknown_black():
    depth = torch.tensor([[1.2, 18.0, 0.0]])
    near, far, unknown = TASK.draw(sample(depth), depth)[:, 0].T.tolist()
    assert near[0] > near[2]
    assert far[2] > far[0]
    assert unknown == [0, 0, 0]

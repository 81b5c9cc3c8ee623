import math

import pytest
import torch

from transframer.codec import round_trips, token_count
from transframer.data.formats.flo import read_flo
from transframer.errors import DataError
from transframer.tasks.optical_flow import OpticalFlow

TASK = OpticalFlow()


def sample(flow, valid=None):
    images = torch.zeros(2, 3, *flow.shape[1:], dtype=torch.uint8)
    return {"images": images, "flow": flow} | ({} if valid is None else {"flow_valid": valid})


def coded(item):
    episode = TASK.format(item)
    return TASK.decode(round_trips([episode])[0], episode)


@pytest.mark.parametrize("u", [-1.0, -0.5, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("v", [-1.0, 0.0, 0.7, 1.0])
def test_whole_range_is_written_and_the_planes_do_not_mix(u, v):
    flow = torch.tensor([u, v])[:, None, None].expand(2, 32, 32) * TASK.max_flow_px
    episode = TASK.format(sample(flow))
    assert (TASK.decode(episode.target, episode) - flow).abs().max() < 0.03 * TASK.max_flow_px
    assert (coded(sample(flow)) - flow).abs().max() < 0.05 * TASK.max_flow_px


def test_no_motion_costs_no_tokens():
    still = sample(torch.zeros(2, 64, 64))
    assert token_count([TASK.format(still)]) == 0
    assert coded(still).abs().max() < 0.05


def test_extreme_flow_is_clamped_and_counted():
    flow = torch.zeros(2, 32, 32)
    flow[0, :, 16:] = 1e4
    found = coded(sample(flow))
    assert found.isfinite().all()
    assert found.abs().max() <= TASK.max_flow_px
    assert TASK.summarise([TASK.score(found, sample(flow))])["clamped"] == 50


def test_metrics_by_hand():
    truth = torch.zeros(2, 1, 4)
    truth[0] = torch.tensor([0.0, 100.0, 100.0, 0.0])
    prediction = truth + torch.tensor([3.0, 4.0])[:, None, None] * torch.tensor([0.5, 0.9, 1.2, 9.0])
    valid = torch.tensor([[True, True, True, False]])
    # errors 2.5, 4.5 (but 4.5 %), 6 px: one outlier of three
    summary = TASK.summarise([TASK.score(prediction, sample(truth, valid))])
    assert summary["epe"] == pytest.approx((2.5 + 4.5 + 6) / 3)
    assert summary["fl_all"] == pytest.approx(100 / 3)
    assert summary["clamped"] == pytest.approx(200 / 3)


def test_sets_are_pooled_over_pixels():
    truth = sample(torch.zeros(2, 1, 3), torch.tensor([[True, True, False]]))
    other = sample(torch.zeros(2, 1, 3), torch.tensor([[True, False, False]]))
    scores = [TASK.score(torch.ones(2, 1, 3), truth), TASK.score(torch.zeros(2, 1, 3), other)]
    assert TASK.summarise(scores)["epe"] == pytest.approx(2 * math.sqrt(2) / 3)


def test_unknown_flow_is_never_judged_nor_written():
    flow = torch.full((2, 64, 64), 3.0)
    holed = flow.clone()
    holed[:, 5:30, 8:40] = float("nan")
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[40:50] = False
    holed[:, 40:50] = -500.0
    assert token_count([TASK.format(sample(holed, valid))]) == token_count([TASK.format(sample(flow))])
    assert TASK.summarise([TASK.score(coded(sample(holed, valid)), sample(holed, valid))])["epe"] < 0.3
    nothing = sample(flow, torch.zeros(64, 64, dtype=torch.bool))
    assert math.isnan(TASK.summarise([TASK.score(coded(nothing), nothing)])["epe"])
    assert math.isnan(TASK.summarise([])["fl_all"])


def test_floor_combine_and_missing_label():
    item = sample(torch.ones(2, 16, 24))
    assert TASK.floor([item])(TASK.format(item)).tolist() == torch.zeros(2, 16, 24).tolist()
    assert TASK.combine([torch.zeros(2, 2, 2), torch.ones(2, 2, 2)]).unique().tolist() == [0.5]
    del item["flow"]
    assert TASK.format(item).target is None
    with pytest.raises(DataError, match="flow"):
        TASK.truth(item)


def test_file_is_scaled_to_the_images_size(tmp_path):
    (path,) = TASK.write(
        torch.stack([torch.full((8, 8), 1.0), torch.full((8, 8), 2.0)]), tmp_path / "a.b", (16, 24)
    )
    assert path.name == "a.b.flo"
    assert read_flo(path)[:, 0, 0].tolist() == [3.0, 4.0]


def test_picture_agrees_with_the_published_colour_wheel():
    from torchvision.utils import flow_to_image

    flow = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))
    found = TASK.draw(sample(flow), flow)
    assert (found.int() - flow_to_image(flow).int()).abs().max() <= 3
    white = TASK.draw(sample(torch.zeros(2, 4, 4)), torch.zeros(2, 4, 4))
    assert white.unique().tolist() == [255]

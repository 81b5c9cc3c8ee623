"""Uncertainty and errors of single pixels, against scipy, numpy and numbers worked out by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from transframer import testing as contract
from transframer.registry import get_task, task_names
from transframer.tasks.drawing import heat
from transframer.tasks.uncertainty import colour_deviation, resize_map, total_deviation, vote_entropy

DENSE = sorted(set(task_names()) - {"image_classification", "instance_segmentation", "object_detection"})
SEGMENTATION, DEPTH, FLOW = map(get_task, ("semantic_segmentation", "depth_estimation", "optical_flow"))


def test_entropy_of_votes_is_that_of_scipy():
    masks = torch.randint(0, 4, (7, 5, 6), generator=torch.Generator().manual_seed(0))
    votes = np.stack([(masks == k).sum(0).numpy() for k in range(4)])
    assert np.allclose(vote_entropy(list(masks), 4), entropy(votes, axis=0), atol=1e-6)
    assert vote_entropy([masks[0]] * 3, 4).abs().max() == 0


def test_deviation_is_that_of_numpy():
    maps = torch.randn(5, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    expected = np.sqrt((maps.numpy().std(0) ** 2).sum(0))
    assert np.allclose(total_deviation(list(maps)), expected, atol=1e-6)


def test_colour_deviation_is_zero_where_frames_agree_and_half_the_gap_of_two():
    one = torch.zeros(3, 2, 2, dtype=torch.uint8)
    other = one.clone()
    other[:, 0, 0] = 10
    assert colour_deviation([one, other]).tolist() == [[5.0, 0.0], [0.0, 0.0]]


def test_a_map_keeps_its_range_when_it_is_resized():
    values = torch.rand(8, 8)
    large = resize_map(values, (33, 20))
    assert large.shape == (33, 20)
    assert values.min() <= large.min() < large.max() <= values.max()
    assert resize_map(values, None) is values


def test_heat_goes_from_dark_to_light_and_accepts_all_zero():
    colours = heat(torch.tensor([[0.0, 1.0, 2.0]])).float().sum(0)[0]
    assert colours[0] < colours[1] < colours[2]
    assert heat(torch.zeros(2, 2)).float().mean() < 30


def test_segmentation_counts_wrong_pixels_that_are_labelled():
    sample = {"images": torch.zeros(1, 3, 1, 3, dtype=torch.uint8), "mask": torch.tensor([[1, 2, 255]])}
    assert SEGMENTATION.pixel_error(torch.tensor([[1, 0, 0]]), sample)[0, :2].tolist() == [0, 1]
    assert SEGMENTATION.pixel_error(torch.tensor([[1, 0, 0]]), sample)[0, 2].isnan()
    votes = [torch.tensor([[0, 0]]), torch.tensor([[0, 1]]), torch.tensor([[0, 1]])]
    assert SEGMENTATION.uncertainty(votes)[0].tolist() == pytest.approx([0, entropy([1, 2])])


def test_depth_is_judged_as_a_share_of_depth():
    sample = {
        "images": torch.zeros(1, 3, 1, 3, dtype=torch.uint8),
        "depth_m": torch.tensor([[10.0, 4.0, 0.0]]),
    }
    error = DEPTH.pixel_error(torch.tensor([[12.0, 3.0, 5.0]]), sample)
    assert error[0, :2].tolist() == pytest.approx([0.2, 0.25])
    assert error[0, 2].isnan()
    depths = [torch.tensor([[5.0, 8.0]]), torch.tensor([[5.0, 2.0]])]
    assert DEPTH.uncertainty(depths)[0].tolist() == pytest.approx([0, np.log([8, 2]).std()])


def test_flow_is_judged_in_pixels_of_the_map():
    sample = {
        "images": torch.zeros(2, 3, 1, 2, dtype=torch.uint8),
        "flow": torch.zeros(2, 1, 2),
        "flow_valid": torch.tensor([[True, False]]),
    }
    error = FLOW.pixel_error(torch.tensor([[[3.0, 9.0]], [[4.0, 9.0]]]), sample)
    assert error[0, 0] == 5
    assert error[0, 1].isnan()
    fields = [torch.zeros(2, 4, 4), torch.tensor([6.0, 8.0])[:, None, None].expand(2, 4, 4)]
    assert FLOW.uncertainty(fields).unique().tolist() == [5]
    # Twice as wide and three times as high: standard deviations of 3 and 4 px become 6 and 12.
    scaled = FLOW.uncertainty(fields, (12, 8))
    assert scaled.shape == (12, 8)
    assert scaled.flatten().tolist() == pytest.approx([180**0.5] * 96)


@pytest.mark.parametrize("name", DENSE)
def test_mean_pixel_error_is_that_of_the_metrics(name):
    task = get_task(name)
    sample = contract.world_samples(task, 1)[0]
    prediction = contract.coded(task, sample)
    metrics = task.summarise([task.score(prediction, sample)])
    error = task.pixel_error(prediction, sample)
    assert error.nanmean() > 0
    if name == "semantic_segmentation":
        assert error.nanmean().item() == pytest.approx(1 - metrics["pixel_accuracy"], abs=1e-6)
    elif name in ("depth_estimation", "optical_flow", "surface_normals"):
        assert error.nanmean().item() == pytest.approx(metrics[task.headline.name], rel=1e-4)
    else:
        true = sample["target"].numpy().astype(float)
        assert error.mean().item() == pytest.approx(np.abs(prediction.numpy() - true).mean(), rel=1e-5)

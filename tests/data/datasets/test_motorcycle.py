from typing import TypedDict

import pytest
import torch
import torch.nn.functional as F

from transframer.data.datasets.motorcycle import motorcycle_samples
from transframer.errors import DataError
from transframer.tasks.depth_estimation import DepthSample
from transframer.tasks.optical_flow import FlowSample
from transframer.tasks.view_synthesis import ViewSample

SIZE = 128


class StereoSample(TypedDict):
    images: torch.Tensor
    depth_m: torch.Tensor
    flow: torch.Tensor
    flow_valid: torch.Tensor
    cameras: list
    query_camera: object
    target: torch.Tensor


@pytest.fixture(scope="module")
def samples():
    return motorcycle_samples(StereoSample, SIZE)


def sampled(image, position):
    """Values of an image, c x h x w, at pixel positions 2 x h x w (pixel centres at +0.5)."""
    grid = (position.permute(1, 2, 0) / SIZE * 2 - 1)[None].float()
    return F.grid_sample(image[None].float(), grid, align_corners=False, padding_mode="border")[0]


def pixel_centres():
    row, column = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="ij")
    return torch.stack([column, row])


@pytest.mark.parametrize("sample_type", [DepthSample, FlowSample, ViewSample])
def test_keys_are_those_of_the_task(sample_type):
    samples = motorcycle_samples(sample_type, 64)
    assert len(samples) == 9
    for sample in samples:
        assert set(sample) == set(sample_type.__annotations__)
        assert sample["images"].shape == (2 if sample_type is FlowSample else 1, 3, 64, 64)


def test_flow_warps_the_right_photograph_onto_the_left(samples):
    for sample in samples:
        left, right = sample["images"].float()
        position = pixel_centres() + sample["flow"]
        seen = sample["flow_valid"] & (position[0] > 0)
        still = (left - right).abs().mean(0)[seen].mean()
        warped = (left - sampled(right, position)).abs().mean(0)[seen]
        assert warped.mean() < 0.5 * still
        assert warped.median() < 7


def test_depth_and_cameras_give_the_flow(samples):
    """Lifts each pixel to 3-D by its depth, and projects it into the right camera."""
    for sample in samples:
        left, right, depth = sample["cameras"][0], sample["query_camera"], sample["depth_m"]
        pixel = torch.cat([pixel_centres(), torch.ones(1, SIZE, SIZE)]).flatten(1)
        point = torch.linalg.inv(left.intrinsics) @ pixel * depth.flatten()
        point = torch.cat([point, torch.ones(1, point.shape[1])])
        view = (torch.linalg.inv(right.world_from_camera) @ left.world_from_camera @ point)[:3]
        projected = right.intrinsics @ view
        flow = (projected[:2] / projected[2] - pixel[:2]).view(2, SIZE, SIZE)
        known = sample["flow_valid"]
        assert (flow - sample["flow"])[:, known].abs().max() < 0.01


def test_unknown_disparity_is_unknown_depth_and_flow(samples):
    for sample in samples:
        assert torch.equal(sample["depth_m"] > 0, sample["flow_valid"])
        assert torch.isfinite(sample["flow"]).all()
        depth = sample["depth_m"][sample["flow_valid"]]
        assert 2 < depth.min() < depth.max() < 5.1
    share = torch.stack([sample["flow_valid"].float().mean() for sample in samples])
    assert 0.85 < share.min() < share.max() < 1


def test_labels_it_has_not_are_refused():
    class MaskSample(TypedDict):
        images: torch.Tensor
        mask: torch.Tensor

    with pytest.raises(DataError, match="mask"):
        motorcycle_samples(MaskSample, 64)

import pickle
from typing import TypedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from transframer.data.catalog import open_dataset
from transframer.data.datasets.motorcycle import Motorcycle, motorcycle_samples
from transframer.errors import DataError
from transframer.registry import get_task
from transframer.task import Clip
from transframer.tasks.depth_estimation import DepthSample
from transframer.tasks.optical_flow import FlowSample
from transframer.tasks.view_synthesis import ViewSample

from .contract import check_records

SIZE = 128
SPLITS = ("train", "validation", "test")
VIEW = Clip(frames=4, context=((0,),), target=(3,), static=True)


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


@pytest.fixture(scope="module")
def photographs():
    from skimage.data import stereo_motorcycle

    return stereo_motorcycle()


def place_of(crop, photograph):
    """Where a crop is in a photograph: top, left; the one place with all its pixels."""
    side, pixels = crop.shape[-1], crop.permute(1, 2, 0).numpy()
    height, width = photograph.shape[:2]
    corners = (photograph[: height - side + 1, : width - side + 1] == pixels[0, 0]).all(-1)
    for top, left in zip(*np.nonzero(corners), strict=True):
        if np.array_equal(photograph[top : top + side, left : left + side], pixels):
            return int(top), int(left)
    raise AssertionError("not a part of the photograph")


@pytest.mark.parametrize("clip", [Clip(), VIEW])
@pytest.mark.parametrize("split", SPLITS)
def test_records_keep_the_contract(split, clip):
    check_records(Motorcycle("anything", split, clip))


def test_crops_are_of_the_photographs_and_no_two_splits_share_a_pixel(photographs):
    disparity = photographs[2]
    columns = {}
    for split in SPLITS:
        dataset = Motorcycle(split=split)
        columns[split] = set()
        for index in range(len(dataset)):
            record = dataset.record(index, dataset.fields)
            side = record["images"].shape[-1]
            (top, left), again = (
                place_of(*pair) for pair in zip(record["images"], photographs, strict=False)
            )
            assert (top, left) == again, "one window in both photographs"
            columns[split] |= set(range(left, left + side))
            window = disparity[top : top + side, left : left + side]
            known = np.isfinite(window)
            assert np.array_equal(record["flow_valid"].numpy(), known)
            assert np.array_equal(record["flow"][0].numpy(), np.where(known, -window, 0))
            assert (record["flow"][1] == 0).all()
    assert not columns["train"] & columns["validation"]
    assert not columns["test"] & columns["validation"]
    # What the right photograph shows at x lies at x + disparity of the left one.
    greatest = disparity[np.isfinite(disparity)].max()
    assert max(columns["train"]) + greatest < min(columns["test"])


def test_records_and_samples_are_one_geometry(photographs):
    """The sample of the crop at the lower left, at its own size, has the labels of the record there."""
    sample = next(
        sample
        for sample in motorcycle_samples(StereoSample, 250)
        if np.array_equal(sample["images"][0].permute(1, 2, 0).numpy(), photographs[0][250:500, :250])
    )
    dataset = Motorcycle("anything", "train", VIEW)
    index = next(
        index
        for index in range(len(dataset))
        if torch.equal(dataset.record(index, set())["images"][0], sample["images"][0])
    )
    record = dataset.record(index, dataset.fields)
    for key in ("images", "target", "flow", "flow_valid"):
        assert torch.equal(record[key], sample[key])
    torch.testing.assert_close(record["depth_m"], sample["depth_m"])
    cameras = (record["cameras"][0], record["query_camera"]), (sample["cameras"][0], sample["query_camera"])
    for camera, expected in zip(*cameras, strict=True):
        torch.testing.assert_close(camera.intrinsics, expected.intrinsics)
        torch.testing.assert_close(camera.world_from_camera, expected.world_from_camera)


@pytest.mark.parametrize(
    ("task", "images"), [("depth_estimation", 1), ("optical_flow", 2), ("view_synthesis", 1)]
)
def test_tasks_get_their_episodes(task, images):
    task = get_task(task)
    dataset = open_dataset("motorcycle", "train", task, format="motorcycle")
    keys = set(task.sample_type.__annotations__)
    record = dataset.record(0, keys)
    assert set(record) <= keys
    assert len(record["images"]) == images
    assert task.format(record).target is not None


def test_pickle():
    dataset = Motorcycle(split="test")
    dataset.record(0, {"images"})
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 5000, "the pictures do not travel"
    assert torch.equal(copy.record(1, {"flow"})["flow"], dataset.record(1, {"flow"})["flow"])


def test_records_are_copies():
    """Who changes a record changes no other."""
    dataset = Motorcycle(split="test")
    dataset.record(0, {"images"})["images"].zero_()
    assert dataset.record(0, {"images"})["images"].any()

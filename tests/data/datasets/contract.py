"""What holds for the records of every data set, whatever its format."""

from __future__ import annotations

import torch

from transframer.data.dataset import Dataset
from transframer.frames import Camera


def check_records(dataset: Dataset) -> None:
    """Fields, types, sizes and ranges of all records; no key that was not asked for; files that exist."""
    assert "images" in dataset.fields
    assert len(dataset) > 0
    for index in range(len(dataset)):
        assert dataset.files(index), "no file named"
        assert all(file.exists() for file in dataset.files(index))
        record = dataset.record(index, dataset.fields)
        assert set(record) <= dataset.fields
        _check(record, dataset)
        _check(dataset.evaluation(record), dataset)
        again = dataset.record(index, dataset.fields)
        assert torch.equal(again["images"], record["images"])
        assert set(dataset.record(index, {"images"})) == {"images"}


def _check(record: dict, dataset: Dataset) -> None:
    images = record["images"]
    assert images.dtype == torch.uint8
    assert images.ndim == 4
    assert images.shape[1] == 3
    size = images.shape[2:]
    if "target" in record:
        assert record["target"].dtype == torch.uint8
        assert record["target"].shape == (3, *size)
    if "label" in record:
        assert 0 <= record["label"] < len(dataset.classes["label"])
    if "mask" in record:
        mask = record["mask"]
        assert mask.dtype == torch.int64
        assert mask.shape == size
        assert ((mask == 255) | ((mask >= 0) & (mask < len(dataset.classes["mask"])))).all()
    if "boxes" in record:
        boxes, labels = record["boxes"], record["box_labels"]
        assert boxes.dtype == torch.float32
        assert boxes.shape == (len(labels), 4)
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([size[1], size[0]] * 2)).all()
        assert labels.dtype == torch.int64
        assert ((labels >= 0) & (labels < len(dataset.classes["box_labels"]))).all()
    if "instances" in record:
        instances, labels = record["instances"], record["instance_labels"]
        assert instances.dtype == torch.int64
        assert instances.shape == size
        assert instances.min() >= 0
        assert instances.max() <= len(labels)
        assert ((labels >= 0) & (labels < len(dataset.classes["instance_labels"]))).all()
    if "depth_m" in record:
        depth = record["depth_m"]
        assert depth.dtype == torch.float32
        assert depth.shape == size
        assert depth.isfinite().all()
        assert (depth >= 0).all()
    if "flow" in record:
        flow, valid = record["flow"], record["flow_valid"]
        assert flow.dtype == torch.float32
        assert flow.shape == (2, *size)
        assert flow.isfinite().all()
        assert valid.dtype == torch.bool
        assert valid.shape == size
        assert len(images) == 2
    if "cameras" in record:
        cameras = [*record["cameras"], *([record["query_camera"]] if "query_camera" in record else [])]
        assert len(record["cameras"]) == len(images)
        for camera in cameras:
            assert isinstance(camera, Camera)
            turn = camera.world_from_camera[:3, :3].double()
            torch.testing.assert_close(turn @ turn.T, torch.eye(3).double(), atol=1e-4, rtol=0)
            assert turn.det() > 0
    if "times" in record:
        assert len(record["times"]) == len(images)

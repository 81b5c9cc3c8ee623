from collections import Counter
from typing import TypedDict

import pytest
import torch

from transframer.data.world import World
from transframer.errors import ConfigError, DataError
from transframer.frames import Camera
from transframer.task import Clip


class _Everything(TypedDict):
    images: object
    times: object
    query_time: object
    cameras: object
    query_camera: object
    target: object
    mask: object
    instances: object
    instance_labels: object
    normals: object
    label: object
    boxes: object
    box_labels: object
    depth_m: object
    flow: object
    flow_valid: object


class _Flow(TypedDict):
    images: object
    flow: object


class _Video(TypedDict, total=False):
    images: object
    times: object
    query_time: object
    target: object


class _Picture(TypedDict):
    images: object
    target: object


class _Misspelt(TypedDict):
    images: object
    dpeth: object


_CLIP = Clip(frames=5, context=((1, 2), (2, 3, 4)), target=(0, 3))


@pytest.fixture(scope="module")
def samples():
    return World("train").samples(range(40), _Everything, _CLIP)


def test_samples_are_the_chosen_frames_of_their_clips(samples):
    clips = World("train").clips(range(40), _CLIP)
    picked = set()
    for i, sample in enumerate(samples):
        assert set(sample) == _Everything.__required_keys__
        frames = tuple(round(t / 0.1) for t in sample["times"].tolist())
        query = round(sample["query_time"] / 0.1)
        picked.add((frames, query))
        assert torch.equal(sample["images"], clips.rgb[i, list(frames)])
        assert torch.equal(sample["target"], clips.rgb[i, query])
        first = frames[0]
        for key in ("mask", "depth_m", "normals", "flow", "flow_valid"):
            assert torch.equal(sample[key], getattr(clips, key)[i, first]), key
        assert torch.equal(sample["boxes"], clips.boxes[i, first][clips.box_valid[i, first]])
        assert torch.equal(sample["box_labels"], clips.box_labels[i, first][clips.box_valid[i, first]])
        assert sample["label"] == clips.label[i]
        assert all(isinstance(camera, Camera) for camera in sample["cameras"])
        assert torch.equal(sample["cameras"][1].world_from_camera, clips.world_from_camera[i, frames[1]])
        assert torch.equal(sample["query_camera"].world_from_camera, clips.world_from_camera[i, query])
    assert picked == {(c, t) for c in _CLIP.context for t in _CLIP.target}


def test_instances_are_the_objects_that_have_boxes(samples):
    hidden = 0
    for i, sample in enumerate(samples):
        assert torch.equal(sample["instance_labels"], sample["box_labels"])
        assert sample["instances"].max() == len(sample["boxes"])
        for number, (box, label) in enumerate(zip(sample["boxes"], sample["box_labels"], strict=True), 1):
            y, x = (sample["instances"] == number).nonzero(as_tuple=True)
            assert [x.min(), y.min(), x.max() + 1, y.max() + 1] == box.tolist(), i
            assert sample["mask"][y, x].unique().tolist() == [label + 2]
        hidden += int(((sample["mask"] >= 2) & (sample["instances"] == 0)).sum())
        assert not ((sample["mask"] < 2) & (sample["instances"] > 0)).any()
    assert hidden > 0, "objects too small for a box are no instances either"


def test_a_target_that_is_a_context_frame_is_the_same_picture():
    for sample in World("train").samples(range(3), _Picture, Clip(target=(0,))):
        assert torch.equal(sample["images"][0], sample["target"])


def test_a_sample_is_the_same_in_any_batch(samples):
    for i in (7, 30):
        (alone,) = World("train").samples([i], _Everything, _CLIP)
        for key in ("images", "target", "flow", "boxes"):
            assert torch.equal(alone[key], samples[i][key])


def test_only_the_keys_of_the_sample_type_are_given():
    (sample,) = World("train").samples([0], _Video, Clip(frames=3, context=((0, 1),), target=(2,)))
    assert set(sample) == {"images", "times", "query_time", "target"}
    assert sample["images"].shape == (2, 3, 64, 64)


def test_an_unknown_key_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="dpeth") as error:
        World("train").samples([0], _Misspelt, Clip())
    assert "depth_m" in str(error.value)


def test_flow_between_frames_that_are_not_adjacent_is_refused():
    with pytest.raises(DataError, match="adjacent"):
        World("train").samples([0], _Flow, Clip(frames=3, context=((0, 2),)))
    with pytest.raises(DataError, match="adjacent"):
        World("train").samples([0], _Flow, Clip(frames=3))


def test_a_target_that_the_clip_does_not_name_is_refused():
    with pytest.raises(DataError, match="without target"):
        World("train").samples([0], _Video, Clip())


def test_frames_outside_the_clip_are_refused():
    with pytest.raises(ConfigError, match="within the clip"):
        World("train").samples([0], _Flow, Clip(frames=1, context=((0, 1),)))


def test_training_alone_has_the_further_contexts():
    clip = Clip(frames=3, context=((0, 1),), target=(2,), training_context=((1,),))
    counts = {
        split: Counter(
            len(sample["images"]) for sample in World(split, 0, 16).samples(range(40), _Video, clip)
        )
        for split in ("train", "validation", "test")
    }
    assert set(counts["train"]) == {1, 2}
    assert counts["validation"] == counts["test"] == {2: 40}

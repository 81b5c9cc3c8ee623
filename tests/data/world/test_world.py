"""What users of the world rely on: determinism, ranges, balance, and scenes that are hard enough."""

import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from transframer.data.world import IMAGE_CLASSES, LABELS, OBJECT_CLASSES, SEGMENTATION_CLASSES, World
from transframer.errors import ConfigError, UnknownNameError
from transframer.task import Clip


def _fields(clips):
    return {name: value for name, value in vars(clips).items() if value is not None}


def test_a_scene_is_the_same_in_any_batch_and_order(monkeypatch):
    world, clip = World("train", 4), Clip(frames=2)
    together = _fields(world.clips(range(24), clip))
    order = [17, 3, 23, 0, 11]
    apart = _fields(world.clips(order, clip))
    for name, value in apart.items():
        assert torch.equal(value, together[name][order]), name
    monkeypatch.setattr("transframer.data.world.world._RAYS_AT_ONCE", {"cpu": 3 * 2 * 64 * 64})
    for name, value in _fields(world.clips(range(24), clip)).items():
        assert torch.equal(value, together[name]), name


def test_a_scene_is_the_same_in_another_process():
    code = (
        "from transframer.data.world import World; from transframer.task import Clip; import torch;"
        "torch.set_num_threads(1); c = World('test', 9).clips([5, 2], Clip(frames=2));"
        "print(c.rgb.long().sum().item(), c.depth_m.double().sum().item(), c.flow.double().sum().item())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    clips = World("test", 9).clips([2, 5], Clip(frames=2))
    assert int(printed[0]) == clips.rgb.long().sum()
    assert float(printed[1]) == pytest.approx(clips.depth_m.double().sum().item(), rel=1e-12)
    assert float(printed[2]) == pytest.approx(clips.flow.double().sum().item(), rel=1e-9)


def test_splits_and_seeds_show_different_scenes():
    images = [World(split, seed).clips(range(8), Clip(), ["rgb"]).rgb for split, seed in
              (("train", 0), ("validation", 0), ("test", 0), ("train", 1))]  # fmt: skip
    flat = torch.cat(images).flatten(1).float()
    distance = torch.cdist(flat, flat) + 1e9 * torch.eye(len(flat))
    assert distance.min() > 1000


def test_labels_are_in_range_and_only_those_asked_for_are_computed():
    world, clip = World("train"), Clip(frames=2)
    clips = world.clips(range(50), clip)
    assert clips.rgb.dtype == torch.uint8
    assert clips.rgb.shape == (50, 2, 3, 64, 64)
    assert set(clips.mask.unique().tolist()) == set(range(len(SEGMENTATION_CLASSES)))
    assert clips.instance.min() == 0
    assert clips.instance.max() <= 7
    assert clips.box_labels.max() < len(OBJECT_CLASSES)
    assert torch.equal(clips.times_s, torch.tensor([[0.0, 0.1]]).expand(50, 2))
    for label in LABELS:
        fields = set(_fields(world.clips([0], clip, [label])))
        assert label in fields
        assert len(fields - {"times_s", "intrinsics", "world_from_camera", "label"}) == {
            "flow": 3,
            "boxes": 3,
        }.get(label, 1)


def test_cameras_are_rigid_and_look_slightly_down():
    clips = World("train").clips(range(50), Clip(frames=3), [])
    turn = clips.world_from_camera[..., :3, :3]
    assert torch.allclose(turn.mT @ turn, torch.eye(3).expand_as(turn), atol=1e-5)
    assert (torch.linalg.det(turn) > 0.99).all()
    assert ((clips.world_from_camera[..., 2, 3] > 1) & (clips.world_from_camera[..., 2, 3] < 2.1)).all()
    assert (turn[..., 2, 2] < 0.06).all()


def test_boxes_are_the_bounds_of_the_visible_masks():
    world = World("train", 3)
    clips = world.clips(range(60), Clip(frames=2))
    counts = []
    for b in range(60):
        for t in range(2):
            for slot in range(6):
                y, x = (clips.instance[b, t] == slot + 2).nonzero(as_tuple=True)
                assert clips.box_valid[b, t, slot] == (len(y) >= 0.004 * 64 * 64)
                if len(y):
                    bounds = [x.min(), y.min(), x.max() + 1, y.max() + 1]
                    assert clips.boxes[b, t, slot].tolist() == bounds
                else:
                    assert clips.boxes[b, t, slot].tolist() == [0, 0, 0, 0]
            counts.append(clips.box_valid[b, t].sum().item())
    assert set(range(1, 5)) <= set(counts)


def test_the_image_classes_are_balanced_and_the_main_object_is_large():
    clips = World("train", 8).clips(range(1200), Clip(main_object=True), ["boxes"])
    share = clips.label.bincount(minlength=len(IMAGE_CLASSES)) / 1200
    assert len(IMAGE_CLASSES) == 12
    assert (share - 1 / 12).abs().max() < 0.03
    assert torch.equal(clips.label // 3, clips.box_labels[:, 0, 0])
    main = clips.boxes[:, 0, 0]
    span = torch.maximum(main[:, 2] - main[:, 0], main[:, 3] - main[:, 1])
    assert 32 < span.median() < 44
    assert span.quantile(0.02) > 24


def _psnr(a, b):
    return -10 * ((a.float() - b.float()) / 255).square().flatten(1).mean(1).log10().mean()


def test_trivial_answers_are_poor():
    rgb = World("validation").clips(range(100), Clip(frames=3), ["rgb"]).rgb
    assert _psnr(rgb[:, 1], rgb[:, 0]) < 23
    assert _psnr((rgb[:, 0].float() + rgb[:, 2].float()) / 2, rgb[:, 1]) < 25
    views = World("validation").clips(range(100), Clip(frames=2, static=True, step_s=0.6), ["rgb", "flow"])
    assert _psnr(views.rgb[:, 1], views.rgb[:, 0]) < 20
    assert views.flow_valid.double().mean() > 0.6


def test_motion_is_strong_but_bounded():
    clips = World("validation").clips(range(100), Clip(frames=2), ["flow"])
    speed = clips.flow.norm(dim=2)[clips.flow_valid]
    assert 2 < speed.mean() < 4.5
    assert (speed < 16).double().mean() > 0.999


def test_only_the_camera_moves_in_a_static_clip():
    clips = World("train").clips(
        range(30), Clip(frames=2, static=True, step_s=0.5), ["mask", "instance", "boxes"]
    )
    assert (clips.world_from_camera[:, 0] != clips.world_from_camera[:, 1]).any()
    again = World("train").clips(range(30), Clip(frames=2, static=True, step_s=0.5), ["boxes"])
    assert torch.equal(clips.boxes, again.boxes)


@pytest.mark.parametrize("size", [40, 0, -16, (64, 50)])
def test_a_size_that_is_not_a_multiple_of_16_is_refused(size):
    with pytest.raises(ConfigError, match="multiples of 16"):
        World("train", size_px=size)


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'train'"):
        World("trian")
    with pytest.raises(UnknownNameError, match="depth_m"):
        World("train").clips([0], Clip(), ["depth"])


def test_a_wrong_shape_is_refused():
    with pytest.raises(TypeCheckError):
        World("train").clips(torch.zeros(2, 2, dtype=torch.int64), Clip())

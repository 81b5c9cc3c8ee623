"""Depth, instances and cameras, each against another way of computing it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from transframer.data.world import MAX_DEPTH_M, World
from transframer.data.world.poses import poses_at
from transframer.data.world.scene import OBJECT_CLASSES, sample_scenes
from transframer.task import Clip

_spec = importlib.util.spec_from_file_location("scalar_caster", Path(__file__).with_name("scalar_caster.py"))
scalar_caster = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scalar_caster)


@pytest.mark.parametrize("size", [64, (96, 48), (32, 112)])
def test_depth_and_instance_agree_with_a_scalar_ray_caster(size):
    world, clip = World("train", 5, size), Clip(frames=2)
    h, w = world.size
    clips = world.clips(range(40), clip, ["depth_m", "instance"])
    scenes = sample_scenes(world.keys(range(40)), False, False)
    poses = poses_at(scenes, torch.tensor([[0.0, clip.step_s]]).expand(40, 2), world.size)
    rng = np.random.default_rng(0)
    close, seen = 0, set()
    for _ in range(1500):
        b, t, y, x = rng.integers(40), rng.integers(2), rng.integers(h), rng.integers(w)
        depth, instance = scalar_caster.nearest(scenes, poses, b, t, x + 0.5, y + 0.5)
        found = clips.instance[b, t, y, x].item()
        if found == instance and depth == pytest.approx(clips.depth_m[b, t, y, x].item(), rel=1e-4):
            close += 1
            seen.add(OBJECT_CLASSES[scenes.shape[b, found - 2]] if found > 1 else found)
    # float32 and float64 may differ on a ray that grazes an edge
    assert close >= 1497
    assert seen == {0, 1, *OBJECT_CLASSES}


def _unproject(clips, t):
    """World points of all pixels of frame t, [b 3 h*w] float64."""
    h, w = clips.depth_m.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).flatten(1).double()
    rays = torch.linalg.inv(clips.intrinsics[:, t].double()) @ pixels
    points = rays * clips.depth_m[:, t].flatten(1)[:, None].double()
    camera = clips.world_from_camera[:, t].double()
    return camera[:, :3, :3] @ points + camera[:, :3, 3:]


def test_depth_and_cameras_reproject_pixels_between_views():
    clips = World("train", 1).clips(
        range(30), Clip(frames=2, static=True, step_s=0.4), ["rgb", "depth_m", "instance"]
    )
    points, camera = _unproject(clips, 0), clips.world_from_camera[:, 1].double()
    seen = clips.intrinsics[:, 1].double() @ camera[:, :3, :3].mT @ (points - camera[:, :3, 3:])
    u, v, z = seen[:, 0] / seen[:, 2], seen[:, 1] / seen[:, 2], seen[:, 2]
    instance, other = clips.instance[:, 0].flatten(1), clips.instance[:, 1].flatten(1)
    inside = (z > 0.1) & (u >= 0) & (u < 64) & (v >= 0) & (v < 64) & (instance > 0)
    at = v.clamp(0, 63).long() * 64 + u.clamp(0, 63).long()
    agree = inside & (other.gather(1, at) == instance)
    # the rest is hidden in the other view, or within a pixel of an edge
    assert agree.sum() > 0.85 * inside.sum()
    depth = clips.depth_m[:, 1].flatten(1).gather(1, at)
    share = ((depth - z).abs() / z)[agree]
    assert share.quantile(0.5) < 0.01
    assert share.quantile(0.9) < 0.05
    colours = clips.rgb.float().flatten(-2)
    difference = (colours[:, 1].gather(2, at[:, None].expand(-1, 3, -1)) - colours[:, 0]).abs().mean(1)[agree]
    shuffled = (
        (colours[:, 1].roll(1, 0).gather(2, at[:, None].expand(-1, 3, -1)) - colours[:, 0])
        .abs()
        .mean(1)[agree]
    )
    assert difference.mean() < 4
    assert shuffled.mean() > 20


def test_points_lie_on_the_ground_or_above_it():
    clips = World("validation").clips(range(50), Clip(), ["depth_m", "instance"])
    height = _unproject(clips, 0)[:, 2]
    instance = clips.instance[:, 0].flatten(1)
    assert height[instance == 1].abs().max() < 1e-4
    assert height[instance > 1].min() > -1e-4


def test_depth_is_zero_exactly_in_the_sky_and_jumps_only_between_instances():
    clips = World("train", 2, 128).clips(range(30), Clip(), ["depth_m", "instance", "mask"])
    depth, instance, mask = clips.depth_m[:, 0], clips.instance[:, 0], clips.mask[:, 0]
    assert torch.equal(depth == 0, instance == 0)
    assert torch.equal(mask == 0, instance == 0)
    assert torch.equal(mask == 1, instance == 1)
    assert torch.equal(mask >= 2, instance >= 2)
    assert depth.max() <= MAX_DEPTH_M
    assert depth[depth > 0].min() > 0.5
    # within one object the second difference of 1 / depth is small: planes have none, curved sides little
    same = (instance[..., 2:] == instance[..., 1:-1]) & (instance[..., 1:-1] == instance[..., :-2])
    inverse = 1 / depth.clamp(min=0.1)
    bend = (inverse[..., 2:] - 2 * inverse[..., 1:-1] + inverse[..., :-2]).abs()
    step = (inverse[..., 1:] - inverse[..., :-1]).abs()[instance[..., 1:] * instance[..., :-1] > 0]
    assert bend[same & (instance[..., 1:-1] > 0)].quantile(0.99) < 0.01
    assert step.max() > 0.1


def test_each_instance_has_one_class():
    clips = World("train", 7).clips(range(60), Clip(), ["instance", "mask", "boxes"])
    for b in range(60):
        for slot in range(6):
            classes = clips.mask[b, 0][clips.instance[b, 0] == slot + 2].unique().tolist()
            assert classes in ([], [clips.box_labels[b, 0, slot].item() + 2])

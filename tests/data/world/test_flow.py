"""Flow against the projection of moved points, against the next frame's instances, and its colours."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from transframer.data.world import World
from transframer.data.world.poses import poses_at
from transframer.data.world.scene import sample_scenes
from transframer.task import Clip

_CLIP = Clip(frames=3)
_COUNT = 40


@pytest.fixture(scope="module")
def world():
    return World("train", 11)


@pytest.fixture(scope="module")
def clips(world):
    return world.clips(range(_COUNT), _CLIP)


def test_flow_is_the_projection_of_the_moved_point(world, clips):
    scenes = sample_scenes(world.keys(range(_COUNT)), False, False)
    times = torch.arange(3)[None].expand(_COUNT, 3) * _CLIP.step_s
    poses = poses_at(scenes, times, world.size)
    rng = np.random.default_rng(0)
    for _ in range(600):
        b, t, y, x = rng.integers(_COUNT), rng.integers(2), rng.integers(64), rng.integers(64)
        instance = clips.instance[b, t, y, x].item()
        camera = [poses.world_from_camera[b, t + i].numpy() for i in range(2)]
        intrinsics = poses.intrinsics[b, t].numpy()
        ray = camera[0][:3, :3] @ np.linalg.inv(intrinsics) @ np.array([x + 0.5, y + 0.5, 1.0])
        if instance == 0:
            seen = camera[1][:3, :3].T @ ray
        else:
            point = camera[0][:3, 3] + ray * clips.depth_m[b, t, y, x].item()
            if instance > 1:
                s = instance - 2
                angle = scenes.spin[b, s].item() * _CLIP.step_s
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                old, new = poses.position[b, t, s].numpy(), poses.position[b, t + 1, s].numpy()
                point = new + np.array([*(turn @ (point - old)[:2]), (point - old)[2]])
            seen = camera[1][:3, :3].T @ (point - camera[1][:3, 3])
        u, v, w = intrinsics @ seen
        expected = np.array([u / w - x - 0.5, v / w - y - 0.5])
        assert np.abs(clips.flow[b, t, :, y, x].numpy() - expected).max() < 2e-3


def _landing(clips):
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    return torch.stack([x, y]) + clips.flow


def test_valid_flow_lands_on_the_same_instance(clips):
    place = _landing(clips)
    assert ((place >= 0) & (place < 64))[clips.flow_valid[:, :, None].expand_as(place)].all()
    assert not (clips.flow_valid & clips.occluded).any()
    # of the four pixels around the landing place at least one shows the instance, but for thin slivers
    u, v = (place - 0.5).unbind(2)
    found = torch.zeros_like(clips.flow_valid)
    for rows in (v.floor(), v.ceil()):
        for columns in (u.floor(), u.ceil()):
            at = (rows.clamp(0, 63) * 64 + columns.clamp(0, 63)).long().flatten(2)
            found |= (
                clips.instance[:, 1:].flatten(2).gather(2, at) == clips.instance[:, :-1].flatten(2)
            ).view_as(found)
    assert found[clips.flow_valid].double().mean() > 0.999


def test_occluded_points_land_on_something_nearer(clips):
    place = _landing(clips)
    inside = ((place >= 1) & (place < 63)).all(2)
    at = (place[:, :, 1].clamp(0, 63).long() * 64 + place[:, :, 0].clamp(0, 63).long()).flatten(2)
    then = clips.instance[:, 1:].flatten(2).gather(2, at).view_as(clips.occluded)
    now = clips.instance[:, :-1]
    assert (then != now)[clips.occluded & inside].double().mean() > 0.8
    assert (then != now)[clips.flow_valid & inside].double().mean() < 0.03
    assert 0.005 < (clips.occluded & inside).double().mean() < 0.2


def test_flow_warps_the_next_frame_onto_this_one(clips):
    grid = _landing(clips).permute(0, 1, 3, 4, 2).flatten(0, 1) / 32 - 1
    nxt, now = clips.rgb[:, 1:].flatten(0, 1).float(), clips.rgb[:, :-1].flatten(0, 1).float()
    warped = F.grid_sample(nxt, grid, align_corners=False, padding_mode="border")
    valid = clips.flow_valid.flatten(0, 1)
    warped_error = (warped - now).abs().mean(1)[valid].mean()
    assert warped_error < 3
    assert warped_error < 0.4 * (nxt - now).abs().mean(1)[valid].mean()


def test_a_static_scene_seen_twice_at_one_time_does_not_flow(world):
    clips = world.clips(range(4), Clip(frames=2, step_s=0.0), ["flow"])
    assert clips.flow.abs().max() < 1e-3
    assert not clips.occluded.any()
    assert clips.flow_valid[..., 1:-1, 1:-1].all()
